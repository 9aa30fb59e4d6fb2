"""What a network may do to replies, on purpose.

A *meddler* sits between a client and a server. What the client sends it passes on as it is; what the server sends it takes
apart into frames, and whenever one is a reply it asks the :class:`Faults` what becomes of it.
"""

import math
import random
import select
import socket
import struct
import threading
from collections import deque
from time import monotonic
from typing import Any, Optional, Union

from ..wire.frames import server_text

#: What may happen to a reply, in the order in which it is drawn.
_KINDS = ("close", "drop_reply", "garble", "duplicate", "delay")

#: How the text of a reply begins.
_REPLIES = (b'{"type":"OK"', b'{"type":"ERR"')

_END_OF_HEAD = b"\r\n\r\n"

#: The first byte of a whole text frame (:rfc:`6455#section-5.2`).
_WHOLE_TEXT = 0x81

#: Of a frame's second byte: where the length is in a longer field, how long and of which format that is.
_LONG_LENGTHS = {126: (2, "!H"), 127: (8, "!Q")}

_CHUNK = 65536

#: Either how many of the next replies, or which part of all.
Share = Union[int, float]


class Faults:
    """What is to happen to the replies of a server, to pings' as well; each reply has one fault at the most.

    Each number below 1 is a probability, each count the next so many (``math.inf``: all of them). Where several would do, the
    first of ``close``, ``drop_reply``, ``garble``, ``duplicate``, ``delay`` is what happens.

    Args:
        drop_reply: The reply never comes.
        delay: It comes ``seconds`` late, and others may come before it.
        close: Instead of it the connection ends, without a closing handshake.
        duplicate: It comes twice.
        garble: It comes without its last character, and so is not JSON.
        seconds: What ``delay`` takes.
        seed: For the same draws in each run; None: others each time.

    ``_lock`` guards what is still to happen, what has happened and the random numbers. Any thread may use it.
    """

    def __init__(
        self,
        *,
        drop_reply: Share = 0,
        delay: Share = 0,
        close: Share = 0,
        duplicate: Share = 0,
        garble: Share = 0,
        seconds: float = 0.05,
        seed: Optional[int] = None,
    ) -> None:
        self._lock = threading.Lock()
        self._random = random.Random(seed)
        self._shares: dict[str, Share] = dict.fromkeys(_KINDS, 0)
        self._made: list[str] = []
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < math.inf:
            raise ValueError(f"seconds must be a number of seconds, not {seconds!r}")
        #: What ``delay`` takes.
        self.seconds = float(seconds)
        self.set(drop_reply=drop_reply, delay=delay, close=close, duplicate=duplicate, garble=garble)

    def set(self, **shares: Share) -> None:
        """Have something else happen from now on: ``faults.set(close=1)``; what is not named stays as it is.

        Raises:
            TypeError: There is no such fault.
            ValueError: A value is neither a probability nor a count.
        """
        for kind, share in shares.items():
            if kind not in _KINDS:
                raise TypeError(f"there is no fault {kind!r}; the faults are {', '.join(sorted(_KINDS))}")
            _check_share(kind, share)
        with self._lock:
            self._shares.update(shares)

    @property
    def made(self) -> list[str]:
        """The faults that have happened, by name, in their order."""
        with self._lock:
            return list(self._made)

    def draw(self) -> Optional[str]:
        """What becomes of the next reply; None: it comes as it is."""
        with self._lock:
            for kind in _KINDS:
                share = self._shares[kind]
                if share >= 1:
                    self._shares[kind] = share - 1
                elif not 0 < share or self._random.random() >= share:
                    continue
                self._made.append(kind)
                return kind
        return None


def _check_share(kind: str, share: Any) -> None:
    is_number = isinstance(share, (int, float)) and not isinstance(share, bool)
    if not is_number or not share >= 0 or (1 < share < math.inf and share != int(share)):
        raise ValueError(f"{kind} must be a probability below 1, or a count of replies, not {share!r}")


def meddle(client: socket.socket, server: socket.socket, faults: Faults) -> None:
    """Join two sockets, one towards a client and one towards a server, with the faults in between."""
    _Meddler(client, server, faults)


class _Meddler:
    """Sits between the socket towards a client and the one towards a server, until either has ended.

    It has a thread for each direction, so that neither waits for the other.
    """

    def __init__(self, client: socket.socket, server: socket.socket, faults: Faults) -> None:
        self._client = client
        self._server = server
        self._faults = faults
        self._buffer = bytearray()
        self._is_open = False
        self._late: deque[tuple[float, bytes]] = deque()  # with the time when each is due
        self._upward = threading.Thread(target=self._pass_up, name="oompa-meddler-up", daemon=True)
        self._upward.start()
        threading.Thread(target=self._pass_down, name="oompa-meddler", daemon=True).start()

    def _pass_up(self) -> None:
        try:
            while data := self._client.recv(_CHUNK):
                self._server.sendall(data)
        except OSError:
            pass
        finally:
            self._end()

    def _pass_down(self) -> None:
        try:
            while self._wait():
                data = self._server.recv(_CHUNK)
                if not data:
                    break
                self._buffer += data
                self._take()
        except OSError:
            pass
        finally:
            self._end()
            self._upward.join()
            self._client.close()
            self._server.close()

    def _end(self) -> None:
        for sock in (self._client, self._server):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended already

    def _wait(self) -> bool:
        """Send what is late until there is something to read; always True."""
        poll = select.poll()
        poll.register(self._server, select.POLLIN)
        while True:
            while self._late and self._late[0][0] <= monotonic():
                self._client.sendall(self._late.popleft()[1])
            left = max(0.0, self._late[0][0] - monotonic()) * 1000 if self._late else None
            if poll.poll(left):
                return True

    def _take(self) -> None:
        """Pass on what is whole in the buffer: the answer to the handshake, then frame by frame."""
        if not self._is_open:
            end = self._buffer.find(_END_OF_HEAD) + len(_END_OF_HEAD)
            if end < len(_END_OF_HEAD):
                return
            self._is_open = True
            self._client.sendall(self._cut(end))
        while (frame := self._next_frame()) is not None:
            self._decide(*frame)

    def _cut(self, end: int) -> bytes:
        head = bytes(self._buffer[:end])
        del self._buffer[:end]
        return head

    def _next_frame(self) -> Optional[tuple[bytes, bytes]]:
        """A whole frame and its payload; a server's is never masked."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        start, size = 2, buffer[1] & 0x7F
        if size in _LONG_LENGTHS:
            width, layout = _LONG_LENGTHS[size]
            start += width
            if len(buffer) < start:
                return None
            (size,) = struct.unpack_from(layout, buffer, 2)
        if len(buffer) < start + size:
            return None
        frame = self._cut(start + size)
        return frame, frame[start:]

    def _decide(self, frame: bytes, payload: bytes) -> None:
        is_reply = frame[0] == _WHOLE_TEXT and payload.startswith(_REPLIES)
        fault = self._faults.draw() if is_reply else None
        if fault == "close":
            raise ConnectionError("a fault that was asked for")
        if fault == "delay":
            self._late.append((monotonic() + self._faults.seconds, frame))
        elif fault == "garble":
            self._client.sendall(server_text(payload[:-1]))
        elif fault != "drop_reply":
            self._client.sendall(frame * (2 if fault == "duplicate" else 1))
