"""A connected socket as a channel uses it: one reader at a time, one writer at a time, anybody may shut it down.

Reading blocks in the kernel, at most one ``tick`` (SO_RCVTIMEO), so a read is one system call and no poll. Writing never
blocks: it takes what the kernel takes. What a stream raises is OSError.
"""

import os
import select
import socket
import ssl
import struct
import threading
from typing import Callable, Optional, Union

#: Seconds that poll can wait: its milliseconds are a C int. Who waits longer looks around in between.
_LONGEST_POLL = 2e6

Data = Union[bytes, memoryview]


def _poll(sock: socket.socket, events: int, timeout: Optional[float]) -> bool:
    poll = select.poll()
    poll.register(sock, events)
    return bool(poll.poll(None if timeout is None else _milliseconds(timeout)))


def _has_unread(sock: socket.socket) -> bool:
    try:
        return _poll(sock, select.POLLIN, 0.0)
    except (OSError, ValueError):  # the descriptor is closed
        return False


def _milliseconds(timeout: float) -> float:
    return (timeout if 0.0 <= timeout <= _LONGEST_POLL else 0.0 if timeout < 0.0 else _LONGEST_POLL) * 1000.0


class PlainStream:
    """A TCP socket without TLS."""

    #: Whether an interrupted ``recv`` may have lost bytes: never, it is a single step.
    is_reading = False

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(None)
        self._sock = sock
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        self._poll_readable = poll.poll  # made once, for the one thread that reads
        self._is_hurried = False
        #: ``recv(size)``: some bytes, ``b""`` at the end, BlockingIOError after a tick of silence.
        self.recv: Callable[[int], bytes] = sock.recv

    def hurry(self) -> None:
        """Have a read that a signal interrupts return, instead of beginning its tick anew (:pep:`475`). Any thread.

        Only ``recv`` minds whether the descriptor blocks.
        """
        os.set_blocking(self._sock.fileno(), False)
        self._is_hurried = True  # behind it: whoever sees this makes the descriptor block again

    def calm(self) -> None:
        """Let reads block again. The thread that reads alone."""
        if self._is_hurried:
            self._is_hurried = False
            os.set_blocking(self._sock.fileno(), True)

    def set_tick(self, tick: Optional[float]) -> None:
        """Let ``recv`` block for so many seconds at most; None: for ever."""
        seconds = tick or 0.0
        timeval = struct.pack("@ll", int(seconds), int(seconds % 1 * 1_000_000))
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)

    def send(self, data: Data) -> int:
        """Write without waiting; returns the bytes taken, BlockingIOError for none."""
        return self._sock.send(data, socket.MSG_DONTWAIT)

    def wait_readable(self, timeout: Optional[float]) -> bool:
        """Whether ``recv`` would return within ``timeout`` seconds. The thread that reads alone."""
        return bool(self._poll_readable(None if timeout is None else _milliseconds(timeout)))

    def wait_writable(self, timeout: float) -> bool:
        """Whether ``send`` would take something within ``timeout`` seconds."""
        return _poll(self._sock, select.POLLOUT, timeout)

    def has_unread(self) -> bool:
        """Whether the kernel holds bytes that nobody has read, or the end. Any thread."""
        return _has_unread(self._sock)

    def end_writing(self) -> None:
        """Tell the peer that nothing more comes."""
        self._shutdown(socket.SHUT_WR)

    def shutdown(self) -> None:
        """End both directions; wakes a blocked reader. Any thread, any number of times."""
        self._shutdown(socket.SHUT_RDWR)

    def _shutdown(self, how: int) -> None:
        try:
            self._sock.shutdown(how)
        except OSError:
            pass  # the peer was quicker

    def close(self) -> None:
        """Free the descriptor. Nobody may be reading or writing any more."""
        self._sock.close()


class CooperativeStream(PlainStream):
    """A socket that gevent has patched: the descriptor never blocks, whatever it is told, and waiting is for gevent's loop."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        sock.settimeout(0.0)
        self._tick: Optional[float] = None
        self.recv = self._recv

    def hurry(self) -> None:
        """Nothing: a read waits by polling, and keeps its tick."""

    def calm(self) -> None:
        """Nothing."""

    def set_tick(self, tick: Optional[float]) -> None:
        """As for a plain stream."""
        self._tick = tick

    def _recv(self, size: int) -> bytes:
        if not self.wait_readable(self._tick):
            raise BlockingIOError
        return self._sock.recv(size)


class TlsStream:
    """A TLS socket, on which one thread may read while another writes.

    OpenSSL's state is shared by both directions and Python does not guard it (cpython#77271, cpython#137583), so the socket
    does not block and ``_lock`` guards each call into it; waiting happens outside, on the descriptor.
    """

    def __init__(self, sock: ssl.SSLSocket) -> None:
        sock.settimeout(0.0)
        self._sock = sock
        self._lock = threading.RLock()
        self._tick: Optional[float] = None
        #: Whether an interrupted ``recv`` may have lost bytes.
        self.is_reading = False
        self._send_waits_for = select.POLLOUT

    def hurry(self) -> None:
        """Nothing: a read waits by polling, and keeps its tick."""

    def calm(self) -> None:
        """Nothing."""

    def set_tick(self, tick: Optional[float]) -> None:
        """As for a plain stream."""
        self._tick = tick

    def recv(self, size: int) -> bytes:
        """Some bytes, ``b""`` at the end, BlockingIOError after a tick of silence."""
        while True:
            self.is_reading = True
            try:
                with self._lock:
                    data = self._sock.recv(size)
                self.is_reading = False
                return data
            except ssl.SSLWantReadError:
                waits_for = select.POLLIN
            except ssl.SSLWantWriteError:
                waits_for = select.POLLOUT
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                return b""
            self.is_reading = False
            if not _poll(self._sock, waits_for, self._tick):
                raise BlockingIOError

    def send(self, data: Data) -> int:
        """Write without waiting; returns the bytes taken, BlockingIOError for none."""
        try:
            with self._lock:
                return self._sock.send(data)
        except ssl.SSLWantWriteError:
            self._send_waits_for = select.POLLOUT
        except ssl.SSLWantReadError:
            self._send_waits_for = select.POLLIN
        raise BlockingIOError

    def wait_readable(self, timeout: Optional[float]) -> bool:
        """Whether ``recv`` may return within ``timeout`` seconds: OpenSSL may hold bytes the descriptor no longer shows."""
        with self._lock:
            pending = self._sock.pending()
        return pending > 0 or _poll(self._sock, select.POLLIN, timeout)

    def wait_writable(self, timeout: float) -> bool:
        """Whether ``send`` may take something within ``timeout`` seconds."""
        return _poll(self._sock, self._send_waits_for, timeout)

    def has_unread(self) -> bool:
        """Whether the kernel holds bytes that nobody has read, or the end. Any thread."""
        return _has_unread(self._sock)

    def end_writing(self) -> None:
        """Tell the peer that nothing more comes."""
        self._shutdown(socket.SHUT_WR)

    def shutdown(self) -> None:
        """End both directions; wakes a blocked reader. Any thread, any number of times."""
        self._shutdown(socket.SHUT_RDWR)

    def _shutdown(self, how: int) -> None:
        try:
            # Not SSLSocket.shutdown: it drops the TLS object, and a reader would get ciphertext as data.
            socket.socket.shutdown(self._sock, how)
        except OSError:
            pass  # the peer was quicker

    def close(self) -> None:
        """Free the descriptor. Nobody may be reading or writing any more."""
        self._sock.close()


Stream = Union[PlainStream, CooperativeStream, TlsStream]


def stream_of(sock: socket.socket) -> Stream:
    """The stream of a connected socket; small writes are sent at once (TCP_NODELAY)."""
    if sock.family != getattr(socket, "AF_UNIX", None):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if isinstance(sock, ssl.SSLSocket):
        return TlsStream(sock)
    return CooperativeStream(sock) if type(sock).__module__.startswith("gevent") else PlainStream(sock)
