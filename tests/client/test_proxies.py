"""Headers of the upgrade request, and HTTP proxies in front of ``ws://`` and ``wss://``."""

import base64
import contextlib
import datetime
import select
import socket
import threading
import time

import pytest
from conftest import CEILING, url_of, wait_until
from test_tls import YESTERDAY, Events, Listener, gunicorn, pki

from oompa import ConnectionLost, RequestTimeout

__all__ = ["pki"]  # a fixture


# Headers.


@pytest.fixture
def greeted(serve):
    """A server that answers HEADER with a header of the upgrade request."""
    server = serve({"HEADER": lambda _: None})
    server.use(lambda request, call_next: request.connection.headers.get(request.payload))
    return server


def test_headers_may_be_a_mapping(greeted, connect):
    client = connect(greeted, headers={"X-Tenant": "acme", "Authorization": "Bearer t"})
    assert client.call("HEADER", "X-Tenant") == "acme"
    assert client.call("HEADER", "Authorization") == "Bearer t"


def test_callable_for_headers_is_asked_at_every_connect(greeted, connect):
    tokens = iter(["first", "second", "third"])
    client = connect(greeted, headers=lambda: {"X-Token": next(tokens)}, reconnect_interval=0.02)
    for token in ("first", "second", "third"):
        assert client.call("HEADER", "X-Token") == token
        if token != "third":
            events = Events(client)
            greeted.disconnect()
            wait_until(lambda: events.counts["reconnected"])


def test_callable_for_headers_that_raises_is_told_and_asked_again(greeted, connect):
    answers = iter([KeyError("the vault is sealed"), {"X-Token": "late"}])

    def headers():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    client = connect(greeted, headers=headers, reconnect_interval=0.05, no_server=True)
    events = Events(client)
    client.start()
    assert client.call("HEADER", "X-Token") == "late"
    assert ["the vault is sealed" in str(error) for error in events.errors] == [True]


@pytest.mark.parametrize("answer", [["A: b"], "A: b", 7, {"A": None}, {"A": "b\r\nEvil: yes"}, {"A\r\nEvil": "yes"}])
def test_headers_that_are_none_are_told_as_an_error_and_nothing_is_sent(greeted, connect, answer):
    client = connect(greeted, headers=lambda: answer, reconnect_interval=0.05, timeout=0.5, attempts=1, no_server=True)
    events = Events(client)
    client.start()
    call = client.dispatch("HEADER", "Evil")
    wait_until(lambda: len(events.errors) >= 2)
    assert all(isinstance(error, ConnectionError) for error in events.errors)
    with pytest.raises(RequestTimeout):
        call.result(CEILING)
    assert greeted.connections == []


def test_callable_for_headers_that_takes_long_does_not_hold_up_deadlines_or_close(greeted, connect):
    asked, released = threading.Event(), threading.Event()

    def headers():
        asked.set()
        released.wait(CEILING)
        return {}

    client = connect(url_of(greeted), headers=headers)
    assert asked.wait(CEILING)
    started = time.monotonic()
    with pytest.raises(RequestTimeout):
        client.call("HEADER", "X", timeout=0.3)
    assert time.monotonic() - started < 1.3
    started = time.monotonic()
    client.close()
    assert time.monotonic() - started < 2.5
    released.set()


# Proxies.


class HttpProxy:
    """An HTTP proxy that knows CONNECT alone.

    Args:
        credentials: ``user:password`` it asks for; None: it lets everybody through.
        status: What it answers instead of 200.
        is_silent: It takes the request and says nothing.
    """

    def __init__(self, credentials=None, status=None, is_silent=False, port=0):
        self.targets = []
        self.came = []
        self._expected = None if credentials is None else f"Basic {base64.b64encode(credentials.encode()).decode()}"
        self._status = status
        self._is_silent = is_silent
        self._stop, self._stopped = socket.socketpair()
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port = self._socket.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def url(self, credentials=""):
        """What a client is given."""
        return f"http://{credentials}{'@' if credentials else ''}127.0.0.1:{self.port}"

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self._stop.close()
        for thread in self._threads:
            thread.join(CEILING)
        self._socket.close()
        self._stopped.close()

    def _accept(self):
        while self._socket in select.select([self._socket, self._stopped], [], [])[0]:
            peer, _ = self._socket.accept()
            self.came.append(time.monotonic())
            thread = threading.Thread(target=self._serve, args=(peer,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer):
        with peer, contextlib.suppress(OSError):
            peer.settimeout(CEILING)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                piece = peer.recv(4096)
                if not piece:
                    return  # the client has given up before it asked
                head += piece
            first, *lines = head.decode().strip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            method, target, _ = first.split()
            self.targets.append(target)
            if self._is_silent:
                return select.select([self._stopped, peer], [], [])
            status = self._status or (200 if headers.get("proxy-authorization") == self._expected else 407)
            assert method == "CONNECT"
            if status != 200:
                return peer.sendall(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            host, _, port = target.rpartition(":")
            with socket.create_connection((host.strip("[]"), int(port)), CEILING) as upstream:
                peer.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                self._pump(peer, upstream)

    def _pump(self, peer, upstream):
        others = {peer: upstream, upstream: peer}
        while True:
            for ready in select.select([peer, upstream, self._stopped], [], [])[0]:
                data = b"" if ready is self._stopped else ready.recv(65536)
                if not data:
                    return
                others[ready].sendall(data)


@pytest.fixture(params=["ws", "wss"])
def target(request, serve, pki):
    """The URL of a calculator, and what a client needs to trust it."""
    if request.param == "ws":
        yield f"ws://localhost:{serve().port}", None
    else:
        with gunicorn(pki, pki.client()) as port:
            yield f"wss://localhost:{port}", pki.client()


@pytest.mark.parametrize("credentials", ["", "ann:s3cret", "ann%40home:p%3Aw%2Fd"])
def test_client_goes_through_a_proxy(target, connect, credentials):
    url, context = target
    expected = credentials.replace("%40", "@").replace("%3A", ":").replace("%2F", "/") or None
    with HttpProxy(expected) as proxy:
        client = connect(url, ssl=context, proxy=proxy.url(credentials))
        assert client.call("ADD", {"x": 1, "y": 6}) == 7
        big = "x" * (1024 * 1024)
        assert client.call("ECHO", big) == big
        assert proxy.targets == [url.partition("//")[2]]
        client.close()


def test_headers_reach_the_server_and_not_the_proxy(greeted, connect):
    with HttpProxy() as proxy:
        client = connect(greeted, proxy=proxy.url(), headers={"X-Token": "t"})
        assert client.call("HEADER", "X-Token") == "t"
        assert client.call("HEADER", "Proxy-Authorization") is None
        client.close()


@pytest.mark.parametrize("status", [403, 407, 502])
def test_proxy_that_refuses_is_told_and_tried_again_and_fails_calls_at_once_if_it_will_refuse_again(target, connect, status):
    """Case 49: who is not let through by a proxy is not let in, either."""
    url, context = target
    with HttpProxy(status=status) as proxy:
        client = connect(
            url, ssl=context, proxy=proxy.url("ann:s3cret"), reconnect_interval=0.05, timeout=0.6, attempts=1, no_server=True
        )
        events = Events(client)
        client.start()
        started = time.monotonic()
        with pytest.raises(RequestTimeout if status == 502 else ConnectionLost, match=str(status)):
            client.call("ADD", {"x": 1, "y": 6})
        assert (time.monotonic() - started >= 0.6) == (status == 502)
        wait_until(lambda: len(events.errors) >= 2)
        for error in events.errors:
            assert isinstance(error, ConnectionError)
            assert str(status) in str(error) and "proxy" in str(error)
            assert "s3cret" not in str(error)
        if status != 502:
            assert proxy.came[1] - proxy.came[0] > 0.45, "what will be refused again is tried ten times less often"
        client.close()


def test_wrong_credentials_for_a_proxy_are_told(target, connect):
    url, context = target
    with HttpProxy("ann:s3cret") as proxy:
        client = connect(url, ssl=context, proxy=proxy.url("ann:wrong"), reconnect_interval=0.05, no_server=True)
        events = Events(client)
        client.start()
        wait_until(lambda: events.errors)
        assert "407" in str(events.errors[0]) and "wrong" not in str(events.errors[0])
        client.close()


def test_connection_through_a_proxy_mends_itself(target, connect):
    url, context = target
    with HttpProxy() as first:
        client = connect(url, ssl=context, proxy=first.url(), reconnect_interval=0.05)
        events = Events(client)
        assert client.call("ADD", {"x": 1, "y": 6}) == 7
    wait_until(lambda: events.counts["host-closed"] and events.errors)
    with HttpProxy(port=first.port):
        assert client.call("ADD", {"x": 2, "y": 6}) == 8
        wait_until(lambda: events.counts["reconnected"])
        client.close()


def test_certificate_fault_behind_a_proxy_waits_the_longer_interval(pki, connect):
    context = pki.server("localhost", not_before=YESTERDAY - datetime.timedelta(days=1), not_after=YESTERDAY)
    with Listener(context) as listener, HttpProxy() as proxy:
        client = connect(
            f"wss://localhost:{listener.port}", ssl=pki.client(), proxy=proxy.url(), reconnect_interval=0.05, no_server=True
        )
        events = Events(client)
        client.start()
        wait_until(lambda: len(proxy.came) >= 3)
        assert "is not accepted" in str(events.errors[0]) and "expired" in str(events.errors[0])
        gaps = [later - earlier for earlier, later in zip(proxy.came, proxy.came[1:])]
        assert all(gap > 0.45 for gap in gaps), gaps
        client.close()


def test_proxy_that_says_nothing_falls_under_the_connect_timeout(serve, connect):
    with HttpProxy(is_silent=True) as proxy:
        client = connect(url_of(serve()), proxy=proxy.url(), connect_timeout=0.3, reconnect_interval=0.05, no_server=True)
        events = Events(client)
        client.start()
        wait_until(lambda: len(events.errors) >= 2)
        assert proxy.came[1] - proxy.came[0] < 1.0
        client.close()


def test_connecting_through_a_proxy_has_one_deadline_for_everything(connect):
    """Each byte comes in time, and the answer never."""
    with socket.create_server(("127.0.0.1", 0)) as dripping:
        port = dripping.getsockname()[1]
        client = connect("ws://localhost:9", proxy=f"http://127.0.0.1:{port}", connect_timeout=0.5, no_server=True)
        events = Events(client)
        client.start()
        peer, _ = dripping.accept()
        with peer:
            pause, deadline = threading.Event(), time.monotonic() + 3.0
            with contextlib.suppress(OSError):
                while not events.errors and time.monotonic() < deadline:
                    peer.sendall(b"H")
                    pause.wait(0.1)
            client.close()
        assert events.errors, "connecting outlived connect_timeout"


def test_close_does_not_wait_for_a_proxy_that_says_nothing(serve, connect):
    with HttpProxy(is_silent=True) as proxy:
        client = connect(url_of(serve()), proxy=proxy.url())
        wait_until(lambda: proxy.targets)
        before = time.monotonic()
        client.close()
        assert time.monotonic() - before < 2.0


def test_proxy_is_used_whatever_the_environment_says(serve, connect, monkeypatch):
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "*")
    with HttpProxy() as proxy:
        client = connect(url_of(serve()), proxy=proxy.url())
        assert client.call("ADD", {"x": 1, "y": 6}) == 7
        assert proxy.targets
        client.close()


def test_environment_names_no_proxy_for_a_client_that_did_not_ask(serve, connect, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert connect(serve(), proxy=None).call("ADD", {"x": 1, "y": 6}) == 7
