"""Tasks that return a Future, requests that are given up, and deadlines, as a connection sees them."""

import json
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import flask
import pytest
from conftest import CEILING, wait_until
from raw_peer import TEXT, RawPeer, frame

from oompa import RemoteError, RequestTimeout, current_request
from oompa.server.awaited import Awaited, Awaiting
from oompa.wire.messages import Request


class Promised:
    """A task whose Futures the test settles: one for each payload."""

    def __init__(self):
        self.futures = {}
        self.requests = {}

    def __call__(self, payload):
        self.requests[payload] = current_request()
        self.futures[payload] = Future()
        return self.futures[payload]

    def begun(self, *payloads):
        wait_until(lambda: set(payloads) <= set(self.futures))
        return [self.futures[payload] for payload in payloads]


@pytest.fixture
def promised():
    made = Promised()
    yield made
    for future in made.futures.values():
        if not future.done():
            future.set_result(None)


@pytest.fixture
def peers():
    """Make raw peers of a server: ``peers(server)``."""
    made = []

    def make(server):
        made.append(RawPeer.websocket(server.port))
        return made[-1]

    yield make
    for peer in made:
        peer.close()


def ask(peer, type, payload=None, id=1, **more):
    peer.send(frame(TEXT, json.dumps({"type": type, "payload": payload, "id": id, **more}).encode()))


def cancel(peer, id):
    peer.send(frame(TEXT, json.dumps({"type": "$OOMPA/CANCEL", "payload": {"id": id}}).encode()))


def stand_ins():
    return sum(thread.name == "oompa-stand-in" for thread in threading.enumerate())


# Futures.


def test_task_that_returns_a_future_holds_no_thread_and_no_place(serve, connect, promised):
    server = serve({"LATER": promised, "ADD": sum}, concurrency=1)
    client = connect(server)
    calls = [client.dispatch("LATER", number) for number in range(100)]
    futures = promised.begun(*range(100))
    assert client.call("ADD", [1, 2]) == 3  # the one place is free
    assert stand_ins() <= 1
    assert server.stats()["running"] == 100
    for number, future in enumerate(futures):
        future.set_result(-number)
    assert [call.result(CEILING) for call in calls] == [-number for number in range(100)]
    wait_until(lambda: server.stats()["running"] == 0)
    assert server.stats()["tasks"]["LATER"]["num_requests"] == 100


def test_where_there_is_middleware_it_gets_the_value_and_a_thread_waits(serve, connect, promised):
    server = serve({"LATER": promised})
    server.use(lambda request, call_next: call_next(request) + 1)
    call = connect(server).dispatch("LATER", 1)
    promised.begun(1)[0].set_result(41)
    assert call.result(CEILING) == 42


def test_future_that_fails_or_is_settled_already_is_answered_like_any_task(serve, connect):
    done, failed = Future(), Future()
    done.set_result(3)
    failed.set_exception(ZeroDivisionError("Zero div"))
    pool = ThreadPoolExecutor(1)
    server = serve({"DONE": lambda _: done, "FAILED": lambda _: failed, "POOL": lambda p: pool.submit(lambda: 1 / p)})
    client = connect(server)
    assert client.call("DONE") == 3
    for type in ("FAILED", "POOL"):
        with pytest.raises(RemoteError, match="^ZeroDivisionError: ") as raised:
            client.call(type, 0)
        assert raised.value.code == "internal"
    assert client.call("POOL", 4) == 0.25
    pool.shutdown()


def test_who_settles_a_future_is_not_held_up_by_a_slow_reader_or_a_listener(serve, connect, promised):
    server, release, threads = serve({"LATER": promised}), threading.Event(), []

    @server.on("reply")
    def listen(reply):
        threads.append(threading.get_ident())
        release.wait(CEILING)

    calls = [connect(server).dispatch("LATER", number) for number in range(3)]
    for future in promised.begun(0, 1, 2):
        future.set_result("x" * 100_000)  # comes back at once, or the listeners would never be released
    release.set()
    assert all(len(call.result(CEILING)) == 100_000 for call in calls)
    assert threading.get_ident() not in threads


def test_reply_of_a_future_tells_how_long_the_task_took_and_whose_it_is(serve, connect, promised):
    server, seen = serve({"LATER": promised}), []
    server.on("reply", lambda reply: seen.append((reply.task, reply.id, reply.elapsed > 0, current_request())))
    call = connect(server).dispatch("LATER", 1)
    promised.begun(1)[0].set_result(None)
    call.result(CEILING)
    assert seen == [("LATER", call.id, True, promised.requests[1])]


def test_a_copy_of_what_is_awaited_is_dropped(serve, peers, promised):
    peer = peers(serve({"LATER": promised, "ADD": sum}))
    for _ in range(3):
        ask(peer, "LATER", "x")
    ask(peer, "ADD", [1], id=2)
    assert peer.reply()["id"] == 2
    promised.futures["x"].set_result("once")
    assert peer.reply() == {"type": "OK", "id": 1, "payload": "once"}
    ask(peer, "ADD", [3], id=3)
    assert peer.reply()["id"] == 3 and len(promised.futures) == 1


def test_what_is_awaited_counts_in_what_a_connection_may_hold(serve, peers, promised):
    peer = peers(serve({"LATER": promised}, max_queued=5))
    for number in range(10):
        ask(peer, "LATER", number, id=number)
    promised.begun(4)
    assert not threading.Event().wait(0.2) and len(promised.futures) == 5
    promised.futures[0].set_result(None)
    promised.begun(5)


def test_bytes_of_what_is_awaited_count_too(serve, connect, promised):
    client = connect(serve({"LATER": lambda p: promised(p[0])}, max_message_size=100_000))
    calls = [client.dispatch("LATER", [number, "x" * 40_000]) for number in range(6)]
    promised.begun(2)
    assert not threading.Event().wait(0.2) and len(promised.futures) == 3
    for number in range(6):
        promised.begun(number)[0].set_result(number)
    assert [call.result(CEILING) for call in calls] == list(range(6))


def test_drain_waits_for_what_is_awaited(serve, connect, promised):
    server = serve({"LATER": promised})
    call = connect(server).dispatch("LATER", 1)
    future = promised.begun(1)[0]
    closed = server.close(timeout=CEILING)
    assert not threading.Event().wait(0.2) and not closed.done()
    future.set_result("last")
    assert call.result(CEILING) == "last"
    closed.result(CEILING)


def test_application_context_ends_on_the_thread_that_began_it_and_the_text_has_one_of_its_own(serve, connect, promised):
    server = serve({"LATER": promised}, app_context=True, default=lambda value: flask.current_app.name)
    ended = []
    server.app.teardown_appcontext(lambda error: ended.append((threading.get_ident(), error)))
    client = connect(server)
    client.wait_connected(CEILING)
    ended.clear()  # of the upgrade
    call = client.dispatch("LATER", 1)
    future = promised.begun(1)[0]
    wait_until(lambda: len(ended) == 1)
    future.set_result(object())
    assert call.result(CEILING) == server.app.name
    wait_until(lambda: len(ended) == 2)
    assert [error for _, error in ended] == [None, None] and ended[0][0] != threading.get_ident()


def test_teardown_that_raises_is_the_answer(serve, connect, promised):
    server, broken = serve({"LATER": promised}, app_context=True), threading.Event()

    @server.app.teardown_appcontext
    def end(_):
        if broken.is_set():
            raise ValueError("no end")

    call = connect(server).dispatch("LATER", 1)
    future = promised.begun(1)[0]
    wait_until(lambda: server.stats()["running"] == 1)
    broken.set()
    future.set_result(3)
    with pytest.raises(RemoteError, match="^ValueError: no end$"):
        call.result(CEILING)


def test_replies_to_a_connection_that_is_gone_are_stale(serve, connect, promised):
    server, stale = serve({"LATER": promised}), []
    server.on("stale", stale.append)
    client = connect(server)
    client.dispatch("LATER", 1)
    future = promised.begun(1)[0]
    client.close()
    wait_until(lambda: not server.connections)
    future.set_result(7)
    wait_until(lambda: stale)
    assert (stale[0].payload, stale[0].task) == (7, "LATER")


# Given up.


def test_queued_request_that_is_cancelled_never_begins_and_gets_nothing(serve, peers):
    release, begun = threading.Event(), []

    def task(payload):
        begun.append(payload)
        release.wait(CEILING)
        return payload

    peer = peers(serve({"WAIT": task}, concurrency=1))
    for number in range(4):
        ask(peer, "WAIT", number, id=number)
    cancel(peer, 2)
    cancel(peer, 17)  # nobody's
    cancel(peer, None)
    peer.send(frame(TEXT, b'{"type":"$OOMPA/CANCEL","payload":7}'))
    ask(peer, "$OOMPA/PING", id="read so far")
    assert peer.reply()["id"] == "read so far"
    release.set()
    assert [peer.reply()["id"] for _ in range(3)] == [0, 1, 3]
    assert begun == [0, 1, 3]
    ask(peer, "WAIT", 9, id=9)
    assert peer.reply()["id"] == 9  # and a cancel is never answered


def test_running_task_can_see_that_it_was_cancelled(serve, connect):
    begun, seen = threading.Event(), threading.Event()

    def task(_):
        request = current_request()
        begun.set()
        while not request.cancelled:
            time.sleep(0.005)
        seen.set()

    client = connect(serve({"WORK": task}))
    call = client.dispatch("WORK")
    assert begun.wait(CEILING) and call.cancel()
    assert seen.wait(CEILING)


@pytest.mark.parametrize("with_middleware", [False, True])
def test_future_of_a_cancelled_request_is_cancelled(serve, peers, promised, with_middleware, caplog):
    server = serve({"LATER": promised, "ADD": sum})
    if with_middleware:
        server.use(lambda request, call_next: call_next(request))
    peer = peers(server)
    ask(peer, "LATER", "x")
    future = promised.begun("x")[0]
    cancel(peer, 1)
    reply = peer.reply()
    assert future.cancelled() and promised.requests["x"].cancelled
    assert (reply["type"], reply["id"], reply["details"]) == ("ERR", 1, {"code": "cancelled"})
    assert caplog.records == []  # no fault of the task


def test_task_that_returns_its_future_after_the_cancel_has_it_cancelled_at_once(serve, peers):
    begun, release, future = threading.Event(), threading.Event(), Future()

    def task(_):
        begun.set()
        release.wait(CEILING)
        return future

    peer = peers(serve({"LATER": task}))
    ask(peer, "LATER")
    assert begun.wait(CEILING)
    cancel(peer, 1)
    ask(peer, "$OOMPA/PING", id=2)
    assert peer.reply()["id"] == 2
    release.set()
    assert peer.reply()["details"] == {"code": "cancelled"}
    assert future.cancelled()


def test_client_that_gives_up_has_its_queued_calls_never_begin(serve, connect):
    release, begun = threading.Event(), []

    def task(payload):
        begun.append(payload)
        release.wait(CEILING)

    server = serve({"WAIT": task}, concurrency=1)
    client = connect(server)
    first = client.dispatch("WAIT", "first")
    given_up = [client.dispatch("WAIT", number, timeout=0.05) for number in range(5)]
    for call in given_up:
        with pytest.raises(RequestTimeout):
            call.result(CEILING)
    client.ping(timeout=CEILING).result(CEILING)  # the last of the cancels has come before it
    assert server.stats()["queued"] == 0
    release.set()
    first.result(CEILING)
    client.call("WAIT", "last")
    assert begun == ["first", "last"]


# Deadlines.


def test_queued_request_whose_deadline_has_passed_is_not_run(serve, peers):
    release, begun = threading.Event(), []

    def task(payload):
        begun.append(payload)
        release.wait(CEILING)

    server = serve({"WAIT": task}, concurrency=1)
    peer = peers(server)
    ask(peer, "WAIT", "first")
    ask(peer, "WAIT", "late", id=2, meta={"timeout": 0.01})
    ask(peer, "WAIT", "patient", id=3, meta={"timeout": 60})
    wait_until(lambda: server.stats()["queued"] == 2)
    time.sleep(0.02)
    release.set()
    replies = [peer.reply() for _ in range(3)]
    assert [reply["id"] for reply in replies] == [1, 2, 3]
    assert [reply["type"] for reply in replies] == ["OK", "ERR", "OK"]
    assert replies[1]["details"]["code"] == "deadline_exceeded"
    assert begun == ["first", "patient"]


def test_copy_of_a_queued_request_extends_its_deadline(serve, peers):
    release = threading.Event()
    server = serve({"WAIT": lambda _: release.wait(CEILING)}, concurrency=1)
    peer = peers(server)
    ask(peer, "WAIT")
    ask(peer, "WAIT", id=2, meta={"timeout": 0.01})
    ask(peer, "WAIT", id=2, meta={"timeout": 60})
    ask(peer, "WAIT", id=3, meta={"timeout": 0.01})
    ask(peer, "WAIT", id=3)  # without any: it waits for ever
    ask(peer, "$OOMPA/PING", id=4)
    assert peer.reply()["id"] == 4
    time.sleep(0.02)
    release.set()
    assert [(reply := peer.reply())["id"] and reply["type"] for _ in range(3)] == ["OK"] * 3


def test_attempt_that_expires_in_the_queue_does_not_end_a_call_that_has_another(serve, connect):
    """What the server answers to the first attempt may come when the client has made the second already."""
    release, begun = threading.Event(), []

    def task(payload):
        begun.append(payload)
        release.wait(0.35)
        return payload

    client = connect(serve({"WAIT": task}, concurrency=1, max_queued=1), timeout=0.2, attempts=30, tolerance=None)
    calls = [client.dispatch("WAIT", number) for number in range(5)]  # the copies of the last few are not read in time
    assert [call.result(CEILING) for call in calls] == list(range(5))
    assert set(begun) == set(range(5))


def test_future_is_cancelled_when_its_caller_waits_no_more(serve, peers, promised):
    peer = peers(serve({"LATER": promised}))
    ask(peer, "LATER", "short", id=1, meta={"timeout": 0.05})
    ask(peer, "LATER", "long", id=2, meta={"timeout": 60})
    ask(peer, "LATER", "endless", id=3)
    promised.begun("short", "long", "endless")
    reply = peer.reply()
    assert (reply["id"], reply["details"]["code"]) == (1, "deadline_exceeded")
    assert promised.futures["short"].cancelled()
    assert not promised.futures["long"].done() and not promised.futures["endless"].done()


def test_future_that_runs_already_is_left_alone_at_its_deadline(serve, peers, promised):
    peer = peers(serve({"LATER": promised}))
    ask(peer, "LATER", "x", meta={"timeout": 0.2})
    future = promised.begun("x")[0]
    future.set_running_or_notify_cancel()
    wait_until(lambda: promised.requests["x"].remaining() == 0.0)
    time.sleep(0.02)
    future.set_result("done")
    assert peer.reply() == {"type": "OK", "id": 1, "payload": "done"}


# What is awaited, pure.


def awaiting(deadline=None):
    request = Request("X", id=1)
    request.deadline = deadline
    return Awaiting(("X", 1), request, 10, 0.0)


def test_one_thread_tells_of_what_is_settled():
    awaited, first, second = Awaited(), awaiting(), awaiting()
    for each in (first, second):
        awaited.add_locked(each)
    assert (len(awaited), awaited.size) == (2, 20)
    assert awaited.settled_locked(second) and not awaited.settled_locked(first)
    assert [awaited.next_locked() for _ in range(3)] == [second, first, None]
    awaited.told_locked(first)
    awaited.told_locked(first)
    assert (list(awaited), awaited.size) == ([second], 10)
    assert awaited.settled_locked(first)  # whoever told is gone


def test_each_is_overdue_once():
    awaited, soon, later, never = Awaited(), awaiting(5.0), awaiting(9.0), awaiting()
    for each in (never, later, soon):
        awaited.add_locked(each)
    assert awaited.due_locked() == 5.0 and awaited.overdue_locked(4.9) == []
    assert awaited.overdue_locked(5.0) == [soon] and awaited.overdue_locked(8.0) == []
    soon.request.deadline = 20.0
    assert awaited.due_locked() == 9.0
    later.request.deadline = 12.0  # a copy came
    assert awaited.overdue_locked(9.0) == [] and awaited.due_locked() == 12.0
    assert awaited.overdue_locked(30.0) == [later] and awaited.due_locked() == float("inf")
