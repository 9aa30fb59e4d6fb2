"""Who is pinged, and when: by one thread for all."""

import threading

import pytest
from conftest import CEILING, wait_until
from raw_peer import PING, PONG, RawPeer, frame

from oompa import Server
from oompa.server.pulse import Beats, Pulse


class Connection:
    """One that says when it was looked at."""

    def __init__(self, interval=25.0):
        self.beaten = []
        self.threads = set()
        self._interval = interval

    def beat(self, now):
        self.beaten.append(now)
        self.threads.add(threading.current_thread())
        return now + self._interval


def names(taken):
    return [connection for _, connection in taken]


def test_those_that_are_due_are_taken_in_order():
    beats, one, other = Beats(), Connection(), Connection()
    assert beats.wait(0.0) is None
    assert beats.entered(one, 25.0)
    assert not beats.entered(other, 26.0)
    assert beats.wait(20.0) == 5.0
    assert beats.take(24.9) == []
    taken = beats.take(26.0)
    assert names(taken) == [one, other]
    assert beats.wait(26.0) is None
    beats.again(taken[0][0], 50.0)
    assert beats.wait(26.0) == 24.0
    assert names(beats.take(50.0)) == [one]


def test_one_that_has_left_is_not_looked_at_again():
    beats, one, other = Beats(), Connection(), Connection()
    beats.entered(one, 1.0)
    beats.entered(other, 1.0)
    beats.left(one)
    [(number, left)] = beats.take(1.0)
    assert left is other
    beats.left(other)
    beats.again(number, 2.0)
    beats.left(other)
    assert beats.wait(1.0) is None


def test_what_is_kept_of_connections_that_left_is_bounded():
    beats = Beats()
    for _ in range(10_000):
        connection = Connection()
        beats.entered(connection, 25.0)
        beats.left(connection)
    assert len(beats._due) <= 65


def test_one_thread_looks_at_all_and_one_that_raises_keeps_nobody_waiting(caplog):
    class Broken(Connection):
        def beat(self, now):
            super().beat(now)
            raise ZeroDivisionError

    pulse, well, broken = Pulse(0.02), [Connection(0.02) for _ in range(20)], Broken()
    try:
        pulse.entered(broken)
        for connection in well:
            pulse.entered(connection)
        wait_until(lambda: all(len(connection.beaten) > 2 for connection in well))
    finally:
        pulse.close()
    [thread] = set().union(*(connection.threads for connection in well))
    assert not thread.is_alive()
    assert len(broken.beaten) == 1
    assert "was not looked after" in caplog.text


def test_without_pings_there_is_no_thread():
    before = threading.active_count()
    pulse = Pulse(None)
    pulse.entered(Connection())
    assert threading.active_count() == before
    pulse.left(Connection())
    pulse.close()


@pytest.fixture
def server():
    server = Server({"WAIT": lambda seconds: threading.Event().wait(seconds)}, ping_interval=0.2, max_queued=1, concurrency=1)
    server.listen(0).result()
    yield server
    server.close(0).result()


def test_idle_connections_are_pinged_though_their_threads_do_not_wake(server):
    peers = [RawPeer.websocket(server.port) for _ in range(5)]
    try:
        for _ in range(2):
            for peer in peers:
                got = peer.frame(CEILING)
                assert got is not None and got.opcode == PING
                peer.send(frame(PONG, got.payload))
        assert len(server.connections) == 5
    finally:
        for peer in peers:
            peer.close()


def test_one_that_is_not_read_for_want_of_room_is_not_given_up(server, connect):
    """Its pongs lie unread, and are signs of life all the same."""
    client = connect(f"ws://127.0.0.1:{server.port}", ping_interval=None, timeout=CEILING, attempts=1)
    calls = [client.dispatch("WAIT", seconds) for seconds in (1.0, 0.0, 0.0, 0.0)]
    wait_until(lambda: server.connections)
    connections = server.connections
    assert [call.result(CEILING) for call in calls] == [False] * 4
    assert server.connections == connections
