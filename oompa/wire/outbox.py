"""What is to be written to the peer, and by whom.

Any thread may write; one at a time does, the holder of the *pen*, ``_writing``. It guards the stream of bytes towards the peer
and is held while writing, which is its purpose; it is no state lock. The pen is in one of four states:

=========  =========================================================================================================
state      who moves it on, and where
=========  =========================================================================================================
free       Whoever has something to write takes it: ``post``, ``_flush``, and ``send``, which waits for it.
held       By a thread that writes what is its own, and what others left. Done, it puts it down and looks once more;
           at what the kernel does not take it waits (``send``), or hands the pen on (``_hand_to_writer``).
handed on  To a thread of its own, which waits for the peer, writes all there is, and puts it down (``_write_on``).
broken     ``abort_reason`` is set, ``_unsent`` may be half a frame: the pen moves as before, nothing is written any more.
=========  =========================================================================================================

A thread that finds the pen taken leaves its message in ``_texts``, or sets ``_control_due``, and tries to take the pen
afterwards; whoever puts it down looks afterwards whether something was left. So nothing stays behind, and nobody queues behind
a slow write but a server's tasks that ask to (``send``).

Against interrupts: an exception while writing, be it from a signal handler, aborts before the pen is put down, for nobody knows
how much was written, and nothing may follow half a frame.
"""

import threading
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Callable, Optional, Protocol

from .closing import ChannelClosed, CloseCode
from .frames import CLOSE, PING, PONG, CloseFrame, Framing, close_payload

if TYPE_CHECKING:
    from .streams import Data, Stream

#: Frames that wait are written together up to about so many bytes.
_WRITE_SIZE = 65536


#: Pings that are answered at most when they come together; a peer that asks for a sign of life sends one.
_PONGS = 16


class Waiting(Protocol):
    """Who waits for the answer to a message."""

    is_settled: bool


class Outbox:
    """The writing half of a channel.

    Args:
        stream: The socket.
        framing: Makes the frames.
        write_timeout: Seconds a write may stand still before the connection is aborted.
        heard: When the peer was last heard, if a write may stand still while it is.

    Attributes:
        is_open: Whether messages can be sent.
        abort_reason: Why the connection was aborted, None if it was not.
    """

    def __init__(
        self, stream: "Stream", framing: Framing, write_timeout: float, heard: Optional[Callable[[], float]] = None
    ) -> None:
        self.is_open = True
        self.abort_reason: Optional[str] = None
        self._stream = stream
        self._framing = framing
        self._write_timeout = write_timeout
        self._heard = heard
        self._writing = threading.Lock()
        self._texts: deque[tuple[bytes, Optional[Waiting]]] = deque()
        self._unsent: "Optional[Data]" = None  # the rest of what the kernel did not take whole
        self._control_due = False
        self._ping = False
        self._pongs: deque[bytes] = deque(maxlen=_PONGS)  # what a slow peer has not taken yet makes room for what is new
        self._closing: Optional[CloseFrame] = None
        self._close_written = False
        self._ended: Optional[CloseFrame] = None

    # Any thread.

    def send(self, text: bytes) -> None:
        """Send a text message and wait until the kernel has it, at most ``write_timeout`` seconds at a standstill.

        Raises:
            ChannelClosed: The channel is closing or gone; the message was not sent whole.
        """
        frame, writing = self._framing.text, self._writing
        writing.acquire()  # not ``with``, which costs twice as much; no server sends on the main thread, where signals come
        try:
            if not self.is_open:
                raise self._closed()
            if self._texts or self._control_due or self._unsent is not None:
                self._texts.append((text, None))
                self._drain(True)
            elif not self._push(frame(text)):
                self._drain(True)
        finally:
            writing.release()
        if self.abort_reason is not None:
            raise self._closed()
        if self._texts or self._control_due:
            self._flush()

    def post(self, text: bytes, waiting: Optional[Waiting] = None) -> None:
        """Send a text message without waiting for the peer. A fault ends the channel, which the receiver will see.

        Args:
            waiting: Who waits for the answer. A message that has not been written when nobody does any more is dropped.

        Raises:
            ChannelClosed: The channel is closing or gone.
        """
        if self._texts or self._control_due or not self._writing.acquire(False):
            if not self.is_open:
                raise self._closed()
            self._texts.append((text, waiting))
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
        if self._texts or self._control_due:
            self._flush()

    @property
    def is_stalled(self) -> bool:
        """Whether the peer has yet to take a part of what was written."""
        return self._unsent is not None

    def ping(self) -> None:
        """Send a ping."""
        self._ping = self._control_due = True
        self._flush()

    def pong(self, payloads: list[bytes]) -> None:
        """Answer pings in one write; of many at once the last few (:rfc:`6455#section-5.5.3`): a flood is not worth more."""
        self._pongs.extend(payloads)
        self._control_due = True
        self._flush()

    def close(self, code: int, reason: str) -> None:
        """Send a close frame behind what waits, once, and nothing after it."""
        if self._closing is None:
            self.is_open = False  # before anybody can write the close frame
            self._closing = CloseFrame(code, reason)
        if not self._close_written:
            self._control_due = True
            self._flush()

    def abort(self, reason: str) -> None:
        """Write nothing more, and end the connection; wakes whoever reads or writes it."""
        if self.abort_reason is None:
            self.abort_reason = reason
        self.is_open = False
        self._stream.shutdown()

    def end(self, how: CloseFrame) -> None:
        """The connection has ended: whoever sends is told how."""
        self.is_open = False
        self._ended = how

    def wait_for_writer(self, timeout: float) -> bool:
        """Wait until no thread writes; False when one still does after so many seconds."""
        is_free = self._writing.acquire(timeout=timeout)
        if is_free:
            self._writing.release()
        return is_free

    def finish(self, timeout: float) -> None:
        """Wait, at most so many seconds, until what waits is written, by whoever writes or by this thread."""
        if self.wait_for_writer(timeout):
            self._flush()

    # Writing. What needs ``_writing`` says so.

    def _closed(self) -> ChannelClosed:
        if self._ended is not None:
            return ChannelClosed(*self._ended)
        return ChannelClosed(CloseCode.ABNORMAL_CLOSURE, self.abort_reason or "the channel is closing")

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
            if not self._has_more():
                return

    def _has_more(self) -> bool:
        return (bool(self._texts) or self._control_due) and self.abort_reason is None

    def _hand_to_writer(self) -> None:
        """Let a thread of its own wait for the peer; it inherits ``_writing``."""
        try:
            threading.Thread(target=self._write_on, name="oompa-writer", daemon=True).start()
        except Exception:  # no thread to be had, no memory: wait here
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
            while True:  # see client/turns of loops within a try
                if self.abort_reason is not None:
                    break
                if self._unsent is not None:
                    if not wait:
                        return False
                    if not self._wait_writable():
                        raise TimeoutError(f"a write stood still for {self._write_timeout} s")
                elif self._close_written:
                    self._texts.clear()  # nothing follows a close frame (:rfc:`6455#section-5.5.1`)
                data = self._unsent or self._next_write()
                if data is not None:
                    self._push(data)
                if self._unsent is None and not self._texts and not self._control_due:
                    break
        except (OSError, ValueError) as error:
            self._fail(error)
        except BaseException:
            self.abort("interrupted while writing")
            raise
        return True

    def _wait_writable(self) -> bool:
        """Wait until the peer takes more; False when it has neither done so nor, where that counts, been heard in time."""
        left = self._write_timeout
        while left > 0:
            if self._stream.wait_writable(left):
                return True
            left = 0.0 if self._heard is None else self._heard() + self._write_timeout - monotonic()
        return False

    def _push(self, data: "Data") -> bool:
        """Write what the kernel takes; False when that was not all, and ``_unsent`` has the rest. Needs ``_writing``."""
        try:
            sent = self._stream.send(data)
        except BlockingIOError:
            sent = 0
        except (OSError, ValueError) as error:
            self._fail(error)
            return True
        except BaseException:  # a signal handler raised: nobody knows how much was written
            self.abort("interrupted while writing")
            raise
        if sent == len(data):
            self._unsent = None
            return True
        self._unsent = memoryview(data)[sent:]
        return False

    def _fail(self, error: Exception) -> None:
        self.abort(str(error) or type(error).__name__)  # ValueError: the descriptor is closed

    def _next_write(self) -> Optional[bytes]:
        """The next frames to write, None for none. Needs ``_writing``."""
        if self._control_due and (control := self._next_control()) is not None:
            return control
        texts, frame, batch, size = self._texts, self._framing.text, [], 0
        while texts and size < _WRITE_SIZE:
            text, waiting = texts.popleft()
            if waiting is None or not waiting.is_settled:
                batch.append(frame(text))
                size += len(text)
        if len(batch) > 1:
            return b"".join(batch)
        return batch[0] if batch else None

    def _next_control(self) -> Optional[bytes]:
        """The control frames that are due, None for none. Needs ``_writing``."""
        self._control_due = False  # before looking: whoever has more sets it again
        frames = self._take_control()
        if frames is not None or (self._closing is not None and not self._close_written):
            self._control_due = True  # there may be more
        return frames

    def _take_control(self) -> Optional[bytes]:
        """Pongs, or else a ping, or else the close frame, which follows all texts."""
        if self._close_written:
            return None
        if self._pongs:
            return b"".join(self._framing.control(PONG, self._pongs.popleft()) for _ in range(len(self._pongs)))
        if self._ping:
            self._ping = False
            return self._framing.control(PING, b"")
        if self._closing is None or self._texts:
            return None
        self._close_written = True
        return self._framing.control(CLOSE, close_payload(*self._closing))
