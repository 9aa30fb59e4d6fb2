"""Keeping a number of calls in flight, and calls for the peers that bring a connection and no calls.

A connection that is used by one thread answers in order, so its ``OrderedCalls`` send a message and receive one.
``SharedCalls`` have what threads need that share a connection: a reader, and a table of pending calls.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections import deque
from concurrent.futures import Future
from typing import Any, Callable, TypeVar

from tests.benchmarks.systems import Plain
from tests.benchmarks.systems.messages import request_text

Call = TypeVar("Call")

ANSWER_TIMEOUT = 30.0


def keep_in_flight(
    start: Callable[[int, int], Call], finish: Callable[[Call], int], calls: int, in_flight: int
) -> None:
    """Start so many ADDs, never more than so many ahead of the one whose answer is awaited.

    Args:
        start: sends x + y and returns the call.
        finish: waits for a call and returns its answer.
    """
    window: deque[Call] = deque()
    total = 0
    for x in range(calls):
        if len(window) == in_flight:
            total += finish(window.popleft())
        window.append(start(x, 1))
    total += sum(map(finish, window))
    if total != calls * (calls + 1) // 2:
        raise AssertionError("wrong answers")


class OrderedCalls(Plain):
    """Calls of one thread over one connection."""

    def __init__(self, send: Callable[[str], None], receive: Callable[[], str | bytes]) -> None:
        self._send = send
        self._receive = receive

    def call_add(self, x: int, y: int) -> int:
        """Return x + y."""
        self._start_add(x, y)
        return self._finish_add()

    def echo(self, text: str) -> str:
        """Return the text."""
        self._send(request_text("ECHO", text, 0))
        result: str = json.loads(self._receive())["payload"]
        return result

    def send_back(self, payload: Any) -> Any:
        """Return the payload."""
        self._send(request_text("ECHO", payload, 0))
        return json.loads(self._receive())["payload"]

    def pipeline(self, calls: int, in_flight: int) -> None:
        """Send ahead."""
        keep_in_flight(self._start_add, self._finish_add, calls, in_flight)

    def _start_add(self, x: int, y: int) -> int:
        self._send(request_text("ADD", {"x": x, "y": y}, x))
        return x

    def _finish_add(self, _: int = 0) -> int:
        result: int = json.loads(self._receive())["payload"]
        return result


class SharedCalls:
    """ADDs of many threads over one connection: each reply goes to the Future that waits for its id.

    Threads: any thread may call. One daemon thread reads. The lock keeps messages whole while they are sent.
    """

    def __init__(self, send: Callable[[str], None], receive: Callable[[], str | bytes]) -> None:
        self._send = send
        self._receive = receive
        self._sending = threading.Lock()
        self._ids = itertools.count()
        self._pending: dict[int, Future[int]] = {}
        threading.Thread(target=self._read, daemon=True).start()

    def call_add(self, x: int, y: int) -> int:
        """Return x + y."""
        request_id = next(self._ids)
        future = self._pending[request_id] = Future()
        text = request_text("ADD", {"x": x, "y": y}, request_id)
        with self._sending:
            self._send(text)
        return future.result(ANSWER_TIMEOUT)

    def _read(self) -> None:
        """Settle what arrives, until an empty message tells of the end."""
        while text := self._receive():
            reply = json.loads(text)
            self._pending.pop(reply["id"]).set_result(reply["payload"])
