"""The web server that ``listen`` starts: what it is bound to, what it lets in, and what it does not leave behind."""

import contextlib
import logging
import multiprocessing
import os
import socket
import ssl
import sys

import pytest
from conftest import CEILING, wait_until
from raw_peer import RawPeer, health, request_frame, upgrade

from oompa import Client, Server
from oompa.server import embedded


@pytest.fixture
def listening():
    """Let a server listen: ``listening(server, host, ssl)`` returns its port; closed after the test."""
    servers = []

    def start(server, *arguments):
        server.listen(0, *arguments).result(CEILING)
        servers.append(server)
        return server.port

    yield start
    for server in servers:
        server.close(timeout=0.5).result(CEILING)


@pytest.fixture
def tls():
    """A context for a server."""
    import trustme

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    return context


# Where it listens.


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_the_address_of_all_interfaces_takes_ipv4_as_well(listening):
    """Case 16."""
    port = listening(Server({"ONE": lambda _: 1}), "::")
    for host in ("127.0.0.1", "[::1]"):
        with Client(f"ws://{host}:{port}") as client:
            assert client.call("ONE") == 1


# Requests.


def answer(port, extra=""):
    """The answer to an upgrade request with more lines."""
    with RawPeer(port) as peer:
        peer.send(upgrade(port, extra=extra))
        return peer.response()


@pytest.mark.parametrize("sign", ["\0", "\x01", "\x0b", "\x1f", "\x7f"], ids=ascii)
def test_a_value_of_a_header_with_a_control_character_is_refused(serve, sign):
    """Case 11."""
    server = serve()
    for place in (f"X-A: a{sign}b\r\n", f"X-A: {sign}b\r\n", f"Origin: http://127.0.0.1:{server.port}{sign}\r\n"):
        assert answer(server.port, place).status == 400
    assert server.connections == []


@pytest.mark.parametrize("line", ["X-A: a\r\n b", "X A: b", "X-A : b", ": b", "no colon"])
def test_a_line_that_is_no_header_is_refused(serve, line):
    """Case 11: folded lines and names that are none as well, which proxies read in other ways."""
    assert answer(serve().port, f"{line}\r\n").status == 400


def test_a_second_host_is_refused(serve):
    """Case 11."""
    assert answer(serve().port, "Host: localhost\r\n").status == 400


def test_a_value_may_hold_tabs_and_letters_beyond_ascii(serve):
    assert answer(serve().port, "X-A: a\tb \xe9\r\n").status == 101


def test_health_is_asked_with_good_headers_too(serve):
    """Case 11."""
    server = serve()
    with RawPeer(server.port) as peer:
        peer.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: a\0b\r\n\r\n")
        assert peer.response().status == 400


# Subprotocols.


@pytest.mark.parametrize(
    "offered, chosen",
    [
        ("oompa", "oompa"),
        ("token-of-ann, oompa", "oompa"),
        ("v2, oompa", "v2"),
        ("oompa,v2", "oompa"),
        ("other", None),
        ("", None),
        ("OOMPA", None),
    ],
)
def test_the_first_subprotocol_that_is_known_is_chosen(serve, offered, chosen):
    """Case 17."""
    told = answer(serve(subprotocols=["oompa", "v2"]).port, f"Sec-WebSocket-Protocol: {offered}\r\n")
    assert told.status == 101 and told.headers.get("sec-websocket-protocol") == chosen


def test_several_lines_of_subprotocols_are_one_list(serve):
    """Case 17."""
    told = answer(serve(subprotocols=["oompa"]).port, "Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: oompa\r\n")
    assert told.headers["sec-websocket-protocol"] == "oompa"


def test_a_server_that_knows_no_subprotocol_chooses_none(serve):
    assert "sec-websocket-protocol" not in answer(serve().port, "Sec-WebSocket-Protocol: oompa\r\n").headers


def test_authenticate_may_read_a_token_that_is_offered_as_a_subprotocol(serve, connect):
    """Case 17: a browser has no other header to put one into."""

    def authenticate(request):
        return "token-of-ann" in request.headers.get("Sec-WebSocket-Protocol", "")

    server = serve(authenticate=authenticate, subprotocols=["oompa"])
    assert answer(server.port, "Sec-WebSocket-Protocol: oompa, token-of-ann\r\n").status == 101
    assert answer(server.port, "Sec-WebSocket-Protocol: oompa\r\n").status == 401


@pytest.mark.parametrize(
    "names, error",
    [(["a b"], ValueError), ([""], ValueError), (["a,b"], ValueError), ("oompa", TypeError), ([5], TypeError), (5, TypeError)],
)
def test_what_is_no_list_of_subprotocols_is_refused(names, error):
    with pytest.raises(error, match="subprotocols"):
        Server({}, subprotocols=names)


# TLS.


@pytest.mark.parametrize("context", [("cert.pem", "key.pem"), "adhoc", True, 5])
def test_what_is_no_context_is_refused_where_it_is_written(context):
    """Case 52: it said ready, and the thread that accepts died at the first connection."""
    server = Server({})
    for start in (server.listen, server.run):
        with pytest.raises(TypeError, match="ssl must be an ssl.SSLContext, not .*: make one with"):
            start(0, ssl=context)
    assert server.port is None


def test_a_context_for_clients_is_refused_where_it_is_written():
    """Case 52."""
    with pytest.raises(ValueError, match="ssl must be a context for servers"):
        Server({}).listen(0, ssl=ssl.create_default_context())


def test_a_context_that_fails_costs_a_connection_and_not_the_server(listening, tls, monkeypatch, caplog):
    """Case 52: whatever it raises."""
    server = Server({})
    port = listening(server, "127.0.0.1", tls)
    problems = iter([ValueError("not now"), MemoryError()])
    plain = tls.wrap_socket

    class Context:
        def wrap_socket(self, *args, **kwargs):
            for problem in problems:
                raise problem
            return plain(*args, **kwargs)

    monkeypatch.setattr(server._embedded, "ssl_context", Context())
    for _ in range(2):
        with RawPeer(port) as peer:
            assert peer.ends()
    wait_until(lambda: caplog.text.count("could not be accepted") == 2)
    with socket.create_connection(("127.0.0.1", port), CEILING) as plain_socket:
        trusting = ssl._create_unverified_context()
        with trusting.wrap_socket(plain_socket) as sock:
            assert sock.version()


@pytest.mark.parametrize("leave", ["close", "reset"])
def test_a_probe_of_a_tls_port_is_no_warning(listening, tls, caplog, leave):
    """Case 18: load balancers connect and leave, once a second."""
    caplog.set_level(logging.DEBUG, "oompa.server")
    port = listening(Server({}), "127.0.0.1", tls)
    for _ in range(3):
        getattr(RawPeer(port), leave)()
    wait_until(lambda: caplog.text.count("left without a word") == 3)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_peer_that_speaks_no_tls_is_a_warning(listening, tls, caplog):
    """Case 18: only who says nothing is a probe."""
    port = listening(Server({}), "127.0.0.1", tls)
    with RawPeer(port) as peer:
        peer.send(b"GET / HTTP/1.1\r\n\r\n")
        assert peer.ends()
    wait_until(lambda: "TLS handshake of 127.0.0.1 refused" in caplog.text)


# Forks.


def wait_for_a_byte(pipe):
    """What a child does: hold whatever it has inherited."""
    pipe.recv_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a listening socket cannot be shut down")
@pytest.mark.parametrize("is_local", [False, True])
def test_closing_waits_for_no_look(tmp_path, monkeypatch, is_local):
    monkeypatch.setattr(embedded, "_POLL_INTERVAL", 2 * CEILING)
    server = Server({})
    server.listen(**({"path": str(tmp_path / "s")} if is_local else {"port": 0})).result(CEILING)
    server.close().result(CEILING)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_a_task_forks_does_not_keep_the_port(serve):
    """Case 18."""
    children = []
    near, far = multiprocessing.Pipe()

    def fork(payload):
        child = multiprocessing.get_context("fork").Process(target=wait_for_a_byte, args=(far,), daemon=True)
        child.start()
        children.append(child)
        return child.pid

    server = serve({"FORK": fork})
    port = server.port
    with Client(f"ws://127.0.0.1:{port}") as client:
        assert client.call("FORK") != os.getpid()
    server.close(timeout=0.5).result(CEILING)
    try:
        assert children[0].is_alive()
        with contextlib.closing(socket.socket()) as visitor:
            assert visitor.connect_ex(("127.0.0.1", port)) != 0
        server.listen(port).result(CEILING)
        assert health(port) == (200, b"ok")
    finally:
        near.send_bytes(b"x")
        children[0].join(CEILING)
        children[0].close()
        near.close()
        far.close()


def test_frames_that_come_with_the_upgrade_are_read(serve):
    """Whether or not they came along with the bytes of the request."""
    server = serve()
    with RawPeer(server.port) as peer:
        request, frames = upgrade(server.port), request_frame("ADD", {"x": 1, "y": 2})
        peer.send(request + frames + frames[:7])
        peer.upgraded(request)
        assert peer.reply()["payload"] == 3
        peer.send(frames[7:])
        assert peer.reply()["payload"] == 3


@pytest.mark.parametrize("extra", ["Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n"])
def test_an_upgrade_with_a_body_is_refused(serve, extra):
    server = serve()
    with RawPeer(server.port) as peer:
        peer.send(upgrade(server.port, extra=extra))
        assert peer.response().status == 400
