"""Finds what takes long: tasks, so that fast ones need no hand-off to a pool, and closing handshakes.

One thread looks each ``PATIENCE`` at what is running, while anything has been running lately; idle, it is parked.

``_busy`` maps what was said to begin to the time from which on it takes long. A worker, whose tasks come one after the other
and mostly end at once, says so only when it is not looked at anyway: it has its own ``due``, and is in ``_looked_at`` until a
look finds it idle or late. What is done to either are single dict operations, atomic in CPython, so the hot path takes no lock
here. ``_lock`` guards the thread's coming and going.
"""

import logging
import threading
from time import monotonic
from typing import Optional, Protocol

from .paces import PATIENCE

#: Looks without any task before the thread parks; so waking it costs at most about one wake-up a second.
_IDLE_LOOKS = 200


#: When a worker is due that has nothing to do.
NEVER = float("inf")


class Slow(Protocol):
    """Something that may take long."""

    def stuck(self) -> None:
        """It takes long; called at most once for each ``began``, on the watcher's thread."""


class Worker(Slow, Protocol):
    """Something that does one thing after the other.

    Attributes:
        due: From when on what it does takes long, ``NEVER`` where it does nothing. It alone sets it, then looks at the other.
        is_looked_at: Whether the watcher sees that; else it is to be told, by ``look_at``.
    """

    due: float
    is_looked_at: bool


class Watcher:
    """Calls ``stuck`` of workers that take long. The thread starts when the first one begins and ends at ``close``."""

    def __init__(self, logger: logging.Logger = logging.getLogger("oompa.server")) -> None:
        self._logger = logger
        self._busy: dict[Slow, float] = {}
        self._looked_at: dict[Worker, None] = {}
        self._lock = threading.RLock()
        self._thread: Optional[threading.Thread] = None
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._parked = True

    def began(self, slow: Slow, patience: float) -> None:
        """Something has begun that may take ``patience`` seconds."""
        self._busy[slow] = monotonic() + patience
        if self._parked:
            self._unpark()

    def ended(self, slow: Slow) -> None:
        """It is over."""
        self._busy.pop(slow, None)

    def look_at(self, worker: Worker) -> None:
        """``worker`` has begun and is not looked at. On its own thread."""
        worker.is_looked_at = True
        self._looked_at[worker] = None
        if self._parked and not self._unpark():
            worker.is_looked_at = False  # its next task tries again

    def close(self) -> None:
        """End the thread."""
        with self._lock:
            self._closing.set()
            thread = self._thread
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _unpark(self) -> bool:
        """Wake the thread, or start it; returns whether that was possible."""
        with self._lock:
            if self._thread is None and not self._closing.is_set():
                thread = threading.Thread(target=self._watch, name="oompa-watcher", daemon=True)
                self._thread = thread
                try:
                    thread.start()
                except Exception:  # no thread to be had, no memory; whoever begins next tries again
                    self._thread = None
                    return False
            self._parked = False
        self._wake.set()
        return True

    def _watch(self) -> None:
        idle_looks = 0
        while not self._closing.wait(PATIENCE):
            self._look(monotonic())
            idle_looks = 0 if self._is_needed() else idle_looks + 1
            if idle_looks > _IDLE_LOOKS:
                self._park()
                idle_looks = 0

    def _is_needed(self) -> bool:
        return bool(self._busy or self._looked_at)

    def _look(self, now: float) -> None:
        """Tell those that are late."""
        for slow in tuple(self._busy):  # a single step: with pairs the collector, and so others, would come in between
            if now >= self._busy.get(slow, NEVER) and self._busy.pop(slow, None) is not None:
                self._tell(slow)
        for worker in tuple(self._looked_at):
            due = worker.due
            if (now >= due or due == NEVER) and self._look_away(worker, due) and due != NEVER:
                self._tell(worker)

    def _look_away(self, worker: Worker, due: float) -> bool:
        """Look at a worker no more, unless what was due then is over; returns whether it was not."""
        self._looked_at.pop(worker, None)
        worker.is_looked_at = False
        if worker.due == due:  # looked at behind the other, as the worker does the other way round
            return True
        if worker.due != NEVER:
            worker.is_looked_at = True
            self._looked_at[worker] = None
        return False

    def _tell(self, slow: Slow) -> None:
        """One that raises is told of, and keeps nobody from being looked at."""
        try:
            slow.stuck()
        except BaseException:
            self._logger.exception("a defect of oompa: the watcher goes on")

    def _park(self) -> None:
        """Wait for somebody to begin, or for ``close``. Whoever begins stores, then looks at ``_parked``; here it is the other
        way round."""
        self._wake.clear()
        self._parked = True
        if not self._is_needed() and not self._closing.is_set():
            self._wake.wait()
        self._parked = False
