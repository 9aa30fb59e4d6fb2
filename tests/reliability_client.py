"""What must hold for a client, whatever the network and the server do.

Invariants and scenarios bear the numbers of the reliability table. A real server (`Service`) stands behind a fault
proxy; where the server itself must misbehave, a `FakeServer` speaks bytes; where the whole process matters (fork, exit,
signals, limits, memory), the client runs in a process of its own (`Script`). Every wait has a ceiling.

Durations are float seconds. `SLACK` is what a busy machine may add to a documented bound.
"""

import base64
import concurrent.futures
import contextlib
import gc
import hashlib
import itertools
import json
import logging
import os
import random
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import chaos_options
import pytest
from faults import FaultProxy
from raw_peer import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, frame, masked

from oompa import (
    Client,
    ClientClosed,
    ConnectionLost,
    OompaError,
    ProtocolError,
    RemoteError,
    RequestTimeout,
    Server,
    TaskError,
    TooManyPending,
)

pytestmark = pytest.mark.filterwarnings("error")

CEILING = 10.0  # seconds until a wait counts as failed
SLACK = 1.0  # seconds a loaded machine may add to a bound
CLOSING = 2.0  # seconds close() may take
MOMENT = 0.3  # seconds in which something that must never happen may try to

# Clients of these tests reconnect soon, ping never and judge no timeouts, unless told otherwise.
QUICK: dict[str, Any] = {"reconnect_interval": 0.05, "close_timeout": 0.1, "ping_interval": None, "tolerance": None}

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


# Waiting ----------------------------------------------------------------------


def eventually(condition: Callable[[], Any], timeout: float = CEILING) -> bool:
    """Wait until ``condition()`` is true; return whether it became so within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            return False
        pause.wait(0.005)
    return True


def a_moment(seconds: float = MOMENT) -> None:
    """Give what must not happen the time to happen."""
    threading.Event().wait(seconds)


def outcome(future: Future[Any]) -> Any:
    """Wait for a Future; return its result, or the class of its error."""
    try:
        return future.result(CEILING)
    except (OompaError, CancelledError) as error:
        return type(error)


def outcomes(futures: list[Any]) -> list[Any]:
    """Wait for all of them; return their results or the classes of their errors."""
    return [outcome(future) for future in futures]


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self) -> float:
        return time.monotonic() - self._began


class Events:
    """Records the events of a client as (name, arguments, instant)."""

    NAMES = ("error", "host-closed", "reconnect-failed", "reconnected")

    def __init__(self, client: Client) -> None:
        self.seen: list[tuple[str, tuple[Any, ...], float]] = []
        for name in self.NAMES:
            client.on(name, self._recorder(name))

    def _recorder(self, name: str) -> Callable[..., None]:
        return lambda *args: self.seen.append((name, args, time.monotonic()))

    def names(self) -> list[str]:
        return [name for name, _, _ in list(self.seen)]

    def errors(self) -> list[Exception]:
        return [args[0] for name, args, _ in list(self.seen) if name == "error"]

    def wait(self, name: str, count: int = 1, timeout: float = CEILING) -> float:
        """Wait until ``name`` came for the ``count``-th time; return the instant at which it did."""
        assert eventually(lambda: self.names().count(name) >= count, timeout), f"{name} is missing in {self.names()}"
        return [at for seen, _, at in self.seen if seen == name][count - 1]


class Counts:
    """How often each Future has called back."""

    def __init__(self) -> None:
        self._calls: Counter[str] = Counter()

    def watch(self, future: Any) -> Any:
        future.add_done_callback(lambda done: self._calls.update([done.id]))
        return future

    def all_once(self, futures: list[Any]) -> bool:
        """Wait until every Future has called back; return whether each did so once."""
        ids = [future.id for future in futures]
        return eventually(lambda: all(self._calls[id] for id in ids)) and {self._calls[id] for id in ids} == {1}


# Servers ----------------------------------------------------------------------


class Service:
    """The real server, with a log of what it ran.

    Attributes:
        runs: (id, task type, payload) of every run, in order.
        carriers: (id, connection) of every run: which connection brought it.
        connections: every connection there ever was.
        gate: what GATED waits for.
    """

    def __init__(self, port: int = 0, without: tuple[str, ...] = (), **options: Any) -> None:
        self.runs: list[tuple[str, str, Any]] = []
        self.carriers: list[tuple[str, Any]] = []
        self.connections: list[Any] = []
        self.gate = threading.Event()
        self._ordinals = itertools.count(1)
        tasks = {
            "ADD": lambda p: p["x"] + p["y"],
            "SIZE": len,
            "ECHO": lambda p: p,
            "FAIL": self._fail,
            "GATED": self._gated,
            "ORDINAL": lambda p: next(self._ordinals),
        }
        self.server = Server({name: task for name, task in tasks.items() if name not in without}, **options)
        self.server.use(self._log)
        self.server.on("connection", self.connections.append)
        self.server.listen(port).result(CEILING)
        self.port: int = self.server.port  # type: ignore[assignment]

    def ids(self) -> Counter[str]:
        """Count the runs of each request id."""
        return Counter(id for id, _, _ in list(self.runs))

    def close(self) -> None:
        self.gate.set()
        self.server.close(timeout=1.0).result(CEILING)

    def _log(self, request: Any, call_next: Any) -> Any:
        self.runs.append((request.id, request.type, request.payload))
        self.carriers.append((request.id, request.connection))
        return call_next(request)

    def _gated(self, payload: Any) -> Any:
        assert self.gate.wait(CEILING)
        return payload

    @staticmethod
    def _fail(payload: Any) -> Any:
        raise TaskError(payload)


class FakeConnection:
    """The server's end of one connection, driven by the test: exactly the bytes it is told to send."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = bytearray()
        sock.settimeout(CEILING)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handshake(self) -> None:
        """Accept the upgrade."""
        self.sock.sendall(self.handshake_answer())

    def handshake_answer(self) -> bytes:
        """Read the upgrade request; return the answer that accepts it."""
        key = re.search(rb"(?i)sec-websocket-key: *([^\r]+)", self.http_request())
        assert key is not None
        accept = base64.b64encode(hashlib.sha1(key[1] + _GUID).digest())
        return (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )

    def http_request(self) -> bytes:
        """Read the head of an HTTP request."""
        while b"\r\n\r\n" not in self.received:
            assert self._more(), "the client left within its handshake"
        head, _, rest = bytes(self.received).partition(b"\r\n\r\n")
        self.received[:] = rest
        return head

    def frame(self) -> Frame | None:
        """Read one frame, which must be masked and legal; None at the end of the stream."""
        while (parsed := self._parse()) is None:
            if not self._more():
                assert not self.received, f"the stream ends within a frame: {bytes(self.received[:80])!r}"
                return None
        return parsed

    def request(self) -> dict[str, Any] | None:
        """Read the next request, answering pings before it; None when the client leaves instead."""
        while (got := self.frame()) is not None and got.opcode in (PING, PONG):
            if got.opcode == PING:
                self.send(frame(PONG, got.payload, mask=None))
        if got is None or got.opcode == CLOSE:
            return None
        assert got.opcode == TEXT and got.fin, got
        message = json.loads(got.payload.decode())
        assert isinstance(message, dict)
        return message

    def requests(self, count: int) -> list[dict[str, Any]]:
        """Read so many requests."""
        found = [self.request() for _ in range(count)]
        assert None not in found, f"the client left after {found}"
        return found  # type: ignore[return-value]

    def closing(self) -> int | None:
        """Read up to the client's close frame and return its code; None if the stream ends without one."""
        while (got := self.frame()) is not None:
            if got.opcode == CLOSE:
                return got.close_code
        return None

    def reply(self, request: dict[str, Any], payload: Any) -> None:
        """Answer a request with OK."""
        self.text(json.dumps({"type": "OK", "id": request["id"], "payload": payload}))

    def text(self, text: str) -> None:
        """Send a text message."""
        self.send(frame(TEXT, text.encode(), mask=None))

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.sock.sendall(data)

    def rest(self) -> bytes:
        """Read to the end, FIN or RST, and return every byte not taken before."""
        while self._more():
            pass
        return bytes(self.received)

    def is_silent(self, seconds: float = MOMENT) -> bool:
        """Tell whether nothing arrives for a while, not even an end."""
        return not self.received and not select.select([self.sock], [], [], seconds)[0]

    def fin(self) -> None:
        """End the stream towards the client, without a close frame."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End the connection with an RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _more(self) -> bool:
        try:
            data = self.sock.recv(1 << 18)
        except ConnectionError:
            return False
        self.received += data
        return bool(data)

    def _parse(self) -> Frame | None:
        got = self.received
        if len(got) < 2:
            return None
        assert not got[0] & 0x70, f"reserved bits: {bytes(got[:80])!r}"
        assert got[0] & 0x0F in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG), f"no frame: {bytes(got[:80])!r}"
        assert got[1] & 0x80, f"a client must mask: {bytes(got[:80])!r}"
        extra = {126: 2, 127: 8}.get(got[1] & 0x7F, 0)
        start = 2 + extra + 4
        size = int.from_bytes(got[2 : 2 + extra], "big") if extra else got[1] & 0x7F
        if len(got) < start or len(got) < start + size:
            return None
        payload = masked(bytes(got[start : start + size]), bytes(got[start - 4 : start]))
        parsed = Frame(got[0] & 0x0F, payload, bool(got[0] & 0x80))
        del got[: start + size]
        return parsed


class FakeServer:
    """Listens on 127.0.0.1; the test accepts and plays the server by hand."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(CEILING)
        self.port = self._listener.getsockname()[1]
        self._connections: list[FakeConnection] = []

    def accept_raw(self) -> FakeConnection:
        """Wait for the next connection and leave its handshake to the test."""
        connection = FakeConnection(self._listener.accept()[0])
        self._connections.append(connection)
        return connection

    def accept(self) -> FakeConnection:
        """Wait for the next connection and shake hands."""
        connection = self.accept_raw()
        connection.handshake()
        return connection

    def is_left_alone(self, seconds: float = MOMENT) -> bool:
        """Tell whether nobody connects for a while."""
        return not select.select([self._listener], [], [], seconds)[0]

    def close(self) -> None:
        self._listener.close()
        for connection in self._connections:
            connection.sock.close()


class Script:
    """A client in a process of its own.

    The code finds ``URL`` and what `PRELUDE` imports; ``say(...)`` reaches `line`, `tell` ends its ``listen()``.
    """

    PRELUDE = """
import gc, os, resource, signal, socket, sys, threading, time
from oompa import *
URL = sys.argv[1]
def say(*words): print(*words, flush=True)
def listen(): return sys.stdin.readline().strip()
def descriptors(): return len(os.listdir("/proc/self/fd"))
def eventually(condition, timeout=10.0):
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline: return False
        threading.Event().wait(0.005)
    return True
"""

    def __init__(self, code: str, port: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", self.PRELUDE + code, f"ws://127.0.0.1:{port}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "PYTHONWARNINGS": "default"},
        )
        self.pid = self._process.pid

    def line(self, timeout: float = CEILING) -> str:
        """Return the next line the script says."""
        assert self._process.stdout is not None
        ready = select.select([self._process.stdout], [], [], timeout)[0]
        text = self._process.stdout.readline() if ready else ""
        assert text, f"the script says nothing more: {self.finish(kill=True)}"
        return text.strip()

    def tell(self, word: str = "") -> None:
        """End the script's ``listen()``."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def finish(self, kill: bool = False) -> tuple[int, str, str]:
        """Wait for the end; return the exit status and what was printed to stdout and stderr meanwhile."""
        if kill:
            self._process.kill()
        out, err = self._process.communicate(timeout=CEILING)
        return self._process.returncode, out, err

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


def client_threads() -> set[threading.Thread]:
    """Return the threads that clients of this test have started, by the names they give them."""
    names = ("oompa-keeper", "oompa-timer", "oompa-callbacks", "oompa-writer")
    return {thread for thread in threading.enumerate() if thread.name in names} - _strays


_strays: set[threading.Thread] = set()  # what an earlier test left behind: its fault, not that of the next


# Fixtures ---------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def older_objects_are_spared() -> Iterator[None]:
    """Let collections look at these tests' objects only: they are many, and what pytest holds is large."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nothing_is_logged_as_an_error(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test in which client or server log an error: faults of the network are warnings at most."""
    caplog.set_level(logging.WARNING, "oompa")
    _strays.update(client_threads())
    yield
    assert serious(caplog) == []


def serious(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the errors that were logged so far."""
    return [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR]


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service(ping_interval=None)
    yield service
    service.close()


@pytest.fixture
def proxy(service: Service) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", service.port) as proxy:
        yield proxy


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    server = FakeServer()
    yield server
    server.close()


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    """Make clients as `QUICK` says, unless told otherwise; close them after the test."""
    clients: list[Client] = []

    def make(port: int, **options: Any) -> Client:
        clients.append(Client(f"ws://127.0.0.1:{port}", **{**QUICK, **options}))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def script() -> Iterator[Callable[..., Script]]:
    scripts: list[Script] = []

    def start(code: str, port: int) -> Script:
        scripts.append(Script(code, port))
        return scripts[-1]

    yield start
    for running in scripts:
        running.close()


Connect = Callable[..., Client]
Start = Callable[..., Script]


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Let threads take turns a hundred times as often, so that races are met."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(interval / 100)
    yield
    sys.setswitchinterval(interval)


def add(client: Client, x: int, y: int) -> Any:
    return client.dispatch("ADD", {"x": x, "y": y})


def up(client: Client) -> Client:
    """Wait until the client is connected and has been answered."""
    assert add(client, 1, 2).result(CEILING) == 3
    return client


# Invariants -------------------------------------------------------------------


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


def lives_on(client: Client, connection: FakeConnection) -> None:
    """Make a call on the connection that is there."""
    future = add(client, 3, 4)
    request = connection.request()
    assert request == {"type": "ADD", "payload": {"x": 3, "y": 4}, "id": future.id}
    connection.reply(request, 7)
    assert future.result(CEILING) == 7


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
child = os.fork()
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
    assert time.monotonic() - said < 1.0 + SLACK / 2


def test_invariant_13_exit_by_an_exception_keeps_its_traceback_and_status(service: Service, script: Start) -> None:
    running = script("client = Client(URL); client.call('ECHO', 1); raise ValueError('mine')", service.port)
    status, out, err = running.finish()
    assert (status, out) == (1, "")
    assert err.startswith("Traceback") and err.strip().endswith("ValueError: mine")
    assert err.count("\n") < 10


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
    wall_clock = re.compile(r"\btime\.time(_ns)?\b|from time import .*\btime\b|datetime\.(now|utcnow|today)")
    modules = list((Path(__file__).parent.parent / "oompa").glob("*.py"))
    assert modules and not [module.name for module in modules if wall_clock.search(module.read_text())]


def close_frame_unmasked(code: int) -> bytes:
    return frame(CLOSE, struct.pack("!H", code), mask=None)


# Scenarios --------------------------------------------------------------------


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
    """Let 100 calls run and every reply vanish, then lose the connection."""
    client, counts = up(connect(proxy.port)), Counts()
    service.runs.clear()
    events = Events(client)
    before = proxy.received["down"]
    proxy.blackhole("down")
    futures = [counts.watch(add(client, n, n)) for n in range(100)]
    ids = {future.id for future in futures}
    vanishing = sum(len(framed_reply(future.id, n + n)) for n, future in enumerate(futures))
    assert proxy.wait_until(lambda p: p.received["down"] == before + vanishing)
    proxy.heal()
    lose()
    assert outcomes(futures) == [n + n for n in range(100)]
    assert counts.all_once(futures)
    assert service.ids() == {id: 2 for id in ids}
    assert sorted(payload["x"] for _, _, payload in service.runs[100:]) == list(range(100))
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


def add_with_limit(client: Client, timeout: float) -> Any:
    try:
        return client.call("ADD", {"x": 1, "y": 2}, timeout=timeout)
    except OompaError as error:
        return type(error)


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
        assert service.ids()[future.id] == 2
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
def test_scenario_14_corrupt_json_is_ignored_and_the_call_sent_again(
    service: Service, proxy: FaultProxy, connect: Connect, offset: int
) -> None:
    client, counts = up(connect(proxy.port, timeout=0.5, attempts=10)), Counts()
    service.runs.clear()
    proxy.corrupt("down", offset, flip=0x01)  # still UTF-8, perhaps still JSON, but not the reply
    future = counts.watch(add(client, 1, 2))
    assert future.result(CEILING) == 3
    assert counts.all_once([future])
    assert service.ids()[future.id] >= 2
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
    later = add(client, 1, 2)
    connection = fake.accept()
    assert time.monotonic() - refused >= 0.3  # ten times the interval
    request = connection.request()
    assert request is not None and request["id"] == later.id
    connection.reply(request, 3)
    assert later.result(CEILING) == 3


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


# The randomised run -----------------------------------------------------------


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "chaos_seed" in metafunc.fixturenames:
        seeds = metafunc.config.getoption("--chaos-seed", None) or chaos_options.SEEDS
        metafunc.parametrize("chaos_seed", seeds)


class Chaos:
    """Faults at random, under threads that call at random, from one seed.

    Attributes:
        calls: (Future, the right sum) of every call.
    """

    def __init__(self, seed: int, client: Client, proxy: FaultProxy) -> None:
        self.calls: list[tuple[Any, int]] = []
        self.refused = 0
        self.counts = Counts()
        self._rng = random.Random(seed)
        self._client = client
        self._proxy = proxy
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        seeds = [self._rng.getrandbits(64) for _ in range(8)]
        self._threads = [threading.Thread(target=self._call, args=(random.Random(each),)) for each in seeds]

    def run(self, seconds: float) -> None:
        """Let the threads call and the faults come for so long; heal the network."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.start()
        while time.monotonic() < deadline:
            self._fault()
            a_moment(self._rng.uniform(0.02, 0.2))
        self._proxy.heal()
        self._stop.set()
        for thread in self._threads:
            thread.join(CEILING)
            assert not thread.is_alive()
        assert self._failures == []

    def _fault(self) -> None:
        proxy, rng = self._proxy, self._rng
        way = rng.choice(["up", "down", "both"])
        rng.choice(
            [
                proxy.heal,
                proxy.heal,
                proxy.reset,
                proxy.drop,
                proxy.refuse,
                proxy.swallow,
                lambda: proxy.fin(way),
                lambda: proxy.latency(way, rng.uniform(0.0, 0.6)),
                lambda: proxy.blackhole(way),
                lambda: proxy.stall(way),
                lambda: proxy.throttle(way, rng.uniform(1e3, 1e6)),
                lambda: proxy.chop(way, rng.randrange(1, 20)),
                lambda: proxy.drip(way, rng.uniform(0.0001, 0.01)),
                lambda: proxy.duplicate(way),
                lambda: proxy.corrupt(way, rng.randrange(200)),
                lambda: proxy.truncate(way, rng.randrange(400), times=rng.randrange(1, 4), reset=rng.random() < 0.5),
            ]
        )()

    def _call(self, rng: random.Random) -> None:
        try:
            while not self._stop.is_set():
                self._call_once(rng)
        except BaseException as error:
            self._failures.append(error)

    def _call_once(self, rng: random.Random) -> None:
        x, y = rng.randrange(10**6), rng.randrange(10**6)
        padding = "x" * rng.choice([0, 0, 0, 100, 5_000, 100_000])
        try:
            future = self._client.dispatch("ADD", {"x": x, "y": y, "padding": padding})
        except TooManyPending:
            self.refused += 1
            self._stop.wait(0.05)
            return
        self.calls.append((self.counts.watch(future), x + y))
        kind = rng.random()
        if kind < 0.1:
            future.cancel()
        elif kind < 0.5:
            with contextlib.suppress(OompaError, CancelledError, concurrent.futures.TimeoutError):
                future.result(rng.uniform(0.0, 1.0))
        else:
            self._stop.wait(rng.uniform(0.0, 0.02))


CHAOS = {
    "reconnect_interval": 0.03,
    "timeout": 0.4,
    "attempts": 3,
    "connect_timeout": 0.3,
    "ping_interval": 0.3,
    "write_timeout": 0.4,
    "close_timeout": CLOSING,
    "tolerance": {"ratio": 0.2, "interval": 0.5},
    "max_pending": 500,
}


def test_chaos(
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
    service: Service,
    proxy: FaultProxy,
    connect: Connect,
    chaos_seed: int,
) -> None:
    seconds = request.config.getoption("--chaos-seconds", None) or chaos_options.SECONDS
    print(f"chaos: --chaos-seed={chaos_seed} --chaos-seconds={seconds}")
    client = connect(proxy.port, **CHAOS)
    chaos = Chaos(chaos_seed, client, proxy)
    chaos.run(seconds)
    passed = Stopwatch()
    results = [outcome(future) for future, _ in chaos.calls]
    assert passed() <= CHAOS["timeout"] * CHAOS["attempts"] + SLACK  # type: ignore[operator]

    kinds = Counter(r.__name__ if isinstance(r, type) else "OK" for r in results)
    print(f"chaos: {dict(kinds)}, {chaos.refused} refused, {proxy.connections} connections")

    # 1: every Future settled, once, and an OK is the right sum.
    allowed = (RequestTimeout, ConnectionLost, CancelledError)
    wrong = [(r, s) for r, (_, s) in zip(results, chaos.calls) if r != s and r not in allowed]
    assert wrong == []
    assert chaos.counts.all_once([future for future, _ in chaos.calls])

    # 4: the client lives on.
    assert eventually(lambda: add_with_limit(client, 1.0) == 3)

    # 3: one id, one payload; nothing that has settled is sent again on a new connection.
    payloads: dict[str, Any] = {}
    for id, task, payload in list(service.runs):
        assert payloads.setdefault(id, (task, payload)) == (task, payload)
    assert {id for id, (task, _) in payloads.items() if task == "ADD" and "padding" in payloads[id][1]} <= {
        future.id for future, _ in chaos.calls
    }
    older = set(service.connections)
    proxy.reset()
    fresh = [add(client, n, n) for n in range(20)]
    assert all(r in (n + n, RequestTimeout) for n, r in enumerate(outcomes(fresh)))
    assert eventually(lambda: add_with_limit(client, 5.0) == 3)
    newer = {id for id, connection in service.carriers if connection not in older}
    assert newer and not newer & {future.id for future, _ in chaos.calls}

    # 1 again: closing settles the rest.
    last = [chaos.counts.watch(add(client, n, n)) for n in range(20)]
    stopwatch = Stopwatch()
    client.close()
    assert stopwatch() < CLOSING + 0.2
    assert all(future.done() for future in last)
    assert all(r in (ClientClosed, n + n) for n, r in enumerate(outcomes(last)))
    assert chaos.counts.all_once(last)

    # 6: no thread of the client is left; descriptors are counted when everything is closed.
    assert eventually(lambda: not client_threads(), 1.0)

    # 14: no call is kept.
    alive = weakref.WeakSet([*last, *fresh, *(future for future, _ in chaos.calls)])
    last.clear()
    fresh.clear()
    chaos.calls.clear()
    assert serious(caplog) == []
    caplog.clear()  # its records hold errors, and those the frames they were raised in
    assert eventually(lambda: gc.collect() is not None and not alive, 2.0)
