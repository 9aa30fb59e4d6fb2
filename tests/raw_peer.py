"""A WebSocket peer on a bare socket, for tests of what a well-behaved client would never do.

It sends exactly the bytes it is told to, whole or in pieces, and judges every byte it gets: what comes after the
handshake must be frames as :rfc:`6455` wants them from a server, so text of HTTP in the stream is an AssertionError.
Every wait has a deadline in float seconds. One thread per peer; nothing here starts another.
"""

import base64
import contextlib
import hashlib
import json
import os
import random
import re
import selectors
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

CEILING = 5.0
"""Seconds any one wait may take unless its caller says otherwise."""

#: gunicorn's own errors end their head with a bare line feed under Python 3.14, whose ``textwrap.dedent`` takes the other away.
_END_OF_HEAD = re.compile(rb"\r\n\r?\n")
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_READ_SIZE = 1 << 18


class Frame(NamedTuple):
    """One frame as it came, or a whole message once its fragments are joined."""

    opcode: int
    payload: bytes
    fin: bool = True

    @property
    def close_code(self) -> int | None:
        """The close code of a close frame; None when its body is empty."""
        return struct.unpack("!H", self.payload[:2])[0] if self.payload else None


class Ending(NamedTuple):
    """How a connection ended: what came before the end, and the close code, None without a close frame."""

    messages: list[bytes]
    close_code: int | None
    reset: bool


class Response(NamedTuple):
    """An HTTP response: status, headers (names in lower case) and body."""

    status: int
    headers: dict[str, str]
    body: bytes


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = b"\x37\xfa\x21\x3d",
    length: int | None = None,
    length_bytes: int | None = None,
) -> bytes:
    """Build one frame with any bits.

    Args:
        rsv: the three reserved bits as a number from 0 to 7.
        mask: the masking key, None for an unmasked frame.
        length: the length to declare, None for the true one.
        length_bytes: how many bytes tell the length: 0 (in the second byte), 2 or 8; None for the fewest.
    """
    declared = len(payload) if length is None else length
    if length_bytes is None:
        length_bytes = 0 if declared < 126 else 2 if declared < 1 << 16 else 8
    short = {0: declared, 2: 126, 8: 127}[length_bytes]
    head = bytes([fin << 7 | rsv << 4 | opcode, (mask is not None) << 7 | short])
    if length_bytes:
        head += declared.to_bytes(length_bytes, "big")
    return head + payload if mask is None else head + mask + masked(payload, mask)


def close_frame(code: int, reason: bytes = b"") -> bytes:
    """Build a close frame, whatever its code."""
    return frame(CLOSE, struct.pack("!H", code) + reason)


def request_frame(task_type: Any, payload: Any = None, request_id: Any = "call") -> bytes:
    """Build the text frame of a request."""
    return frame(TEXT, json.dumps({"type": task_type, "payload": payload, "id": request_id}).encode())


def masked(payload: bytes, key: bytes) -> bytes:
    """Apply a masking key, fast enough for 64 MiB."""
    if key == b"\0\0\0\0":
        return payload
    size = len(payload)
    pad = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big")


def upgrade(port: int, *, path: str = "/", without: str = "", extra: str = "") -> bytes:
    """Build the opening handshake of a well-behaved client, less one header, plus any lines."""
    lines = [
        f"Host: 127.0.0.1:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        "Sec-WebSocket-Version: 13",
    ]
    kept = [line for line in lines if not without or not line.startswith(without + ":")]
    return "\r\n".join([f"GET {path} HTTP/1.1", *kept]).encode() + f"\r\n{extra}\r\n".encode("latin-1")


def chunks(data: bytes, rng: random.Random) -> Iterator[bytes]:
    """Cut data into pieces of random sizes: single bytes now and then, a few hundred pieces at most."""
    largest = max(1, len(data) // rng.choice([3, 30, 150]))
    at = 0
    while at < len(data):
        size = rng.choice([1, rng.randint(1, largest), largest])
        yield data[at:at + size]
        at += size


class RawPeer:
    """A TCP connection to a server on this machine, from which any byte may be sent.

    Args:
        port: where the server listens on 127.0.0.1.
        receive_buffer: bytes the kernel may hold for us, None for its default; small for a peer that never reads.
    """

    def __init__(self, port: int, *, receive_buffer: int | None = None) -> None:
        self.port = port
        self.ended = False
        self.was_reset = False
        self._received = bytearray()
        self._socket = socket.socket()
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(CEILING)
        try:
            self._socket.connect(("127.0.0.1", port))
        except OSError:
            self._socket.close()
            raise
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)

    @classmethod
    def websocket(cls, port: int, *, receive_buffer: int | None = None) -> "RawPeer":
        """Connect and finish the opening handshake."""
        peer = cls(port, receive_buffer=receive_buffer)
        try:
            peer.handshake()
        except BaseException:
            peer.close()
            raise
        return peer

    # Sending

    def send(self, data: bytes, *, reading: bool = True, timeout: float = CEILING) -> bool:
        """Send bytes as they are, taking in what the server says meanwhile so that neither waits for the other.

        Args:
            reading: False for a peer that never reads.

        Returns:
            False when the server ended the connection before it had everything.

        Raises:
            TimeoutError: the server took nothing more for `timeout` seconds.
        """
        rest = memoryview(data)
        while rest:
            readable, writable = self._wait(reading and not self.ended, True, 0.0 if self.ended else timeout)
            if readable:
                self._receive()
            elif not writable and not self.ended:
                raise TimeoutError(f"the server does not take the last {len(rest)} of {len(data)} bytes")
            if self.was_reset or (self.ended and not writable):
                return False
            if writable:
                try:
                    rest = rest[self._socket.send(rest[:_READ_SIZE]):]
                except BlockingIOError:
                    pass
                except ConnectionError:
                    return False
        return True

    def send_chopped(self, data: bytes, rng: random.Random) -> bool:
        """Send bytes in pieces of random sizes; returns what `send` does."""
        return all(self.send(piece) for piece in chunks(data, rng))

    # Receiving

    def handshake(self) -> None:
        """Ask for the upgrade and hold the answer against :rfc:`6455#section-4.2.2`."""
        request = upgrade(self.port)
        self.send(request)
        self.upgraded(request)

    def upgraded(self, request: bytes) -> None:
        """Read the answer to an opening handshake that was sent, which must be 101 with the right key."""
        response = self.response()
        assert response.status == 101, response
        key = request.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()
        assert response.headers["sec-websocket-accept"] == accept
        assert "sec-websocket-extensions" not in response.headers

    def response(self, timeout: float = CEILING) -> Response:
        """Read one HTTP response.

        Raises:
            EOFError: the connection ended first.
        """
        deadline = time.monotonic() + timeout
        while (end := _END_OF_HEAD.search(self._received)) is None:
            self._more(deadline)
        head = bytes(self._received[:end.start()])
        del self._received[:end.end()]
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, _ = (first + " ").split(" ", 2)
        assert version.startswith("HTTP/1."), first
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if status == "101":
            size = 0
        elif "content-length" in headers:
            size = int(headers["content-length"])
            while len(self._received) < size:
                self._more(deadline)
        else:
            self._read_to_end(deadline)
            size = len(self._received)
        body = bytes(self._received[:size])
        del self._received[:size]
        return Response(int(status), headers, body)

    def frame(self, timeout: float = CEILING) -> Frame | None:
        """Read one frame and hold it against the RFC; None when the stream ends between two frames."""
        deadline = time.monotonic() + timeout
        parsed = self._parse()
        while parsed is None:
            try:
                self._more(deadline)
            except EOFError:
                # A reset may cut a frame anywhere, as the network does; an orderly end may not.
                assert self.was_reset or not self._received, f"the stream ends in a frame: {self._seen()}"
                return None
            parsed = self._parse()
        return parsed

    def message(self, timeout: float = CEILING) -> Frame | None:
        """Read one whole message or close frame; pings are answered and pongs passed over."""
        deadline = time.monotonic() + timeout
        parts: list[bytes] = []
        opcode = None
        while True:
            got = self.frame(deadline - time.monotonic())
            if got is None or got.opcode == CLOSE:
                return got
            if got.opcode == PING:
                self.send(frame(PONG, got.payload))
            elif got.opcode != PONG:
                assert (got.opcode == CONTINUATION) == (opcode is not None), f"fragments out of order: {got}"
                opcode = got.opcode if opcode is None else opcode
                parts.append(got.payload)
                if got.fin:
                    return Frame(opcode, b"".join(parts))

    def reply(self, timeout: float = CEILING) -> Any:
        """Read one reply, which must be a text message of strict JSON."""
        got = self.message(timeout)
        assert got is not None, "the connection ended where a reply was due"
        assert got.opcode == TEXT, f"a reply was due, not {got.opcode:#x} {got.payload[:80]!r}"
        text = got.payload.decode("utf-8")
        return json.loads(text, parse_constant=lambda name: _refuse(f"{name} is not JSON"))

    def call(self, task_type: Any, payload: Any = None, timeout: float = CEILING) -> Any:
        """Send a request and return its reply, the next message to come."""
        self.send(request_frame(task_type, payload))
        return self.reply(timeout)

    def ending(self, timeout: float = CEILING) -> Ending:
        """Read to the end of the connection, answering a close frame; after that frame nothing may come.

        Raises:
            TimeoutError: the server left the connection open.
        """
        deadline = time.monotonic() + timeout
        messages: list[bytes] = []
        while True:
            got = self.message(deadline - time.monotonic())
            if got is None:
                return Ending(messages, None, self.was_reset)
            if got.opcode == CLOSE:
                break
            messages.append(got.payload)
        self.send(frame(CLOSE, got.payload[:2]))
        self._read_to_end(deadline)
        assert not self._received, f"bytes after the close frame: {self._seen()}"
        return Ending(messages, got.close_code, self.was_reset)

    def ends(self, timeout: float = CEILING) -> bool:
        """Tell whether the server ends the TCP connection in time, whatever it sends before."""
        try:
            self._read_to_end(time.monotonic() + timeout)
        except TimeoutError:
            return False
        return True

    # Leaving

    def half_close(self) -> None:
        """Send nothing more and say so (FIN), but go on reading."""
        with contextlib.suppress(OSError):  # the server may have ended the connection first
            self._socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Vanish with a RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def close(self) -> None:
        """Close the socket without a word."""
        self._socket.close()

    def __enter__(self) -> "RawPeer":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # The socket

    def _wait(self, reading: bool, writing: bool, timeout: float) -> tuple[bool, bool]:
        with selectors.DefaultSelector() as selector:
            wanted = reading * selectors.EVENT_READ | writing * selectors.EVENT_WRITE
            selector.register(self._socket, wanted)
            ready = sum(events for _, events in selector.select(max(0.0, timeout)))
        return bool(ready & selectors.EVENT_READ), bool(ready & selectors.EVENT_WRITE)

    def _receive(self) -> bool:
        """Take in what has come; False when the connection has ended."""
        try:
            data = self._socket.recv(_READ_SIZE)
        except BlockingIOError:
            return True
        except ConnectionError:
            self.was_reset = True
            data = b""
        self._received += data
        self.ended = not data
        return not self.ended

    def _more(self, deadline: float) -> None:
        if self.ended:
            raise EOFError(f"the connection ended after {self._seen()}")
        readable, _ = self._wait(True, False, deadline - time.monotonic())
        if not readable:
            raise TimeoutError(f"nothing more from the server after {self._seen()}")
        if not self._receive():
            raise EOFError(f"the connection ended after {self._seen()}")

    def _read_to_end(self, deadline: float) -> None:
        while not self.ended:
            try:
                self._more(deadline)
            except EOFError:
                return

    def _parse(self) -> Frame | None:
        got = self._received
        if len(got) < 2:
            return None
        first, second = got[0], got[1]
        assert not first & 0x70, f"reserved bits in the stream: {self._seen()}"
        assert first & 0x0F in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG), f"not a frame: {self._seen()}"
        assert not second & 0x80, f"a server must not mask: {self._seen()}"
        size = {126: 2, 127: 8}.get(second, 0)
        if len(got) < 2 + size:
            return None
        length = int.from_bytes(got[2:2 + size], "big") if size else second
        assert not size or length >= (126 if size == 2 else 1 << 16), f"length not minimal: {self._seen()}"
        opcode, fin = first & 0x0F, bool(first & 0x80)
        assert opcode < CLOSE or (fin and length < 126), f"a bad control frame: {self._seen()}"
        if len(got) < 2 + size + length:
            return None
        payload = bytes(got[2 + size:2 + size + length])
        del got[:2 + size + length]
        return Frame(opcode, payload, fin)

    def _seen(self) -> str:
        return f"{bytes(self._received[:80])!r} ({len(self._received)} bytes unread)"


def health(port: int, timeout: float = CEILING) -> tuple[int, bytes]:
    """Ask GET /health on a connection of its own; returns the status and the body."""
    with RawPeer(port) as peer:
        peer.send(f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
        answer = peer.response(timeout)
    return answer.status, answer.body


def _refuse(why: str) -> None:
    raise AssertionError(why)
