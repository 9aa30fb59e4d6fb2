"""The one thread on which a client's callbacks and listeners run, in order.

It does nothing else, so whatever they do holds up no reply, no deadline and no other caller. ``_lock`` guards its coming
and going. The thread starts when there is something to run and ends at ``close``.
"""

import logging
import threading
from queue import SimpleQueue
from typing import Any, Callable, Optional

Job = tuple[Callable[..., Any], tuple[Any, ...]]
Jobs = SimpleQueue[Optional[Job]]


class Callbacks:
    """Runs functions later, one after the other."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._jobs: Jobs = SimpleQueue()
        self._lock = threading.RLock()  # a signal handler may close the client
        self._thread: Optional[threading.Thread] = None
        self._closed = False

    def post(self, function: Callable[..., Any], *args: Any) -> None:
        """Run ``function`` on the callback thread; after ``close``, on this one."""
        with self._lock:
            closed = self._closed
            if not closed:
                self._jobs.put((function, args))
                if self._thread is None:
                    self._thread = self._start()
        if closed:
            _run(function, args, self._logger)

    def close(self) -> None:
        """Run what was posted before, then end the thread. Does not wait."""
        with self._lock:
            self._closed = True
            if self._thread is None and not self._jobs.empty():
                self._thread = self._start()
            self._jobs.put(None)
            works = self._thread is not None
        if not works:
            _work(self._jobs, self._logger)  # no thread was to be had: what waits runs here

    def disown(self) -> None:
        """This process is a fork: the thread, what it was to run, and whoever held the lock are the parent's."""
        self._jobs, self._lock, self._thread = SimpleQueue(), threading.RLock(), None

    def join(self, timeout: float) -> None:
        """Wait until the thread has ended, unless this is it."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _start(self) -> Optional[threading.Thread]:
        thread = threading.Thread(target=_work, args=(self._jobs, self._logger), name="oompa-callbacks", daemon=True)
        try:
            thread.start()
        except Exception:  # no thread to be had, no memory; the next post tries again
            self._logger.warning("no thread to run callbacks on; they wait")
            return None
        return thread


def _work(jobs: Jobs, logger: logging.Logger) -> None:
    while (job := jobs.get()) is not None:
        _run(*job, logger)


def _run(function: Callable[..., Any], args: tuple[Any, ...], logger: logging.Logger) -> None:
    try:
        function(*args)
    except BaseException:  # sys.exit() in a callback must not end the thread either
        logger.exception("a callback raised")
