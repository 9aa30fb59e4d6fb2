"""Who reads a client's connection: one thread at a time, and rather one that waits for a reply than one kept for it.

A caller that waits for its reply reads the socket itself (it *leads*), which spares it being woken by another thread. When
its own reply is there it passes the lead to another waiting caller, or leaves it free. The *keeper*, the link's own
thread, takes the lead when it has been free for a few milliseconds, so pings, closing and replies that nobody waits for
are read as well, and steps down when a caller waits. While each reply that is to come has a caller waiting for it the keeper
dozes: it looks less often, for many clients in one process would keep waking it for nothing.

The lead is in one of these states; ``_lock`` guards who has it, the line, ``_leads`` and ``_lost``:

============  ====================================================================================================
state         who moves it on, and where
============  ====================================================================================================
no channel    ``_leader`` and ``_channel`` are None. Callers stand in line. ``keep`` brings a channel: the keeper leads.
keeper leads  ``_leader`` is this object. A caller joins the line: with the next reply, or when roused, the keeper steps down.
caller leads  ``_leader`` is a waiter. Its call is settled, its time is over, it is interrupted: it steps down.
free          ``_leader`` is None. The next caller takes it; or the keeper, when it has looked twice and nothing has moved.
lost          ``_lost`` tells how the channel ended, which a leader has met. The keeper, parked, returns it from ``keep``.
============  ====================================================================================================

Who *steps down* passes the lead to the first in line that still waits, or leaves it free, or lost. A waiter is in line, or
leads, or neither; ``is_gone`` when it waits no more. The keeper reads, or is *parked*: it claims the lead and naps in turn.

What signal handlers interrupt is the main thread, a caller. Whatever interrupts it, ``wait_for`` marks its waiter as gone in a
single step, before the steps that may be interrupted, too: nobody passes the lead to a waiter that is gone, and the parked
keeper takes it from one. ``with _lock`` is safe, for the lock is no Python code, and re-entrant for handlers that call. Where
every call comes by, the lock is acquired within a ``try``, which costs half of that: what a handler raises comes after a step
that calls, so either the lock is held, and released, or it was not to be had, and there is nothing to release. A waker that an
interrupted thread was to release costs a second: every sleep looks around after ``_LOOK``, the parked keeper's, too. A leader
that is interrupted with messages in hand aborts the channel. Loops within a ``try`` are ``while True``: of others the jump back
is outside of it on CPython 3.12 and 3.13 (https://github.com/python/cpython/issues/130279). Wakers are released, and reading
happens, without the lock. What wakes a sleeper is a leader that steps down in its favour, the settling of its call, ``rouse``,
or its timeout.
"""

import threading
from collections import deque
from enum import Enum
from time import monotonic
from typing import Callable, Optional, Protocol

from ..threads import is_main
from ..wire.channel import Channel
from ..wire.closing import ChannelClosed
from ..wire.frames import Message
from .call import AwaitedCall, release

#: Seconds the lead stays free before the keeper takes it, unless it dozes; also how often the parked keeper looks while the
#: lead changes.
STALE = 0.005

#: After so many looks that found a caller waiting for each reply the keeper dozes: so many seconds between two looks. A lead
#: that is left free then is taken after two of them, or at once if something is to come that nobody waits for.
_QUIET_LOOKS = 8
_DOZE = 0.05

#: Seconds of silence after which a leading caller looks whether its call was settled elsewhere.
TICK = 0.02

#: Seconds after which a sleeping thread looks around though nobody woke it: a signal handler may have interrupted the thread
#: that was about to.
_LOOK = 1.0

#: Seconds the leading keeper reads at most before it looks around; anything that needs it sooner wakes it.
_KEEPER_LOOK = 60.0

Apply = Callable[[list[Message]], None]


class Settled(Protocol):
    """What a caller waits for."""

    is_settled: bool

    def add_waker(self, waker: threading.Lock) -> None:
        """Release ``waker`` when it is settled; the caller looks at ``is_settled`` afterwards."""

    def remove_waker(self, waker: threading.Lock) -> None:
        """Forget ``waker``."""


class Waiter(Protocol):
    """A caller that waits: leading, in line, or neither.

    Attributes:
        call: What it waits for.
        waker: Asleep it waits to acquire this; None: it has not been asleep.
        is_gone: Whether it waits no more, though an interruption may have kept it from leaving the line.
    """

    @property
    def call(self) -> Settled:
        """See above."""

    waker: Optional[threading.Lock]
    is_gone: bool


class _Waiter:
    """A caller that may be one of several that wait for the same call."""

    __slots__ = ("call", "waker", "is_gone")

    def __init__(self, call: Settled) -> None:
        self.call = call
        self.is_gone = False
        self.waker: Optional[threading.Lock] = None


class _Line(deque[Waiter]):
    """The callers that wait for the lead, in the order they came. Whoever changes it holds the lock of ``Turns``."""

    def join(self, me: Waiter) -> None:
        """Stand in line, once."""
        if me not in self:
            self.append(me)

    def discard(self, me: Waiter) -> None:
        """Leave the line; no error where it was left already."""
        if me in self:
            self.remove(me)

    def pop_heir(self) -> Optional[Waiter]:
        """The first that still waits, None when nobody does; those before it leave the line."""
        while self:
            heir = self.popleft()
            if not heir.is_gone and not heir.call.is_settled:
                return heir
        return None


class _Claim(Enum):
    """What the parked keeper finds when it claims the lead."""

    MINE = "the keeper leads"
    LOST = "the channel has ended"
    MOVING = "callers lead, and the lead has moved since the last look"
    STILL = "one caller has led since the last look"


def _nap(claim: _Claim, is_dozing: bool) -> float:
    """Seconds until the parked keeper looks again. While one caller leads for long it sleeps: a lead left free wakes it."""
    if claim is _Claim.STILL:
        return _LOOK
    return _DOZE if is_dozing else STALE


class Turns:
    """The lead of one client's connections, one after the other.

    Args:
        apply: Deals with the messages a leader has read.
        expected: How many replies are to come, told without a lock.
    """

    def __init__(self, apply: Apply, expected: Callable[[], int]) -> None:
        self._apply = apply
        self._expected = expected
        #: Whether a request whose reply nobody waits for needs ``rouse``. The keeper alone writes it, without a lock.
        self.is_dozing = False
        self._lock = threading.RLock()
        self._channel: Optional[Channel] = None
        self._leader: Optional[object] = None
        self._line = _Line()
        self._leads = 0  # how often it has been passed on or left
        self._seen = -1  # of those, what the parked keeper saw last
        self._lost: Optional[ChannelClosed] = None
        self._keeper_sleeps = False
        self._keeper_waker = threading.Lock()
        self._keeper_waker.acquire()

    def wait_for(self, call: Settled, timeout: Optional[float]) -> None:
        """Read, or stand in line, until ``call`` is done or ``timeout`` seconds have passed. Any thread."""
        deadline = None if timeout is None else monotonic() + timeout
        me: Waiter = call if type(call) is AwaitedCall else _Waiter(call)
        lock = self._lock
        try:
            while True:
                if call.is_settled:
                    return
                if deadline is not None and deadline <= monotonic():
                    if self.is_dozing:
                        self.rouse()
                    return
                try:
                    lock.acquire()
                    leads = self._channel is not None and (self._leader is None or self._leader is me)
                    if leads:
                        self._leader = me
                    else:
                        self._line.join(me)
                finally:
                    try:
                        lock.release()
                    except RuntimeError:
                        pass  # interrupted before it was acquired
                if leads:
                    self._lead(me, deadline)
                else:
                    self._sleep(me, deadline)
        finally:
            me.is_gone = True
            # Without a reply the lead may be on its way to this caller, though no line shows it.
            if self._leader is me or self._line or not call.is_settled:
                self._leave(me)

    def keep(self, channel: Channel) -> ChannelClosed:
        """Read ``channel`` whenever no caller does, until it ends; returns how it ended. The keeper's thread alone."""
        channel.set_tick(TICK)
        with self._lock:
            self._channel = channel
            self._lost = None
            self._leader = self
        try:
            while True:
                self._read_as_keeper(channel)
                closed = self._park()
                if closed is not None:
                    return closed
                self.is_dozing = False
        finally:
            self.is_dozing = False
            with self._lock:
                self._channel = None  # whatever ended it: nobody is to lead it any more

    def _read_as_keeper(self, channel: Channel) -> None:
        """Read until a caller waits or the channel ends."""
        closed: Optional[ChannelClosed] = None
        try:
            while not self._line:
                self._apply(channel.receive(_KEEPER_LOOK))
        except ChannelClosed as ended:
            closed = ended
        except BaseException as error:  # no memory for a reply, say: what was read is lost, so this connection is, too
            channel.abort(f"{type(error).__name__} while reading")
            raise
        finally:
            self._step_down(self, closed)

    def _park(self) -> Optional[ChannelClosed]:
        """Let callers read until the lead is free and stale, and take it; or until the channel has ended, and tell how."""
        self._seen, quiet_looks = -1, 0
        self.is_dozing = True  # before it asks what is expected; who expects more does so before looking here
        while (claim := self._claim()) is _Claim.MOVING or claim is _Claim.STILL:
            quiet_looks = quiet_looks + 1 if self._is_quiet() else 0
            self.is_dozing = quiet_looks > _QUIET_LOOKS
            if self._keeper_waker.acquire(timeout=_nap(claim, self.is_dozing)):
                quiet_looks = 0
            self.is_dozing = True
        return self._lost if claim is _Claim.LOST else None

    def _claim(self) -> "_Claim":
        """Take the lead for the keeper if it has been free since the last look, or a caller has left without passing it on."""
        with self._lock:
            if isinstance(self._leader, (AwaitedCall, _Waiter)) and self._leader.is_gone:
                self._leader = None
            if self._leader is None and self._lost is not None:
                return _Claim.LOST
            is_still, self._seen = self._leads == self._seen, self._leads
            if self._leader is None and is_still:
                self._leader = self
                return _Claim.MINE
            self._keeper_sleeps = is_still
            return _Claim.STILL if is_still else _Claim.MOVING

    def _is_quiet(self) -> bool:
        """Whether a caller waits for each reply that is to come."""
        callers = len(self._line) + (self._leader is not None)
        return self._expected() <= callers

    def rouse(self) -> None:
        """There is something to read that nobody may wait for: the keeper is to look whether it is needed. Any thread."""
        release(self._keeper_waker)

    def hurry(self) -> None:
        """A call was settled, and not by its reply: its caller may be the one that reads, on the main thread, where a signal
        that beats keeps a read from ending with its tick. Any thread."""
        with self._lock:  # as long as there is a channel here its descriptor is open
            if self._channel is not None:
                self._channel.hurry()

    def _lead(self, me: Waiter, deadline: Optional[float]) -> None:
        """Read until the call is settled, its time is over or the channel ends."""
        channel, call, apply = self._channel, me.call, self._apply
        assert channel is not None
        # A read that a signal interrupts begins its tick anew; a wait before it does not. Where there is no deadline of the
        # caller's own the wait is spared, which a call would feel: whoever settles the call meanwhile hurries the read.
        tick = TICK if deadline is not None and is_main() else None
        closed: Optional[ChannelClosed] = None
        try:
            while True:
                if call.is_settled:
                    break
                wait = tick
                if deadline is not None:
                    left = deadline - monotonic()
                    if left <= 0:
                        break
                    if left < TICK:
                        wait = left
                apply(channel.receive(wait))
        except ChannelClosed as ended:
            closed = ended
        except BaseException:
            if not channel.is_idle:
                channel.abort("interrupted while reading")
            raise
        finally:
            self._step_down(me, closed)

    def _step_down(self, leader: object, closed: Optional[ChannelClosed]) -> None:
        """Pass the lead of ``leader`` to a caller in line, or leave it free. ``closed``: there is nothing left to read."""
        heir: Optional[Waiter] = None
        lock = self._lock
        try:
            lock.acquire()
            if self._leader is not leader:
                return  # an interruption kept it from leaving, and the keeper took over
            self._leads += 1
            if closed is not None:
                self._channel = None
                self._lost = closed.with_traceback(None)  # the frames of a caller are its own
            if self._line and self._channel is not None:
                heir = self._line.pop_heir()
            self._leader = heir
        finally:
            try:
                lock.release()
            except RuntimeError:
                pass  # interrupted before it was acquired
        if heir is None:
            if closed is not None or self._keeper_sleeps:
                release(self._keeper_waker)
        elif (waker := heir.waker) is not None:  # read once: the heir may be about to go
            release(waker)

    def _sleep(self, me: Waiter, deadline: Optional[float]) -> None:
        """Wait until the call is settled, the lead comes, or the time is over."""
        if me.waker is None:
            me.waker = threading.Lock()
            me.waker.acquire()
            me.call.add_waker(me.waker)
        if not me.call.is_settled and self._leader is not me:
            left = _LOOK if deadline is None else min(_LOOK, max(0.0, deadline - monotonic()))
            me.waker.acquire(timeout=left)

    def _leave(self, me: Waiter) -> None:
        """The caller goes; a lead that came to it meanwhile goes on to the next."""
        if me.waker is not None and not me.call.is_settled:
            me.call.remove_waker(me.waker)
        with self._lock:
            leads = self._leader is me
            self._line.discard(me)
        if leads:
            self._step_down(me, None)
