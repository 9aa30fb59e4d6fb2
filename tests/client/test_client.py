"""The client over real sockets: dispatching, events, reconnecting, closing, forking, options."""

import asyncio
import concurrent.futures
import gc
import inspect
import json
import os
import pydoc
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref

import pytest
from conftest import CALCULATOR, CEILING, url_of, wait_until
from ports import reserved_port
from reliability.fake_server import FakeServer

from oompa import (
    Client,
    ClientClosed,
    ConnectionLost,
    OompaError,
    ProtocolError,
    RemoteError,
    RequestTimeout,
    TaskError,
    TooManyPending,
    current_request,
)
from oompa.client import call as call_module
from oompa.client.options import CLIENT_OPTIONS
from oompa.server.options import SERVER_OPTIONS
from oompa.wire.codec import NOT_JSON

ADD = {"type": "ADD", "factory": lambda x, y: {"x": x, "y": y}}


async def coroutine_function(*args):
    """What would never run."""


@pytest.fixture
def nowhere():
    """The URL of a port that nobody listens on."""
    with reserved_port() as port:
        yield f"ws://127.0.0.1:{port}"


# Usage.


def test_lean_usage_of_the_seed(serve, connect):
    call = connect(serve()).dispatch("ADD", {"x": 1, "y": 6})
    assert call.result(CEILING) == 7
    assert isinstance(call, concurrent.futures.Future)
    assert call.type == "ADD" and isinstance(call.id, str)


def test_verbose_usage_of_the_seed(serve, connect):
    pair = ADD["factory"]
    methods = {name.lower(): {"type": name, "factory": pair} for name in ("ADD", "SUB", "MUL", "DIV")}
    client = connect(serve(), methods)
    assert [client.add(6, 3).result(CEILING), client.sub(6, 3).result(CEILING)] == [9, 3]
    assert [client.mul(x=6, y=3).result(CEILING), client.div(6, 3).result(CEILING)] == [18, 2]
    assert {"add", "sub", "mul", "div"} <= set(dir(client))


def test_method_without_factory_takes_the_payload(serve, connect):
    client = connect(serve(), {"echo": {"type": "ECHO"}})
    assert client.echo([1]).result(CEILING) == [1]
    assert client.echo().result(CEILING) is None


def test_call_blocks_for_the_result_or_the_error(serve, connect):
    client = connect(serve())
    assert client.call("MUL", {"x": 3, "y": 5}) == 15
    with pytest.raises(RemoteError) as caught:
        client.call("DIV", {"x": 1, "y": 0})
    assert caught.value.error == "ZeroDivisionError: division by zero"
    assert isinstance(caught.value, OompaError)


@pytest.mark.parametrize("payload", [None, True, 0, -1.5, "", "ünï✓\U0001f600\u2028", [], [[1], {}], {"": {"a": None}}, 2**80])
@pytest.mark.parametrize("codec", ["json", "msgspec"])
def test_payload_of_every_json_type_comes_back_as_it_went(serve, connect, payload, codec):
    result = connect(serve(codec=codec), codec=codec).call("ECHO", payload)
    assert result == payload and type(result) is type(payload)


@pytest.mark.parametrize("size", [125, 126, 65535, 65536, 1 << 20])
def test_payload_of_every_length_form_comes_back(serve, connect, size):
    assert connect(serve()).call("ECHO", "é" + "x" * size) == "é" + "x" * size


@pytest.mark.parametrize("payload", [{1, 2}, float("nan"), "\udc00", object(), b"bytes"])
def test_payload_that_is_not_json_is_raised_by_dispatch_and_harms_nobody(serve, connect, payload):
    client = connect(serve())
    with pytest.raises((TypeError, ValueError)):
        client.dispatch("ECHO", payload)
    assert client.call("ECHO", 1) == 1


def test_request_larger_than_max_message_size_is_refused_by_name(serve, connect):
    client = connect(serve(), max_message_size=1000)
    with pytest.raises(ValueError, match="max_message_size"):
        client.dispatch("ECHO", "x" * 1000)
    assert client.call("ECHO", "x" * 100) == "x" * 100


def test_futures_work_with_wait_as_completed_and_wrap_future(serve, connect):
    client = connect(serve(), {"add": ADD})
    calls = [client.add(n, n) for n in range(20)]
    done, pending = concurrent.futures.wait(calls, timeout=CEILING)
    assert not pending and {call.result() for call in done} == {2 * n for n in range(20)}
    completed = concurrent.futures.as_completed([client.add(n, 1) for n in range(20)], timeout=CEILING)
    assert {call.result() for call in completed} == set(range(1, 21))

    async def gather():
        return await asyncio.gather(*(asyncio.wrap_future(client.add(n, 2)) for n in range(20)))

    assert asyncio.run(gather()) == list(range(2, 22))


def test_one_client_serves_many_threads(serve, connect):
    client, faults = connect(serve(), {"add": ADD}), []

    def work(number):
        for n in range(100):
            if client.add(number, n).result(CEILING) != number + n:
                faults.append((number, n))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(CEILING)
    assert not faults


def test_ids_are_unique_among_clients(serve, connect):
    server = serve()
    clients = [connect(server) for _ in range(4)]
    ids = [client.dispatch("ECHO", n).id for client in clients for n in range(50)]
    assert len(set(ids)) == len(ids)


# Callbacks.


def test_callbacks_run_in_order_on_one_thread_of_the_client(serve, connect):
    client, seen, over = connect(serve()), [], threading.Event()
    for n in range(50):
        client.dispatch("ECHO", n).add_done_callback(
            lambda call: seen.append((call.result(), threading.current_thread().name))
        )
    client.call("ECHO", None)
    client.dispatch("ECHO").add_done_callback(lambda _: over.set())
    assert over.wait(CEILING)
    assert [result for result, _ in seen] == list(range(50))
    assert len({name for _, name in seen}) == 1 and threading.current_thread().name not in seen[0]


def test_callback_that_raises_sleeps_or_calls_back_holds_up_nobody(serve, connect):
    client, release, inner = connect(serve()), threading.Event(), []
    over = threading.Event()

    def nested(_):
        inner.append(client.call("ECHO", "inside"))
        over.set()

    client.dispatch("ECHO").add_done_callback(lambda _: 1 / 0)
    client.dispatch("ECHO").add_done_callback(lambda _: release.wait(CEILING))
    client.dispatch("ECHO").add_done_callback(nested)
    try:
        assert [client.call("ECHO", n, timeout=CEILING) for n in range(20)] == list(range(20))
        assert not inner
    finally:
        release.set()
    assert over.wait(CEILING) and inner == ["inside"]


def test_callback_added_to_a_done_call_runs_too(serve, connect):
    client, over = connect(serve()), threading.Event()
    call = client.dispatch("ECHO", 1)
    assert call.result(CEILING) == 1
    call.add_done_callback(lambda _: over.set())
    assert over.wait(CEILING)


def test_asyncio_does_not_wait_behind_slow_callbacks_of_other_calls(serve, connect):
    """Case 22."""
    client, started, release = connect(serve()), threading.Event(), threading.Event()
    waits = []

    def slow(_):
        started.set()
        waits.append(release.wait(CEILING))

    client.dispatch("ECHO").add_done_callback(slow)
    assert started.wait(CEILING)

    async def call():
        done = client.dispatch("ECHO", 0)
        done.result(CEILING)
        futures = [done, *(client.dispatch("ECHO", number) for number in range(1, 9)), client.ping()]
        return await asyncio.wait_for(asyncio.gather(*map(asyncio.wrap_future, futures)), CEILING / 2)

    try:
        assert asyncio.run(call()) == [*range(9), True]
        assert not waits
    finally:
        release.set()


def test_asyncio_hears_of_errors_and_cancels_as_of_any_future(serve, connect):
    """Case 22."""
    client = connect(serve())

    async def fail():
        with pytest.raises(RemoteError):
            await asyncio.wrap_future(client.dispatch("DIV", {"x": 1, "y": 0}))
        call = client.dispatch("SLEEP", {"seconds": 0.2})
        future = asyncio.wrap_future(call)
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
        return call

    assert asyncio.run(fail()).cancelled()


def test_a_call_that_settles_after_its_event_loop_has_ended_harms_nobody(serve, connect):
    """Case 22."""
    client = connect(serve())

    async def leave():
        call = client.dispatch("SLEEP", {"seconds": 0.1})
        asyncio.wrap_future(call)
        return call

    assert asyncio.run(leave()).exception(CEILING) is None
    assert client.call("ECHO", 1) == 1


def test_a_coroutine_function_is_no_callback(serve, connect):
    """Case 42: it would never run."""

    async def callback(call):
        pass

    call = connect(serve()).dispatch("ECHO")
    with pytest.raises(TypeError, match="a callback must not be a coroutine function"):
        call.add_done_callback(callback)


# Timeouts and cancelling.


def test_result_timeout_leaves_the_request_pending(serve, connect):
    release = threading.Event()
    client = connect(serve({"WAIT": lambda _: release.wait(CEILING)}))
    call = client.dispatch("WAIT")
    with pytest.raises(concurrent.futures.TimeoutError):
        call.result(timeout=0.05)
    with pytest.raises(concurrent.futures.TimeoutError):
        call.exception(timeout=0.01)
    assert not call.done()
    release.set()
    assert call.result(CEILING) is True and call.exception() is None


@pytest.mark.parametrize("connected", [True, False])
def test_request_timeout_comes_after_all_attempts_connected_or_not(serve, connect, nowhere, connected):
    release, runs = threading.Event(), []

    def wait(_):
        runs.append(1)
        release.wait(CEILING)

    server = serve({"WAIT": wait})
    client = connect(server if connected else nowhere, timeout=0.1, attempts=3, tolerance=None)
    started = time.monotonic()
    try:
        with pytest.raises(RequestTimeout) as caught:
            client.dispatch("WAIT").result(CEILING)
        assert time.monotonic() - started >= 0.3
        assert isinstance(caught.value, (TimeoutError, concurrent.futures.TimeoutError))
        assert isinstance(caught.value, concurrent.futures.TimeoutError) and isinstance(caught.value, TimeoutError)
    finally:
        release.set()
    assert len(runs) == (1 if connected else 0)  # copies of what runs are dropped by the server


def test_call_timeout_replaces_the_limit_of_one_request(serve, connect):
    release = threading.Event()
    client = connect(serve({"WAIT": lambda _: release.wait(CEILING), **CALCULATOR}), timeout=CEILING)
    try:
        with pytest.raises(RequestTimeout, match="0.1"):
            client.call("WAIT", timeout=0.1)
        with pytest.raises(RequestTimeout):
            client.dispatch("WAIT", None, timeout=0.1).result(CEILING)
        assert client.ping(timeout=0.5).result() is True
        assert client.call("ADD", {"x": 1, "y": 1}, timeout=CEILING) == 2
    finally:
        release.set()


@pytest.fixture
def drowsy(monkeypatch):
    """A keeper that dozes soon, and for ever."""
    monkeypatch.setattr("oompa.client.turns._QUIET_LOOKS", 1)
    monkeypatch.setattr("oompa.client.turns._DOZE", 10 * CEILING)


def let_keeper_doze(client):
    """Make calls that are waited for, one after the other, for as long as it takes."""
    ends = time.monotonic() + 0.2
    while time.monotonic() < ends or not client._link._turns.is_dozing:
        assert client.call("ADD", {"x": 1, "y": 1}) == 2
        assert time.monotonic() < ends + CEILING


def test_closing_does_not_wait_for_a_keeper_that_dozes(serve, connect, drowsy):
    client = connect(serve(CALCULATOR), close_timeout=10 * CEILING)
    let_keeper_doze(client)
    closer = threading.Thread(target=client.close, daemon=True)
    closer.start()
    closer.join(CEILING)
    assert not closer.is_alive()


def test_a_callback_comes_at_once_after_many_calls_that_were_waited_for(serve, connect, drowsy):
    client = connect(serve(CALCULATOR))
    for start in ("dispatch", "ping"):
        let_keeper_doze(client)
        done = threading.Event()
        call = client.ping() if start == "ping" else client.dispatch("ADD", {"x": 1, "y": 1})
        call.add_done_callback(lambda _: done.set())
        assert done.wait(CEILING)


def test_cancelled_call_is_forgotten_and_its_reply_dropped(serve, connect):
    release = threading.Event()
    client = connect(serve({"WAIT": lambda _: release.wait(CEILING), **CALCULATOR}))
    call, seen = client.dispatch("WAIT"), []
    call.add_done_callback(seen.append)
    assert call.cancel() and call.cancelled() and call.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        call.result(CEILING)
    assert concurrent.futures.wait([call], timeout=CEILING).done == {call}
    release.set()
    assert client.call("ADD", {"x": 1, "y": 1}) == 2
    wait_until(lambda: seen == [call])
    assert not client.dispatch("ECHO", 1).result(CEILING) is None


def test_done_call_cannot_be_cancelled(serve, connect):
    call = connect(serve()).dispatch("ECHO", 1)
    call.result(CEILING)
    assert not call.cancel() and call.result() == 1


def test_a_call_whose_reader_was_interrupted_before_it_was_forgotten_is_not_sent_again(serve, connect):
    runs = []
    client = connect(serve({"RUN": runs.append}), no_server=True)
    client.dispatch("RUN", 1).settle("the reply")
    last = client.dispatch("RUN", 2)
    client.start()
    last.result(CEILING)
    assert runs == [2]


def test_what_a_reply_lets_go_of_is_let_go_of_without_a_lock(connect, nowhere):
    client, locked = connect(nowhere, no_server=True), []
    calls = [client.dispatch("ECHO") for _ in range(3)]
    replies = [json.dumps({"type": "OK", "id": call.id}) for call in calls]
    for call in calls:
        weakref.finalize(call, lambda: locked.append(client._link._state._is_owned()))
    del call, calls
    client._link._apply(replies)
    gc.collect()
    assert locked == [False] * 3


def test_max_pending_bounds_what_waits(connect, nowhere):
    client = connect(nowhere, max_pending=3)
    calls = [client.dispatch("ECHO") for _ in range(3)]
    with pytest.raises(TooManyPending, match="max_pending"):
        client.dispatch("ECHO")
    calls[0].cancel()
    client.dispatch("ECHO")


# Events and reconnecting.


def test_ok_and_err_events_of_an_id_are_told(serve, connect):
    server = serve()
    client, told, over = connect(server, no_server=True), [], threading.Event()
    good, bad = client.dispatch("ADD", {"x": 1, "y": 1}), client.dispatch("DIV", {"x": 1, "y": 0})
    client.on(f"OK:{good.id}", lambda payload: told.append(payload))
    client.once(f"ERR:{bad.id}", lambda error: told.append(error)).on(f"ERR:{bad.id}", lambda _: over.set())
    client.start()
    assert over.wait(CEILING)
    assert told == [2, "ZeroDivisionError: division by zero"]


def test_no_server_connects_at_start_only(serve, connect):
    server = serve()
    client = connect(server, no_server=True)
    call = client.dispatch("ECHO", 1)
    with pytest.raises(concurrent.futures.TimeoutError):
        call.result(timeout=0.05)
    assert not server.connections
    client.start()
    client.start()
    assert call.result(CEILING) == 1


def test_calls_before_the_server_is_there_are_answered_when_it_comes(serve, connect, nowhere):
    client, events = connect(nowhere, reconnect_interval=0.05, no_server=True), []
    for event in ("error", "host-closed", "reconnect-failed", "reconnected"):
        client.on(event, lambda *args, event=event: events.append((event, *args)))
    failed = threading.Event()
    client.on("reconnect-failed", failed.set)
    client.start()
    call = client.dispatch("ECHO", "early")
    assert failed.wait(CEILING)
    serve(port=int(nowhere.rsplit(":", 1)[1]))
    assert call.result(CEILING) == "early"
    wait_until(lambda: events[-1] == ("reconnected",))
    names = [event[0] for event in events]
    assert names[:4] == ["error", "host-closed", "error", "reconnect-failed"]
    assert isinstance(events[0][1], ConnectionLost)


def test_pending_calls_survive_a_server_that_closes_and_comes_back(serve, connect):
    server, runs = serve({"TASK": lambda number: runs.append(number) or number}), []
    port = server.port
    client, events = connect(server, reconnect_interval=0.05), []
    for event in ("host-closed", "reconnected"):
        client.on(event, lambda event=event: events.append(event))
    assert client.call("TASK", 0) == 0
    server.close().result(CEILING)
    calls = [client.dispatch("TASK", number) for number in range(1, 50)]
    server.listen(port).result(CEILING)
    assert [call.result(CEILING) for call in calls] == list(range(1, 50))
    assert sorted(set(runs)) == list(range(50))
    wait_until(lambda: events[-1:] == ["reconnected"])
    assert events == ["host-closed", "reconnected"]


def test_refused_handshake_fails_what_is_pending_and_tells_the_status(serve, connect):
    client = connect(serve(authenticate=lambda request: False), no_server=True)
    call = client.dispatch("ECHO")
    client.start()
    with pytest.raises(ConnectionLost) as caught:
        call.result(CEILING)
    assert caught.value.status == 401 and isinstance(caught.value, ConnectionError)


def test_full_server_is_tried_again(serve, connect):
    server = serve(max_connections=1)
    first = connect(url_of(server))
    assert first.call("ECHO", 1) == 1
    second = connect(url_of(server), reconnect_interval=0.05)
    call = second.dispatch("ECHO", 2)
    with pytest.raises(concurrent.futures.TimeoutError):
        call.result(0.15)
    first.close()
    assert call.result(CEILING) == 2


def test_close_code_that_blames_the_message_fails_what_was_in_flight(serve, connect, monkeypatch):
    monkeypatch.setattr("oompa.server.web.server_headers", lambda *_: {})  # as the original: nobody knows the limit
    client = connect(serve(max_message_size=1000), reconnect_interval=0.01)
    with pytest.raises(ConnectionLost) as caught:
        client.call("ECHO", "x" * 2000)
    assert caught.value.code == 1009
    assert client.call("ECHO", "x", timeout=CEILING) == "x"


def test_more_than_the_server_takes_is_refused_where_it_is_made_and_harms_no_other_call(serve, connect):
    """Case 38."""
    release = threading.Event()
    server = serve({"WAIT": lambda _: release.wait(CEILING), "ECHO": lambda p: p}, max_message_size=1000)
    client, lost = connect(server), []
    client.on("host-closed", lambda: lost.append(1))
    client.wait_connected(CEILING)
    beside = client.dispatch("WAIT", timeout=CEILING)
    for send in (client.dispatch, client.call):
        with pytest.raises(ValueError, match="exceeds the max_message_size of 1000 of the server; its type is ECHO"):
            send("ECHO", "x" * 2000)
    release.set()
    assert beside.result(CEILING) is True and lost == []
    assert repr(client).endswith("connected, 0 pending>")


def test_more_than_the_server_takes_fails_its_own_future_when_that_is_known_later(serve, connect):
    client = connect(serve(max_message_size=1000), no_server=True)
    large, small = client.dispatch("ECHO", "x" * 2000), client.dispatch("ECHO", "x")
    client.start()
    with pytest.raises(ValueError, match="exceeds the max_message_size of 1000 of the server"):
        large.result(CEILING)
    assert small.result(CEILING) == "x"


def test_a_request_that_just_fits_goes_without_what_the_library_adds(serve, connect):
    client = connect(serve({"LEN": len}, max_message_size=1000))
    client.wait_connected(CEILING)
    frame = len(client._link._writer.write("LEN", f"{client._link._id_prefix}1", ""))
    assert client.call("LEN", "x" * (1000 - frame)) == 1000 - frame
    with pytest.raises(ValueError, match="of the server"):
        client.call("LEN", "x" * (1001 - frame))
    with pytest.raises(ValueError, match="of the server"):  # what the user adds is not left out
        client.call("LEN", "x" * (980 - frame), key="k")


def test_a_reply_over_what_the_client_takes_costs_its_call_alone(serve, connect):
    """Case 38."""
    client, lost = connect(serve({"X": lambda size: "x" * size}), max_message_size=1000), []
    client.on("host-closed", lambda: lost.append(1))
    with pytest.raises(RemoteError, match="exceeds max_message_size of the client of 1000 bytes") as caught:
        client.call("X", 2000, timeout=CEILING)
    assert caught.value.code == "resource_exhausted"
    assert client.call("X", 1, timeout=CEILING) == "x" and lost == []


def test_listener_that_raises_is_logged_and_harms_nothing(serve, connect, caplog):
    server = serve()
    client, over = connect(server, reconnect_interval=0.05), threading.Event()
    assert client.call("ECHO", 1) == 1
    client.on("reconnected", lambda: 1 / 0).on("reconnected", over.set)
    server.disconnect()
    assert over.wait(CEILING)
    assert client.call("ECHO", 2) == 2
    assert any("listener" in record.getMessage() for record in caplog.records)


# Closing.


def test_close_fails_what_is_pending_and_what_comes_after(serve, connect):
    release = threading.Event()
    client = connect(serve({"WAIT": lambda _: release.wait(CEILING)}))
    calls, seen = [client.dispatch("WAIT") for _ in range(5)], []
    calls[0].add_done_callback(seen.append)
    client.close()
    release.set()
    for call in calls:
        with pytest.raises(ClientClosed):
            call.result(CEILING)
    assert seen == [calls[0]]
    for use in (lambda: client.dispatch("ECHO"), lambda: client.call("ECHO"), client.ping, client.start):
        with pytest.raises(ClientClosed, match="closed"):
            use()
    client.close()


def test_client_closes_with_1001(serve, connect):
    codes, over = [], threading.Event()
    server = serve()
    server.on("terminated", lambda connection: over.set())
    client = connect(server)
    client.call("ECHO", 1)
    channel = server.connections[0]._channel
    client.close()
    assert over.wait(CEILING)
    codes.append(channel._ended.code)
    assert codes == [1001]


def test_close_from_a_callback_ends_the_client(serve, connect):
    client, over = connect(serve()), threading.Event()

    def close(_):
        client.close()
        over.set()

    client.dispatch("ECHO").add_done_callback(close)
    assert over.wait(CEILING)
    with pytest.raises(ClientClosed):
        client.dispatch("ECHO")


def test_close_while_connecting_returns_soon():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(f"ws://127.0.0.1:{silent.getsockname()[1]}", connect_timeout=60.0)
        call = client.dispatch("ECHO")
        visitor, _ = silent.accept()
        with visitor:
            started = time.monotonic()
            client.close()
            assert time.monotonic() - started < 2.0
        with pytest.raises(ClientClosed):
            call.result(CEILING)


def test_context_manager_closes(serve):
    with Client(f"ws://127.0.0.1:{serve().port}") as client:
        assert client.call("ECHO", 1) == 1
    with pytest.raises(ClientClosed):
        client.call("ECHO", 1)


@pytest.mark.oompa_leaves_open
def test_unreferenced_client_is_collected_and_its_threads_end(serve):
    server = serve()
    client = Client(f"ws://127.0.0.1:{server.port}", {"add": ADD})
    assert client.add(1, 2).result(CEILING) == 3
    reference = weakref.ref(client)
    del client
    gc.collect()
    assert reference() is None
    wait_until(lambda: not server.connections)
    wait_until(lambda: not any(thread.name.startswith("oompa-keeper") for thread in threading.enumerate()))


@pytest.mark.oompa_leaves_open
def test_call_in_flight_keeps_its_client_alive(serve):
    release = threading.Event()
    server = serve({"WAIT": lambda _: release.wait(CEILING)})
    call = Client(f"ws://127.0.0.1:{server.port}").dispatch("WAIT")
    gc.collect()
    release.set()
    assert call.result(CEILING) is True
    gc.collect()
    wait_until(lambda: not server.connections)


SCRIPT = """
import sys
from oompa import Client
client = Client(sys.argv[1])
if sys.argv[2] == "connected":
    assert client.call("ECHO", 1) == 1
client.dispatch("SLEEP", {"seconds": 2})
sys.exit(3)
"""


@pytest.mark.parametrize("state", ["connected", "reconnecting"])
def test_interpreter_exit_with_an_unclosed_client_is_prompt_and_silent(serve, nowhere, state):
    url = f"ws://127.0.0.1:{serve().port}" if state == "connected" else nowhere
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, url, state], capture_output=True, timeout=CEILING, env={**os.environ}
    )
    assert (process.returncode, process.stdout, process.stderr) == (3, b"", b"")


FORK_SCRIPT = """
import os, sys, threading
from concurrent.futures import wait
from oompa import Client, ClientClosed
client = Client(sys.argv[1])
assert client.call("ECHO", 1) == 1
done, told = client.dispatch("ECHO", 1), threading.Event()
assert done.result() == 1
done.add_done_callback(lambda call: told.set())  # there is a callback thread
assert told.wait(5)
pending = client.dispatch("SLEEP", {"seconds": 0.3})
holder = threading.Thread(target=client._emitter._lock.acquire)
holder.start()
holder.join()
child = os.fork()
if child == 0:
    status = 0
    uses = [lambda: client.call("ECHO", 2), lambda: pending.result(1), client.start]
    uses += [lambda: pending.add_done_callback(print), lambda: wait([pending])]
    for use in uses:
        try:
            use()
            status = 1
        except ClientClosed as error:
            assert "fork" in str(error)
    client.on("reconnected", print).off("reconnected")  # another thread of the parent holds its lock
    ran = threading.Event()
    done.add_done_callback(lambda call: ran.set())
    status |= not ran.wait(5)
    client.close()
    with Client(sys.argv[1]) as own:
        assert own.call("ECHO", 3) == 3
    del client
    os._exit(status)
_, status = os.waitpid(child, 0)
assert status == 0, status
assert pending.result(5) is None
assert client.call("ECHO", 4) == 4
client.close()
"""


def test_child_of_a_fork_gets_a_clear_error_and_leaves_the_parent_alone(serve):
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK_SCRIPT, f"ws://127.0.0.1:{serve().port}"],
        capture_output=True,
        timeout=CEILING,
        text=True,
    )
    assert (process.returncode, process.stderr) == (0, "")


# Options.


@pytest.mark.parametrize(
    "url", ["", "localhost:9000", "http://localhost:9000", "ws://", "ws://:9000", "ws://host:port", "ws://host/#part", 7, None]
)
def test_url_that_is_no_websocket_url_is_refused_at_construction(url):
    with pytest.raises(ValueError, match="URL"):
        Client(url)


@pytest.mark.parametrize(
    "options, error",
    [
        ({"timeout": 0}, ValueError),
        ({"attempts": 0}, ValueError),
        ({"attempts": 2.0}, TypeError),
        ({"reconnect_interval": -1}, ValueError),
        ({"max_reconnect_interval": "1"}, TypeError),
        ({"connect_timeout": float("inf")}, ValueError),
        ({"ping_interval": 0}, ValueError),
        ({"write_timeout": None}, TypeError),
        ({"close_timeout": True}, TypeError),
        ({"max_message_size": 0}, ValueError),
        ({"max_pending": 0}, ValueError),
        ({"tolerance": {"rate": 1}}, TypeError),
        ({"tolerance": 0.1}, TypeError),  # case 57
        ({"tolerance": [0.1, 10]}, TypeError),
        ({"tolerance": "0.1"}, TypeError),
        ({"tolerance": True}, TypeError),
        ({"tolerance": {"ratio": 2}}, ValueError),
        ({"tolerance": {"interval": 0}}, ValueError),
        ({"headers": ["A: b"]}, TypeError),
        ({"ssl": True}, TypeError),
        ({"proxy": "proxy.example"}, ValueError),
        ({"codec": "pickle"}, ValueError),
        ({"timeOut": 1}, TypeError),
        ({"no_sever": True}, TypeError),
    ],
    ids=str,
)
def test_option_out_of_range_is_refused_by_name(options, error):
    with pytest.raises(error, match=next(iter(options))):
        Client("ws://localhost:1", **{"no_server": True, **options})


@pytest.mark.parametrize(
    "methods, error",
    [
        ({"dispatch": ADD}, ValueError),
        ({"close": ADD}, ValueError),
        ({"_link": ADD}, ValueError),
        ({"url": ADD}, ValueError),
        ({"not a name": ADD}, ValueError),
        ({"add": {"type": "ADD", "factroy": print}}, TypeError),
        ({"add": {"factory": print}}, TypeError),
        ({"add": {"type": "ADD", "factory": 3}}, TypeError),
        ({"is_connected": ADD}, ValueError),
        ({"wait_connected": ADD}, ValueError),
        ({"add": "ADD"}, TypeError),  # case 57: "unknown keys ['A', 'D']"
        ({"add": None}, TypeError),
        ({"add": ["ADD"]}, TypeError),
        ({"add": {"type": "ADD", 5: 6}}, TypeError),
        ({"add": {"type": "ADD", "factory": coroutine_function}}, TypeError),  # case 42
    ],
)
def test_method_that_cannot_be_generated_is_refused_by_name(methods, error):
    with pytest.raises(error, match=next(iter(methods))):
        Client("ws://localhost:1", methods, no_server=True)


@pytest.mark.parametrize("methods", ["add", ["add"], 5, ADD])
def test_methods_that_are_no_mapping_of_mappings_are_refused_with_the_right_form(methods):
    """Case 57."""
    with pytest.raises(TypeError, match=r'must be a mapping such as \{("add": \{)?"type": "ADD"\}'):
        Client("ws://localhost:1", methods, no_server=True)


def test_tolerance_that_is_no_mapping_is_refused_with_the_right_form():
    """Case 57: "'float' object is not iterable"."""
    with pytest.raises(TypeError, match=r"tolerance must be a mapping such as \{'ratio': 0.05, .*, or None, not 0.1"):
        Client("ws://localhost:1", no_server=True, tolerance=0.1)


def test_the_decorators_of_a_client_without_brackets_or_for_coroutines_show_the_right_form(connect, nowhere):
    """Case 42."""
    client = connect(nowhere)
    with pytest.raises(TypeError, match=r'write @....on\("error"\)'):
        client.on(print)
    with pytest.raises(TypeError, match="a listener of .* must not be a coroutine function"):
        client.once("error", coroutine_function)
    with pytest.raises(TypeError, match="a middleware must not be a coroutine function"):
        client.use(coroutine_function)


@pytest.mark.parametrize("option", ["headers", "url"])
def test_what_is_asked_at_each_connect_may_not_be_a_coroutine_function(option):
    """Case 42."""
    arguments = {"url": "ws://localhost:1", "no_server": True, option: coroutine_function}
    with pytest.raises(TypeError, match=f"{option} must not be a coroutine function"):
        Client(**arguments)


def test_help_shows_a_generated_method_with_the_parameters_of_its_factory():
    """Case 56."""

    def pair(x: int, *, y: int = 2):
        """Two numbers."""
        return {"x": x, "y": y}

    client = Client("ws://localhost:1", {"add": {"type": "ADD", "factory": pair}, "echo": {"type": "ECHO"}}, no_server=True)
    assert str(inspect.signature(client.add)).startswith("(x: int, *, y: int = 2)")
    assert (client.add.__name__, client.add.__doc__) == ("add", "Two numbers.")
    assert list(inspect.signature(client.echo).parameters) == [
        "payload",
        "timeout",
        "meta",
        "key",
        "resend",
        "on_progress",
    ]
    assert client.echo.__doc__ == "Dispatch ECHO."
    assert "add(x: int, *, y: int = 2)" in pydoc.render_doc(client.add, renderer=pydoc.plaintext)
    client.close()


def test_attribute_there_is_none_of_is_an_attribute_error():
    with pytest.raises(AttributeError, match="multiply"):
        Client("ws://localhost:1", no_server=True).multiply


def test_type_must_be_a_string(connect, nowhere):
    for type in (7, ["ADD"]):
        with pytest.raises(TypeError, match="task type") as caught:
            connect(nowhere).dispatch(type)
        assert caught.value.__context__ is None


def test_a_closed_client_says_so_whatever_it_is_given(connect, nowhere):
    client = connect(nowhere)
    client.close()
    for use in (client.dispatch, client.call):
        with pytest.raises(ClientClosed):
            use("ADD", object())


def test_client_and_server_share_the_defaults_of_a_connection():
    for name in ("ping_interval", "max_message_size", "write_timeout", "close_timeout"):
        assert CLIENT_OPTIONS[name] is SERVER_OPTIONS[name]


# Middleware and meta.


@pytest.fixture
def meta_server(serve):
    """Answers META with the ``meta`` it got."""
    server = serve({**CALCULATOR, "META": lambda _: current_request().meta})
    return server


def test_meta_reaches_the_handler_of_a_call_and_of_a_dispatch(meta_server, connect):
    client = connect(meta_server)
    assert client.call("META", meta={"tenant": "a"}, timeout=CEILING) == {"timeout": CEILING, "tenant": "a"}
    assert client.dispatch("META", None, meta={"tenant": ["b"]}).result(CEILING) == {"timeout": 10.0, "tenant": ["b"]}
    assert client.call("META", timeout=2.5) == {"timeout": 2.5}
    assert client.call("META") == {"timeout": 10.0}
    assert client.call("META", key="k") == client.dispatch("META", key="k").result(CEILING) == {"timeout": 10.0, "key": "k"}
    told = client.dispatch("META", on_progress=print).result(CEILING)
    assert told == {"timeout": 10.0, "progress": True}


def test_meta_of_calls_made_before_there_is_a_connection_reaches_the_handler(meta_server, connect):
    client = connect(meta_server, no_server=True)
    future = client.dispatch("META", meta={"early": True})
    client.start()
    assert future.result(CEILING) == {"timeout": 10.0, "early": True}


@pytest.fixture
def fake():
    """A server played by hand, which announces nothing."""
    server = FakeServer()
    yield server
    server.close()


ALL = {"Oompa-Features": "meta, cancel, progress"}


def test_a_call_that_is_given_up_is_cancelled_where_that_is_announced(connect, fake):
    """Case 36: by its Future, and by its last attempt."""
    client = connect(f"ws://127.0.0.1:{fake.port}", timeout=0.1, attempts=2)
    connection = fake.accept(ALL)
    client.wait_connected(CEILING)
    cancelled = client.dispatch("WAIT", timeout=CEILING)
    assert connection.request()["id"] == cancelled.id
    assert cancelled.cancel()
    assert connection.request() == {"type": "$OOMPA/CANCEL", "payload": {"id": cancelled.id}}
    late = client.dispatch("WAIT")
    first, second = connection.requests(2)
    assert first == second == {"type": "WAIT", "id": late.id, "meta": {"timeout": 0.1}}
    with pytest.raises(RequestTimeout):
        late.result(CEILING)
    assert connection.request() == {"type": "$OOMPA/CANCEL", "payload": {"id": late.id}}


def test_a_call_that_was_answered_is_not_cancelled_nor_any_where_that_is_not_announced(connect, fake):
    client = connect(f"ws://127.0.0.1:{fake.port}")
    connection = fake.accept({"Oompa-Features": "meta"})
    client.wait_connected(CEILING)
    assert client.dispatch("WAIT").cancel()
    answered = client.dispatch("ADD")
    assert [each["type"] for each in connection.requests(2)] == ["WAIT", "ADD"]
    connection.text(json.dumps({"type": "OK", "id": answered.id, "payload": 7}))
    assert answered.result(CEILING) == 7 and not answered.cancel()
    client.dispatch("LAST")
    assert connection.request()["type"] == "LAST"


def test_progress_is_told_on_the_callback_thread_before_the_end(connect, fake):
    client, heard = connect(f"ws://127.0.0.1:{fake.port}"), []
    connection = fake.accept(ALL)
    future = client.dispatch("COPY", on_progress=lambda progress: heard.append((progress, threading.current_thread().name)))
    future.add_done_callback(lambda _: heard.append("done"))
    assert connection.request()["meta"] == {"timeout": 10.0, "progress": True}
    for id, payload in [(future.id, {"done": 1}), (future.id, {"done": "x"}), ("other", {"done": 2})]:
        connection.text(json.dumps({"type": "$OOMPA/PROGRESS", "id": id, "payload": payload}))
    last = {"done": 2, "total": 3, "message": "more"}
    connection.text(json.dumps({"type": "$OOMPA/PROGRESS", "id": future.id, "payload": last}))
    connection.text(json.dumps({"type": "OK", "id": future.id, "payload": 7}))
    assert future.result(CEILING) == 7
    client.close()
    assert heard == [((1, None, None), "oompa-callbacks"), ((2, 3, "more"), "oompa-callbacks"), "done"]


def test_a_task_tells_how_far_it_is(serve, connect):
    heard = []

    def copy(payload):
        for number in range(1000):
            current_request().progress(number + 1, 1000, "copying")
        return current_request().remaining() > 0

    client = connect(serve({"COPY": copy}))
    assert client.dispatch("COPY", on_progress=heard.append).result(CEILING) is True
    assert client.call("COPY") is True
    client.close()
    assert heard[0] == (1, 1000, "copying") and heard[-1] == (1000, 1000, "copying") and len(heard) < 500


@pytest.mark.parametrize("wrong", [{"on_progress": 7}, {"on_progress": lambda: None}, {"key": 7}, {"resend": 0}])
def test_options_of_a_call_that_are_none_are_type_errors(connect, nowhere, wrong):
    with pytest.raises(TypeError, match=next(iter(wrong))):
        connect(nowhere).dispatch("ADD", **wrong)


@pytest.mark.parametrize("reserved", ["timeout", "key", "progress"])
def test_reserved_keys_of_meta_are_refused_from_a_middleware_as_well(connect, nowhere, reserved):
    client = connect(nowhere)
    client.use(lambda request, call_next: (request.meta.update({reserved: 1}), call_next(request))[1])
    with pytest.raises(ValueError, match=f"reserved keys .*{reserved}"):
        client.dispatch("ADD")


def test_what_was_refused_for_a_while_is_sent_again_within_its_time(serve, connect):
    runs = []

    def busy(payload):
        runs.append(payload)
        if len(runs) < 3:
            raise TaskError("full", code="unavailable", retry_after=0.01)
        return len(runs)

    client = connect(serve({"BUSY": busy, "FULL": lambda _: full()}))
    assert client.call("BUSY", resend=False) == 3
    with pytest.raises(RemoteError, match="full") as caught:
        client.dispatch("FULL", timeout=CEILING).result(CEILING)
    assert (caught.value.code, caught.value.data, caught.value.retry_after) == ("unavailable", [7], 1e6)


def full():
    raise TaskError("full", code="unavailable", data=[7], retry_after=1e6)


def test_a_call_that_may_not_be_sent_twice_fails_with_the_connection(connect, fake):
    """Case 35."""
    client = connect(f"ws://127.0.0.1:{fake.port}", reconnect_interval=0.01)
    connection = fake.accept()
    once, again = client.dispatch("PAY", resend=False), client.dispatch("LOOK")
    assert [each["type"] for each in connection.requests(2)] == ["PAY", "LOOK"]
    connection.sock.close()
    with pytest.raises(ConnectionLost):
        once.result(CEILING)
    assert fake.accept().request()["id"] == again.id


def test_a_connection_that_dies_silently_is_left_after_the_first_attempt(connect, fake):
    """Case 34."""
    client = connect(f"ws://127.0.0.1:{fake.port}", timeout=0.5, attempts=20, ping_interval=None, reconnect_interval=0.01)
    silent = fake.accept()
    future = client.dispatch("ADD")
    assert silent.request()["id"] == future.id
    connection = fake.accept()  # the silent one is open still
    assert connection.request()["id"] == future.id
    connection.text(json.dumps({"type": "OK", "id": future.id, "payload": 7}))
    assert future.result(CEILING) == 7


# Draining.


def test_drain_waits_for_what_is_pending_and_takes_nothing_new(serve, connect):
    """Case 39."""
    release = threading.Event()
    client = connect(serve({"WAIT": lambda _: release.wait(CEILING)}))
    future, drained = client.dispatch("WAIT"), concurrent.futures.Future()
    threading.Thread(target=lambda: drained.set_result(client.drain()), daemon=True).start()

    def takes_nothing_new():
        try:
            return not client.dispatch("WAIT").cancel()
        except ClientClosed as error:
            return "drains" in str(error)

    wait_until(takes_nothing_new)
    assert not drained.done()
    release.set()
    assert drained.result(CEILING) is True and future.result(0) is True
    with pytest.raises(ClientClosed, match="closed"):
        client.dispatch("WAIT")


def test_drain_of_calls_made_before_there_is_a_connection_sends_them(serve, connect):
    client = connect(serve())
    futures = [client.dispatch("ECHO", number) for number in range(5)]
    assert client.drain(CEILING) is True
    assert [future.result(0) for future in futures] == list(range(5))


def test_drain_that_takes_too_long_closes_all_the_same_and_says_so(connect, nowhere, caplog):
    client = connect(nowhere)
    future = client.dispatch("ADD")
    assert client.drain(0.01) is False
    with pytest.raises(ClientClosed):
        future.result(0)


def test_close_says_how_many_calls_were_pending_and_nothing_when_there_were_none(connect, nowhere, caplog):
    """Case 39."""
    idle, busy = connect(nowhere), connect(nowhere)
    for _ in range(3):
        busy.dispatch("ADD")
    idle.close()
    busy.close()
    busy.close()
    assert [record.getMessage() for record in caplog.records if "pending" in record.getMessage()] == [
        "the client was closed while 3 calls were pending; they fail with ClientClosed"
    ]


def test_a_server_that_does_not_announce_meta_gets_none(connect, fake):
    client = connect(f"ws://127.0.0.1:{fake.port}")
    future = client.dispatch("ADD", 1, meta={"tenant": "a"})
    assert fake.accept().request() == {"type": "ADD", "id": future.id, "payload": 1}


def test_a_client_tells_which_one_it_is_and_what_it_can_take(connect, fake):
    told = []
    for client in [connect(f"ws://127.0.0.1:{fake.port}", max_message_size=5000, reconnect_interval=0.01) for _ in range(2)]:
        for _ in range(2):
            connection = fake.accept_raw()
            head = connection.http_request().decode()
            told.append(dict(re.findall(r"(Oompa-[^:]*): ([^\r]*)\r", head + "\r")))
            connection.reset()
        client.close()
    ids = [headers["Oompa-Client"] for headers in told]
    assert [headers["Oompa-Max-Message-Size"] for headers in told] == ["5000"] * 4
    assert len(set(ids)) == 2 and all(re.fullmatch("[A-Za-z0-9_-]{12}", id) for id in ids)


@pytest.mark.parametrize("meta", [{"timeout": 1}, {"key": "k", "a": 1}, {"progress": True}], ids=str)
def test_reserved_keys_of_meta_are_refused_by_name(connect, nowhere, meta):
    client = connect(nowhere)
    for use in (client.dispatch, client.call):
        with pytest.raises(ValueError, match=rf"reserved keys \['{next(iter(meta))}'\]"):
            use("ADD", meta=meta)


def test_meta_that_is_no_mapping_or_not_json_is_refused(connect, nowhere):
    client = connect(nowhere)
    with pytest.raises(TypeError, match="meta must be a mapping, not 5"):
        client.dispatch("ADD", meta=5)
    with pytest.raises(NOT_JSON):
        client.dispatch("ADD", meta={"a": object()})


def test_meta_counts_in_the_size_of_a_request(connect, nowhere):
    client = connect(nowhere, max_message_size=1000)
    with pytest.raises(ValueError, match="exceeds max_message_size of 1000"):
        client.dispatch("ADD", meta={"a": "x" * 1000})
    size = len(client._link._writer.write("ADD", "1" * 13, 1)) + len(',"meta":{"timeout":10.0,"a":""}')
    client.dispatch("ADD", 1, meta={"a": "x" * (1000 - size)})
    with pytest.raises(ValueError, match="the request of 1001 bytes exceeds"):
        client.dispatch("ADD", 1, meta={"a": "x" * (1001 - size)})


def test_a_timeout_of_its_own_ends_a_dispatch_after_one_attempt(connect, nowhere):
    client = connect(nowhere)
    with pytest.raises(RequestTimeout):
        client.dispatch("ADD", 1, timeout=0.05).result(CEILING)


def test_middleware_runs_in_the_order_of_use_and_may_change_the_request(meta_server, connect):
    client = connect(meta_server, {"show": {"type": "META"}})
    seen = []

    @client.use
    def outer(request, call_next):
        seen.append((request.type, request.payload, dict(request.meta), threading.current_thread()))
        request.meta["outer"] = 1
        return call_next(request)

    def inner(request, call_next):
        request.meta["inner"] = len(request.meta)
        return call_next(request)

    assert client.use(inner) is inner
    assert client.dispatch("META", 5, meta={"a": 0}).result(CEILING) == {"timeout": 10.0, "a": 0, "outer": 1, "inner": 2}
    plain = {"timeout": 10.0, "outer": 1, "inner": 1}
    assert client.call("META", 5) == client.show(5).result(CEILING) == plain
    assert client.call("META", 5, key="k") == {**plain, "key": "k"}
    assert seen == [("META", 5, meta, threading.current_thread()) for meta in ({"a": 0}, {}, {}, {})]


def test_middleware_does_not_change_the_callers_own_meta(meta_server, connect):
    client, meta = connect(meta_server), {"a": 1}
    client.use(lambda request, call_next: (request.meta.clear(), call_next(request))[1])
    assert client.call("META", meta=meta) == {"timeout": 10.0}
    assert meta == {"a": 1}


def test_middleware_may_answer_by_itself_or_call_twice(serve, connect):
    client = connect(serve())
    answered = concurrent.futures.Future()
    answered.set_result("cached")

    @client.use
    def middleware(request, call_next):
        if request.type == "CACHED":
            return answered
        call_next(request).result(CEILING)
        return call_next(request)

    assert client.dispatch("CACHED") is answered
    assert client.call("CACHED") == "cached"
    assert client.call("ADD", {"x": 1, "y": 6}) == 7


def test_pings_do_not_pass_through_middleware(serve, connect):
    client = connect(serve())
    client.use(lambda request, call_next: pytest.fail("a ping is no task"))
    assert client.ping(timeout=CEILING).result() is True


def test_middleware_that_returns_no_future_is_a_type_error_that_names_it(connect, nowhere):
    client = connect(nowhere)

    @client.use
    def unready(request, call_next):
        return call_next(request).id

    for use in (client.dispatch, client.call):
        with pytest.raises(TypeError, match="unready.* must return a Future, .* not '"):
            use("ADD")
    with pytest.raises(TypeError, match="a middleware must be callable, not 5"):
        client.use(5)


def test_what_middleware_raises_the_caller_gets(connect, nowhere):
    client = connect(nowhere)

    @client.use
    def refuse(request, call_next):
        raise LookupError(request.type)

    for use in (client.dispatch, client.call):
        with pytest.raises(LookupError, match="ADD"):
            use("ADD")


def test_messages_of_a_newer_server_are_ignored(connect, fake):
    client, told = connect(f"ws://127.0.0.1:{fake.port}"), []
    client.on("error", told.append).on("host-closed", lambda: told.append("host-closed"))
    future = client.dispatch("ADD", 1)
    connection = fake.accept()
    request = connection.request()
    connection.text(json.dumps({"type": "$OOMPA/FUTURE", "id": request["id"], "payload": 5}))
    connection.reply(request, 7)
    assert future.result(CEILING) == 7
    assert told == []


def test_default_makes_json_of_a_payload(serve, connect):
    """Case 44: the same option on either side."""
    client = connect(serve(), default=repr)
    assert client.call("ECHO", {"x": {1}, "y": [1j]}) == {"x": "{1}", "y": ["1j"]}
    with pytest.raises(TypeError):
        connect(serve()).dispatch("ECHO", {1})


UNREADABLE = {"surrogate": r'"\ud800"', "NaN": "NaN", "digits": "1" * 5000, "deep": "[" * 2000 + "]" * 2000}


@pytest.mark.parametrize("payload", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_reply_that_cannot_be_read_ends_the_call_whose_id_it_has(connect, fake, payload):
    """Case 31: it is not asked for again, and the other calls go on."""
    client, errors = connect(f"ws://127.0.0.1:{fake.port}"), []
    client.on("error", errors.append)
    future, other = client.dispatch("ADD", 1), client.dispatch("ADD", 2)
    connection = fake.accept()
    requests = connection.requests(2)
    connection.text('{"type":"OK","id":%s,"payload":%s}' % (json.dumps(future.id), payload))
    connection.reply(requests[1], 7)
    error = future.exception(CEILING)
    assert isinstance(error, ProtocolError) and error.id == future.id
    assert other.result(CEILING) == 7
    client.ping()
    assert connection.request()["type"] == "$OOMPA/PING"  # and nothing before it: it was not sent again
    wait_until(lambda: errors == [error])


@pytest.mark.parametrize("with_middleware", [False, True])
def test_a_call_that_is_left_by_an_exception_is_never_sent_again(connect, fake, with_middleware):
    client = connect(f"ws://127.0.0.1:{fake.port}", timeout=0.2, attempts=3)
    if with_middleware:
        client.use(lambda request, call_next: call_next(request))

    def interrupt(*_):
        raise KeyboardInterrupt

    connection = fake.accept()
    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            client.call("CHARGE_CARD", 1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert len(client._link._exchange) == 0
    assert connection.request()["type"] == "CHARGE_CARD"
    connection.reset()
    connection = fake.accept()
    future = client.dispatch("ADD", 1)
    assert connection.request()["id"] == future.id  # and nothing before it


@pytest.mark.oompa_leaves_open
def test_a_client_that_ends_with_a_call_holds_up_no_other(serve):
    """What a call keeps alive is let go of outside the lock that all calls share."""
    server = serve()
    free = []

    def take():
        taken = call_module._making.acquire(timeout=1.0)
        if taken:
            call_module._making.release()
        free.append(taken)

    class Ending(Client):
        def __del__(self):
            thread = threading.Thread(target=take)
            thread.start()
            thread.join(CEILING)

    with Client(f"ws://127.0.0.1:{server.port}") as other:
        future = Ending(f"ws://127.0.0.1:{server.port}").dispatch("ADD", {"x": 1, "y": 6})
        assert future.result(CEILING) == 7
        wait_until(lambda: free)
        assert other.call("ADD", {"x": 1, "y": 6}, timeout=CEILING) == 7
    assert free == [True]
