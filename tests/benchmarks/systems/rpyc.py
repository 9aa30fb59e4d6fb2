"""rpyc: a ThreadedServer, and the remote functions looked up once per connection.

Integers and strings travel by value as positional arguments; a dict would travel as a reference and cost a call per
key. W2 uses ``async_``. W7 shares a plain connection: by default any thread that waits serves whatever arrives, and
the documentation warns that BgServingThread sleeps between looks.
"""

from __future__ import annotations

import rpyc
from rpyc.utils.server import ThreadedServer

from tests.benchmarks.systems.pipelines import keep_in_flight


class _Calculator(rpyc.Service):  # type: ignore[misc]
    def exposed_add(self, x: int, y: int) -> int:
        return x + y

    def exposed_echo(self, text: str) -> str:
        return text


def serve(port: int) -> None:
    """Serve each connection in a thread of its own."""
    ThreadedServer(_Calculator(), hostname="127.0.0.1", port=port).start()


class Client:
    """A connection, for one thread or for many."""

    def __init__(self, port: int) -> None:
        connection = rpyc.connect("127.0.0.1", port)
        self.call_add = connection.root.add
        self.echo = connection.root.echo
        self.close = connection.close

    def pipeline(self, calls: int, in_flight: int) -> None:
        """Make asynchronous calls."""
        keep_in_flight(rpyc.async_(self.call_add), lambda result: int(result.value), calls, in_flight)
