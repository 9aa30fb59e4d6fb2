"""oompa under gunicorn with two worker processes, and tasks that compute: one client, or a pool of four connections.

A connection leads to one of the workers, so a plain client keeps one of them busy, whatever its threads do. The pool finds
both.
"""

from __future__ import annotations

import oompa
from tests.benchmarks.systems import Plain
from tests.benchmarks.systems.gunicorn_server import run_gunicorn

WORKERS = "2"
THREADS = "64"
CONNECTIONS = 4
STEPS = 200_000


def make_server() -> oompa.Server:
    """Return a server whose one task keeps a core busy."""
    return oompa.Server({"COMPUTE": lambda payload: sum(number * number for number in range(STEPS))})


def serve(port: int, pooled: bool) -> None:
    """Serve with two processes."""
    run_gunicorn(
        f"{__name__}:make_server()",
        port,
        *("--workers", WORKERS, "--threads", THREADS, "--worker-connections", THREADS, "--config", "python:oompa.gunicorn"),
    )


class Client(Plain):
    """A client or a pool, for many threads."""

    def __init__(self, port: int, pooled: bool) -> None:
        url = f"ws://127.0.0.1:{port}"
        self._client = oompa.Pool(url, size=CONNECTIONS) if pooled else oompa.Client(url)
        self.close = self._client.close

    def compute(self) -> None:
        """Have the task run."""
        self._client.call("COMPUTE")
