"""RFC 6455 frames: bytes in, messages out, and the other way round. No sockets, no locks, no clock.

A whole, unfragmented, valid text frame takes the fast lane: a few lines that find, unmask and decode it, and fewer still
when it is short and all there is, which is the rule where one call follows the other. Every other frame, and everything
the fast lane is not sure of, goes to wsproto, which stays the authority on what is valid. wsproto is handed those frames
alone, so both agree on where the next one starts.

An ``Inbound`` is used by one thread at a time: the one that reads the connection.
"""

import importlib
import os
import struct
from functools import cache, partial
from typing import Callable, Iterator, NamedTuple, Optional, Union

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from .closing import CloseCode

Message = Union[str, bytes]
Buffer = Union[bytes, memoryview]
Mask = Callable[[Buffer, bytes], Union[bytes, bytearray]]

TEXT = 0x1
BINARY = 0x2
CLOSE = 0x8
PING = 0x9
PONG = 0xA

#: Bytes per read, in a tuple for ``map``. A thread that waits holds as much memory, so an idle connection asks for little;
#: one that got all it asked for asks for more, and while the rest of a large frame is to come, for that.
_SMALL_READS = (4096,)
_READS = (65536,)
_LARGEST_READ = 1024 * 1024

_FIN = 0x80
_WHOLE_TEXT = _FIN | TEXT
_MASKED = 0x80

#: Below so many bytes one XOR of two big integers is the quickest way to mask; above, four translations of every fourth
#: byte are (1 MiB: 1.2 ms against 3.4).
_BIG_INTEGER_LIMIT = 600
_integer = int.from_bytes
_XOR = [bytes(byte ^ key for byte in range(256)) for key in range(256)]

#: A close frame's payload is at most 125 bytes, two of which are the code (:rfc:`6455#section-5.5`).
_REASON_LIMIT = 123


class CloseFrame(NamedTuple):
    """A code and a reason, as a close frame carries them."""

    code: int
    reason: str


def slow_mask(data: Buffer, key: bytes) -> Union[bytes, bytearray]:
    """Mask or unmask ``data`` (:rfc:`6455#section-5.3`), where there is no C function to do it."""
    size = len(data)
    if size < _BIG_INTEGER_LIMIT:
        keys = (key * ((size >> 2) + 1))[:size]
        return (_integer(data, "little") ^ _integer(keys, "little")).to_bytes(size, "little")
    masked = bytearray(data)
    for offset in range(4):
        masked[offset::4] = masked[offset::4].translate(_XOR[key[offset]])
    return masked


def _quickest_mask() -> Mask:
    try:
        speedups = importlib.import_module("websockets.speedups")
    except ImportError:
        return slow_mask
    found: Mask = speedups.apply_mask
    return found


#: Mask or unmask (:rfc:`6455#section-5.3`), in C where ``oompa[fast]`` is installed (64 KiB: 1.4 µs against 105).
mask = _quickest_mask()


def masking_keys() -> Iterator[bytes]:
    """Endless keys from a strong source of entropy, as :rfc:`6455#section-5.3` asks, 1,024 to a system call."""
    while True:
        for (key,) in struct.iter_unpack("4s", os.urandom(4096)):
            yield key


def header(opcode: int, size: int, masked: bool = False) -> bytes:
    """The first bytes of an unfragmented frame, up to its masking key."""
    bit = _MASKED if masked else 0
    if size < 126:
        return bytes((_FIN | opcode, bit | size))
    if size < 65536:
        return struct.pack("!BBH", _FIN | opcode, bit | 126, size)
    return struct.pack("!BBQ", _FIN | opcode, bit | 127, size)


_SHORT = [header(TEXT, size) for size in range(126)]
_SHORT_MASKED = [header(TEXT, size, masked=True) for size in range(126)]


@cache
def _heads_by_length(is_client: bool, limit: int) -> dict[int, bytes]:
    """How a chunk of a given length begins if it is one whole short text frame and nothing else."""
    width, heads = (2, _SHORT) if is_client else (6, _SHORT_MASKED)
    return {width + size: head for size, head in enumerate(heads) if size <= limit}


def server_text(text: bytes) -> bytes:
    """A whole text frame as a server sends it."""
    size = len(text)
    return _SHORT[size] + text if size < 126 else header(TEXT, size) + text


def client_text(next_key: Callable[[], bytes], text: bytes) -> bytes:
    """A whole text frame as a client sends it."""
    size, key = len(text), next_key()
    if size < 126:
        return _SHORT_MASKED[size] + key + mask(text, key)
    return b"".join((header(TEXT, size, True), key, mask(text, key)))


class Framing:
    """Makes the frames of one end of a connection. One thread at a time."""

    def __init__(self, is_client: bool) -> None:
        self._keys = masking_keys() if is_client else None
        #: ``text(text)``: a whole text frame.
        self.text: Callable[[bytes], bytes] = partial(client_text, self._keys.__next__) if self._keys else server_text

    def control(self, opcode: int, payload: bytes) -> bytes:
        """A close, ping or pong frame."""
        if self._keys is None:
            return header(opcode, len(payload)) + payload
        key = next(self._keys)
        return header(opcode, len(payload), True) + key + mask(payload, key)


def close_payload(code: int, reason: str = "") -> bytes:
    """The payload of a close frame. Codes that never travel become an empty one; a long reason is cut."""
    if code in (CloseCode.NO_STATUS_RECEIVED, CloseCode.ABNORMAL_CLOSURE):
        return b""
    text = reason.encode(errors="replace")[:_REASON_LIMIT].decode(errors="ignore").encode()
    return struct.pack("!H", code) + text


class Inbound:
    """What the peer sends, as messages.

    ``feed`` returns messages; beside them it leaves ``pings`` (payloads to answer), ``closed`` (the peer's close frame)
    and ``failure`` (the close frame to send because the peer broke the protocol or the limit). After either of the last
    two, further bytes are ignored. ``is_notable`` tells that one of the three is there.

    Args:
        is_client: Whether this end is the client, whose frames come unmasked.
        max_message_size: Bytes a message may have; a frame that declares more fails with 1009 before it is read.
    """

    def __init__(self, is_client: bool, max_message_size: int) -> None:
        self.is_notable = False
        self.pings: list[bytes] = []
        self.closed: Optional[CloseFrame] = None
        self.failure: Optional[CloseFrame] = None
        self._is_client = is_client
        self._mask_bit = 0 if is_client else _MASKED
        self._limit = max_message_size
        self._short_heads = _heads_by_length(is_client, min(125, max_message_size))
        self._is_between = True  # frames: nothing is kept, under way, closed or failed
        self._kept: list[bytes] = []
        self._kept_size = 0
        self._wanted = 0
        #: How many bytes to read next, in a tuple.
        self.reads = _SMALL_READS
        self._wsproto: Optional[Connection] = None
        self._left = 0
        self._parts: list[Message] = []
        self._fragmented = False
        self._message_size = 0

    def feed(self, data: bytes) -> list[Message]:
        """The messages that ``data``, the next bytes of the stream, completes."""
        if self._is_between and data[:2] == self._short_heads.get(len(data)):
            self.reads = _SMALL_READS
            try:
                return [(mask(data[6:], data[2:6]) if self._mask_bit else data[2:]).decode()]
            except UnicodeDecodeError:
                pass  # wsproto says what follows from it
        messages = self._feed(data)
        self._is_between = not (self._kept or self._left or self._fragmented or self.closed or self.failure)
        missing = self._wanted - self._kept_size if self._kept else 0
        if missing > _READS[0]:
            self.reads = (min(missing, _LARGEST_READ),)
        else:
            self.reads = _READS if missing or len(data) >= self.reads[0] else _SMALL_READS
        return messages

    def _feed(self, data: bytes) -> list[Message]:
        if self._kept:
            self._kept.append(data)
            self._kept_size += len(data)
            if self._kept_size < self._wanted:
                return []
            data = b"".join(self._kept)
            self._kept.clear()
        messages: list[Message] = []
        position, end = 0, len(data)
        while position < end and self.closed is None and self.failure is None:
            taken = self._take(data, position, end, messages)
            if not taken:
                self._kept = [data[position:]] if position else [data]
                self._kept_size = end - position
                break
            position += taken
        return messages

    def _take(self, data: bytes, start: int, end: int, messages: list[Message]) -> int:
        """Take the frame at ``start``, or a piece of it; returns the bytes taken, 0 when more are needed first."""
        if self._left:
            return self._take_rest(data, start, end, messages)
        if end - start < 2:
            self._wanted = 2
            return 0
        first, second = data[start], data[start + 1]
        masked = second & _MASKED
        size, body = second & 0x7F, start + 2
        if size > 125:
            width = 2 if size == 126 else 8
            if end - body < width:
                self._wanted = 2 + width
                return 0
            size = int.from_bytes(data[body : body + width], "big")
            body += width
            if size < (126 if width == 2 else 65536):
                return self._take_header(data, start, body, 0, messages)  # not minimal: wsproto refuses it
        key_start = body
        if masked:
            body += 4
            if end < body:
                self._wanted = body - start
                return 0
        if first != _WHOLE_TEXT or masked != self._mask_bit or self._fragmented:
            return self._take_header(data, start, body, size, messages)
        if size > self._limit:
            return self._fail_size(end - start)
        stop = body + size
        if end < stop:
            self._wanted = stop - start
            return 0
        payload = memoryview(data)[body:stop]
        try:
            messages.append(str(mask(payload, data[key_start:body]) if masked else payload, "utf-8"))
        except UnicodeDecodeError:
            self._take_header(data, start, body, size, messages)
            return body - start
        return stop - start

    def _take_header(self, data: bytes, start: int, body: int, size: int, messages: list[Message]) -> int:
        """Give the header of a frame to wsproto, which judges it before its payload comes."""
        opcode = data[start] & 0x0F
        if opcode < CLOSE:
            if self._message_size + size > self._limit:
                return self._fail_size(body - start)
            self._message_size += size
            self._fragmented = not data[start] & _FIN
        self._left = size
        self._ask_wsproto(data[start:body], messages)
        return body - start

    def _take_rest(self, data: bytes, start: int, end: int, messages: list[Message]) -> int:
        taken = min(self._left, end - start)
        self._left -= taken
        self._ask_wsproto(data[start : start + taken], messages)
        return taken

    def _fail_size(self, taken: int) -> int:
        self.failure = CloseFrame(CloseCode.MESSAGE_TOO_BIG, f"message exceeds max_message_size of {self._limit} bytes")
        self.is_notable = True
        return taken

    def _ask_wsproto(self, data: bytes, messages: list[Message]) -> None:
        if self._wsproto is None:
            self._wsproto = Connection(ConnectionType.CLIENT if self._is_client else ConnectionType.SERVER)
        self._wsproto.receive_data(data)
        for event in self._wsproto.events():
            if isinstance(event, (TextMessage, BytesMessage)):
                self._add_part(event, messages)
            elif isinstance(event, Ping):
                self.pings.append(bytes(event.payload))
                self.is_notable = True
            elif isinstance(event, CloseConnection):
                frame = CloseFrame(int(event.code), event.reason or "")
                self.is_notable = True
                if self._wsproto.state is ConnectionState.OPEN:  # wsproto's own verdict, not the peer's frame
                    self.failure = frame
                else:
                    self.closed = frame
            else:
                assert isinstance(event, Pong)  # nothing to do: any byte is a sign of life

    def _add_part(self, event: Union[TextMessage, BytesMessage], messages: list[Message]) -> None:
        if event.data:  # without the empty ones an endless message of empty fragments takes no memory
            self._parts.append(event.data if isinstance(event, TextMessage) else bytes(event.data))
        if not event.message_finished:
            return
        self._message_size = 0
        parts, self._parts = self._parts, []
        if isinstance(event, TextMessage):
            messages.append("".join(map(str, parts)))
        else:
            messages.append(b"".join(map(bytes, parts)))  # type: ignore[arg-type]
