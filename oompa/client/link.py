"""The working half of a client: requests out, replies to their callers, over whatever connection there is.

Three threads at most. The *keeper* connects, reads when no caller does (see ``turns``) and reconnects (see ``keeper``). The
*timer* ends attempts and watches for silence (see ``timer``). The callback thread runs what belongs to the user (see
``callbacks``). Callers send on their own threads, and read while they wait. What to do is decided in ``exchange``; here it
is done.

``_state`` guards the exchange, the current channel and the current opening, and whether the link is closed. Nothing is
sent, read, settled or called under it.
"""

import base64
import itertools
import logging
import os
import threading
import weakref
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping, NamedTuple, Optional, Protocol, Sequence, Union

from ..callables import checked_with
from ..emitter import Emitter
from ..errors import ClientClosed, ConnectionLost, ProtocolError, RemoteError
from ..options import seconds
from ..threads import OwnedThread, is_main
from ..wire.announcement import CANCEL
from ..wire.channel import Channel
from ..wire.closing import ChannelClosed, CloseCode
from ..wire.codec import codec_named
from ..wire.frames import Message
from ..wire.messages import ERR, OK, PROGRESS_TYPE, Progress, RequestWriter, read_progress, read_reply, write_cancel
from .address import Url, parse_urls
from .call import AwaitedCall, Call, release
from .callbacks import Callbacks
from .endpoints import Endpoints
from .exchange import Ask, Effect, Exchange, Pending, Reconnect, Send, own_copy
from .options import ClientOptions
from .timer import Timer
from .tolerance import Tolerance
from .turns import Settled, Turns

if TYPE_CHECKING:
    from .opening import ClientOpening

OnProgress = Callable[[Progress], object]

#: Of ``close_timeout``, what is left to the threads for ending once the closing handshake was given up.
_ENDING_TIME = 0.25

#: Seconds a server has for a sign of life when it is asked for one: a part of ``timeout``, for the question may be on
#: its way behind much else, and at least so many.
_ANSWER_PART = 0.1
_SHORTEST_ANSWER = 1.0

#: Bytes of a request from which on copying it once instead of twice is worth a view.
_LARGE = 65536

#: Seconds after which a thread in ``wait_connected`` looks around though nobody woke it.
_LOOK = 1.0

#: The links of this process, for ``os.fork``.
_links: "weakref.WeakSet[Link]" = weakref.WeakSet()

#: Links made since somebody began to look for those that are left open, as the pytest plugin does; None: nobody looks.
made: "Optional[list[Link]]" = None


class Wishes(NamedTuple):
    """What one request differs in from others.

    Attributes:
        timeout: Its limit in seconds, instead of ``timeout`` and ``attempts``; None: as the others.
        meta: What to tell the server beside the payload, where it understands that.
        resend: Whether it may be sent again once it was sent.
        on_progress: Called with what the server says of how far it is.
    """

    timeout: Optional[float] = None
    meta: Optional[Mapping[str, Any]] = None
    resend: bool = True
    on_progress: Optional[OnProgress] = None


class Farewell(NamedTuple):
    """What is left to do of closing: the connection to see off, and when to give up waiting for its other end."""

    channel: Optional[Channel]
    deadline: float


class Carrier(Protocol):
    """What a client needs of what carries its calls: a :class:`Link`, or several."""

    @property
    def shown(self) -> str:
        """Where it leads, as messages tell it."""

    @property
    def state(self) -> str:
        """Whether it is connected, or what it does instead, in a few words."""

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection."""

    def __len__(self) -> int:
        """How many calls are pending."""

    def start(self) -> None:
        """Connect, and stay connected."""

    def wait_connected(self, timeout: Optional[float]) -> None:
        """Return when there is a connection."""

    def dispatch(self, type: str, payload: Any, wishes: Optional[Wishes] = None, owner: Any = None) -> Call:
        """Send a request, now or when there is a connection."""

    def call(self, type: str, payload: Any, wishes: Optional[Wishes] = None) -> Any:
        """Send a request and wait."""

    def drain(self, timeout: Optional[float]) -> bool:
        """Take no new calls, wait until those that are pending have settled, and close."""

    def close(self) -> None:
        """Fail what is pending, close and end the threads."""

    def abandon(self) -> None:
        """Close, on a thread of its own, and return at once."""


class Link:
    """Its threads hold the link and never the client, so an unreferenced client can end.

    Args:
        endpoints: Which of the URLs comes first; None: a random one, and another one each time.
    """

    def __init__(
        self,
        url: Url,
        options: ClientOptions,
        emitter: Emitter,
        logger: logging.Logger,
        endpoints: Optional[Endpoints] = None,
    ) -> None:
        #: What messages tell of where it leads.
        self.shown = shown_of(url)
        self._url: Url = checked_with("url", url) if callable(url) else url if isinstance(url, str) else tuple(url)
        self._endpoints = Endpoints() if endpoints is None else endpoints
        self._options = options
        self._codec = codec_named(options["codec"], options["default"])
        self._writer = RequestWriter(self._codec)
        self._emitter = emitter
        self._logger = logger
        self._timeout = options["timeout"]
        self._attempts = options["attempts"]
        self._plain_meta = self._writer.write_meta(self._timeout)
        self._max_message_size = options["max_message_size"]
        self._callbacks = Callbacks(logger)
        self._exchange = _exchange_of(options)
        self._turns = Turns(self._apply, self._exchange.__len__)
        #: Return when a call is settled or its timeout, in seconds, is over; reads the connection meanwhile.
        self.wait_for: Callable[[Settled, Optional[float]], None] = self._turns.wait_for
        self._state = threading.RLock()
        self._channel: Optional[Channel] = None
        self._opening: "Optional[ClientOpening]" = None
        #: What the thread that reads is settling: a caller may be back before its call is forgotten.
        self._answered: Sequence[Pending] = ()
        self._refusal: Optional[str] = None
        #: Why no new call is taken: the link is closed, or waits for what is pending before it closes.
        self._no_more: Optional[str] = None
        self._wakers: dict[int, threading.Lock] = {}  # of those in wait_connected and drain
        self._is_draining = False
        self._is_foreign = False  # in a fork: the threads are the parent's
        self._abandoned = False
        #: Set when the link is closed; the threads end.
        self.closing = threading.Event()
        # No request has a shorter timeout unless it says so and nudges: a look per timeout misses no deadline.
        self._timer = Timer(self._look, self._timeout, self.closing.is_set, logger)
        self._keeper: Optional[OwnedThread] = None
        self.client_id = _random_id()
        self._id_prefix = _random_id()
        self._ordinals = itertools.count(1)
        _links.add(self)
        if made is not None:
            made.append(self)

    # What callers use; any thread.

    def start(self) -> None:
        """Connect, and stay connected. Once; again is no error. Raises ClientClosed."""
        # Here: the door brings ssl and websocket-client, half of what importing a client would take. And not on the keeper's
        # thread: a process that forks at that moment would have it half imported for ever.
        from .keeper import Keeper

        with self._state:
            if self._refusal is not None:
                raise ClientClosed(self._refusal)
            if self._keeper is None:
                self._keeper = Keeper(self, self._url, self._options, self._endpoints, self._turns, self._logger)
        self._timer.start()
        self._keeper.start()

    def dispatch(
        self,
        type: str,
        payload: Any,
        wishes: Optional[Wishes] = None,
        owner: Any = None,
    ) -> Call:
        """Send a request, now or when there is a connection.

        Args:
            wishes: What this request differs in from others; None: in nothing.
            owner: Kept alive until the call is done.

        Raises:
            ClientClosed, TooManyPending: It was not dispatched.
            ValueError, TypeError: The payload is not JSON, or the request exceeds ``max_message_size`` of either end.
        """
        id = f"{self._id_prefix}{next(self._ordinals)}"
        call = Call(self, id, type, owner)
        self._send_new(id, type, payload, call, wishes)
        if self._turns.is_dozing:
            self._turns.rouse()
        return call

    def call(self, type: str, payload: Any, wishes: Optional[Wishes] = None) -> Any:
        """Send a request and wait: ``dispatch(...).result()`` without what makes a Future. Raises what both do.

        Left by an exception (Ctrl-C, a signal handler that raises) it is given up, and never sent again.
        """
        call, id = AwaitedCall(), f"{self._id_prefix}{next(self._ordinals)}"
        try:
            self._send_new(id, type, payload, call, wishes)
            wait_for = self.wait_for
            wait_for(call, None)
        except BaseException:
            self._give_up(id)
            raise
        return call.outcome()

    def _send_new(
        self, id: str, type: str, payload: Any, call: Union[Call, AwaitedCall], wishes: Optional[Wishes]
    ) -> None:
        """Make ``call`` pending and send its request, now or when there is a connection. Raises as ``dispatch``."""
        if self._no_more is not None:
            raise ClientClosed(self._no_more)
        if not self._timer.is_started:
            self._timer.start()
        text = self._writer.write(type, id, payload)
        size = len(text)
        if wishes is None:
            pending = Pending(id, text, self._timeout, self._attempts, call, self._plain_meta)
        else:
            pending = self._special(id, text, call, wishes)
            size += len(pending.meta) - 1 if pending.has_meta else 0  # in place of the last brace
        if size > self._max_message_size:
            raise _too_large(pending, size, f"max_message_size of {self._max_message_size}")
        state = self._state
        try:
            state.acquire()  # see turns of locks within a try
            if self._no_more is not None:
                raise ClientClosed(self._no_more)
            is_open = self._exchange.dispatched(pending, monotonic(), self._answered)
            channel = self._channel if is_open else None
        finally:
            try:
                state.release()
            except RuntimeError:
                pass  # interrupted before it was acquired
        if channel is not None:
            try:
                self._send(channel, pending)
            except ValueError:  # more than the server takes
                with self._state:
                    self._exchange.cancelled(id)
                raise
        elif self._exchange.is_refused:
            self._fail_refused(pending)
        timer = self._timer
        if pending.deadline < timer.due:
            timer.nudge()

    def _special(self, id: str, text: bytes, call: Union[Call, AwaitedCall], wishes: Wishes) -> Pending:
        """A request that differs from others."""
        limit = self._timeout if wishes.timeout is None else seconds("timeout", wishes.timeout)
        attempts = self._attempts if wishes.timeout is None else 1
        pending = Pending(id, text, limit, attempts, call, self._writer.write_meta(limit, wishes.meta))
        pending.has_meta = bool(wishes.meta)
        pending.is_tolerated = wishes.timeout is not None
        pending.resend = wishes.resend
        pending.on_progress = wishes.on_progress
        return pending

    def _fail_refused(self, pending: Pending) -> None:
        """The server does not want this client: a new call fails at once."""
        with self._state:
            effects = self._exchange.unsent(pending)
        self._perform(effects, None)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection."""
        channel = self._channel
        return channel is not None and channel.is_open

    @property
    def is_ready(self) -> bool:
        """Whether there is a connection, and new calls may go there: where there are several, each has its own."""
        return self.is_connected and not self._endpoints.is_away

    @property
    def state(self) -> str:
        """Whether the client is connected, or what it does instead, in a word or two."""
        if self.is_connected:
            return "connected"
        if self._refusal is not None:
            return "closed"
        return "not started" if self._keeper is None else "refused" if self.is_refused else "connecting"

    @property
    def is_refused(self) -> bool:
        """Whether the server has refused this client, and calls fail at once."""
        return self._exchange.is_refused

    def __len__(self) -> int:
        """How many calls are pending."""
        return len(self._exchange)

    def wait_connected(self, timeout: Optional[float]) -> None:
        """Return when there is a connection.

        Raises:
            ConnectionLost: There is none within ``timeout`` seconds, or the server refuses this client; with the reason.
            ClientClosed: The client is closed.
        """
        deadline = deadline_of(timeout)
        with self.woken() as waker:
            while True:  # see turns of loops within a try
                if self.meets_connection(deadline):
                    return
                doze(waker, deadline)

    @contextmanager
    def woken(self, waker: Optional[threading.Lock] = None) -> Iterator[threading.Lock]:
        """Have a lock released whenever those who wait for a connection, or for the last call, are to look around."""
        if waker is None:
            waker = threading.Lock()
            waker.acquire()
        self._wakers[id(waker)] = waker  # a single step, here and below: no lock
        try:
            yield waker
        finally:
            self._wakers.pop(id(waker), None)

    def meets_connection(self, deadline: float) -> bool:
        """Whether there is a connection; raises when there is none in time, or can be none."""
        with self._state:
            refusal, is_refused, reason = self._refusal, self._exchange.is_refused, self._exchange.reason
        if refusal is not None:
            raise ClientClosed(refusal)
        if self.is_connected:
            return True
        if is_refused or monotonic() >= deadline:
            raise own_copy(reason)
        return False

    def _wake_waiting(self) -> None:
        for waker in tuple(self._wakers.values()):
            release(waker)

    def forget(self, call: Call) -> None:
        """The call was cancelled."""
        self._give_up(call.id)

    def _give_up(self, id: str) -> None:
        if self._is_foreign:
            return
        with self._state:
            pending, channel = self._exchange.cancelled(id), self._channel
        if pending is not None:
            self._turns.hurry()
            self._tell_given_up(channel, pending)
            self._look_drained()

    def _tell_given_up(self, channel: Optional[Channel], pending: Pending) -> None:
        """Nobody waits for the reply any more: spare the server the work, where it understands that."""
        if channel is None or not pending.is_sent or CANCEL not in channel.announced.features:
            return
        try:
            channel.post(write_cancel(pending.id))
        except ChannelClosed:
            pass

    def run_later(self, function: Callable[..., Any], *args: Any) -> None:
        """Run a function on the callback thread."""
        self._callbacks.post(function, *args)

    def run_undisturbed(self, function: Callable[[], object]) -> None:
        """Run a function that does not wait: on the main thread's behalf the timer, for no signal interrupts that one."""
        if is_main() and self._timer.is_started and not self._is_foreign and not self.closing.is_set():
            self._timer.run(function)
            if not self.closing.is_set():
                return  # the timer ends after that is set, and runs what it has been brought by then
        function()

    def check_owned(self) -> None:
        """Raise ClientClosed in a fork: replies come to the parent."""
        if self._is_foreign:
            raise ClientClosed(str(self._refusal))

    def drain(self, timeout: Optional[float]) -> bool:
        """Take no new calls, wait until those that are pending have settled, and close.

        Args:
            timeout: Seconds to wait; None: as long as they take.

        Returns:
            Whether all have settled.
        """
        self.refuse_more()
        has_settled = self.wait_settled(deadline_of(timeout))
        self.close()
        return has_settled

    def refuse_more(self) -> None:
        """Take no new calls."""
        if self._is_foreign:
            return
        with self._state:
            self._no_more = self._no_more or "the client drains: it takes no new calls"
            self._is_draining = True

    def wait_settled(self, deadline: float) -> bool:
        """Wait until what is pending has settled, after ``refuse_more``; returns whether it has before the deadline."""
        if self._is_foreign:
            return len(self) == 0
        with self._state:
            waiting = self._exchange.waiting()
        with self.woken() as waker:
            while True:  # see turns of loops within a try
                waiting = [pending for pending in waiting if not pending.future.is_settled]
                if not waiting or self._refusal is not None or monotonic() >= deadline:
                    break
                doze(waker, deadline)
        return not waiting

    def _look_drained(self) -> None:
        """Something has settled: wake whoever waits for the last."""
        if self._is_draining and not len(self._exchange):
            self._wake_waiting()

    def close(self) -> None:
        """Fail what is pending, close with 1001 and end the threads; at most ``close_timeout`` seconds. Idempotent."""
        self.finish_closing(self.begin_closing())

    def begin_closing(self) -> Optional[Farewell]:
        """Do what of ``close`` does not wait for the server; the rest does ``finish_closing``, given what this returns."""
        if self._is_foreign:
            return None
        close_timeout = self._options["close_timeout"]
        deadline = monotonic() + close_timeout
        if not self._state.acquire(timeout=close_timeout / 2):
            self.abandon()  # called by a signal handler that interrupted the holder: the timer closes later
            return None
        try:
            self._refusal = self._no_more = self._refusal or "the client is closed"
            waiting = self._exchange.waiting()
            channel, opening = self._channel, self._opening
        finally:
            self._state.release()
        unsettled = sum(not pending.future.is_settled for pending in waiting)
        for pending in waiting:  # settled before they are forgotten: if this is interrupted, the next close goes on
            pending.future.settle(error=ClientClosed(f"the client was closed before the reply to {pending} came"))
        self.closing.set()  # and settled before the timer ends, which tells whom the main thread does not tell itself
        self._wake_waiting()
        self._timer.nudge()
        with self._state:
            self._exchange.closed()
        self._timer.join(deadline)
        if unsettled:
            self._logger.warning("the client was closed while %d calls were pending; they fail with ClientClosed", unsettled)
        self._callbacks.close()
        if opening is not None:
            opening.abort()
        if channel is not None:
            channel.close(CloseCode.GOING_AWAY)
            self._turns.rouse()
        return Farewell(channel, deadline)

    def finish_closing(self, farewell: Optional[Farewell]) -> None:
        """Wait for the closing handshake, and for the threads to end."""
        if farewell is None:
            return
        channel, deadline = farewell
        if channel is not None:
            self._join(deadline - min(_ENDING_TIME, self._options["close_timeout"] / 2))
            channel.abort("the client was closed")
        self._join(deadline)
        self._callbacks.join(max(0.0, deadline - monotonic()))

    def abandon(self) -> None:
        """Close, on the timer's thread, and return at once. Takes no lock: a garbage collection comes at any moment."""
        self._abandoned = self._abandoned or self._refusal is None
        self._timer.nudge()

    @property
    def is_left_open(self) -> bool:
        """Whether it was started and nobody has closed it, even if the garbage collection has."""
        return self._keeper is not None and self._keeper.is_started and (self._refusal is None or self._abandoned)

    def disown(self) -> None:
        """This process is a fork: the connection, the locks and the threads are the parent's, and so are the ids."""
        self._state = threading.RLock()  # a thread of the parent may have held it
        self._emitter.disown()
        self._callbacks.disown()
        for pending in self._exchange.waiting():
            if isinstance(pending.future, Call):
                pending.future.disown()
        self._id_prefix, self.client_id = _random_id(), _random_id()
        for thread in (self._timer, self._keeper):
            if thread is not None:
                thread.disown()
        if self._timer.is_started:
            self._refusal = self._no_more = "this client belongs to the process that made it; make a new one after fork"
            self._is_foreign = True
            self.wait_for = self._refuse

    def _refuse(self, call: Settled, timeout: Optional[float]) -> None:
        raise ClientClosed(str(self._refusal))

    def _join(self, deadline: float) -> None:
        for thread in (self._timer, self._keeper):
            if thread is not None:
                thread.join(deadline)

    # What the keeper tells; its thread. Each returns False when the link is closed.

    def began(self, opening: "ClientOpening") -> bool:
        """An attempt to connect begins."""
        with self._state:
            self._opening = opening
            self._exchange.began(opening.shown)
            return self._refusal is None

    def opened(self, channel: Channel) -> bool:
        """There is a connection: send on it what is pending."""
        with self._state:
            self._opening = None
            if self._refusal is not None:
                return False
            self._channel = channel
            to_send = self._exchange.opened(monotonic())
        self._wake_waiting()
        for pending in to_send:
            self._send_again(channel, pending)
        if channel.check_due() < self._timer.due:
            self._timer.nudge()  # the timer minds the new channel's pings
        return True

    def failed(self, error: ConnectionLost, is_refused: bool) -> bool:
        """An attempt to connect has failed; a refusal fails everything that is pending."""
        with self._state:
            self._opening = None
            if self._refusal is not None:
                return False
            effects = self._exchange.failed(error, is_refused)
        if is_refused:
            self._wake_waiting()
        self._perform(effects, None)
        return True

    def lost(self, closed: ChannelClosed) -> bool:
        """The connection has ended, and nobody reads it any more."""
        with self._state:
            self._channel = None
            is_open = self._refusal is None
            effects = self._exchange.lost(closed.code, closed.reason)
        if is_open:
            self._perform(effects, None)
        return is_open

    def tell(self, event: str, *args: Any) -> None:
        """Emit an event, on the callback thread."""
        if self._emitter.has(event):
            self._callbacks.post(self._emitter.emit, event, *args)

    # The timer's thread.

    def _look(self) -> float:
        """Do what is due; returns when the next thing is."""
        if self._abandoned:
            self.close()
        now = monotonic()
        with self._state:
            channel = self._channel
            effects = self._exchange.tick(now, now if channel is None or channel.is_stalled else channel.heard_at)
            due = self._exchange.due()
        self._perform(effects, channel)
        if channel is None:
            return due
        if self._endpoints.is_away and self._endpoints.may_go():
            channel.close(CloseCode.NORMAL_CLOSURE, "it was opened for what is settled now")
        channel.check(now)
        return min(due, channel.check_due())

    # Whoever reads, and whoever has effects to carry out.

    def _apply(self, messages: list[Message]) -> None:
        answered: list[Pending] = []
        self._answered = answered
        for message in messages:
            try:
                kind, id, value = read_reply(self._codec, message)
            except ProtocolError as error:
                self._settle_unreadable(error, answered)
                continue
            if kind == OK:
                pending = self._exchange.find(id)
                if pending is not None:  # settled before it is forgotten: if this is interrupted, the timer finds it
                    answered.append(pending)
                    pending.future.settle(value)
                if self._emitter.table:
                    self.tell(f"OK:{id}", value)
            elif kind == ERR:
                self._apply_failure(id, value, answered)
            elif kind == PROGRESS_TYPE:
                self._tell_progress(id, value)
        if answered:
            state = self._state
            try:
                state.acquire()  # see turns of locks within a try
                for pending in answered:
                    self._exchange.received(pending.id)
            finally:
                try:
                    state.release()
                except RuntimeError:
                    pass  # interrupted before it was acquired
            self._answered = ()  # what they refer to goes here, where no lock is held
            if self._is_draining:
                self._look_drained()

    def _apply_failure(self, id: Any, error: RemoteError, answered: list[Pending]) -> None:
        """An ERR ends its call, unless it says that the same request is worth sending again in time."""
        pending = self._exchange.find(id)
        if pending is not None:
            if error.retry_after is not None:
                with self._state:
                    is_postponed = self._exchange.postponed(pending, error, monotonic())
                if is_postponed:
                    return self._timer.nudge()
            answered.append(pending)
            pending.future.settle(error=error)
        if self._emitter.table:
            self.tell(f"ERR:{id}", error.error)

    def _tell_progress(self, id: Any, payload: Any) -> None:
        pending, progress = self._exchange.find(id), read_progress(payload)
        if pending is not None and pending.on_progress is not None and progress is not None:
            self._callbacks.post(pending.on_progress, progress)

    def _settle_unreadable(self, error: ProtocolError, answered: list[Pending]) -> None:
        """A reply that cannot be read ends the call whose id it has all the same: asking again would bring it again."""
        self._logger.warning("a reply could not be read: %s", str(error))
        pending = self._exchange.find(error.id)
        if pending is not None:
            answered.append(pending)
            pending.future.settle(error=error)
        self.tell("error", error)

    def _perform(self, effects: list[Effect], channel: Optional[Channel]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                if channel is not None and not channel.is_stalled:  # else the last copy is still on its way
                    self._send_again(channel, effect.pending)
            elif isinstance(effect, Reconnect):
                self._logger.warning("%s; reconnecting", effect.reason)
                if channel is not None:
                    channel.abort(effect.reason)
            elif isinstance(effect, Ask):
                if channel is not None:
                    channel.ask()
                    self._turns.rouse()
            else:
                effect.pending.future.settle(error=effect.error)
                self._turns.hurry()
                self._tell_given_up(channel, effect.pending)
        if effects and self._is_draining:
            self._look_drained()

    def _send(self, channel: Channel, pending: Pending) -> None:
        """Raises ValueError for more than the server takes."""
        text = pending.text
        if channel.takes_meta:
            text = text[:-1] + pending.meta if len(text) < _LARGE else b"".join((memoryview(text)[:-1], pending.meta))
        if len(text) > channel.taken:
            text = _bare(pending, channel.taken, len(text))
        post = channel.post
        try:
            post(text, pending.future)
        except ChannelClosed:
            pass  # the reader sees it; what is pending is sent again on the next connection
        except BaseException:
            channel.abort("interrupted while sending")
            raise

    def _send_again(self, channel: Channel, pending: Pending) -> None:
        if pending.future.is_settled:  # whoever settled it was interrupted: do what is left, and forget it
            pending.future.settle()
        else:
            try:
                return self._send(channel, pending)
            except ValueError as error:
                pending.future.settle(error=error)
        with self._state:
            self._exchange.cancelled(pending.id)


def shown_of(url: Url) -> str:
    """What messages tell of where a URL leads. Raises ValueError for no URL."""
    return "a URL that is asked for" if callable(url) else ", ".join(each.shown for each in parse_urls(url))


def deadline_of(timeout: Optional[float]) -> float:
    """When so many seconds are over, on the monotonic clock; None: never."""
    return float("inf") if timeout is None else monotonic() + timeout


def doze(waker: threading.Lock, deadline: float) -> None:
    """Wait until somebody releases the lock, or it is time to look around though nobody has."""
    waker.acquire(timeout=max(0.0, min(_LOOK, deadline - monotonic())))


def _exchange_of(options: ClientOptions) -> Exchange:
    tolerance = options["tolerance"]
    return Exchange(
        options["max_pending"],
        None if tolerance is None else Tolerance(tolerance["ratio"], tolerance["interval"], monotonic()),
        max(_SHORTEST_ANSWER, _ANSWER_PART * options["timeout"]),
    )


def _bare(pending: Pending, limit: int, size: int) -> bytes:
    """The text without what may be left out. Raises ValueError when that is too large for the server as well."""
    if pending.has_meta or len(pending.text) > limit:
        raise _too_large(pending, size, f"the max_message_size of {limit} of the server")
    return pending.text


def _too_large(pending: Pending, size: int, limit: str) -> ValueError:
    return ValueError(f"the request of {size} bytes exceeds {limit}; its type is {pending.type}")


def _random_id() -> str:
    """72 random bits: with a counter for each request, an id is unique across processes and machines."""
    return base64.urlsafe_b64encode(os.urandom(9)).decode()


def _disown_all() -> None:
    for link in list(_links):
        link.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
