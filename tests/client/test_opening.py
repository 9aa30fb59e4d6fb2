"""Getting there over real sockets: several addresses, lists, callables, headers, cookies, Unix sockets, SOCKS.

Cases 9, 10, 12 to 15, 17 and 18 of what people who do this job run into.
"""

import base64
import contextlib
import os
import re
import select
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest
import websocket
from conftest import CALCULATOR, CEILING, url_of, wait_until
from ports import reserved_port
from reliability.fake_server import FakeServer
from test_proxies import HttpProxy
from test_tls import pki
from upgrades import SOON, Answers, answer

from oompa import Client, ConnectionLost, RequestTimeout, current_request

__all__ = ["pki"]  # a fixture


@pytest.fixture
def name(monkeypatch):
    """Let a name have addresses: ``name("two.example", port, port)``; any port number stands for 127.0.0.1 and that port."""
    genuine = socket.getaddrinfo
    known = {}

    def getaddrinfo(host, port, *args, **options):
        host = host.decode() if isinstance(host, bytes) else host
        if host not in known:
            return genuine(host, port, *args, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", each)) for each in known[host]]

    def define(host, *ports):
        known[host] = ports
        return f"ws://{host}:9000"

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return define


@pytest.fixture
def swallowing():
    """A port that takes SYN packets and answers none: its queue is full, and nobody accepts."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listening.getsockname())
        probe = stack.enter_context(socket.socket())
        probe.setblocking(False)
        probe.connect_ex(listening.getsockname())
        if select.select([], [probe], [], 0.1)[1]:
            pytest.skip("this system answers SYN whatever the backlog")
        yield listening.getsockname()[1]


@pytest.fixture
def silent():
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture
def fake():
    """A server played by hand."""
    server = FakeServer()
    yield server
    server.close()


def connected_after(client):
    started = time.monotonic()
    client.wait_connected(CEILING)
    return time.monotonic() - started


# Several addresses: case 12.


def test_an_address_that_swallows_packets_is_followed_by_the_next_after_a_quarter_of_a_second(serve, connect, name, swallowing):
    """Case 12."""
    server = serve()
    client = connect(name("two.example", swallowing, server.port), no_server=True)
    client.start()
    assert 0.2 < connected_after(client) < 2.0
    assert client.call("ADD", {"x": 1, "y": 1}) == 2


def test_an_address_that_takes_the_connection_and_says_nothing_is_followed_by_the_next(serve, connect, name, silent):
    """Case 12."""
    client = connect(name("two.example", silent, serve().port), connect_timeout=60.0, no_server=True)
    client.start()
    assert connected_after(client) < 3.0


@pytest.mark.parametrize("status", ["503 Busy", "401 Who", "302 Found", "500 Oh"])
def test_an_address_that_is_full_or_refuses_is_followed_by_the_next_at_once(serve, connect, name, status):
    """Case 12."""
    with Answers(answer(status, "Retry-After: 60")) as other:
        client = connect(name("two.example", other.port, serve().port), no_server=True)
        client.start()
        assert connected_after(client) < 0.9 and len(other.came) == 1


def test_an_address_that_nobody_listens_on_is_followed_by_the_next_at_once(serve, connect, name):
    """Case 12."""
    with reserved_port() as port:
        client = connect(name("two.example", port, serve().port), no_server=True)
        client.start()
        assert connected_after(client) < 0.9


def test_tls_that_is_not_answered_is_followed_by_the_next_address(serve, connect, name, silent, pki):
    """Case 12: a node that is half dead is as silent in the TLS handshake."""
    server = serve()
    secure = type(server)(CALCULATOR)
    secure.listen(0, ssl=pki.server("two.example")).result(CEILING)
    try:
        url = name("two.example", silent, secure.port).replace("ws:", "wss:")
        client = connect(url, ssl=pki.client(), connect_timeout=60.0, no_server=True)
        client.start()
        assert connected_after(client) < 3.0
        client.close()
    finally:
        secure.close(timeout=0.1).result(CEILING)


def test_an_address_of_a_proxy_that_says_nothing_is_followed_by_the_next(serve, connect, name, silent):
    """Case 12: a proxy has a name with addresses, too."""
    with HttpProxy() as proxy:
        name("proxy.example", silent, proxy.port)
        client = connect(serve(), proxy="http://proxy.example:3128", connect_timeout=60.0, no_server=True)
        client.start()
        assert connected_after(client) < 3.0
        client.close()


def test_each_attempt_begins_with_another_address(connect, name):
    """Case 12."""
    with Answers(answer("503 Busy")) as first, Answers(answer("503 Busy")) as second:
        connect(name("two.example", first.port, second.port), **SOON)
        wait_until(lambda: min(len(first.came), len(second.came)) >= 4)
        order = sorted([(at, 1) for at in first.came[:4]] + [(at, 2) for at in second.came[:4]])
    assert [each for _, each in order] == [1, 2, 2, 1, 1, 2, 2, 1]


def test_all_addresses_are_under_one_deadline(connect, name, silent, swallowing):
    """Case 12."""
    client, errors = connect(name("two.example", silent, swallowing, silent), connect_timeout=0.4, no_server=True), []
    client.on("error", lambda error: errors.append((time.monotonic(), error)))
    started = time.monotonic()
    client.start()
    wait_until(lambda: errors)
    assert errors[0][0] - started < 1.4 and "connect_timeout" in str(errors[0][1])


def test_a_server_that_is_slow_gets_one_request_when_it_is_the_only_one(connect, fake):
    """The next address is asked as well after a second, but one address is asked once."""
    connect(f"ws://127.0.0.1:{fake.port}")
    connection = fake.accept_raw()
    answer_of = connection.handshake_answer()
    assert fake.is_left_alone(1.2)
    connection.send(answer_of)


def test_a_refusal_of_the_address_that_answers_fails_calls_at_once(connect, name):
    """Cases 12 and 49: of the addresses of ``localhost`` one is often nobody's."""
    with reserved_port() as port, Answers(answer("401 Who")) as server:
        client = connect(name("two.example", port, server.port), timeout=100.0)
        with pytest.raises(ConnectionLost, match="401"):
            client.dispatch("ADD").result(CEILING)


def test_closing_does_not_wait_for_addresses_that_say_nothing(name, silent, swallowing):
    client = Client(name("two.example", silent, swallowing), connect_timeout=60.0)
    wait_until(lambda: client._link._opening is not None and client._link._opening._visits)
    started = time.monotonic()
    client.close()
    assert time.monotonic() - started < 1.5


# Lists and callables.


def test_of_a_list_any_one_will_do(serve, connect):
    with reserved_port() as port, Answers(answer("503 Busy", "Retry-After: 60")) as full:
        urls = [f"ws://127.0.0.1:{port}", full.url, f"ws://127.0.0.1:{serve().port}"]
        for _ in range(5):
            client = connect(urls, no_server=True)
            client.start()
            assert connected_after(client) < 1.5
            client.close()


def test_clients_of_a_list_spread_over_it(serve, connect):
    servers = [serve(), serve()]
    for _ in range(24):
        connect([f"ws://127.0.0.1:{server.port}" for server in servers]).wait_connected(CEILING)
    assert all(len(server.connections) >= 2 for server in servers)


def test_a_list_has_refused_when_all_have_and_says_what_each_said(connect):
    """Case 49."""
    with Answers(answer("401 Who")) as first, Answers(answer("403 No")) as second:
        client = connect([first.url, second.url], timeout=100.0)
        error = client.dispatch("ADD").exception(CEILING)
        assert isinstance(error, ConnectionLost) and "none of 2 servers can be reached" in str(error)
        assert "401" in str(error) and "403" in str(error)


def test_a_list_of_which_one_is_away_has_not_refused(connect):
    with reserved_port() as port, Answers(answer("401 Who")) as first:
        client = connect([first.url, f"ws://127.0.0.1:{port}"], timeout=0.2, attempts=1, **SOON)
        assert isinstance(client.dispatch("ADD").exception(CEILING), RequestTimeout)


def test_a_callable_is_asked_for_the_url_at_each_connect(serve, connect):
    servers = [serve({"WHO": lambda _, number=number: number}) for number in range(3)]
    urls = [f"ws://127.0.0.1:{servers[0].port}", [f"ws://127.0.0.1:{servers[1].port}"], f"ws://127.0.0.1:{servers[2].port}"]
    client = connect(lambda: urls.pop(0), reconnect_interval=0.02)
    for number in range(3):
        assert client.call("WHO") == number
        servers[number].disconnect()
        wait_until(lambda: len(urls) == max(0, 1 - number))


@pytest.mark.parametrize("asked", [KeyError("the registry is down"), "http://nonsense", 5, [], None], ids=repr)
def test_a_callable_that_fails_is_a_failed_attempt_and_asked_again(serve, connect, asked):
    server, asking = serve(), [asked]

    def url():
        if not asking:
            return f"ws://127.0.0.1:{server.port}"
        if isinstance(asking[0], Exception):
            raise asking.pop()
        return asking.pop()

    client, errors = connect(url, no_server=True, **SOON), []
    client.on("error", errors.append)
    client.start()
    assert client.call("ECHO", 1, timeout=CEILING) == 1
    wait_until(lambda: errors)
    assert str(errors[0]).startswith("connecting failed: ") and len(errors) == 1
    assert repr(client) == "<Client to a URL that is asked for, connected, 0 pending>"


@pytest.mark.parametrize("url", [[], ["http://x"], ["ws://x", 5], {"ws://x": 1}, [["ws://x"]], b"ws://ann:s3cret@x"], ids=repr)
def test_what_is_no_list_of_urls_is_refused_where_it_is_written(url):
    with pytest.raises(ValueError, match="URL") as refused:
        Client(url, no_server=True)
    assert "s3cret" not in str(refused.value)


# The request: cases 10, 15 and 17.


def request_of(connect, fake, url=None, **options):
    """The lines of the upgrade request of a client."""
    connect(url or f"ws://127.0.0.1:{fake.port}", **options)
    return fake.accept_raw().http_request().decode().split("\r\n")


def test_a_host_header_replaces_ours_and_each_line_comes_once(connect, fake):
    """Case 15."""
    lines = request_of(connect, fake, headers={"host": "tenant.example", "Origin": "https://a.example", "X-A": "1"})
    names = [line.partition(":")[0].lower() for line in lines[1:] if line]
    assert len(names) == len(set(names)), lines
    assert "Host: tenant.example" in lines and "Origin: https://a.example" in lines and "X-A: 1" in lines
    assert lines[0] == "GET / HTTP/1.1"


@pytest.mark.parametrize(
    "url, host, resource",
    [
        ("ws://127.0.0.1:{port}/a?b=c", "127.0.0.1:{port}", "/a?b=c"),
        ("ws://LOCALHOST:{port}?b=c", "localhost:{port}", "/?b=c"),
        ("ws://127.0.0.1:{port}/a;b=1/c;d=2?e;f", "127.0.0.1:{port}", "/a;b=1/c;d=2?e;f"),
        ("ws://127.0.0.1:{port}//a", "127.0.0.1:{port}", "//a"),
        ("ws://127.0.0.1:{port}/tür", "127.0.0.1:{port}", "/t%C3%BCr"),
    ],
)
def test_without_one_the_host_is_that_of_the_url(connect, fake, url, host, resource):
    lines = request_of(connect, fake, url.format(port=fake.port))
    assert f"Host: {host.format(port=fake.port)}" in lines and lines[0] == f"GET {resource} HTTP/1.1"


@pytest.mark.parametrize("name", ["Connection", "Sec-WebSocket-Key", "upgrade"])
def test_a_callable_that_returns_what_belongs_to_the_handshake_is_a_failed_attempt_that_names_it(connect, fake, name):
    """Case 15."""
    client = connect(f"ws://127.0.0.1:{fake.port}", headers=lambda: {name: "s3cret"}, **SOON)
    with pytest.raises(ConnectionLost, match=f"headers may not have '{name}'") as caught:
        client.wait_connected(0.2)
    assert "s3cret" not in str(caught.value) and fake.is_left_alone(0.1)


@pytest.mark.parametrize(
    "user, credentials",
    [("ann:s3cret", "ann:s3cret"), ("a%40b:p%3Aq%2F", "a@b:p:q/"), ("ann", "ann:"), (":t", ":t"), ("%C3%BC:x", "ü:x")],
)
def test_the_user_of_a_url_is_sent_as_basic_authorization(connect, fake, user, credentials):
    """Case 10."""
    lines = request_of(connect, fake, f"ws://{user}@127.0.0.1:{fake.port}/")
    assert f"Authorization: Basic {base64.b64encode(credentials.encode()).decode()}" in lines
    assert f"Host: 127.0.0.1:{fake.port}" in lines and not any("@" in line for line in lines)


def test_an_authorization_that_is_given_counts_more_than_the_url(connect, fake):
    """Case 10."""
    lines = request_of(connect, fake, f"ws://ann:s3cret@127.0.0.1:{fake.port}/", headers={"authorization": "Bearer t"})
    assert [line for line in lines if line.lower().startswith("authorization")] == ["authorization: Bearer t"]


def test_a_client_without_a_user_sends_no_authorization(connect, fake):
    assert not [line for line in request_of(connect, fake) if line.lower().startswith("authorization")]


def test_no_error_or_log_shows_user_password_or_query(connect, caplog):
    """Case 10."""
    with reserved_port() as port:
        client = connect(f"ws://ann:s3cret@127.0.0.1:{port}/?token=s3cret", **SOON)
        with pytest.raises(RequestTimeout) as caught:
            client.call("ADD", timeout=0.2)
        client.close()
    assert "s3cret" not in f"{caught.value} {caught.value.__cause__!r} {client!r} {caplog.text}"


def test_subprotocols_are_offered_and_one_may_be_chosen(connect, fake):
    """Case 17."""
    client = connect(f"ws://127.0.0.1:{fake.port}", subprotocols=["v2.example", "token.s3cret"])
    connection = fake.accept_raw()
    accepted = connection.handshake_answer()
    connection.send(accepted.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: v2.example\r\n\r\n"))
    client.wait_connected(CEILING)


def test_a_server_that_knows_no_subprotocols_is_connected_to(serve, connect):
    """Case 17."""
    client = connect(serve({"SEEN": lambda _: current_request().connection.headers.get("Sec-WebSocket-Protocol")}),
                     subprotocols=["v2.example", "v1.example"])  # fmt: skip
    assert client.call("SEEN") == "v2.example, v1.example"


@pytest.mark.parametrize("offered", [(), ("v1.example",)])
def test_a_subprotocol_that_was_not_offered_is_no_handshake(connect, fake, offered):
    """Case 17."""
    client = connect(f"ws://127.0.0.1:{fake.port}", subprotocols=offered)
    connection = fake.accept_raw()
    accepted = connection.handshake_answer()
    connection.send(accepted.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: v9\r\n\r\n"))
    assert connection.rest() == b""
    with pytest.raises(ConnectionLost, match="it chose the subprotocol 'v9', which was not offered"):
        client.wait_connected(0.5)


@pytest.mark.parametrize("value", ["v1", 5, [5], [""], ["a b"], ["s3cret\n"], ["a", "a"], [b"s3cret"]], ids=repr)
def test_subprotocols_that_are_none_are_refused_by_name(value):
    """Case 17."""
    with pytest.raises((TypeError, ValueError), match="subprotocols") as refused:
        Client("ws://localhost:1", no_server=True, subprotocols=value)
    assert "s3cret" not in str(refused.value)


# Cookies: case 9.

COOKIES = [
    "Set-Cookie: session=of-alice; Domain=localhost; Path=/only/here",
    "set-cookie: a=1; Domain=oompa.invalid",
    "SET-COOKIE : b=2; Domain=.invalid",
    "\x1cSet-Cookie: c=3; Domain=localhost",
    "Set-Cookie: a/b=1",
    "Set-Cookie: lb=node-7; Domain=127.0.0.1",
]


def connect_with_cookies(connect, fake, url, **options):
    """A client that is sent cookies with the 101; its request, the next client's and the next attempt's are returned."""
    client = connect(url, reconnect_interval=0.02, **options)
    first = fake.accept_raw()
    answer_of = first.handshake_answer()
    first.send(answer_of.replace(b"\r\n\r\n", ("\r\n" + "\r\n".join(COOKIES) + "\r\n\r\n").encode()))
    client.wait_connected(CEILING)
    first.reset()
    again = fake.accept_raw().http_request()
    client.close()
    connect(url, **options)
    return again + fake.accept_raw().http_request()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_no_cookies_are_kept_or_shared_between_clients(connect, fake, host):
    """Case 9, and a cookie that cannot be read is no reason not to connect."""
    assert b"cookie" not in connect_with_cookies(connect, fake, f"ws://{host}:{fake.port}").lower()
    assert len(websocket._handshake.CookieJar.jar) == 0


def test_a_refusal_brings_no_cookies_either(connect):
    """Case 9."""
    with Answers(answer("503 Busy", *COOKIES), answer("302 Found", "Location: /", *COOKIES)) as server:
        connect(server.url, reconnect_interval=0.02)
        wait_until(lambda: len(server.requests) >= 3)
        assert not [request for request in server.requests if "cookie" in request.lower()]
    assert len(websocket._handshake.CookieJar.jar) == 0


def test_cookies_that_others_of_the_process_have_got_are_not_sent(connect, fake):
    """Case 9: whoever uses websocket-client beside us fills its jar."""
    jar = websocket._handshake.CookieJar
    jar.add("other=1; Domain=localhost")
    try:
        lines = request_of(connect, fake, f"ws://localhost:{fake.port}")
        assert not [line for line in lines if line.lower().startswith("cookie")]
    finally:
        jar.jar.clear()


def test_a_cookie_that_is_given_is_sent(connect, fake):
    assert "Cookie: a=b" in request_of(connect, fake, headers={"Cookie": "a=b"})


# SOCKS.


class SocksProxy:
    """A SOCKS 5 proxy that leads everybody to 127.0.0.1 and the port asked for."""

    def __init__(self):
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.asked = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._socket.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(peer,), daemon=True))
                self._threads[-1].start()

    def _serve(self, peer):
        with peer, contextlib.suppress(OSError):
            peer.settimeout(CEILING)
            peer.recv(2 + peer.recv(2)[1])
            peer.sendall(b"\x05\x00")
            kind = peer.recv(4)[3]
            host = peer.recv(4) if kind == 1 else peer.recv(peer.recv(1)[0])
            (port,) = struct.unpack("!H", peer.recv(2))
            self.asked.append((host, port))
            with socket.create_connection(("127.0.0.1", port)) as server:
                peer.sendall(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
                pairs = {peer: server, server: peer}
                while ready := select.select(list(pairs), [], [], CEILING)[0]:
                    for sock in ready:
                        data = sock.recv(65536)
                        if not data:
                            return
                        pairs[sock].sendall(data)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(CEILING)


@pytest.fixture
def socks():
    pytest.importorskip("python_socks")
    with SocksProxy() as proxy:
        yield proxy


def test_a_connection_through_a_socks_proxy_carries_calls(serve, connect, socks):
    server = serve()
    client = connect(url_of(server), proxy=f"socks5h://127.0.0.1:{socks.port}")
    assert client.call("ADD", {"x": 1, "y": 6}, timeout=CEILING) == 7
    assert socks.asked == [(b"\x7f\x00\x00\x01", server.port)]
    client.close()


def test_tls_goes_through_a_socks_proxy(connect, socks, pki, serve):
    server = type(serve())(CALCULATOR)
    server.listen(0, ssl=pki.server()).result(CEILING)
    try:
        client = connect(f"wss://localhost:{server.port}", ssl=pki.client(), proxy=f"socks5h://127.0.0.1:{socks.port}")
        assert client.call("ADD", {"x": 1, "y": 6}, timeout=CEILING) == 7
        client.close()
    finally:
        server.close(timeout=0.1).result(CEILING)


def test_no_cookies_are_kept_on_the_socks_road_either(connect, fake, socks):
    """Case 9."""
    options = {"proxy": f"socks5h://127.0.0.1:{socks.port}"}
    assert b"cookie" not in connect_with_cookies(connect, fake, f"ws://localhost:{fake.port}", **options).lower()
    assert len(websocket._handshake.CookieJar.jar) == 0
    fake.close()


def test_a_socks_proxy_that_is_away_is_told(connect):
    pytest.importorskip("python_socks")
    with reserved_port() as port:
        client = connect("ws://localhost:9", proxy=f"socks5://127.0.0.1:{port}", **SOON)
        with pytest.raises(ConnectionLost, match="no way through the SOCKS proxy"):
            client.wait_connected(0.3)
        client.close()


# Unix sockets.


@pytest.fixture
def local(tmp_path):
    """A server on a Unix socket: its path."""
    from oompa import Server

    path = str(tmp_path / "of a server.sock")
    server = Server({**CALCULATOR, "PEER": lambda _: list(current_request().connection.remote_address)}, path="/ws")
    server.listen(path=path).result(CEILING)
    yield path
    server.close(timeout=0.2).result(CEILING)


def test_calls_go_over_a_unix_socket(connect, local):
    url = f"ws+unix:{local.replace(' ', '%20')}:/ws"
    client = connect(url)
    assert client.call("ADD", {"x": 1, "y": 6}, timeout=CEILING) == 7
    assert client.call("PEER") == ["<local>", 0]
    assert repr(client) == f"<Client to ws+unix:{local}, connected, 0 pending>"


def test_a_unix_socket_may_stand_in_a_list_and_needs_no_proxy(connect, local):
    with reserved_port() as port:
        urls = [f"ws+unix:{local}.missing:/ws".replace(" ", "%20"), f"ws+unix://{local}:/ws".replace(" ", "%20")]
        client = connect(urls, proxy=f"http://127.0.0.1:{port}")
        assert client.call("ADD", {"x": 1, "y": 6}, timeout=CEILING) == 7
        client.close()


def test_a_wrong_path_behind_a_unix_socket_is_told_as_elsewhere(connect, local):
    client = connect(f"ws+unix:{local.replace(' ', '%20')}", timeout=100.0)
    with pytest.raises(ConnectionLost, match=r"404 Not Found.*is the path right"):
        client.dispatch("ADD").result(CEILING)


# Forks and what is imported late: cases 18 and 53.

RESOLVES = """
import sys
from oompa import Client
client = Client(sys.argv[1], no_server=True, reconnect_interval=0.01)
client.start()
before = set(sys.modules)
try:
    client.wait_connected(float(sys.argv[2]))
    client.call("ADD", {"x": 1, "y": 1})
except ConnectionError:
    pass
client.close()
print(sorted(set(sys.modules) - before))
"""


@pytest.mark.parametrize("to", ["nobody", "a server", "a server without TLS", "a server that is full"])
def test_connecting_imports_nothing_on_the_keepers_thread(serve, to):
    """Case 53: a process that forks meanwhile would have it half imported for ever. IDNA was imported by getaddrinfo."""
    busy = answer("503 Busy", "Retry-After: Wed, 21 Oct 2026 07:28:30 GMT", "Date: Wed, 21 Oct 2026 07:28:00 GMT")
    with reserved_port() as port, Answers(busy) as full:
        url = {
            "nobody": f"wss://localhost:{port}",
            "a server": f"ws://localhost:{serve().port}",
            "a server without TLS": f"wss://localhost:{serve().port}",
            "a server that is full": full.url,
        }[to]
        command = [sys.executable, "-c", RESOLVES, url, "10" if to == "a server" else "0.5"]
        shown = subprocess.run(command, capture_output=True, timeout=60, text=True, check=True)
    assert shown.stdout == "[]\n", shown


def test_a_connection_that_is_given_up_ends_for_the_server_though_a_fork_has_a_copy(connect):
    """Case 18."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = connect(f"ws://127.0.0.1:{listening.getsockname()[1]}", connect_timeout=0.3, no_server=True)
        client.start()
        peer, _ = listening.accept()
        copies = [os.dup(visit.sock.fileno()) for visit in client._link._opening._visits]  # as a fork has
        try:
            with peer:
                peer.settimeout(CEILING)
                data = b""
                while piece := peer.recv(65536):
                    data += piece
                assert re.match(rb"GET / HTTP/1.1\r\n", data) and copies
        finally:
            for copy in copies:
                os.close(copy)
        client.close()
