"""What a client does in each of the faults of the reliability table, by number."""

import contextlib
import gc
import itertools
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import pytest
from faults import FaultProxy
from raw_peer import CLOSE, CONTINUATION, TEXT, frame

from oompa import Client, ClientClosed, ConnectionLost, ProtocolError, RemoteError, RequestTimeout
from oompa.server.resume import REPLIES

from .fake_server import FakeConnection, FakeServer, close_frame_unmasked, lives_on
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
    add_with_limit,
    client_threads,
    eventually,
    outcome,
    outcomes,
    up,
)


def test_scenario_01_server_absent_at_start(service: Service, proxy: FaultProxy, connect: Connect) -> None:
    proxy.refuse()
    client, counts = connect(proxy.port), Counts()
    events = Events(client)
    patient = [counts.watch(add(client, n, n)) for n in range(20)]
    hasty = [counts.watch(client.ping(timeout=0.2)) for _ in range(20)]
    assert outcomes(hasty) == [RequestTimeout] * 20
    events.wait("reconnect-failed", 3)
    assert not any(future.done() for future in patient)
    proxy.heal()
    assert outcomes(patient) == [n + n for n in range(20)]
    events.wait("reconnected")
    assert counts.all_once(patient + hasty)
    assert {type(error) for error in events.errors()} == {ConnectionLost}
    assert len(service.runs) == 20  # a call that timed out is never sent


@pytest.mark.parametrize("fault", ["reset"])
def test_scenario_02_reset_with_calls_in_flight(
    service: Service, proxy: FaultProxy, connect: Connect, fault: str
) -> None:
    lose_the_connection_with_calls_in_flight(service, proxy, connect, proxy.reset)


@pytest.mark.parametrize("fault", ["drop", "fin down", "fin up"])
def test_scenario_03_orderly_end_with_calls_in_flight(
    service: Service, proxy: FaultProxy, connect: Connect, fault: str
) -> None:
    faults = {"drop": proxy.drop, "fin down": lambda: proxy.fin("down"), "fin up": lambda: proxy.fin("up")}
    lose_the_connection_with_calls_in_flight(service, proxy, connect, faults[fault])


def lose_the_connection_with_calls_in_flight(
    service: Service, proxy: FaultProxy, connect: Connect, lose: Callable[[], None]
) -> None:
    """Let calls run and every reply vanish, then lose the connection: as many as the server keeps replies of."""
    client, counts = up(connect(proxy.port)), Counts()
    service.runs.clear()
    events = Events(client)
    before = proxy.received["down"]
    proxy.blackhole("down")
    futures = [counts.watch(add(client, n, n)) for n in range(REPLIES)]
    ids = {future.id for future in futures}
    vanishing = sum(len(framed_reply(future.id, n + n)) for n, future in enumerate(futures))
    assert proxy.wait_until(lambda p: p.received["down"] == before + vanishing)
    proxy.heal()
    lose()
    assert outcomes(futures) == [n + n for n in range(REPLIES)]
    assert counts.all_once(futures)
    assert service.ids() == {id: 1 for id in ids}
    events.wait("reconnected")
    assert (proxy.connections, events.names().count("host-closed")) == (2, 1)


def framed_reply(id: str, payload: Any) -> bytes:
    """Return the bytes of an OK as the server sends it."""
    text = json.dumps({"type": "OK", "id": id, "payload": payload}, separators=(",", ":"))
    return frame(TEXT, text.encode(), mask=None)


def test_scenario_04_blackhole_down_is_left_by_tolerance(
    service: Service, proxy: FaultProxy, connect: Connect
) -> None:
    recover_from_lost_replies(
        service, proxy, connect(proxy.port, connect_timeout=0.3, tolerance={"ratio": 0.05, "interval": 0.5})
    )


def test_scenario_04_blackhole_down_is_left_by_ping(service: Service, proxy: FaultProxy, connect: Connect) -> None:
    recover_from_lost_replies(service, proxy, connect(proxy.port, connect_timeout=0.3, ping_interval=0.25))


def recover_from_lost_replies(service: Service, proxy: FaultProxy, client: Client) -> None:
    """Lose replies for three timeouts; the client must leave the connection and find a new one."""
    up(client)
    events = Events(client)
    proxy.blackhole("down")
    for number in range(3):
        assert outcome(client.ping(timeout=0.2)) is RequestTimeout
    events.wait("host-closed")
    events.wait("reconnect-failed")  # the handshake's answer vanishes, too
    assert add_with_limit(client, 0.2) is RequestTimeout
    proxy.heal()
    events.wait("reconnected")
    up(client)
    assert proxy.connections >= 3


def test_scenario_04_late_replies_are_ignored(service: Service, proxy: FaultProxy, connect: Connect) -> None:
    client, counts = up(connect(proxy.port, timeout=0.2, attempts=1)), Counts()
    events = Events(client)
    proxy.stall("down")
    futures = [counts.watch(add(client, n, n)) for n in range(20)]
    assert outcomes(futures) == [RequestTimeout] * 20
    assert eventually(lambda: len(service.runs) == 21)
    before = proxy.forwarded["down"]
    proxy.heal()
    assert proxy.wait_until(lambda p: p.forwarded["down"] > before + 20 * 20)
    up(client)
    assert outcomes(futures) == [RequestTimeout] * 20
    assert counts.all_once(futures)
    assert (proxy.connections, events.names()) == (1, [])


def test_scenario_05_half_open_peer_is_detected(service: Service, proxy: FaultProxy, connect: Connect) -> None:
    client = up(connect(proxy.port, ping_interval=0.4, connect_timeout=0.5))
    events = Events(client)
    a_moment(1.0)
    assert events.names() == []  # pings keep a silent connection that works
    blackholed = time.monotonic()
    proxy.blackhole("both")
    pending = add(client, 3, 4)
    lost = events.wait("host-closed")
    assert lost - blackholed <= 2 * 0.4 + 0.5
    proxy.heal()
    assert pending.result(CEILING) == 7
    events.wait("reconnected")
    assert proxy.connections >= 2


def test_scenario_06_swallowed_reconnect_ends_by_connect_timeout(
    service: Service, proxy: FaultProxy, connect: Connect
) -> None:
    client = up(connect(proxy.port, connect_timeout=0.3))
    events, reset = Events(client), time.monotonic()
    proxy.swallow()
    proxy.reset()
    first, second = events.wait("reconnect-failed", 1), events.wait("reconnect-failed", 2)
    assert 0.3 <= first - reset < 0.3 + SLACK
    assert 0.6 <= second - reset < 0.6 + SLACK
    proxy.refuse()  # so that heal() does not connect the swallowed ones to a client
    proxy.heal()
    events.wait("reconnected")
    up(client)


def test_scenario_06_close_during_a_swallowed_reconnect(service: Service, proxy: FaultProxy, connect: Connect) -> None:
    client = up(connect(proxy.port, close_timeout=CLOSING))
    pending = client.dispatch("GATED")
    proxy.swallow()
    proxy.reset()
    assert proxy.wait_until(lambda p: p.connections == 2)
    passed = Stopwatch()
    client.close()
    assert passed() < CLOSING
    assert outcome(pending) is ClientClosed
    assert eventually(lambda: not client_threads(), 1.0)


def test_scenario_07_refused_for_a_while(service: Service, proxy: FaultProxy, connect: Connect) -> None:
    interval = 0.25
    client = up(connect(proxy.port, reconnect_interval=interval))
    events, began, busy = Events(client), time.monotonic(), time.process_time()
    proxy.refuse()
    proxy.reset()
    pending = [add(client, n, n) for n in range(10)]
    a_moment(1.3)
    proxy.heal()
    healed = time.monotonic()
    assert time.process_time() - busy < 0.2
    assert events.wait("reconnected") - healed <= interval + 0.5
    assert outcomes(pending) == [n + n for n in range(10)]
    attempts = events.names().count("reconnect-failed")
    assert 2 <= attempts <= (healed - began) / interval + 1


def test_scenario_08_truncated_replies_are_asked_for_again(
    service: Service, proxy: FaultProxy, connect: Connect
) -> None:
    client = up(connect(proxy.port, reconnect_interval=0.02))
    events, counts = Events(client), Counts()
    for after in range(1, 41):
        proxy.truncate("down", after)
        future = counts.watch(add(client, after, after))
        assert len(framed_reply(future.id, after + after)) > 40
        assert future.result(CEILING) == after + after
        assert service.ids()[future.id] == 1  # answered from what was kept
        assert counts.all_once([future])
        assert proxy.connections == after + 1
        events.wait("reconnected", after)  # its own reply is read before the next is cut
    assert {type(error) for error in events.errors()} == {ConnectionLost}
    assert {error.code for error in events.errors()} == {1006}  # type: ignore[attr-defined]


def test_scenario_08_reply_cut_off_behind_its_end_is_not_asked_for_again(
    service: Service, proxy: FaultProxy, connect: Connect
) -> None:
    client = up(connect(proxy.port))
    size = len(framed_reply(add(client, 1, 2).id, 3))
    up(client)
    proxy.truncate("down", size)
    future = add(client, 1, 2)
    assert len(framed_reply(future.id, 3)) == size
    assert future.result(CEILING) == 3
    up(client)
    assert service.ids()[future.id] == 1


@pytest.mark.parametrize("after", [1, 2, 5, 7, 8, 50, 1000])
def test_scenario_09_truncated_requests_are_sent_again(
    service: Service, proxy: FaultProxy, connect: Connect, after: int
) -> None:
    client = up(connect(proxy.port))
    service.runs.clear()
    proxy.truncate("up", after)
    future = client.dispatch("ECHO", "x" * 2000)
    assert future.result(CEILING) == "x" * 2000
    assert service.runs == [(future.id, "ECHO", "x" * 2000)]
    assert proxy.connections == 2


def test_scenario_10_chopped_to_single_bytes(service: Service, proxy: FaultProxy, connect: Connect) -> None:
    proxy.chop("both", 1)
    client = up(connect(proxy.port))
    texts = ["", "é", "\U0001f600" * 40, "x" * 130, {"a": [1, None, 2.5, "é"]}, "y" * 70_000]
    assert outcomes([client.dispatch("ECHO", text) for text in texts]) == texts
    assert outcomes([add(client, n, n) for n in range(100)]) == [n + n for n in range(100)]
    assert proxy.connections == 1


def test_scenario_11_latency_beyond_the_timeout(service: Service, proxy: FaultProxy, connect: Connect) -> None:
    timeout = 0.6
    client, counts = up(connect(proxy.port, timeout=timeout, attempts=3)), Counts()
    service.runs.clear()
    proxy.latency("down", 1.5 * timeout)
    events, passed, before = Events(client), Stopwatch(), proxy.forwarded["down"]
    future = counts.watch(client.dispatch("ORDINAL"))
    assert future.result(CEILING) == 1  # the first reply
    assert 1.5 * timeout <= passed() < 2 * timeout
    assert service.ids() == {future.id: 2}
    assert eventually(lambda: proxy.forwarded["down"] >= before + 2 * 40)  # the second reply arrives, too
    proxy.heal()
    up(client)
    assert future.result(0) == 1
    assert counts.all_once([future])
    assert service.ids()[future.id] == 2
    assert (proxy.connections, events.names()) == (1, [])


def test_scenario_12_throttled_payload_with_a_small_call_behind_it(
    service: Service, proxy: FaultProxy, connect: Connect
) -> None:
    client = up(connect(proxy.port, timeout=30.0, write_timeout=1.0))
    proxy.throttle("up", 700_000)
    passed = Stopwatch()
    big = client.dispatch("SIZE", "x" * (1 << 20))
    small = add(client, 1, 2)
    hasty = client.ping(timeout=0.3)
    assert passed() < SLACK
    assert outcome(hasty) is RequestTimeout  # its time runs from dispatch, though it was not sent yet
    assert 0.3 <= passed() < 0.3 + SLACK
    assert not big.done() and not small.done()
    assert outcomes([big, small]) == [1 << 20, 3]
    assert passed() > 1.0
    assert proxy.connections == 1  # slow is not still: no write timeout


def test_scenario_13_full_send_buffer_ends_in_a_write_timeout(
    service: Service, proxy: FaultProxy, connect: Connect
) -> None:
    client = up(connect(proxy.port, write_timeout=0.3, timeout=20.0))
    events = Events(client)
    proxy.stall("up")
    passed, stalled = Stopwatch(), time.monotonic()
    big = [client.dispatch("SIZE", "x" * 5_000_000) for _ in range(3)]
    small = [add(client, n, n) for n in range(50)]
    assert passed() < SLACK
    lost = events.wait("host-closed")
    assert 0.3 <= lost - stalled < 0.3 + 2 * SLACK
    assert events.errors() and "0.3" in str(events.errors()[0])
    proxy.heal()
    assert outcomes(small + big) == [n + n for n in range(50)] + [5_000_000] * 3
    assert eventually(lambda: not [t for t in client_threads() if t.name == "oompa-writer"])


def test_scenario_13_close_with_a_full_send_buffer(service: Service, proxy: FaultProxy, connect: Connect) -> None:
    client = up(connect(proxy.port, close_timeout=0.6))
    proxy.stall("up")
    futures = [client.dispatch("SIZE", "x" * 5_000_000) for _ in range(3)]
    waiting = [threading.Thread(target=outcome, args=(future,)) for future in futures]
    for thread in waiting:
        thread.start()
    passed = Stopwatch()
    client.close()
    assert passed() < 0.6 + 0.2
    assert outcomes(futures) == [ClientClosed] * 3
    for thread in waiting:
        thread.join(1.0)
        assert not thread.is_alive()
    assert eventually(lambda: not client_threads(), 1.0)


@pytest.mark.parametrize("offset", [0, 1], ids=["first byte", "length"])
def test_scenario_14_corrupt_frame_header_ends_the_connection(
    service: Service, proxy: FaultProxy, connect: Connect, offset: int
) -> None:
    client = up(connect(proxy.port, reconnect_interval=0.03))
    events = Events(client)
    proxy.corrupt("down", offset)
    began, future = time.monotonic(), add(client, 1, 2)
    with pytest.raises(ConnectionLost) as caught:
        future.result(CEILING)
    assert caught.value.code == 1002
    assert events.wait("reconnected") - began >= 0.3  # ten times the interval: it was told not to hurry
    up(client)
    assert proxy.connections == 2


def test_scenario_14_corrupt_long_length_ends_in_timeouts_and_a_new_connection(
    service: Service, proxy: FaultProxy, connect: Connect
) -> None:
    options = {"timeout": 0.2, "attempts": 2, "tolerance": {"ratio": 0.05, "interval": 0.6}}
    client = up(connect(proxy.port, **options))
    events = Events(client)
    proxy.corrupt("down", 2)  # the upper byte of a length of 16 bits: 65,000 bytes are missing
    assert outcome(client.dispatch("ECHO", "x" * 200)) is RequestTimeout
    events.wait("reconnected")
    assert client.call("ECHO", "x" * 200) == "x" * 200
    assert proxy.connections == 2


@pytest.mark.parametrize("offset", range(2, 36, 7))  # up to the id: further on it may be a good reply with another value
def test_scenario_14_corrupt_json_ends_the_call_whose_id_it_has_or_is_ignored_and_the_call_sent_again(
    service: Service, proxy: FaultProxy, connect: Connect, offset: int
) -> None:
    client, counts = up(connect(proxy.port, timeout=0.5, attempts=10)), Counts()
    service.runs.clear()
    proxy.corrupt("down", offset, flip=0x01)  # still UTF-8, perhaps still JSON, but not the reply
    future = counts.watch(add(client, 1, 2))
    error = future.exception(CEILING)
    if error is None:
        assert future.result() == 3 and service.ids()[future.id] >= 2
    else:
        assert isinstance(error, ProtocolError) and error.id == future.id and service.ids()[future.id] == 1
    assert counts.all_once([future])
    assert add(client, 3, 4).result(CEILING) == 7
    assert proxy.connections == 1


def test_scenario_14_corrupt_text_is_an_invalid_payload(service: Service, proxy: FaultProxy, connect: Connect) -> None:
    client = up(connect(proxy.port))
    proxy.corrupt("down", 5)  # no longer UTF-8
    with pytest.raises(ConnectionLost) as caught:
        add(client, 1, 2).result(CEILING)
    assert caught.value.code == 1007
    up(client)
    assert proxy.connections == 2


@pytest.mark.parametrize("offset", [0, 1])
def test_scenario_14_corrupt_request_header_is_refused_by_the_server(
    service: Service, proxy: FaultProxy, connect: Connect, offset: int
) -> None:
    client = up(connect(proxy.port))
    service.runs.clear()
    proxy.corrupt("up", offset)
    with pytest.raises(ConnectionLost) as caught:
        add(client, 1, 2).result(CEILING)
    assert caught.value.code == 1002
    assert service.runs == []
    up(client)


def test_scenario_15_duplicate_reply_is_ignored(service: Service, proxy: FaultProxy, connect: Connect) -> None:
    client, counts = up(connect(proxy.port)), Counts()
    events = Events(client)
    for number in range(10):
        before = proxy.forwarded["down"]
        proxy.duplicate("down")
        future = counts.watch(client.dispatch("ORDINAL"))
        assert future.result(CEILING) == number + 1
        assert proxy.wait_until(lambda p: p.forwarded["down"] >= before + 2 * 40)
        assert counts.all_once([future])
    up(client)
    assert (proxy.connections, events.names()) == (1, [])


def test_scenario_16_resets_during_fifty_handshakes(service: Service, proxy: FaultProxy, connect: Connect) -> None:
    client = up(connect(proxy.port, reconnect_interval=0.02))
    events = Events(client)
    proxy.truncate("down", 20, times=50, reset=True)
    proxy.drop()
    events.wait("reconnect-failed", 10)
    threads = len(client_threads())
    events.wait("reconnect-failed", 50)
    events.wait("reconnected")
    up(client)
    assert len(client_threads()) <= threads
    assert (proxy.connections, proxy.live) == (52, 1)
    assert events.names().count("reconnect-failed") == 50


def test_scenario_17_flapping_under_twenty_threads(service: Service, proxy: FaultProxy, connect: Connect) -> None:
    client, counts = up(connect(proxy.port, reconnect_interval=0.02, timeout=20.0)), Counts()
    stop, done = threading.Event(), []
    threads_before = len(client_threads())

    def call(seed: int) -> None:
        rng = random.Random(seed)
        while not stop.is_set():
            x, y = rng.randrange(1000), rng.randrange(1000)
            future = counts.watch(add(client, x, y))
            done.append((future, x + y, outcome(future)))

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(20)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        a_moment(0.05)
        proxy.reset()
    stop.set()
    for thread in threads:
        thread.join(CEILING)
        assert not thread.is_alive()
    assert len(done) > 20
    assert [result for _, _, result in done] == [expected for _, expected, _ in done]
    assert counts.all_once([future for future, _, _ in done])
    assert proxy.connections > 10
    assert eventually(lambda: len(client_threads()) <= threads_before + 1)  # the callback thread started meanwhile


ENDINGS: dict[str, Callable[[FakeConnection], None]] = {
    "none": lambda connection: connection.send(frame(CLOSE, b"", mask=None)),
    "FIN": FakeConnection.fin,
    "RST": FakeConnection.reset,
    **{str(code): lambda connection, code=code: connection.send(close_frame_unmasked(code))  # type: ignore[misc]
       for code in (1000, 1001, 1011, 1012, 1013, 3000, 4000)},
}
BLAMING = (1002, 1003, 1007, 1008, 1009)


@pytest.mark.parametrize("ending", ENDINGS)
def test_scenario_18_server_ends_and_the_pending_are_sent_again(
    fake: FakeServer, connect: Connect, ending: str
) -> None:
    client, counts = connect(fake.port), Counts()
    events, first = Events(client), fake.accept()
    futures = [counts.watch(add(client, n, n)) for n in range(10)]
    requests = first.requests(10)
    ended = time.monotonic()
    ENDINGS[ending](first)
    if ending.isdigit():
        assert first.closing() == int(ending)  # the client completes the closing handshake
    second = fake.accept()
    assert time.monotonic() - ended < QUICK["reconnect_interval"] + SLACK
    assert second.requests(10) == requests
    for request in requests:
        second.reply(request, "second")
    assert outcomes(futures) == ["second"] * 10
    assert counts.all_once(futures)
    events.wait("reconnected")
    assert [name for name in events.names() if name != "error"] == ["host-closed", "reconnected"]
    if ending != "1000":
        codes = [getattr(error, "code", None) for error in events.errors()]
        assert codes == [int(ending) if ending.isdigit() else 1005 if ending == "none" else 1006]


@pytest.mark.parametrize("code", BLAMING)
def test_scenario_18_server_blames_the_client_and_what_was_in_flight_fails(
    fake: FakeServer, connect: Connect, code: int
) -> None:
    client, counts = connect(fake.port, reconnect_interval=0.03), Counts()
    events, first = Events(client), fake.accept()
    futures = [counts.watch(add(client, n, n)) for n in range(10)]
    first.requests(10)
    blamed = time.monotonic()
    first.send(close_frame_unmasked(code))
    assert first.closing() == code
    assert outcomes(futures) == [ConnectionLost] * 10
    assert {future.exception().code for future in futures} == {code}
    later = counts.watch(add(client, 1, 2))
    second = fake.accept()
    assert time.monotonic() - blamed >= 0.3  # ten times the interval
    request = second.request()
    assert request is not None and request["id"] == later.id
    second.reply(request, 3)
    assert later.result(CEILING) == 3
    assert counts.all_once([*futures, later])
    assert [error.code for error in events.errors()] == [code]  # type: ignore[attr-defined]


REFUSING = (400, 401, 403, 404, 426)
PASSING = (408, 425, 429, 500, 502, 503)


@pytest.mark.parametrize("status", REFUSING)
def test_scenario_18_refused_handshake_fails_everything_pending(
    fake: FakeServer, connect: Connect, status: int
) -> None:
    client = connect(fake.port, reconnect_interval=0.03)
    events, futures = Events(client), [add(client, n, n) for n in range(10)]
    refused = time.monotonic()
    refuse_handshake(fake, status)
    assert outcomes(futures) == [ConnectionLost] * 10
    assert {future.exception().status for future in futures} == {status}
    events.wait("host-closed")
    assert outcome(add(client, 1, 2)) is ConnectionLost  # at once, while the refusal stands
    connection = fake.accept()
    assert time.monotonic() - refused >= 0.3  # ten times the interval
    assert eventually(lambda: client.is_connected)
    lives_on(client, connection)


@pytest.mark.parametrize("status", PASSING)
def test_scenario_18_passing_refusal_keeps_everything_pending(
    fake: FakeServer, connect: Connect, status: int
) -> None:
    client = connect(fake.port)
    futures = [add(client, n, n) for n in range(10)]
    refuse_handshake(fake, status)
    refused = time.monotonic()
    connection = fake.accept()
    assert time.monotonic() - refused < QUICK["reconnect_interval"] + SLACK
    for request in connection.requests(10):
        connection.reply(request, "answer")
    assert outcomes(futures) == ["answer"] * 10


def refuse_handshake(fake: FakeServer, status: int) -> None:
    connection = fake.accept_raw()
    connection.http_request()
    connection.send(f"HTTP/1.1 {status} No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno".encode())
    connection.fin()


def test_scenario_19_server_restarts_with_other_tasks(connect: Connect) -> None:
    old = Service(ping_interval=None, close_timeout=0.3)
    client = up(connect(old.port))
    gated, sum_ = client.dispatch("GATED"), None
    assert eventually(lambda: len(old.runs) == 2)
    closing = old.server.close(timeout=0.1)
    assert eventually(lambda: old.server.port is None)
    new = Service(old.port, without=("GATED",), ping_interval=None)
    try:
        sum_ = add(client, 1, 2)
        with pytest.raises(RemoteError) as caught:
            gated.result(CEILING)
        assert caught.value.error == 'Unknown request type: "GATED"'
        assert sum_.result(CEILING) == 3
        closing.result(CEILING)
        assert not old.gate.is_set()
    finally:
        client.close()
        old.close()
        new.close()


def test_scenario_20_close_with_two_hundred_calls_under_way(
    service: Service, proxy: FaultProxy, connect: Connect
) -> None:
    client, counts = up(connect(proxy.port, close_timeout=CLOSING)), Counts()
    proxy.latency("down", 300)
    futures = [counts.watch(add(client, n, n)) for n in range(200)]
    passed = Stopwatch()
    client.close()
    assert all(future.done() for future in futures)
    assert passed() < CLOSING + 0.2
    assert outcomes(futures) == [ClientClosed] * 200
    assert counts.all_once(futures)


def test_scenario_21_fork_with_calls_in_flight(service: Service, script: Start) -> None:
    running = script(
        """
client = Client(URL)
futures = [client.dispatch("GATED", n) for n in range(10)]
say("dispatched")
listen()
child = os.fork()
if child == 0:
    started = time.monotonic()
    kinds = set()
    for future in futures:
        try:
            future.result(5.0)
        except Exception as error:
            kinds.add(type(error).__name__)
    try:
        client.dispatch("GATED", "child")
    except ClientClosed:
        kinds.add("dispatch raises")
    futures[0].cancel()
    client.close()
    say("child", sorted(kinds), time.monotonic() - started < 1.0)
    sys.exit(0)
os.waitpid(child, 0)
say("forked")
say([future.result(10.0) for future in futures])
client.close()
""",
        service.port,
    )
    assert running.line() == "dispatched"
    assert eventually(lambda: len(service.runs) == 10)
    running.tell()
    assert running.line() == "child ['ClientClosed', 'dispatch raises'] True"
    assert running.line() == "forked"
    service.gate.set()
    assert running.line() == str(list(range(10)))
    assert running.finish() == (0, "", "")
    assert len(service.runs) == 10


def test_scenario_22_no_descriptor_during_a_reconnect(service: Service, proxy: FaultProxy, script: Start) -> None:
    running = script(
        """
client = Client(URL, reconnect_interval=0.05)
errors, back = [], threading.Event()
client.on("error", errors.append).on("reconnected", back.set)
client.call("ECHO", 1)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
say("limited")
assert eventually(lambda: len([e for e in errors if "open files" in str(e)]) >= 3)
busy = time.process_time()
threading.Event().wait(0.5)
say(time.process_time() - busy < 0.1, {type(error).__name__ for error in errors}, back.is_set())
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
say(back.wait(10.0), client.call("ECHO", "recovered"))
client.close()
""",
        proxy.port,
    )
    assert running.line() == "limited"
    proxy.reset()
    assert running.line() == "True {'ConnectionLost'} False"
    assert running.line() == "True recovered"
    assert running.finish() == (0, "", "")


@pytest.mark.oompa_leaves_open
@pytest.mark.parametrize("nth", [1, 2])
def test_scenario_23_no_thread_for_a_new_client(
    service: Service, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    fail_the_nth_thread(monkeypatch, nth)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        Client(f"ws://127.0.0.1:{service.port}")
    monkeypatch.undo()
    gc.collect()
    assert eventually(lambda: not client_threads(), 1.0)
    assert eventually(lambda: not service.server.connections, 1.0)


@pytest.mark.parametrize("nth", [1, 2])
def test_scenario_23_no_thread_at_start_and_another_try(
    service: Service, connect: Connect, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    client = connect(service.port, no_server=True)
    fail_the_nth_thread(monkeypatch, nth)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        client.start()
    monkeypatch.undo()
    client.start()
    up(client)
    assert len(client_threads()) == 2


def test_scenario_23_no_thread_for_callbacks(
    service: Service, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = up(connect(service.port))
    fail_the_nth_thread(monkeypatch, 1, only="oompa-callbacks")
    heard = [threading.Event(), threading.Event()]
    first = add(client, 1, 2)
    first.add_done_callback(lambda _: heard[0].set())
    assert first.result(CEILING) == 3
    monkeypatch.undo()
    add(client, 1, 2).add_done_callback(lambda _: heard[1].set())
    assert all(event.wait(CEILING) for event in heard)


def test_scenario_23_no_thread_for_a_slow_write(
    service: Service, proxy: FaultProxy, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = up(connect(proxy.port, write_timeout=0.3, timeout=0.5, attempts=1))
    fail_the_nth_thread(monkeypatch, 1, only="oompa-writer")
    proxy.stall("up")
    futures = [client.dispatch("SIZE", "x" * 8_000_000), add(client, 1, 2)]
    assert outcomes(futures) == [RequestTimeout] * 2
    monkeypatch.undo()
    proxy.heal()
    up(client)


def fail_the_nth_thread(monkeypatch: pytest.MonkeyPatch, nth: int, only: str = "oompa-") -> None:
    """Let the n-th start of a thread with such a name fail, and all after it."""
    real, count = threading.Thread.start, itertools.count(1)

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith(only) and thread.name not in ("oompa-watcher", "oompa-http") and next(count) >= nth:
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)


@pytest.mark.parametrize("state", ["connected", "disconnected", "another thread reads", "two wait"])
def test_scenario_24_sigint_interrupts_result(
    service: Service, proxy: FaultProxy, script: Start, state: str
) -> None:
    running = script(
        f"""
signal.signal(signal.SIGINT, signal.default_int_handler)
client = Client(URL, reconnect_interval=0.05)
client.call("ECHO", 1)
say("connected")
listen()
future = client.dispatch("GATED", 1)
if {state == "another thread reads"}:
    threading.Thread(target=client.dispatch("GATED", 2).exception).start()
    threading.Event().wait(0.1)
elif {state == "two wait"}:
    threading.Timer(0.1, client.dispatch("GATED", 2).exception).start()
say("waiting")
try:
    future.result()
except KeyboardInterrupt:
    say("interrupted", time.monotonic())
listen()
say(client.call("ECHO", "alive"), future.result(10.0))
client.close()
""",
        proxy.port,
    )
    assert running.line() == "connected"
    if state == "disconnected":
        proxy.refuse()
        proxy.reset()
    running.tell()
    assert running.line() == "waiting"
    a_moment(0.3)
    sent = time.monotonic()
    os.kill(running.pid, signal.SIGINT)
    word, at = running.line().split()
    assert word == "interrupted" and float(at) - sent < 0.5
    proxy.heal()
    service.gate.set()
    running.tell()
    assert running.line() == "alive 1"
    assert running.finish() == (0, "", "")


@pytest.mark.parametrize("declared", [2**62, 2**63 - 1, 64 << 20, (16 << 20) + 1])
def test_scenario_25_declared_length_beyond_the_limit(fake: FakeServer, connect: Connect, declared: int) -> None:
    client = connect(fake.port)
    connection = fake.accept()
    future = add(client, 1, 2)
    connection.requests(1)
    connection.send(bytes([0x81, 127]) + declared.to_bytes(8, "big") + b"x" * 1000)
    with pytest.raises(ConnectionLost) as caught:
        future.result(CEILING)
    assert caught.value.code == 1009
    assert connection.closing() == 1009
    assert connection.rest() == b""


def test_scenario_25_length_with_its_first_bit_set_is_a_protocol_error(fake: FakeServer, connect: Connect) -> None:
    client = connect(fake.port)
    connection = fake.accept()
    future = add(client, 1, 2)
    connection.requests(1)
    connection.send(b"\x81\x7f" + b"\xff" * 8)
    with pytest.raises(ConnectionLost) as caught:
        future.result(CEILING)
    assert caught.value.code in (1002, 1009)
    assert connection.closing() == caught.value.code


@pytest.mark.parametrize("fragments", [1, 64])
def test_scenario_25_reply_of_64_mib_is_never_held(fake: FakeServer, connect: Connect, fragments: int) -> None:
    client = connect(fake.port)
    connection = fake.accept()
    future = add(client, 1, 2)
    connection.requests(1)
    megabyte, before, sent = b"x" * (1 << 20), resident_bytes(), 0
    with contextlib.suppress(ConnectionError):
        for number in range(64):
            if number < fragments:
                opcode = TEXT if number == 0 else CONTINUATION
                size = (64 << 20) // fragments
                connection.send(frame(opcode, b"", fin=number == fragments - 1, mask=None, length=size))
            connection.send(megabyte)
            sent += len(megabyte)
    assert sent < 40 << 20
    assert resident_bytes() - before < 40 << 20
    with pytest.raises(ConnectionLost) as caught:
        future.result(CEILING)
    assert caught.value.code == 1009


def test_scenario_25_reply_at_the_limit_is_taken(fake: FakeServer, connect: Connect) -> None:
    client = connect(fake.port, max_message_size=100_000)
    connection = fake.accept()
    future = add(client, 1, 2)
    (request,) = connection.requests(1)
    empty = len(json.dumps({"type": "OK", "id": request["id"], "payload": ""}))
    connection.reply(request, "x" * (100_000 - empty))
    assert len(future.result(CEILING)) == 100_000 - empty
    lives_on(client, connection)
    too_long = add(client, 1, 2)
    (request,) = connection.requests(1)
    connection.reply(request, "x" * (100_000 - empty + 1))
    with pytest.raises(ConnectionLost) as caught:
        too_long.result(CEILING)
    assert caught.value.code == 1009


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_scenario_26_dripped_handshake_is_under_one_deadline(
    service: Service, proxy: FaultProxy, connect: Connect
) -> None:
    proxy.drip("down", 0.1)
    client = connect(proxy.port, connect_timeout=0.5)
    events, passed = Events(client), Stopwatch()
    pending = add(client, 1, 2)
    first = events.wait("host-closed")
    assert 0.4 <= passed() < 0.5 + SLACK
    assert events.wait("reconnect-failed") - first < 0.5 + SLACK
    assert {type(error) for error in events.errors()} == {ConnectionLost}
    proxy.heal()
    assert pending.result(CEILING) == 3


def test_scenario_26_endless_handshake_answer_is_refused(fake: FakeServer, connect: Connect) -> None:
    client = connect(fake.port)
    events, connection = Events(client), fake.accept_raw()
    connection.http_request()
    sent, before = 0, resident_bytes()
    connection.send(b"HTTP/1.1 101 Switching Protocols\r\n")
    with contextlib.suppress(ConnectionError):
        while sent < 64 << 20:
            connection.send(b"X-Padding: " + b"x" * 10_000 + b"\r\n")
            sent += 10_000
    assert sent < 40 << 20 and resident_bytes() - before < 40 << 20
    events.wait("host-closed")
    assert {type(error) for error in events.errors()} == {ConnectionLost}


def test_scenario_27_thousand_deep_chain_of_callbacks(service: Service, connect: Connect) -> None:
    client = up(connect(service.port))
    finished: Future[list[int]] = Future()
    depths: list[int] = []

    def depth() -> int:
        frame_, count = sys._getframe(), 0
        while frame_ := frame_.f_back:  # type: ignore[assignment]
            count += 1
        return count

    def go_on(future: Any) -> None:
        depths.append(depth())
        if len(depths) == 1000:
            finished.set_result([future.result()])
        else:
            add(client, len(depths), 1).add_done_callback(go_on)

    add(client, 0, 1).add_done_callback(go_on)
    assert finished.result(3 * CEILING) == [1000]
    assert max(depths) < 30


def test_scenario_28_cancelled_call_is_forgotten(fake: FakeServer, connect: Connect) -> None:
    client, counts = connect(fake.port, timeout=0.2, attempts=3), Counts()
    events, first = Events(client), fake.accept()
    future = counts.watch(add(client, 1, 2))
    (request,) = first.requests(1)
    assert future.cancel() and future.cancelled()
    assert future.cancel()
    first.reply(request, 3)
    first.text(json.dumps({"type": "ERR", "id": future.id, "error": "late"}))
    lives_on(client, first)
    assert first.is_silent(0.5)  # not sent again, though its timeouts have passed
    first.reset()
    second = fake.accept()
    assert second.is_silent()
    lives_on(client, second)
    assert outcome(future) is CancelledError
    assert counts.all_once([future])
    events.wait("reconnected")
    assert [name for name in events.names() if name != "error"] == ["host-closed", "reconnected"]


def test_scenario_28_cancelled_while_disconnected_is_never_sent(
    service: Service, proxy: FaultProxy, connect: Connect
) -> None:
    proxy.refuse()
    client = connect(proxy.port)
    futures = [add(client, n, n) for n in range(20)]
    assert all(future.cancel() for future in futures[::2])
    proxy.heal()
    assert outcomes(futures[1::2]) == [n + n for n in range(20)][1::2]
    assert outcomes(futures[::2]) == [CancelledError] * 10
    assert service.ids() == {future.id: 1 for future in futures[1::2]}
