"""A client's threads: connect, read, time, reconnect. What to do is decided in ``exchange`` and ``policy``; here it is done.

Three threads at most. The *keeper* connects, reads when no caller does (see ``turns``) and reconnects. The *timer* ends
attempts and watches for silence; it never blocks on the network, so deadlines hold whatever the others do. The callback
thread runs what belongs to the user (see ``callbacks``). Callers send on their own threads, and read while they wait.

``_state`` guards the exchange, the current channel and the current opening, and whether the link is closed. Nothing is
sent, read, settled or called under it.
"""

import itertools
import logging
import os
import secrets
import ssl
import threading
import weakref
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Callable, Mapping, NamedTuple, Optional, Sequence, Union

from ..emitter import Emitter
from ..errors import ClientClosed, ConnectionLost, ProtocolError, RemoteError, TooManyPending
from ..options import seconds
from ..wire.channel import Channel, ChannelClosed
from ..wire.closing import BLAMING_CODES, CloseCode
from ..wire.codec import Codec
from ..wire.frames import Message
from ..wire.messages import OK, RequestWriter, read_reply
from ..wire.streams import stream_of
from .address import Address
from .call import AwaitedCall, Call
from .callbacks import Callbacks
from .exchange import Effect, Exchange, Pending, Reconnect, Send
from .opening import ClientOpening, NotTrusted
from .reconnecting import Backoff, Tolerance, is_refusal
from .turns import Settled, Turns

Headers = Union[None, Mapping[str, str], Callable[[], Mapping[str, str]]]

#: Of ``close_timeout``, what is left to the threads for ending once the closing handshake was given up.
_ENDING_TIME = 0.25

#: The links of this process, for ``os.fork``.
_links: "weakref.WeakSet[Link]" = weakref.WeakSet()


class LinkOptions(NamedTuple):
    """The client's options, checked and completed; durations in seconds, sizes in bytes."""

    reconnect_interval: float
    max_reconnect_interval: Optional[float]
    timeout: float
    attempts: int
    tolerance: Optional[tuple[float, float]]
    connect_timeout: float
    ping_interval: Optional[float]
    write_timeout: float
    close_timeout: float
    max_message_size: int
    max_pending: int
    headers: Headers
    ssl_context: Optional[ssl.SSLContext]
    proxy: dict[str, Any]


class Link:
    """The working half of a client. Its threads hold the link and never the client, so an unreferenced client can end."""

    def __init__(self, address: Address, options: LinkOptions, codec: Codec, emitter: Emitter, logger: logging.Logger) -> None:
        self._address = address
        self._options = options
        self._codec = codec
        self._writer = RequestWriter(codec)
        self._emitter = emitter
        self._logger = logger
        self._timeout = options.timeout
        self._attempts = options.attempts
        self._max_message_size = options.max_message_size
        self._callbacks = Callbacks(logger)
        self._backoff = Backoff(options.reconnect_interval, options.max_reconnect_interval)
        tolerance = None if options.tolerance is None else Tolerance(*options.tolerance, monotonic())
        self._exchange = Exchange(options.max_pending, tolerance)
        self._turns = Turns(self._apply, self._exchange.__len__)
        #: Return when a call is settled or its timeout, in seconds, is over; reads the connection meanwhile.
        self.wait_for: Callable[[Settled, Optional[float]], None] = self._turns.wait_for
        self._state = threading.Lock()
        self._channel: Optional[Channel] = None
        self._opening: Optional[ClientOpening] = None
        self._answered: Sequence[Pending] = ()  # what the thread that reads is settling, before it is forgotten
        self._refusal: Optional[str] = None
        self._threads: list[threading.Thread] = []
        self._keeps = False
        self._times = False
        self._closing = threading.Event()
        self._abandoned = False
        self._timer_due = float("inf")
        self._nudges: SimpleQueue[None] = SimpleQueue()
        # Unique across processes and machines: 72 random bits for the link, a counter for the request.
        self._id_prefix = secrets.token_urlsafe(9)
        self._ordinals = itertools.count(1)
        _links.add(self)

    # What callers use; any thread.

    def start(self) -> None:
        """Connect, and stay connected. Once; again is no error. Raises ClientClosed."""
        self._start_thread("_times", self._time, "oompa-timer")
        self._start_thread("_keeps", self._keep, "oompa-keeper")

    def dispatch(self, type: str, payload: Any, timeout: Optional[float] = None, owner: Any = None) -> Call:
        """Send a request, now or when there is a connection.

        Args:
            timeout: The limit of this request, instead of ``timeout`` and ``attempts``.
            owner: Kept alive until the call is done.

        Raises:
            ClientClosed, TooManyPending: It was not dispatched.
            ValueError, TypeError: The payload is not JSON, or the request exceeds ``max_message_size``.
        """
        id = f"{self._id_prefix}{next(self._ordinals)}"
        call = Call(self, id, type, owner)
        self._send_new(type, id, payload, timeout, call)
        if self._turns.is_dozing:
            self._turns.rouse()
        return call

    def call(self, type: str, payload: Any, timeout: Optional[float] = None) -> Any:
        """Send a request and wait: ``dispatch(...).result()`` without what makes a Future. Raises what both do."""
        call = AwaitedCall()
        self._send_new(type, f"{self._id_prefix}{next(self._ordinals)}", payload, timeout, call)
        wait_for = self.wait_for
        wait_for(call, None)
        return call.outcome()

    def _send_new(self, type: str, id: str, payload: Any, timeout: Optional[float], call: Union[Call, AwaitedCall]) -> None:
        """Make ``call`` pending and send its request, now or when there is a connection. Raises as ``dispatch``."""
        if self._refusal is not None:
            raise ClientClosed(self._refusal)
        if not self._times:
            self._start_thread("_times", self._time, "oompa-timer")
        text = self._writer.write(type, id, payload)
        if len(text) > self._max_message_size:
            raise ValueError(f"the request of {len(text)} bytes exceeds max_message_size of {self._max_message_size}")
        if timeout is None:
            pending = Pending(id, text, self._timeout, self._attempts, call)
        else:
            pending = Pending(id, text, seconds("timeout", timeout), 1, call)
        with self._state:
            if self._refusal is not None:
                raise ClientClosed(self._refusal)
            try:
                is_open = self._exchange.dispatched(pending, monotonic())
            except TooManyPending:  # a caller may be back before the thread that read its reply forgets it
                settled = [each for each in self._answered if each.future.is_settled]
                if not settled:
                    raise
                for each in settled:
                    self._exchange.received(each.id)
                is_open = self._exchange.dispatched(pending, monotonic())
            channel = self._channel if is_open else None
        if channel is not None:
            self._send(channel, pending)
        if pending.deadline < self._timer_due:
            self._nudges.put(None)

    def forget(self, call: Call) -> None:
        """The call was cancelled."""
        if not self._is_foreign():
            with self._state:
                self._exchange.cancelled(call.id)

    def run_later(self, function: Callable[..., Any], *args: Any) -> None:
        """Run a function on the callback thread."""
        self._callbacks.post(function, *args)

    def close(self) -> None:
        """Fail what is pending, close with 1001 and end the threads; at most ``close_timeout`` seconds. Idempotent."""
        if self._is_foreign():
            return
        deadline = monotonic() + self._options.close_timeout
        if not self._state.acquire(timeout=self._options.close_timeout / 2):
            return self.abandon()  # called by a signal handler that interrupted the holder: the timer closes later
        try:
            self._refusal = self._refusal or "the client is closed"
            waiting = self._exchange.waiting()
            channel, opening = self._channel, self._opening
        finally:
            self._state.release()
        self._closing.set()
        self._nudges.put(None)
        for pending in waiting:  # settled before they are forgotten: if this is interrupted, the next close goes on
            pending.future.settle(error=ClientClosed("the client was closed before the reply came"))
        with self._state:
            self._exchange.closed()
        self._callbacks.close()
        if opening is not None:
            opening.abort()
        if channel is not None:
            channel.close(CloseCode.GOING_AWAY)
            self._turns.rouse()
            self._join(self._threads, deadline - min(_ENDING_TIME, self._options.close_timeout / 2))
            channel.abort("the client was closed")
        self._join(self._threads, deadline)
        self._callbacks.join(max(0.0, deadline - monotonic()))

    def abandon(self) -> None:
        """Close, on the timer's thread, and return at once. Takes no lock: a garbage collection comes at any moment."""
        self._abandoned = True
        self._nudges.put(None)

    def disown(self) -> None:
        """This process is a fork: the connection, the locks and the threads are the parent's, and so are the ids."""
        self._state = threading.Lock()  # a thread of the parent may have held it
        self._id_prefix = secrets.token_urlsafe(9)
        if self._keeps or self._times:
            self._refusal = "this client belongs to the process that made it; make a new one after fork"
            self._threads = []
            self.wait_for = self._refuse

    def _refuse(self, call: Settled, timeout: Optional[float]) -> None:
        raise ClientClosed(str(self._refusal))

    # Threads.

    def _start_thread(self, flag: str, target: Callable[[], None], name: str) -> None:
        """Start one of the two threads, once; ``flag`` names the attribute that tells."""
        with self._state:
            if self._refusal is not None:
                raise ClientClosed(self._refusal)
            if getattr(self, flag):
                return
            setattr(self, flag, True)
            thread = threading.Thread(target=target, name=name, daemon=True)
            self._threads.append(thread)
        try:
            thread.start()
        except RuntimeError:  # no thread to be had
            self._threads.remove(thread)
            setattr(self, flag, False)
            raise

    def _is_foreign(self) -> bool:
        return self._refusal is not None and not self._threads and (self._keeps or self._times)

    @staticmethod
    def _join(threads: list[threading.Thread], deadline: float) -> None:
        for thread in threads:
            if thread is not threading.current_thread() and thread.ident is not None:
                thread.join(max(0.0, deadline - monotonic()))

    # The keeper: connecting, reading while no caller does, reconnecting.

    def _keep(self) -> None:
        was_lost = False
        while not self._closing.wait(self._backoff.delay(monotonic())):
            channel = self._open(was_lost)
            if channel is None:
                was_lost = True
                continue
            closed = self._turns.keep(channel)
            self._lost(channel, closed)
            was_lost = True

    def _open(self, was_lost: bool) -> Optional[Channel]:
        """Try once to connect, and send what is pending; None when it failed or the link was closed."""
        self._backoff.attempted(monotonic())
        try:
            channel = self._connect()
        except ConnectionLost as error:
            self._failed(error, was_lost)
            return None
        except BaseException as error:  # a callable for headers that raises or exits, no memory
            self._failed(ConnectionLost(f"connecting failed: {type(error).__name__}: {error}"), was_lost)
            return None
        with self._state:
            self._opening = None
            is_closed = self._refusal is not None
            to_send = []
            if not is_closed:
                self._channel = channel
                to_send = self._exchange.opened()
        if is_closed:
            channel.release()
            return None
        self._backoff.succeeded()
        for pending in to_send:
            self._send_again(channel, pending)
        if was_lost:
            self._emit("reconnected")
        if channel.check_due() < self._timer_due:
            self._nudges.put(None)  # the timer minds the new channel's pings
        return channel

    def _connect(self) -> Channel:
        options = self._options
        headers = options.headers() if callable(options.headers) else options.headers
        opening = ClientOpening(
            self._address,
            headers=headers or {},
            ssl_context=options.ssl_context,
            proxy=options.proxy,
            timeout=options.connect_timeout,
        )
        with self._state:
            self._opening = opening
            is_closed = self._refusal is not None
        if is_closed:
            opening.abort()
        opened = opening.open()
        return Channel(
            stream_of(opened.sock),
            is_client=True,
            max_message_size=options.max_message_size,
            ping_interval=options.ping_interval,
            write_timeout=options.write_timeout,
            close_timeout=options.close_timeout,
            received=opened.received,
        )

    def _failed(self, error: ConnectionLost, was_lost: bool) -> None:
        """An attempt to connect has failed."""
        self._backoff.failed()
        with self._state:
            self._opening = None
            if self._refusal is not None:
                return
            effects = self._exchange.refused(error) if is_refusal(error.status) else []
        if is_refusal(error.status) or isinstance(error, NotTrusted):
            self._backoff.refused(monotonic())
        self._logger.warning("%s", str(error))
        self._perform(effects, None)
        self._emit("error", error)
        self._emit("reconnect-failed" if was_lost else "host-closed")

    def _lost(self, channel: Channel, closed: ChannelClosed) -> None:
        """The connection has ended; nobody reads it any more."""
        with self._state:
            self._channel = None
            is_closed = self._refusal is not None
            effects = self._exchange.lost(closed.code, closed.reason)
        channel.release()
        if is_closed:
            return
        if closed.code in BLAMING_CODES:
            self._backoff.refused(monotonic())
        self._logger.warning("connection to %s lost: %s", self._address.shown, str(closed))
        self._perform(effects, None)
        if closed.code != CloseCode.NORMAL_CLOSURE:
            self._emit("error", ConnectionLost(f"the connection was lost: {closed}", closed.code))
        self._emit("host-closed")

    # The timer.

    def _time(self) -> None:
        while not self._closing.is_set():
            self._timer_due = float("inf")  # whoever dispatches from here on nudges, for the look below may miss it
            due = monotonic() + self._timeout
            try:
                # No request has a shorter timeout unless it says so and nudges: a look per timeout misses no deadline.
                due = min(due, self._look())
            except Exception:
                self._logger.exception("a defect of oompa: the timer goes on")
            self._timer_due = due
            self._sleep_until(due)

    def _look(self) -> float:
        """Do what is due; returns when the next thing is."""
        if self._abandoned:
            self.close()
        now = monotonic()
        with self._state:
            effects = self._exchange.tick(now)
            channel = self._channel
            due = self._exchange.due()
        self._perform(effects, channel)
        if channel is None:
            return due
        channel.check(now)
        return min(due, channel.check_due())

    def _sleep_until(self, due: float) -> None:
        """Sleep until ``due`` or a nudge."""
        try:
            self._nudges.get(timeout=max(0.0, due - monotonic()))
            while True:
                self._nudges.get_nowait()
        except Empty:
            pass

    # Whoever reads, and whoever has effects to carry out.

    def _apply(self, messages: list[Message]) -> None:
        answered: list[Pending] = []
        self._answered = answered
        for message in messages:
            try:
                kind, id, value = read_reply(self._codec, message)
            except ProtocolError as error:
                self._logger.warning("a reply could not be read: %s", str(error))
                self._emit("error", error)
                continue
            pending = self._exchange.find(id)
            if pending is not None:  # settled before it is forgotten: if this is interrupted, the timer finds it
                answered.append(pending)
                pending.future.settle(value, None if kind == OK else RemoteError(value))
            if self._emitter.table:
                self._emit(f"{kind}:{id}", value)
        if answered:
            with self._state:
                for pending in answered:
                    self._exchange.received(pending.id)
            self._answered = ()  # what they refer to goes here, where no lock is held

    def _perform(self, effects: list[Effect], channel: Optional[Channel]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                if channel is not None and not channel.is_stalled:  # else the last copy is still on its way
                    self._send_again(channel, effect.pending)
            elif isinstance(effect, Reconnect):
                self._logger.warning("%s; reconnecting", effect.reason)
                if channel is not None:
                    channel.abort(effect.reason)
            else:
                effect.pending.future.settle(error=effect.error)

    def _send(self, channel: Channel, pending: Pending) -> None:
        try:
            channel.post(pending.text, pending.future)
        except ChannelClosed:
            pass  # the reader sees it; what is pending is sent again on the next connection
        except BaseException:
            channel.abort("interrupted while sending")
            raise

    def _send_again(self, channel: Channel, pending: Pending) -> None:
        if not pending.future.is_settled:  # whoever settled it may have been interrupted before it was forgotten
            self._send(channel, pending)

    def _emit(self, event: str, *args: Any) -> None:
        if self._emitter.has(event):
            self._callbacks.post(self._emitter.emit, event, *args)


def _disown_all() -> None:
    for link in list(_links):
        link.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
