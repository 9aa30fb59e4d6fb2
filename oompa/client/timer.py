"""The thread that keeps a client's deadlines. It never blocks on the network, so they hold whatever the other threads do."""

import logging
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Callable, Optional

from ..threads import OwnedThread


class Timer(OwnedThread):
    """Looks at what is due, sleeps until the next thing is, and looks again.

    Whoever brings something that is due before ``due`` nudges it. Any thread may nudge, a finalizer or a signal handler too:
    it takes no lock of ours.

    Args:
        look: Does what is due and returns when the next thing is, on the monotonic clock; called on the timer's thread.
        longest: Seconds between two looks at the most.
        is_over: Whether to end.
        logger: Where an exception of ``look`` is told.
    """

    def __init__(
        self, look: Callable[[], float], longest: float, is_over: Callable[[], bool], logger: logging.Logger
    ) -> None:
        super().__init__("oompa-timer", self._time)
        self._look = look
        self._longest = longest
        self._is_over = is_over
        self._logger = logger
        self._nudges: SimpleQueue[Optional[Callable[[], object]]] = SimpleQueue()
        #: When it looks next; what is due later needs no nudge.
        self.due = float("inf")

    def nudge(self) -> None:
        """Look now."""
        self._nudges.put(None)

    def run(self, function: Callable[[], object]) -> None:
        """Run ``function``, which does not wait, on the timer's thread; what was brought before the end is run before it."""
        self._nudges.put(function)

    def _time(self) -> None:
        while not self._is_over():
            self.due = float("inf")  # whoever brings something from here on nudges, for the look below may miss it
            due = monotonic() + self._longest
            try:
                due = min(due, self._look())
            except BaseException:  # sys.exit() somewhere below, no memory
                self._logger.exception("a defect of oompa: the timer goes on")
            self.due = due
            self._sleep_until(due)
        self._sleep_until(0.0)

    def _sleep_until(self, due: float) -> None:
        """Sleep until ``due`` or a nudge, and run what was brought."""
        try:
            brought = self._nudges.get(timeout=max(0.0, due - monotonic()))
            while True:
                if brought is not None:
                    self._run_brought(brought)
                brought = self._nudges.get_nowait()
        except Empty:
            pass

    def _run_brought(self, function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException:
            self._logger.exception("a defect of oompa: the timer goes on")
