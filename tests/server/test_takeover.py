"""A socket taken off its web server: what is left in its place, and which servers it can be taken off."""

import io
import socket
import ssl
from types import SimpleNamespace

import pytest

from oompa.server.takeover import SOCKET, Taken, can_be_taken, early_bytes


@pytest.fixture
def pair():
    """The web server's socket and the peer's."""
    ours, peer = socket.socketpair()
    with ours, peer:
        yield ours, peer


def test_what_is_left_behind_is_dead_and_what_is_taken_lives_on(pair):
    ours, peer = pair
    number = ours.fileno()
    taken = Taken({SOCKET: ours})
    with taken.sock:
        taken.leave()
        assert ours.fileno() == number
        with pytest.raises(BrokenPipeError):
            ours.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        assert ours.recv(1) == b""
        ours.close()
        taken.sock.sendall(b"frames")
        assert peer.recv(100) == b"frames"
        peer.sendall(b"more")
        assert taken.sock.recv(100) == b"more"


def test_who_stays_has_lost_nothing(pair):
    ours, peer = pair
    Taken({SOCKET: ours}).stay()
    ours.sendall(b"an answer")
    assert peer.recv(100) == b"an answer"


def test_no_child_inherits_what_is_left_behind(pair):
    taken = Taken({SOCKET: pair[0]})
    with taken.sock:
        taken.leave()
        assert not pair[0].get_inheritable() and not taken.sock.get_inheritable()


def test_a_plain_socket_of_gunicorns_threads_can_be_taken(pair):
    assert can_be_taken({SOCKET: pair[0]})


def test_one_over_tls_and_one_of_another_server_cannot(pair):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with context.wrap_socket(pair[0].dup(), server_side=True, do_handshake_on_connect=False) as wrapped:
        assert not can_be_taken({SOCKET: wrapped})
    assert not can_be_taken({"werkzeug.socket": pair[0]})


def test_what_gunicorn_has_read_beyond_the_request_is_found():
    def environ(reader):
        return {"wsgi.input": SimpleNamespace(reader=reader)}

    assert early_bytes(environ(SimpleNamespace(unreader=SimpleNamespace(buf=io.BytesIO(b"frames"))))) == b"frames"
    assert early_bytes(environ(SimpleNamespace(unreader=SimpleNamespace(buf=io.BytesIO())))) == b""
    assert early_bytes({"wsgi.input": io.BytesIO(b"a body")}) == b""
