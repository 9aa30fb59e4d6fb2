"""The fault proxy itself: each fault does what its method says, and no more."""

import contextlib
import os
import queue
import resource
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from faults import FaultProxy, Pipe, Wire

CEILING = 10.0  # seconds until a wait counts as failed
RESET = b"reset me"  # asks the echo server for an RST
GLANCE = 0.1  # seconds in which something that must not come may try to


class EchoServer:
    """Sends back what it gets, but for RESET.

    `accepted` yields the server's end of each connection, `ends` yields the
    bytes it received and "fin" or "reset".
    """

    def __init__(self) -> None:
        self.accepted: queue.Queue[socket.socket] = queue.Queue()
        self.arrived: queue.Queue[bytes] = queue.Queue()
        self.ends: queue.Queue[tuple[bytes, str]] = queue.Queue()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._socks: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for sock in self._socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for sock in self._socks:
            sock.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._socks.append(sock)
                self.accepted.put(sock)
                thread = threading.Thread(target=self._echo, args=(sock,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _echo(self, sock: socket.socket) -> None:
        got = bytearray()
        try:
            while data := sock.recv(65536):
                if data == RESET:
                    return reset(sock)
                got += data
                self.arrived.put(data)
                sock.sendall(data)
            self.ends.put((bytes(got), "fin"))
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.ends.put((bytes(got), "reset"))


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    server = EchoServer()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: EchoServer) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", echo.port) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[socket.socket]:
    with connected(proxy) as sock:
        yield sock


def connected(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), CEILING)


def read(sock: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        chunk = sock.recv(count - len(data))
        if not chunk:
            break
        data += chunk
    return bytes(data)


def echoes(sock: socket.socket, data: bytes) -> bool:
    sock.sendall(data)
    return read(sock, len(data)) == data


def silent(sock: socket.socket) -> bool:
    """Tell whether nothing, not even an end, arrives for a moment."""
    sock.settimeout(GLANCE)
    try:
        sock.recv(1)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(CEILING)
    return False


def until_refused(sock: socket.socket) -> int:
    """Send until no more is taken; return how many bytes were."""
    sent = 0
    sock.settimeout(GLANCE)
    with contextlib.suppress(TimeoutError):
        while True:
            sent += sock.send(bytes(65536))
    sock.settimeout(CEILING)
    return sent


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_plain_proxy_passes_both_ways(client: socket.socket) -> None:
    data = os.urandom(3_000_000)
    sender = threading.Thread(target=client.sendall, args=(data,))
    sender.start()
    assert read(client, len(data)) == data
    sender.join()


def test_fin_of_the_client_passes_and_the_answer_comes_back(
    echo: EchoServer, proxy: FaultProxy, client: socket.socket
) -> None:
    client.sendall(b"last words")
    client.shutdown(socket.SHUT_WR)
    assert read(client, 100) == b"last words"
    assert echo.ends.get(timeout=CEILING) == (b"last words", "fin")
    assert proxy.wait_until(lambda p: p.live == 0)


def test_fin_of_the_server_passes(echo: EchoServer, client: socket.socket) -> None:
    assert echoes(client, b"x")
    echo.accepted.get(timeout=CEILING).shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""


def test_reset_of_the_client_passes(
    echo: EchoServer, proxy: FaultProxy, client: socket.socket
) -> None:
    assert echoes(client, b"x")
    reset(client)
    assert echo.ends.get(timeout=CEILING) == (b"x", "reset")
    assert proxy.wait_until(lambda p: p.live == 0)


def test_reset_of_the_server_passes(client: socket.socket) -> None:
    client.sendall(RESET)
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_absent_upstream_resets_the_client() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with FaultProxy(*unused.getsockname()) as proxy:
            with pytest.raises(ConnectionResetError), connected(proxy) as client:
                client.recv(1)


def test_latency_delays(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.latency("down", 0.2)
    began = time.monotonic()
    assert echoes(client, b"x")
    assert time.monotonic() - began >= 0.2


def test_latency_set_anew_moves_what_is_under_way(
    proxy: FaultProxy, client: socket.socket
) -> None:
    proxy.latency("down", 300)
    client.sendall(b"x")
    assert proxy.wait_until(lambda p: p.received["down"] == 1)
    assert silent(client)
    proxy.latency("down", 0)
    assert client.recv(1) == b"x"


def test_latency_holds_a_fin_back(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.latency("down", 300)
    client.shutdown(socket.SHUT_WR)
    assert silent(client)
    proxy.heal()
    assert client.recv(1) == b""


def test_blackhole_up_lets_requests_vanish(
    echo: EchoServer, proxy: FaultProxy, client: socket.socket
) -> None:
    proxy.blackhole("up")
    client.sendall(b"lost")
    assert proxy.wait_until(lambda p: p.received["up"] == 4)
    assert silent(client)
    proxy.heal()
    assert echoes(client, b"found")
    assert echo.arrived.get(timeout=CEILING) == b"found"


def test_blackhole_down_lets_replies_vanish(
    echo: EchoServer, proxy: FaultProxy, client: socket.socket
) -> None:
    proxy.blackhole("down")
    client.sendall(b"lost")
    assert echo.arrived.get(timeout=CEILING) == b"lost"
    assert proxy.wait_until(lambda p: p.received["down"] == 4)
    proxy.blackhole("down", on=False)
    assert echoes(client, b"found")


def test_blackhole_swallows_what_latency_holds(
    proxy: FaultProxy, client: socket.socket
) -> None:
    proxy.latency("down", 300)
    client.sendall(b"lost")
    assert proxy.wait_until(lambda p: p.received["down"] == 4)
    proxy.blackhole("down")
    proxy.heal()
    assert echoes(client, b"found")


@pytest.mark.parametrize("farewell", [socket.socket.close, reset])
def test_blackhole_hides_the_end_until_healed(
    echo: EchoServer, proxy: FaultProxy, client: socket.socket, farewell
) -> None:
    assert echoes(client, b"x")
    proxy.blackhole("both")
    farewell(client)
    with pytest.raises(queue.Empty):
        echo.ends.get(timeout=GLANCE)
    assert proxy.live == 1
    proxy.heal()
    assert echo.ends.get(timeout=CEILING)[0] == b"x"
    assert proxy.wait_until(lambda p: p.live == 0)


def test_blackhole_takes_any_amount(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.blackhole("up")
    client.sendall(bytes(20_000_000))
    assert proxy.wait_until(lambda p: p.received["up"] == 20_000_000)
    assert proxy.forwarded["up"] == 0


def test_stall_fills_the_sender_and_loses_nothing(
    proxy: FaultProxy, client: socket.socket
) -> None:
    proxy.stall("up")
    sent = until_refused(client)
    assert proxy.received["up"] == 0
    proxy.heal()
    assert read(client, sent) == bytes(sent)


def test_stall_down_holds_replies_back(
    echo: EchoServer, proxy: FaultProxy, client: socket.socket
) -> None:
    proxy.stall("down")
    client.sendall(b"x")
    assert echo.arrived.get(timeout=CEILING) == b"x"
    assert silent(client)
    proxy.stall("down", on=False)
    assert client.recv(1) == b"x"


def test_reader_that_stops_stalls_the_writer(
    proxy: FaultProxy, client: socket.socket
) -> None:
    sent = until_refused(client)
    assert sent < 40_000_000
    assert read(client, sent) == bytes(sent)


def test_reset_resets_both_sides(
    echo: EchoServer, proxy: FaultProxy, client: socket.socket
) -> None:
    assert echoes(client, b"x")
    proxy.reset()
    assert proxy.live == 0
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert echo.ends.get(timeout=CEILING) == (b"x", "reset")


def test_reset_spares_later_connections(proxy: FaultProxy) -> None:
    proxy.reset()
    with connected(proxy) as client:
        assert echoes(client, b"x")


def test_drop_ends_both_sides_in_order(
    echo: EchoServer, proxy: FaultProxy, client: socket.socket
) -> None:
    assert echoes(client, b"x")
    proxy.drop()
    assert proxy.live == 0
    assert client.recv(1) == b""
    assert echo.ends.get(timeout=CEILING) == (b"x", "fin")


def test_drop_sends_no_reset_though_bytes_are_unread(
    echo: EchoServer, proxy: FaultProxy, client: socket.socket
) -> None:
    assert echoes(client, b"x")
    proxy.stall("up")
    client.sendall(b"unread")
    proxy.drop()
    assert client.recv(1) == b""
    assert echo.ends.get(timeout=CEILING) == (b"x", "fin")


def test_fin_down_half_closes(
    echo: EchoServer, proxy: FaultProxy, client: socket.socket
) -> None:
    assert echoes(client, b"x")
    proxy.fin("down")
    assert client.recv(1) == b""
    client.sendall(b"still heard")
    client.shutdown(socket.SHUT_WR)
    assert echo.ends.get(timeout=CEILING) == (b"xstill heard", "fin")
    assert proxy.wait_until(lambda p: p.live == 0)


def test_fin_up_half_closes(
    echo: EchoServer, proxy: FaultProxy, client: socket.socket
) -> None:
    assert echoes(client, b"x")
    server = echo.accepted.get(timeout=CEILING)
    proxy.latency("down", 300)
    server.sendall(b"still heard")
    proxy.fin("up")
    assert echo.ends.get(timeout=CEILING) == (b"x", "fin")
    proxy.heal()
    assert read(client, 100) == b"still heard"


@pytest.mark.parametrize("after", [0, 1, 40, 99_999])
def test_truncate_down_forwards_exactly_so_many(
    proxy: FaultProxy, client: socket.socket, after: int
) -> None:
    assert echoes(client, b"before")
    proxy.truncate("down", after)
    with contextlib.suppress(ConnectionError):
        client.sendall(bytes(100_000))
    assert read(client, 100_000) == bytes(after)
    assert proxy.wait_until(lambda p: p.live == 0)


def test_truncate_up_forwards_exactly_so_many(
    echo: EchoServer, proxy: FaultProxy, client: socket.socket
) -> None:
    proxy.truncate("up", 3)
    client.sendall(b"abcdef")
    assert echo.ends.get(timeout=CEILING) == (b"abc", "fin")


def test_truncate_by_reset(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.truncate("down", 3, reset=True)
    client.sendall(b"abcdef")
    with pytest.raises(ConnectionResetError):
        while client.recv(1):
            pass


def test_truncate_hits_so_many_connections(proxy: FaultProxy) -> None:
    proxy.truncate("down", 2, times=3)
    for _ in range(3):
        with connected(proxy) as client:
            client.sendall(b"abc")
            assert read(client, 3) == b"ab"
    with connected(proxy) as client:
        assert echoes(client, b"abc")
    assert proxy.connections == 4


def test_truncate_counts_for_each_connection(proxy: FaultProxy) -> None:
    with connected(proxy) as first, connected(proxy) as second:
        assert echoes(first, b"x") and echoes(second, b"x")
        proxy.truncate("down", 3)
        assert echoes(first, b"ab") and echoes(second, b"ab")
        first.sendall(b"cd")
        assert read(first, 2) == b"c"
        assert echoes(second, b"cd")


def test_throttle_bounds_the_rate(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.throttle("up", 100_000)
    began = time.monotonic()
    assert echoes(client, bytes(30_000))
    assert time.monotonic() - began >= 0.25


def test_chop_keeps_the_bytes(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.chop("both", 1)
    data = os.urandom(5000)
    assert echoes(client, data)


def test_chop_sends_small_pieces() -> None:
    class Sink:
        def __init__(self) -> None:
            self.pieces: list[bytes] = []

        def send(self, piece: bytes) -> int:
            self.pieces.append(piece)
            return len(piece)

    wire, sink = Wire(), Sink()
    wire.rules["down"].chop = 3
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pipe = Pipe(ours, sink, "down", wire)  # type: ignore[arg-type]
        theirs.sendall(b"abcdefgh")
        pipe.fill(now=0.0)
        while pipe.step(now=0.0):
            pass
    assert sink.pieces == [b"abc", b"def", b"gh"]


def test_duplicate_forwards_the_next_chunk_twice(
    proxy: FaultProxy, client: socket.socket
) -> None:
    assert echoes(client, b"before")
    proxy.duplicate("down")
    client.sendall(b"abc")
    assert read(client, 6) == b"abcabc"
    assert echoes(client, b"after")


@pytest.mark.parametrize("offset", [0, 2, 5])
def test_corrupt_flips_one_byte(
    proxy: FaultProxy, client: socket.socket, offset: int
) -> None:
    assert echoes(client, b"before")
    proxy.corrupt("down", offset)
    client.sendall(bytes(10))
    expected = bytearray(10)
    expected[offset] = 0xFF
    assert read(client, 10) == expected
    assert echoes(client, b"after")


def test_corrupt_flips_the_bits_it_is_told(
    proxy: FaultProxy, client: socket.socket
) -> None:
    proxy.corrupt("down", 1, flip=0x01)
    client.sendall(b"123")
    assert read(client, 3) == b"133"


def test_corrupt_finds_its_byte_in_small_pieces(
    proxy: FaultProxy, client: socket.socket
) -> None:
    proxy.chop("both", 2)
    proxy.corrupt("up", 3)
    client.sendall(bytes(6))
    assert read(client, 6) == b"\0\0\0\xff\0\0"


def test_drip_forwards_byte_by_byte(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.drip("down", 0.05)
    client.sendall(b"abcd")
    began = time.monotonic()
    assert [client.recv(10) for _ in range(4)] == [b"a", b"b", b"c", b"d"]
    assert time.monotonic() - began >= 0.1


def test_refuse_refuses_on_the_same_port_until_off(proxy: FaultProxy) -> None:
    with connected(proxy) as old:
        assert echoes(old, b"x")
        proxy.refuse()
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                connected(proxy)
        assert echoes(old, b"untouched")
        proxy.refuse(on=False)
        with connected(proxy) as new:
            assert echoes(new, b"x")
    assert proxy.connections == 2


def test_refused_port_stays_ours(proxy: FaultProxy) -> None:
    proxy.refuse()
    with socket.socket() as thief, pytest.raises(OSError):
        thief.bind(("127.0.0.1", proxy.port))


def test_swallow_accepts_and_keeps_silent(echo: EchoServer, proxy: FaultProxy) -> None:
    proxy.swallow()
    with connected(proxy) as client:
        client.sendall(b"x")
        assert silent(client)
        assert echo.accepted.empty()
        assert (proxy.connections, proxy.live) == (1, 1)
        proxy.swallow(on=False)
        assert client.recv(1) == b"x"


def test_swallow_spares_older_connections(
    proxy: FaultProxy, client: socket.socket
) -> None:
    assert echoes(client, b"x")
    proxy.swallow()
    assert echoes(client, b"y")


def test_heal_ends_every_fault(proxy: FaultProxy) -> None:
    with connected(proxy) as old:
        assert echoes(old, b"x")
        proxy.latency("both", 300)
        proxy.throttle("both", 1)
        proxy.chop("both", 1)
        proxy.drip("both", 300)
        proxy.stall("both")
        proxy.duplicate("both")
        proxy.corrupt("both", 0)
        proxy.truncate("both", 10, times=100)
        proxy.swallow()
        with connected(proxy) as swallowed:
            assert proxy.wait_until(lambda p: p.live == 2)
            proxy.refuse()
            proxy.heal()
            with connected(proxy) as new:
                for sock in (old, swallowed, new):
                    assert echoes(sock, b"quite a plain proxy again")


def test_faults_hold_for_later_connections(proxy: FaultProxy) -> None:
    proxy.blackhole("down")
    with connected(proxy) as client:
        client.sendall(b"x")
        assert proxy.wait_until(lambda p: p.received["down"] == 1)
        assert silent(client)


def test_counters_tell_what_passed(
    echo: EchoServer, proxy: FaultProxy, client: socket.socket
) -> None:
    assert echoes(client, b"four")
    assert proxy.wait_until(lambda p: p.forwarded["down"] == 4)
    assert proxy.received == proxy.forwarded == {"up": 4, "down": 4}
    assert (proxy.connections, proxy.live) == (1, 1)
    client.close()
    assert proxy.wait_until(lambda p: p.live == 0)
    assert proxy.connections == 1


def test_wait_until_gives_up(proxy: FaultProxy) -> None:
    assert not proxy.wait_until(lambda p: p.live == 1, timeout=0.01)


def test_unknown_direction_is_an_error_and_harms_nothing(
    proxy: FaultProxy, client: socket.socket
) -> None:
    with pytest.raises(ValueError, match="sideways"):
        proxy.blackhole("sideways")
    assert echoes(client, b"x")


def test_no_busy_loop_under_standing_faults(proxy: FaultProxy) -> None:
    with connected(proxy) as ended, connected(proxy) as full, connected(proxy) as new:
        assert echoes(ended, b"x") and echoes(new, b"x")
        until_refused(full)
        for fault in (
            lambda: proxy.latency("both", 300),
            lambda: proxy.stall("both"),
            lambda: proxy.blackhole("both"),
            lambda: proxy.drip("both", 300),
        ):
            fault()
            ended.close()
            new.sendall(b"x")
            began = time.process_time()
            threading.Event().wait(0.3)
            assert time.process_time() - began < 0.1
            proxy.heal()


def test_no_busy_loop_without_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(socket.create_server(("127.0.0.1", 0)))  # not an EchoServer, which needs descriptors too
        proxy = stack.enter_context(FaultProxy("127.0.0.1", upstream.getsockname()[1]))
        client = stack.enter_context(socket.socket())
        for sock in (upstream, client):
            sock.settimeout(CEILING)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            client.connect(("127.0.0.1", proxy.port))
            began = time.process_time()
            threading.Event().wait(0.3)
            busy = time.process_time() - began
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert busy < 0.1
        client.sendall(b"x")
        served = stack.enter_context(upstream.accept()[0])
        served.settimeout(CEILING)
        assert served.recv(1) == b"x"


def test_close_leaves_no_thread_and_no_descriptor(echo: EchoServer) -> None:
    socks = []
    threads, before = threading.enumerate(), len(os.listdir("/proc/self/fd"))
    proxy = FaultProxy("127.0.0.1", echo.port)
    for fault in (proxy.heal, lambda: proxy.blackhole("both"), proxy.swallow):
        fault()
        socks.append(connected(proxy))
        socks[-1].sendall(b"x")
        assert proxy.wait_until(lambda p: p.connections == len(socks))  # else the next fault may be there before it
    served = [echo.accepted.get(timeout=CEILING) for _ in range(2)]
    proxy.latency("both", 300)
    proxy.refuse()
    proxy.close()
    proxy.close()
    for sock in socks:
        sock.close()
    leaked = set(threading.enumerate()) - set(threads)
    assert [t for t in leaked if t.name == "fault-proxy"] == []
    assert len(os.listdir("/proc/self/fd")) == before + len(served)


def test_closed_proxy_says_so(echo: EchoServer) -> None:
    proxy = FaultProxy("127.0.0.1", echo.port)
    proxy.close()
    with pytest.raises(RuntimeError, match="closed"):
        proxy.reset()
    with pytest.raises(ConnectionRefusedError):
        connected(proxy)
