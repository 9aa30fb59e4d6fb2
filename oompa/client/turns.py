"""Who reads a client's connection: one thread at a time, and rather one that waits for a reply than one kept for it.

A caller that waits for its reply reads the socket itself (it *leads*), which spares it being woken by another thread. When
its own reply is there it passes the lead to another waiting caller, or leaves it free. The *keeper*, the link's own
thread, takes the lead when it has been free for a few milliseconds, so pings, closing and replies that nobody waits for
are read as well, and steps down when a caller waits. While each reply that is to come has a caller waiting for it the keeper
dozes: it looks less often, for many clients in one process would keep waking it for nothing.

``_lock`` guards the leader, the line of waiting callers, whether there is something to read and whether the keeper sleeps.
Wakers are released and reading happens outside it. Every waker a thread sleeps on is released by: a leader that steps down
in its favour, the settling of its call, ``rouse``, or a timeout.
"""

import threading
from collections import deque
from time import monotonic
from typing import Callable, Optional, Protocol

from ..wire.channel import Channel
from ..wire.closing import ChannelClosed
from ..wire.frames import Message
from .call import release

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


class _Waiter:
    """A caller that waits: leading, in line, or neither. Asleep it waits to acquire ``waker``.

    ``is_gone``: it waits no more, though an interruption may have kept it from leaving the line.
    """

    __slots__ = ("call", "waker", "is_gone")

    def __init__(self, call: Settled) -> None:
        self.call = call
        self.is_gone = False
        self.waker: Optional[threading.Lock] = None


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
        self._line: deque[_Waiter] = deque()
        self._leads = 0
        self._lost: Optional[ChannelClosed] = None
        self._keeper_sleeps = False
        self._keeper_waker = threading.Lock()
        self._keeper_waker.acquire()

    def wait_for(self, call: Settled, timeout: Optional[float]) -> None:
        """Read, or stand in line, until ``call`` is done or ``timeout`` seconds have passed. Any thread."""
        deadline = None if timeout is None else monotonic() + timeout
        me = _Waiter(call)
        try:
            while not call.is_settled:
                if deadline is not None and deadline <= monotonic():
                    if self.is_dozing:
                        self.rouse()
                    return
                if self._take_or_join(me):
                    self._lead(me, deadline)
                else:
                    self._sleep(me, deadline)
        finally:
            me.is_gone = True
            # Without a reply the lead may be on its way to this caller, though no line shows it.
            if self._leader is me or self._line or not call.is_settled:
                self._leave(me)

    def _take_or_join(self, me: _Waiter) -> bool:
        """Take the lead if it is free or was passed to this caller; else stand in line."""
        with self._lock:
            if self._channel is not None and (self._leader is None or self._leader is me):
                self._leader = me
                return True
            if me not in self._line:
                self._line.append(me)
            return False

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
        """Let callers read until the lead is free and stale, and take it; or until the channel has ended, and tell how.

        While one caller leads for long the keeper sleeps; a lead that is left free wakes it.
        """
        leads, quiet_looks = -1, 0
        while True:
            self.is_dozing = True  # before it asks what is expected; who expects more does so before looking here
            with self._lock:
                if isinstance(self._leader, _Waiter) and self._leader.is_gone:
                    self._leader = None
                if self._leader is None and self._lost is not None:
                    return self._lost
                is_stale = self._leads == leads
                if self._leader is None and is_stale:
                    self._leader = self
                    return None
                self._keeper_sleeps = is_stale
                leads = self._leads
                callers = len(self._line) + (self._leader is not None)
            quiet_looks = quiet_looks + 1 if self._expected() <= callers else 0
            self.is_dozing = quiet_looks > _QUIET_LOOKS
            if self._keeper_waker.acquire(timeout=_LOOK if is_stale else _DOZE if self.is_dozing else STALE):
                quiet_looks = 0

    def rouse(self) -> None:
        """There is something to read that nobody may wait for: the keeper is to look whether it is needed. Any thread."""
        release(self._keeper_waker)

    def _lead(self, me: _Waiter, deadline: Optional[float]) -> None:
        """Read until the call is settled, its time is over or the channel ends."""
        channel, call, apply = self._channel, me.call, self._apply
        assert channel is not None
        closed: Optional[ChannelClosed] = None
        try:
            while not call.is_settled:
                wait = None
                if deadline is not None:
                    left = deadline - monotonic()
                    if left <= 0:
                        break
                    wait = left if left < TICK else None
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
        heir: Optional[_Waiter] = None
        with self._lock:
            if self._leader is not leader:
                return  # an interruption kept it from leaving, and the keeper took over
            self._leads += 1
            if closed is not None:
                self._channel = None
                self._lost = closed.with_traceback(None)  # the frames of a caller are its own
            while self._line and self._channel is not None and heir is None:
                heir = self._line.popleft()
                if heir.is_gone or heir.call.is_settled:
                    heir = None
            self._leader = heir
        if heir is None:
            if closed is not None or self._keeper_sleeps:
                release(self._keeper_waker)
        elif heir.waker is not None:
            release(heir.waker)

    def _sleep(self, me: _Waiter, deadline: Optional[float]) -> None:
        """Wait until the call is settled, the lead comes, or the time is over."""
        if me.waker is None:
            me.waker = threading.Lock()
            me.waker.acquire()
            me.call.add_waker(me.waker)
        if not me.call.is_settled and self._leader is not me:
            left = _LOOK if deadline is None else min(_LOOK, max(0.0, deadline - monotonic()))
            me.waker.acquire(timeout=left)

    def _leave(self, me: _Waiter) -> None:
        """The caller goes; a lead that came to it meanwhile goes on to the next."""
        if me.waker is not None and not me.call.is_settled:
            me.call.remove_waker(me.waker)
        with self._lock:
            leads = self._leader is me
            if not leads and me in self._line:
                self._line.remove(me)
        if leads:
            self._step_down(me, None)
