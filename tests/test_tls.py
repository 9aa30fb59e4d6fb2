"""``wss://`` with a private CA on both sides: load, certificates that are not accepted, and what TLS must not hold up."""

import concurrent.futures
import contextlib
import datetime
import socket
import ssl
import threading
import time
from collections import Counter
from http.client import HTTPSConnection
from pathlib import Path
from unittest import mock

import deployed as deploying
import pytest
import trustme
from conftest import CEILING, wait_until
from deployed import deployed
from ports import reserved_port

from oompa import ConnectionLost, Server
from oompa.wire.channel import Channel
from oompa.wire.closing import ChannelClosed
from oompa.wire.heartbeat import Silence
from oompa.wire.streams import TlsStream, stream_of

MEBIBYTE = 1024 * 1024
LOAD_CEILING = 60.0
YESTERDAY = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)


# Certificates.


class Pki:
    """A private CA, and contexts for both ends made from it."""

    def __init__(self, directory):
        self.ca = trustme.CA()
        self.directory = directory
        self.ca_file = str(directory / "ca.pem")
        self.ca.cert_pem.write_to_path(self.ca_file)

    def files(self, *names, **options):
        """The paths of a certificate and its key for so many names."""
        certificate = self.ca.issue_cert(*names, **options)
        stem = "-".join(names).replace("*", "any")
        paths = str(self.directory / f"{stem}.pem"), str(self.directory / f"{stem}.key")
        for index, blob in enumerate(certificate.cert_chain_pems):
            blob.write_to_path(paths[0], append=bool(index))
        certificate.private_key_pem.write_to_path(paths[1])
        return paths

    def server(self, *names, asks_client=False, **options):
        """What a server is given; ``asks_client``: it lets nobody in without a certificate of this CA."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.files(*names or ("localhost", "127.0.0.1"), **options))
        if asks_client:
            context.load_verify_locations(self.ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client(self, name=None):
        """What a client is given that trusts this CA; ``name``: with a certificate of its own."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if name is not None:
            context.load_cert_chain(*self.files(name))
        return context


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


def secure_get(port, path, context):
    connection = HTTPSConnection("localhost", port, timeout=CEILING, context=context)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def answers_over_tls(context, port):
    try:
        return secure_get(port, "/health", context)[0] == 200
    except OSError:
        return False


@contextlib.contextmanager
def gunicorn(pki, context, *arguments, port=0):
    """The echo server under gunicorn with TLS; ``context`` is for asking whether it is there."""
    certificate, key = pki.files("localhost", "127.0.0.1")
    command = ["-m", "gunicorn", "--threads", "8", "--no-control-socket", "-b", "127.0.0.1:{port}"]
    command += ["--chdir", str(Path(__file__).parent), "--certfile", certificate, "--keyfile", key, *arguments]
    with mock.patch.object(deploying, "answers", lambda port: answers_over_tls(context, port)):
        with deployed(*command, "guarded:echo", port=port, OOMPA_PING_INTERVAL="1") as server:
            yield server.port


@pytest.fixture(params=["gunicorn", "embedded"])
def secure_port(request, pki):
    """The port of an echo server over TLS."""
    if request.param == "gunicorn":
        with gunicorn(pki, pki.client()) as port:
            yield port
    else:
        from conftest import CALCULATOR

        server = Server(CALCULATOR, ping_interval=1.0)
        server.listen(0, ssl=pki.server()).result(CEILING)
        yield server.port
        server.close(timeout=0.5).result(CEILING)


class Events:
    """What a client tells, as it comes."""

    def __init__(self, client):
        self.counts = Counter()
        self.errors = []
        self.times = []
        for name in ("host-closed", "reconnect-failed", "reconnected"):
            client.on(name, lambda name=name: self.counts.update((name,)))
        client.on("error", self._error)

    def _error(self, error):
        self.times.append(time.monotonic())
        self.errors.append(error)


# A server that is trusted.


def test_call_and_health_over_tls(secure_port, pki, connect):
    assert secure_get(secure_port, "/health", pki.client()) == (200, "ok")
    client = connect(f"wss://localhost:{secure_port}", ssl=pki.client())
    assert client.call("ADD", {"x": 1, "y": 6}) == 7
    assert client.ping().result(CEILING) is True
    by_address = connect(f"wss://127.0.0.1:{secure_port}", ssl=pki.client())
    assert by_address.call("ADD", {"x": 1, "y": 6}) == 7


def test_threads_share_a_connection_under_load_without_a_stall(secure_port, pki, connect):
    client = connect(f"wss://localhost:{secure_port}", ssl=pki.client(), ping_interval=1.0, timeout=LOAD_CEILING, attempts=1)
    events = Events(client)
    big = {number: chr(ord("a") + number) * MEBIBYTE for number in range(4)}

    def call_big(number):
        for _ in range(4):
            assert client.call("ECHO", big[number]) == big[number]

    def call_small(number):
        for ordinal in range(150):
            assert client.call("ECHO", [number, ordinal]) == [number, ordinal]

    def ping(_):
        for _ in range(100):
            assert client.ping().result(LOAD_CEILING) is True

    with concurrent.futures.ThreadPoolExecutor(9) as threads:
        jobs = [threads.submit(call_big, number) for number in big]
        jobs += [threads.submit(call_small, number) for number in range(4)] + [threads.submit(ping, None)]
        for job in concurrent.futures.as_completed(jobs, LOAD_CEILING):
            job.result()
    assert not events.counts and not events.errors


def test_replies_that_come_in_one_record_are_all_read(secure_port, pki, connect):
    """OpenSSL holds what a record has brought, and the descriptor no longer shows it."""
    client = connect(f"wss://localhost:{secure_port}", ssl=pki.client(), timeout=5.0, attempts=1)
    assert client.call("ECHO", 0) == 0
    for size in (1, 100, 16_000, 70_000):
        calls = [client.dispatch("ECHO", [number, "x" * size]) for number in range(60)]
        assert [call.result(CEILING)[0] for call in calls] == list(range(60))


def test_idle_connection_lives_by_pings(secure_port, pki, connect):
    client = connect(f"wss://localhost:{secure_port}", ssl=pki.client(), ping_interval=0.3)
    events = Events(client)
    assert client.call("ECHO", 1) == 1
    sent = []
    check = Channel.check

    def watch(channel, now):
        verdict = check(channel, now)
        if verdict is Silence.PING:
            sent.append(verdict)
        return verdict

    with mock.patch.object(Channel, "check", watch):
        wait_until(lambda: len(sent) >= 3)
    assert client.call("ECHO", 2) == 2
    assert not events.counts and not events.errors


def test_client_certificate_is_shown_to_a_server_that_asks(pki, connect):
    arguments = ("--ca-certs", pki.ca_file, "--cert-reqs", str(int(ssl.CERT_REQUIRED)))
    with gunicorn(pki, pki.client("ann@clients.example"), *arguments) as port:
        client = connect(f"wss://localhost:{port}", ssl=pki.client("ann@clients.example"))
        assert client.call("ADD", {"x": 1, "y": 6}) == 7
        stranger = connect(f"wss://localhost:{port}", ssl=pki.client(), reconnect_interval=0.05)
        events = Events(stranger)
        # With TLS 1.3 the server says so when the client has done its part; a reset may overtake what it says.
        wait_until(lambda: any("certificate" in str(error) for error in events.errors[:-1]))
        told = next(index for index, error in enumerate(events.errors) if "certificate" in str(error))
        assert events.times[told + 1] - events.times[told] > 0.45
        client.call("ADD", {"x": 1, "y": 6})


def test_peer_that_never_shakes_hands_holds_up_nobody(pki, connect, caplog):
    server = Server({"ONE": lambda _: 1})
    server.listen(0, ssl=pki.server()).result(CEILING)
    try:
        with contextlib.ExitStack() as silent:
            for _ in range(5):
                silent.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            started = time.monotonic()
            assert connect(f"wss://localhost:{server.port}", ssl=pki.client()).call("ONE") == 1
            assert secure_get(server.port, "/health", pki.client()) == (200, "ok")
            assert time.monotonic() - started < 2.0
            with socket.create_connection(("127.0.0.1", server.port), CEILING) as plain:
                plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                with contextlib.suppress(ConnectionError):
                    assert b"200 OK" not in plain.recv(4096)
    finally:
        server.close(timeout=0.5).result(CEILING)
    assert not [record for record in caplog.records if record.exc_info]


# Two channels on one TLS connection.


class Restless:
    """A heartbeat that pings at every look."""

    def check(self, now, heard_at):
        return Silence.PING

    def due(self, heard_at):
        return float("inf")


def tls_pair(pki):
    """Both ends of a TLS connection, server first."""
    client, server = socket.socketpair()
    for sock in (client, server):
        sock.settimeout(CEILING)
    with concurrent.futures.ThreadPoolExecutor(1) as other:
        accepting = other.submit(pki.server().wrap_socket, server, server_side=True)
        opened = pki.client().wrap_socket(client, server_hostname="localhost")
        return accepting.result(CEILING), opened


def test_payloads_and_pings_go_both_ways_at_once(pki):
    limits = {"max_message_size": 2 * MEBIBYTE, "ping_interval": None, "write_timeout": CEILING, "close_timeout": 2.0}
    ends = [
        Channel(stream_of(sock), is_client=is_client, **limits) for is_client, sock in zip((False, True), tls_pair(pki))
    ]
    assert all(isinstance(channel._stream, TlsStream) for channel in ends)
    expected = Counter({MEBIBYTE: 6, 17: 300})
    heard = [Counter(), Counter()]
    pongs = [0, 0]
    done = threading.Event()

    def read(side):
        channel = ends[side]
        inbound, feed = channel._inbound, channel._inbound.feed

        def count(data):
            messages = feed(data)
            pongs[side] += len(inbound.pings)
            return messages

        inbound.feed = count
        with contextlib.suppress(ChannelClosed):
            while True:
                heard[side].update(map(len, channel.receive()))

    def send(channel, size, count, method):
        for _ in range(count):
            getattr(channel, method)(b"x" * size)

    def ping(channel):
        channel._heartbeat = Restless()
        while not done.wait(0.002):
            channel.check(time.monotonic())

    threads = [threading.Thread(target=read, args=(side,)) for side in (0, 1)]
    pingers = [threading.Thread(target=ping, args=(channel,)) for channel in ends]
    for channel in ends:
        for size, count, method in ((MEBIBYTE, 3, "send"), (MEBIBYTE, 3, "post"), (17, 150, "send"), (17, 150, "post")):
            threads.append(threading.Thread(target=send, args=(channel, size, count, method)))
    for thread in threads + pingers:
        thread.start()
    try:
        wait_until(lambda: heard == [expected, expected], LOAD_CEILING)
        wait_until(lambda: all(pongs))
    finally:
        done.set()
        for thread in pingers:
            thread.join(CEILING)
        ends[1].close()
        for thread in threads:
            thread.join(CEILING)
        for channel in ends:
            channel.release()


# A server that is not trusted.


class Listener:
    """Accepts TLS connections, one at a time, and ends them; counts them by the time they came."""

    def __init__(self, context, port=0):
        self.came = []
        self._context = context
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self):
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            self.came.append(time.monotonic())
            with peer:
                peer.settimeout(CEILING)
                with contextlib.suppress(OSError), self._context.wrap_socket(peer, server_side=True) as secured:
                    secured.recv(1)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(CEILING)


def unknown_ca(pki, tmp_path):
    return Pki(tmp_path).server(), "self-signed certificate|unable to get local issuer"


def wrong_host(pki, tmp_path):
    return pki.server("other.example"), "Hostname mismatch|not valid for 'localhost'"


def expired(pki, tmp_path):
    return pki.server("localhost", not_before=YESTERDAY - datetime.timedelta(days=1), not_after=YESTERDAY), "expired"


@pytest.mark.parametrize("fault", [unknown_ca, wrong_host, expired])
def test_certificate_fault_fails_calls_at_once_and_is_tried_again_at_the_longer_interval(fault, pki, tmp_path, connect):
    context, problem = fault(pki, tmp_path)
    interval = 0.05
    with Listener(context) as listener:
        client = connect(
            f"wss://localhost:{listener.port}", ssl=pki.client(), reconnect_interval=interval, timeout=100.0, no_server=True
        )
        events = Events(client)
        client.start()
        for _ in range(2):
            with pytest.raises(ConnectionLost, match="certificate of localhost is not accepted"):
                client.dispatch("ADD", {"x": 1, "y": 6}).result(CEILING)
        wait_until(lambda: len(listener.came) >= 3 and len(events.errors) >= 2)
        gaps = [later - earlier for earlier, later in zip(listener.came, listener.came[1:])]
        assert all(gap > 9 * interval for gap in gaps), gaps
        for error in events.errors:
            assert isinstance(error, ConnectionError)
            assert "certificate of localhost is not accepted" in str(error)
            assert any(part in str(error) for part in problem.split("|")), str(error)


def test_client_that_refused_a_certificate_connects_once_it_is_good(pki, tmp_path, connect):
    with reserved_port() as port:
        client = connect(f"wss://localhost:{port}", ssl=pki.client(), reconnect_interval=0.05, timeout=CEILING, no_server=True)
        events = Events(client)
        with Listener(unknown_ca(pki, tmp_path)[0], port):
            client.start()
            wait_until(lambda: events.errors)
        with gunicorn(pki, pki.client(), port=port):
            wait_until(lambda: client.is_connected)
            assert client.call("ADD", {"x": 1, "y": 6}) == 7
            client.close()


def test_server_that_does_not_speak_tls_is_told_as_an_error(serve, pki, connect):
    client = connect(f"wss://localhost:{serve().port}", ssl=pki.client(), reconnect_interval=0.05, close_timeout=1.0)
    events = Events(client)
    wait_until(lambda: len(events.errors) >= 2)
    assert all(isinstance(error, ConnectionError) for error in events.errors)


def test_default_trust_is_the_systems(pki, connect):
    with Listener(pki.server()) as listener:
        client = connect(f"wss://localhost:{listener.port}", reconnect_interval=0.05)
        events = Events(client)
        wait_until(lambda: events.errors)
        assert "is not accepted" in str(events.errors[0])


def test_close_does_not_wait_for_a_server_that_never_shakes_hands(pki, connect):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = connect(f"wss://localhost:{silent.getsockname()[1]}", ssl=pki.client())
        peer, _ = silent.accept()
        with peer:
            wait_until(lambda: peer.recv(1, socket.MSG_PEEK))
            started = time.monotonic()
            client.close()
            assert time.monotonic() - started < 2.0


def test_connection_that_is_cut_without_a_tls_goodbye_is_a_loss_like_any_other(pki, connect):
    """A peer may end TCP where TLS wants its own closing first; that is no fault of another kind."""
    from faults import FaultProxy

    with gunicorn(pki, pki.client()) as port, FaultProxy("127.0.0.1", port) as proxy:
        client = connect(f"wss://localhost:{proxy.port}", ssl=pki.client(), reconnect_interval=0.05, timeout=CEILING)
        events = Events(client)
        for cut in (proxy.reset, proxy.drop, lambda: proxy.fin("down")):
            before = events.counts["reconnected"]
            assert client.call("ECHO", 1) == 1
            calls = [client.dispatch("ECHO", number) for number in range(20)]
            cut()
            assert [call.result(CEILING) for call in calls] == list(range(20))
            wait_until(lambda: events.counts["reconnected"] > before)
        client.close()
