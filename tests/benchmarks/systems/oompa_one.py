"""oompa with its embedded server, one task of a connection at a time: what does running more at once cost?"""

from __future__ import annotations

from tests.benchmarks.systems.oompa import Client, make_server

__all__ = ["Client", "serve"]


def serve(port: int, codec: str) -> None:
    """Serve with the embedded server."""
    make_server(codec, concurrency=1).run(port)
