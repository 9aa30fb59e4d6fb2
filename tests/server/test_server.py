"""The server over real sockets: tasks, middleware, healthcheck, events, listening and closing."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from urllib.error import HTTPError
from urllib.request import Request as HttpRequest
from urllib.request import urlopen

import flask
import pytest
from conftest import CALCULATOR, CEILING, url_of, wait_until
from raw_peer import BINARY, PING, PONG, TEXT, RawPeer, close_frame, frame, upgrade

from oompa import Connection, HealthcheckFailed, RemoteError, Schema, Server, TaskError, current_request


def get(server, path="/health", **headers):
    request = HttpRequest(f"http://127.0.0.1:{server.port}{path}", headers=headers)
    try:
        with urlopen(request, timeout=CEILING) as response:
            return response.status, response.read().decode(), response.headers
    except HTTPError as error:
        with error:
            return error.code, error.read().decode(), error.headers


def upgrade_response(server, extra=""):
    """The answer to an upgrade request with the extra header lines."""
    with RawPeer(server.port) as visitor:
        visitor.send(upgrade(server.port, extra=extra))
        return visitor.response()


@pytest.fixture
def peer():
    """Raw WebSocket peers: ``peer(server)``."""
    peers = []

    def make(server):
        peers.append(RawPeer.websocket(server.port))
        return peers[-1]

    yield make
    for each in peers:
        each.close()


def ask(peer, request):
    peer.send(frame(TEXT, (request if isinstance(request, str) else json.dumps(request)).encode()))


def answer(peer):
    return peer.reply()


# Tasks.


def test_factory_gets_the_payload_of_a_plain_mapping(serve, connect):
    assert connect(serve()).call("ADD", {"x": 1, "y": 6}) == 7


def test_schema_task_gets_payload_keys_as_arguments(serve, connect):
    schema = Schema()

    @schema.task("POWER")
    def power(base, exponent=2):
        return base**exponent

    client = connect(serve(schema))
    assert client.call("POWER", {"base": 3}) == 9
    assert client.call("POWER", {"base": 3, "exponent": 3}) == 27
    with pytest.raises(RemoteError, match="TypeError"):
        client.call("POWER", {"radix": 3})


def test_request_without_payload_reaches_its_factory_as_none(serve, connect):
    client = connect(serve({"IS_NONE": lambda payload: payload is None}))
    assert client.call("IS_NONE") is True
    assert client.call("IS_NONE", None) is True
    assert client.call("IS_NONE", 0) is False


def test_exception_becomes_class_name_and_message(serve, connect):
    with pytest.raises(RemoteError) as caught:
        connect(serve()).call("DIV", {"x": 1, "y": 0})
    assert caught.value.error == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("value", [None, 7, "text", ["a"], {"code": 12, "why": None}])
def test_task_error_sends_its_value_as_it_is(serve, connect, value):
    def fail(payload):
        raise TaskError(payload)

    with pytest.raises(RemoteError) as caught:
        connect(serve({"FAIL": fail})).call("FAIL", value)
    assert caught.value.error == value


@pytest.mark.parametrize("type", ["MEOW", "toString", "__class__", "keys", ""])
def test_unknown_type_is_named(serve, connect, type):
    with pytest.raises(RemoteError) as caught:
        connect(serve()).call(type)
    assert caught.value.error == f'Unknown request type: "{type}"'


@pytest.mark.parametrize("result", [{1, 2}, object(), float("nan"), float("inf"), "\ud800", b"bytes", 1j])
def test_result_that_is_not_json_gives_an_error_and_harms_nobody(serve, connect, result):
    client = connect(serve({"BAD": lambda _: result, **CALCULATOR}))
    bad, good = client.dispatch("BAD"), client.dispatch("ADD", {"x": 1, "y": 1})
    with pytest.raises(RemoteError, match="the result is not JSON"):
        bad.result(CEILING)
    assert good.result(CEILING) == 2


def test_handler_that_exits_gives_an_error_and_harms_nobody(serve, connect):
    client = connect(serve({"EXIT": lambda _: sys.exit(3), **CALCULATOR}))
    with pytest.raises(RemoteError, match="SystemExit: 3"):
        client.call("EXIT")
    assert client.call("ADD", {"x": 1, "y": 1}) == 2


def test_factory_may_return_a_future(serve, connect):
    future = Future()
    client = connect(serve({"LATER": lambda _: future}))
    call = client.dispatch("LATER")
    future.set_result([1, 2])
    assert call.result(CEILING) == [1, 2]


def test_reply_larger_than_max_message_size_becomes_an_error(serve, connect):
    client = connect(serve({"BIG": lambda size: "x" * size}, max_message_size=1000))
    assert client.call("BIG", 900) == "x" * 900
    with pytest.raises(RemoteError, match="max_message_size"):
        client.call("BIG", 1000)
    assert client.call("BIG", 1) == "x"


def test_expose_errors_off_tells_an_id_that_the_log_has(serve, connect, caplog):
    client = connect(serve(expose_errors=False))
    with pytest.raises(RemoteError) as caught:
        client.call("DIV", {"x": 1, "y": 0})
    assert "Zero" not in caught.value.error
    error_id = caught.value.error.rsplit(" ", 1)[1]
    assert any(error_id in record.getMessage() and record.exc_info for record in caplog.records)


# Middleware.


def test_middleware_runs_in_the_order_of_use_and_transforms_results(serve, connect):
    server = serve({"LIST": lambda payload: payload})

    @server.use
    def outer(request, call_next):
        request.payload = [*request.payload, "outer"]
        return [*call_next(request), "after outer"]

    @server.use
    def inner(request, call_next):
        request.payload = [*request.payload, "inner"]
        return [*call_next(request), "after inner"]

    assert connect(server).call("LIST", []) == ["outer", "inner", "after inner", "after outer"]


def test_cache_middleware_of_the_seed_answers_without_calling_on(serve, connect):
    runs = []
    server = serve({"ADD": lambda payload: runs.append(payload) or payload["x"] + payload["y"]})
    cache = {}

    @server.use
    def cache_middleware(request, call_next):
        key = (request.type, request.payload["x"], request.payload["y"])
        if key not in cache:
            cache[key] = call_next(request)
        return cache[key]

    client = connect(server)
    assert [client.call("ADD", {"x": 1, "y": 2}) for _ in range(3)] == [3, 3, 3]
    assert len(runs) == 1


def test_middleware_gets_the_value_of_a_factory_that_returns_a_future(serve, connect):
    future = Future()
    future.set_result(20)
    server = serve({"LATER": lambda _: future})
    server.use(lambda request, call_next: call_next(request) + 1)
    assert connect(server).call("LATER") == 21


def test_middleware_runs_for_known_types_only(serve, connect):
    server, seen = serve(), []
    server.use(lambda request, call_next: seen.append(request.type) or call_next(request))
    client = connect(server)
    client.ping().result(CEILING)
    with pytest.raises(RemoteError):
        client.call("MEOW")
    client.call("ADD", {"x": 1, "y": 1})
    assert seen == ["ADD"]


def test_middleware_that_raises_fails_the_request(serve, connect):
    server = serve()

    @server.use
    def forbid(request, call_next):
        raise PermissionError("no")

    with pytest.raises(RemoteError, match="PermissionError: no"):
        connect(server).call("ADD", {"x": 1, "y": 1})


# Healthcheck.


def test_server_without_healthcheck_is_healthy(serve, connect):
    server = serve()
    assert connect(server).ping(timeout=CEILING).result() is True
    assert get(server)[:2] == (200, "ok")
    assert get(server, "/")[:2] == (200, "ok")
    assert get(server)[2].get_content_type() == "text/plain"


def test_ping_carries_what_the_healthcheck_returned(serve, connect):
    assert connect(serve(None, lambda: {"load": 0.5})).ping().result(CEILING) == {"load": 0.5}


@pytest.mark.parametrize("failure", [ValueError("meow"), False])
def test_failing_healthcheck_is_500_an_err_and_an_error_event(serve, connect, failure):
    def healthcheck():
        if failure is False:
            return False
        raise failure

    server, errors = serve(None, healthcheck), []
    server.on("error", errors.append)
    assert get(server)[:2] == (500, "error")
    with pytest.raises(RemoteError) as caught:
        connect(server).ping().result(CEILING)
    kind = HealthcheckFailed if failure is False else ValueError
    assert caught.value.error.startswith(kind.__name__)
    assert [type(error) for error in errors] == [kind, kind]


def test_healthcheck_may_return_a_future(serve):
    future = Future()
    future.set_exception(OSError("disk full"))
    assert get(serve(None, lambda: future))[0] == 500


def test_health_path_and_path_are_options(serve, connect):
    server = serve(path="/rpc", health_path="/alive")
    assert get(server, "/alive")[0] == 200
    assert get(server, "/rpc")[0] == 200
    assert get(server, "/health")[0] == 404
    assert connect(f"ws://127.0.0.1:{server.port}/rpc").call("ADD", {"x": 1, "y": 1}) == 2


# Events.


def test_connection_and_terminated_are_told_once_each(serve, connect):
    server = serve()
    connected, terminated = [], []
    over = threading.Event()
    server.on("connection", connected.append).on("terminated", terminated.append).on("terminated", lambda _: over.set())
    client = connect(url_of(server))
    client.call("ADD", {"x": 1, "y": 1})
    assert server.connections == connected
    assert connected[0].is_open and connected[0].remote_address[0] == "127.0.0.1"
    client.close()
    assert over.wait(CEILING)
    assert terminated == connected and len(connected) == 1
    assert not connected[0].is_open


def test_reply_event_tells_type_id_payload_error_and_elapsed(serve, connect):
    server, replies = serve(), []

    @server.on("reply")
    def remember(reply):
        replies.append(reply)

    client = connect(server)
    good, bad = client.dispatch("ADD", {"x": 1, "y": 1}), client.dispatch("DIV", {"x": 1, "y": 0})
    assert good.result(CEILING) == 2
    assert isinstance(bad.exception(CEILING), RemoteError)
    assert [(reply.type, reply.id) for reply in replies] == [("OK", good.id), ("ERR", bad.id)]
    assert replies[0].payload == 2 and replies[1].error == "ZeroDivisionError: division by zero"
    assert all(0 <= reply.elapsed < CEILING for reply in replies)


def test_stale_follows_reply_when_the_connection_is_gone(serve, connect):
    release, events, over = threading.Event(), [], threading.Event()
    started = threading.Event()

    def wait(_):
        started.set()
        return release.wait(CEILING)

    server = serve({"WAIT": wait})
    server.on("terminated", lambda _: release.set())
    server.on("reply", lambda reply: events.append(("reply", reply.id)))
    server.on("stale", lambda reply: events.append(("stale", reply.id)))
    server.on("stale", lambda _: over.set())
    client = connect(server)
    call = client.dispatch("WAIT")
    assert started.wait(CEILING)
    client.close()
    assert over.wait(CEILING)
    assert events == [("reply", call.id), ("stale", call.id)]


def test_listener_that_raises_is_logged_and_harms_nothing(serve, connect, caplog):
    server = serve()
    server.on("reply", lambda reply: 1 / 0)
    assert connect(server).call("ADD", {"x": 1, "y": 1}) == 2
    assert any("listener" in record.getMessage() for record in caplog.records)


def test_unknown_event_is_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match="conection.*connection, terminated, error, reply, stale"):
        Server({}).on("conection", print)


def test_off_and_once(serve, connect):
    server, seen = serve(), []
    server.once("reply", seen.append)
    client = connect(server)
    for _ in range(3):
        client.call("ADD", {"x": 1, "y": 1})
    assert len(seen) == 1
    server.on("reply", seen.append).off("reply", seen.append)
    client.call("ADD", {"x": 1, "y": 1})
    assert len(seen) == 1


# The wire.


@pytest.mark.parametrize("id", ["a", "", 0, -7, 1.5, True, False, None, [], ["a", {"b": None}], {"deep": [1]}, 2**70])
def test_id_is_echoed_whatever_json_value_it_is(serve, peer, id):
    talking = peer(serve())
    ask(talking, {"type": "ADD", "payload": {"x": 1, "y": 1}, "id": id})
    reply = answer(talking)
    assert reply == {"type": "OK", "id": id, "payload": 2} and type(reply["id"]) is type(id)


def test_request_without_id_gets_a_reply_without_one(serve, peer):
    talking = peer(serve())
    ask(talking, {"type": "ADD", "payload": {"x": 1, "y": 1}})
    assert answer(talking) == {"type": "OK", "payload": 2}
    ask(talking, {"type": "MEOW"})
    assert answer(talking) == {
        "type": "ERR",
        "error": 'Unknown request type: "MEOW"',
        "details": {"code": "unimplemented"},
    }


@pytest.mark.parametrize(
    "text, id",
    [
        ("", None),
        ("{", None),
        ("NaN", None),
        ("[]", None),
        ("null", None),
        ("7", None),
        ('"text"', None),
        ("{}", None),
        ('{"id": 3}', 3),
        ('{"id": "a", "type": null}', "a"),
        ('{"id": "a", "type": ["ADD"]}', "a"),
        ('{"id": "a", "type": 7}', "a"),
        ('{"id": 1e999, "type": "ADD"}', None),
        ('{"id": NaN, "type": "ADD"}', None),
        ('{"id": "\\ud800", "type": "ADD"}', None),
        ('{"id": 1, "type": "ADD", "payload": Infinity}', 1),
        ('{"type": "ADD", "payload": "\\ud83c", "id": "b"}', "b"),
        ('{"type": "ADD", "payload": %s, "id": "c"}' % ("1" * 5000), "c"),
        ('{"type": "ADD", "payload": %s, "id": "d"}' % ("[" * 1001 + "]" * 1001), "d"),
        ('{"type": "ADD", "payload": %s, "id": "e"}' % ("[" * 9000 + "]" * 9000), "e"),
        ('{"type": "ADD", "id": %s, "payload": NaN}' % ("1" * 5000), None),
        ('{"type": "ADD", "id": {"x": [1]}, "payload": "\\udfff"}', {"x": [1]}),
        ("[" * 100_000, None),
        ("1" * 100_000, None),
    ],
    ids=lambda value: str(value)[:30],
)
def test_request_that_cannot_be_read_gets_an_err_and_the_connection_lives_on(serve, peer, text, id):
    """Case 31: with the id wherever one is to be found."""
    talking = peer(serve())
    ask(talking, text)
    reply = answer(talking)
    assert reply["type"] == "ERR" and reply["id"] == id and isinstance(reply["error"], str)
    ask(talking, {"type": "ADD", "payload": {"x": 1, "y": 1}, "id": "next"})
    assert answer(talking) == {"type": "OK", "id": "next", "payload": 2}


def test_binary_frame_that_holds_json_is_accepted(serve, peer):
    talking = peer(serve())
    talking.send(frame(BINARY, b'{"type": "ADD", "payload": {"x": 1, "y": 1}, "id": 1}'))
    assert answer(talking) == {"type": "OK", "id": 1, "payload": 2}
    talking.send(frame(BINARY, b"\xff\xfe"))
    assert answer(talking)["type"] == "ERR"


# Concurrency inside one connection.


def test_ping_and_add_are_answered_while_sleep_runs(serve, connect):
    release = threading.Event()
    server = serve({"WAIT": lambda _: release.wait(CEILING), **CALCULATOR})
    client = connect(server)
    waiting = client.dispatch("WAIT")
    try:
        assert client.ping(timeout=CEILING).result() is True
        assert client.call("ADD", {"x": 1, "y": 1}, timeout=CEILING) == 2
        assert not waiting.done()
    finally:
        release.set()
    assert waiting.result(CEILING) is True


def test_ten_sleeps_run_at_once(serve, connect):
    barrier = threading.Barrier(10)
    client = connect(serve({"MEET": lambda _: barrier.wait(CEILING)}))
    calls = [client.dispatch("MEET") for _ in range(10)]  # none would return if not all ran together
    assert sorted(call.result(CEILING) for call in calls) == list(range(10))


def test_no_more_than_concurrency_run_at_once(serve, connect):
    running, most, lock, full = 0, 0, threading.Lock(), threading.Event()

    def task(_):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == 3:
                full.set()
        full.wait(CEILING)
        threading.Event().wait(0.02)
        with lock:
            running -= 1

    client = connect(serve({"TASK": task}, concurrency=3))
    for call in [client.dispatch("TASK") for _ in range(12)]:
        call.result(CEILING)
    assert most == 3


def test_concurrency_of_one_is_strictly_one_by_one_in_order(serve, connect):
    order, running = [], threading.Lock()

    def task(number):
        assert running.acquire(blocking=False)
        order.append(number)
        if number % 3 == 0:
            threading.Event().wait(0.02)
        running.release()

    client = connect(serve({"TASK": task}, concurrency=1))
    for call in [client.dispatch("TASK", number) for number in range(12)]:
        call.result(CEILING)
    assert order == list(range(12))


def test_ping_frame_is_answered_while_the_only_task_runs(serve, peer):
    release = threading.Event()
    talking = peer(serve({"WAIT": lambda _: release.wait(CEILING)}, concurrency=1))
    try:
        ask(talking, {"type": "WAIT", "id": 1})
        talking.send(frame(PING, b"are you there?"))
        got = talking.frame()
        assert (got.opcode, got.payload) == (PONG, b"are you there?")
    finally:
        release.set()
    assert answer(talking)["id"] == 1


def test_request_sent_again_while_its_first_copy_runs_is_dropped(serve, peer):
    release, runs = threading.Event(), []
    started = threading.Event()

    def task(payload):
        runs.append(payload)
        started.set()
        release.wait(CEILING)
        return payload

    talking = peer(serve({"TASK": task, **CALCULATOR}))
    ask(talking, {"type": "TASK", "id": "a", "payload": 1})
    assert started.wait(CEILING)
    ask(talking, {"type": "TASK", "id": "a", "payload": 2})
    ask(talking, {"type": "ADD", "id": "a", "payload": {"x": 1, "y": 1}})  # same id, other type: no copy
    assert answer(talking) == {"type": "OK", "id": "a", "payload": 2}
    release.set()
    assert answer(talking) == {"type": "OK", "id": "a", "payload": 1}
    ask(talking, {"type": "TASK", "id": "a", "payload": 3})
    assert answer(talking) == {"type": "OK", "id": "a", "payload": 3}
    assert runs == [1, 3]


def test_copy_that_comes_in_one_piece_with_its_request_is_dropped(serve, peer):
    runs = []

    def slow(payload):
        runs.append(payload)
        time.sleep(0.02)

    talking = peer(serve({"SLOW": slow, **CALCULATOR}))
    for number in range(5):  # the second time on a thread that has replied before, of a type known to be slow
        ask(talking, {"type": "ADD", "id": number, "payload": {"x": 1, "y": 1}})
        assert answer(talking)["payload"] == 2
        request = json.dumps({"type": "SLOW", "id": "a", "payload": number}).encode()
        talking.send(frame(TEXT, request) * 2)
        assert answer(talking)["id"] == "a"
    assert runs == list(range(5))


def test_id_may_be_used_again_as_soon_as_the_reply_is_there(serve, peer, monkeypatch):
    runs, finish = [], Connection._next

    def task(payload):
        runs.append(payload)
        if payload == 1:
            wait_until(lambda: any(each.name == "oompa-stand-in" for each in threading.enumerate()))
        return payload

    def finish_late(connection, worker):
        if runs == [1]:
            wait_until(lambda: runs == [1, 2], 1.0)  # another thread reads meanwhile
        return finish(connection, worker)

    monkeypatch.setattr(Connection, "_next", finish_late)
    talking = peer(serve({"TASK": task}))
    for payload in (1, 2):
        ask(talking, {"type": "TASK", "id": "a", "payload": payload})
        assert answer(talking) == {"type": "OK", "id": "a", "payload": payload}


def test_queue_stops_reading_at_max_queued_and_goes_on_when_there_is_room(serve, connect):
    release, begun = threading.Event(), []

    def task(number):
        begun.append(number)
        release.wait(CEILING)
        return number

    server = serve({"TASK": task}, concurrency=1, max_queued=5)
    client = connect(server)
    calls = [client.dispatch("TASK", number) for number in range(50)]
    wait_until(lambda: begun)
    release.set()
    assert [call.result(CEILING) for call in calls] == list(range(50))


# Listening and closing.


def test_port_is_none_while_not_listening(serve):
    server = Server(CALCULATOR)
    assert server.port is None
    server.listen(0).result(CEILING)
    assert server.port > 0
    server.close().result(CEILING)
    assert server.port is None


def test_port_that_is_taken_is_an_oserror_in_the_future(serve):
    with pytest.raises(OSError):
        Server(CALCULATOR).listen(serve().port).result(CEILING)


def test_listening_twice_is_refused(serve):
    server = serve()
    with pytest.raises(RuntimeError, match=str(server.port)):
        server.listen(0)


def test_closed_server_can_listen_again_on_its_port(serve, connect):
    server = serve()
    port = server.port
    server.close().result(CEILING)
    server.listen(port).result(CEILING)
    assert connect(server).call("ADD", {"x": 1, "y": 1}) == 2


def test_close_frees_the_port_and_closes_with_1000(serve, peer):
    server = serve()
    talking, port = peer(server), server.port
    closing = server.close()
    assert talking.ending().close_code == 1000
    closing.result(CEILING)
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=CEILING).close()


def test_close_lets_running_tasks_finish_and_refuses_newcomers(serve, connect, peer):
    release, started = threading.Event(), threading.Event()

    def task(_):
        started.set()
        return release.wait(CEILING)

    server = serve({"TASK": task})
    client = connect(server)
    call = client.dispatch("TASK")
    assert started.wait(CEILING)
    closing = server.close()
    wait_until(lambda: get(server)[0] == 503)
    assert get(server)[1:2] == ("draining",)
    assert upgrade_response(server).status == 503
    assert not closing.done()
    release.set()
    assert call.result(CEILING) is True
    closing.result(CEILING)


def test_close_with_a_timeout_does_not_wait_for_tasks_longer(serve, connect):
    release, started = threading.Event(), threading.Event()

    def task(_):
        started.set()
        release.wait(CEILING)

    server = serve({"TASK": task}, close_timeout=0.2)
    client = connect(server, reconnect_interval=CEILING)
    client.dispatch("TASK")
    assert started.wait(CEILING)
    try:
        server.close(timeout=0.05).result(CEILING)
    finally:
        release.set()


def test_peer_that_never_completes_the_closing_handshake_is_cut(serve, peer):
    server = serve(close_timeout=0.2)
    talking = peer(server)
    server.close().result(CEILING)
    assert talking.message().close_code == 1000
    assert talking.ends()


def test_closing_twice_is_no_error(serve):
    server = serve()
    first, second = server.close(), server.close()
    first.result(CEILING)
    second.result(CEILING)


def test_disconnect_exists_only_when_asked_for(serve):
    assert get(serve(), "/disconnect")[0] == 404


def test_disconnect_closes_every_connection_for_the_right_token(serve, peer):
    server = serve(disconnect_token="secret")
    talking = peer(server)

    def post(**headers):
        request = HttpRequest(f"http://127.0.0.1:{server.port}/disconnect", method="POST", headers=headers)
        try:
            with urlopen(request, timeout=CEILING) as response:
                return response.status
        except HTTPError as error:
            error.close()
            return error.code

    assert post() == 401
    assert post(Authorization="Bearer wrong") == 401
    assert post(Authorization="Bearer secret") == 200
    assert talking.ending().close_code == 1000


def test_connection_close_closes_one_client(serve, peer):
    server = serve()
    first, second = peer(server), peer(server)
    ask(first, {"type": "ADD", "payload": {"x": 1, "y": 1}, "id": 1})
    answer(first)
    wait_until(lambda: len(server.connections) == 2)
    server.connections[0].close(4000, "enough")
    server.connections[1].close(4000, "enough")
    for talking in (first, second):
        closed = talking.message()
        assert (closed.close_code, closed.payload[2:]) == (4000, b"enough")


def test_connections_whose_peers_do_not_complete_the_closing_handshake_are_cut_by_one_thread(serve, peer):
    server = serve(close_timeout=0.3)
    silent = [peer(server) for _ in range(20)]
    wait_until(lambda: len(server.connections) == 20)
    before = threading.active_count()
    assert server.disconnect() == 20
    server.disconnect()
    assert threading.active_count() <= before + 1
    assert all(each.message().close_code == 1000 for each in silent)
    wait_until(lambda: not server.connections)
    assert all(each.ends() for each in silent)


def test_request_that_crosses_a_close_is_not_run_for_it_is_sent_again(serve, peer):
    ran = []
    server = serve({"NOTE": ran.append})
    talking = peer(server)
    wait_until(lambda: server.connections)
    server.disconnect()
    ask(talking, {"type": "NOTE", "payload": 1, "id": 1})
    assert talking.ending().close_code == 1000
    assert ran == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_drains_and_returns_on_a_signal(number):
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "examples.calculator", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        wait_until(lambda: _listens(process.pid))
        process.send_signal(number)
        assert process.wait(CEILING) == 0
        assert process.stderr.read() == b""
    finally:
        process.kill()
        process.communicate()


def _listens(pid):
    """Whether a process has a listening socket."""
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            inodes.add(os.readlink(f"/proc/{pid}/fd/{name}"))
        except OSError:
            pass
    with open("/proc/net/tcp") as table:
        return any(line.split()[3] == "0A" and f"socket:[{line.split()[9]}]" in inodes for line in list(table)[1:])


# Options and configuration.


@pytest.mark.parametrize(
    "options, error",
    [
        ({"concurrency": 0}, ValueError),
        ({"concurrency": 1.5}, TypeError),
        ({"max_connections": 0}, ValueError),
        ({"max_message_size": "1M"}, TypeError),
        ({"ping_interval": -1}, ValueError),
        ({"write_timeout": float("nan")}, ValueError),
        ({"close_timeout": 0}, ValueError),
        ({"handshake_timeout": None}, TypeError),
        ({"drain_timeout": None}, TypeError),
        ({"path": "rpc"}, ValueError),
        ({"codec": "xml"}, ValueError),
        ({"origins": "https://example.com"}, TypeError),
        ({"concurency": 3}, TypeError),
    ],
    ids=str,
)
def test_option_out_of_range_is_refused_by_name(options, error):
    with pytest.raises(error, match=next(iter(options))):
        Server({}, **options)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\n"])
def test_peer_that_does_not_finish_its_request_is_cut_after_handshake_timeout(serve, sent):
    with RawPeer(serve(handshake_timeout=0.2).port) as silent:
        silent.send(sent)
        assert silent.ends(5.0)


@pytest.mark.parametrize("schema", [None, [], {"ADD": 3}, {3: print}])
def test_schema_that_is_none_is_refused(schema):
    with pytest.raises(TypeError):
        Server(schema)


def test_healthcheck_and_middleware_must_be_callable():
    with pytest.raises(TypeError):
        Server({}, True)
    with pytest.raises(TypeError):
        Server({}).use("cache")


# Flask and WSGI.


def test_init_app_adds_tasks_to_an_application_that_exists(connect):
    app = flask.Flask("existing")
    app.add_url_rule("/", view_func=lambda: "an ordinary page")
    first = Server(CALCULATOR, path="/first", health_path="/first/health")
    second = Server({"TYPE": lambda _: "second"}, path="/second", health_path="/second/health")
    first.init_app(app)
    second.init_app(app)
    outer = Server({})
    outer.app = app  # the embedded server serves the existing application
    outer.listen(0).result(CEILING)
    try:
        assert get(outer, "/")[1] == "an ordinary page"
        assert get(outer, "/first/health")[:2] == (200, "ok")
        assert connect(f"ws://127.0.0.1:{outer.port}/first").call("ADD", {"x": 1, "y": 1}) == 2
        assert connect(f"ws://127.0.0.1:{outer.port}/second").call("TYPE") == "second"
        for server in (first, second):
            server.close(timeout=0.5).result(CEILING)
    finally:
        outer.close(timeout=0.5).result(CEILING)


def test_web_server_without_sockets_is_told_so():
    response = Server({}).app.test_client().get(
        "/",
        headers={
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        },
        multithread=True,
    )
    assert response.status_code == 501 and b"socket" in response.data


# Who may connect.


def test_max_connections_refuses_with_503_and_retry_after(serve, peer):
    server = serve(max_connections=2)
    first = peer(server)
    peer(server)
    refused = upgrade_response(server)
    assert refused.status == 503 and int(refused.headers["retry-after"]) >= 1
    assert get(server)[0] == 200
    first.send(close_frame(1000))
    assert first.ending().close_code == 1000
    wait_until(lambda: upgrade_response(server).status == 101)


@pytest.mark.parametrize(
    "origins, origin, status",
    [
        (None, None, 101),
        (None, "http://{host}", 101),
        (None, "http://evil.example", 403),
        (None, "null", 403),
        (["https://good.example"], "https://good.example", 101),
        (["https://good.example"], "https://evil.example", 403),
        (["https://good.example"], "http://{host}", 403),
        (["*"], "https://any.example", 101),
    ],
)
def test_origins_of_browsers(serve, origins, origin, status):
    server = serve(origins=origins)
    extra = "" if origin is None else f"Origin: {origin.format(host=f'127.0.0.1:{server.port}')}\r\n"
    assert upgrade_response(server, extra).status == status


def test_authenticate_answers_yes_no_or_an_identity(serve, connect):
    def authenticate(request):
        name = request.headers.get("X-User")
        if name == "banned":
            raise PermissionError("banned")
        return {"nobody": False, "anybody": True}.get(name, name)

    server = serve({"WHO": lambda _: None}, authenticate=authenticate)
    server.use(lambda request, call_next: request.connection.identity)
    statuses = {
        name: upgrade_response(server, f"X-User: {name}\r\n" if name else "").status
        for name in ("", "nobody", "banned", "anybody")
    }
    assert statuses == {"": 401, "nobody": 401, "banned": 403, "anybody": 101}
    assert connect(server, headers={"X-User": "ann"}).call("WHO") == "ann"
    assert connect(server, headers=lambda: {"X-User": "bob"}).call("WHO") == "bob"


# What surrounds a task.


def test_a_task_finds_its_request_and_nobody_else_does(serve, connect):
    def look(payload):
        request = current_request()
        return [request.type, request.payload, request.connection is not None]

    server = serve({"LOOK": look, "SLOW": lambda seconds: [time.sleep(seconds), look(None)]})
    with connect(server) as client:
        slow = client.dispatch("SLOW", 0.1)
        assert client.call("LOOK", "a", timeout=CEILING) == ["LOOK", "a", True]
        assert slow.result(CEILING) == [None, ["SLOW", 0.1, True]]
        assert client.call("SLOW", 0.01, timeout=CEILING) == [None, ["SLOW", 0.01, True]]
    assert current_request() is None


def test_middleware_finds_the_request_too(serve, connect):
    server = serve()
    server.use(lambda request, call_next: current_request() is request)
    with connect(server) as client:
        assert client.call("ADD", timeout=CEILING) is True


def test_threads_that_a_task_starts_have_no_request(serve, connect):
    def look(payload):
        found = []
        thread = threading.Thread(target=lambda: found.append(current_request()))
        thread.start()
        thread.join()
        return found

    with connect(serve({"LOOK": look})) as client:
        assert client.call("LOOK", timeout=CEILING) == [None]


def test_a_reply_tells_its_task_and_how_long_it_was_queued(serve, connect):
    server, replies = serve(concurrency=1), []
    server.on("reply", replies.append)
    with connect(server) as client:
        futures = [client.dispatch("SLEEP", {"seconds": 0.1}) for _ in range(2)] + [client.dispatch("MEOW")]
        for future in futures:
            future.exception(CEILING)
    first, second, third = replies
    assert [reply.task for reply in replies] == ["SLEEP", "SLEEP", "MEOW"]
    assert first.waited < 0.1 <= third.waited + third.elapsed < CEILING
    assert second.elapsed >= 0.1 and first.details is None


def test_the_answer_to_an_upgrade_tells_what_the_server_understands_and_takes(serve):
    answer = upgrade_response(serve(max_message_size=5000))
    assert answer.headers["oompa-features"] == "meta, cancel, progress, resume"
    assert answer.headers["oompa-max-message-size"] == "5000"


def test_the_answer_to_an_upgrade_tells_which_process_it_is_as_info_does_or_not(serve):
    server = serve()
    assert upgrade_response(server).headers["oompa-server"] == server.info()["id"]
    assert "oompa-server" not in upgrade_response(serve(introspection=False)).headers


def test_a_connection_knows_what_its_client_told(serve, connect):
    server, connections = serve(), []
    server.on("connection", connections.append)
    with connect(server, max_message_size=5000) as client:
        client.call("ADD", {"x": 1, "y": 6}, timeout=CEILING)
        (connection,) = connections
        assert connection.announced == (frozenset(), 5000, client._link.client_id, None)


class Money:
    """What JSON has no form for."""

    def __init__(self, amount):
        self.amount = amount

    def __repr__(self):
        return f"{self.amount} EUR"


def refuse_money(payload):
    raise TaskError({"owed": Money(5)})


@pytest.mark.parametrize("codec", ["json", "msgspec"])
def test_default_makes_json_of_results_and_errors(serve, connect, codec):
    """Case 44: dates, decimals, rows of a database, numpy's numbers."""
    schema = {"PAY": lambda _: [Money(7), {"x": Money(8)}], "OWE": refuse_money}
    client = connect(serve(schema, lambda: Money(1), codec=codec, default=repr))
    assert client.call("PAY") == ["7 EUR", {"x": "8 EUR"}]
    assert client.ping().result(CEILING) == "1 EUR"
    assert client.dispatch("OWE").exception(CEILING).error == {"owed": "5 EUR"}


@pytest.mark.parametrize("expose_errors", [True, False])
def test_what_default_raises_is_an_error_of_the_task(serve, connect, caplog, expose_errors):
    """Cases 44 and 45."""

    def default(value):
        raise LookupError("no form for the-inner-life")

    client = connect(serve({"PAY": lambda _: [Money(7)]}, default=default, expose_errors=expose_errors))
    error = client.dispatch("PAY").exception(CEILING).error
    assert ("the-inner-life" in error) is expose_errors
    assert "the result of task 'PAY'" in caplog.text and "in default" in caplog.text


@pytest.mark.parametrize("default", [5, "str"])
def test_a_default_that_cannot_be_called_is_refused(default):
    """Case 44."""
    with pytest.raises(TypeError, match="default must be callable"):
        Server({}, default=default)


@pytest.mark.parametrize("first, second", [([1], [True]), ({"a": 0}, {"a": False}), ([0.0], [0]), ([[1]], [[True]])], ids=str)
def test_ids_that_are_equal_in_python_alone_are_two(serve, peer, first, second):
    both = threading.Barrier(2)
    talking = peer(serve({"TASK": lambda payload: both.wait(CEILING) + 1 and payload}))
    ask(talking, {"type": "TASK", "id": first, "payload": 1})
    ask(talking, {"type": "TASK", "id": second, "payload": 2})  # while the first one runs
    assert sorted(answer(talking)["payload"] for _ in range(2)) == [1, 2]


@pytest.mark.parametrize(("timeout", "error"), [(float("nan"), ValueError), (-1, ValueError), ("1", TypeError)])
def test_a_server_is_not_closed_with_a_timeout_that_is_none(serve, peer, timeout, error):
    server = serve()
    with pytest.raises(error, match="timeout"):
        server.close(timeout)
    assert ask(peer(server), {"type": "ECHO", "id": 1, "payload": 2}) is None
    server.close(0).result(CEILING)
