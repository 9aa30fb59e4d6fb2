"""rpyc: a ThreadedServer, and the remote functions looked up once per connection.

Integers and strings travel by value as positional arguments; a dict would travel as a reference and cost a call per
key. W2 uses ``async_``. W7 shares a plain connection: by default any thread that waits serves whatever arrives, and
the documentation warns that BgServingThread sleeps between looks. W8 is pickled at each end, as ``obtain`` and ``deliver`` do.
"""

from __future__ import annotations

import pickle
from typing import Any

import rpyc
from rpyc.utils.server import ThreadedServer

from tests.benchmarks.systems import Plain
from tests.benchmarks.systems.pipelines import keep_in_flight


class _Calculator(rpyc.Service):  # type: ignore[misc]
    def exposed_add(self, x: int, y: int) -> int:
        return x + y

    def exposed_echo(self, text: str) -> str:
        return text

    def exposed_send_back(self, pickled: bytes) -> bytes:
        return pickle.dumps(pickle.loads(pickled))


def serve(port: int) -> None:
    """Serve each connection in a thread of its own."""
    ThreadedServer(_Calculator(), hostname="127.0.0.1", port=port).start()


class Client(Plain):
    """A connection, for one thread or for many."""

    def __init__(self, port: int) -> None:
        connection = rpyc.connect("127.0.0.1", port)
        self.call_add = connection.root.add
        self.echo = connection.root.echo
        self._send_back = connection.root.send_back
        self.close = connection.close

    def send_back(self, payload: Any) -> Any:
        """Return the payload, by value."""
        return pickle.loads(self._send_back(pickle.dumps(payload)))

    def pipeline(self, calls: int, in_flight: int) -> None:
        """Make asynchronous calls."""
        keep_in_flight(rpyc.async_(self.call_add), lambda result: int(result.value), calls, in_flight)
