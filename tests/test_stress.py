"""Fifty threads on one client while its connections are reset: each Future settles exactly once, and nothing is left over.

The seed of a run is printed; ``OOMPA_STRESS_SEED=<seed>`` repeats its choices. What the scheduler does is not repeated.
The fixtures of ``conftest.py`` check that neither a thread nor a descriptor outlives a test.
"""

import concurrent.futures
import os
import random
import sys
import threading
import time
from collections import Counter

import pytest
from faults import FaultProxy

from oompa import ClientClosed, RemoteError, RequestTimeout

THREADS = 50
SECONDS = 2.0  # how long the faults of one run last
CEILING = 10.0  # seconds until a wait counts as failed
PATIENT = {"timeout": 8.0, "attempts": 1}  # no second attempt hides what was lost: only a reconnect sends again
QUICK = {"reconnect_interval": 0.02, "close_timeout": 1.0, "tolerance": None}


@pytest.fixture(autouse=True)
def eager_switching():
    """Let threads lose the interpreter at any moment, as on a busy machine."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture
def seed():
    """The seed of this run; pytest shows it when the test fails."""
    number = int(os.environ.get("OOMPA_STRESS_SEED") or random.SystemRandom().randrange(10**6))
    print(f"OOMPA_STRESS_SEED={number}")
    return number


@pytest.fixture(params=["json", "msgspec"])
def codec(request):
    """Each codec, on both sides."""
    return request.param


@pytest.fixture
def server(serve, codec):
    """A server whose tasks take no time, some milliseconds (about what makes it pass the lead on), or fail."""

    def slow(payload):
        threading.Event().wait(payload["seconds"])
        return payload["number"]

    def fail(payload):
        raise LookupError(payload["number"])

    return serve({"ECHO": lambda payload: payload["number"], "SLOW": slow, "FAIL": fail}, codec=codec)


class Ledger:
    """What was dispatched, what each must come to, and how often each was told done."""

    def __init__(self, may_close=False):
        self.calls = []  # (call, number, type, whether it may time out, whether it may be cancelled); append is atomic
        self.told = Counter()  # by id; the callback thread alone writes
        self.faults = []
        self._may_close = may_close

    def enter(self, call, number, type, may_time_out=False, may_be_cancelled=False):
        """Watch over a call from now on."""
        call.add_done_callback(lambda done: self.told.update((done.id,)))
        self.calls.append((call, number, type, may_time_out, may_be_cancelled))
        return call

    def check(self):
        """Every call is done, as it should be, and was told so once."""
        calls = [call for call, *_ in self.calls]
        done, not_done = concurrent.futures.wait(calls, CEILING)
        assert not not_done, f"{len(not_done)} of {len(calls)} calls never settled"
        assert wait_for(lambda: len(self.told) == len(calls)), f"{len(calls) - len(self.told)} callbacks never ran"
        assert set(self.told.values()) == {1}
        for call, number, type, may_time_out, may_be_cancelled in self.calls:
            if call.cancelled():
                assert may_be_cancelled, call
                continue
            error = call.exception(0)
            if isinstance(error, ClientClosed):
                assert self._may_close, error
            elif isinstance(error, RequestTimeout):
                assert may_time_out, error
            elif type == "FAIL":
                assert isinstance(error, RemoteError) and error.error == f"LookupError: {number}", error
            else:
                assert error is None and call.result(0) == number, (error, number)
        assert not self.faults, self.faults[:5]


def wait_for(condition):
    """Whether ``condition()`` comes true within the ceiling."""
    deadline, pause = time.monotonic() + CEILING, threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            return False
        pause.wait(0.005)
    return True


class Caller(threading.Thread):
    """Uses a client in every way there is, in an order that its seed decides."""

    def __init__(self, client, ledger, seed, number, over):
        super().__init__(name=f"caller-{number}", daemon=True)
        self._client = client
        self._ledger = ledger
        self._random = random.Random(seed * 1000 + number)
        self._numbers = iter(range(number * 10**6, (number + 1) * 10**6))
        self._over = over

    def run(self):
        """Call until it is over or the client is closed."""
        uses = (
            self._wait,
            self._call,
            self._wait_a_little,
            self._gather,
            self._cancel,
            self._limit,
            self._limit_a_ping,
            self._walk_away,
        )
        try:
            while not self._over.is_set():
                self._random.choice(uses)()
        except ClientClosed:
            pass
        except BaseException as fault:
            self._ledger.faults.append(fault)

    def _request(self):
        number, type = next(self._numbers), self._random.choice(("ECHO", "ECHO", "ECHO", "SLOW", "FAIL"))
        return type, {"number": number, "seconds": self._random.uniform(0.002, 0.009)}

    def _dispatch(self, **may):
        type, payload = self._request()
        return self._ledger.enter(self._client.dispatch(type, payload), payload["number"], type, **may)

    def _wait(self):
        try:
            self._dispatch().result()
        except RemoteError:
            pass

    def _call(self):
        type, payload = self._request()
        try:
            assert self._client.call(type, payload) == payload["number"]
        except RemoteError as error:
            assert type == "FAIL" and error.error == f"LookupError: {payload['number']}"
        else:
            assert type != "FAIL"

    def _wait_a_little(self):
        call = self._dispatch()
        for _ in range(3):
            try:
                call.exception(self._random.uniform(0.0, 0.02))
            except concurrent.futures.TimeoutError:
                pass  # its own limit, not the request's

    def _gather(self):
        calls = [self._dispatch() for _ in range(self._random.choice((2, 8, 80)))]
        if self._random.random() < 0.5:
            done, not_done = concurrent.futures.wait(calls, CEILING)
            assert not not_done and all(call.done() for call in calls), "wait() came back before its Futures were done"
        else:
            seen = list(concurrent.futures.as_completed(calls, CEILING))
            assert len(seen) == len(calls) == len(set(seen)), "as_completed() gave a Future twice, or not at all"

    def _cancel(self):
        call = self._dispatch(may_be_cancelled=True)
        if self._random.random() < 0.5:
            threading.Event().wait(self._random.uniform(0.0, 0.005))
        if call.cancel():
            assert call.cancelled() and call.done()
        else:  # the reply was quicker
            call.exception(CEILING)
            assert not call.cancelled()

    def _limit(self):
        number, limit = next(self._numbers), self._random.uniform(0.001, 0.05)  # hardly ever the same limit twice
        started = time.monotonic()
        try:
            assert self._client.call("ECHO", {"number": number}, timeout=limit) == number
        except RequestTimeout:
            pass
        assert time.monotonic() - started < limit + CEILING / 2, "a limit was not kept"

    def _limit_a_ping(self):
        call = self._client.ping(timeout=self._random.uniform(0.001, 0.05))
        self._ledger.enter(call, True, "ECHO", may_time_out=True)

    def _walk_away(self):
        for _ in range(3):
            self._dispatch()


def run_callers(client, ledger, seed, over):
    """Fifty callers, started."""
    callers = [Caller(client, ledger, seed, number, over) for number in range(THREADS)]
    for caller in callers:
        caller.start()
    return callers


def join(callers):
    """Wait for all of them; none may hang."""
    deadline = time.monotonic() + CEILING
    for caller in callers:
        caller.join(max(0.0, deadline - time.monotonic()))
    assert [caller.name for caller in callers if caller.is_alive()] == []


def reset_at_random(proxy, seed):
    """Reset the connections again and again until the faults are over; returns how often."""
    choices, pause, resets = random.Random(seed), threading.Event(), 0
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        pause.wait(choices.uniform(0.02, 0.2))
        choices.choice((proxy.reset, proxy.reset, proxy.drop))()
        resets += 1
    return resets


def test_every_call_settles_once_while_connections_are_reset(server, connect, codec, seed):
    ledger, over = Ledger(), threading.Event()
    with FaultProxy("127.0.0.1", server.port) as proxy:
        client = connect(f"ws://127.0.0.1:{proxy.port}", codec=codec, **QUICK, **PATIENT)
        callers = run_callers(client, ledger, seed, over)
        assert reset_at_random(proxy, seed) > 5
        over.set()
        join(callers)
        ledger.check()
        assert client.call("ECHO", {"number": -1}) == -1
        client.close()


def test_every_call_settles_once_when_the_client_is_closed_under_way(server, connect, codec, seed):
    ledger = Ledger(may_close=True)
    with FaultProxy("127.0.0.1", server.port) as proxy:
        client = connect(f"ws://127.0.0.1:{proxy.port}", codec=codec, **QUICK, **PATIENT)
        callers = run_callers(client, ledger, seed, threading.Event())
        assert wait_for(lambda: len(ledger.calls) > 20 * THREADS)
        proxy.reset()
        closers = [threading.Thread(target=client.close, daemon=True) for _ in range(5)]
        client.dispatch("ECHO", {"number": 0}).add_done_callback(lambda call: client.close())
        for closer in closers:
            closer.start()
        join(closers)
        join(callers)
        ledger.check()
        with pytest.raises(ClientClosed):
            client.dispatch("ECHO", {"number": 0})


def test_waiting_for_many_calls_ends_when_all_are_done(server, connect, codec, seed):
    choices = random.Random(seed)
    client = connect(server, codec=codec, **QUICK, **PATIENT)
    end = time.monotonic() + SECONDS / 2
    while time.monotonic() < end:
        calls = [client.dispatch("ECHO", {"number": number}) for number in range(choices.choice((3, 100, 300)))]
        calls.insert(choices.randrange(len(calls)), client.dispatch("SLOW", {"number": -1, "seconds": 0.02}))
        done, not_done = concurrent.futures.wait(calls, CEILING)  # they settle while wait() looks at them one by one
        assert done == set(calls) and not not_done
        calls = [client.dispatch("ECHO", {"number": number}) for number in range(choices.choice((3, 100, 300)))]
        assert len(list(concurrent.futures.as_completed(calls, CEILING))) == len(calls)


def test_a_caller_whose_call_is_done_never_finds_too_many_pending(server, connect, codec, seed):
    callers = 8
    client = connect(server, codec=codec, max_pending=callers, **QUICK, **PATIENT)
    faults, end = [], time.monotonic() + SECONDS

    def call_again_and_again(number):
        try:
            while time.monotonic() < end:
                assert client.call("ECHO", {"number": number}) == number
                assert client.dispatch("ECHO", {"number": number}).result() == number
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=call_again_and_again, args=(n,), daemon=True) for n in range(callers)]
    for thread in threads:
        thread.start()
    join(threads)
    assert not faults, faults
