"""Requests that are not there yet, of peers that may drip them: where their bytes wait, in the kernel, they hold no thread.

One thread: that of the loop which asks. Linux alone has the means, an edge-triggered epoll, which tells of bytes once and not
for as long as they lie there.
"""

import select
import socket
from typing import Any, Iterator, NamedTuple

#: Bytes a head may have.
HEAD_LIMIT = 65536

#: Whether requests can be waited for here.
is_possible = hasattr(select, "epoll")


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


class Heads:
    """Connections whose request is not there yet.

    Args:
        timeout: Seconds a peer has to send it.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._epoll = select.epoll()
        self._waiting: dict[int, _Waiting] = {}  # in the order of their deadlines

    def fileno(self) -> int:
        """The descriptor that is readable when ``arrived`` has something to look at."""
        return self._epoll.fileno()

    def wait(self, connection: Any, sock: socket.socket, now: float) -> None:
        """Wait for the request of a connection; it may be there already, and then ``arrived`` tells so."""
        self._waiting[sock.fileno()] = _Waiting(connection, sock, now + self._timeout)
        self._epoll.register(sock, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)

    def arrived(self) -> Iterator[tuple[Any, bool]]:
        """The connections whose request has come, and whether it can be read: not one that is too long."""
        for descriptor, _ in self._epoll.poll(0):
            waiting = self._waiting.get(descriptor)
            try:
                is_over, is_good = waiting is not None and is_there(waiting.sock), True
            except TooLong:
                is_over, is_good = True, False
            if is_over:
                yield self._take(descriptor), is_good

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
        return self._waiting.pop(descriptor).connection
