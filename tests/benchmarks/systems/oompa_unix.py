"""oompa with its embedded server behind a Unix socket."""

from __future__ import annotations

from typing import Any

import oompa
from tests.benchmarks.machine import socket_path
from tests.benchmarks.systems.oompa import Client as TcpClient
from tests.benchmarks.systems.oompa import make_server


def serve(port: int, codec: str) -> None:
    """Serve at the socket that stands for the port."""
    make_server(codec).run(path=str(socket_path(port)))


class Client(TcpClient):
    """An oompa client, for one thread or for many."""

    def _make(self, port: int, **options: Any) -> oompa.Client:
        return oompa.Client(f"ws+unix:{socket_path(port)}", **options)
