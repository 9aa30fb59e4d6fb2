"""The peers under test: oompa's doors and ``Channel`` with the package's own limits, and a handler that echoes."""

import logging
from collections import Counter
from typing import Any, Callable, Iterable

from oompa.client.address import parse_url
from oompa.client.opening import ClientOpening
from oompa.server.embedded import EmbeddedServer
from oompa.server.handshake import Accepted, accept, check_handshake
from oompa.wire import frames
from oompa.wire.channel import Channel
from oompa.wire.closing import ChannelClosed
from oompa.wire.frames import Buffer, Inbound, Message
from oompa.wire.streams import stream_of

#: The defaults of ``Server`` and ``Client``.
LIMITS: dict[str, Any] = {
    "max_message_size": 16 * 1024 * 1024,
    "ping_interval": 25.0,
    "write_timeout": 10.0,
    "close_timeout": 2.0,
}


class _Binary(bytes):
    """A payload that goes out as a binary message; a channel sends none of its own accord."""


class _Framing(frames.Framing):
    def __init__(self, is_client: bool) -> None:
        super().__init__(is_client)
        self._plain_text, self.text = self.text, self._text

    def _text(self, text: bytes) -> bytes:
        """A whole frame: binary for what is marked so."""
        return self.control(frames.BINARY, text) if isinstance(text, _Binary) else self._plain_text(text)


class _Inbound(Inbound):
    """Counts the messages, and those that came in fragments or in binary."""

    def __init__(self, is_client: bool, max_message_size: int, lanes: "Counter[str]") -> None:
        super().__init__(is_client, max_message_size)
        self._lanes = lanes

    def feed(self, data: bytes) -> list[Message]:
        """As the original."""
        messages = super().feed(data)
        if messages:
            self._lanes["messages"] += len(messages)
        return messages

    def _take_fragment(self, opcode: int, is_last: bool, payload: Buffer, messages: list[Message]) -> None:
        super()._take_fragment(opcode, is_last, payload, messages)
        self._lanes["others"] += is_last


def echo(channel: Channel) -> None:
    """Send every message back until the channel ends."""
    try:
        while True:
            for message in channel.receive():
                channel.send(message.encode() if isinstance(message, str) else _Binary(message))
    except ChannelClosed:
        pass


class Testee:
    """Both roles of the echo; ``lanes`` tells how many messages came, and how many not as a whole text frame."""

    __test__ = False

    def __init__(self) -> None:
        self.lanes: "Counter[str]" = Counter()

    def channel(self, sock: Any, *, is_client: bool, received: bytes = b"") -> Channel:
        """A channel that can echo binary messages, too."""
        channel = Channel(stream_of(sock), is_client=is_client, received=received, **LIMITS)
        channel._outbox._framing = _Framing(is_client)
        channel._inbound = _Inbound(is_client, LIMITS["max_message_size"], self.lanes)
        channel.set_tick(None)
        return channel

    # As a server.

    def listen(self) -> EmbeddedServer:
        """Serve the echo on a port of its own choosing."""
        return EmbeddedServer("127.0.0.1", 0, self._serve, logging.getLogger("tests.autobahn"), handshake_timeout=10.0)

    def _serve(self, environ: Any, start_response: Callable[..., Any]) -> Iterable[bytes]:
        check_handshake(environ)
        accepted: Accepted = accept(environ, {})
        channel = self.channel(accepted.sock, is_client=False)
        try:
            echo(channel)
        finally:
            channel.detach()
        start_response("200 OK", [("Content-Length", "0")])  # Werkzeug writes it whatever happens; the socket is shut down
        return []

    # As a client.

    def open(self, url: str) -> Channel:
        """Connect."""
        opening = ClientOpening([parse_url(url)], headers={}, ssl_context=None, proxy={}, timeout=10.0)
        opened = opening.open()
        return self.channel(opened.sock, is_client=True, received=opened.received)

    def ask(self, url: str) -> str:
        """Connect, take one message, and see the connection to its end."""
        channel, answers = self.open(url), []
        try:
            while True:
                answers.extend(channel.receive())
        except ChannelClosed:
            return "".join(map(str, answers))
        finally:
            channel.release()

    def run_cases(self, url: str, agent: str) -> None:
        """Run every case the fuzzing server at ``url`` has."""
        for case in range(1, int(self.ask(f"{url}/getCaseCount")) + 1):
            channel = self.open(f"{url}/runCase?case={case}&agent={agent}")
            try:
                echo(channel)
            finally:
                channel.release()
        self.ask(f"{url}/updateReports?agent={agent}")
