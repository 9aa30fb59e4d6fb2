"""oompa under gunicorn: threads enough for every connection, and worker_connections to match."""

from __future__ import annotations

from tests.benchmarks.systems.gunicorn_server import run_gunicorn
from tests.benchmarks.systems.oompa import Client, make_server

__all__ = ["Client", "make_server", "serve"]

THREADS = "1024"


def serve(port: int, codec: str) -> None:
    """Serve with gunicorn's threads."""
    run_gunicorn(
        f"{__name__}:make_server('{codec}')",
        port,
        *("--threads", THREADS, "--worker-connections", THREADS, "--config", "python:oompa.gunicorn"),
    )
