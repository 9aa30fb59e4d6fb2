"""Pings of all connections of a server, from one thread.

A connection's own thread could wake for them, by the timeout of its socket. But Linux fires such timeouts together (of 25 s
those of two seconds), and all the threads that wake then wait for the interpreter, each waking each five milliseconds to ask
for it: from about a thousand on that is all the machine does. One thread pings one after the other, and so come the answers.

``Beats`` is who is to be looked at when, and pure. ``Pulse`` looks.
"""

import heapq
import threading
from itertools import count
from time import monotonic
from typing import Any, Optional, Protocol

from ..logs import get_logger
from ..threads import OwnedThread

_logger = get_logger("oompa.server")

#: Seconds the thread sleeps at least: what falls due meanwhile is done in one go.
_GRAIN = 0.01


class Beating(Protocol):
    """A connection, as far as pings go."""

    def beat(self, now: float) -> float:
        """Ping the peer if it is silent, or give it up; returns when to do so next."""


class Beats:
    """Which connections are to be looked at, and when."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int]] = []
        self._connections: dict[int, Beating] = {}
        self._numbers: dict[Any, int] = {}
        self._next = count()

    def entered(self, connection: Beating, when: float) -> bool:
        """A connection is to be looked at; returns whether it is the next one."""
        number = self._numbers[connection] = next(self._next)
        self._connections[number] = connection
        return self._add(when, number)

    def left(self, connection: Beating) -> None:
        """A connection has ended."""
        self._connections.pop(self._numbers.pop(connection, -1), None)

    def take(self, now: float) -> list[tuple[int, Beating]]:
        """Those that are due by ``now``, each with its number."""
        taken = []
        while self._due and self._due[0][0] <= now:
            number = heapq.heappop(self._due)[1]
            if number in self._connections:
                taken.append((number, self._connections[number]))
        return taken

    def again(self, number: int, when: float) -> None:
        """One that was taken is to be looked at again, if it has not ended."""
        if number in self._connections:
            self._add(when, number)

    def wait(self, now: float) -> Optional[float]:
        """Seconds until one is due; None: none will be."""
        return max(0.0, self._due[0][0] - now) if self._due else None

    def _add(self, when: float, number: int) -> bool:
        if len(self._due) > 2 * len(self._connections) + 64:  # most have ended before they were due
            self._due = [each for each in self._due if each[1] in self._connections]
            heapq.heapify(self._due)
        heapq.heappush(self._due, (when, number))
        return self._due[0][1] == number


class Pulse:
    """Looks after the connections of a server, on a thread that starts with the first and ends at ``close``.

    ``_changed`` guards the beats and whether it is closed; connections are looked at outside it.

    Args:
        interval: Seconds of silence before a ping; None: no pings, and no thread.
    """

    def __init__(self, interval: Optional[float]) -> None:
        self._interval = interval
        self._beats = Beats()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = OwnedThread("oompa-pulse", self._live)

    def entered(self, connection: Beating) -> None:
        """A connection begins."""
        if self._interval is None:
            return
        with self._changed:
            if self._beats.entered(connection, monotonic() + self._interval):
                self._changed.notify()
        try:
            self._thread.start()
        except (RuntimeError, MemoryError):
            pass  # no thread to be had: the next connection tries again

    def left(self, connection: Beating) -> None:
        """A connection has ended."""
        with self._changed:
            self._beats.left(connection)

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
                wait = self._beats.wait(monotonic())
                self._changed.wait(None if wait is None else max(wait, _GRAIN))
                taken = self._beats.take(monotonic())
            for number, connection in taken:
                self._look(number, connection)

    def _look(self, number: int, connection: Beating) -> None:
        try:
            when = connection.beat(monotonic())
        except Exception:  # the others are to be looked at all the same
            _logger.exception("a defect of oompa: a connection was not looked after")
            return
        with self._changed:
            self._beats.again(number, when)
