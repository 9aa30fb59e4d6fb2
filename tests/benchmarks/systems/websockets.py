"""websockets.sync without compression; calls are the plainest that can be written over it.

Its documentation allows any thread to send and one at a time to receive.
"""

from __future__ import annotations

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as make_server

from tests.benchmarks.systems.messages import reply_text
from tests.benchmarks.systems.pipelines import OrderedCalls, SharedCalls

MAX_SIZE = 16 * 1024 * 1024


def serve(port: int) -> None:
    """Serve each connection in a thread of its own."""
    with make_server(_handle, "127.0.0.1", port, compression=None, max_size=MAX_SIZE) as server:
        server.serve_forever()


def _handle(connection: ServerConnection) -> None:
    for text in connection:
        connection.send(reply_text(text))


def _connect(port: int) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{port}", compression=None, max_size=MAX_SIZE, proxy=None)


class Client(OrderedCalls):
    """Sends a message and receives a message."""

    def __init__(self, port: int) -> None:
        connection = _connect(port)
        super().__init__(connection.send, connection.recv)
        self.close = connection.close


class SharedClient(SharedCalls):
    """One connection for many threads."""

    def __init__(self, port: int) -> None:
        connection = _connect(port)
        super().__init__(connection.send, lambda: _receive(connection))
        self.close = connection.close


def _receive(connection: ClientConnection) -> str | bytes:
    try:
        return connection.recv()
    except ConnectionClosed:
        return ""
