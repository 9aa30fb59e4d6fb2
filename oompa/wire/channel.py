"""A WebSocket after its opening handshake: whole messages in and out, limits, pings and the closing handshake.

Threads: one thread at a time receives (who that is, is the caller's affair); any thread sends, closes or aborts.
``_writing`` guards the stream of bytes towards the peer and is held while writing, which is its purpose; it is no state
lock. A thread that finds it taken leaves its message in ``_outbox`` for the holder, so nobody queues behind a slow write
but a server's tasks that ask to (``send``). What a ``post`` cannot write at once goes to a thread of its own, which
inherits ``_writing`` and ends when the outbox is empty.
"""

import threading
from collections import deque
from time import monotonic
from typing import NoReturn, Optional, Protocol

from ..errors import printable
from . import frames
from .closing import CloseCode
from .frames import CloseFrame, Inbound, Message
from .heartbeat import Heartbeat, Silence
from .streams import Data, Stream

#: Frames that wait are written together up to about so many bytes.
_WRITE_SIZE = 65536


class Waiting(Protocol):
    """Who waits for the answer to a message."""

    is_settled: bool


class ChannelClosed(Exception):
    """The channel has ended. ``code`` and ``reason`` are those of the close frame, 1006 where there was none."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.code} {printable(self.reason)}".rstrip()


class Channel:
    """One open WebSocket.

    Args:
        stream: The socket, past the handshake.
        is_client: Whether this end masks.
        max_message_size: Bytes a message from the peer may have; beyond, the channel closes with 1009.
        ping_interval: Seconds of silence before a ping, and again before the peer counts as dead; None: no pings.
        write_timeout: Seconds a write may stand still before the channel is aborted.
        close_timeout: Seconds to wait for the peer to end after this end failed it.
        received: Bytes of the stream that came along with the handshake.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        is_client: bool,
        max_message_size: int,
        ping_interval: Optional[float],
        write_timeout: float,
        close_timeout: float,
        received: bytes = b"",
    ) -> None:
        self.heard_at = monotonic()
        self._is_idle = True
        self._stream = stream
        self._inbound = Inbound(is_client, max_message_size)
        self._heartbeat = Heartbeat(ping_interval)
        self._write_timeout = write_timeout
        self._close_timeout = close_timeout
        self._is_client = is_client
        self._framing = frames.Framing(is_client)
        self._chunks = [received] if received else []
        self._writing = threading.Lock()
        self._outbox: deque[tuple[bytes, Optional[Waiting]]] = deque()
        self._closing: Optional[CloseFrame] = None
        self._close_written = False
        self._control_due = False
        self._ping = False
        self._pongs: list[bytes] = []  # at most one: what a slow peer has not taken yet is replaced
        self._unsent: Optional[Data] = None
        self._ended: Optional[CloseFrame] = None  # not the exception: it would keep the frames of whoever it was raised in
        self._fault = ""
        self._abort_reason: Optional[str] = None
        #: Whether messages can be sent.
        self.is_open = True

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
                if timeout is not None and not self._stream.wait_readable(timeout):
                    return []
                # One step as far as signals go: bytes that have left the kernel are in _chunks when a handler raises.
                self._chunks.extend(map(self._stream.recv, inbound.reads))
        except BlockingIOError:
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
        for payload in inbound.pings:
            self._pongs[:] = [payload]
            self._control_due = True
            self._flush()
        inbound.pings.clear()
        if inbound.closed is not None:
            self._finish(inbound.closed, linger=False)
        elif inbound.failure is not None:
            self._finish(inbound.failure, linger=not self._is_client)

    def _finish(self, frame: CloseFrame, linger: bool) -> None:
        """Send the close frame that is due and end the connection; the next ``receive`` raises."""
        self.close(frame.code, frame.reason if self._inbound.failure is not None else "")
        if self._writing.acquire(timeout=self._close_timeout):  # whoever writes sends the close frame, too
            self._writing.release()
            self._flush()
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
        reason = self._abort_reason or self._fault or "the peer ended the connection without closing"
        lost = CloseFrame(CloseCode.ABNORMAL_CLOSURE, reason)
        self._end(lost)
        raise ChannelClosed(*lost)

    def _end(self, how: CloseFrame) -> None:
        self.is_open = False
        self._ended = how
        self._inbound.is_notable = True  # the next ``receive`` tells
        self._stream.shutdown()

    # Sending: any thread.

    def send(self, text: bytes) -> None:
        """Send a text message and wait until the kernel has it, at most ``write_timeout`` seconds at a standstill.

        Raises:
            ChannelClosed: The channel is closing or gone; the message was not sent whole.
        """
        frame = self._framing.text
        with self._writing:
            if not self.is_open:
                raise self._closed()
            if self._outbox or self._control_due or self._unsent is not None:
                self._outbox.append((text, None))
                self._drain(True)
            elif not self._push(frame(text)):
                self._drain(True)
        if self._abort_reason is not None:
            raise self._closed()
        if self._outbox or self._control_due:
            self._flush()

    def post(self, text: bytes, waiting: Optional[Waiting] = None) -> None:
        """Send a text message without waiting for the peer. A fault ends the channel, which the receiver will see.

        Args:
            waiting: Who waits for the answer. A message that is still in the outbox when nobody does any more is dropped.

        Raises:
            ChannelClosed: The channel is closing or gone.
        """
        if self._outbox or self._control_due or not self._writing.acquire(False):
            if not self.is_open:
                raise self._closed()
            self._outbox.append((text, waiting))
            return self._flush()
        frame = self._framing.text
        try:
            if not self.is_open:  # looked at under the lock: nothing follows a close frame
                raise self._closed()
            is_done = self._push(frame(text))
        except ChannelClosed:
            self._writing.release()
            raise
        except BaseException:  # before letting go: nobody may write into half a frame
            self.abort("interrupted while writing")
            self._writing.release()
            raise
        if not is_done:
            return self._hand_to_writer()
        self._writing.release()
        if self._outbox or self._control_due:
            self._flush()

    @property
    def is_stalled(self) -> bool:
        """Whether the peer has yet to take a part of what was written."""
        return self._unsent is not None

    def check(self, now: float) -> Silence:
        """Ping a peer that has been silent for an interval; abort the channel when it stays so for another.

        While a write is under way ``write_timeout`` decides: a peer that takes bytes is alive, and a ping would queue.
        """
        if self._unsent is not None:
            self.heard_at = now
        verdict = self._heartbeat.check(now, self.heard_at)
        if verdict is Silence.PING and self.is_open:
            self._ping = self._control_due = True
            self._flush()
        elif verdict is Silence.DEAD:
            self.abort("no sign of life from the peer within ping_interval of a ping")
        return verdict

    def check_due(self) -> float:
        """When to ``check`` next, on the monotonic clock."""
        return self._heartbeat.due(self.heard_at)

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Start the closing handshake, once; whoever receives completes it. Does not wait."""
        if self._closing is None:
            self.is_open = False  # before anybody can write the close frame
            self._closing = CloseFrame(code, reason)
        if not self._close_written:
            self._control_due = True
            self._flush()

    def abort(self, reason: str) -> None:
        """End the connection without a handshake; wakes the receiver. Nothing more is written."""
        if self._abort_reason is None:
            self._abort_reason = reason
        self.is_open = False
        self._stream.shutdown()

    def detach(self) -> None:
        """End the connection; when this returns, no thread touches the descriptor. The receiver must have stopped."""
        self.abort("the connection was closed")
        # Whoever writes fails at once: the socket is shut down. The ceiling is for a holder that a signal handler ended.
        if self._writing.acquire(timeout=self._close_timeout):
            self._writing.release()

    def release(self) -> None:
        """Detach, and free the descriptor."""
        self.detach()
        self._stream.close()

    def _closed(self) -> ChannelClosed:
        if self._ended is not None:
            return ChannelClosed(*self._ended)
        return ChannelClosed(CloseCode.ABNORMAL_CLOSURE, self._abort_reason or "the channel is closing")

    def _has_more(self) -> bool:
        return (bool(self._outbox) or self._control_due) and self._abort_reason is None

    def _flush(self) -> None:
        """Write what waits, or leave it to the thread that is writing. Looks again after letting go: nothing is left."""
        while self._writing.acquire(False):
            try:
                is_done = self._drain(False)
            except BaseException:
                self._writing.release()
                raise
            if not is_done:
                return self._hand_to_writer()
            self._writing.release()
            if not self._outbox and not self._control_due or self._abort_reason is not None:
                return

    def _hand_to_writer(self) -> None:
        """Let a thread of its own wait for the peer; it inherits ``_writing``."""
        try:
            threading.Thread(target=self._write_on, name="oompa-writer", daemon=True).start()
        except RuntimeError:  # no thread to be had: wait here
            self._write_on()

    def _write_on(self) -> None:
        try:
            self._drain(wait=True)
        finally:
            self._writing.release()
        if self._has_more():
            self._flush()

    def _drain(self, wait: bool) -> bool:
        """Write what waits; False when the peer is slow and ``wait`` is not set. A fault aborts. Needs ``_writing``."""
        try:
            while self._abort_reason is None:
                if self._unsent is not None:
                    if not wait:
                        return False
                    if not self._stream.wait_writable(self._write_timeout):
                        raise TimeoutError(f"a write stood still for {self._write_timeout} s")
                elif self._close_written:
                    self._outbox.clear()  # nothing follows a close frame (:rfc:`6455#section-5.5.1`)
                data = self._unsent or self._next_write()
                if data is not None:
                    self._push(data)
                if self._unsent is None and not self._outbox and not self._control_due:
                    break
        except (OSError, ValueError) as error:
            self._fail_writing(error)
        except BaseException:
            self.abort("interrupted while writing")
            raise
        return True

    def _push(self, data: Data) -> bool:
        """Write what the kernel takes; False when that was not all, and ``_unsent`` has the rest. Needs ``_writing``."""
        try:
            sent = self._stream.send(data)
        except BlockingIOError:
            sent = 0
        except (OSError, ValueError) as error:
            self._fail_writing(error)
            return True
        except BaseException:  # a signal handler raised: nobody knows how much was written
            self.abort("interrupted while writing")
            raise
        if sent == len(data):
            self._unsent = None
            return True
        self._unsent = memoryview(data)[sent:]
        return False

    def _fail_writing(self, error: Exception) -> None:
        self.abort(str(error) or type(error).__name__)  # ValueError: the descriptor is closed

    def _next_write(self) -> Optional[bytes]:
        """The next frames to write, None for none. Needs ``_writing``."""
        if self._control_due and (control := self._next_control()) is not None:
            return control
        outbox, frame, batch, size = self._outbox, self._framing.text, [], 0
        while outbox and size < _WRITE_SIZE:
            text, waiting = outbox.popleft()
            if waiting is None or not waiting.is_settled:
                batch.append(frame(text))
                size += len(text)
        if len(batch) > 1:
            return b"".join(batch)
        return batch[0] if batch else None

    def _next_control(self) -> Optional[bytes]:
        """The control frame that is due, None for none. The close frame comes last, and nothing after it."""
        self._control_due = False
        if self._close_written:
            return None
        if self._pongs:
            self._control_due = True
            return self._framing.control(frames.PONG, self._pongs.pop())
        if self._ping:
            self._ping = False
            self._control_due = True
            return self._framing.control(frames.PING, b"")
        if self._closing is None:
            return None
        if self._outbox:
            self._control_due = True
            return None
        self._close_written = True
        return self._framing.control(frames.CLOSE, frames.close_payload(*self._closing))
