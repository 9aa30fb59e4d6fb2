"""Hostile peers over raw sockets, at the real server: embedded, and under gunicorn with threads.

Every attack is sent in pieces of random sizes. While it is held and after it, an old connection, a new one and
GET /health must each answer within two seconds, and afterwards threads, descriptors and memory of the server process
are back where they were. The seed of the pieces is printed with a failure; OOMPA_SEED sets it.
"""

import contextlib
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from brisk import LIMIT
from ports import reserved_port
from raw_peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    RawPeer,
    Response,
    close_frame,
    frame,
    health,
    request_frame,
    upgrade,
)

ROOT = Path(__file__).parents[2]
SEED = os.environ.get("OOMPA_SEED") or str(random.randrange(1_000_000))

ANSWER_LIMIT = 2.0
"""Seconds the others may wait for their answers while someone attacks."""
RETURN_LIMIT = 6.0
"""Seconds until what an attack used is given back: the closing handshake may take two of them."""
FLOOD_LIMIT = 30.0
"""Seconds in which a flood is read; that is work, for which a busy machine takes its time."""
START_LIMIT = 20.0
THREADS = 64
"""Threads of the embedded server while it is made ready."""
POOL = 4
"""Threads of gunicorn's pool."""

NEED_CONFIGURATION = {"test_silent_and_slow_handshakes_hold_up_nobody", "test_peers_that_stay_after_a_refusal_hold_up_nobody"}
"""What the HTTP of gunicorn does not stand: a slow request holds a thread of its pool, and so does one refused."""

MIB = 1 << 20
MESSAGE_LIMIT = 16 * MIB
RESIDENT_SLACK = 48 * MIB
"""Bytes by which the memory of a server may differ before and after; allocators keep some for later."""
NOTHING_KEPT = {"MALLOC_MMAP_THRESHOLD_": str(MIB >> 3), "MALLOC_TRIM_THRESHOLD_": str(MIB >> 3)}
"""Tells glibc to give large blocks back at once: else each arena keeps up to twice the largest block there ever was."""

PROTOCOL_ERROR, INVALID_DATA, MESSAGE_TOO_BIG, NORMAL_CLOSURE = 1002, 1007, 1009, 1000

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="counting what another process holds needs Linux's /proc"
)


class Holdings(NamedTuple):
    """What a process holds: threads, descriptors, and bytes of resident memory."""

    threads: int
    descriptors: int
    resident: int

    def exceed(self, before: "Holdings") -> bool:
        """Tell whether this is more than there was before."""
        return (
            self.threads > before.threads
            or self.descriptors > before.descriptors
            or self.resident > before.resident + RESIDENT_SLACK
        )


class Service:
    """A calculator in a process of its own.

    Attributes:
        kind: "embedded", "gunicorn" with our configuration, or "bare", gunicorn without.
        port: where it listens on 127.0.0.1; chosen by who starts it.
        pid: the process that serves; under gunicorn that is the worker.
        old: a connection that is there before every attack.
    """

    def __init__(self, kind: str, port: int, log: Path) -> None:
        self.kind = kind
        self.port = port
        self._log = log
        command = commands(port)[kind]
        with log.open("wb") as output:
            environment = {**os.environ, **NOTHING_KEPT}
            self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            eventually(self._is_up, START_LIMIT, f"{command} does not serve")
            self.pid = next(iter(children(self._process.pid)), self._process.pid)
            self._warm_up()
            self.old = RawPeer.websocket(port)
        except BaseException:
            self._end()
            raise

    def close(self) -> None:
        """End the process, which must have lived all the time and let no exception out of a thread."""
        self.old.close()
        alive = self._process.poll() is None and self.pid in {self._process.pid, *children(self._process.pid)}
        self._end()
        log = self.log()
        shown = log[-20_000:]
        assert alive, shown
        assert "Exception in thread" not in log, shown
        assert "Traceback" not in log.replace(") raised\nTraceback", ""), shown  # of tasks that are meant to

    def log(self) -> str:
        """Return what the process printed."""
        return self._log.read_text(errors="replace")

    def holds(self) -> Holdings:
        """Count what the process holds now."""
        threads = len(os.listdir(f"/proc/{self.pid}/task"))
        descriptors = len(os.listdir(f"/proc/{self.pid}/fd"))
        return Holdings(threads, descriptors, self._memory("VmRSS"))

    @contextlib.contextmanager
    def grows_less_than(self, limit: int) -> Iterator[None]:
        """Hold the process to a peak of so many bytes above where it is now."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # makes the peak start from here
        before = self._memory("VmRSS")
        yield
        grown = self._memory("VmHWM") - before
        assert grown < limit, f"the server grew by {grown / MIB:.0f} MiB"

    def assert_answers(self) -> None:
        """The old connection, a new one and the healthcheck answer in time."""
        expected = {"type": "OK", "id": "call", "payload": 7}
        assert self.old.call("ADD", {"x": 1, "y": 6}, ANSWER_LIMIT) == expected
        started = time.monotonic()
        with RawPeer.websocket(self.port) as new:
            assert new.call("ADD", {"x": 1, "y": 6}, ANSWER_LIMIT) == expected
            new.send(close_frame(NORMAL_CLOSURE))
            assert new.ending(ANSWER_LIMIT).close_code == NORMAL_CLOSURE
        assert time.monotonic() - started < ANSWER_LIMIT
        started = time.monotonic()
        assert health(self.port, ANSWER_LIMIT) == (200, b"ok")
        assert time.monotonic() - started < ANSWER_LIMIT

    def _is_up(self) -> bool:
        assert self._process.poll() is None, self.log()[-20_000:]
        try:
            return health(self.port) == (200, b"ok")
        except OSError:
            return False

    def _warm_up(self) -> None:
        """Make the process start whatever it keeps: every thread of a pool, caches, code loaded late."""
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(RawPeer(self.port)) for _ in range(THREADS)]
            wanted = THREADS if self.kind == "embedded" else 1
            eventually(lambda: self.holds().threads >= wanted, RETURN_LIMIT, "the server has fewer threads than peers")
            for peer in peers:
                peer.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            for peer in peers:  # all at once: a pool starts a thread only when the others are busy
                assert peer.response().status == 200
                peer.close()
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(RawPeer.websocket(self.port)) for _ in range(THREADS // 2)]
            for peer in peers:
                for number in range(3):
                    peer.send(request_frame("SLEEP", {"seconds": 0.1}, number))
            for peer in peers:
                assert sorted(peer.reply()["id"] for _ in range(3)) == [0, 1, 2]
        with RawPeer.websocket(self.port) as peer:
            peer.call("ECHO", "x" * (MESSAGE_LIMIT - 100))
            peer.send(frame(TEXT, b"x" * MESSAGE_LIMIT))
            peer.reply()
        before = self.holds()
        eventually(lambda: not self.holds().exceed(before), RETURN_LIMIT, "the server does not settle")

    def _memory(self, name: str) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split(name + ":")[1].split()[0]) * 1024

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(START_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(START_LIMIT)


class Attack:
    """One attack on a service: its peers, and the random sizes of the pieces it sends."""

    def __init__(self, service: Service, rng: random.Random) -> None:
        self.service = service
        self.rng = rng
        self._peers: list[RawPeer] = []

    def connect(self) -> RawPeer:
        """Open a TCP connection and say nothing."""
        self._peers.append(RawPeer(self.service.port))
        return self._peers[-1]

    def websocket(self, *, receive_buffer: int | None = None) -> RawPeer:
        """Open a WebSocket."""
        self._peers.append(RawPeer.websocket(self.service.port, receive_buffer=receive_buffer))
        return self._peers[-1]

    def send(self, peer: RawPeer, data: bytes) -> bool:
        """Send bytes in pieces of random sizes; False when the server ended the connection first."""
        return peer.send_chopped(data, self.rng)

    def fills_up(self, peer: RawPeer, data: bytes, *, times: int, stall: float) -> None:
        """Send bytes so many times without reading an answer, or until the server reads no more for so long.

        It may end the connection, but not before a write could have stood still for as long as it may.
        """
        started = time.monotonic()
        with contextlib.suppress(TimeoutError):
            for _ in range(times):
                if not peer.send(data, reading=False, timeout=stall):
                    assert time.monotonic() - started >= LIMIT, "the server gave up too soon"
                    return

    def fails(self, data: bytes, *codes: int) -> None:
        """Send bytes on a WebSocket of their own, which the server must then end with one of the close codes."""
        peer = self.websocket()
        self.send(peer, data)
        assert peer.ending().close_code in codes

    def handshake(self, data: bytes) -> Response:
        """Send a handshake that fails, and leave with the answer."""
        with self.connect() as peer:
            self.send(peer, data)
            return peer.response()

    def request(self, peer: RawPeer, text: str | bytes, opcode: int = TEXT, timeout: float = RETURN_LIMIT) -> Any:
        """Send one message and return the reply."""
        self.send(peer, frame(opcode, text.encode() if isinstance(text, str) else text))
        return peer.reply(timeout)

    def close(self) -> None:
        """Leave without a word."""
        for peer in self._peers:
            peer.close()


def eventually(question: Callable[[], bool], timeout: float, why: str) -> None:
    """Ask again and again until the answer is yes."""
    deadline = time.monotonic() + timeout
    never = threading.Event()
    while not question():
        assert time.monotonic() < deadline, why
        never.wait(0.02)


def children(pid: int) -> list[int]:
    """Return the processes whose parent is this one."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == pid:
                found.append(int(stat.parent.name))
    return found


def commands(port: int) -> dict[str, list[str]]:
    """How each kind of server is started."""
    options = f"--threads {POOL} --graceful-timeout 6 -b 127.0.0.1:{port} tests.server.brisk:server"
    bare = [sys.executable, "-m", "gunicorn", *options.split()]
    return {
        "embedded": [sys.executable, "-m", "tests.server.brisk", str(port)],
        "gunicorn": [*bare, "-c", "python:oompa.gunicorn"],
        "bare": bare,
    }


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """gunicorn without our configuration serves WebSockets by the same code: a part of the suite shows it, with --long all."""
    if "service" in metafunc.fixturenames:
        is_part = metafunc.cls is TestDepartures or metafunc.config.getoption("--long")
        is_bare = is_part and metafunc.function.__name__ not in NEED_CONFIGURATION
        kinds = ["embedded", "gunicorn", *["bare"] * is_bare]
        metafunc.parametrize("service", kinds, indirect=True, scope="module")


@pytest.fixture(scope="module")
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with reserved_port() as port:
        service = Service(request.param, port, tmp_path_factory.mktemp(request.param) / "log")
        try:
            yield service
        finally:
            service.close()


@pytest.fixture
def attack(service: Service, request: pytest.FixtureRequest) -> Iterator[Attack]:
    """Attack, and see that nobody else is harmed: while it is held, and when it is over."""
    print(f"OOMPA_SEED={SEED}")
    before = service.holds()
    attack = Attack(service, random.Random(f"{SEED}/{request.node.name}"))
    try:
        yield attack
        service.assert_answers()
    finally:
        attack.close()
    service.assert_answers()
    try:
        eventually(lambda: not service.holds().exceed(before), RETURN_LIMIT, "not all is given back")
    except AssertionError:
        pytest.fail(f"before {before}, after {service.holds()}")


def edited(find: str, replacement: str) -> Callable[[int], bytes]:
    """Make a handshake from a good one by a replacement."""
    def make(port: int) -> bytes:
        good = upgrade(port)
        bad = good.replace(find.encode(), replacement.encode("latin-1"))
        assert bad != good
        return bad
    return make


MALFORMED_HANDSHAKES = {
    "missing_key": lambda port: upgrade(port, without="Sec-WebSocket-Key"),
    "empty_key": lambda port: upgrade(port, without="Sec-WebSocket-Key", extra="Sec-WebSocket-Key: \r\n"),
    "short_key": lambda port: upgrade(port, without="Sec-WebSocket-Key", extra="Sec-WebSocket-Key: c2hvcnQ=\r\n"),
    "long_key": lambda port: upgrade(port, without="Sec-WebSocket-Key", extra=f"Sec-WebSocket-Key: {'QUJD' * 20}\r\n"),
    "key_not_base64": lambda port: upgrade(
        port, without="Sec-WebSocket-Key", extra="Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!==\r\n"
    ),
    "key_not_ascii": lambda port: upgrade(
        port, without="Sec-WebSocket-Key", extra="Sec-WebSocket-Key: \xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9==\r\n"
    ),
    "doubled_key": lambda port: upgrade(port, extra="Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n"),
    "wrong_version": edited("Version: 13", "Version: 8"),
    "absurd_version": edited("Version: 13", "Version: thirteen"),
    "missing_version": lambda port: upgrade(port, without="Sec-WebSocket-Version"),
    "doubled_version": lambda port: upgrade(port, extra="Sec-WebSocket-Version: 8\r\n"),
    "http_1_0": edited("HTTP/1.1", "HTTP/1.0"),
    "post": edited("GET /", "POST /"),
    "other_path": edited("GET / ", "GET /nowhere/at/all "),
    "one_header_of_100_kib": lambda port: upgrade(port, extra=f"X-Long: {'x' * 100 * 1024}\r\n"),
    "500_headers": lambda port: upgrade(port, extra="".join(f"X-Many-{n}: {n}\r\n" for n in range(500))),
    "cookie_of_1_mib": lambda port: upgrade(port, extra=f"Cookie: {'a=b; ' * (MIB // 5)}\r\n"),
    "path_of_100_kib": edited("GET /", f"GET /{'x' * 100 * 1024}"),
}


class TestHandshakes:
    """What a peer may do before it is a WebSocket."""

    @pytest.mark.parametrize("name", MALFORMED_HANDSHAKES)
    def test_a_malformed_handshake_gets_4xx(self, attack: Attack, name: str) -> None:
        response = attack.handshake(MALFORMED_HANDSHAKES[name](attack.service.port))
        assert 400 <= response.status < 500

    def test_a_wrong_version_is_told_the_right_one(self, attack: Attack) -> None:
        """:rfc:`6455#section-4.4`."""
        response = attack.handshake(MALFORMED_HANDSHAKES["wrong_version"](attack.service.port))
        assert response.status == 426
        assert response.headers["sec-websocket-version"] == "13"

    @pytest.mark.parametrize(
        "handshake",
        [
            lambda port: upgrade(port, without="Connection"),
            lambda port: upgrade(port, without="Upgrade"),
            edited("Upgrade: websocket", "Upgrade: h2c"),
            edited("Connection: Upgrade", "Connection: close"),
        ],
        ids=["missing_connection", "missing_upgrade", "other_upgrade", "connection_close"],
    )
    def test_a_request_that_asks_for_no_upgrade_is_plain_http(
        self, attack: Attack, handshake: Callable[[int], bytes]
    ) -> None:
        status = attack.handshake(handshake(attack.service.port)).status
        assert status == 200 or 400 <= status < 500

    @pytest.mark.parametrize("name", ["missing_key", "http_1_0"])
    def test_peers_that_stay_after_a_refusal_hold_up_nobody(self, attack: Attack, name: str) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                peer = stack.enter_context(attack.connect())
                attack.send(peer, MALFORMED_HANDSHAKES[name](attack.service.port))
                assert 400 <= peer.response().status < 500
            attack.service.assert_answers()

    @pytest.mark.parametrize(
        "junk",
        [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), b"\r\n" * 300, b"\0" * 70_000, b"GET\r\n\r\n"],
        ids=["tls_hello", "empty_lines", "nulls", "half_a_request_line"],
    )
    def test_junk_instead_of_http_gets_4xx_or_an_end(self, attack: Attack, junk: bytes) -> None:
        peer = attack.connect()
        attack.send(peer, junk)
        peer.half_close()
        with contextlib.suppress(EOFError):
            assert 400 <= peer.response().status < 500

    def test_silent_and_slow_handshakes_hold_up_nobody(self, attack: Attack) -> None:
        """The embedded server ends them when their time is over, which is longer under gunicorn."""
        silent = [attack.connect() for _ in range(10)]
        slow = [attack.connect() for _ in range(5)]
        drops = iter(upgrade(attack.service.port, extra="X-Slow: " + "x" * 500))
        deadline = time.monotonic() + LIMIT + RETURN_LIMIT
        self.drip(slow, drops)
        attack.service.assert_answers()
        if attack.service.kind == "gunicorn":
            return
        while not all(peer.ended for peer in slow):
            assert time.monotonic() < deadline, "a slow handshake outlives its limit"
            self.drip(slow, drops)
        assert all(peer.ends(deadline - time.monotonic()) for peer in silent), "a silent peer outlives its limit"

    @staticmethod
    def drip(peers: list[RawPeer], drops: Iterator[int]) -> None:
        """Send each peer's next byte, half a second a round."""
        for peer in peers:
            if not peer.ended:
                peer.send(bytes([next(drops)]))
                peer.ends(timeout=0.5 / len(peers))

    def test_http_behind_the_upgrade_is_not_answered(self, attack: Attack) -> None:
        peer = attack.connect()
        request = upgrade(attack.service.port)
        attack.send(peer, request + b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        peer.half_close()
        with contextlib.suppress(EOFError):
            peer.upgraded(request)
        assert peer.ending().messages == []

    def test_http_in_the_websocket_is_a_protocol_error(self, attack: Attack) -> None:
        attack.fails(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", PROTOCOL_ERROR)

    def test_http_behind_the_closing_handshake_is_not_answered(self, attack: Attack) -> None:
        peer = attack.websocket()
        attack.send(peer, close_frame(NORMAL_CLOSURE) + b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
        assert peer.ending().close_code == NORMAL_CLOSURE


REQUEST = json.dumps({"type": "ADD", "payload": {"x": 1, "y": 6}, "id": 1}).encode()
REPLY = {"type": "OK", "id": 1, "payload": 7}

BAD_UTF8 = {
    "continuation_byte": b"\x80",
    "overlong": b"\xc0\xaf",
    "surrogate": b"\xed\xa0\x80",
    "beyond_unicode": b"\xf4\x90\x80\x80",
    "five_bytes": b"\xf8\x88\x80\x80\x80",
    "cut_short": b"\xf0\x9f\x98",
    "latin_1": "caf\xe9!".encode("latin-1"),
    "byte_ff": b"\xff",
}


class TestFrames:
    """What RFC 6455 forbids, and what it allows but nobody should do."""

    @pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE])
    def test_unmasked_frame(self, attack: Attack, opcode: int) -> None:
        attack.fails(frame(opcode, b"\x03\xe8" if opcode == CLOSE else REQUEST, mask=None), PROTOCOL_ERROR)

    @pytest.mark.parametrize("opcode", [TEXT, PING])
    @pytest.mark.parametrize("rsv", range(1, 8))
    def test_reserved_bits(self, attack: Attack, rsv: int, opcode: int) -> None:
        attack.fails(frame(opcode, REQUEST, rsv=rsv), PROTOCOL_ERROR)

    @pytest.mark.parametrize("opcode", [*range(0x3, 0x8), *range(0xB, 0x10)])
    def test_reserved_opcode(self, attack: Attack, opcode: int) -> None:
        attack.fails(frame(opcode, REQUEST), PROTOCOL_ERROR)

    def test_a_request_before_the_fault_may_be_answered(self, attack: Attack) -> None:
        peer = attack.websocket()
        attack.send(peer, frame(TEXT, REQUEST) + frame(0x3))
        ending = peer.ending()
        assert [json.loads(message) for message in ending.messages] in ([], [REPLY])
        assert ending.close_code == PROTOCOL_ERROR

    @pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
    def test_fragmented_control_frame(self, attack: Attack, opcode: int) -> None:
        attack.fails(frame(opcode, fin=False) + frame(CONTINUATION), PROTOCOL_ERROR)

    @pytest.mark.parametrize("size", [126, 70_000])
    @pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
    def test_oversize_control_frame(self, attack: Attack, opcode: int, size: int) -> None:
        attack.fails(frame(opcode, b"\x03\xe8" + b"x" * (size - 2)), PROTOCOL_ERROR)

    @pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
    def test_control_frame_beyond_the_limit_of_messages(self, attack: Attack, opcode: int) -> None:
        attack.fails(frame(opcode, bytes(MESSAGE_LIMIT + 1)), PROTOCOL_ERROR, MESSAGE_TOO_BIG)

    def test_continuation_of_nothing(self, attack: Attack) -> None:
        attack.fails(frame(CONTINUATION, REQUEST), PROTOCOL_ERROR)

    def test_continuation_after_the_end(self, attack: Attack) -> None:
        peer = attack.websocket()
        attack.send(peer, frame(TEXT, REQUEST[:9], fin=False) + frame(CONTINUATION, REQUEST[9:]))
        assert peer.reply() == REPLY
        attack.send(peer, frame(CONTINUATION, b"more"))
        assert peer.ending().close_code == PROTOCOL_ERROR

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_message_inside_a_message(self, attack: Attack, opcode: int) -> None:
        attack.fails(frame(TEXT, b"[", fin=False) + frame(opcode, b"]"), PROTOCOL_ERROR)

    @pytest.mark.parametrize("name", BAD_UTF8)
    def test_bad_utf8_in_a_text_frame(self, attack: Attack, name: str) -> None:
        attack.fails(frame(TEXT, b'{"type": "' + BAD_UTF8[name] + b'"}'), INVALID_DATA)

    @pytest.mark.parametrize("name", BAD_UTF8)
    def test_bad_utf8_at_the_end_of_a_text_frame(self, attack: Attack, name: str) -> None:
        attack.fails(frame(TEXT, b"word" + BAD_UTF8[name]), INVALID_DATA)

    @pytest.mark.parametrize("name", BAD_UTF8)
    def test_bad_utf8_in_fragments(self, attack: Attack, name: str) -> None:
        bad = BAD_UTF8[name]
        middle = b"".join(frame(CONTINUATION, bad[n:n + 1], fin=False) for n in range(len(bad)))
        attack.fails(frame(TEXT, b'"', fin=False) + middle + frame(CONTINUATION, b'"'), INVALID_DATA)

    @pytest.mark.parametrize("name", BAD_UTF8)
    def test_bad_utf8_in_the_reason_of_a_close(self, attack: Attack, name: str) -> None:
        attack.fails(close_frame(NORMAL_CLOSURE, b"because " + BAD_UTF8[name]), INVALID_DATA)

    @pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
    def test_bad_close_code(self, attack: Attack, code: int) -> None:
        attack.fails(close_frame(code), PROTOCOL_ERROR)

    def test_close_code_of_one_byte(self, attack: Attack) -> None:
        attack.fails(frame(CLOSE, b"\x03"), PROTOCOL_ERROR)

    @pytest.mark.parametrize("code", [1000, 1001, 1003, 1011, 3000, 4999])
    def test_good_close_code_is_echoed(self, attack: Attack, code: int) -> None:
        attack.fails(close_frame(code, "dzi\u0119ki".encode()), code)

    def test_close_without_a_code_is_echoed(self, attack: Attack) -> None:
        peer = attack.websocket()
        attack.send(peer, frame(CLOSE))
        answer = peer.message()
        assert answer is not None and answer.opcode == CLOSE
        assert answer.close_code in (None, NORMAL_CLOSURE)
        assert peer.ends()

    def test_frames_after_a_close_frame_are_not_answered(self, attack: Attack) -> None:
        peer = attack.websocket()
        attack.send(peer, close_frame(NORMAL_CLOSURE) + frame(TEXT, REQUEST) * 10 + frame(PING, b"there?"))
        ending = peer.ending()
        assert ending.messages == []
        assert ending.close_code == NORMAL_CLOSURE

    def test_declared_length_of_2_to_the_63_minus_1(self, attack: Attack) -> None:
        with attack.service.grows_less_than(32 * MIB):
            attack.fails(frame(TEXT, b"x" * 1000, length=2**63 - 1), MESSAGE_TOO_BIG)

    @pytest.mark.parametrize("length", [2**63, 2**64 - 1])
    def test_declared_length_with_the_top_bit_set(self, attack: Attack, length: int) -> None:
        """:rfc:`6455#section-5.2` forbids the bit; that such a message is too big is no lie either."""
        with attack.service.grows_less_than(32 * MIB):
            attack.fails(frame(BINARY, b"x" * 1000, length=length), PROTOCOL_ERROR, MESSAGE_TOO_BIG)

    @pytest.mark.parametrize("size, length_bytes", [(5, 2), (125, 8), (60_000, 8)])
    def test_declared_length_in_more_bytes_than_needed(self, attack: Attack, size: int, length_bytes: int) -> None:
        attack.fails(frame(TEXT, b"x" * size, length_bytes=length_bytes), PROTOCOL_ERROR)

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_message_of_64_mib(self, attack: Attack, opcode: int) -> None:
        with attack.service.grows_less_than(48 * MIB):
            attack.fails(frame(opcode, bytes(64 * MIB)), MESSAGE_TOO_BIG)

    def test_message_of_64_mib_in_fragments(self, attack: Attack) -> None:
        part = b"x" * (MIB - 7)
        data = frame(TEXT, part, fin=False) + frame(CONTINUATION, part, fin=False) * 63 + frame(CONTINUATION, part)
        with attack.service.grows_less_than(128 * MIB):
            attack.fails(data, MESSAGE_TOO_BIG)

    def test_message_one_byte_beyond_the_limit(self, attack: Attack) -> None:
        attack.fails(frame(TEXT, b'"' + b"x" * (MESSAGE_LIMIT - 1) + b'"'), MESSAGE_TOO_BIG)

    def test_message_at_the_limit_is_read(self, attack: Attack) -> None:
        peer = attack.websocket()
        text = b'"' + b"x" * (MESSAGE_LIMIT - 2) + b'"'
        reply = attack.request(peer, text)
        assert (reply["type"], reply["id"]) == ("ERR", None)

    def test_100_000_tiny_fragments(self, attack: Attack) -> None:
        """A server may also find them too many."""
        payload = "x" * 99_950
        text = json.dumps({"type": "ECHO", "payload": payload, "id": 1}).encode()
        parts = [frame(CONTINUATION, text[n:n + 1], fin=False) for n in range(1, len(text) - 1)]
        peer = attack.websocket()
        attack.send(peer, b"".join([frame(TEXT, text[:1], fin=False), *parts]))
        attack.service.assert_answers()
        attack.send(peer, frame(CONTINUATION, text[-1:]))
        got = peer.message(FLOOD_LIMIT)
        assert got is not None
        if got.opcode == CLOSE:
            assert got.close_code == MESSAGE_TOO_BIG
        else:
            assert json.loads(got.payload) == {"type": "OK", "id": 1, "payload": payload}

    def test_100_000_empty_fragments_and_no_end(self, attack: Attack) -> None:
        peer = attack.websocket()
        with attack.service.grows_less_than(32 * MIB):
            attack.send(peer, frame(TEXT, b"", fin=False) + frame(CONTINUATION, b"", fin=False) * 100_000)
            attack.service.assert_answers()
            peer.half_close()
            assert peer.ends(FLOOD_LIMIT)

    def test_ping_flood(self, attack: Attack) -> None:
        peer = attack.websocket()
        pings = [frame(PING, f"{n:>125}".encode()) for n in range(20_000)]
        attack.send(peer, b"".join(pings))
        attack.service.assert_answers()
        assert peer.call("ADD", {"x": 1, "y": 6}, timeout=FLOOD_LIMIT)["payload"] == 7

    def test_ping_flood_of_a_peer_that_never_reads(self, attack: Attack) -> None:
        peer = attack.websocket(receive_buffer=4096)
        flood = frame(PING, b"p" * 125) * 10_000
        with attack.service.grows_less_than(64 * MIB):
            attack.fills_up(peer, flood, times=8, stall=0.5)
            attack.service.assert_answers()

    def test_pong_flood(self, attack: Attack) -> None:
        peer = attack.websocket()
        attack.send(peer, frame(PONG, b"nobody asked") * 20_000)
        assert peer.call("ADD", {"x": 1, "y": 6}, timeout=FLOOD_LIMIT)["payload"] == 7


class TestDepartures:
    """Peers that leave as they should not, or stay as they should not."""

    BEGINNINGS = {
        "nothing": b"",
        "half_a_frame": frame(TEXT, REQUEST)[:20],
        "half_a_message": frame(TEXT, REQUEST[:9], fin=False),
        "a_request": frame(TEXT, REQUEST),
        "a_slow_request": request_frame("SLEEP", {"seconds": 0.3}),
    }

    @pytest.mark.parametrize("beginning", BEGINNINGS)
    def test_half_close(self, attack: Attack, beginning: str) -> None:
        peer = attack.websocket()
        attack.send(peer, self.BEGINNINGS[beginning])
        peer.half_close()
        assert all(json.loads(message)["type"] == "OK" for message in peer.ending().messages)

    def test_half_close_in_the_handshake(self, attack: Attack) -> None:
        peer = attack.connect()
        attack.send(peer, upgrade(attack.service.port)[:60])
        peer.half_close()
        assert peer.ends()

    @pytest.mark.parametrize("beginning", BEGINNINGS)
    def test_reset(self, attack: Attack, beginning: str) -> None:
        peer = attack.websocket()
        attack.send(peer, self.BEGINNINGS[beginning])
        peer.reset()

    def test_reset_in_the_middle_of_a_handshake(self, attack: Attack) -> None:
        peer = attack.connect()
        attack.send(peer, upgrade(attack.service.port)[:60])
        peer.reset()

    def test_reset_in_the_middle_of_a_reply(self, attack: Attack) -> None:
        peer = attack.websocket(receive_buffer=4096)
        with contextlib.suppress(TimeoutError):
            for _ in range(10):
                peer.send(request_frame("ECHO", "x" * MIB), reading=False, timeout=0.5)
        peer.reset()

    def test_a_peer_that_never_reads_is_ended(self, attack: Attack) -> None:
        """The server reads no further than it can hold; a write that makes no progress for so long is the end."""
        before = attack.service.holds()
        peer = attack.websocket(receive_buffer=4096)
        request = request_frame("ECHO", "x" * MIB)
        with attack.service.grows_less_than(160 * MIB):
            attack.fills_up(peer, request, times=400, stall=1.0)
            attack.service.assert_answers()
        eventually(
            lambda: attack.service.holds().descriptors <= before.descriptors,
            LIMIT + RETURN_LIMIT,
            "a peer that never reads is kept",
        )

    def test_a_peer_that_never_finishes_the_closing_handshake_is_ended(self, attack: Attack) -> None:
        peer = attack.websocket()
        attack.send(peer, frame(0x3))
        answer = peer.message()
        assert answer is not None and answer.close_code == PROTOCOL_ERROR
        assert peer.ends(ANSWER_LIMIT + RETURN_LIMIT)

    def test_a_peer_vanishes_300_times_over(self, attack: Attack) -> None:
        handshake = upgrade(attack.service.port)
        for _ in range(300):
            if attack.rng.random() < 0.3:
                peer = attack.connect()
                peer.send(handshake[:attack.rng.randrange(len(handshake) + 1)])
            else:
                peer = attack.websocket()
                peer.send(self.BEGINNINGS[attack.rng.choice(list(self.BEGINNINGS))])
            if attack.rng.random() < 0.5:
                peer.reset()
            else:
                peer.close()


def nested(depth: int) -> str:
    """Return the text of an array in an array in an array."""
    return "[" * depth + "]" * depth


def request_text(**members: str) -> str:
    """Return the text of a request, some of its members replaced by any text."""
    members = {"type": '"ECHO"', "payload": "null", "id": "1"} | members
    return "{" + ", ".join(f'"{key}": {text}' for key, text in members.items()) + "}"


class TestMessages:
    """Whole messages that are no requests, or unkind ones. The connection lives on after each."""

    @pytest.fixture
    def peer(self, attack: Attack) -> Iterator[RawPeer]:
        peer = attack.websocket()
        yield peer
        assert peer.call("ADD", {"x": 1, "y": 6})["payload"] == 7

    def refused(self, attack: Attack, peer: RawPeer, text: str | bytes, *ids: Any, opcode: int = TEXT) -> str:
        """Send a message, hold the reply against ERR with one of the ids, and return the error."""
        reply = attack.request(peer, text, opcode)
        assert set(reply) == {"type", "id", "error", "details"} and set(reply["details"]) == {"code"}
        assert reply["type"] == "ERR"
        assert any(reply["id"] == one and type(reply["id"]) is type(one) for one in ids), reply["id"]
        assert isinstance(reply["error"], str) and reply["error"]
        error: str = reply["error"]
        return error

    def test_binary_frame_that_holds_json(self, attack: Attack, peer: RawPeer) -> None:
        assert attack.request(peer, REQUEST, BINARY) == REPLY

    @pytest.mark.parametrize("junk", [b"\xff\xfe\x00", b"\x80", b"", bytes(1000), "\ufeff{}".encode("utf-16")])
    def test_binary_frame_that_does_not(self, attack: Attack, peer: RawPeer, junk: bytes) -> None:
        self.refused(attack, peer, junk, None, opcode=BINARY)

    @pytest.mark.parametrize(
        "text", ["", " ", "hello", "{", "{]", '{"type": "ADD"', "{'type': 'ADD'}", '{"type": "ADD"} {}', "\x00", "[1,]"]
    )
    def test_text_that_is_not_json(self, attack: Attack, peer: RawPeer, text: str) -> None:
        self.refused(attack, peer, text, None)

    @pytest.mark.parametrize("text", ["null", "true", "0", "-1.5", '"ADD"', "[]", '[{"type": "ADD"}]', "{}"])
    def test_json_that_is_no_request(self, attack: Attack, peer: RawPeer, text: str) -> None:
        attack.send(peer, frame(TEXT, text.encode()))
        reply = peer.reply()
        assert reply["type"] == "ERR"
        assert reply.get("id") is None

    @pytest.mark.parametrize("place", ["payload", "id", "type", "whole"])
    def test_nested_json(self, attack: Attack, peer: RawPeer, place: str) -> None:
        for depth in [100, 480, 900, 980, 995, 1000, 1500, 5000, 100_000]:
            text = nested(depth) if place == "whole" else request_text(**{place: nested(depth)})
            attack.send(peer, frame(TEXT, text.encode()))
            got = peer.message()
            # A deep reply would be too much for the test's own parser, so only its beginning is looked at.
            assert got is not None and re.match(rb'{"type": ?"(OK|ERR)"', got.payload), (depth, got)

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
    def test_numbers_that_are_none(self, attack: Attack, peer: RawPeer, number: str) -> None:
        self.refused(attack, peer, request_text(payload=f'{{"n": {number}}}'), 1, None)
        self.refused(attack, peer, request_text(id=f'{{"n": {number}}}'), None)

    @pytest.mark.parametrize("surrogate", ["\\ud800", "\\udfff", "\\udc00\\ud800"])
    def test_lone_surrogates(self, attack: Attack, peer: RawPeer, surrogate: str) -> None:
        quoted = f'"{surrogate}"'
        self.refused(attack, peer, request_text(payload=quoted), 1, None)
        self.refused(attack, peer, request_text(payload=f"{{{quoted}: 0}}"), 1, None)
        self.refused(attack, peer, request_text(id=quoted), None)
        self.refused(attack, peer, request_text(type=quoted), 1, None)

    def test_integers_of_100_000_digits(self, attack: Attack, peer: RawPeer) -> None:
        digits = "7" * 100_000
        for text in [
            request_text(payload=digits),
            request_text(id=digits),
            request_text(type=digits),
            request_text(type='"MUL"', payload=f'{{"x": {digits}, "y": {digits}}}'),
            digits,
        ]:
            assert attack.request(peer, text)["type"] == "ERR"

    def test_a_product_too_long_to_print(self, attack: Attack, peer: RawPeer) -> None:
        digits = "7" * 4000
        self.refused(attack, peer, request_text(type='"MUL"', payload=f'{{"x": {digits}, "y": {digits}}}'), 1)

    @pytest.mark.parametrize(
        "request_id",
        [0, -1, 1.5, 10**30, "", "x", "\u2028\U0001f600", True, False, None, [], [1, [2]], {}, {"a": {"b": 1}}],
        ids=json.dumps,
    )
    def test_ids_of_every_json_type_are_echoed(self, attack: Attack, peer: RawPeer, request_id: Any) -> None:
        for task_type, kind in [("ADD", "OK"), ("MEOW", "ERR"), ("DIV", "ERR"), ("$OOMPA/PING", "OK")]:
            text = json.dumps({"type": task_type, "payload": {"x": 1, "y": 0}, "id": request_id})
            reply = attack.request(peer, text)
            assert reply["type"] == kind
            assert json.dumps(reply["id"]) == json.dumps(request_id)

    def test_a_request_without_an_id_gets_a_reply_without_one(self, attack: Attack, peer: RawPeer) -> None:
        assert attack.request(peer, '{"type": "ADD", "payload": {"x": 1, "y": 6}}') == {"type": "OK", "payload": 7}

    def test_an_id_of_1_mb_is_echoed(self, attack: Attack, peer: RawPeer) -> None:
        request_id = "i" * 1_000_000
        reply = attack.request(peer, json.dumps({"type": "MEOW", "id": request_id}))
        assert reply["type"] == "ERR"
        assert reply["id"] == request_id

    @pytest.mark.parametrize("task_type", [None, True, 0, 1.5, [], ["ADD"], {}, {"ADD": 1}], ids=json.dumps)
    def test_types_of_every_json_type(self, attack: Attack, peer: RawPeer, task_type: Any) -> None:
        self.refused(attack, peer, json.dumps({"type": task_type, "payload": {"x": 1, "y": 6}, "id": 1}), 1)

    @pytest.mark.parametrize(
        "task_type",
        ["__class__", "__init__", "__proto__", "toString", "constructor", "keys", "get", "", " ADD", "add", "\x00"],
    )
    def test_types_that_are_no_tasks(self, attack: Attack, peer: RawPeer, task_type: str) -> None:
        error = self.refused(attack, peer, json.dumps({"type": task_type, "payload": {}, "id": 1}), 1)
        assert error == f'Unknown request type: "{task_type}"'

    def test_a_type_name_of_1_mb(self, attack: Attack, peer: RawPeer) -> None:
        error = self.refused(attack, peer, json.dumps({"type": "M" * 1_000_000, "id": 1}), 1)
        assert error.startswith('Unknown request type: "MMM')

    @pytest.mark.parametrize(
        "payload", [None, True, 1, "x", [], [1, 6], {}, {"x": 1}, {"x": None, "y": []}], ids=json.dumps
    )
    def test_payloads_of_every_json_type(self, attack: Attack, peer: RawPeer, payload: Any) -> None:
        self.refused(attack, peer, json.dumps({"type": "ADD", "payload": payload, "id": 1}), 1)

    def test_the_same_key_twice(self, attack: Attack, peer: RawPeer) -> None:
        reply = attack.request(peer, '{"type": "MEOW", "id": 1, "payload": {"x": 1, "y": 6}, "type": "ADD", "id": 2}')
        assert reply == {"type": "OK", "id": 2, "payload": 7}

    def test_5_000_pipelined_requests(self, attack: Attack, peer: RawPeer) -> None:
        requests = [request_frame("ADD", {"x": n, "y": 1}, n) for n in range(5000)]
        attack.send(peer, b"".join(requests))
        replies = [peer.reply(FLOOD_LIMIT) for _ in requests]
        assert sorted(replies, key=lambda reply: int(reply["id"])) == [
            {"type": "OK", "id": n, "payload": n + 1} for n in range(5000)
        ]

    def test_a_result_that_would_fill_a_gigabyte(self, attack: Attack, peer: RawPeer) -> None:
        """A list of one string a thousand times over: small to hold, a gigabyte to write."""
        with attack.service.grows_less_than(160 * MIB):
            text = json.dumps({"type": "MUL", "payload": {"x": ["x" * MIB], "y": 1024}, "id": 1})
            self.refused(attack, peer, text, 1)

    def test_a_result_beyond_the_limit(self, attack: Attack, peer: RawPeer) -> None:
        text = json.dumps({"type": "MUL", "payload": {"x": ["x" * MIB], "y": 16}, "id": 1})
        self.refused(attack, peer, text, 1)
