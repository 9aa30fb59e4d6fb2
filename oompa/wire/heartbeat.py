"""Whether a silent peer is alive: pure, driven by a plain ``now``."""

import enum
from typing import Optional


class Silence(enum.Enum):
    """What to do about a peer that says nothing."""

    WAIT = "wait"
    PING = "ping"
    DEAD = "dead"


class Heartbeat:
    """Whether the peer is alive: a ping after ``interval`` seconds of silence, and dead after as many more.

    Any byte from the peer is a sign of life, so a busy connection needs no pings.
    """

    def __init__(self, interval: Optional[float]) -> None:
        self._interval = interval
        self._pinged_at: Optional[float] = None

    def check(self, now: float, heard_at: float) -> Silence:
        """The last byte came at ``heard_at``: wait on, ping, or give the peer up."""
        if now < self.due(heard_at):
            return Silence.WAIT
        if self._pinged_at is not None:
            return Silence.DEAD
        self._pinged_at = now
        return Silence.PING

    def due(self, heard_at: float) -> float:
        """When to check next."""
        if self._interval is None:
            return float("inf")
        if self._pinged_at is not None and heard_at >= self._pinged_at:
            self._pinged_at = None
        return (heard_at if self._pinged_at is None else self._pinged_at) + self._interval
