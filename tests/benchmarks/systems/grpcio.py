"""grpcio: the synchronous server with a thread pool, and protobuf messages.

``grpc.protos_and_services`` makes the code of calculator.proto when the module is imported, the very code that protoc
would write into files. Each client has connections of its own; by default the channels of a process share one.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from tests.benchmarks.systems.pipelines import keep_in_flight

_messages: Any
_services: Any
_messages, _services = grpc.protos_and_services("tests/benchmarks/systems/calculator.proto")

WORKERS = 16
OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))


class _Calculator(_services.CalculatorServicer):  # type: ignore[misc]
    def Add(self, pair: Any, context: grpc.ServicerContext) -> Any:
        return _messages.Sum(value=pair.x + pair.y)

    def Echo(self, text: Any, context: grpc.ServicerContext) -> Any:
        return text


def serve(port: int) -> None:
    """Serve all connections with the threads of one pool."""
    server = grpc.server(ThreadPoolExecutor(max_workers=WORKERS))
    _services.add_CalculatorServicer_to_server(_Calculator(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


class Client:
    """A channel, for one thread or for many."""

    def __init__(self, port: int) -> None:
        channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS)
        self._stub = _services.CalculatorStub(channel)
        self.close = channel.close

    def call_add(self, x: int, y: int) -> int:
        """Return x + y."""
        result: int = self._stub.Add(_messages.Pair(x=x, y=y)).value
        return result

    def echo(self, text: str) -> str:
        """Return the text."""
        result: str = self._stub.Echo(_messages.Text(text=text)).text
        return result

    def pipeline(self, calls: int, in_flight: int) -> None:
        """Make asynchronous calls."""
        keep_in_flight(
            lambda x, y: self._stub.Add.future(_messages.Pair(x=x, y=y)),
            lambda call: int(call.result().value),
            calls,
            in_flight,
        )
