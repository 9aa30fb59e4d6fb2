"""The client's pending requests, as a pure machine: what happened goes in, what to do comes out.

Inputs are past participles and take a plain ``now``; effects are ``Send``, ``Settle``, ``Ask`` and ``Reconnect``. No sockets,
no threads, no clock; whoever drives it guards it.

Requests with the same timeout share a *lane*, a dict in the order of their deadlines, so adding, finding and removing
one cost the same however many are pending, and the next deadline is at the head of some lane.

A request that the server answered with ``retry_after`` is *postponed*: it stays in its lane, for its time runs on, and on a
heap of those that are to be sent again.
"""

import heapq
import itertools
import json
import random
from copy import copy
from typing import Any, Callable, Iterable, NamedTuple, Optional, TypeVar, Union

from ..errors import ClientClosed, ConnectionLost, OompaError, RemoteError, RequestTimeout, TooManyPending, printable
from ..wire.closing import BLAMING_CODES
from .tolerance import Tolerance

E = TypeVar("E", bound=OompaError)
Lane = dict[str, "Pending"]
_NO_LANE: Lane = {}


class Pending:
    """A request that waits for its reply.

    Attributes:
        id: Unique among the pending.
        text: The request as it goes on the wire, each time.
        timeout: Seconds one attempt may take.
        attempts: How many attempts there may be.
        future: Whatever the driver settles.
        attempt: The ordinal of the current attempt, from 1.
        deadline: When it ends.
        lane: The lane it is in.
        meta: What goes behind the text, in place of its last brace, to a server that understands ``meta``.
        has_meta: Whether that holds more than the library's own, which may be left out.
        is_sent: Whether the current connection has carried it, and the server may run it.
        resend: Whether it may be sent again once it was sent.
        is_tolerated: Whether its timeout tells nothing of the connection, since the call has a timeout of its own.
        on_progress: Called with each :class:`~oompa.wire.messages.Progress` of it.
        postponed: What the server answered that asks for it to be sent again later; None: nothing.
    """

    attempt = 1
    deadline = 0.0
    lane: Lane = _NO_LANE
    has_meta = False
    is_sent = False
    resend = True
    on_progress: Optional[Callable[[Any], object]] = None
    postponed: Optional[RemoteError] = None

    def __init__(
        self, id: str, text: bytes, timeout: float, attempts: int, future: Any = None, meta: bytes = b""
    ) -> None:
        self.id = id
        self.text = text
        self.meta = meta
        self.timeout = timeout
        self.attempts = attempts
        self.future = future
        self.is_tolerated = False  # looked at for each reply: not in the class, where it would be found later

    @property
    def end(self) -> float:
        """When its last attempt ends."""
        return self.deadline + (self.attempts - self.attempt) * self.timeout

    @property
    def type(self) -> str:
        """The task type, read from the text: it is asked for when something has gone wrong, and no call pays for it."""
        try:
            return str(_decoder.raw_decode(self.text[:_LONGEST_HEAD].decode(errors="ignore"), len(_HEAD))[0])
        except ValueError:
            return "a request"

    def __str__(self) -> str:
        return f"{printable(self.type)} (request {self.id})"


class Send(NamedTuple):
    """Send this request again."""

    pending: Pending


class Settle(NamedTuple):
    """This request has failed."""

    pending: Pending
    error: OompaError


class Ask(NamedTuple):
    """Have the peer say that it lives: a ping."""


class Reconnect(NamedTuple):
    """Leave this connection for a new one."""

    reason: str


#: How the text of a request begins, up to the type, and how far to look for the end of that.
_HEAD = '{"type":'
_LONGEST_HEAD = 1000

_decoder = json.JSONDecoder()

#: Empty lanes are kept up to so many, so that one call after another makes none anew.
_IDLE_LANES = 8

#: A request is sent again so many times ``retry_after`` later, drawn between these, so that a crowd does not return in step;
#: and never sooner than so many seconds, whatever a server says.
_RETRY_SPREAD = (0.8, 1.2)
_SHORTEST_RETRY = 0.01

Effect = Union[Send, Settle, Ask, Reconnect]


def _first_of(lane: Lane) -> Optional[Pending]:
    """The request of a lane that is due first, None for none. A re-entrant dispatch may change the lane at any moment."""
    while lane:
        try:
            return next(iter(lane.values()))
        except (StopIteration, RuntimeError):
            continue
    return None


class Exchange:
    """Requests out, replies in.

    Args:
        max_pending: Requests beyond which ``dispatched`` refuses.
        tolerance: When to give a connection up for its timeouts; None: never.
        answer_time: Seconds the server has for a sign of life when it is asked for one.
        draw: A number between two, as ``random.uniform``.
    """

    def __init__(
        self,
        max_pending: int,
        tolerance: Optional[Tolerance] = None,
        answer_time: float = 1.0,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._max_pending = max_pending
        self._tolerance = tolerance
        self._pending: Lane = {}
        self._lanes: dict[float, Lane] = {}
        self._answer_time = answer_time
        self._draw = draw
        self._postponed: list[tuple[float, int, Pending]] = []  # a heap; it may hold some that have settled
        self._ordinals = itertools.count()
        self._replied = 0  # since the last tick
        self._is_open = False
        self._opened_at = float("-inf")
        self._asked_at: Optional[float] = None
        self._answer_due = float("inf")
        #: Why there is no connection, while there is none.
        self.reason = ConnectionLost("the client has not been started: call client.start()")
        #: Whether that is a refusal, with which every call fails at once until an attempt to connect ends otherwise.
        self.is_refused = False
        self._has_failed = False

    def __len__(self) -> int:
        return len(self._pending)

    def opened(self, now: float = float("-inf")) -> list[Pending]:
        """A connection is there: what to send on it, oldest first."""
        self._is_open = True
        self._opened_at = now
        self._asked_at, self._answer_due = None, float("inf")
        self.is_refused = self._has_failed = False
        waiting = [pending for pending in self.waiting() if pending.postponed is None]
        for pending in waiting:
            pending.is_sent = True
        return waiting

    def dispatched(self, pending: Pending, now: float, answered: Iterable[Pending] = ()) -> bool:
        """A request comes in; returns whether to send it now.

        Args:
            answered: Requests whose replies have come but are not told yet; those that are settled do not count.

        Raises:
            TooManyPending: ``max_pending`` requests wait already.
        """
        if len(self._pending) >= self._max_pending:
            for each in answered:
                if each.future.is_settled:
                    self.received(each.id)
            if len(self._pending) >= self._max_pending:
                raise TooManyPending(f"{len(self._pending)} calls are pending, which is max_pending; wait for some to settle")
        timeout, id = pending.timeout, pending.id
        try:
            lane = self._lanes[timeout]
        except KeyError:
            lane = self._lanes[timeout] = {}
        pending.deadline = now + timeout
        pending.lane = lane
        self._pending[id] = lane[id] = pending
        pending.is_sent = is_open = self._is_open
        return is_open

    def find(self, id: Any) -> Optional[Pending]:
        """Whose reply this is, None when nobody waits for it. A single look into a dict: it needs no guard."""
        try:
            return self._pending.get(id)
        except TypeError:  # an id may be any JSON, lists too
            return None

    def received(self, id: str) -> Optional[Pending]:
        """A reply came: the request it ends, None when nobody waits for it."""
        pending = self._remove(id)
        if pending is not None and not pending.is_tolerated:
            self._replied += 1
        return pending

    def postponed(self, pending: Pending, error: RemoteError, now: float) -> bool:
        """A reply says that nothing has run, and when to ask again; whether the time of the request lasts that long."""
        seconds = (error.retry_after or 0.0) * self._draw(*_RETRY_SPREAD)
        at = now + max(seconds, _SHORTEST_RETRY)
        if at >= pending.end or self._pending.get(pending.id) is not pending:
            return False
        pending.postponed, pending.is_sent = error, False
        heapq.heappush(self._postponed, (at, next(self._ordinals), pending))
        return True

    def cancelled(self, id: str) -> Optional[Pending]:
        """The user has given the request up; which it was, None where it was not pending any more."""
        return self._remove(id)

    def waiting(self) -> list[Pending]:
        """Everything pending, oldest first."""
        return list(self._pending.values())

    def lost(self, code: int, reason: str = "") -> list[Effect]:
        """The connection is gone. A code that blames what was sent fails what was in flight; what may not be sent twice fails
        in any case."""
        self._is_open = False
        self._answer_due = float("inf")
        waiting = self.waiting()
        is_blamed = code in BLAMING_CODES
        failed = [pending for pending in waiting if pending.is_sent and (is_blamed or not pending.resend)]
        for pending in waiting:
            pending.is_sent = False
        self.reason = ConnectionLost(f"the connection was closed with {code} {printable(reason)}".rstrip(), code)
        self._has_failed = True
        return self._fail(failed, self.reason)

    def began(self, target: str) -> None:
        """An attempt to connect begins. What the last one failed with stays the reason until this one ends."""
        if not self._has_failed:
            self.reason = ConnectionLost(f"still connecting to {target}")

    def failed(self, error: ConnectionLost, is_refusal: bool = False) -> list[Effect]:
        """An attempt to connect has failed. When the server will not have this client, everything pending fails."""
        self.reason, self.is_refused, self._has_failed = error, is_refusal, True
        return self._fail(self.waiting(), error) if is_refusal else []

    def unsent(self, pending: Pending) -> list[Effect]:
        """A new request could not be sent: while a refusal stands it fails."""
        is_waiting = self._pending.get(pending.id) is pending
        return self._fail([pending], self.reason) if is_waiting and self.is_refused else []

    def closed(self) -> list[Effect]:
        """The client is closed: everything pending fails."""
        self._is_open = False
        return self._fail(self.waiting(), ClientClosed("the client was closed before the reply came"))

    def tick(self, now: float, heard_at: float = float("inf")) -> list[Effect]:
        """Time has passed: attempts end, requests fail or are sent again, windows close.

        Args:
            heard_at: When the last byte came from the server.
        """
        effects: list[Effect] = []
        if self._answer_due <= now:
            self._answer(effects, heard_at)
        for pending in self._pop_overdue(now):
            self._mind_silence(pending, effects, now, heard_at)
            ended = 1 + int((now - pending.deadline) / pending.timeout)  # more than one where the process has slept
            if pending.attempt + ended > pending.attempts or (pending.is_sent and not pending.resend):
                effects.append(self._expire(pending))
            else:
                self._start_attempt(pending, ended)
                if pending.postponed is None:
                    self._send(pending, effects)
        while self._postponed and self._postponed[0][0] <= now:
            pending = heapq.heappop(self._postponed)[2]
            if self._pending.get(pending.id) is pending:
                pending.postponed = None
                self._send(pending, effects)
        if self._tolerance is not None:
            self._tolerance.settled(False, self._replied)
            self._replied = 0
            if self._tolerance.exceeded(now) and self._is_open:
                effects.append(Reconnect("more requests timed out than tolerance allows"))
        return effects

    def _send(self, pending: Pending, effects: list[Effect]) -> None:
        """Send a request again, where there is a connection."""
        if self._is_open:
            pending.is_sent = True
            effects.append(Send(pending))

    def _expire(self, pending: Pending) -> Settle:
        """A request has had its time."""
        self._remove(pending.id)
        if pending.postponed is not None:
            return Settle(pending, pending.postponed)
        if self._tolerance is not None and not pending.is_tolerated:
            self._tolerance.settled(timed_out=True)
        return Settle(pending, self._timeout_of(pending))

    def _mind_silence(self, pending: Pending, effects: list[Effect], now: float, heard_at: float) -> None:
        """An attempt ends: when nothing was heard since it was sent, ask whether the connection lives."""
        since = max(pending.deadline - pending.timeout, self._opened_at)
        if self._is_open and pending.is_sent and heard_at <= since and self._answer_due == float("inf"):
            self._asked_at = now
            self._answer_due = now + self._answer_time
            effects.append(Ask())

    def _answer(self, effects: list[Effect], heard_at: float) -> None:
        """The time for a sign of life is over."""
        self._answer_due = float("inf")
        if self._is_open and self._asked_at is not None and heard_at <= self._asked_at:
            effects.append(Reconnect("no sign of life since an attempt ended"))

    def _timeout_of(self, pending: Pending) -> RequestTimeout:
        """What a request fails with after its last attempt: it tells why there is no connection, when there is none."""
        attempts = pending.attempts if pending.resend else pending.attempt
        times = f"{attempts} × {pending.timeout} s" if attempts > 1 else f"{pending.timeout} s"
        problem = f"no reply to {pending} within {times}"
        if self._is_open:
            return RequestTimeout(problem)
        error = RequestTimeout(f"{problem}; there is no connection: {self.reason}")
        error.__cause__ = own_copy(self.reason)
        return error

    def due(self) -> float:
        """When to ``tick`` next."""
        due = float("inf") if self._tolerance is None else self._tolerance.due
        for lane in list(self._lanes.values()):
            first = _first_of(lane)
            if first is not None:
                due = min(due, first.deadline)
        if self._postponed:
            due = min(due, self._postponed[0][0])
        return min(due, self._answer_due)

    def _pop_overdue(self, now: float) -> list[Pending]:
        """Those whose attempt has ended, taken out of their lanes."""
        overdue = []
        for timeout in list(self._lanes):
            lane = self._lanes.get(timeout, _NO_LANE)
            while (first := _first_of(lane)) is not None and first.deadline <= now:
                lane.pop(first.id, None)
                overdue.append(first)
            if not lane and len(self._lanes) > _IDLE_LANES:
                self._lanes.pop(timeout, None)
        return overdue

    def _start_attempt(self, pending: Pending, ended: int) -> None:
        """The next attempt lasts as long as the first, from the end of the last; it goes to the end of its lane."""
        pending.attempt += ended
        pending.deadline += ended * pending.timeout
        pending.lane = self._lanes.setdefault(pending.timeout, pending.lane)
        pending.lane[pending.id] = pending

    def _remove(self, id: str) -> Optional[Pending]:
        pending = self._pending.pop(id, None)
        if pending is not None:
            lane = pending.lane
            lane.pop(id, None)
            if not lane and len(self._lanes) > _IDLE_LANES:
                self._lanes.pop(pending.timeout, None)
        return pending

    def _fail(self, failed: list[Pending], error: OompaError) -> list[Effect]:
        """Each gets an error of its own: one that many threads raise would gather the frames of them all."""
        for pending in failed:
            self._remove(pending.id)
            if self._tolerance is not None and not pending.is_tolerated:
                self._tolerance.settled(timed_out=False)
        return [Settle(pending, own_copy(error)) for pending in failed]


def own_copy(error: E) -> E:
    """An error of its own for whoever raises it, with the same cause, which ``copy`` leaves out."""
    own = copy(error)
    own.__cause__ = error.__cause__
    return own
