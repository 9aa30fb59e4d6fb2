"""Finds what takes long: tasks, so that fast ones need no hand-off to a pool, and closing handshakes.

One thread looks each ``PATIENCE`` at what is running, while anything has been running lately; idle, it is parked.
``_busy`` maps each worker to the time from which on it takes long. What is done to it are single dict operations, atomic in
CPython, so the hot path takes no lock here. ``_lock`` guards the thread's coming and going.
"""

import logging
import threading
from time import monotonic
from typing import Optional, Protocol

from .paces import PATIENCE

#: Looks without any task before the thread parks; so waking it costs at most about one wake-up a second.
_IDLE_LOOKS = 200


class Worker(Protocol):
    """Something that does one thing at a time."""

    def stuck(self) -> None:
        """What it does takes long; called at most once for each ``began``, on the watcher's thread."""


class Watcher:
    """Calls ``stuck`` of workers that take long. The thread starts when the first one begins and ends at ``close``."""

    def __init__(self, logger: logging.Logger = logging.getLogger("oompa.server")) -> None:
        self._logger = logger
        self._busy: dict[Worker, float] = {}
        self._lock = threading.RLock()
        self._thread: Optional[threading.Thread] = None
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._parked = True

    def began(self, worker: Worker, patience: float = PATIENCE) -> None:
        """``worker`` starts what may take ``patience`` seconds."""
        self._busy[worker] = monotonic() + patience
        if self._parked:
            self._unpark()

    def ended(self, worker: Worker) -> None:
        """What ``worker`` did is over."""
        self._busy.pop(worker, None)

    def close(self) -> None:
        """End the thread."""
        with self._lock:
            self._closing.set()
            thread = self._thread
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _unpark(self) -> None:
        with self._lock:
            if self._thread is None and not self._closing.is_set():
                thread = threading.Thread(target=self._watch, name="oompa-watcher", daemon=True)
                self._thread = thread
                try:
                    thread.start()
                except Exception:  # no thread to be had, no memory; the next task tries again
                    self._thread = None
                    return
            self._parked = False
        self._wake.set()

    def _watch(self) -> None:
        idle_looks = 0
        while not self._closing.wait(PATIENCE):
            self._look(monotonic())
            idle_looks = 0 if self._busy else idle_looks + 1
            if idle_looks > _IDLE_LOOKS:
                self._park()
                idle_looks = 0

    def _look(self, now: float) -> None:
        """Tell those that are late. One that raises is told of, and keeps nobody from being looked at."""
        for worker in tuple(self._busy):  # a single step: with pairs the collector, and so others, would come in between
            if now >= self._busy.get(worker, float("inf")) and self._busy.pop(worker, None) is not None:
                try:
                    worker.stuck()
                except BaseException:
                    self._logger.exception("a defect of oompa: the watcher goes on")

    def _park(self) -> None:
        """Wait for ``began`` or ``close``. ``began`` stores and then looks at ``_parked``; here it is the other way round."""
        self._wake.clear()
        self._parked = True
        if not self._busy and not self._closing.is_set():
            self._wake.wait()
        self._parked = False
