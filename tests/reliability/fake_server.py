"""A server played by hand: exactly the bytes a test tells it to send, and a strict reader of what a client sends."""

import base64
import hashlib
import json
import re
import select
import socket
import struct
from typing import Any

from raw_peer import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, frame, masked

from oompa import Client

from .harness import CEILING, MOMENT, add

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class FakeConnection:
    """The server's end of one connection, driven by the test: exactly the bytes it is told to send."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = bytearray()
        sock.settimeout(CEILING)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handshake(self, headers: dict[str, str] | None = None) -> None:
        """Accept the upgrade."""
        self.sock.sendall(self.handshake_answer(headers))

    def handshake_answer(self, headers: dict[str, str] | None = None) -> bytes:
        """Read the upgrade request; return the answer that accepts it."""
        told = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items()).encode()
        key = re.search(rb"(?i)sec-websocket-key: *([^\r]+)", self.http_request())
        assert key is not None
        accept = base64.b64encode(hashlib.sha1(key[1] + _GUID).digest())
        return (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n" + told + b"\r\n"
        )

    def http_request(self) -> bytes:
        """Read the head of an HTTP request."""
        while b"\r\n\r\n" not in self.received:
            assert self._more(), "the client left within its handshake"
        head, _, rest = bytes(self.received).partition(b"\r\n\r\n")
        self.received[:] = rest
        return head

    def frame(self) -> Frame | None:
        """Read one frame, which must be masked and legal; None at the end of the stream."""
        while (parsed := self._parse()) is None:
            if not self._more():
                assert not self.received, f"the stream ends within a frame: {bytes(self.received[:80])!r}"
                return None
        return parsed

    def request(self) -> dict[str, Any] | None:
        """Read the next request, answering pings before it; None when the client leaves instead."""
        while (got := self.frame()) is not None and got.opcode in (PING, PONG):
            if got.opcode == PING:
                self.send(frame(PONG, got.payload, mask=None))
        if got is None or got.opcode == CLOSE:
            return None
        assert got.opcode == TEXT and got.fin, got
        message = json.loads(got.payload.decode())
        assert isinstance(message, dict)
        return message

    def requests(self, count: int) -> list[dict[str, Any]]:
        """Read so many requests."""
        found = [self.request() for _ in range(count)]
        assert None not in found, f"the client left after {found}"
        return found  # type: ignore[return-value]

    def closing(self) -> int | None:
        """Read up to the client's close frame and return its code; None if the stream ends without one."""
        while (got := self.frame()) is not None:
            if got.opcode == CLOSE:
                return got.close_code
        return None

    def reply(self, request: dict[str, Any], payload: Any) -> None:
        """Answer a request with OK."""
        self.text(json.dumps({"type": "OK", "id": request["id"], "payload": payload}))

    def text(self, text: str) -> None:
        """Send a text message."""
        self.send(frame(TEXT, text.encode(), mask=None))

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.sock.sendall(data)

    def rest(self) -> bytes:
        """Read to the end, FIN or RST, and return every byte not taken before."""
        while self._more():
            pass
        return bytes(self.received)

    def is_silent(self, seconds: float = MOMENT) -> bool:
        """Tell whether nothing arrives for a while, not even an end."""
        return not self.received and not select.select([self.sock], [], [], seconds)[0]

    def fin(self) -> None:
        """End the stream towards the client, without a close frame."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End the connection with an RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _more(self) -> bool:
        try:
            data = self.sock.recv(1 << 18)
        except ConnectionError:
            return False
        self.received += data
        return bool(data)

    def _parse(self) -> Frame | None:
        got = self.received
        if len(got) < 2:
            return None
        assert not got[0] & 0x70, f"reserved bits: {bytes(got[:80])!r}"
        assert got[0] & 0x0F in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG), f"no frame: {bytes(got[:80])!r}"
        assert got[1] & 0x80, f"a client must mask: {bytes(got[:80])!r}"
        extra = {126: 2, 127: 8}.get(got[1] & 0x7F, 0)
        start = 2 + extra + 4
        size = int.from_bytes(got[2 : 2 + extra], "big") if extra else got[1] & 0x7F
        if len(got) < start or len(got) < start + size:
            return None
        payload = masked(bytes(got[start : start + size]), bytes(got[start - 4 : start]))
        parsed = Frame(got[0] & 0x0F, payload, bool(got[0] & 0x80))
        del got[: start + size]
        return parsed


class FakeServer:
    """Listens on 127.0.0.1; the test accepts and plays the server by hand."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(CEILING)
        self.port = self._listener.getsockname()[1]
        self._connections: list[FakeConnection] = []

    def accept_raw(self) -> FakeConnection:
        """Wait for the next connection and leave its handshake to the test."""
        connection = FakeConnection(self._listener.accept()[0])
        self._connections.append(connection)
        return connection

    def accept(self, headers: dict[str, str] | None = None) -> FakeConnection:
        """Wait for the next connection and shake hands; ``headers`` go with the answer."""
        connection = self.accept_raw()
        connection.handshake(headers)
        return connection

    def is_left_alone(self, seconds: float = MOMENT) -> bool:
        """Tell whether nobody connects for a while."""
        return not select.select([self._listener], [], [], seconds)[0]

    def close(self) -> None:
        self._listener.close()
        for connection in self._connections:
            connection.sock.close()


def close_frame_unmasked(code: int) -> bytes:
    return frame(CLOSE, struct.pack("!H", code), mask=None)


def lives_on(client: Client, connection: FakeConnection) -> None:
    """Make a call on the connection that is there."""
    future = add(client, 3, 4)
    request = connection.request()
    assert request == {"type": "ADD", "payload": {"x": 3, "y": 4}, "id": future.id}
    connection.reply(request, 7)
    assert future.result(CEILING) == 7
