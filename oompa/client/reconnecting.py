"""When to connect again: pure, driven by a plain ``now``."""

import random
from typing import Callable, Optional

#: HTTP statuses of the 4xx class that may pass on their own (:rfc:`9110`, :rfc:`8470`, :rfc:`6585`).
TRANSIENT_STATUSES = frozenset({408, 425, 429})

#: Seconds of a server's Retry-After that are heeded: it may not send a client away for good.
LONGEST_RETRY_AFTER = 60.0

#: How much longer to wait before the next attempt when the server has refused this client.
REFUSED_FACTOR = 10.0


def is_refusal(status: Optional[int]) -> bool:
    """Whether an HTTP status answers a handshake with "not like this" or "not here", so that repeating it is pointless."""
    return status is not None and (300 <= status < 500 or status == 501) and status not in TRANSIENT_STATUSES


class Backoff:
    """When to try to connect next.

    Attempts start at least ``interval`` seconds apart, so the first one after a connection that lived longer comes at
    once; and so does one after a connection that was lost sooner, as long as there are other places to go to that have
    not been tried meanwhile. With ``max_interval`` each wait is drawn from 0 to ``interval`` doubled per failure, up to
    ``max_interval`` ("full jitter"), which keeps a fleet of clients from returning in step.
    """

    def __init__(
        self, interval: float, max_interval: Optional[float] = None, draw: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._interval = interval
        self._max_interval = max_interval
        self._draw = draw
        self._failures = 0
        self._started: Optional[float] = None
        self._places = 1
        self._tried = 0  # of the places, since an attempt last came after the whole interval
        self._not_before = float("-inf")

    def attempted(self, now: float) -> None:
        """An attempt starts."""
        is_early = self._started is not None and now < self._started + self._interval
        self._tried = self._tried + 1 if is_early else 1
        self._started = now

    def succeeded(self, places: int = 1) -> None:
        """The attempt opened a connection, to one of so many places."""
        self._failures = 0
        self._places = places

    def failed(self) -> None:
        """The attempt opened none."""
        self._failures += 1

    def refused(self, now: float) -> None:
        """The server sent this client away: wait ten times the interval."""
        self._not_before = now + REFUSED_FACTOR * self._interval

    def asked(self, now: float, seconds: float) -> None:
        """The server asks to be left alone for so long, of which a minute is heeded."""
        self._not_before = max(self._not_before, now + min(seconds, LONGEST_RETRY_AFTER))

    def delay(self, now: float) -> float:
        """Seconds to wait before the next attempt."""
        if self._started is None:
            wait = 0.0
        elif self._max_interval is not None:
            ceiling = min(self._max_interval, self._interval * 2.0 ** min(self._failures, 64))
            wait = self._draw(0.0, ceiling)
        elif self._failures == 0 and self._tried < self._places:
            wait = 0.0
        else:
            wait = self._started + self._interval - now
        return max(wait, self._not_before - now, 0.0)
