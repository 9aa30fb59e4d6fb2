"""Threads that read on while a task takes long: kept for a while and used again.

The one that was free last is used first, so that few threads do the work of many tasks, and what a task keeps for its thread (a
database connection in a ``threading.local``) is opened few times. ``_idle`` holds the threads that wait for work. What is done
to it are single list operations, atomic in CPython: who takes a thread out of it, the one that has work or the thread itself
when its time is up, has it alone, and no lock is needed.
"""

import threading
from typing import Callable, Optional

#: Seconds a thread waits for work before it ends, as in Java's cached thread pool.
KEEP = 60.0

Work = Callable[[], None]


class _StandIn:
    """A thread, what it is to do next, and what wakes it."""

    def __init__(self, work: Work, live: Callable[["_StandIn"], None]) -> None:
        self.work: Optional[Work] = work
        self.waker = threading.Lock()
        self.waker.acquire()
        self.thread = threading.Thread(target=live, args=(self,), name="oompa-stand-in", daemon=True)

    def wake(self, work: Optional[Work]) -> None:
        """Have it do ``work``; None: end. For whoever took it out of the idle ones."""
        self.work = work
        self.waker.release()


class StandIns:
    """Runs work on threads that are kept, from any thread, until ``close``.

    Args:
        keep: Seconds a thread waits for work before it ends.
    """

    def __init__(self, keep: float = KEEP) -> None:
        self._keep = keep
        self._idle: list[_StandIn] = []
        self._closed = False

    def run(self, work: Work) -> None:
        """Have ``work``, which must not raise, done on another thread.

        Raises:
            RuntimeError: There is no thread to be had.
            MemoryError: The same.
        """
        try:
            stand_in = self._idle.pop()
        except IndexError:
            _StandIn(work, self._live).thread.start()
        else:
            stand_in.wake(work)

    def close(self) -> None:
        """End the threads that are idle, and have the others end when their work is done. Does not wait for those."""
        self._closed = True
        while self._idle:
            try:
                stand_in = self._idle.pop()
            except IndexError:  # another one was quicker
                return
            stand_in.wake(None)
            stand_in.thread.join()

    def _live(self, me: _StandIn) -> None:
        while (work := me.work) is not None:
            me.work = None
            work()
            del work  # what it refers to is not to live on while the thread is idle
            self._idle.append(me)
            if self._closed and self._leaves(me):  # ``close`` stores and then looks; here it is the other way round
                return
            while not me.waker.acquire(timeout=self._keep):
                if self._leaves(me):
                    return

    def _leaves(self, me: _StandIn) -> bool:
        """Whether nobody has taken this thread for work in the meantime."""
        try:
            self._idle.remove(me)
        except ValueError:
            return False
        return True
