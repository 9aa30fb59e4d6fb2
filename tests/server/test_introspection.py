"""INFO, STATS and SCHEMA: what a server tells of itself, over the wire and in its process."""

import os
import sys
import threading
from datetime import datetime, timedelta, timezone

import pytest
from conftest import CALCULATOR, CEILING, wait_until

from oompa import RemoteError, Schema, Server, TaskError, __version__, current_request
from oompa.server.introspection import Tally, module_of
from oompa.wire.messages import ERR, OK, PING, Reply


def raises(payload):
    """Fail, always."""
    raise TaskError(payload)


def documented():
    schema = Schema()

    @schema.task("ADD")
    def add(x, y):
        """Add two numbers.

        Of any kind.
        """
        return x + y

    schema["RAISE"] = raises
    schema["LAMBDA"] = lambda payload: payload
    return schema


# INFO.


def test_info_tells_who_the_server_is(serve, connect):
    server = serve(documented(), name="calculator", version="1.2", metadata={"zone": "eu"})
    info = connect(server).call("$OOMPA/INFO")
    assert info == server.info()
    assert (info["name"], info["version"], info["metadata"]) == ("calculator", "1.2", {"zone": "eu"})
    assert info["library"] == f"oompa-python/{__version__}" and "meta" in info["features"]
    assert info["tasks"] == [
        {"type": "ADD", "doc": "Add two numbers.\n\nOf any kind."},
        {"type": "RAISE", "doc": "Fail, always."},
        {"type": "LAMBDA", "doc": ""},
    ]
    started = datetime.fromisoformat(info["started"])
    assert timedelta() <= datetime.now(timezone.utc) - started < timedelta(minutes=5)


def test_each_server_has_an_id_that_tells_its_process():
    first, second = Server({}).info()["id"], Server({}).info()["id"]
    assert first != second
    assert first.partition(".")[2] == str(os.getpid())


def test_a_server_is_named_after_the_module_of_its_first_factory(monkeypatch):
    assert Server(documented()).info()["name"] == __name__
    assert Server({}).info()["name"] == "oompa"
    script = type("Task", (), {"__module__": "__main__", "__call__": lambda self, payload: payload})()
    monkeypatch.setattr("sys.modules", {"__main__": type("Main", (), {"__file__": "/srv/calculator.py"})})
    assert module_of([script]) == "calculator"


# STATS.


def test_stats_count_what_was_asked_for(serve, connect):
    server = serve({**documented(), **CALCULATOR})
    client = connect(server)
    assert client.call("ADD", {"x": 1, "y": 2}) == 3
    for task in ("RAISE", "MEOW", "PURR"):
        with pytest.raises(RemoteError):
            client.call(task, "wrong\nx")
    client.ping().result(CEILING)
    client.call("SLEEP", {"seconds": 0.02})
    stats = client.call("$OOMPA/STATS")
    tasks = stats["tasks"]
    assert list(tasks) == [*documented(), "SUB", "MUL", "DIV", "ECHO", "SLEEP", ""]
    assert (tasks["ADD"]["num_requests"], tasks["ADD"]["num_errors"], tasks["ADD"]["last_error"]) == (1, 0, None)
    assert (tasks["RAISE"]["num_requests"], tasks["RAISE"]["num_errors"]) == (1, 1)
    assert tasks["RAISE"]["last_error"] == "wrong\\nx"
    assert (tasks[""]["num_requests"], tasks[""]["num_errors"]) == (2, 2)
    assert tasks["SLEEP"]["processing_time"] == tasks["SLEEP"]["average_processing_time"] >= 0.02
    assert tasks["SUB"] == {
        "num_requests": 0,
        "num_errors": 0,
        "processing_time": 0.0,
        "average_processing_time": 0.0,
        "last_error": None,
        "durations": [],
    }
    assert server.stats() == stats, "asking changed what is told"


def test_stats_tell_how_durations_are_spread():
    tally = Tally({"ADD": len})
    for seconds in (0.001, 0.001, 0.1, 1.0, 0.0):
        tally.count(Reply(OK, None, elapsed=seconds, task="ADD"))
    durations = tally.told(with_errors=True)["ADD"]["durations"]
    assert sorted(bound for bound, _ in durations) == [bound for bound, _ in durations]
    assert [count for _, count in durations] == [2, 1, 1, 1] or [count for _, count in durations] == [1, 2, 1, 1]
    for seconds, count in ((0.001, 2), (0.1, 1), (1.0, 1)):
        assert [number for bound, number in durations if seconds <= bound <= seconds * 1.26] == [count]


def test_stats_tell_what_is_in_hand(serve, connect):
    started, go_on = threading.Semaphore(0), threading.Event()

    def wait(payload):
        started.release()
        go_on.wait(CEILING)

    server = serve({"WAIT": wait}, concurrency=2)
    client = connect(server)
    calls = [client.dispatch("WAIT") for _ in range(5)]
    try:
        assert started.acquire(timeout=CEILING) and started.acquire(timeout=CEILING)
        wait_until(lambda: server.stats()["queued"] == 3)
        load = server.stats()
        assert (load["connections"], load["running"], load["queued"]) == (1, 2, 3)
    finally:
        go_on.set()
    for call in calls:
        call.result(CEILING)
    wait_until(lambda: server.stats()["running"] == 0)
    assert server.stats()["tasks"]["WAIT"]["num_requests"] == 5


def test_a_result_that_is_not_json_counts_as_an_error(serve, connect):
    server = serve({"SET": lambda payload: {1, 2}})
    with pytest.raises(RemoteError):
        connect(server).call("SET")
    counts = server.stats()["tasks"]["SET"]
    assert (counts["num_requests"], counts["num_errors"]) == (1, 1)
    assert "not JSON" in counts["last_error"]


def test_what_raises_as_its_application_context_ends_counts_once(serve, connect):
    server = serve({"ECHO": lambda payload: payload}, app_context=True)

    @server.app.teardown_appcontext
    def fail(error):
        if current_request() is not None:
            raise RuntimeError("no commit")

    with pytest.raises(RemoteError):
        connect(server).call("ECHO")
    counts = server.stats()["tasks"]["ECHO"]
    assert (counts["num_requests"], counts["num_errors"]) == (1, 1)
    assert counts["last_error"] == "RuntimeError: no commit"


def test_errors_that_are_hidden_are_not_in_stats(serve, connect):
    server = serve({"RAISE": raises}, expose_errors=False)
    client = connect(server)
    with pytest.raises(RemoteError):
        client.call("RAISE", "secret")
    counts = client.call("$OOMPA/STATS")["tasks"]["RAISE"]
    assert counts["num_errors"] == 1 and counts["last_error"] is None


def test_no_count_is_lost_among_threads(switch_often):
    tally = Tally({"ADD": len})
    at_once = threading.Barrier(16)

    def count():
        at_once.wait(CEILING)
        for number in range(2000):
            tally.count(Reply(OK if number % 2 else ERR, None, error=None if number % 2 else "wrong", elapsed=0.5, task="ADD"))
            tally.count(Reply(ERR, None, error="unknown", task=f"X{number}"))
            tally.count(Reply(OK, None, task=PING))

    threads = [threading.Thread(target=count) for _ in range(16)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    told = tally.told(with_errors=True)
    assert list(told) == ["ADD", ""]
    assert (told["ADD"]["num_requests"], told["ADD"]["num_errors"]) == (32000, 16000)
    assert told["ADD"]["processing_time"] == 16000.0
    assert told[""]["num_requests"] == told[""]["num_errors"] == 32000


@pytest.fixture
def switch_often():
    """Threads take turns far more often than they would."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


# All three.


VERBS = ["$OOMPA/INFO", "$OOMPA/STATS", "$OOMPA/SCHEMA"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_task_of_that_name_wins(serve, connect, verb):
    server = serve({verb: lambda payload: "mine"})
    assert connect(server).call(verb) == "mine"
    assert server.stats()["tasks"][verb]["num_requests"] == 1


@pytest.mark.parametrize("verb", VERBS)
def test_introspection_may_be_off(serve, connect, verb):
    server = serve(introspection=False)
    with pytest.raises(RemoteError, match="Unknown request type"):
        connect(server).call(verb)
    assert server.info()["tasks"], "in its own process a server may ask itself"


WRONG = [{"name": 1}, {"version": None}, {"metadata": []}, {"metadata": {1: 2}}, {"introspection": 1}]


@pytest.mark.parametrize("option", WRONG)
def test_options_of_another_type_are_refused(option):
    with pytest.raises(TypeError, match=f"^{next(iter(option))} must be "):
        Server({}, **option)


def test_metadata_that_is_not_json_is_refused():
    with pytest.raises(ValueError, match="^metadata must be JSON"):
        Server({}, metadata={"since": datetime.now()})
