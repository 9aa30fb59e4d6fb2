"""Pyro5: a daemon with its thread server and the default serializer, and a proxy per thread.

The pool is raised from 80 threads so that W5 finds one for each of its connections.
"""

from __future__ import annotations

from Pyro5 import config
from Pyro5.api import Daemon, Proxy, expose

from tests.benchmarks.systems import Plain

POOL_SIZE = 2048


@expose
class Calculator:
    """What the daemon serves."""

    def add(self, x: int, y: int) -> int:
        """Return x + y."""
        return x + y

    def echo(self, text: str) -> str:
        """Return the text."""
        return text


def serve(port: int) -> None:
    """Serve each connection in a thread of the pool."""
    config.THREADPOOL_SIZE = POOL_SIZE
    daemon = Daemon(host="127.0.0.1", port=port)
    daemon.register(Calculator(), objectId="calculator")
    daemon.requestLoop()


class Client(Plain):
    """A proxy, which belongs to the thread that made it."""

    def __init__(self, port: int) -> None:
        proxy = Proxy(f"PYRO:calculator@127.0.0.1:{port}")
        proxy._pyroBind()  # connects now; part of Pyro's interface in spite of its name
        self.call_add = proxy.add
        self.echo = self.send_back = proxy.echo
        self.close = proxy._pyroRelease
