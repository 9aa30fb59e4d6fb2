"""Calls made against tasks run: they are equal under each loss of the connection, and under back-pressure."""

import contextlib
import random
import threading
import time
from collections import Counter
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest
from faults import FaultProxy

from oompa import Client, OompaError, Server, current_request

from .harness import CEILING, Connect, a_moment, eventually, outcomes

#: Losses of the connection, each as what the proxy does.
LOSSES: dict[str, Any] = {
    "reset": lambda proxy, rng: proxy.reset(),
    "drop": lambda proxy, rng: proxy.drop(),
    "fin up": lambda proxy, rng: proxy.fin("up"),
    "fin down": lambda proxy, rng: proxy.fin("down"),
    "truncate up": lambda proxy, rng: proxy.truncate("up", rng.randrange(400)),
    "truncate down": lambda proxy, rng: proxy.truncate("down", rng.randrange(400)),
    "refuse": lambda proxy, rng: (proxy.refuse(), proxy.reset(), a_moment(0.05), proxy.heal()),
    "blackhole down": lambda proxy, rng: (proxy.blackhole("down"), a_moment(0.03), proxy.heal(), proxy.reset()),
    "blackhole up": lambda proxy, rng: (proxy.blackhole("up"), a_moment(0.03), proxy.heal(), proxy.reset()),
    "stall down": lambda proxy, rng: (proxy.stall("down"), a_moment(0.03), proxy.heal(), proxy.reset()),
}

#: Calls have all the time they need: what is sent again is sent for the loss of a connection alone.
PATIENT: dict[str, Any] = {"timeout": 30.0, "reconnect_interval": 0.01}


def joined(client: Client) -> Client:
    client.wait_connected(CEILING)
    return client


class Slow:
    """Tasks that take their time, on a thread or in a Future, and what became of them.

    Attributes:
        runs: How often each payload was run.
        given_up: Payloads whose tasks saw that they were given up.
    """

    def __init__(self, **options: Any) -> None:
        self.runs: Counter[Any] = Counter()
        self.given_up: list[Any] = []
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()
        self.server = Server({"WAIT": self._wait, "LATER": self._later, "WATCH": self._watch}, **options)
        self.server.listen(0).result(CEILING)
        self.port: int = self.server.port  # type: ignore[assignment]

    def close(self) -> None:
        self.server.close(timeout=1.0).result(CEILING)

    def _begin(self, number: Any) -> None:
        with self._lock:
            self.runs[number] += 1
            self._now += 1
            self.most = max(self.most, self._now)

    def _wait(self, payload: Any) -> Any:
        self._begin(payload["number"])
        time.sleep(payload["seconds"])
        with self._lock:
            self._now -= 1
        return payload["number"]

    def _later(self, payload: Any) -> "Future[Any]":
        self._begin(payload["number"])
        future: Future[Any] = Future()
        timer = threading.Timer(payload["seconds"], lambda: self._settle(future, payload["number"]))
        timer.start()
        return future

    def _settle(self, future: "Future[Any]", number: Any) -> None:
        if future.set_running_or_notify_cancel():
            future.set_result(number)
        with self._lock:
            self._now -= 1

    def _watch(self, number: Any) -> None:
        self._begin(number)
        request = current_request()
        assert request is not None
        if eventually(lambda: request.cancelled, CEILING):
            self.given_up.append(number)


@pytest.fixture
def slow() -> Any:
    made = Slow()
    yield made
    made.close()


@pytest.mark.parametrize("task", ["WAIT", "LATER"])
@pytest.mark.parametrize("loss", LOSSES)
def test_calls_run_once_however_often_the_connection_is_lost(
    slow: Slow, connect: Connect, request: pytest.FixtureRequest, loss: str, task: str
) -> None:
    rng = random.Random(loss + task)
    with FaultProxy("127.0.0.1", slow.port) as proxy:
        client = joined(connect(proxy.port, **PATIENT))
        calls = []
        for number in range(200 if request.config.getoption("--long") else 60):
            calls.append(client.dispatch(task, {"number": number, "seconds": rng.choice([0.0, 0.001, 0.02, 0.1])}))
            if number % 12 == 11:
                LOSSES[loss](proxy, rng)
                a_moment(0.01)
        assert outcomes(calls) == list(range(len(calls)))
        assert slow.runs == {number: 1 for number in range(len(calls))}
        assert proxy.connections > 2
        client.close()


def test_losses_at_random_run_nothing_twice(slow: Slow, connect: Connect, request: pytest.FixtureRequest) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng, numbers, lock = random.Random(seed), iter(range(10**9)), threading.Lock()
    made: list[tuple[int, Any]] = []
    deadline = time.monotonic() + (10.0 if request.config.getoption("--long") else 1.5)
    with FaultProxy("127.0.0.1", slow.port) as proxy:
        client = joined(connect(proxy.port, **PATIENT))

        def call(own: random.Random) -> None:
            while time.monotonic() < deadline:
                with lock:
                    number = next(numbers)
                seconds = own.choice([0.0, 0.0, 0.002, 0.05])
                future = client.dispatch(own.choice(["WAIT", "LATER"]), {"number": number, "seconds": seconds})
                made.append((number, future))
                if own.random() < 0.1:
                    future.cancel()
                else:
                    with contextlib.suppress(OompaError, CancelledError):
                        future.result(CEILING)

        threads = [threading.Thread(target=call, args=(random.Random(rng.random()),)) for _ in range(6)]
        for thread in threads:
            thread.start()
        while time.monotonic() < deadline:
            rng.choice(list(LOSSES.values()))(proxy, rng)
            a_moment(rng.uniform(0.01, 0.1))
        proxy.heal()
        for thread in threads:
            thread.join(CEILING)
        results = outcomes([future for _, future in made])
        client.close()
    assert all(result in (number, CancelledError) for (number, _), result in zip(made, results))
    assert max(slow.runs.values()) == 1
    assert all(slow.runs[number] == 1 for (number, _), result in zip(made, results) if result == number)


@pytest.mark.parametrize("loss", ["reset", "fin down", "truncate down"])
def test_call_that_is_given_up_after_a_loss_is_given_up_on_the_server(slow: Slow, connect: Connect, loss: str) -> None:
    with FaultProxy("127.0.0.1", slow.port) as proxy:
        client = joined(connect(proxy.port, **PATIENT))
        calls = [client.dispatch("WATCH", number) for number in range(4)]
        assert eventually(lambda: len(slow.runs) == 4)
        LOSSES[loss](proxy, random.Random(1))
        assert eventually(lambda: proxy.connections >= 2 or not client.ping(timeout=0.2).exception(CEILING))
        client.ping(timeout=CEILING).result(CEILING)  # what was pending has been asked for again before
        for call in calls:
            call.cancel()
        assert eventually(lambda: sorted(slow.given_up) == [0, 1, 2, 3])
        assert set(slow.runs.values()) == {1}
        client.close()


@pytest.mark.parametrize("loss", ["reset", "fin up", "truncate up"])
def test_call_that_was_given_up_while_there_was_no_connection_never_begins(
    connect: Connect, loss: str
) -> None:
    service = Slow(concurrency=1)
    try:
        with FaultProxy("127.0.0.1", service.port) as proxy:
            client = joined(connect(proxy.port, **PATIENT))
            first = client.dispatch("WAIT", {"number": "first", "seconds": 0.3})
            queued = [client.dispatch("WAIT", {"number": number, "seconds": 0.0}) for number in range(6)]
            assert eventually(lambda: service.server.stats()["queued"] == 6)
            proxy.refuse()
            proxy.reset()
            assert eventually(lambda: not client.is_connected)
            for call in queued[::2]:
                call.cancel()
            proxy.heal()
            assert outcomes([first, *queued[1::2]]) == ["first", 1, 3, 5]
            assert service.runs == {"first": 1, 1: 1, 3: 1, 5: 1}
            client.close()
    finally:
        service.close()


def test_back_pressure_repeats_no_call_and_ends_no_connection(
    connect: Connect, request: pytest.FixtureRequest
) -> None:
    """40 calls of 1 MiB and 12 s with the defaults but for the timeout; smaller and shorter without --long."""
    is_long = request.config.getoption("--long")
    count, size, seconds = (40, 1 << 20, 12.0) if is_long else (24, 1 << 16, 1.4)
    options: dict[str, Any] = {} if is_long else {"max_message_size": 16 * size, "ping_interval": 1.0, "write_timeout": 1.0}
    service = Slow(**options)
    try:
        with FaultProxy("127.0.0.1", service.port) as proxy:
            client = connect(proxy.port, **{**options, "timeout": 300.0, "tolerance": {"ratio": 0.05, "interval": 10.0}})
            payloads = [{"number": number, "seconds": seconds, "padding": "x" * (size - 100)} for number in range(count)]
            calls = [client.dispatch("WAIT", payload) for payload in payloads]
            assert [call.result(120.0) for call in calls] == list(range(count))
            assert service.runs == {number: 1 for number in range(count)}
            assert service.most <= 16 and proxy.connections == 1
            client.close()
    finally:
        service.close()


@pytest.mark.parametrize("loss", ["reset", "fin down", "blackhole up", "stall down"])
def test_back_pressure_and_a_loss_repeat_no_call(connect: Connect, loss: str) -> None:
    service = Slow(concurrency=2, max_queued=3)
    try:
        with FaultProxy("127.0.0.1", service.port) as proxy:
            client = joined(connect(proxy.port, **PATIENT))
            calls = [client.dispatch("WAIT", {"number": number, "seconds": 0.02}) for number in range(40)]
            for _ in range(4):
                a_moment(0.05)
                LOSSES[loss](proxy, random.Random(2))
            assert outcomes(calls) == list(range(40))
            assert service.runs == {number: 1 for number in range(40)} and service.most <= 2 * proxy.connections
            client.close()
    finally:
        service.close()
