"""What a client finds again that has lost its connection: the machine, against a model, and real connections that are lost."""

import json
import threading
import time
from collections import Counter
from concurrent.futures import Future

import pytest
from conftest import CEILING, wait_until
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from raw_peer import TEXT, RawPeer, frame, upgrade

from oompa import TaskError
from oompa.server import resume as resume_module
from oompa.server.connection import Connection
from oompa.server.resume import (
    BEHIND,
    ENTRY,
    KEPT_BYTES,
    REPLIES,
    REPLY_BYTES,
    InHand,
    Resume,
    Running,
    is_same_identity,
    keys_with,
)
from oompa.wire.codec import codec_named
from oompa.wire.messages import ERR, MISSING, OK, Reply, Request

KEY_OF = keys_with(codec_named("json"))


def reply(id, task="T", details=None):
    return Reply(OK if details is None else ERR, id, task=task, details=details)


def open_line(resume, client_id="c", identity=None, came_at=0.0):
    known = resume.known(client_id)
    own = next((each for each in known if is_same_identity(each.identity, identity)), None)
    line, before = resume.opened(client_id, identity, [each for each in known if each is not own], own, None, came_at)
    return line, before


# The machine.


class Reconnecting(RuleBasedStateMachine):
    """One client whose connections come and go while its requests begin, end and are asked for again.

    The model: a request is in hand on one line, kept with a time, or unknown; and whoever asked last is told.
    """

    IDS = st.integers(0, 5)

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.resume = Resume(10.0, KEY_OF)
        self.line = None
        self.in_hand = {}  # id -> (the line it runs on, the line that asked for it)
        self.written = []  # on the newest line
        self.kept = {}  # id -> (text, until)
        self.texts = 0

    @rule(seconds=st.floats(0, 6))
    def time_passes(self, seconds):
        self.now += seconds
        self.resume.tick(self.now)
        self.kept = {id: each for id, each in self.kept.items() if each[1] > self.now}

    @precondition(lambda self: self.line is None)
    @rule()
    def opened(self):
        self.line, before = open_line(self.resume)
        assert before is None
        self.written = []

    @precondition(lambda self: self.line is not None)
    @rule()
    def lost(self):
        line = self.line
        begun = [id for id, (runs_on, _) in self.in_hand.items() if runs_on is line]
        self.resume.lost(line, lambda: [InHand(KEY_OF("T", id), Request("T", id=id)) for id in begun], self.now)
        self.resume.lost(line, lambda: pytest.fail("asked twice"), self.now)
        self.line = None
        for id, text in self.written:
            self.kept.pop(id, None)
            if id not in begun:
                self.kept[id] = (text, self.now + 10.0)
        self.in_hand = {id: (on, None if asked is line else asked) for id, (on, asked) in self.in_hand.items()}

    @precondition(lambda self: self.line is not None)
    @rule(id=IDS)
    def asked(self, id):
        found = self.resume.asked(self.line, KEY_OF("T", id), self.now)
        if id in self.kept:
            assert found == self.kept.pop(id)[0]
            self.written.append((id, found))
            assert self.line.written[-1] == ("T", id, found)  # by when nobody could lose the line in between
        elif id in self.in_hand and self.in_hand[id][0] is not self.line:
            assert isinstance(found, Running) and found.request.id == id and self.resume.owes(self.line, KEY_OF("T", id))
            self.in_hand[id] = (self.in_hand[id][0], self.line)
        else:
            assert found is None
            if id not in self.in_hand:
                self.in_hand[id] = (self.line, self.line)

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data())
    def finished(self, data):
        id = data.draw(st.sampled_from(sorted(self.in_hand)))
        runs_on, asked = self.in_hand.pop(id)
        self.texts += 1
        text = b"%d" % self.texts
        if runs_on is self.line:
            self.line.note(reply(id), text)
            self.written.append((id, text))
            return
        to = self.resume.finished(runs_on, reply(id), text, self.now)
        assert to is (asked if asked is self.line else None)
        if to is None:
            self.kept[id] = (text, self.now + 10.0)
        else:
            self.written.append((id, text))

    @invariant()
    def nothing_more_is_remembered(self):
        if self.line is None and not self.kept and not self.in_hand:
            assert len(self.resume) == 0 and self.resume.due() == float("inf")
        if self.line is not None:
            elsewhere = [id for id, (on, _) in self.in_hand.items() if on is not self.line]
            assert self.line.has_past == bool(self.kept or elsewhere)


TestReconnecting = Reconnecting.TestCase
TestReconnecting.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_keys_tell_apart_what_is_not_equal_in_json():
    ids = [1, 1.0, True, "1", [1], [True], {"a": 1}, {"a": True}, "true"]
    assert len({KEY_OF("T", id) for id in ids}) == len(ids)
    assert KEY_OF("T", {"a": [1]}) == KEY_OF("T", {"a": [1]}) != KEY_OF("U", {"a": [1]})
    assert [KEY_OF(*each) for each in (("T", None), ("T", MISSING), (None, 1))] == [None] * 3


def test_identities_are_the_same_only_if_they_can_tell():
    class Odd:
        def __eq__(self, other):
            raise ValueError("truth of an array")

    assert is_same_identity(None, None) and is_same_identity({"user": 1}, {"user": 1}) and is_same_identity("a", "a")
    odd = Odd()
    for one, other in [("a", "b"), (True, 1), (1, 1.0), (None, "a"), (odd, odd), (object(), object())]:
        assert not is_same_identity(one, other)


def test_clients_of_one_name_and_two_identities_share_nothing():
    resume = Resume(10.0, KEY_OF)
    mine, _ = open_line(resume, identity="me")
    mine.note(reply(1), b"mine")
    resume.lost(mine, lambda: [InHand(KEY_OF("T", 2), None)], 0.0)
    theirs, _ = open_line(resume, identity="them")
    assert [resume.asked(theirs, KEY_OF("T", id), 0.0) for id in (1, 2)] == [None, None] and not theirs.has_past
    again, _ = open_line(resume, identity="me")
    assert resume.asked(again, KEY_OF("T", 1), 0.0) == b"mine"
    assert isinstance(resume.asked(again, KEY_OF("T", 2), 0.0), Running)


def test_who_has_not_seen_every_client_of_the_name_looks_again():
    resume = Resume(10.0, KEY_OF)
    open_line(resume, identity="me")
    assert resume.opened("c", "them", [], None, None) is None
    line, _ = open_line(resume, identity="them")
    gone = resume.known("c")[1]
    resume.lost(line, lambda: [], 0.0)
    assert resume.opened("c", "them", [], gone, None) is None


def test_the_newest_line_adopts_and_older_ones_neither_adopt_nor_run():
    resume = Resume(10.0, KEY_OF)
    first, _ = open_line(resume)
    second, before = open_line(resume)
    assert before is first
    resume.lost(first, lambda: [InHand(KEY_OF("T", 1), None)], 0.0)
    third, before = open_line(resume)
    assert before is second
    assert resume.asked(second, KEY_OF("T", 1), 0.0) == b""
    assert isinstance(resume.asked(third, KEY_OF("T", 1), 0.0), Running)
    assert resume.finished(first, reply(1), b"x", 0.0) is third and list(third.written) == [("T", 1, b"x")]


def test_a_line_that_is_told_of_late_is_lost_at_once_and_takes_nothing_from_the_newer_one():
    resume = Resume(10.0, KEY_OF)
    newer, _ = open_line(resume, came_at=2.0)
    late, to_lose = open_line(resume, came_at=1.0)
    assert to_lose is late and late.session.line is newer
    resume.lost(late, lambda: [], 0.0)
    assert late.session.line is newer and resume.asked(late, KEY_OF("T", 1), 0.0) == b""
    assert resume.asked(newer, KEY_OF("T", 1), 0.0) is None


def test_reply_that_says_that_nothing_has_run_is_never_kept():
    resume = Resume(10.0, KEY_OF)
    line, _ = open_line(resume)
    line.note(reply(1, details={"retry_after": 1}), b"later")
    line.note(reply(2, details={"code": "internal"}), b"failed")
    resume.lost(line, lambda: [InHand(KEY_OF("T", 3), None), InHand(KEY_OF("T", 1), None, True)], 0.0)
    resume.finished(line, reply(3, details={"retry_after": 1}), b"later", 0.0)
    again, _ = open_line(resume)
    assert [resume.asked(again, KEY_OF("T", id), 0.0) for id in (1, 2, 3)] == [None, b"failed", None]


def test_of_an_id_that_is_used_again_the_later_request_counts():
    resume = Resume(10.0, KEY_OF)
    line, _ = open_line(resume)
    line.note(reply(1), b"old")
    resume.lost(line, lambda: [InHand(KEY_OF("T", 1), None)], 0.0)
    again, _ = open_line(resume)
    assert isinstance(resume.asked(again, KEY_OF("T", 1), 0.0), Running)


def test_what_is_kept_of_a_client_is_bounded_and_the_oldest_goes_first():
    resume = Resume(10.0, KEY_OF)
    line, _ = open_line(resume)
    for number in range(2 * REPLIES):
        line.note(reply(number), b"x")
    resume.lost(line, lambda: [], 0.0)
    assert list(line.session.kept) == [KEY_OF("T", number) for number in range(REPLIES, 2 * REPLIES)]
    line, _ = open_line(resume, "another")
    for number in range(5):
        line.note(reply(f"large {number}"), b"x" * (REPLY_BYTES // 3))
    line.note(reply("larger"), b"x" * (REPLY_BYTES + 1))
    assert sum(len(text or b"") for _, _, text in line.written) <= REPLY_BYTES
    resume.lost(line, lambda: [], 0.0)
    assert list(line.session.kept) == [KEY_OF("T", f"large {number}") for number in (2, 3, 4)]


@pytest.mark.parametrize("size", [1, KEPT_BYTES // 10])
def test_all_that_finishes_while_a_client_is_away_is_kept_as_long_as_there_is_room(size):
    resume = Resume(10.0, KEY_OF)
    line, _ = open_line(resume)
    room = KEPT_BYTES // (size + ENTRY)
    keys = [KEY_OF("T", number) for number in range(room + 3)]
    resume.lost(line, lambda: [InHand(key, None) for key in keys], 0.0)
    for number in range(room + 3):
        resume.finished(line, reply(number), b"x" * size, 0.0)
    assert list(line.session.kept) == keys[3:]


def test_what_is_kept_of_all_clients_is_bounded():
    resume = Resume(10.0, KEY_OF, total=3 * (ENTRY + 300))
    for number in range(10):
        line, _ = open_line(resume, f"client {number}")
        line.note(reply(1), b"x" * 300)
        resume.lost(line, lambda: [], 0.0)
    assert len(resume) == 3 and resume.known("client 6") == [] != resume.known("client 7")


def test_it_is_looked_after_until_nothing_is_kept():
    looks = []
    resume = Resume(10.0, KEY_OF, lambda resume, seconds: looks.append(seconds))
    resume.arm(0.0)
    assert looks == []
    line, _ = open_line(resume)
    line.note(reply(1), b"x")
    resume.lost(line, lambda: [], 5.0)
    resume.arm(6.0)
    assert looks == [9.0]


# Connections.


class Tasks:
    """Tasks that the test lets go on, and how often each ran."""

    def __init__(self):
        self.runs = Counter()
        self.release = threading.Event()
        self.futures = {}

    def wait(self, payload):
        self.runs[payload] += 1
        self.release.wait(CEILING)
        return f"{payload}, run {self.runs[payload]}"

    def quick(self, payload):
        self.runs[payload] += 1
        return f"{payload}, run {self.runs[payload]}"

    def later(self, payload):
        self.runs[payload] += 1
        future = self.futures[payload] = Future()
        return future

    def busy(self, payload):
        self.runs[payload] += 1
        raise TaskError("busy", retry_after=0.01)

    @property
    def schema(self):
        return {"WAIT": self.wait, "QUICK": self.quick, "LATER": self.later, "BUSY": self.busy}


@pytest.fixture
def tasks():
    made = Tasks()
    yield made
    made.release.set()
    for future in made.futures.values():
        if not future.done():
            future.set_result(None)


@pytest.fixture
def join():
    """Make raw peers of a server: ``join(server, client_id, **headers)``."""
    made = []

    def make(server, client_id="client-1", **headers):
        peer = RawPeer(server.port)
        told = {"Oompa-Client": client_id, **headers}
        made.append(peer)
        request = upgrade(server.port, extra="".join(f"{name}: {value}\r\n" for name, value in told.items() if value))
        peer.send(request)
        peer.upgraded(request)
        return peer

    yield make
    for peer in made:
        peer.close()


def ask(peer, type, payload, id, **more):
    peer.send(frame(TEXT, json.dumps({"type": type, "payload": payload, "id": id, **more}).encode()))


def read_so_far(peer):
    """Wait until the server has looked at all that was sent; nothing else has been answered."""
    ask(peer, "$OOMPA/PING", None, "read")
    assert peer.reply()["id"] == "read"


def lose(peer, server):
    peer.reset()
    wait_until(lambda: not any(each.is_live for each in server.connections))


def test_request_that_runs_is_adopted_by_the_next_connection(serve, join, tasks):
    server, stale = serve(tasks.schema), []
    server.on("stale", stale.append)
    first = join(server)
    ask(first, "WAIT", "x", 1)
    wait_until(lambda: tasks.runs["x"])
    first.reset()
    second = join(server)
    ask(second, "WAIT", "x", 1)
    ask(second, "WAIT", "x", 1)
    read_so_far(second)
    assert server.stats()["running"] == 1
    tasks.release.set()
    assert second.reply()["payload"] == "x, run 1"
    ask(second, "QUICK", "next", 2)
    assert second.reply()["payload"] == "next, run 1"
    assert stale == []
    ask(second, "QUICK", "x", 1)  # the id may be used again
    assert second.reply()["payload"] == "x, run 2"


@pytest.mark.parametrize("fault", ["reset", "close", "half open"])
def test_reply_that_came_meanwhile_is_kept(serve, join, tasks, fault):
    server, stale = serve(tasks.schema), []
    server.on("stale", stale.append)
    first = join(server)
    ask(first, "WAIT", "x", 1)
    wait_until(lambda: tasks.runs["x"])
    if fault != "half open":
        getattr(first, fault)()
        wait_until(lambda: not any(each.is_open for each in server.connections))
    tasks.release.set()
    wait_until(lambda: server.stats()["tasks"]["WAIT"]["num_requests"] == 1)
    second = join(server)
    ask(second, "WAIT", "x", 1)
    assert second.reply()["payload"] == "x, run 1"
    assert [each.payload for each in stale] == ([] if fault == "half open" else ["x, run 1"])
    ask(second, "WAIT", "x", 1)
    assert second.reply()["payload"] == "x, run 2"  # told once


def test_replies_that_may_not_have_arrived_are_sent_again(serve, join, tasks):
    server = serve(tasks.schema)
    first = join(server)
    for number in range(100):
        ask(first, "QUICK", number, str(number))
    wait_until(lambda: sum(tasks.runs.values()) == 100)
    read = [first.reply() for _ in range(100)]
    lose(first, server)
    second = join(server)
    for number in range(100):
        ask(second, "QUICK", number, str(number))
    assert [second.reply() for _ in range(100)][-REPLIES:] == read[-REPLIES:]
    assert [tasks.runs[number] for number in range(100)] == [2] * (100 - REPLIES) + [1] * REPLIES


def test_reply_that_tells_to_try_again_is_not_kept(serve, join, tasks):
    server = serve(tasks.schema)
    first = join(server)
    ask(first, "BUSY", "x", 1)
    assert first.reply()["details"] == {"retry_after": 0.01}
    lose(first, server)
    second = join(server)
    ask(second, "BUSY", "x", 1)
    assert second.reply()["error"] == "busy" and tasks.runs["x"] == 2


def test_future_is_adopted_too_and_its_task_can_be_cancelled_on_the_new_connection(serve, join, tasks):
    server = serve(tasks.schema)
    first = join(server)
    for number in (1, 2):
        ask(first, "LATER", number, number)
    wait_until(lambda: len(tasks.futures) == 2)
    lose(first, server)
    second = join(server)
    for number in (1, 2):
        ask(second, "LATER", number, number)
    second.send(frame(TEXT, b'{"type":"$OOMPA/CANCEL","payload":{"id":2}}'))
    assert second.reply()["details"] == {"code": "cancelled"} and tasks.futures[2].cancelled()
    tasks.futures[1].set_result("adopted")
    assert second.reply() == {"type": "OK", "id": 1, "payload": "adopted"}
    assert tasks.runs == {1: 1, 2: 1}


def test_what_is_queued_runs_once_and_what_nobody_asks_for_again_never_begins(serve, join, tasks):
    server = serve(tasks.schema, concurrency=1)
    first = join(server)
    for number in range(4):
        ask(first, "WAIT", number, number)
    wait_until(lambda: tasks.runs[0] and server.stats()["queued"] == 3)
    second = join(server)  # the first one still looks alive
    for number in (0, 1, 2):
        ask(second, "WAIT", number, number)
    read_so_far(second)
    tasks.release.set()
    assert sorted(second.reply()["id"] for _ in range(3)) == [0, 1, 2]
    assert tasks.runs == {0: 1, 1: 1, 2: 1}


def test_the_newest_of_two_connections_adopts_and_the_older_is_closed(serve, join, tasks):
    server = serve(tasks.schema)
    first = join(server)
    ask(first, "WAIT", "x", 1)
    wait_until(lambda: tasks.runs["x"])
    second = join(server)
    assert first.ending().close_code == 1000
    ask(second, "WAIT", "x", 1)
    read_so_far(second)
    tasks.release.set()
    assert second.reply()["payload"] == "x, run 1"


def test_request_goes_from_connection_to_connection(serve, join, tasks):
    server = serve(tasks.schema)
    for _ in range(4):
        peer = join(server)
        ask(peer, "WAIT", "x", 1)
        read_so_far(peer)
        lose(peer, server)
    last = join(server)
    ask(last, "WAIT", "x", 1)
    read_so_far(last)
    tasks.release.set()
    assert last.reply()["payload"] == "x, run 1"


@pytest.mark.parametrize("names", [(None, None), ("client-1", "client-2"), ("client-1", None), ("not a name!", "not a name!")])
def test_nobody_gets_what_belongs_to_another_client(serve, join, tasks, names):
    server = serve(tasks.schema)
    first = join(server, names[0])
    for number in (1, 2, 3):
        ask(first, "QUICK", number, number)
        assert first.reply()["payload"] == f"{number}, run 1"
    lose(first, server)
    second = join(server, names[1])
    for number in (1, 2, 3):
        ask(second, "QUICK", number, number)
        assert second.reply()["payload"] == f"{number}, run 2"


def test_nobody_gets_what_belongs_to_another_identity(serve, join, tasks):
    server = serve(tasks.schema, authenticate=lambda request: {"user": request.headers["X-User"]})
    first = join(server, **{"X-User": "ann"})
    ask(first, "QUICK", "x", 1)
    first.reply()
    lose(first, server)
    for user, run in [("bob", 2), ("ann", 1)]:
        peer = join(server, **{"X-User": user})
        ask(peer, "QUICK", "x", 1)
        assert peer.reply()["payload"] == f"x, run {run}"


def test_another_type_with_the_same_id_is_another_request(serve, join, tasks):
    server = serve(tasks.schema)
    first = join(server)
    ask(first, "QUICK", "x", 1)
    first.reply()
    lose(first, server)
    second = join(server)
    tasks.release.set()
    ask(second, "WAIT", "x", 1)
    assert second.reply()["payload"] == "x, run 2"


def test_nothing_is_kept_without_resume_timeout_nor_longer_than_it(serve, join, tasks):
    for timeout in (None, 0.05):
        tasks.runs.clear()
        server = serve(tasks.schema, resume_timeout=timeout)
        first = join(server)
        ask(first, "QUICK", "x", 1)
        first.reply()
        lose(first, server)
        if timeout is not None:
            wait_until(lambda: len(server._service.resume) == 0)  # without anybody asking
        second = join(server)
        ask(second, "QUICK", "x", 1)
        assert second.reply()["payload"] == "x, run 2"


def test_server_tells_whether_it_resumes(serve):
    for timeout, told in [(30.0, True), (None, False)]:
        server = serve(resume_timeout=timeout)
        with RawPeer(server.port) as peer:
            peer.send(upgrade(server.port))
            assert ("resume" in peer.response().headers["oompa-features"]) is told
        assert ("resume" in server.info()["features"]) is told


def test_drain_waits_for_what_was_adopted(serve, join, tasks):
    server = serve(tasks.schema)
    first = join(server)
    ask(first, "WAIT", "x", 1)
    wait_until(lambda: tasks.runs["x"])
    first.reset()
    second = join(server)
    ask(second, "WAIT", "x", 1)
    read_so_far(second)
    closed = server.close(timeout=CEILING)
    assert not threading.Event().wait(0.1) and not closed.done()
    tasks.release.set()
    assert second.reply()["payload"] == "x, run 1"
    assert second.ending().close_code == 1000
    closed.result(CEILING)


def test_progress_goes_to_the_connection_that_has_adopted(serve, join, tasks):
    from oompa import current_request

    begun, step = threading.Event(), threading.Event()

    def task(_):
        request = current_request()
        begun.set()
        step.wait(CEILING)
        request.progress(7)
        return "done"

    server = serve({"LONG": task})
    first = join(server)
    ask(first, "LONG", None, 1, meta={"progress": True})
    assert begun.wait(CEILING)
    lose(first, server)
    second = join(server)
    ask(second, "LONG", None, 1, meta={"progress": True})
    read_so_far(second)
    step.set()
    assert second.reply()["payload"]["done"] == 7
    assert second.reply()["payload"] == "done"


def test_copy_on_the_new_connection_extends_the_deadline(serve, join, tasks):
    server = serve(tasks.schema)
    first = join(server)
    ask(first, "LATER", "x", 1, meta={"timeout": 0.3})
    wait_until(lambda: tasks.futures)
    first.reset()
    second = join(server)
    ask(second, "LATER", "x", 1, meta={"timeout": 60})
    read_so_far(second)
    assert not threading.Event().wait(0.5) and not tasks.futures["x"].done()
    tasks.futures["x"].set_result("in time")
    assert second.reply()["payload"] == "in time"


def test_client_that_reconnects_runs_nothing_twice(serve, connect):
    runs, lock = Counter(), threading.Lock()

    def task(number):
        with lock:
            runs[number] += 1
        time.sleep(0.01 if number % 3 else 0.0)
        return number

    server = serve({"WORK": task})
    client = connect(server, reconnect_interval=0.01)
    stop = threading.Event()

    def break_off():
        while not stop.wait(0.05):
            for connection in server.connections:
                connection.abort("the test breaks it off")

    breaker = threading.Thread(target=break_off)
    breaker.start()
    try:
        for start in range(0, 600, 60):
            calls = [client.dispatch("WORK", number, timeout=CEILING) for number in range(start, start + 60)]
            assert [call.result(CEILING) for call in calls] == list(range(start, start + 60))
    finally:
        stop.set()
        breaker.join()
    assert set(runs.values()) == {1}


def test_connection_that_takes_over_waits_for_what_the_other_is_just_losing(serve, join, tasks):
    server, opened, is_losing = serve(tasks.schema), [], threading.Event()
    server.on("connection", opened.append)
    first = join(server)
    ask(first, "WAIT", "x", 1)
    wait_until(lambda: tasks.runs["x"])
    (older,) = opened
    close, begun = older.close, older._begun

    def begun_slowly():
        is_losing.set()
        threading.Event().wait(0.2)  # the newer connection must not go on meanwhile
        return begun()

    def lose_elsewhere(*args):
        older._begun = begun_slowly
        threading.Thread(target=older._lose).start()
        assert is_losing.wait(CEILING)
        close(*args)

    older.close = lose_elsewhere
    second = join(server)
    ask(second, "WAIT", "x", 1)
    tasks.release.set()
    assert second.reply()["payload"] == "x, run 1"


def test_a_connection_whose_thread_begins_late_does_not_end_the_newer_one(serve, join, tasks, monkeypatch):
    """As threads do on a busy machine, when a client gives a connection up and comes on another at once."""
    server, begins, resume = serve(tasks.schema), threading.Event(), Connection._resume
    held = []

    def resume_late(connection, came_at):
        if not held:
            held.append(connection)
            assert begins.wait(CEILING)
        resume(connection, came_at)

    monkeypatch.setattr(Connection, "_resume", resume_late)
    late = join(server)
    ask(late, "QUICK", "x", 1)
    wait_until(lambda: held)
    newer = join(server)
    ask(newer, "QUICK", "x", 1)
    assert newer.reply()["payload"] == "x, run 1"
    begins.set()
    assert late.ending().close_code == 1000
    ask(newer, "QUICK", "y", 2)
    assert newer.reply()["payload"] == "y, run 1"
    assert tasks.runs == {"x": 1, "y": 1}


@pytest.mark.parametrize("name, runs", [("client-1", 1), (None, 2)])
def test_copy_that_lay_unread_while_the_connection_was_full_is_answered_and_not_run(serve, join, tasks, name, runs):
    """A client that says who it is never uses an id again; another may."""
    server = serve(tasks.schema, concurrency=1, max_queued=1)
    peer = join(server, name)
    ask(peer, "WAIT", "x", 1)
    wait_until(lambda: tasks.runs["x"])
    ask(peer, "QUICK", "filler", 2)
    wait_until(lambda: server.stats()["queued"] == 1)
    ask(peer, "WAIT", "x", 1)
    ask(peer, "QUICK", "next", 3)
    tasks.release.set()
    replies = [peer.reply() for _ in range(4)]
    copy = f"x, run {runs}"
    assert [reply["payload"] for reply in replies] == ["x, run 1", "filler, run 1", copy, "next, run 1"]
    assert tasks.runs["x"] == runs


def test_connection_that_was_full_looks_for_copies_for_a_while_only(serve, join, tasks, monkeypatch):
    monkeypatch.setattr(resume_module, "BEHIND", 0.0)
    server, opened = serve(tasks.schema, concurrency=1, max_queued=1), []
    server.on("connection", opened.append)
    peer = join(server)
    ask(peer, "WAIT", "x", 1)
    wait_until(lambda: tasks.runs["x"])
    ask(peer, "QUICK", "filler", 2)
    wait_until(lambda: opened[0]._waits_for_room)
    tasks.release.set()
    assert [peer.reply()["id"] for _ in range(2)] == [1, 2]
    wait_until(lambda: not opened[0]._is_plain and not opened[0]._running)
    ask(peer, "QUICK", "next", 3)
    assert peer.reply()["payload"] == "next, run 1"
    wait_until(lambda: opened[0]._is_plain)


def test_connection_is_plain_again_when_what_was_kept_for_its_client_has_gone(serve, join, tasks):
    server, opened = serve(tasks.schema, resume_timeout=0.05), []
    server.on("connection", opened.append)
    first = join(server)
    ask(first, "QUICK", "x", 1)
    first.reply()
    lose(first, server)
    second = join(server)
    wait_until(lambda: not server._service.resume.due() < float("inf"))
    ask(second, "QUICK", "y", 2)
    assert second.reply()["payload"] == "y, run 1"
    wait_until(lambda: opened[-1]._is_plain)


def test_line_that_is_behind_tells_what_was_written_last_for_a_request():
    resume = Resume(30.0, KEY_OF)
    line, _ = resume.opened("client-1", True, [], None, None)
    for reply in (Reply(OK, 1, "old", task="A"), Reply(ERR, 1, error="busy", task="A", details={"retry_after": 0.1})):
        line.note(reply, b"text")
    line.note(Reply(OK, True, task="A"), b"other")
    line.note(Reply(OK, 2, task="A"), bytes(REPLY_BYTES + 1))
    told = [resume.answered(line, resume.key_of(task, id)) for task, id in [("A", 1), ("A", True), ("A", 2), ("B", 1)]]
    assert told == [("A", 1, None), ("A", True, b"other"), ("A", 2, b""), None]
    assert not line.has_past
    line.fell_behind(5.0)
    line.tick(5.0 + BEHIND - 0.1)
    assert line.has_past
    line.tick(5.0 + BEHIND)
    assert not line.has_past
