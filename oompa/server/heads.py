"""Requests that are not there yet, of peers that may drip them: where their bytes wait, in the kernel, they hold no thread.

One thread: that of the loop which asks. Linux alone has the means, an edge-triggered epoll, which tells of bytes once and not
for as long as they lie there.
"""

import select
import socket
from contextlib import suppress
from typing import Any, Iterator, NamedTuple

#: Bytes a head may have.
HEAD_LIMIT = 65536

#: Whether requests can be waited for here.
is_possible = hasattr(select, "epoll")

#: The peer sends nothing more, or is gone.
_END = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR if is_possible else 0


_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

#: How often a socket is read from before others have their turn.
_READS = 64


class _Waiting(NamedTuple):
    connection: Any
    sock: socket.socket
    deadline: float


class TooLong(Exception):
    """The head of a request exceeds ``HEAD_LIMIT``."""


def is_there(sock: socket.socket) -> bool:
    """Whether the head of a request lies in a socket, or there is nothing more to wait for: its end, or a fault.

    Raises:
        TooLong: It is longer than can be waited for.
    """
    try:
        head = sock.recv(HEAD_LIMIT, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    if not head or b"\r\n\r\n" in head or b"\n\n" in head:
        return True
    if len(head) == HEAD_LIMIT:
        raise TooLong
    return False


def _drain(sock: socket.socket) -> bool:
    """Read away what there is; returns whether more may come."""
    try:
        for _ in range(_READS):
            if not sock.recv(HEAD_LIMIT, socket.MSG_DONTWAIT):
                return False
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


class Heads:
    """Connections whose request is not there yet.

    Args:
        timeout: Seconds a peer has to send it.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._epoll = select.epoll()
        self._waiting: dict[int, _Waiting] = {}  # in the order of their deadlines
        self._refused: set[int] = set()

    def fileno(self) -> int:
        """The descriptor that is readable when ``arrived`` has something to look at."""
        return self._epoll.fileno()

    def wait(self, connection: Any, sock: socket.socket, now: float) -> None:
        """Wait for the request of a connection; it may be there already, and then ``arrived`` tells so."""
        self._waiting[sock.fileno()] = _Waiting(connection, sock, now + self._timeout)
        self._epoll.register(sock, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)

    def arrived(self) -> Iterator[tuple[Any, bool]]:
        """The connections that need not wait any more, each with whether there is something to read: a request, or its end. The
        others had more to say than a head may have; they have been refused."""
        for descriptor, events in self._epoll.poll(0):
            waiting = self._waiting.get(descriptor)
            if waiting is None:
                continue
            is_over = bool(events & _END)
            if descriptor in self._refused:
                if not _drain(waiting.sock) or is_over:
                    yield self._take(descriptor), False
                continue
            try:
                if is_over or is_there(waiting.sock):
                    yield self._take(descriptor), True
            except TooLong:
                self._refuse(descriptor, waiting.sock)

    def _refuse(self, descriptor: int, sock: socket.socket) -> None:
        """Answer a request that is too long. What comes meanwhile is read away, or a reset would overtake the answer."""
        self._refused.add(descriptor)
        with suppress(OSError):
            sock.send(_TOO_LONG, socket.MSG_DONTWAIT)
            sock.shutdown(socket.SHUT_WR)
        _drain(sock)

    def overdue(self, now: float) -> Iterator[Any]:
        """The connections whose time is over."""
        while self._waiting:
            descriptor, waiting = next(iter(self._waiting.items()))
            if waiting.deadline > now:
                return
            yield self._take(descriptor)

    def close(self) -> None:
        """Wait for nothing any more."""
        self._waiting.clear()
        self._epoll.close()

    def _take(self, descriptor: int) -> Any:
        self._epoll.unregister(descriptor)
        self._refused.discard(descriptor)
        return self._waiting.pop(descriptor).connection
