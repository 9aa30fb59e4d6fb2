"""RFC 6455 frames: bytes in, messages out, and the other way round. No sockets, no locks, no clock.

A whole text frame that is short and all there is, which is the rule where one call follows the other, takes the fast lane:
a few lines that recognise, unmask and decode it. Every other frame is taken apart and judged step by step. That both judge
as they should is for the tests to show, which hold them against wsproto.

An ``Inbound`` is used by one thread at a time: the one that reads the connection.
"""

import importlib.machinery
import importlib.util
import os
import struct
from codecs import utf_8_decode
from functools import cache, partial
from typing import Callable, Iterator, NamedTuple, Optional, Union

from .closing import CloseCode, may_be_received

Message = Union[str, bytes]
Buffer = Union[bytes, bytearray, memoryview]
Mask = Callable[[Buffer, bytes], Union[bytes, bytearray]]

CONTINUATION = 0x0
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
_RESERVED_BITS = 0x70
_OPCODE = 0x0F
_OPCODES = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})
_WHOLE_TEXT = _FIN | TEXT
_MASKED = 0x80
_LENGTH = 0x7F

#: What the length in a frame's second byte stands for where it is none: bytes of the length that follows, and the smallest that
#: may be put so (:rfc:`6455#section-5.2`).
_LONG_LENGTHS = {126: (2, 126), 127: (8, 65536)}

#: The longest payload of a control frame (:rfc:`6455#section-5.5`), and the longest reason of a close frame beside its code.
_CONTROL_LIMIT = 125
_REASON_LIMIT = _CONTROL_LIMIT - 2

#: Below so many bytes one XOR of two big integers is the quickest way to mask; above, four translations of every fourth
#: byte are (1 MiB: 1.2 ms against 3.4).
_BIG_INTEGER_LIMIT = 600
_integer = int.from_bytes


@cache
def _xor_with(key: int) -> bytes:
    """The table by which ``bytes.translate`` masks with one byte of a key."""
    return bytes(byte ^ key for byte in range(256))


class CloseFrame(NamedTuple):
    """A code and a reason, as a close frame carries them."""

    code: int
    reason: str


_NOT_UTF8 = CloseFrame(CloseCode.INVALID_PAYLOAD_DATA, "text is not UTF-8")


def slow_mask(data: Buffer, key: bytes) -> Union[bytes, bytearray]:
    """Mask or unmask ``data`` (:rfc:`6455#section-5.3`), where there is no C function to do it."""
    size = len(data)
    if size < _BIG_INTEGER_LIMIT:
        keys = (key * ((size >> 2) + 1))[:size]
        return (_integer(data, "little") ^ _integer(keys, "little")).to_bytes(size, "little")
    masked = bytearray(data)
    for offset in range(4):
        masked[offset::4] = masked[offset::4].translate(_xor_with(key[offset]))
    return masked


def _quickest_mask() -> Mask:
    """The C function of websockets, where that is installed, without its package, which takes longer to import than oompa."""
    try:
        package = importlib.util.find_spec("websockets")
        folders = package and package.submodule_search_locations
        spec = folders and importlib.machinery.PathFinder.find_spec("websockets.speedups", folders)
        if not spec or spec.loader is None:
            return slow_mask
        speedups = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(speedups)
        found: Mask = speedups.apply_mask
    except (ImportError, ValueError, AttributeError):  # damaged, or something else of that name
        return slow_mask
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


class _Rest(NamedTuple):
    """What is to come of a frame: bytes of its payload, the masking key as it goes on, and the frame's first byte."""

    size: int
    key: bytes
    first: int


class _Beginning:
    """The beginning of a frame, in the pieces in which it came, until there are bytes enough to go on.

    Attributes:
        size: Bytes there are; 0: nothing is kept.
        wanted: Bytes of the frame that are needed.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.size = 0
        self.wanted = 0

    @property
    def missing(self) -> int:
        """Bytes that are yet to come."""
        return self.wanted - self.size if self.size else 0

    def keep(self, piece: bytes) -> None:
        """Put a piece behind those there are."""
        self._pieces.append(piece)
        self.size += len(piece)

    def take(self) -> bytes:
        """All that is kept, which is forgotten."""
        whole = b"".join(self._pieces)
        self._pieces.clear()
        self.size = 0
        return whole


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
        self._mask_bit = 0 if is_client else _MASKED
        self._limit = max_message_size
        self._short_limit = min(125, max_message_size)
        self._short_heads = _heads_by_length(is_client, self._short_limit)
        self._is_between = True  # frames: nothing is kept, under way, closed or failed
        self._beginning = _Beginning()
        self._rest: Optional[_Rest] = None  # of a frame that is taken piece by piece
        #: How many bytes to read next, in a tuple.
        self.reads = _SMALL_READS
        self._opcode = CONTINUATION  # of the fragmented message under way, if any
        self._message = bytearray()  # what has come of it
        self._checked = 0  # bytes of it that are known to be UTF-8

    def feed(self, data: bytes) -> list[Message]:
        """The messages that ``data``, the next bytes of the stream, completes."""
        if self._is_between and data[:2] == self._short_heads.get(len(data)):
            self.reads = _SMALL_READS
            try:
                return [(mask(data[6:], data[2:6]) if self._mask_bit else data[2:]).decode()]
            except UnicodeDecodeError:
                pass  # the long way says what follows from it
        messages = self._feed(data)
        self._is_between = not (self._beginning.size or self._opcode or self.closed or self.failure)
        missing = self._beginning.missing if self._rest is None else self._rest.size
        if missing > _READS[0]:
            self.reads = (min(missing, _LARGEST_READ),)
        else:
            self.reads = _READS if missing or len(data) >= self.reads[0] else _SMALL_READS
        return messages

    def _feed(self, data: bytes) -> list[Message]:
        beginning = self._beginning
        if beginning.size:
            beginning.keep(data)
            if beginning.size < beginning.wanted:
                return []
            data = beginning.take()
        messages: list[Message] = []
        position, end = 0, len(data)
        while position < end and self.closed is None and self.failure is None:
            stop = self._take(data, position, end, messages)
            if stop == position:
                beginning.keep(data[position:])
                break
            position = stop
        return messages

    def _take(self, data: bytes, start: int, end: int, messages: list[Message]) -> int:
        """Take the frame at ``start``; returns where the next one starts: at ``start``, too, if more bytes are needed first."""
        if self._rest is not None:
            return self._take_rest(self._rest, data, start, end, messages)
        body = start + 2
        if end < body:
            self._beginning.wanted = 2
            return start
        first, second = data[start], data[start + 1]
        size = second & _LENGTH
        if size > 125:
            body += _LONG_LENGTHS[size][0]
            size = int.from_bytes(data[start + 2 : body], "big")
        is_masked = second & _MASKED
        if is_masked:
            body += 4
        if end < body:
            self._beginning.wanted = body - start
            return start
        is_short = first == _WHOLE_TEXT and second == self._mask_bit | size and size <= self._short_limit
        fault = None if is_short and not self._opcode else self._fault_of(first, second, size)
        if fault is not None:
            return self._fail(fault, end)
        stop = body + size
        if end < stop:
            if first == _WHOLE_TEXT or first & _OPCODE >= CLOSE:
                self._beginning.wanted = stop - start
                return start
            self._rest = _Rest(size, data[body - 4 : body] if is_masked else b"", first)
            return self._take_rest(self._rest, data, body, end, messages)
        piece = memoryview(data)[body:stop]
        payload = mask(piece, data[body - 4 : body]) if is_masked else piece
        if first != _WHOLE_TEXT:
            self._take_other(first, payload, messages)
            return stop
        try:
            messages.append(str(payload, "utf-8"))
        except UnicodeDecodeError:
            self._fail(_NOT_UTF8, end)
        return stop

    def _take_rest(self, rest: "_Rest", data: bytes, start: int, end: int, messages: list[Message]) -> int:
        """Take what has come of a fragment, or of a binary message: text that is none is found before it is complete."""
        stop = min(end, start + rest.size)
        taken = stop - start
        piece = memoryview(data)[start:stop]
        payload = mask(piece, rest.key) if rest.key else piece
        is_complete = taken == rest.size
        self._take_fragment(rest.first & _OPCODE, is_complete and bool(rest.first & _FIN), payload, messages)
        turn = taken % 4
        self._rest = None if is_complete else _Rest(rest.size - taken, rest.key[turn:] + rest.key[:turn], rest.first & ~_OPCODE)
        return stop

    def _fault_of(self, first: int, second: int, size: int) -> Optional[CloseFrame]:
        """What is wrong with the header of a frame, None for nothing (:rfc:`6455#section-5`)."""
        opcode, shown = first & _OPCODE, second & _LENGTH
        is_control = opcode >= CLOSE
        problem = ""
        if first & _RESERVED_BITS:
            problem = "a reserved bit is set"
        elif opcode not in _OPCODES:
            problem = f"opcode {opcode:#x} is reserved"
        elif is_control and (shown > _CONTROL_LIMIT or not first & _FIN):
            problem = "a control frame is fragmented or exceeds 125 bytes"
        elif not is_control and (opcode == CONTINUATION) is not (self._opcode != CONTINUATION):
            problem = "a message begins inside another" if opcode else "a message is continued that never began"
        elif second & _MASKED != self._mask_bit:
            problem = "a client's frame is not masked" if self._mask_bit else "a server's frame is masked"
        elif shown > 125 and not _LONG_LENGTHS[shown][1] <= size < 1 << 63:
            problem = "a length is longer than it must be, or negative"
        elif not is_control and len(self._message) + size > self._limit:
            return CloseFrame(CloseCode.MESSAGE_TOO_BIG, f"message exceeds max_message_size of {self._limit} bytes")
        return CloseFrame(CloseCode.PROTOCOL_ERROR, problem) if problem else None

    def _fail(self, fault: CloseFrame, end: int) -> int:
        self.failure = fault
        self.is_notable = True
        return end

    def _take_other(self, first: int, payload: Buffer, messages: list[Message]) -> None:
        """Take a good frame that is no whole text."""
        opcode = first & _OPCODE
        if opcode < CLOSE:
            self._take_fragment(opcode, bool(first & _FIN), payload, messages)
        elif opcode == PING:
            self.pings.append(bytes(payload))
            self.is_notable = True
        elif opcode == CLOSE:
            self._take_close(bytes(payload))
        # A pong asks for nothing: any byte is a sign of life.

    def _take_fragment(self, opcode: int, is_last: bool, payload: Buffer, messages: list[Message]) -> None:
        """Take a piece of a message, or a whole one in binary."""
        self._opcode = opcode = opcode or self._opcode
        message = self._message
        message += payload
        if opcode == TEXT:
            try:
                self._checked += utf_8_decode(message[self._checked :], "strict", is_last)[1]
            except UnicodeDecodeError:
                self._fail(_NOT_UTF8, 0)
                return
        if is_last:
            messages.append(message.decode() if opcode == TEXT else bytes(message))
            self._opcode, self._message, self._checked = CONTINUATION, bytearray(), 0

    def _take_close(self, payload: bytes) -> None:
        """Take a close frame (:rfc:`6455#section-5.5.1`)."""
        self.is_notable = True
        code = int.from_bytes(payload[:2], "big") if payload else CloseCode.NO_STATUS_RECEIVED
        if payload and (len(payload) == 1 or not may_be_received(code)):
            self.failure = CloseFrame(CloseCode.PROTOCOL_ERROR, "a close frame has a code that may not be sent")
            return
        try:
            self.closed = CloseFrame(code, payload[2:].decode())
        except UnicodeDecodeError:
            self.failure = _NOT_UTF8
