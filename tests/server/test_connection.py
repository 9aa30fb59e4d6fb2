"""How a connection shares its threads: tasks that wait, what it may hold, pings past the queue, back-pressure."""

import threading
import time
from collections import Counter

import pytest
from conftest import CALCULATOR, CEILING, wait_until
from raw_peer import PONG, TEXT, Frame, RawPeer, frame

from oompa.server.paces import PATIENCE, WORTH


class Overlap:
    """A task that waits as long as it is told, and how many of it ran at once."""

    def __init__(self):
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()
        self.order = []

    def __call__(self, seconds):
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            self.order.append(seconds)
        time.sleep(seconds)
        with self._lock:
            self._now -= 1


@pytest.mark.parametrize("seconds", [0.001, 0.003, 0.0045])
def test_tasks_that_wait_shortly_run_beside_each_other(serve, connect, seconds):
    assert WORTH < seconds < PATIENCE
    task = Overlap()
    client = connect(serve({"WAIT": task}))
    for call in [client.dispatch("WAIT", seconds) for _ in range(200)]:  # the first few are looked at
        call.result(CEILING)
    assert task.most == 16


def test_tasks_that_compute_stay_on_one_thread(serve, connect):
    threads = Counter()

    def compute(_):
        threads[threading.get_ident()] += 1
        return sum(range(20_000))  # some 0.5 ms

    client = connect(serve({"COMPUTE": compute}))
    for call in [client.dispatch("COMPUTE") for _ in range(300)]:
        call.result(CEILING)
    assert threads.most_common(1)[0][1] > 150  # but for moments in which the system let the thread stand


def test_with_a_concurrency_of_one_tasks_that_wait_stay_in_order(serve, connect):
    task = Overlap()
    client = connect(serve({"WAIT": task}, concurrency=1))
    pauses = [0.001 + number / 1e6 for number in range(100)]
    for call in [client.dispatch("WAIT", pause) for pause in pauses]:
        call.result(CEILING)
    assert (task.most, task.order) == (1, pauses)


def test_stand_ins_are_used_again_so_that_few_open_connections_of_their_own(serve, connect):
    here, opened = threading.local(), []

    def query(_):
        if not hasattr(here, "connection"):
            here.connection = object()
            opened.append(here.connection)
        time.sleep(0.02)

    client = connect(serve({"QUERY": query}))

    def call_on():
        for _ in range(50):
            client.call("QUERY")

    callers = [threading.Thread(target=call_on) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(opened) <= 8


def test_stand_ins_end_with_their_server(serve, connect):
    server = serve({"SLEEP": lambda _: time.sleep(0.02)})
    client = connect(server)
    for call in [client.dispatch("SLEEP") for _ in range(20)]:
        call.result(CEILING)
    assert any(thread.name == "oompa-stand-in" for thread in threading.enumerate())
    client.close()
    server.close().result(CEILING)
    wait_until(lambda: not any(thread.name == "oompa-stand-in" for thread in threading.enumerate()))


def test_ping_is_answered_while_every_place_is_taken_and_others_queue(serve, connect):
    release = threading.Event()
    client = connect(serve({"WAIT": lambda _: release.wait(CEILING)}, concurrency=2))
    calls = [client.dispatch("WAIT") for _ in range(6)]
    try:
        assert client.ping(timeout=CEILING).result(CEILING) is True
        assert not any(call.done() for call in calls)
    finally:
        release.set()
    assert [call.result(CEILING) for call in calls] == [True] * 6


def test_ping_that_ran_beyond_concurrency_does_not_start_what_is_queued(serve, connect):
    release, begun = threading.Event(), []

    def task(payload):
        begun.append(payload)
        release.wait(CEILING)

    client = connect(serve({"WAIT": task}, concurrency=1))
    calls = [client.dispatch("WAIT", number) for number in range(3)]
    for _ in range(3):
        assert client.ping(timeout=CEILING).result(CEILING) is True
    assert begun == [0]
    release.set()
    for call in calls:
        call.result(CEILING)


def test_ping_of_the_schema_is_a_task_like_any_other(serve, connect):
    begun = []
    client = connect(serve({"$OOMPA/PING": begun.append}))
    assert client.ping(timeout=CEILING).result(CEILING) is None
    assert len(begun) == 1


def test_bytes_of_running_requests_count_in_what_a_connection_may_hold(serve, connect):
    release, begun = threading.Event(), []

    def task(payload):
        begun.append(len(payload))
        release.wait(CEILING)

    client = connect(serve({"HOLD": task}, max_message_size=100_000), max_message_size=100_000)
    calls = [client.dispatch("HOLD", "x" * 40_000) for _ in range(10)]
    wait_until(lambda: len(begun) == 3)  # the third is more than may be held, and nothing is read beyond it
    assert client.dispatch("HOLD", "x") and not threading.Event().wait(0.2)
    assert len(begun) == 3
    release.set()
    for call in calls:
        call.result(CEILING)


def test_one_request_of_the_greatest_size_does_not_stop_the_others(serve, connect):
    release, begun = threading.Event(), threading.Event()

    def task(_):
        begun.set()
        release.wait(CEILING)

    client = connect(serve({"HOLD": task, **CALCULATOR}, max_message_size=50_000))
    held = client.dispatch("HOLD", "x" * 49_900)
    assert begun.wait(CEILING)
    assert client.call("ADD", {"x": 1, "y": 1}, timeout=CEILING) == 2
    release.set()
    held.result(CEILING)


@pytest.fixture
def full(serve):
    """A raw peer whose connection holds all it may, its server, and what releases the tasks."""
    release = threading.Event()
    server = serve({"WAIT": lambda _: release.wait(CEILING)}, concurrency=1, max_queued=2)
    with RawPeer.websocket(server.port) as peer:
        for number in range(4):
            peer.send(frame(TEXT, b'{"type":"WAIT","id":%d}' % number))
        yield peer, server, release
        release.set()


def test_server_that_stops_reading_says_that_it_lives(full):
    peer, _, release = full
    assert [peer.frame() for _ in range(2)] == [Frame(PONG, b"")] * 2
    release.set()
    assert [peer.reply()["id"] for _ in range(4)] == [0, 1, 2, 3]


def test_peer_that_leaves_while_its_queue_is_full_is_noticed(full):
    peer, server, release = full
    ended = threading.Event()
    server.on("terminated", lambda _: ended.set())
    assert peer.frame() == Frame(PONG, b"")  # it does not read any more
    peer.close()
    assert ended.wait(CEILING) and not release.is_set()


def test_connection_has_fewer_attributes_than_cpython_finds_quickly(serve, connect):
    server, opened = serve({"ADD": lambda p: p}), []
    server.on("connection", opened.append)
    connect(server).call("ADD", 1)
    assert len(vars(opened[0])) < 30
