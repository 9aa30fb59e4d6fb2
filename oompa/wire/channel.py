"""A WebSocket after its opening handshake: whole messages in and out, limits, pings and the closing handshake.

What is written, and by which thread, is the affair of ``outbox``; here is what is read, and how the connection ends.

Threads: one thread at a time receives (who that is, is the caller's affair); any thread sends, closes or aborts. A channel
has no lock of its own.
"""

import sys
from time import monotonic
from typing import TYPE_CHECKING, NoReturn, Optional

from .announcement import META, Announcement
from .closing import ChannelClosed, CloseCode
from .frames import CloseFrame, Framing, Inbound, Message
from .heartbeat import Heartbeat, Silence
from .outbox import Outbox

if TYPE_CHECKING:
    from .streams import Stream


class Channel:
    """One open WebSocket.

    Args:
        stream: The socket, past the handshake.
        is_client: Whether this end masks.
        max_message_size: Bytes a message from the peer may have; beyond, the channel closes with 1009.
        ping_interval: Seconds of silence before a ping, and again before the peer counts as dead; None: no pings.
        write_timeout: Seconds a write may stand still before the channel is aborted; of a client, with nothing heard.
        close_timeout: Seconds to wait for the peer to end after this end failed it.
        received: Bytes of the stream that came along with the handshake.
        announced: What the other end told in the handshake.
    """

    def __init__(
        self,
        stream: "Stream",
        *,
        is_client: bool,
        max_message_size: int,
        ping_interval: Optional[float],
        write_timeout: float,
        close_timeout: float,
        received: bytes = b"",
        announced: Announcement = Announcement(),
    ) -> None:
        self.announced = announced
        #: Bytes of a message that the other end takes, and whether it understands ``meta``: looked at for each message.
        self.taken = announced.max_message_size or sys.maxsize
        self.takes_meta = META in announced.features
        self.heard_at = monotonic()
        self._is_idle = True
        self._stream = stream
        self._recv = stream.recv
        self._wait_readable = stream.wait_readable
        self._inbound = Inbound(is_client, max_message_size)
        # A server that reads nothing for want of room says that it lives; a client that reads nothing holds a server's threads.
        self._outbox = outbox = Outbox(stream, Framing(is_client), write_timeout, self._last_heard if is_client else None)
        self._stalled_at = self.heard_at
        self._heartbeat = Heartbeat(ping_interval)
        self._close_timeout = close_timeout
        self._is_client = is_client
        self._chunks = [received] if received else []
        self._ended: Optional[CloseFrame] = None  # not the exception: it would keep the frames of whoever it was raised in
        self._fault = ""
        # Any thread may call these, with nothing in between.
        #: ``send(text)``: see :meth:`Outbox.send`.
        self.send = outbox.send
        #: ``post(text, waiting=None)``: see :meth:`Outbox.post`.
        self.post = outbox.post
        #: ``abort(reason)``: see :meth:`Outbox.abort`.
        self.abort = outbox.abort
        #: ``hurry()``: see :meth:`PlainStream.hurry`. Not once the channel may be released.
        self.hurry = stream.hurry

    # Receiving: one thread at a time.

    @property
    def is_idle(self) -> bool:
        """False from the moment bytes have left the socket until their messages are dealt with: a thread that is interrupted
        meanwhile must abort the channel, for they may be lost."""
        return self._is_idle and not self._stream.is_reading

    def set_tick(self, tick: Optional[float]) -> None:
        """Let ``receive`` return with nothing after so many seconds of silence; None: never."""
        self._stream.set_tick(tick)

    def receive(self, timeout: Optional[float] = None) -> list[Message]:
        """Read once and return the messages that completes, often one, maybe none.

        Args:
            timeout: Seconds to wait for bytes, instead of the tick.

        Raises:
            ChannelClosed: The channel has ended, and everything received before was returned.
        """
        inbound = self._inbound
        if inbound.is_notable:
            self._tell_end(inbound)
        self._is_idle = True
        try:
            if not self._chunks:
                if timeout is not None and not self._wait_readable(timeout):
                    return []
                # One step as far as signals go: bytes that have left the kernel are in _chunks when a handler raises.
                self._chunks.extend(map(self._recv, inbound.reads))
        except BlockingIOError:
            self._stream.calm()
            return []
        except (OSError, ValueError) as error:  # ValueError: the descriptor is closed
            self._fault = str(error)
            self._chunks.append(b"")
        self._is_idle = False
        data = self._chunks.pop()
        if not data:
            self._lose()
        self.heard_at = monotonic()
        messages = inbound.feed(data)
        # A violation waits until the messages before it are dealt with: they may still be answered.
        if inbound.is_notable and not (messages and inbound.failure is not None):
            self._control(inbound)
        return messages

    def _tell_end(self, inbound: Inbound) -> None:
        if self._ended is None:
            self._control(inbound)
        if self._ended is not None:
            raise ChannelClosed(*self._ended)

    def _control(self, inbound: Inbound) -> None:
        inbound.is_notable = False
        if inbound.pings:
            self._outbox.pong(inbound.pings)
            inbound.pings.clear()
        if inbound.closed is not None:
            self._finish(inbound.closed, linger=False)
        elif inbound.failure is not None:
            self._finish(inbound.failure, linger=not self._is_client)

    def _finish(self, frame: CloseFrame, linger: bool) -> None:
        """Send the close frame that is due and end the connection; the next ``receive`` raises."""
        self.close(frame.code, frame.reason if self._inbound.failure is not None else "")
        self._outbox.finish(self._close_timeout)
        if linger:
            self._linger()
        self._end(frame)

    def _linger(self) -> None:
        """Read on and throw away: closing with bytes unread resets the connection, and the close frame is lost with it."""
        self._stream.end_writing()
        deadline = monotonic() + self._close_timeout
        try:
            while (left := deadline - monotonic()) > 0 and self._stream.wait_readable(left):
                if not self._stream.recv(65536):
                    return
        except OSError:
            pass

    def _lose(self) -> NoReturn:
        """The stream has come to its end, or failed."""
        reason = self._outbox.abort_reason or self._fault or "the peer ended the connection without closing"
        lost = CloseFrame(CloseCode.ABNORMAL_CLOSURE, reason)
        self._end(lost)
        raise ChannelClosed(*lost)

    def _end(self, how: CloseFrame) -> None:
        self._outbox.end(how)
        self._ended = how
        self._inbound.is_notable = True  # the next ``receive`` tells
        self._stream.shutdown()

    # Any thread.

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._outbox.is_open

    @property
    def is_stalled(self) -> bool:
        """Whether the peer has yet to take a part of what was written."""
        return self._outbox.is_stalled

    def check(self, now: float) -> Silence:
        """Ping a peer that has been silent for an interval; abort the channel when it stays so for another.

        While a write is under way ``write_timeout`` decides: a peer that takes bytes is alive, and a ping would queue.
        """
        if self._outbox.is_stalled:
            self._stalled_at = now
        verdict = self._heartbeat.check(now, self._signed_at())
        if verdict is Silence.PING and self._outbox.is_open:
            self._outbox.ping()
        elif verdict is Silence.DEAD:
            self.abort("no sign of life from the peer within ping_interval of a ping")
        return verdict

    def look_after(self, now: float) -> None:
        """``check``, for one who does not read: what has come is a sign of life, though nobody has read it yet."""
        if now >= self.check_due() and self._stream.has_unread():
            self._stalled_at = now
        self.check(now)

    def show_life(self) -> None:
        """Send a pong that nobody asked for, a sign of life (:rfc:`6455#section-5.5.3`). Does not wait."""
        self._outbox.pong([b""])

    def ask(self) -> None:
        """Ask the peer for a sign of life: any byte that comes afterwards is one, and ``heard_at`` tells of it."""
        if self._outbox.is_open:
            self._outbox.ping()

    def check_due(self) -> float:
        """When to ``check`` next, on the monotonic clock."""
        return self._heartbeat.due(self._signed_at())

    def _signed_at(self) -> float:
        """When the peer last gave a sign of life, as far as pings go."""
        return max(self.heard_at, self._stalled_at)

    def _last_heard(self) -> float:
        return self.heard_at

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Start the closing handshake, once; whoever receives completes it. Does not wait."""
        self._outbox.close(code, reason)

    def detach(self) -> None:
        """End the connection; when this returns, no thread touches the descriptor. The receiver must have stopped."""
        self.abort("the connection was closed")
        # Whoever writes fails at once: the socket is shut down. The ceiling is for a holder that a signal handler ended.
        self._outbox.wait_for_writer(self._close_timeout)

    def release(self) -> None:
        """Detach, and free the descriptor."""
        self.detach()
        self._stream.close()
