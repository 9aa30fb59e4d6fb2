"""How long a call takes, for metrics and traces."""

from concurrent.futures import Future
from time import perf_counter
from typing import Any, Callable


class Stopwatch:
    """Runs from when it is made until a call settles.

    As a callback it is called where the call settles, for it does nothing but look at the clock: what is measured is not how
    long the callbacks of others take, behind which those that come after it wait.
    """

    def __init__(self) -> None:
        self._began = perf_counter()
        #: Seconds until the call had settled.
        self.seconds = 0.0

    def __call__(self, future: "Future[Any]") -> None:
        """Stop it."""
        self.seconds = perf_counter() - self._began

    def time(self, future: "Future[Any]", tell: "Callable[[Future[Any]], object]") -> None:
        """Stop when ``future`` is settled, and have ``tell(future)`` called after that, with its other callbacks."""
        future.add_done_callback(self)
        future.add_done_callback(tell)
