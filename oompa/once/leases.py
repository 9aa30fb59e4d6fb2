"""Leases of requests that run, renewed by one thread.

The thread starts with the first lease and ends by itself when there has been none for a moment, so there is nothing to close.
"""

import os
import threading
from time import monotonic
from typing import Optional

from ..logs import get_logger
from ..threads import OwnedThread
from .store import Store

_logger = get_logger("oompa.once")

#: A lease is renewed when a third of it is over, so two renewals may fail before it is lost.
_PARTS = 3

#: Seconds between looks at what is due. The thread ends when there was no lease at two of them.
_LOOK = 0.1


class _Held:
    """A lease that is held."""

    __slots__ = ("key", "record", "seconds", "due")

    def __init__(self, key: str, record: bytes, seconds: float) -> None:
        self.key = key
        self.record = record
        self.seconds = seconds
        self.set_due()

    def set_due(self) -> None:
        """It has just been taken or renewed."""
        self.due = monotonic() + self.seconds / _PARTS


class Leases:
    """Renews what is held until it ends; any thread may begin and end.

    ``_lock`` guards ``_held``, whether there is a thread and in which process. The store is never called under it.

    Args:
        store: Where the leases stand.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.RLock()
        self._held: dict[bytes, _Held] = {}
        self._thread: Optional[OwnedThread] = None
        self._pid = os.getpid()

    def began(self, key: str, record: bytes, seconds: float) -> None:
        """The lease ``record`` was taken for so many seconds."""
        held, thread = _Held(key, record, seconds), None
        with self._lock:
            if self._pid != os.getpid():  # a fork: thread and leases are the parent's
                self._pid, self._thread, self._held = os.getpid(), None, {}
            self._held[record] = held
            if self._thread is None:
                self._thread = thread = OwnedThread("oompa-once", lambda: self._renew(min(_LOOK, seconds / _PARTS)))
        if thread is not None:
            try:
                thread.start()
            except Exception:  # no thread to be had, no memory; the next lease tries again
                _logger.warning("no thread to renew leases: a request that runs longer than %g s may run twice", seconds)
                with self._lock:
                    self._thread = None

    def ended(self, record: bytes) -> None:
        """The lease is not needed any more."""
        with self._lock:
            self._held.pop(record, None)

    def _renew(self, interval: float) -> None:
        """Look at every lease once an interval, until there has been none at two looks."""
        pause, was_idle = threading.Event(), False
        while True:
            pause.wait(interval)
            with self._lock:
                if not self._held and was_idle:
                    self._thread = None
                    return
                was_idle = not self._held
                due = [held for held in self._held.values() if held.due <= monotonic()]
            for held in due:
                self._renew_one(held)

    def _renew_one(self, held: _Held) -> None:
        held.set_due()
        try:
            is_ours = self._store.swap(held.key, held.record, held.record, held.seconds)
        except Exception:
            _logger.warning("a lease could not be renewed", exc_info=True)
            return
        with self._lock:
            is_over = self._held.get(held.record) is not held
        if not is_ours and not is_over:
            _logger.warning("a lease was lost: the store has forgotten it, or this process stood still for longer than it")
