"""Connections that are too old: what is due when, and that it is done."""

import threading

import pytest
from conftest import CEILING, wait_until

from oompa.server.ages import Ages, Reaper


class Connection:
    """One that says what was done to it."""

    def __init__(self):
        self.is_live = True
        self.done = []

    def drain(self):
        self.done.append("drain")

    def close(self):
        self.done.append("close")


def tick(ages, now):
    for end in ages.tick(now):
        end()


@pytest.mark.parametrize("drawn, age", [(0.0, 90.0), (0.5, 100.0), (1.0, 110.0)])
def test_a_connection_drains_at_its_age_give_or_take_a_tenth(drawn, age):
    ages, connection = Ages(100.0, 30.0, lambda: drawn), Connection()
    assert ages.wait(0.0) is None
    assert ages.entered(connection, 1000.0)
    assert ages.wait(1000.0) == pytest.approx(age)
    tick(ages, 999.9 + age)
    assert connection.done == []
    tick(ages, 1000.1 + age)
    assert connection.done == ["drain"]


def test_one_whose_tasks_go_on_is_closed_after_drain_timeout():
    ages, connection = Ages(100.0, 30.0, lambda: 0.5), Connection()
    ages.entered(connection, 0.0)
    tick(ages, 100.0)
    assert ages.wait(100.0) == 30.0
    tick(ages, 129.9)
    assert connection.done == ["drain"]
    tick(ages, 130.0)
    assert connection.done == ["drain", "close"]
    assert ages.wait(130.0) is None


def test_the_next_one_is_told():
    draws = iter([1.0, 0.0, 0.5])
    ages = Ages(100.0, 30.0, lambda: next(draws))
    assert [ages.entered(Connection(), 0.0) for _ in range(3)] == [True, True, False]
    assert ages.wait(0.0) == pytest.approx(90.0)


def test_connections_that_have_ended_are_left_alone_and_not_kept():
    ages, connections = Ages(100.0, 30.0), [Connection() for _ in range(10_000)]
    for connection in connections:
        ages.entered(connection, 0.0)
        connection.is_live = False
    assert len(ages._due) < 200
    tick(ages, 200.0)
    assert all(connection.done == [] for connection in connections)


def test_one_that_cannot_be_ended_keeps_no_other_from_its_end(caplog):
    class Broken(Connection):
        def drain(self):
            raise MemoryError

    reaper, well = Reaper(0.02, 30.0), Connection()
    try:
        reaper.entered(Broken())
        wait_until(lambda: "could not be ended" in caplog.text)
        reaper.entered(well)
        wait_until(lambda: well.done == ["drain"])
    finally:
        reaper.close()


def test_old_connections_are_replaced_and_no_call_is_lost(serve, connect):
    server = serve(max_connection_age=0.3)
    client = connect(server, reconnect_interval=0.01)
    reconnected = []
    client.on("reconnected", lambda: reconnected.append(True))

    def calls():
        assert client.call("ADD", {"x": 1, "y": 2}, timeout=CEILING) == 3
        return len(reconnected) >= 2

    wait_until(calls)


def test_a_running_task_may_finish(serve, connect):
    started, release = threading.Event(), threading.Event()

    def task(payload):
        started.set()
        assert release.wait(CEILING)
        return "done"

    server = serve({"WAIT": task}, max_connection_age=0.2)
    ended = []
    server.on("terminated", ended.append)
    call = connect(server).dispatch("WAIT")
    assert started.wait(CEILING)
    (connection,) = server.connections
    wait_until(lambda: connection._draining)
    release.set()
    assert call.result(CEILING) == "done"
    wait_until(lambda: ended)
