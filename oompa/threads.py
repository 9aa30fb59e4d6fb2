"""Threads of ours: daemons that are started when they are first needed and joined by whoever owns them. And the main thread,
which is not ours, and the only one on which signal handlers run."""

import os
import threading
from time import monotonic
from typing import Callable, Optional

#: The thread on which signal handlers run.
main_id = threading.main_thread().ident


def is_main() -> bool:
    """Whether this is the thread on which signal handlers run."""
    return threading.get_ident() == main_id


def _forked() -> None:
    """The one thread that is left is the main thread."""
    global main_id
    main_id = threading.get_ident()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class OwnedThread:
    """A thread that is started once.

    ``_lock`` guards its start: whether there is a thread, and whether it runs or came too late. It is re-entrant: a signal
    handler may come to the same place.

    Args:
        name: What lists of threads show.
        run: What it does; it ends when this returns.
    """

    def __init__(self, name: str, run: Callable[[], None]) -> None:
        self.is_started = False
        self._name = name
        self._run = run
        self._lock = threading.RLock()
        self._thread: Optional[threading.Thread] = None
        self._runs = False

    def start(self) -> None:
        """Start it, unless it was. Raises RuntimeError when there is no thread to be had; the next call tries again."""
        try:
            with self._lock:
                if self.is_started:
                    return
                self.is_started = True
                self._thread = thread = threading.Thread(target=self._run_if_owned, name=self._name, daemon=True)
            thread.start()
        except BaseException:  # no thread to be had, no memory, an interrupt
            with self._lock:
                if not self._runs:
                    self._thread = None
                    self.is_started = False
            raise

    def _run_if_owned(self) -> None:
        with self._lock:
            self._runs = owned = threading.current_thread() is self._thread
        if owned:  # else a start that failed has started it all the same
            self._run()

    def disown(self) -> None:
        """This process is a fork: the thread is the parent's, and another one of the parent may have held the lock."""
        self._lock = threading.RLock()
        self._thread = None

    def join(self, deadline: float) -> None:
        """Wait until it has ended, at most until ``deadline`` on the monotonic clock, and not at all from within it."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread() and thread.ident is not None:
            thread.join(max(0.0, deadline - monotonic()))
