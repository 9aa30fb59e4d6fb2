"""JSON lines over TCP with nothing around them: what is left to gain for an RPC library in threaded Python."""

from __future__ import annotations

import socket
import socketserver

from tests.benchmarks.systems.messages import reply_text
from tests.benchmarks.systems.pipelines import OrderedCalls, SharedCalls

BUFFER = 64 * 1024


class _Handler(socketserver.StreamRequestHandler):
    rbufsize = BUFFER
    disable_nagle_algorithm = True

    def handle(self) -> None:
        for line in self.rfile:
            self.request.sendall(reply_text(line).encode() + b"\n")


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 1024


def serve(port: int) -> None:
    """Serve each connection in a thread of its own."""
    _Server(("127.0.0.1", port), _Handler).serve_forever()


class _Lines:
    """A socket that carries lines."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = self._socket.makefile("rb", buffering=BUFFER)

    def send(self, text: str) -> None:
        """Send one line."""
        self._socket.sendall(text.encode() + b"\n")

    def receive(self) -> bytes:
        """Wait for one line; empty at the end."""
        return self._reader.readline()

    def close(self) -> None:
        """End the connection, waking a thread that reads."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class Client(OrderedCalls):
    """Sends a line and reads a line."""

    def __init__(self, port: int) -> None:
        lines = _Lines(port)
        super().__init__(lines.send, lines.receive)
        self.close = lines.close


class SharedClient(SharedCalls):
    """One connection for many threads."""

    def __init__(self, port: int) -> None:
        lines = _Lines(port)
        super().__init__(lines.send, lines.receive)
        self.close = lines.close
