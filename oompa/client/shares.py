"""Whether the connections of a pool come to different processes of a server: pure but for its lock.

Who listens with several processes on one port leaves to the system which of them accepts a connection, and that draws lots:
of four connections to two processes all come to the same one in every eighth pool, and the other has nothing to do. A server
tells in its handshake which process it is. A connection that comes to one that has its share already is given up at once,
before anything was sent on it, and the next attempt draws again; soon at first, then with pauses, for the other processes may
be about to start, as all do when a server was restarted. Meanwhile the connections that are there carry the calls.
"""

import threading
from collections import Counter
from typing import Optional, Sequence, TypeVar

from .endpoints import Endpoints

T = TypeVar("T")

#: Seconds to wait after each connection in a row that was given up without finding another process. After the last of them
#: there is taken to be none, and whatever comes is good.
PAUSES = (0.0, 0.0, 0.0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0)

#: The longest wait where several connections look around.
_LONGEST_PAUSE = 2.0


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

    def elsewhere(self, seat: "Seat", process: str) -> Optional[float]:
        """Whether a connection that has come to a process is to try again: in so many seconds; None: it is to stay."""
        with self._lock:
            held = Counter(self._processes.values())
            if process not in held:
                self._in_vain = 0
            elif held[process] >= -(-self._size // (len(held) + 1)) and self._in_vain < len(PAUSES):
                pause = PAUSES[self._in_vain] * (self._size - len(self._processes))
                self._in_vain += 1
                return min(pause, _LONGEST_PAUSE)
            self._processes[seat] = process
            return None


class Seat(Endpoints):
    """Where one of the connections goes that share the processes of a server."""

    def __init__(self, shares: Shares) -> None:
        super().__init__()
        self._shares = shares

    def urls(self, urls: Sequence[T]) -> list[T]:
        """As any other's; and with an attempt to connect, what was before is no more."""
        self._shares.left(self)
        return super().urls(urls)

    def elsewhere(self, url: object, process: Optional[str]) -> Optional[float]:
        """When to try again, though a connection was met, for the process it has come to; None: never, it is to stay."""
        return None if process is None else self._shares.elsewhere(self, process)
