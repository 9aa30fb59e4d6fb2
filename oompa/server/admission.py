"""Who is in: the places a server has, the connections that took one, and seeing them out when it closes.

``_lock`` guards the set of connections, the places taken and whether the server drains. Connections are closed outside it.
"""

import logging
import threading
from time import monotonic
from typing import Optional

from .connection import Connection

#: Seconds between looks at the connections that are being closed.
_CLOSING_LOOK = 0.05

#: Connections told to drain at once, and the seconds after which as many again are told at the latest, although more than that
#: are not gone: each that ends wakes its thread, and where very many want the interpreter at the same time none gets on (see
#: ``pulse``). So much a peer that does not answer, or a task that runs, holds up the others.
_AT_ONCE, _NOT_GONE = 32, 0.05


class Admission:
    """The connections of one server.

    Args:
        limit: Connections there may be at once; None: any number. May be changed at any time.
        close_timeout: Seconds the closing handshake may take.
    """

    def __init__(self, limit: Optional[int], close_timeout: float, logger: logging.Logger) -> None:
        self.limit = limit
        #: Whether the server closes: nobody is admitted any more.
        self.is_draining = False
        self._close_timeout = close_timeout
        self._logger = logger
        self._lock = threading.RLock()
        self._fewer = threading.Condition(self._lock)
        self._connections: set[Connection] = set()
        self._places = 0

    @property
    def connections(self) -> list[Connection]:
        """The connections there are at the moment."""
        with self._lock:
            return list(self._connections)

    def has_room(self) -> bool:
        """Whether a further connection would be admitted."""
        with self._lock:
            return self._has_room_locked()

    def admit(self) -> bool:
        """Take a place for a connection, if there is one."""
        with self._lock:
            if not self._has_room_locked():
                return False
            self._places += 1
            return True

    def _has_room_locked(self) -> bool:
        return not self.is_draining and (self.limit is None or self._places < self.limit)

    def dismiss(self) -> None:
        """Give a place back."""
        with self._lock:
            self._places -= 1
            if self._places == 0:
                self._fewer.notify_all()

    def entered(self, connection: Connection) -> None:
        """A connection begins in a place that was taken."""
        with self._lock:
            self._connections.add(connection)
            is_draining = self.is_draining
        if is_draining:
            connection.drain()

    def left(self, connection: Connection) -> None:
        """A connection has ended."""
        with self._lock:
            self._connections.discard(connection)
            self._fewer.notify_all()

    def reopen(self) -> None:
        """Admit again, after ``drain``."""
        with self._lock:
            self.is_draining = False

    def drain(self, limit: float) -> None:
        """Admit nobody any more and see every connection end: drained and closed, or cut where the peer or a task takes longer.

        Args:
            limit: Seconds that running tasks have.
        """
        deadline = monotonic() + limit
        with self._lock:
            self.is_draining = True
            connections = list(self._connections)
        for told in range(0, len(connections), _AT_ONCE):
            self._wait_for_fewer(len(connections) - told, deadline)
            for connection in connections[told : told + _AT_ONCE]:
                connection.drain()
        while self._are_left(deadline):
            with self._fewer:
                self._fewer.wait_for(lambda: self._places == 0, _CLOSING_LOOK)

    def _wait_for_fewer(self, untold: int, deadline: float) -> None:
        """Wait until few are left of those that were told to drain, or it is time to tell the next all the same: the last are
        told in half of the time there is."""
        patience = min(_NOT_GONE, (deadline - monotonic()) * _AT_ONCE / (2 * untold))
        with self._fewer:
            self._fewer.wait_for(lambda: len(self._connections) < untold + _AT_ONCE, max(0.0, patience))

    def _are_left(self, deadline: float) -> bool:
        """Whether to wait on for connections to end; beyond the deadline they are closed."""
        connections, now = self.connections, monotonic()
        if not connections and not self._places:
            return False
        if now >= deadline:
            for connection in connections:
                connection.close()
        if now > deadline and self._places == len(connections) and not any(each.is_live for each in connections):
            return False  # what is left are tasks that do not end; their threads are daemons
        if now > deadline + 2 * self._close_timeout:
            self._logger.error("%d connections could not be ended: a listener may be blocking", len(connections))
            return False
        return True
