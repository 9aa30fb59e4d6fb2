"""Faults at random under threads that call at random; a run that fails is repeated with ``--chaos-seed``."""

import concurrent.futures
import contextlib
import gc
import random
import threading
import time
import weakref
from collections import Counter
from concurrent.futures import CancelledError
from typing import Any

import chaos_options
import pytest
from faults import FaultProxy

from oompa import Client, ClientClosed, ConnectionLost, OompaError, RemoteError, RequestTimeout, TooManyPending
from oompa.server.resume import Resume

from .harness import (
    CEILING,
    CLOSING,
    SLACK,
    Connect,
    Counts,
    Service,
    Stopwatch,
    a_moment,
    add,
    add_with_limit,
    client_threads,
    eventually,
    outcome,
    outcomes,
    serious,
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "chaos_seed" in metafunc.fixturenames:
        option = metafunc.config.getoption
        seeds = chaos_options.LONG_SEEDS if option("--long") else chaos_options.SEEDS
        metafunc.parametrize("chaos_seed", option("--chaos-seed") or seeds)


class Chaos:
    """Faults at random, under threads that call at random, from one seed.

    Attributes:
        calls: (Future, the right sum) of every call.
    """

    def __init__(self, seed: int, client: Client, proxy: FaultProxy) -> None:
        self.calls: list[tuple[Any, int]] = []
        self.refused = 0
        self.counts = Counts()
        self._rng = random.Random(seed)
        self._client = client
        self._proxy = proxy
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        seeds = [self._rng.getrandbits(64) for _ in range(8)]
        self._threads = [threading.Thread(target=self._call, args=(random.Random(each),)) for each in seeds]

    def run(self, seconds: float) -> None:
        """Let the threads call and the faults come for so long; heal the network."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.start()
        while time.monotonic() < deadline:
            self._fault()
            a_moment(self._rng.uniform(0.02, 0.2))
        self._proxy.heal()
        self._stop.set()
        for thread in self._threads:
            thread.join(CEILING)
            assert not thread.is_alive()
        assert self._failures == []

    def _fault(self) -> None:
        proxy, rng = self._proxy, self._rng
        way = rng.choice(["up", "down", "both"])
        rng.choice(
            [
                proxy.heal,
                proxy.heal,
                proxy.reset,
                proxy.drop,
                proxy.refuse,
                proxy.swallow,
                lambda: proxy.fin(way),
                lambda: proxy.latency(way, rng.uniform(0.0, 0.6)),
                lambda: proxy.blackhole(way),
                lambda: proxy.stall(way),
                lambda: proxy.throttle(way, rng.uniform(1e3, 1e6)),
                lambda: proxy.chop(way, rng.randrange(1, 20)),
                lambda: proxy.drip(way, rng.uniform(0.0001, 0.01)),
                lambda: proxy.duplicate(way),
                lambda: proxy.corrupt(way, rng.randrange(200)),
                lambda: proxy.truncate(way, rng.randrange(400), times=rng.randrange(1, 4), reset=rng.random() < 0.5),
            ]
        )()

    def _call(self, rng: random.Random) -> None:
        try:
            while not self._stop.is_set():
                self._call_once(rng)
        except BaseException as error:
            self._failures.append(error)

    def _call_once(self, rng: random.Random) -> None:
        x, y = rng.randrange(10**6), rng.randrange(10**6)
        padding = "x" * rng.choice([0, 0, 0, 100, 5_000, 100_000])
        try:
            future = self._client.dispatch("ADD", {"x": x, "y": y, "padding": padding})
        except TooManyPending:
            self.refused += 1
            self._stop.wait(0.05)
            return
        self.calls.append((self.counts.watch(future), x + y))
        kind = rng.random()
        if kind < 0.1:
            future.cancel()
        elif kind < 0.5:
            with contextlib.suppress(OompaError, CancelledError, concurrent.futures.TimeoutError):
                future.result(rng.uniform(0.0, 1.0))
        else:
            self._stop.wait(rng.uniform(0.0, 0.02))


@pytest.fixture
def resumed(monkeypatch: pytest.MonkeyPatch) -> set[tuple[Any, Any]]:
    """(id, connection) of every request that needed no run, for it had begun on an earlier connection."""
    found, asked = set(), Resume.asked

    def watched(self: Resume, line: Any, key: Any, now: float) -> Any:
        answer = asked(self, line, key, now)
        if answer is not None:
            found.add((key[1], line.connection))
        return answer

    monkeypatch.setattr(Resume, "asked", watched)
    return found


def runs_again(service: Service, resumed: set[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """(id, connection) of the runs of what an earlier connection had run, and this one asked for the first time."""
    first: dict[Any, Any] = {}
    return [each for each in list(service.carriers) if first.setdefault(*each) is not each[1] and each not in resumed]


def was_unreadable(future: Any) -> bool:
    """Whether a fault had flipped bits of a request, of which the server could read the id alone."""
    error = None if future.cancelled() else future.exception(CEILING)
    return isinstance(error, RemoteError) and "a request must be JSON" in str(error)


CHAOS = {
    "reconnect_interval": 0.03,
    "timeout": 0.4,
    "attempts": 3,
    "connect_timeout": 0.3,
    "ping_interval": 0.3,
    "write_timeout": 0.4,
    "close_timeout": CLOSING,
    "tolerance": {"ratio": 0.2, "interval": 0.5},
    "max_pending": 500,
}


def test_chaos(
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
    service: Service,
    proxy: FaultProxy,
    connect: Connect,
    resumed: set[tuple[Any, Any]],
    chaos_seed: int,
) -> None:
    seconds = request.config.getoption("--chaos-seconds")
    print(f"chaos: --chaos-seed={chaos_seed} --chaos-seconds={seconds}")
    client = connect(proxy.port, **CHAOS)
    chaos = Chaos(chaos_seed, client, proxy)
    chaos.run(seconds)
    passed = Stopwatch()
    results = [outcome(future) for future, _ in chaos.calls]
    assert passed() <= CHAOS["timeout"] * CHAOS["attempts"] + SLACK  # type: ignore[operator]

    kinds = Counter(r.__name__ if isinstance(r, type) else "OK" for r in results)
    print(f"chaos: {dict(kinds)}, {chaos.refused} refused, {proxy.connections} connections")

    # 1: every Future settled, once, and an OK is the right sum.
    allowed = (RequestTimeout, ConnectionLost, CancelledError)
    differ = [(r, s, future) for r, (future, s) in zip(results, chaos.calls) if r != s and r not in allowed]
    wrong = [(r, s) for r, s, future in differ if not was_unreadable(future)]
    differ.clear()  # it holds Futures
    assert wrong == []
    assert chaos.counts.all_once([future for future, _ in chaos.calls])

    # 4: the client lives on.
    assert eventually(lambda: add_with_limit(client, 1.0) == 3)

    # 3: one id, one payload; nothing that has settled is sent again on a new connection.
    payloads: dict[str, Any] = {}
    for id, task, payload in list(service.runs):
        assert payloads.setdefault(id, (task, payload)) == (task, payload)
    assert {id for id, (task, _) in payloads.items() if task == "ADD" and "padding" in payloads[id][1]} <= {
        future.id for future, _ in chaos.calls
    }

    # 12: a loss of the connection makes nothing run again. What asks again on the same connection, after a reply that a fault
    # holds back, does; so does what a fault doubles.
    again = runs_again(service, resumed)
    print(f"chaos: {len(service.runs)} runs, {len(again)} again on another connection")
    assert round((len(payloads) + len(again)) / len(payloads), 2) == 1.00
    older = set(service.connections)
    proxy.reset()
    fresh = [add(client, n, n) for n in range(20)]
    assert all(r in (n + n, RequestTimeout) for n, r in enumerate(outcomes(fresh)))
    assert eventually(lambda: add_with_limit(client, 5.0) == 3)
    newer = {id for id, connection in service.carriers if connection not in older}
    assert newer and not newer & {future.id for future, _ in chaos.calls}

    # 1 again: closing settles the rest.
    last = [chaos.counts.watch(add(client, n, n)) for n in range(20)]
    stopwatch = Stopwatch()
    client.close()
    assert stopwatch() < CLOSING + 0.2
    assert all(future.done() for future in last)
    assert all(r in (ClientClosed, n + n) for n, r in enumerate(outcomes(last)))
    assert chaos.counts.all_once(last)

    # 6: no thread of the client is left; descriptors are counted when everything is closed.
    assert eventually(lambda: not client_threads(), 1.0)

    # 14: no call is kept.
    alive = weakref.WeakSet([*last, *fresh, *(future for future, _ in chaos.calls)])
    last.clear()
    fresh.clear()
    chaos.calls.clear()
    assert serious(caplog) == []
    caplog.clear()  # its records hold errors, and those the frames they were raised in
    assert eventually(lambda: gc.collect() is not None and not alive, 2.0)
