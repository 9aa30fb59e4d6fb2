"""What holds for a client at all times, whatever the network and the server do; numbered as in the reliability table."""

import concurrent.futures
import contextlib
import gc
import json
import logging
import os
import random
import re
import select
import socket
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import pytest
from faults import FaultProxy
from raw_peer import BINARY, frame, masked

from oompa import Client, ClientClosed, ConnectionLost, ProtocolError, RemoteError, RequestTimeout, TooManyPending

from .fake_server import FakeServer, close_frame_unmasked, lives_on
from .harness import (
    CEILING,
    CLOSING,
    QUICK,
    SLACK,
    Connect,
    Counts,
    Events,
    Service,
    Start,
    Stopwatch,
    a_moment,
    add,
    client_threads,
    eventually,
    outcome,
    outcomes,
    up,
)


def test_invariant_01_every_future_settles_exactly_once(
    service: Service, proxy: FaultProxy, connect: Connect
) -> None:
    client, counts = up(connect(proxy.port)), Counts()

    def calls(make: Callable[[int], Any]) -> list[Any]:
        return [counts.watch(make(number)) for number in range(25)]

    answered = calls(lambda n: add(client, n, n))
    failed = calls(lambda n: client.dispatch("FAIL", n))
    assert outcomes(answered + failed) == [n + n for n in range(25)] + [RemoteError] * 25
    proxy.latency("down", 300)
    timed_out = calls(lambda n: client.ping(timeout=0.1))
    cancelled = calls(lambda n: add(client, n, n))
    late = calls(lambda n: add(client, n, n))
    closed = calls(lambda n: client.dispatch("GATED", n))
    assert all(future.cancel() for future in cancelled)
    assert outcomes(timed_out) == [RequestTimeout] * 25
    proxy.heal()  # the replies to what timed out or was cancelled arrive now, before those to `late`
    assert outcomes(late) == [n + n for n in range(25)]
    client.close()
    everything = answered + failed + timed_out + cancelled + late + closed
    assert all(future.done() for future in everything)
    assert [f.cancel() for f in everything] == [f in cancelled for f in everything]  # too late for all the others
    assert outcomes(everything) == (
        [n + n for n in range(25)]
        + [RemoteError] * 25
        + [RequestTimeout] * 25
        + [CancelledError] * 25
        + [n + n for n in range(25)]
        + [ClientClosed] * 25
    )
    assert counts.all_once(everything)


def test_invariant_01_cancelling_races_replies(service: Service, connect: Connect, eager_threads: None) -> None:
    client, counts = up(connect(service.port)), Counts()
    futures = [counts.watch(add(client, n, n)) for n in range(1000)]
    said: dict[str, list[bool]] = {future.id: [] for future in futures}
    threads = [threading.Thread(target=lambda: [said[f.id].append(f.cancel()) for f in futures[1::2]]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number, future in enumerate(futures[:500]):
        assert outcome(future) in (number + number, CancelledError)
    for thread in threads:
        thread.join(CEILING)
    up(client)  # every reply has come
    for number, future in enumerate(futures):
        expected = CancelledError if True in said[future.id] else number + number
        assert outcome(future) == expected
        assert said[future.id].count(True) in (0, 4)  # done is done, for all who ask
    assert counts.all_once(futures)


def test_invariant_01_closing_races_replies(service: Service, connect: Connect, eager_threads: None) -> None:
    counts = Counts()
    for _ in range(10):
        client = up(connect(service.port))
        futures = [counts.watch(add(client, n, n)) for n in range(100)]
        client.close()
        assert all(future.done() for future in futures)
        for number, future in enumerate(futures):
            assert outcome(future) in (number + number, ClientClosed)
        assert counts.all_once(futures)


TIMEOUT, ATTEMPTS = 0.15, 2


@pytest.mark.parametrize("network", ["blackhole", "late", "stall", "swallow", "refuse", "no answer to SYN"])
@pytest.mark.parametrize("waits", [True, False], ids=["in result()", "by callback"])
def test_invariant_02_settles_within_timeout_times_attempts(
    service: Service, proxy: FaultProxy, connect: Connect, network: str, waits: bool
) -> None:
    with contextlib.ExitStack() as stack:
        port, payload = proxy.port, ""
        if network == "no answer to SYN":
            port = stack.enter_context(full_backlog())
        elif network == "swallow":
            proxy.swallow()
        elif network == "refuse":
            proxy.refuse()
        client = connect(port, timeout=TIMEOUT, attempts=ATTEMPTS)
        if network in ("blackhole", "late", "stall"):
            up(client)
        if network == "blackhole":
            proxy.blackhole("both")
        elif network == "late":
            proxy.latency("down", 300)
        elif network == "stall":
            proxy.stall("up")
            payload = "x" * 8_000_000
        passed = Stopwatch()
        future = client.dispatch("ECHO", payload)
        encoding = passed()
        assert encoding < 5.0  # dispatching waits for no network, which would take write_timeout
        if waits:
            assert outcome(future) is RequestTimeout
        else:
            concurrent.futures.wait([future], CEILING)
            assert isinstance(future.exception(0), RequestTimeout)
        assert TIMEOUT * ATTEMPTS <= passed() <= encoding + TIMEOUT * ATTEMPTS + 1.0


@contextlib.contextmanager
def full_backlog() -> Iterator[int]:
    """Yield a port of 127.0.0.1 where connecting gets no answer at all."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(5):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_invariant_03_only_the_pending_are_sent_again_and_with_the_same_id(fake: FakeServer, connect: Connect) -> None:
    client = connect(fake.port)
    first = fake.accept()
    answered, cancelled, pending = (add(client, n, n) for n in range(3))
    timed_out = client.ping(timeout=0.1)
    requests = first.requests(4)
    assert [request["id"] for request in requests] == [f.id for f in (answered, cancelled, pending, timed_out)]
    first.reply(requests[0], "answer")
    assert answered.result(CEILING) == "answer"
    assert cancelled.cancel()
    assert outcome(timed_out) is RequestTimeout
    first.reset()
    second = fake.accept()
    assert second.request() == requests[2]
    assert second.is_silent()
    fresh = add(client, 9, 9)
    again = second.request()
    assert again is not None and again["id"] == fresh.id
    second.reply(requests[2], "late answer")
    second.reply(again, "fresh answer")
    assert outcomes([pending, fresh]) == ["late answer", "fresh answer"]


def test_invariant_03_attempts_repeat_the_same_message(fake: FakeServer, connect: Connect) -> None:
    client = connect(fake.port, timeout=0.15, attempts=3)
    connection = fake.accept()
    future = client.dispatch("ECHO", {"a": [1, None]})
    requests = connection.requests(3)
    assert requests == [{"type": "ECHO", "id": future.id, "payload": {"a": [1, None]}}] * 3
    assert outcome(future) is RequestTimeout
    assert connection.is_silent()


NOBODY_WAITS = {
    "unknown id": '{"type": "OK", "id": "nobody", "payload": 1}',
    "no id": '{"type": "OK", "payload": 1}',
    "id null": '{"type": "ERR", "id": null, "error": "what was that?"}',
    "id of another type": '{"type": "OK", "id": {"a": [1]}, "payload": 1}',
    "unknown type": '{"type": "MEOW", "id": "nobody"}',
    "no type": '{"id": "nobody"}',
    "type of another type": '{"type": [], "id": "nobody"}',
    "not JSON": "what?",
    "empty": "",
    "cut off": '{"type": "OK", "id"',
    "NaN": '{"type": "OK", "id": "nobody", "payload": NaN}',
    "lone surrogate": '{"type": "OK", "id": "\\ud800", "payload": "\\ud800"}',
    "deep": "[" * 100_000,
    "long integer": '{"type": "OK", "id": "nobody", "payload": ' + "9" * 100_000 + "}",
    "scalar": "17",
    "null": "null",
    "array": "[1, 2]",
}


@pytest.mark.parametrize("name", NOBODY_WAITS)
def test_invariant_04_replies_nobody_waits_for_harm_nothing(fake: FakeServer, connect: Connect, name: str) -> None:
    client = connect(fake.port)
    connection = fake.accept()
    future = add(client, 1, 2)
    request = connection.request()
    assert request is not None
    connection.text(NOBODY_WAITS[name])
    connection.send(frame(BINARY, NOBODY_WAITS[name].encode(), mask=None))
    connection.reply(request, 3)
    assert future.result(CEILING) == 3
    lives_on(client, connection)


@pytest.mark.parametrize("junk", [b"", b"\xff\xfe\x00", os.urandom(300)])
def test_invariant_04_binary_junk_harms_nothing(fake: FakeServer, connect: Connect, junk: bytes) -> None:
    client = connect(fake.port)
    events, connection = Events(client), fake.accept()
    connection.send(frame(BINARY, junk, mask=None))
    lives_on(client, connection)
    events.wait("error")
    assert [type(error) for error in events.errors()] == [ProtocolError]


def test_invariant_04_duplicate_and_late_replies_harm_nothing(fake: FakeServer, connect: Connect) -> None:
    client = connect(fake.port)
    connection = fake.accept()
    late = client.ping(timeout=0.05)
    late_request = connection.request()
    assert late_request is not None and outcome(late) is RequestTimeout
    twice = add(client, 1, 2)
    request = connection.request()
    assert request is not None
    connection.reply(late_request, True)
    for payload in (3, 4, 5):
        connection.reply(request, payload)
    lives_on(client, connection)
    assert outcomes([twice, late]) == [3, RequestTimeout]


CLOSE_STATES = ("connected", "blackholed", "stalled", "waited for", "refused", "swallowed", "no answer to SYN", "unstarted")


@contextlib.contextmanager
def in_state(state: str, proxy: FaultProxy, connect: Connect, **options: Any) -> Iterator[Client]:
    """Yield a client in one of `CLOSE_STATES`, with a call in flight."""
    options.setdefault("close_timeout", CLOSING)
    if state == "no answer to SYN":
        with full_backlog() as port:
            client = connect(port, **options)
            client.dispatch("ECHO", None)
            a_moment(0.1)
            yield client
        return
    if state == "swallowed":
        proxy.swallow()
    elif state == "refused":
        proxy.refuse()
    client = connect(proxy.port, no_server=state == "unstarted", **options)
    if state in ("connected", "blackholed", "stalled", "waited for"):
        up(client)
    elif state == "swallowed":
        assert proxy.wait_until(lambda p: p.live == 1)
    if state == "blackholed":
        proxy.blackhole("both")
    elif state == "stalled":
        proxy.stall("up")
    future = client.dispatch("GATED", "x" * (8_000_000 if state == "stalled" else 1))
    waiting = threading.Thread(target=outcome, args=(future,))
    if state == "waited for":
        waiting.start()
        a_moment(0.1)
    yield client
    if state == "waited for":
        waiting.join(CEILING)


@pytest.mark.parametrize("state", CLOSE_STATES)
def test_invariant_05_close_returns_soon_and_for_good(
    service: Service, proxy: FaultProxy, connect: Connect, state: str
) -> None:
    with in_state(state, proxy, connect) as client:
        passed = Stopwatch()
        client.close()
        assert passed() < CLOSING + 0.2
        events = Events(client)
        connections = proxy.connections
        proxy.heal()
        passed = Stopwatch()
        client.close()
        assert passed() < 0.2
        a_moment()
        assert proxy.connections == connections
        assert events.names() == []
        with pytest.raises(ClientClosed):
            client.dispatch("ADD", {"x": 1, "y": 2})
        with pytest.raises(ClientClosed):
            client.start()


@pytest.mark.parametrize("state", CLOSE_STATES)
def test_invariant_05_close_from_a_callback(service: Service, proxy: FaultProxy, connect: Connect, state: str) -> None:
    with in_state(state, proxy, connect, close_timeout=0.6) as client:
        seconds: Future[float] = Future()

        def close(_: Any) -> None:
            passed = Stopwatch()
            client.close()
            seconds.set_result(passed())

        doomed = client.dispatch("GATED")
        doomed.add_done_callback(close)
        assert doomed.cancel()
        assert seconds.result(CEILING) < 0.6 + 0.2
        with pytest.raises(ClientClosed):
            client.dispatch("ADD")
        assert eventually(lambda: not client_threads(), 1.0)


def test_invariant_05_close_from_an_event_listener(service: Service, proxy: FaultProxy, connect: Connect) -> None:
    client = up(connect(proxy.port))
    closed = threading.Event()
    client.on("host-closed", lambda: (client.close(), closed.set()))
    proxy.reset()
    assert closed.wait(CLOSING + 0.2)
    connections = proxy.connections
    a_moment()
    assert proxy.connections == connections


@pytest.mark.parametrize("state", ["connected", "blackholed", "swallowed"])
def test_invariant_05_close_from_many_threads(
    service: Service, proxy: FaultProxy, connect: Connect, state: str
) -> None:
    with in_state(state, proxy, connect, close_timeout=0.6) as client:
        passed = Stopwatch()
        threads = [threading.Thread(target=client.close) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(CEILING)
        assert passed() < 0.6 + 0.2


@pytest.mark.parametrize("fate", ["connected", "blackholed", "stalled", "refused", "swallowed", "flapped"])
def test_invariant_06_close_leaves_no_thread_and_no_descriptor(
    service: Service, proxy: FaultProxy, script: Start, fate: str
) -> None:
    running = script(
        """
Client(URL, no_server=True).close()
baseline = threading.active_count(), descriptors()
client = Client(URL, reconnect_interval=0.02, close_timeout=0.5)
client.on("error", lambda error: None)
client.call("ECHO", 1)
say("connected")
listen()
future = client.dispatch("GATED", "x" * 8_000_000)
say("dispatched")
listen()
client.close()
say(eventually(lambda: (threading.active_count(), descriptors()) == baseline, 1.0),
    threading.active_count(), descriptors(), baseline, type(future.exception(0)).__name__)
""",
        proxy.port,
    )
    assert running.line() == "connected"
    if fate == "blackholed":
        proxy.blackhole("both")
    elif fate == "stalled":
        proxy.stall("both")
    running.tell()
    assert running.line() == "dispatched"
    if fate in ("refused", "swallowed"):
        getattr(proxy, "refuse" if fate == "refused" else "swallow")()
        proxy.reset()
        a_moment(0.1)
    elif fate == "flapped":
        for number in range(2, 12):
            proxy.reset()
            assert proxy.wait_until(lambda p: p.connections >= number and p.live == 1)
    running.tell()
    assert running.line().startswith("True ")
    assert running.finish() == (0, "", "")


def test_invariant_07_no_busy_loop_while_refused(service: Service, proxy: FaultProxy, connect: Connect) -> None:
    client = up(connect(proxy.port, reconnect_interval=0.1))
    events, busy, passed = Events(client), time.process_time(), Stopwatch()
    proxy.refuse()
    proxy.reset()
    pending = add(client, 3, 4)  # something to do makes no difference
    a_moment(1.2)
    attempts = events.names().count("reconnect-failed")
    elapsed = passed()
    assert time.process_time() - busy < 0.2
    assert elapsed / 0.1 / 2 - 2 <= attempts <= elapsed / 0.1 + 1
    proxy.heal()
    assert pending.result(CEILING) == 7


def test_invariant_07_no_busy_loop_while_every_connection_is_lost(
    service: Service, proxy: FaultProxy, connect: Connect
) -> None:
    client = up(connect(proxy.port, reconnect_interval=0.1))
    busy, passed = time.process_time(), Stopwatch()
    proxy.truncate("down", 0, times=1_000_000, reset=True)
    a_moment(1.2)
    attempts, elapsed = proxy.connections - 1, passed()
    assert time.process_time() - busy < 0.3  # the proxy's and the server's share included
    assert elapsed / 0.1 / 2 - 2 <= attempts <= elapsed / 0.1 + 1
    proxy.heal()
    up(client)


def test_invariant_07_no_busy_loop_while_idle(service: Service, proxy: FaultProxy, connect: Connect) -> None:
    up(connect(proxy.port))
    assert eventually(lambda: not service.server.connections[0]._running)
    a_moment(1.5)  # the server's look-out parks about a second after the last task
    busy = time.process_time()
    a_moment(1.0)
    assert time.process_time() - busy < 0.1


def test_invariant_08_a_callback_may_use_the_client(service: Service, connect: Connect) -> None:
    client = up(connect(service.port))
    results: Future[list[Any]] = Future()

    def use(future: Any) -> None:
        seen = [future.result()]
        inner = add(client, 3, 4)
        inner.add_done_callback(lambda done: seen.append("callback ran"))
        seen.append(inner.result(CEILING))
        seen.append(client.call("ECHO", "blocking"))
        seen.append(client.ping().result(CEILING))
        client.on("error", print).off("error", print)
        client.close()
        seen.append(outcome(future))
        results.set_result(seen)

    add(client, 1, 2).add_done_callback(use)
    assert results.result(CEILING)[:5] == [3, 7, "blocking", True, 3]
    assert eventually(lambda: results.result()[5:] == ["callback ran"])


def test_invariant_08_a_listener_may_use_the_client(service: Service, proxy: FaultProxy, connect: Connect) -> None:
    client = up(connect(proxy.port))
    result: Future[Any] = Future()
    client.once("reconnected", lambda: result.set_result(add(client, 3, 4).result(CEILING)))
    proxy.reset()
    assert result.result(CEILING) == 7


@pytest.mark.parametrize("fault", [Exception("callback"), SystemExit("callback"), KeyboardInterrupt("callback")])
def test_invariant_08_a_callback_that_raises_harms_nothing(
    service: Service, connect: Connect, caplog: pytest.LogCaptureFixture, fault: BaseException
) -> None:
    client = up(connect(service.port))

    def raise_fault(*_: Any) -> None:
        raise fault

    with caplog.at_level(logging.CRITICAL, "oompa.client"):
        for number in range(5):
            future = add(client, number, 1)
            future.add_done_callback(raise_fault)
            client.on(f"OK:{future.id}", raise_fault)
            assert future.result(CEILING) == number + 1
        heard = threading.Event()
        add(client, 1, 1).add_done_callback(lambda _: heard.set())
        assert heard.wait(CEILING)
    up(client)


def test_invariant_08_a_callback_that_blocks_holds_up_no_future(
    service: Service, proxy: FaultProxy, connect: Connect
) -> None:
    client = up(connect(proxy.port))
    blocked, release = threading.Event(), threading.Event()
    add(client, 1, 2).add_done_callback(lambda _: (blocked.set(), release.wait(CEILING)))
    assert blocked.wait(CEILING)
    try:
        assert outcomes([add(client, n, n) for n in range(20)]) == [n + n for n in range(20)]
        proxy.blackhole("down")
        passed = Stopwatch()
        doomed = client.ping(timeout=0.3)
        concurrent.futures.wait([doomed], CEILING)
        assert isinstance(doomed.exception(0), RequestTimeout)
        assert 0.3 <= passed() < 0.3 + SLACK
        proxy.heal()
        proxy.reset()
        up(client)
    finally:
        release.set()


def test_invariant_09_reconnected_follows_host_closed(service: Service, proxy: FaultProxy, connect: Connect) -> None:
    client = up(connect(proxy.port, reconnect_interval=0.02))
    events = Events(client)
    for number in range(1, 11):
        if number % 3 == 0:
            proxy.refuse()
        proxy.reset()
        if number % 3 == 0:
            events.wait("reconnect-failed", 2 * number // 3)
            proxy.heal()
        events.wait("reconnected", number)
    story = " ".join(name for name in events.names() if name != "error")
    assert re.fullmatch(r"(host-closed( reconnect-failed)* reconnected ?){10}", story), story
    assert events.names().count("error") >= 10


def test_invariant_09_replies_are_told_in_the_order_they_came(fake: FakeServer, connect: Connect) -> None:
    client = connect(fake.port)
    connection = fake.accept()
    order: list[int] = []
    futures = [add(client, n, n) for n in range(100)]
    for number, future in enumerate(futures):
        client.on(f"OK:{future.id}", order.append)
        client.on(f"ERR:{future.id}", order.append)
    requests = connection.requests(100)
    shuffled = random.Random(9).sample(range(100), 100)
    for number in shuffled:
        kind, key = ("ERR", "error") if number % 3 == 0 else ("OK", "payload")
        connection.text(json.dumps({"type": kind, "id": requests[number]["id"], key: number}))
    assert eventually(lambda: len(order) == 100)
    assert order == shuffled


def test_invariant_10_fifty_threads_send_whole_messages(fake: FakeServer, connect: Connect) -> None:
    client = connect(fake.port, timeout=60.0)
    connection = fake.accept()
    payloads = {f"{n:02}": f"{n:02}" * 32_768 for n in range(50)}
    futures: list[Any] = []
    threads = [
        threading.Thread(target=lambda text=text: futures.extend(client.dispatch("ECHO", text) for _ in range(4)))
        for text in payloads.values()
    ]
    for thread in threads:
        thread.start()
    seen: Counter[str] = Counter()
    for request in connection.requests(200):  # each frame is checked: final, masked, whole, JSON
        assert set(request) == {"type", "id", "payload"}
        assert request["payload"] == payloads[request["payload"][:2]]
        seen[request["payload"][:2]] += 1
        connection.reply(request, request["payload"][:2])
    for thread in threads:
        thread.join(CEILING)
    assert set(seen.values()) == {4} and len(seen) == 50
    assert Counter(outcomes(futures)) == seen


def test_invariant_11_a_send_that_stood_still_is_never_continued(fake: FakeServer, connect: Connect) -> None:
    client = connect(fake.port, write_timeout=0.3, timeout=60.0)
    events, first = Events(client), fake.accept()
    big = client.dispatch("ECHO", "x" * 15_000_000)
    small = [add(client, n, n) for n in range(3)]
    events.wait("host-closed")
    assert not [error for error in events.errors() if not isinstance(error, ConnectionLost)]
    sent = first.rest()
    assert sent[:2] == b"\x81\xff"
    whole = json.dumps({"type": "ECHO", "id": big.id, "payload": "x" * 15_000_000}, separators=(",", ":")).encode()
    assert len(sent) < len(whole)
    begun = masked(sent[14:], sent[10:14])
    assert re.fullmatch(rb'\{[^{]*"payload":"x*', begun), begun[:200]
    second = fake.accept()
    requests = second.requests(4)
    assert [request["id"] for request in requests] == [future.id for future in (big, *small)]
    for request in requests:
        second.reply(request, "whole")
    assert outcomes([big, *small]) == ["whole"] * 4


def test_invariant_11_a_send_that_failed_is_never_continued(fake: FakeServer, connect: Connect) -> None:
    client = connect(fake.port)
    first = fake.accept()
    future = client.dispatch("ECHO", "x" * 8_000_000)
    assert select.select([first.sock], [], [], CEILING)[0]
    first.reset()
    second = fake.accept()
    request = second.request()
    assert request is not None and request["id"] == future.id
    second.reply(request, "whole")
    assert future.result(CEILING) == "whole"


def test_invariant_12_a_forked_child_leaves_its_parents_connection_alone(fake: FakeServer, script: Start) -> None:
    running = script(
        """
client = Client(URL)
say(client.call("BEFORE"))
client._link._state.acquire()  # as another thread may at any time
child = os.fork()
if child != 0:
    client._link._state.release()
if child == 0:
    started = time.monotonic()
    for use in (lambda: client.dispatch("CHILD"), lambda: client.call("CHILD"), client.ping, client.start):
        try:
            use()
            say("the child may use the client")
        except ClientClosed as error:
            if "process" not in str(error): say("unclear:", error)
    client.close()
    del client
    gc.collect()
    say("child", time.monotonic() - started < 1.0)
    sys.exit(7)  # an exit with all its finalizers
say("parent sees", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
say(client.call("AFTER"))
client.close()
""",
        fake.port,
    )
    connection = fake.accept()
    for task in ("BEFORE", "AFTER"):
        request = connection.request()
        assert request is not None and request["type"] == task
        connection.reply(request, "answer to " + task)
    assert connection.closing() == 1001
    connection.send(close_frame_unmasked(1001))
    assert connection.rest() == b""
    assert fake.is_left_alone()
    assert running.finish() == (0, "answer to BEFORE\nchild True\nparent sees 7\nanswer to AFTER\n", "")


def test_invariant_12_a_forked_child_may_have_a_client_of_its_own(service: Service, script: Start) -> None:
    running = script(
        """
client = Client(URL)
client.call("ECHO", 1)
child = os.fork()
if child == 0:
    with Client(URL) as own:
        say(own.call("ECHO", "from the child"))
    os._exit(0)
os.waitpid(child, 0)
say(client.call("ECHO", "from the parent"))
""",
        service.port,
    )
    assert running.finish() == (0, "from the child\nfrom the parent\n", "")
    assert [payload for _, _, payload in service.runs] == [1, "from the child", "from the parent"]


@pytest.mark.parametrize(
    "state, status",
    [
        ("connected", 0),
        ("connected", 3),
        ("blackholed", 3),
        ("refused", 3),
        ("swallowed", 3),
        ("waited for", 3),
        ("in a callback", 3),
    ],
)
def test_invariant_13_exit_with_an_unclosed_client_is_prompt_and_quiet(
    service: Service, proxy: FaultProxy, script: Start, state: str, status: int
) -> None:
    running = script(
        f"""
client = Client(URL, reconnect_interval=0.05)
client.call("ECHO", 1)
say("connected")
listen()
future = client.dispatch("GATED")
if {state == "waited for"}:
    threading.Thread(target=future.result, daemon=True).start()
elif {state == "in a callback"}:
    client.dispatch("ECHO").add_done_callback(lambda _: threading.Event().wait(60))
threading.Event().wait(0.2)
say(time.monotonic())
sys.exit({status})
""",
        proxy.port,
    )
    assert running.line() == "connected"
    if state == "blackholed":
        proxy.blackhole("both")
    elif state == "refused":
        proxy.refuse()
        proxy.reset()
    elif state == "swallowed":
        proxy.swallow()
        proxy.reset()
    running.tell()
    said = float(running.line())
    assert running.finish() == (status, "", "")
    assert time.monotonic() - said < 1.0 + 2 * SLACK  # the interpreter itself takes most of it


def test_invariant_13_exit_by_an_exception_keeps_its_traceback_and_status(service: Service, script: Start) -> None:
    running = script("client = Client(URL); client.call('ECHO', 1); raise ValueError('mine')", service.port)
    status, out, err = running.finish()
    assert (status, out) == (1, "")
    assert err.startswith("Traceback") and err.strip().endswith("ValueError: mine")
    assert err.count("\n") < 10


@pytest.mark.oompa_leaves_open
@pytest.mark.parametrize("state", ["connected", "blackholed", "refused", "swallowed", "unstarted"])
def test_invariant_13_garbage_collection_ends_the_threads(service: Service, proxy: FaultProxy, state: str) -> None:
    if state == "refused":
        proxy.refuse()
    elif state == "swallowed":
        proxy.swallow()
    options = {**QUICK, "close_timeout": 0.5, "no_server": state == "unstarted"}
    client = Client(f"ws://127.0.0.1:{proxy.port}", {"add": {"type": "ADD"}}, **options)
    if state in ("connected", "blackholed"):
        up(client)
        client.add({"x": 1, "y": 2}).result(CEILING)
    if state == "blackholed":
        proxy.blackhole("both")
    collected = weakref.ref(client)
    del client
    gc.collect()
    assert collected() is None
    assert eventually(lambda: not client_threads(), 0.5 + SLACK)
    connections = proxy.connections
    proxy.heal()
    a_moment()
    assert proxy.connections == connections


@pytest.mark.oompa_leaves_open
def test_invariant_13_a_pending_call_keeps_its_client(service: Service) -> None:
    client = Client(f"ws://127.0.0.1:{service.port}", **QUICK)
    collected = weakref.ref(client)
    future = client.dispatch("GATED", "kept")
    del client
    gc.collect()
    service.gate.set()
    assert future.result(CEILING) == "kept"
    del future
    gc.collect()
    assert eventually(lambda: gc.collect() is not None and collected() is None)
    assert eventually(lambda: not client_threads(), CLOSING + SLACK)


def test_invariant_14_a_hundred_thousand_calls_leave_no_state(service: Service, script: Start) -> None:
    running = script(
        """
client = Client(URL, timeout=60.0)
def work(rounds):
    for _ in range(rounds):
        futures = [client.dispatch("ADD", {"x": 1, "y": n}) for n in range(500)]
        for n, future in enumerate(futures):
            if n % 10 == 0: future.add_done_callback(lambda done: None)
            if n % 10 == 1: client.once(f"OK:{future.id}", lambda payload: None)
            if n % 10 == 2: future.cancel()
        assert all(f.cancelled() or f.result() == 1 + n for n, f in enumerate(futures))
        for future in futures: client.off(f"OK:{future.id}")  # those whose reply came before them
    drained = threading.Event()  # callbacks run in order
    client.dispatch("ADD", {"x": 1, "y": 2}).add_done_callback(lambda done: drained.set())
    assert drained.wait(10.0)
    gc.collect()
    return len(gc.get_objects()), sys.getallocatedblocks(), threading.active_count(), descriptors()
before = work(8)
after = work(200)
say(*(b - a for a, b in zip(before, after)))
client.close()
""",
        service.port,
    )
    objects, blocks, threads, descriptors = map(int, running.line(60.0).split())
    assert objects < 500 and blocks < 5000 and threads <= 0 and descriptors <= 0
    assert running.finish() == (0, "", "")
    service.runs.clear()


def test_invariant_14_calls_that_time_out_leave_no_state(service: Service, proxy: FaultProxy, connect: Connect) -> None:
    client = up(connect(proxy.port, timeout=0.1, attempts=1))
    proxy.blackhole("both")
    futures = [add(client, n, n) for n in range(1000)]
    assert outcomes(futures) == [RequestTimeout] * 1000
    alive = weakref.WeakSet(futures)
    futures.clear()
    assert eventually(lambda: gc.collect() is not None and not alive, 2.0)


@pytest.mark.parametrize("reader", ["caller", "keeper"])
def test_invariant_14_a_lost_connection_keeps_nothing_of_its_reader(
    service: Service, proxy: FaultProxy, connect: Connect, reader: str
) -> None:
    class Baggage:
        pass

    client = up(connect(proxy.port))
    alive: weakref.WeakSet[Any] = weakref.WeakSet()

    def call() -> None:
        baggage = Baggage()
        alive.add(baggage)
        future = client.dispatch("GATED", "x")
        alive.add(future)
        if reader == "keeper":
            concurrent.futures.wait([future], CEILING)
        assert future.result(CEILING) == "x"

    thread = threading.Thread(target=call)
    thread.start()
    assert eventually(lambda: len(service.runs) == 2)
    a_moment(0.1)  # until the caller reads, or the keeper does
    proxy.reset()
    service.gate.set()
    thread.join(CEILING)
    assert not thread.is_alive()
    del thread
    assert eventually(lambda: gc.collect() is not None and not alive, 2.0)
    up(client)  # it was not its end that let go


def test_invariant_14_an_error_belongs_to_one_call(fake: FakeServer, connect: Connect) -> None:
    client = connect(fake.port)
    connection = fake.accept()
    lost = [add(client, n, n) for n in range(3)]
    connection.requests(3)
    connection.send(close_frame_unmasked(1008))
    assert outcomes(lost) == [ConnectionLost] * 3
    closed = [add(client, n, n) for n in range(3)]
    client.close()
    assert outcomes(closed) == [ClientClosed] * 3
    # Shared, an error would gather the tracebacks of all who raise it, and with them their frames.
    assert len({id(future.exception()) for future in lost + closed}) == 6


def test_invariant_14_dispatching_while_disconnected_is_bounded(
    service: Service, proxy: FaultProxy, connect: Connect
) -> None:
    proxy.refuse()
    client = connect(proxy.port, max_pending=100)
    futures = [add(client, n, n) for n in range(100)]
    for _ in range(3):
        with pytest.raises(TooManyPending):
            add(client, 0, 0)
    assert futures.pop().cancel()
    futures.append(add(client, 99, 99))
    with pytest.raises(TooManyPending):
        add(client, 0, 0)
    proxy.heal()
    assert outcomes(futures) == [n + n for n in range(100)]
    up(client)


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
def test_invariant_15_a_jump_of_the_wall_clock_changes_no_timeout(
    service: Service, proxy: FaultProxy, connect: Connect, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    client = up(connect(proxy.port, timeout=0.25, attempts=2, ping_interval=60.0, connect_timeout=5.0))
    proxy.blackhole("down")
    events, passed = Events(client), Stopwatch()
    future, other = add(client, 1, 2), client.ping(timeout=0.4)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    monkeypatch.setattr(time, "time_ns", lambda: int((real() + jump) * 1e9))
    assert outcome(other) is RequestTimeout and 0.4 <= passed() < 0.4 + SLACK
    assert outcome(future) is RequestTimeout and 0.5 <= passed() < 0.5 + SLACK
    assert events.names() == []
    proxy.heal()
    proxy.reset()
    up(client)


def test_invariant_15_no_module_reads_the_wall_clock() -> None:
    """But those that tell others when the server, or a task, started, or share their records with other machines."""
    wall_clock = re.compile(r"\btime\.time(_ns)?\b|from time import .*\btime\b|datetime\.(now|utcnow|today)")
    modules = list((Path(__file__).parents[2] / "oompa").rglob("*.py"))
    readers = [module.name for module in modules if wall_clock.search(module.read_text())]
    assert modules and sorted(readers) == ["introspection.py", "opentelemetry.py", "sqlite.py"]
