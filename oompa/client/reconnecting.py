"""Decisions on close codes, reconnecting, tolerance and silence: pure, driven by a plain ``now``."""

import enum
import random
from typing import Callable, Optional


class CloseCode(enum.IntEnum):
    """The close codes of :rfc:`6455#section-7.4.1` that oompa sends, receives or stands in for."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS_RECEIVED = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_PAYLOAD_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013


#: Codes that blame what was sent: sending the same again would end the same way.
BLAMING_CODES = frozenset(
    {
        CloseCode.PROTOCOL_ERROR,
        CloseCode.UNSUPPORTED_DATA,
        CloseCode.INVALID_PAYLOAD_DATA,
        CloseCode.POLICY_VIOLATION,
        CloseCode.MESSAGE_TOO_BIG,
    }
)

#: Codes of a peer that is done: there is nothing to look into.
ORDERLY_CODES = frozenset({CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY, CloseCode.NO_STATUS_RECEIVED})

#: HTTP statuses of the 4xx class that may pass on their own (:rfc:`9110`, :rfc:`8470`, :rfc:`6585`).
TRANSIENT_STATUSES = frozenset({408, 425, 429})

#: How much longer to wait before the next attempt when the server has refused this client.
REFUSED_FACTOR = 10.0


def is_refusal(status: Optional[int]) -> bool:
    """Whether an HTTP status answers a handshake with "not like this", so that repeating it is pointless."""
    return status is not None and 400 <= status < 500 and status not in TRANSIENT_STATUSES


class Backoff:
    """When to try to connect next.

    Attempts start at least ``interval`` seconds apart, so the first one after a connection that lived longer comes at
    once. With ``max_interval`` each wait is drawn from 0 to ``interval`` doubled per failure, up to ``max_interval``
    ("full jitter"), which keeps a fleet of clients from returning in step.
    """

    def __init__(
        self, interval: float, max_interval: Optional[float] = None, draw: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._interval = interval
        self._max_interval = max_interval
        self._draw = draw
        self._failures = 0
        self._started: Optional[float] = None
        self._not_before = float("-inf")

    def attempted(self, now: float) -> None:
        """An attempt starts."""
        self._started = now

    def succeeded(self) -> None:
        """The attempt opened a connection."""
        self._failures = 0

    def failed(self) -> None:
        """The attempt opened none."""
        self._failures += 1

    def refused(self, now: float) -> None:
        """The server sent this client away: wait ten times the interval."""
        self._not_before = now + REFUSED_FACTOR * self._interval

    def delay(self, now: float) -> float:
        """Seconds to wait before the next attempt."""
        if self._started is None:
            wait = 0.0
        elif self._max_interval is not None:
            ceiling = min(self._max_interval, self._interval * 2.0 ** min(self._failures, 64))
            wait = self._draw(0.0, ceiling)
        else:
            wait = self._started + self._interval - now
        return max(wait, self._not_before - now, 0.0)


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
