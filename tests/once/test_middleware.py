"""Once: who runs a request, who waits for whom, and what is kept."""

import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from time import monotonic
from types import SimpleNamespace

import pytest
from conftest import CEILING, wait_until

from oompa import Once, RemoteError, Server, TaskError
from oompa.errors import ValidationError
from oompa.once import MemoryStore
from oompa.testing import connect
from oompa.wire.announcement import Announcement
from oompa.wire.messages import MISSING, Request


@pytest.fixture(autouse=True)
def thread_that_ends_soon(monkeypatch):
    """The end of a test need not wait for the thread that renews leases."""
    monkeypatch.setattr("oompa.once.leases._LOOK", 0.002)


def request_of(payload=None, *, key=None, id="1", client="a", identity=None, type="PAY"):
    """A request as it comes from a client."""
    connection = SimpleNamespace(identity=identity, announced=Announcement(client_id=client))
    return Request(type, payload, id, connection, {} if key is None else {"key": key})


class Watched(Once):
    """Tells of each that begins to wait: for one of its process, or for another process."""

    def __init__(self, store):
        super().__init__(store=store)
        self.waits = threading.Semaphore(0)

    def _join(self, key, payload):
        flight, is_first = super()._join(key, payload)
        if not is_first:
            self.waits.release()
        return flight, is_first

    def _await(self, key, lease, request):
        self.waits.release()
        return super()._await(key, lease, request)


class Task:
    """Counts its runs; returns, raises, or waits until it is let go."""

    def __init__(self, *outcomes, is_held=False):
        self.outcomes = list(outcomes)
        self.runs = 0
        self.started = threading.Semaphore(0)
        self.go_on = threading.Event()
        if not is_held:
            self.go_on.set()

    def __call__(self, request):
        """Run once more; the last outcome is that of all further runs."""
        outcome = self.outcomes[min(self.runs, len(self.outcomes) - 1)]
        self.runs += 1
        self.started.release()
        assert self.go_on.wait(CEILING)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


@pytest.fixture
def pool():
    """Threads for those who come at once."""
    with ThreadPoolExecutor(8) as executor:
        yield executor


@pytest.fixture
def two_processes():
    """Two middlewares upon one store, which know nothing else of each other, as in two processes."""
    store = MemoryStore()
    return Watched(store), Watched(store)


@pytest.fixture(params=["one process", "two processes"])
def pair(request, two_processes):
    """Two middlewares: one and the same, or of two processes."""
    return two_processes if request.param == "two processes" else (two_processes[0],) * 2


def submitted(pool, onces, task):
    """One more that comes to each of ``onces``, and waits."""
    futures = []
    for once in onces:
        futures.append(pool.submit(once, request_of(key="k"), task))
        assert once.waits.acquire(timeout=CEILING)
    return futures


@pytest.mark.parametrize("again", [{}, {"id": "2", "key": "k"}, {"id": "2", "client": None, "key": "k"}])
def test_a_request_that_comes_again_gets_the_same_result(pair, again):
    first, second = pair
    task = Task({"paid": 1}, {"paid": 2})
    told = {"key": "k"} if "key" in again else {}
    assert first(request_of({"x": 1}, **told), task) == {"paid": 1}
    assert second(request_of({"x": 1}, **again), task) == {"paid": 1}
    assert task.runs == 1


@pytest.mark.parametrize(
    "other",
    [
        {"id": "2"},
        {"client": "b"},
        {"identity": "bob"},
        {"type": "REFUND"},
        {"key": "k"},
        {"id": 1},
        {"id": True},
    ],
)
def test_another_request_runs(pair, other):
    first, second = pair
    task = Task(1, 2)
    assert (first(request_of(), task), second(request_of(**other), task)) == (1, 2)


@pytest.mark.parametrize("anonymous", [{"client": None}, {"id": MISSING}, {"id": None}])
def test_what_nothing_tells_from_others_runs_each_time(pair, anonymous):
    first, second = pair
    task = Task(1, 2)
    assert (first(request_of(**anonymous), task), second(request_of(**anonymous), task)) == (1, 2)


def test_keys_of_two_identities_are_two(pair):
    first, second = pair
    task = Task(1, 2)
    ann, bob = request_of(key="k", identity={"name": "ann"}), request_of(key="k", identity={"name": "bob"})
    assert (first(ann, task), second(bob, task), first(ann, task), second(bob, task)) == (1, 2, 1, 2)


def test_types_that_are_not_named_pass_through():
    once, task = Once({"PAY"}), Task(1, 2, 3)
    assert [once(request_of(type=type), task) for type in ("PAY", "ASK", "PAY", "ASK")] == [1, 2, 1, 3]


def test_another_payload_under_the_same_key_is_refused(pair):
    first, second = pair
    task = Task(1)
    first(request_of({"x": 1}, key="k"), task)
    with pytest.raises(TaskError, match="another payload") as refused:
        second(request_of({"x": 2}, key="k"), task)
    assert (refused.value.code, task.runs) == ("invalid_argument", 1)


def test_another_payload_under_a_key_that_runs_is_refused_at_once(pair, pool):
    first, second = pair
    task = Task(1, is_held=True)
    running = pool.submit(first, request_of({"x": 1}, key="k"), task)
    assert task.started.acquire(timeout=CEILING)
    with pytest.raises(TaskError, match="another payload"):
        second(request_of({"x": 2}, key="k"), task)
    task.go_on.set()
    assert running.result(CEILING) == 1


def test_those_who_come_while_it_runs_wait_for_it(pair, pool):
    first, second = pair
    task = Task([1], is_held=True)
    running = [pool.submit(first, request_of(key="k"), task)]
    assert task.started.acquire(timeout=CEILING)
    running += submitted(pool, (first, second, second), task)
    task.go_on.set()
    results = [future.result(CEILING) for future in running]
    assert results == [[1]] * 4 and task.runs == 1
    assert len({id(result) for result in results}) == 4, "what one changes in its result changes nobody else's"


def test_of_many_who_come_at_once_one_runs(pair, pool):
    for number in range(20):
        task, start = Task(number), threading.Barrier(8)

        def come(once, key=f"{number}"):
            start.wait(CEILING)
            return once(request_of(key=key), task)

        assert [*pool.map(come, pair * 4)] == [number] * 8
        assert task.runs == 1


def test_a_task_error_is_kept(pair):
    first, second = pair
    task = Task(TaskError("no money", code="failed_precondition", data={"left": 3}))
    for once in (first, second, first):
        with pytest.raises(TaskError) as refused:
            once(request_of(), task)
        assert (refused.value.error, refused.value.details) == (
            "no money",
            {"code": "failed_precondition", "data": {"left": 3}},
        )
    assert task.runs == 1


@pytest.mark.parametrize(
    "error",
    [
        OSError("no disk"),
        SystemExit(1),
        TaskError("later", code="unavailable", retry_after=1.0),
        RemoteError("not mine", {"code": "not_found"}),
        ValidationError("$.x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_other_error_is_told_to_those_who_wait_and_not_kept(pair, pool, error):
    first, second = pair
    task = Task(error, "done", is_held=True)
    running = [pool.submit(first, request_of(key="k"), task)]
    assert task.started.acquire(timeout=CEILING)
    waits = submitted(pool, pair, task)
    task.go_on.set()
    raised = [future.exception(CEILING) for future in (*running, *waits)]
    assert raised[0] is error
    for each in raised[1:]:
        assert type(each).__name__ == type(error).__name__ and str(each) == str(error)
        assert getattr(each, "details", None) == getattr(error, "details", None)
        assert isinstance(each, ValidationError) == isinstance(error, ValidationError)
    assert task.runs == 1
    assert second(request_of(key="k"), task) == "done"


@pytest.mark.parametrize("how", ["cancelled", "its Future was"])
def test_when_the_caller_gives_up_one_of_those_who_wait_runs_it(pair, pool, how):
    first, second = pair
    task = Task(OSError("interrupted") if how == "cancelled" else CancelledError(), "done", is_held=True)
    given_up = request_of(key="k")
    running = pool.submit(first, given_up, task)
    assert task.started.acquire(timeout=CEILING)
    waits = submitted(pool, (first, second, second), task)
    given_up.cancelled = how == "cancelled"
    task.go_on.set()
    assert [future.result(CEILING) for future in waits] == ["done"] * 3 and task.runs == 2
    assert running.exception(CEILING) is task.outcomes[0]


@pytest.mark.parametrize("code", ["cancelled", "deadline_exceeded"])
def test_who_is_given_up_waits_no_longer_and_the_others_do(pair, pool, code):
    first, second = pair
    task = Task(1, is_held=True)
    running = pool.submit(first, request_of(key="k"), task)
    assert task.started.acquire(timeout=CEILING)
    given_up = request_of(key="k")
    waits = pool.submit(second, given_up, task)
    assert second.waits.acquire(timeout=CEILING)
    (others,) = submitted(pool, (second,), task)
    if code == "cancelled":
        given_up.cancelled = True
    else:
        given_up.deadline = monotonic()
    error = waits.exception(CEILING)
    assert isinstance(error, TaskError) and error.code == code
    task.go_on.set()
    assert (running.result(CEILING), others.result(CEILING), task.runs) == (1, 1, 1)


def test_what_is_kept_is_forgotten_after_ttl(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("oompa.once.memory.monotonic", lambda: now[0])
    once, task = Once(ttl=5.0), Task(1, 2)
    assert once(request_of(), task) == 1
    now[0] = 4.9
    assert once(request_of(), task) == 1
    now[0] = 5.1
    assert once(request_of(), task) == 2


def test_a_result_that_is_not_json_is_an_error_for_those_who_wait_and_not_kept(pair, pool):
    first, second = pair
    result = {1, 2}
    task = Task(result, "done", is_held=True)
    running = pool.submit(first, request_of(key="k"), task)
    assert task.started.acquire(timeout=CEILING)
    waits = submitted(pool, pair, task)
    task.go_on.set()
    assert running.result(CEILING) is result  # which the pipeline then says of
    for future in waits:
        with pytest.raises(Exception, match="the result is not JSON: Object of type set"):
            future.result(CEILING)
    assert second(request_of(key="k"), task) == "done"


class Unreachable(MemoryStore):
    """A store that is down, for the operations that are named."""

    down = ("get", "swap")

    def get(self, key):
        """As the store, unless it is down."""
        if "get" in self.down:
            raise OSError("no store")
        return super().get(key)

    def swap(self, key, old, new, ttl):
        """As the store, unless it is down."""
        if "swap" in self.down:
            raise OSError("no store")
        return super().swap(key, old, new, ttl)


def test_nothing_runs_while_the_store_cannot_be_reached():
    store, task = Unreachable(), Task(1)
    once = Once(store=store)
    with pytest.raises(TaskError, match="cannot be reached") as refused:
        once(request_of(), task)
    assert (refused.value.code, refused.value.retry_after, task.runs) == ("unavailable", 1.0, 0)
    store.down = ()
    assert once(request_of(), task) == 1


def test_a_result_that_cannot_be_kept_is_given_all_the_same(caplog):
    store = Unreachable()
    store.down = ()
    once = Once(store=store)

    def breaks(request):
        store.down = ("swap",)
        return 1

    assert once(request_of(), breaks) == 1
    assert "what came of a request is not kept" in caplog.text


def test_a_store_that_contradicts_itself_holds_nobody_beyond_the_deadline():
    class Contradicts(MemoryStore):
        def swap(self, key, old, new, ttl):
            return False

    task, request = Task(1), request_of()
    request.deadline = monotonic() + 0.05
    with pytest.raises(TaskError, match="deadline") as refused:
        Once(store=Contradicts())(request, task)
    assert (refused.value.code, task.runs) == ("deadline_exceeded", 0)


def test_a_store_that_has_forgotten_the_lease_keeps_the_result_all_the_same():
    store, task = MemoryStore(max_entries=1), Task(1, 2)
    once = Once(store=store)

    def runs_long(request):
        store.swap("another", None, b"1", 60.0)
        return task(request)

    assert once(request_of(), runs_long) == 1
    assert once(request_of(), task) == 1


def test_a_run_that_lost_its_lease_to_another_leaves_that_ones_result(two_processes, caplog):
    first, second = two_processes
    store = first._store

    def loses_its_lease(request):
        (key,) = store._entries
        store.swap(key, store.get(key), None, 60.0)
        assert second(request_of(), Task("second")) == "second"
        return "first"

    assert first(request_of(), loses_its_lease) == "first"
    assert first(request_of(), Task("third")) == "second"
    assert "another one has its place" in caplog.text


def test_what_another_program_writes_into_the_store_runs_nothing():
    store, task = MemoryStore(), Task(1)
    once = Once(store=store)
    once(request_of(), task)
    (key,) = store._entries
    store.swap(key, store.get(key), b"hello", 60.0)
    with pytest.raises(TaskError, match="cannot be reached"):
        once(request_of(), task)
    assert task.runs == 1


@pytest.mark.parametrize(
    "arguments, problem",
    [
        ({"types": "PAY"}, r"such as \['PAY'\]"),
        ({"types": [1]}, "must be a string, not 1"),
        ({"ttl": 0}, "ttl must be a finite number of seconds above 0, not 0"),
        ({"ttl": "600"}, "ttl must be a number of seconds, not '600'"),
        ({"store": {}}, "store must be one such as MemoryStore"),
        ({"store": MemoryStore}, "store must be one such as MemoryStore"),
    ],
)
def test_what_can_never_work_is_refused_where_it_is_written(arguments, problem):
    with pytest.raises((TypeError, ValueError), match=problem):
        Once(**arguments)


def test_typed_results_and_errors_reach_every_client_through_a_server():
    """What is kept is the JSON value, also of what only the server's ``default`` makes JSON."""
    runs = []

    def run(payload):
        runs.append(payload)
        if payload["x"] < 0:
            raise TaskError({"at": {1}}, code="out_of_range")
        return {"at": {payload["x"]}}

    server = Server({"RUN": run}, default=sorted)
    server.use(Once())
    with connect(server) as one, connect(server) as other:
        for x, key in ((1, "k"), (2, "l")):
            first, second = (client.dispatch("RUN", {"x": x}, key=key).result(CEILING) for client in (one, other))
            assert first == second == {"at": [x]}
        for client in (one, other):
            with pytest.raises(RemoteError) as failed:
                client.dispatch("RUN", {"x": -1}, key="m").result(CEILING)
            assert (failed.value.error, failed.value.code) == ({"at": [1]}, "out_of_range")
    server.close(0).result(CEILING)
    assert [payload["x"] for payload in runs] == [1, 2, -1]


def test_hidden_errors_stay_hidden_from_those_who_wait():
    hold, server = threading.Event(), None

    def fails(payload):
        assert hold.wait(CEILING)
        raise OSError("the password is 1234")

    once = Once()
    server = Server({"RUN": fails}, expose_errors=False)
    server.use(once)
    with connect(server) as one, connect(server) as other:
        calls = [client.dispatch("RUN", key="k") for client in (one, other)]
        wait_until(lambda: server.stats()["running"] == 2)
        hold.set()
        for call in calls:
            with pytest.raises(RemoteError, match="Internal error, id"):
                call.result(CEILING)
    server.close(0).result(CEILING)
