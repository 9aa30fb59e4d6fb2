"""Requests that are waited for: what is there, what is not, and whose time is over."""

import socket

import pytest

from oompa.server import heads
from oompa.server.heads import HEAD_LIMIT, Heads, TooLong, is_there

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

pytestmark = pytest.mark.skipif(not heads.is_possible, reason="no epoll")


@pytest.fixture
def pairs():
    """Make pairs of connected sockets, ours and the peer's: ``pairs()``."""
    made = []

    def make():
        made.extend(socket.socketpair())
        return made[-2:]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def waiting():
    """Those that are waited for ten seconds."""
    waiting = Heads(10.0)
    yield waiting
    waiting.close()


@pytest.mark.parametrize("sent, expected", [(b"", False), (REQUEST[:-1], False), (REQUEST, True), (REQUEST + b"more", True)])
def test_a_head_is_there_with_its_last_byte_and_is_left_where_it_is(pairs, sent, expected):
    ours, peer = pairs()
    peer.sendall(sent)
    assert is_there(ours) is expected
    peer.sendall(b"!")
    assert ours.recv(1000) == sent + b"!"


def test_a_peer_that_has_gone_is_not_waited_for(pairs):
    ours, peer = pairs()
    peer.close()
    assert is_there(ours)


def test_a_head_without_end_is_too_long(pairs):
    ours, peer = pairs()
    peer.sendall(b"x" * HEAD_LIMIT)
    with pytest.raises(TooLong):
        is_there(ours)


def test_who_drips_comes_when_all_is_there(pairs, waiting):
    ours, peer = pairs()
    waiting.wait("one", ours, 0.0)
    for index in range(len(REQUEST)):
        assert list(waiting.arrived()) == []
        peer.sendall(REQUEST[index:index + 1])
    assert list(waiting.arrived()) == [("one", True)]
    assert list(waiting.arrived()) == [] and list(waiting.overdue(1e9)) == []


def test_what_is_there_before_it_is_waited_for_comes_at_once(pairs, waiting):
    ours, peer = pairs()
    peer.sendall(REQUEST)
    waiting.wait("one", ours, 0.0)
    assert list(waiting.arrived()) == [("one", True)]


def test_who_sends_too_much_is_refused_and_heard_out(pairs, waiting):
    ours, peer = pairs()
    waiting.wait("one", ours, 0.0)
    peer.sendall(b"x" * HEAD_LIMIT)
    assert list(waiting.arrived()) == []
    assert peer.recv(1000).startswith(b"HTTP/1.1 431 ") and peer.recv(1000) == b""
    peer.sendall(b"x" * HEAD_LIMIT)
    assert list(waiting.arrived()) == []
    peer.close()
    assert list(waiting.arrived()) == [("one", False)]


@pytest.mark.parametrize("how", ["shutdown", "close"])
def test_who_leaves_in_the_middle_is_not_waited_for(pairs, waiting, how):
    ours, peer = pairs()
    peer.sendall(REQUEST[:10])
    waiting.wait("one", ours, 0.0)
    assert list(waiting.arrived()) == []
    peer.shutdown(socket.SHUT_WR) if how == "shutdown" else peer.close()
    assert list(waiting.arrived()) == [("one", True)]


def test_those_whose_time_is_over_go_in_order(pairs, waiting):
    kept = [pairs() for _ in range(3)]
    for number, (ours, _) in enumerate(kept):
        waiting.wait(number, ours, float(number))
    assert list(waiting.overdue(9.9)) == []
    assert list(waiting.overdue(11.0)) == [0, 1]
    assert list(waiting.overdue(12.0)) == [2]
