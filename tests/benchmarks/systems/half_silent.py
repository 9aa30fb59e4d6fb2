"""A server that answers ADD and nothing else, so that calls stay pending on a client and cost a server nothing."""

from __future__ import annotations

import json

from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as make_server

from tests.benchmarks.systems.messages import reply_text


def serve(port: int) -> None:
    """Serve each connection in a thread of its own."""
    with make_server(_handle, "127.0.0.1", port, compression=None) as server:
        server.serve_forever()


def _handle(connection: ServerConnection) -> None:
    for text in connection:
        if json.loads(text)["type"] == "ADD":
            connection.send(reply_text(text))
