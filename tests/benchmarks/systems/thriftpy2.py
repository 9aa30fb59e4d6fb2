"""thriftpy2: its threaded server, and the transport and protocol that are written in Cython.

Timeouts, 3 seconds by default, are off: they would end the idle connections of W5, and cost a system call per read.
Structured payloads are its structs, which is what its users have instead of dicts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import thriftpy2
from thriftpy2.protocol import TCyBinaryProtocolFactory
from thriftpy2.rpc import make_client, make_server
from thriftpy2.transport import TCyBufferedTransportFactory

FACTORIES: dict[str, Any] = {
    "proto_factory": TCyBinaryProtocolFactory(),  # type: ignore[no-untyped-call]
    "trans_factory": TCyBufferedTransportFactory(),
}

_calculator: Any = thriftpy2.load(str(Path(__file__).with_name("calculator.thrift")))


class _Handler:
    def add(self, pair: Any) -> int:
        result: int = pair.x + pair.y
        return result

    def echo(self, text: str) -> str:
        return text

    def send_back_mixed(self, mixed: Any) -> Any:
        return mixed

    def send_back_rows(self, rows: list[Any]) -> list[Any]:
        return rows


def serve(port: int) -> None:
    """Serve each connection in a thread of its own."""
    make_server(_calculator.Calculator, _Handler(), "127.0.0.1", port, client_timeout=0, **FACTORIES).serve()


class Client:
    """A connection for one thread."""

    def __init__(self, port: int) -> None:
        self._client = make_client(_calculator.Calculator, "127.0.0.1", port, timeout=0, **FACTORIES)
        self.echo = self._client.echo
        self.close = self._client.close

    def call_add(self, x: int, y: int) -> int:
        """Return x + y."""
        result: int = self._client.add(_calculator.Pair(x, y))
        return result

    def prepared(self, payload: Any) -> Any:
        """Return structs instead of dicts."""
        if isinstance(payload, list):
            return [_calculator.Row(**row) for row in payload]
        places = {name: _calculator.Place(**value) for name, value in payload.items() if isinstance(value, dict)}
        return _calculator.Mixed(**{**payload, **places})

    def send_back(self, payload: Any) -> Any:
        """Return the struct, or the list of them."""
        return (self._client.send_back_rows if isinstance(payload, list) else self._client.send_back_mixed)(payload)
