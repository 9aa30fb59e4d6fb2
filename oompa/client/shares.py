"""Whether the connections of a pool come to different processes of a server: pure but for its lock.

Who listens with several processes on one port leaves to the system which of them accepts a connection, and that draws lots:
of four connections to two processes all come to the same one in every eighth pool, and the other has nothing to do. A server
tells in its handshake which process it is. A connection that comes to one that has its share already is given up at once,
before anything was sent on it, and the next attempt draws again.
"""

import threading
from collections import Counter
from typing import Optional, Sequence, TypeVar

from .endpoints import Endpoints

T = TypeVar("T")

#: How often in a row connections are given up without finding another process: there may be none.
_IN_VAIN = 8


class Shares:
    """Which process each of several connections has come to.

    The share of a process is what it would have if there were one more than are known: two connections to the only one
    that is known of four, and then look for another.

    ``_lock`` guards all of it. Any thread.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.RLock()
        self._processes: "dict[Seat, str]" = {}
        self._in_vain = 0

    def left(self, seat: "Seat") -> None:
        """A connection is no more, or was not taken."""
        with self._lock:
            self._processes.pop(seat, None)

    def takes(self, seat: "Seat", process: str) -> bool:
        """Whether a connection that has come to a process is to stay there."""
        with self._lock:
            held = Counter(self._processes.values())
            if process not in held:
                self._in_vain = 0
            elif held[process] >= -(-self._size // (len(held) + 1)) and self._in_vain < _IN_VAIN:
                self._in_vain += 1
                return False
            self._processes[seat] = process
            return True


class Seat(Endpoints):
    """Where one of the connections goes that share the processes of a server."""

    def __init__(self, shares: Shares) -> None:
        super().__init__()
        self._shares = shares

    def urls(self, urls: Sequence[T]) -> list[T]:
        """As any other's; and with an attempt to connect, what was before is no more."""
        self._shares.left(self)
        return super().urls(urls)

    def takes(self, process: Optional[str]) -> bool:
        """Whether to stay with the process of a server that this connection has come to; always where it told none."""
        return process is None or self._shares.takes(self, process)
