"""When a connection is given up for its timeouts: pure, driven by a plain ``now``."""


class Tolerance:
    """Whether too many requests timed out in a window of ``interval`` seconds.

    Every request counts once, in the window in which it settles. (Node counts a request when it is sent and its timeout
    when it comes, so the two can fall into different windows.)
    """

    def __init__(self, ratio: float, interval: float, now: float) -> None:
        self._ratio = ratio
        self._interval = interval
        self._settled = 0
        self._timeouts = 0
        self.due = now + interval

    def settled(self, timed_out: bool, count: int = 1) -> None:
        """Count so many requests."""
        self._settled += count
        if timed_out:
            self._timeouts += count

    def exceeded(self, now: float) -> bool:
        """When a window is over: whether its timeouts exceed the ratio. A new window starts."""
        if now < self.due:
            return False
        exceeded = self._timeouts > self._ratio * self._settled
        self._settled = self._timeouts = 0
        self.due = now + self._interval
        return exceeded
