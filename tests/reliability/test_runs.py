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

from oompa import Client, OompaError, RemoteError, RequestTimeout, Server, current_request
from oompa.server.resume import REPLIES

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

#: Seconds after which a call is given up that must have been sent again before.
LATE = 0.4


def joined(client: Client) -> Client:
    client.wait_connected(CEILING)
    return client


def cut(client: Client, proxy: FaultProxy, loss: str, rng: random.Random) -> None:
    """Have the client lose its connection and make the next one."""
    before = proxy.connections
    LOSSES[loss](proxy, rng)
    while proxy.connections == before:
        client.ping(timeout=0.05).exception(CEILING)  # a truncation waits for bytes


def lose(client: Client, proxy: FaultProxy, loss: str) -> None:
    """Have the client lose its connection and, on the next one, ask again for all that is pending."""
    cut(client, proxy, loss, random.Random(loss))
    client.ping(timeout=CEILING).result(CEILING)


class Slow:
    """Tasks that take their time, on a thread or in a Future, and what became of them.

    Attributes:
        runs: How often each payload was run.
        given_up: Payloads whose tasks saw that they were given up.
        gate: What HOLD waits for.
        futures: What NEVER returned.
    """

    def __init__(self, **options: Any) -> None:
        self.runs: Counter[Any] = Counter()
        self.given_up: list[Any] = []
        self.gate = threading.Event()
        self.futures: list["Future[Any]"] = []
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()
        tasks = {"WAIT": self._wait, "LATER": self._later, "WATCH": self._watch, "HOLD": self._hold, "NEVER": self._never}
        self.server = Server(tasks, **options)
        self.server.listen(0).result(CEILING)
        self.port: int = self.server.port  # type: ignore[assignment]

    def close(self) -> None:
        self.gate.set()
        self.server.close(timeout=1.0).result(CEILING)

    def queued(self) -> int:
        queued: int = self.server.stats()["queued"]
        return queued

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

    def _hold(self, number: Any) -> Any:
        self._begin(number)
        assert self.gate.wait(CEILING)
        return number

    def _never(self, number: Any) -> "Future[Any]":
        self._begin(number)
        self.futures.append(Future())
        return self.futures[-1]


@pytest.fixture
def slow() -> Any:
    made = Slow()
    yield made
    made.close()


@pytest.fixture
def one_by_one() -> Any:
    """A server that runs one task of each connection at a time; what was adopted has no part in that."""
    made = Slow(concurrency=1)
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
            if number >= REPLIES:  # no more in flight than the server remembers replies of
                calls[number - REPLIES].exception(CEILING)
            calls.append(client.dispatch(task, {"number": number, "seconds": rng.choice([0.0, 0.001, 0.02, 0.1])}))
            if number % 12 == 11:
                cut(client, proxy, loss, rng)
                a_moment(0.01)
        assert outcomes(calls) == list(range(len(calls)))
        assert slow.runs == {number: 1 for number in range(len(calls))}
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


@pytest.mark.parametrize("loss", LOSSES)
def test_call_that_is_given_up_after_a_loss_is_given_up_on_the_server(slow: Slow, connect: Connect, loss: str) -> None:
    with FaultProxy("127.0.0.1", slow.port) as proxy:
        client = joined(connect(proxy.port, **PATIENT))
        calls = [client.dispatch(task, task + str(number)) for number in range(2) for task in ("WATCH", "NEVER")]
        assert eventually(lambda: len(slow.runs) == 4)
        lose(client, proxy, loss)
        for call in calls:
            call.cancel()
        assert eventually(lambda: sorted(slow.given_up) == ["WATCH0", "WATCH1"])
        assert eventually(lambda: [future.cancelled() for future in slow.futures] == [True, True])
        assert set(slow.runs.values()) == {1}
        client.close()


@pytest.mark.parametrize("loss", LOSSES)
def test_call_that_is_given_up_as_the_connection_is_lost_never_begins(
    one_by_one: Slow, connect: Connect, loss: str
) -> None:
    with FaultProxy("127.0.0.1", one_by_one.port) as proxy:
        client = joined(connect(proxy.port, **PATIENT))
        held = [client.dispatch("HOLD", name) for name in ("adopted", "begun on the next")]
        queued = [client.dispatch("WAIT", {"number": number, "seconds": 0.0}) for number in range(6)]
        assert eventually(lambda: one_by_one.queued() == 7)
        client.on("host-closed", lambda: [call.cancel() for call in queued[::2]])
        lose(client, proxy, loss)
        assert eventually(lambda: one_by_one.queued() == 3)
        one_by_one.gate.set()
        assert outcomes([*held, *queued[1::2]]) == ["adopted", "begun on the next", 1, 3, 5]
        assert one_by_one.runs == {"adopted": 1, "begun on the next": 1, 1: 1, 3: 1, 5: 1}
        client.close()


@pytest.mark.parametrize("loss", LOSSES)
def test_deadline_that_passes_after_a_loss_ends_what_runs_and_what_is_queued(
    one_by_one: Slow, connect: Connect, loss: str
) -> None:
    with FaultProxy("127.0.0.1", one_by_one.port) as proxy:
        client = joined(connect(proxy.port, **PATIENT))
        late = [client.dispatch("NEVER", "future", timeout=LATE)]
        held = [client.dispatch("HOLD", name) for name in ("adopted", "begun on the next")]
        late += [client.dispatch("WAIT", {"number": number, "seconds": 0.0}, timeout=LATE) for number in range(4)]
        assert eventually(lambda: "adopted" in one_by_one.runs)
        lose(client, proxy, loss)
        assert eventually(lambda: one_by_one.queued() == 4 or late[-1].done())
        proxy.stall("up")  # no cancel arrives: what the server knows is the deadline
        told = outcomes(late)
        assert told[1:] == [RequestTimeout] * 4
        assert told[0] in (RequestTimeout, RemoteError)  # the server's clock may be the quicker one to tell of the deadline
        assert eventually(lambda: one_by_one.futures[0].cancelled())
        a_moment(LATE)  # the server counts from when it was asked again
        one_by_one.gate.set()
        assert eventually(lambda: one_by_one.queued() == 0)
        proxy.heal()
        assert outcomes([*held, client.dispatch("HOLD", "last")]) == ["adopted", "begun on the next", "last"]
        assert one_by_one.runs == {"future": 1, "adopted": 1, "begun on the next": 1, "last": 1}
        client.close()


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


@pytest.mark.parametrize("loss", LOSSES)
def test_back_pressure_and_a_loss_repeat_no_call(connect: Connect, loss: str) -> None:
    service = Slow(concurrency=2, max_queued=3)
    try:
        with FaultProxy("127.0.0.1", service.port) as proxy:
            client = joined(connect(proxy.port, **PATIENT))
            calls = [client.dispatch("WAIT", {"number": number, "seconds": 0.02}) for number in range(24)]
            rng = random.Random(loss)
            for _ in range(3):
                a_moment(0.02)
                LOSSES[loss](proxy, rng)
            assert outcomes(calls) == list(range(24))
            assert service.runs == {number: 1 for number in range(24)} and service.most <= 2 * proxy.connections
            client.close()
    finally:
        service.close()
