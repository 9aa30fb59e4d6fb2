"""What is left after very many connections, calls and reconnects; runs with ``pytest --long`` and prints its figures."""

import contextlib
import ctypes
import gc
import os
import queue
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import CALCULATOR, open_descriptors, wait_until
from raw_peer import RawPeer, close_frame, frame, request_frame, upgrade

CONNECTIONS = 10_000
CALLS = 1_000_000
RECONNECTS = 1_000

#: MiB the process may have grown by.
GROWTH = 20.0

#: Seconds until threads and descriptors must be back.
SETTLING = 30.0

THREADS = 4
WINDOW = 250


pytestmark = pytest.mark.long


def resident():
    """MiB of memory this process has, without what the allocator merely keeps."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def active_threads():
    """How many threads there are, but for those that a server keeps for a while to use them again."""
    return sum(thread.name != "oompa-stand-in" for thread in threading.enumerate())


@pytest.fixture
def watch(capsys):
    """``with watch("reconnects", 1000):`` checks that what is inside leaves nothing, and prints its figures."""

    @contextlib.contextmanager
    def watching(what, count):
        memory, threads, descriptors = resident(), active_threads(), len(open_descriptors())
        started = time.monotonic()
        yield
        elapsed = time.monotonic() - started
        with contextlib.suppress(AssertionError):
            wait_until(lambda: active_threads() <= threads and len(open_descriptors()) <= descriptors, SETTLING)
        left = active_threads(), len(open_descriptors())
        growth = resident() - memory
        with capsys.disabled():
            print(
                f"\n{count} {what} in {elapsed:.1f} s: threads {threads} -> {left[0]}, "
                f"descriptors {descriptors} -> {left[1]}, memory {memory:.1f} {growth:+.1f} MiB"
            )
        assert left[0] <= threads and left[1] <= descriptors
        assert growth < GROWTH

    return watching


def vanish(port, number):
    """Connect, come so far as the number says, and vanish."""
    stage = number % 7
    if stage < 2:
        with RawPeer(port) as peer:
            if stage:
                peer.send(upgrade(port)[:40])
        return
    with RawPeer.websocket(port) as peer:
        if stage == 3:
            peer.send(request_frame("ECHO", "x" * 5000)[:-7])
        elif stage == 4:
            peer.send(request_frame("ECHO", number))
        elif stage == 5:
            assert peer.call("ECHO", number)["payload"] == number
            peer.send(close_frame(1000))
        elif stage == 6:
            peer.send(frame(3, struct.pack("!I", number)))
        if number % 2:
            peer.reset()


def test_connections_that_vanish_leave_nothing(serve, connect, watch):
    server = serve()
    client = connect(server)
    for number in range(200):
        vanish(server.port, number)
    assert client.call("ADD", {"x": 1, "y": 1}) == 2
    wait_until(lambda: len(server.connections) == 1)
    with watch("connections that vanished", CONNECTIONS):
        with ThreadPoolExecutor(THREADS) as threads:
            for _ in threads.map(lambda number: vanish(server.port, number), range(CONNECTIONS)):
                pass
        wait_until(lambda: len(server.connections) == 1, SETTLING)
        assert client.call("ADD", {"x": 1, "y": 1}) == 2


def test_calls_leave_nothing(serve, connect, watch):
    client = connect(serve(CALCULATOR), {"add": {"type": "ADD", "factory": lambda x, y: {"x": x, "y": y}}})

    def work(count):
        for start in range(0, count, WINDOW):
            calls = [client.add(start, number) for number in range(min(WINDOW, count - start))]
            for number, call in enumerate(calls):
                assert call.result(30.0) == start + number

    work(2 * WINDOW)
    with watch("calls", CALLS):
        with ThreadPoolExecutor(THREADS) as threads:
            for done in [threads.submit(work, CALLS // THREADS) for _ in range(THREADS)]:
                done.result()


def test_reconnects_leave_nothing(serve, connect, watch):
    server = serve()
    reconnected = queue.Queue()
    client = connect(server, reconnect_interval=0.001)
    client.on("reconnected", lambda: reconnected.put(None))

    def reconnect(count):
        for number in range(count):
            wait_until(lambda: any(connection.is_open for connection in server.connections))
            call = client.dispatch("ECHO", number)
            for connection in server.connections:
                connection.abort("for the test") if number % 2 else connection.close()
            assert call.result(30.0) == number
            reconnected.get(timeout=30.0)

    assert client.call("ADD", {"x": 1, "y": 1}) == 2
    reconnect(20)
    wait_until(lambda: not any(isinstance(thread, threading.Timer) for thread in threading.enumerate()))
    with watch("reconnects", RECONNECTS):
        reconnect(RECONNECTS)
        wait_until(lambda: len(server.connections) == 1, SETTLING)
    client.close()
