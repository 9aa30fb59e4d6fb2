"""How old connections become where ``max_connection_age`` is set, so that a server which is new gets its share of them.

``Ages`` is what is due when, and pure. ``Reaper`` does it, on one thread for all connections of a server.
"""

import heapq
import random
import threading
from itertools import count
from time import monotonic
from typing import Callable, Iterator, NamedTuple, Optional, Protocol

from ..logs import get_logger
from ..threads import OwnedThread

_logger = get_logger("oompa.server")

#: How much earlier or later than ``max_connection_age`` a connection may end: those that came together do not go together.
JITTER = 0.1


class Mortal(Protocol):
    """A connection, as far as its age goes."""

    @property
    def is_live(self) -> bool:
        """Whether it has not ended."""

    def drain(self) -> None:
        """Take no more requests, and close when those that run have replied."""

    def close(self) -> None:
        """Start the closing handshake, whatever runs."""


class _Due(NamedTuple):
    when: float
    order: int
    connection: Mortal
    is_drained: bool


#: Ended connections that may be kept for want of a look at them.
_SLACK = 64


class Ages:
    """Which connections are to end.

    Args:
        max_age: Seconds, give or take ``JITTER``.
        drain_timeout: Seconds the tasks of a connection that is too old may take to finish.
        draw: A number from 0 to 1.
    """

    def __init__(self, max_age: float, drain_timeout: float, draw: Callable[[], float] = random.random) -> None:
        self._max_age = max_age
        self._drain_timeout = drain_timeout
        self._draw = draw
        self._due: list[_Due] = []
        self._sweep_at = _SLACK
        self._orders = count()

    def entered(self, connection: Mortal, now: float) -> bool:
        """A connection begins; returns whether it is the next to end."""
        age = self._max_age * (1.0 + JITTER * (2.0 * self._draw() - 1.0))
        self._add(now + age, connection, False)
        return self._due[0].connection is connection

    def tick(self, now: float) -> Iterator[Callable[[], None]]:
        """What is to be done by ``now``: each a method of a connection."""
        while self._due and self._due[0].when <= now:
            when, _, connection, is_drained = heapq.heappop(self._due)
            if not connection.is_live:
                continue
            if is_drained:
                yield connection.close
            else:
                self._add(when + self._drain_timeout, connection, True)
                yield connection.drain

    def wait(self, now: float) -> Optional[float]:
        """Seconds until something is due; None: nothing will be."""
        return max(0.0, self._due[0].when - now) if self._due else None

    def _add(self, when: float, connection: Mortal, is_drained: bool) -> None:
        if len(self._due) >= self._sweep_at:  # half of them or more may have ended
            self._due = [each for each in self._due if each.connection.is_live]
            heapq.heapify(self._due)
            self._sweep_at = 2 * len(self._due) + _SLACK
        heapq.heappush(self._due, _Due(when, next(self._orders), connection, is_drained))


class Reaper:
    """Ends connections that are too old, on a thread that starts with the first and ends at ``close``.

    ``_changed`` guards the ages and whether it is closed; connections are ended outside it.
    """

    def __init__(self, max_age: float, drain_timeout: float) -> None:
        self._ages = Ages(max_age, drain_timeout)
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = OwnedThread("oompa-ages", self._live)

    def entered(self, connection: Mortal) -> None:
        """A connection begins."""
        with self._changed:
            if self._ages.entered(connection, monotonic()):
                self._changed.notify()
        try:
            self._thread.start()
        except (RuntimeError, MemoryError):
            pass  # no thread to be had: the next connection tries again

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(monotonic() + 10.0)

    def _live(self) -> None:
        while True:
            with self._changed:
                if self._is_closed:
                    return
                due = list(self._ages.tick(monotonic()))
                if not due:
                    self._changed.wait(self._ages.wait(monotonic()))
            for end in due:
                try:
                    end()
                except Exception:  # the others are to end all the same
                    _logger.exception("a connection that is too old could not be ended")
