"""oompa with its embedded server."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import oompa
from tests.benchmarks.systems import Plain
from tests.benchmarks.systems.pipelines import ANSWER_TIMEOUT, keep_in_flight


def make_server(codec: str, **options: Any) -> oompa.Server:
    """Return a calculator that also echoes."""
    return oompa.Server({"ADD": lambda pair: pair["x"] + pair["y"], "ECHO": lambda text: text}, codec=codec, **options)


def serve(port: int, codec: str) -> None:
    """Serve with the embedded server."""
    make_server(codec).run(port)


class Client(Plain):
    """An oompa client, for one thread or for many."""

    def __init__(self, port: int, codec: str, **options: Any) -> None:
        self._client = self._make(port, codec=codec, **options)
        self.close = self._client.close

    def _make(self, port: int, **options: Any) -> oompa.Client:
        return oompa.Client(f"ws://127.0.0.1:{port}", **options)

    def call_add(self, x: int, y: int) -> int:
        """Return x + y."""
        result: int = self._client.call("ADD", {"x": x, "y": y})
        return result

    def echo(self, text: str) -> str:
        """Return the text."""
        result: str = self._client.call("ECHO", text)
        return result

    def send_back(self, payload: Any) -> Any:
        """Return the payload."""
        return self._client.call("ECHO", payload)

    def pipeline(self, calls: int, in_flight: int) -> None:
        """Wait for Futures in the order in which they were made."""
        keep_in_flight(self._start, _result_of, calls, in_flight)

    def _start(self, x: int, y: int) -> Future[Any]:
        return self._client.dispatch("ADD", {"x": x, "y": y})


class PatientClient(Client):
    """A client with calls that are never answered."""

    def __init__(self, port: int, codec: str, pending: int) -> None:
        super().__init__(port, codec, max_pending=pending + 1, timeout=600.0, attempts=1, tolerance=None)
        self._unanswered = [self._client.dispatch("SILENCE", number) for number in range(pending)]


def _result_of(future: Future[Any]) -> int:
    result: int = future.result(ANSWER_TIMEOUT)
    return result
