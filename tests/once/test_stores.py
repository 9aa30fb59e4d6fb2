"""Whatever is done to a store, it does as a dict would whose entries go when their time is over; and Once upon it runs once."""

import contextlib
import tempfile
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from redis_server import redis_running
from test_middleware import request_of

from oompa import Once, TaskError
from oompa.once import MemoryStore, RedisStore, SqliteStore

KEYS = st.sampled_from("abc")
VALUES = st.sampled_from([None, b"", b"1", b"2", "ü".encode()])

#: Seconds a value is for. The clock of the tests moves by halves of them, so nothing goes at the same moment as it comes.
TTLS = st.sampled_from([10, 1000])
PAUSES = st.sampled_from([4, 7, 500])


class Clock:
    """Time that passes when it is told to."""

    now = 1_000_000.0

    def __call__(self):
        """The time."""
        return self.now


class InMemory:
    """A store on the clock."""

    module = "oompa.once.memory.monotonic"

    def __init__(self, clock):
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(mock.patch(self.module, clock))
        self.store = self.make()

    def make(self):
        """A new store."""
        return MemoryStore()

    def passed(self):
        """The clock has moved."""

    def close(self):
        """Leave nothing open."""
        self._stack.close()


class InSqlite(InMemory):
    """A store in a file, on the clock."""

    module = "oompa.once.sqlite.time"

    def make(self):
        """A new store."""
        store = SqliteStore(f"{self._stack.enter_context(tempfile.TemporaryDirectory())}/once.db")
        self._stack.callback(store.close)
        return store


class InRedis:
    """A store in Redis, which has a clock of its own: it is told of each key how much less time it has."""

    client = None

    def __init__(self, clock):
        self._clock, self._was = clock, clock()
        self.client.flushall()
        self.store = RedisStore(self.client)

    def passed(self):
        """The clock has moved."""
        passed, self._was = self._clock() - self._was, self._clock()
        for key in self.client.keys("*"):
            self.client.pexpire(key, self.client.pttl(key) - round(passed * 1000))

    def close(self):
        """Nothing is open."""


@pytest.fixture(params=[InMemory, InSqlite, InRedis])
def kind(request):
    """How to make a store."""
    if request.param is not InRedis:
        yield request.param
        return
    redis = pytest.importorskip("redis")
    with redis_running() as path, redis.Redis(unix_socket_path=path) as client:
        InRedis.client = client
        yield InRedis


class Machine(RuleBasedStateMachine):
    """What all have in common: a store, a clock."""

    kind = None

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.under_test = self.kind(self.clock)
        self.store = self.under_test.store
        self.model = {}

    def there(self, key):
        """What the model has under a key."""
        value, expires = self.model.get(key, (None, 0))
        return value if expires > self.clock.now else None

    @rule(seconds=PAUSES)
    def time_passes(self, seconds):
        """Some of it."""
        self.clock.now += seconds + 0.5
        self.under_test.passed()

    def teardown(self):
        """Close the store."""
        self.under_test.close()


class Swaps(Machine):
    """A store by itself."""

    @rule(key=KEYS, old=VALUES, new=VALUES, ttl=TTLS)
    def swap(self, key, old, new, ttl):
        """Swap what may be there."""
        is_swapped = self.there(key) == old
        assert self.store.swap(key, old, new, ttl) is is_swapped
        if is_swapped:
            self.model[key] = (new, self.clock.now + ttl)

    @precondition(lambda self: any(map(self.there, "abc")))
    @rule(data=st.data(), new=VALUES, ttl=TTLS)
    def swap_what_is_there(self, data, new, ttl):
        """Swap what is."""
        key = data.draw(st.sampled_from([key for key in "abc" if self.there(key)]))
        assert self.store.swap(key, self.there(key), new, ttl) is True
        self.model[key] = (new, self.clock.now + ttl)

    @invariant()
    def get(self):
        """Every key has what it should have."""
        for key in "abc":
            assert self.store.get(key) == self.there(key)


class Runs(Machine):
    """Once upon a store, in two processes."""

    def __init__(self):
        super().__init__()
        self.onces = [Once(store=self.store, ttl=100.0) for _ in range(2)]
        self.runs = 0

    @rule(
        process=st.sampled_from([0, 1]),
        key=KEYS,
        identity=st.sampled_from([None, "ann"]),
        payload=st.sampled_from([{"x": 1}, {"x": 2}]),
        how=st.sampled_from(["returns", "refuses", "fails"]),
    )
    def request(self, process, key, identity, payload, how):
        """One comes, after all before have been answered."""
        run = self.runs + 1

        def task(request):
            self.runs += 1
            if how == "fails":
                raise OSError(run)
            if how == "refuses":
                raise TaskError(run)
            return run

        kept = self.there((identity, key))
        try:
            got = ("returns", self.onces[process](request_of(payload, key=key, identity=identity), task))
        except TaskError as error:
            got = ("refuses", error.error)
        except OSError:
            got = ("fails", run)
        if kept is None:
            assert got == (how, run) and self.runs == run
            if how != "fails":
                self.model[identity, key] = ((payload, got), self.clock.now + 100.0)
        else:
            assert got == (kept[1] if kept[0] == payload else ("refuses", "another payload was sent under the same key"))
            assert self.runs == run - 1


@pytest.fixture(autouse=True)
def thread_that_ends_soon(monkeypatch):
    """The end of a test need not wait for the thread that renews leases."""
    monkeypatch.setattr("oompa.once.leases._LOOK", 0.002)


@pytest.mark.parametrize("machine", [Swaps, Runs])
def test_a_store_does_as_a_dict_would(kind, machine, request):
    many = 200 if request.config.getoption("--long") else 15
    checks = [HealthCheck.too_slow]
    tried = type(machine.__name__, (machine,), {"kind": kind})
    run_state_machine_as_test(
        tried, settings=settings(max_examples=many, stateful_step_count=30, deadline=None, suppress_health_check=checks)
    )
