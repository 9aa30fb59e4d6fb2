"""rpyc with structured payloads by its own serializer, which knows tuples and no dicts: they are taken apart and put together.

Beside it, ``rpyc`` sends them pickled, as ``rpyc.utils.classic.obtain`` and ``deliver`` do, which only peers that trust each
other may.
"""

from __future__ import annotations

from typing import Any

import rpyc
from rpyc.utils.server import ThreadedServer

from tests.benchmarks.systems import Plain


def taken_apart(value: Any) -> Any:
    """Return a value as tuples: each list and each dict with a word of what it was."""
    if isinstance(value, dict):
        return ("dict", *((key, taken_apart(each)) for key, each in value.items()))
    if isinstance(value, list):
        return ("list", *map(taken_apart, value))
    return value


def put_together(value: Any) -> Any:
    """Return what ``taken_apart`` was given."""
    if not isinstance(value, tuple):
        return value
    if value[0] == "dict":
        return {key: put_together(each) for key, each in value[1:]}
    return [put_together(each) for each in value[1:]]


class _Service(rpyc.Service):  # type: ignore[misc]
    def exposed_send_back(self, parts: Any) -> Any:
        return taken_apart(put_together(parts))


def serve(port: int) -> None:
    """Serve each connection in a thread of its own."""
    ThreadedServer(_Service(), hostname="127.0.0.1", port=port).start()


class Client(Plain):
    """A connection for one thread."""

    def __init__(self, port: int) -> None:
        connection = rpyc.connect("127.0.0.1", port)
        self._send_back = connection.root.send_back
        self.close = connection.close

    def send_back(self, payload: Any) -> Any:
        """Return the payload."""
        return put_together(self._send_back(taken_apart(payload)))
