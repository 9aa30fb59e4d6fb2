"""Tasks that run in executors."""

import functools
import gc
import multiprocessing
import threading
import weakref
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from multiprocessing import resource_tracker

import elsewhere
import needs
import pytest
from conftest import CEILING, wait_until
from deployed import get

from oompa import HealthcheckFailed, RemoteError, Schema, Server, TaskError

#: Seconds until a process has started, on a machine that is busy.
STARTING = 60.0


@pytest.fixture(scope="module", autouse=True)
def tracker():
    """What multiprocessing starts beside the first process it spawns: another one, and a pipe to it, until this one ends."""
    resource_tracker.ensure_running()


@pytest.fixture
def threads():
    """A pool of threads."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture(scope="module")
def processes():
    """A pool of processes, both of which have started: each is when there is a call that none is free for."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert [call.result(STARTING) for call in [pool.submit(elsewhere.add, 1) for _ in range(2)]] == [7, 7]
        yield pool


@pytest.fixture(scope="module")
def loky_processes():
    """A pool of loky's, which has started, and leaves two pipes to the end of the process."""
    with needs.package("loky").ProcessPoolExecutor(1, timeout=60) as pool:
        assert pool.submit(elsewhere.add, 1).result(STARTING) == 7
        yield pool


class Noting(Executor):
    """Runs at once what is submitted, and notes it."""

    def __init__(self):
        self.submitted = []

    def submit(self, function, /, *args, **kwargs):
        """Run it here."""
        self.submitted.append((function, args, kwargs))
        future = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


def test_a_task_runs_in_another_process(processes, serve, connect):
    schema = Schema()
    schema.add("PID", elsewhere.pid, executor=processes)
    schema.add("ADD", elsewhere.add, executor=processes)
    with connect(serve(schema)) as client:
        assert client.call("PID") in processes._processes
        assert client.call("ADD", {"x": 1}) == 7
        assert client.call("ADD", {"x": 1, "y": 2}) == 3


def test_the_decorator_leaves_the_function_as_it_is():
    schema, executor = Schema(), Noting()

    @schema.task("ADD", executor=executor)
    def add(x, y):
        """The sum."""
        return x + y

    assert add(1, 2) == 3 and not executor.submitted
    assert schema["ADD"]({"x": 1, "y": 6}).result() == 7 and len(executor.submitted) == 1
    (told,) = Server(schema).info()["tasks"]
    assert told == {"type": "ADD", "doc": "The sum."}


def test_what_a_task_raises_elsewhere_reads_as_if_it_was_raised_here(processes, serve, connect):
    schema = Schema()
    schema.add("DIV", elsewhere.divide, executor=processes)
    with connect(serve(schema)) as client:
        with pytest.raises(RemoteError) as failed:
            client.call("DIV", {"x": 1, "y": 0})
    assert (failed.value.error, failed.value.code) == ("ZeroDivisionError: division by zero", "internal")


@pytest.mark.parametrize("payload", [None, {"z": 1}, {"x": 1, "y": 2, "z": 3}, {"fn": 1, "x": 1}, [1]])
def test_arguments_that_do_not_fit_are_told_before_they_travel(payload, serve, connect):
    schema, executor = Schema(), Noting()
    schema.add("ADD", elsewhere.add, executor=executor)
    with connect(serve(schema)) as client:
        with pytest.raises(RemoteError, match="^TypeError: ") as failed:
            client.call("ADD", payload)
    assert failed.value.code == "invalid_argument" and not executor.submitted


def test_a_payload_has_no_say_in_how_the_executor_runs_it():
    """Such as Dask's ``submit(function, *args, workers=, priority=)``."""
    schema, executor = Schema(), Noting()
    schema.add("ANY", lambda **arguments: sorted(arguments), executor=executor)
    assert schema["ANY"]({"priority": 9, "self": 1, "workers": "me"}).result() == ["priority", "self", "workers"]
    ((_, args, keywords),) = executor.submitted
    assert (args, keywords) == ((), {})


def test_a_payload_is_validated_before_it_travels(serve, connect):
    pytest.importorskip("msgspec")
    schema, executor = Schema(validate=True), Noting()

    @dataclass
    class Booking:
        """What comes of it."""

        day: date
        seats: int

    @schema.task("BOOK", executor=executor)
    def book(day: date, seats: int) -> Booking:
        assert isinstance(day, date)
        return Booking(day, seats)

    with connect(serve(schema)) as client:
        with pytest.raises(RemoteError, match=r"ValidationError: .*\$\.seats") as failed:
            client.call("BOOK", {"day": "2024-02-29", "seats": "2"})
        assert failed.value.code == "invalid_argument" and not executor.submitted
        assert client.call("BOOK", {"day": "2024-02-29", "seats": 2}) == {"day": "2024-02-29", "seats": 2}
    assert len(executor.submitted) == 1


def test_a_validated_task_in_another_process(processes):
    pytest.importorskip("msgspec")
    schema = Schema()
    schema.add("MOVE", elsewhere.move, validate=True, executor=processes)
    assert schema["MOVE"]({"point": {"x": 1}, "by": 2}).result(CEILING) == {"x": 3}


def test_who_cancels_a_validated_task_cancels_it_in_the_executor(threads):
    pytest.importorskip("msgspec")
    schema, go_on = Schema(validate=True), threading.Event()
    schema.add("WAIT", go_on.wait, validate=False, executor=threads)

    @schema.task("ADD", executor=threads)
    def add(x: int) -> int:
        return x

    held = [schema["WAIT"](None) for _ in range(2)]
    queued = schema["ADD"]({"x": 1})
    assert queued.cancel() and queued.cancelled()
    go_on.set()
    assert [future.result(CEILING) for future in held] == [True, True]
    assert threads._work_queue.empty()


def test_what_an_executor_cancels_is_cancelled_for_who_waits():
    pytest.importorskip("msgspec")

    class Cancels(Executor):
        """Gives what was cancelled."""

        def submit(self, function, /, *args, **kwargs):
            """Nothing runs."""
            future = Future()
            future.cancel()
            return future

    schema = Schema(validate=True)
    schema.add("MOVE", elsewhere.move, executor=Cancels())
    assert schema["MOVE"]({"point": {"x": 1}, "by": 2}).cancelled()


class TestRefused:
    """What can never work, told where it is written."""

    @pytest.mark.parametrize(
        "function",
        [lambda: 1, functools.partial(elsewhere.add, threading.Lock()), threading.Lock().acquire],
        ids=["a lambda", "a partial of a lock", "a method of a lock"],
    )
    def test_what_cannot_be_pickled(self, function, processes):
        with pytest.raises(TypeError, match="'RUN' cannot run in .*cannot be pickled .*at the top of a module"):
            Schema().add("RUN", function, executor=processes)

    def test_a_function_within_another(self, processes):
        schema = Schema()
        with pytest.raises(TypeError, match="cannot be pickled"):

            @schema.task("RUN", executor=processes)
            def run():
                return 1

        assert "RUN" not in schema

    def test_a_function_that_another_one_has_taken_the_name_of_when_the_server_is_made(self, processes):
        schema = Schema()
        schema.add("RUN", first_taken, executor=processes)
        with pytest.raises(TypeError, match="'RUN' cannot run in .*not the same object"):
            Server(schema)

    def test_threads_and_executors_that_nobody_knows_take_any_function(self, threads):
        for executor in (threads, Noting()):
            schema = Schema()
            schema.add("RUN", lambda: 1, executor=executor)
            assert schema["RUN"](None).result(CEILING) == 1
            Server(schema)

    def test_what_is_no_executor(self):
        with pytest.raises(TypeError, match="must be a concurrent.futures.Executor, such as ProcessPoolExecutor"):
            Schema().add("RUN", elsewhere.add, executor=4)

    def test_a_client_of_dask_itself(self):
        class Client:
            """Of Dask: its Futures are others."""

            def get_executor(self):
                """Give what is wanted."""

        with pytest.raises(TypeError, match=r"such as client.get_executor\(\)"):
            Schema().add("RUN", elsewhere.add, executor=Client())


def taken():
    """Loses its name to the next one."""


first_taken = taken


def taken():  # noqa: F811
    """Has the name."""


def health_of(server):
    """The status by HTTP, and what a ping says."""
    return get(server.port, "/health")[0]


def test_a_broken_pool_is_unavailable_and_unhealthy(serve, connect):
    schema = Schema()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        schema.add("DIE", elsewhere.die, executor=pool)
        schema.add("ADD", elsewhere.add, executor=pool)
        server = serve(schema)
        with connect(server, timeout=STARTING) as client:
            assert client.call("ADD", {"x": 1}) == 7 and health_of(server) == 200 and client.ping().result(CEILING) is True
            for type in ("DIE", "ADD"):
                with pytest.raises(RemoteError, match="^Broken") as failed:
                    client.call(type, None if type == "DIE" else {"x": 1})
                assert failed.value.code == "unavailable"
            wait_until(lambda: health_of(server) == 500)
            with pytest.raises(RemoteError, match="the executor of '(DIE|ADD)' is broken: Broken") as failed:
                client.ping().result(CEILING)
            assert failed.value.code == "unavailable"
            assert health_of(server) == 500


def test_a_pool_that_was_shut_down_is_unavailable_and_unhealthy(serve, connect):
    schema, pool = Schema(), ThreadPoolExecutor(1)
    schema.add("ADD", elsewhere.add, executor=pool)
    server = serve(schema)
    with connect(server) as client:
        assert client.call("ADD", {"x": 1}) == 7 and health_of(server) == 200
        pool.shutdown()
        with pytest.raises(RemoteError, match="the executor takes no tasks: RuntimeError: cannot schedule") as failed:
            client.call("ADD", {"x": 1})
        assert failed.value.code == "unavailable" and health_of(server) == 500


def test_an_executor_that_mends_itself_is_healthy_again(serve, connect):
    class Mends(Noting):
        """Breaks once."""

        def submit(self, function, /, *args, **kwargs):
            """Run it here, but for the first."""
            future = super().submit(function, *args, **kwargs)
            if len(self.submitted) > 1:
                return future
            broken = Future()
            broken.set_exception(BrokenExecutor("a worker died"))
            return broken

    schema = Schema()
    schema.add("ADD", elsewhere.add, executor=Mends())
    server = serve(schema)
    with connect(server) as client:
        with pytest.raises(RemoteError, match="a worker died"):
            client.call("ADD", {"x": 1})
        assert health_of(server) == 500
        assert client.call("ADD", {"x": 1}) == 7 and health_of(server) == 200


@pytest.mark.parametrize("end", [lambda future: future.set_result(7), Future.cancel], ids=["does well", "is cancelled"])
def test_what_was_submitted_before_an_executor_broke_does_not_speak_for_it(end):
    class Breaks(Executor):
        """Takes one call, which ends when the test says so."""

        taken = None

        def submit(self, function, /, *args, **kwargs):
            """Take it, or tell that there was one."""
            if self.taken is not None:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self.taken = Future()
            return self.taken

    schema, executor = Schema(), Breaks()
    schema.add("ADD", elsewhere.add, executor=executor)
    server = Server(schema)
    schema["ADD"]({"x": 1})
    with pytest.raises(BrokenExecutor):
        schema["ADD"]({"x": 1})
    end(executor.taken)
    with pytest.raises(HealthcheckFailed, match="the executor of 'ADD' is broken: RuntimeError: cannot schedule"):
        server.check_health()


def test_what_a_future_came_to_is_let_go_when_the_reply_is_sent(serve, connect):
    """Not when the collector comes: Dask keeps a result until nobody has its Future."""
    futures = weakref.WeakSet()

    class Later(Executor):
        """Settles each Future when the next one is asked for."""

        last = None
        lock = threading.Lock()

        def submit(self, function, /, *args, **kwargs):
            """Settle the last one."""
            with self.lock:
                last, self.last = self.last, Future()
                futures.add(self.last)
                asked = self.last
            if last is not None:
                last.set_result(function(*args, **kwargs))
            return asked

    schema, executor = Schema(), Later()
    schema.add("ADD", elsewhere.add, executor=executor)
    with connect(serve(schema)) as client:
        gc.collect()
        gc.disable()
        try:
            calls = [client.dispatch("ADD", {"x": 1}) for _ in range(20)]
            assert [call.result(CEILING) for call in calls[:-1]] == [7] * 19
            wait_until(lambda: len(futures) == 1)
        finally:
            gc.enable()
        executor.last.cancel()
        assert calls[-1].exception(CEILING) is not None


def test_a_task_error_travels(serve, connect):
    schema = Schema()

    def refuse():
        raise TaskError({"left": 3}, code="failed_precondition")

    with ThreadPoolExecutor(1) as pool:
        schema.add("PAY", refuse, executor=pool)
        with connect(serve(schema)) as client:
            with pytest.raises(RemoteError) as failed:
                client.call("PAY")
    assert (failed.value.error, failed.value.code) == ({"left": 3}, "failed_precondition")


def test_loky_runs_what_it_can_pickle_and_breaks(loky_processes, serve, connect):
    schema, pool, lock = Schema(), loky_processes, threading.Lock()
    schema.add("ADD", lambda x, y: x + y, executor=pool)
    schema.add("PID", elsewhere.pid, executor=pool)
    schema.add("DIE", elsewhere.die, executor=pool)
    with pytest.raises(TypeError, match="cannot be pickled"):
        schema.add("LOCK", lambda: lock, executor=pool)
    server = serve(schema)
    with connect(server, timeout=STARTING) as client:
        assert client.call("ADD", {"x": 1, "y": 6}) == 7
        assert client.call("PID") in pool._processes
        with pytest.raises(RemoteError, match="TerminatedWorkerError") as failed:
            client.call("DIE")
        assert failed.value.code == "unavailable"
        wait_until(lambda: health_of(server) == 500)
