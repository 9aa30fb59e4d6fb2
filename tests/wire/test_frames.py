"""RFC 6455 frames. What comes in is judged by wsproto beside it, the authority here; what goes out is read by it."""

import os
import struct
from itertools import islice

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from oompa.wire import frames
from oompa.wire.frames import BINARY, CLOSE, PING, PONG, TEXT, CloseFrame, Framing, Inbound

CONTINUATION = 0x0
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10
MASKED = 0x80
KEY = b"\x11\x22\x33\x44"
NO_LIMIT = 2**62
GATEWAY = struct.pack("!H", 1014)

ROLES = [pytest.param(True, id="client"), pytest.param(False, id="server")]
properties = settings(max_examples=300, deadline=None, database=None)


def xor(data, key):
    """Masking, as :rfc:`6455#section-5.3` puts it."""
    return bytes(byte ^ key[index % 4] for index, byte in enumerate(data))


def frame(opcode, payload=b"", *, to_client, fin=True, rsv=0, key=KEY, masked=None, declared=None, width=None):
    """Any frame, good or bad.

    Args:
        masked: The mask bit; None: as it must be.
        declared: The length it declares; None: the payload's.
        width: Bytes of the length, 0, 2 or 8; None: as few as will do.
    """
    masked = (not to_client) if masked is None else masked
    size = len(payload) if declared is None else declared
    if width is None:
        width = 0 if size < 126 else 2 if size < 65536 else 8
    short = {0: size, 2: 126, 8: 127}[width]
    head = bytes([(FIN if fin else 0) | rsv | opcode, (MASKED if masked else 0) | short])
    head += {0: b"", 2: struct.pack("!H", size & 0xFFFF), 8: struct.pack("!Q", size)}[width]
    return head + (key + xor(payload, key) if masked else payload)


class Seen:
    """What came of some bytes: messages, pings, and how it ended."""

    def __init__(self):
        self.messages = []
        self.pings = []
        self.closed = None
        self.failure = None

    def __eq__(self, other):
        return vars(self) == vars(other)

    def __repr__(self):
        return repr(vars(self))


def by_inbound(is_client, data, chunks=(), limit=NO_LIMIT):
    """What ``Inbound`` makes of bytes that come in chunks of so many, and then all the rest."""
    inbound, seen, position = Inbound(is_client, limit), Seen(), 0
    for size in (*chunks, len(data)):
        if position < len(data):
            seen.messages += inbound.feed(data[position : position + size])
            position += size
    seen.pings, seen.closed = inbound.pings, inbound.closed
    seen.failure = inbound.failure and inbound.failure.code
    notable = bool(seen.pings) or seen.closed is not None or seen.failure is not None
    assert inbound.is_notable == notable
    return seen


def unmasked(data, start, body, size):
    """The first bytes of a frame's payload."""
    payload = data[body : body + size]
    return xor(payload, data[body - 4 : body]) if data[start + 1] & MASKED else payload


class TooLarge(Exception):
    """Nothing after this frame matters."""


class Reference:
    """What wsproto makes of bytes, with a limit on the size of messages counted here.

    Attributes:
        verdicts: How the last frame may be judged: one that is too large and bad besides for either reason, and one whose
            header is incomplete now or later.
    """

    def __init__(self, is_client, limit):
        self.seen = Seen()
        self.verdicts = {None}
        self._wsproto = Connection(ConnectionType.CLIENT if is_client else ConnectionType.SERVER)
        self._limit = limit
        self._size = 0
        self._parts = []
        self._is_fragmented = False

    def read(self, data):
        position = 0
        while position < len(data) and self.seen.closed is None and self.seen.failure is None:
            header = parse_header(data, position)
            if header is None:
                self._feed(data[position:])
                self.verdicts = {None, self.seen.failure}
                return
            position = self._read_frame(data, position, *header)
        self.verdicts = {self.seen.failure}

    def _read_frame(self, data, start, first, body, size):
        end = body + size
        if first & 0x0F < CLOSE:
            is_misplaced = (first & 0x0F == CONTINUATION) != self._is_fragmented
            self._size += size
            self._is_fragmented = not first & FIN
            if self._size > self._limit:
                self._feed(data[start:body])
                self.verdicts = {1009, self.seen.failure or (1002 if is_misplaced else 1009)}
                raise TooLarge
            if is_misplaced:  # which is judged before the payload comes
                self._feed(data[start:body])
                self.seen.failure = 1002
                return end
            if first == FIN | TEXT and len(data) < end:  # which is judged when it is complete
                self._feed(data[start:body])
                return end
        if first == FIN | CLOSE and size > 1 and unmasked(data, start, body, 2) == GATEWAY:
            return self._read_gateway_close(data, start, body, end)
        self._feed(data[start:end])
        return end

    def _read_gateway_close(self, data, start, body, end):
        """A code that wsproto does not know yet: it is shown its neighbour, 1013."""
        shown = bytearray(data[start:end])
        shown[body - start + 1] ^= GATEWAY[1] ^ 0xF5
        self._feed(bytes(shown))
        if self.seen.closed is not None:
            self.seen.closed = CloseFrame(1014, self.seen.closed.reason)
        return end

    def _feed(self, data):
        self._wsproto.receive_data(data)
        for event in self._wsproto.events():
            if isinstance(event, (TextMessage, BytesMessage)):
                self._parts.append(event.data)
                if event.message_finished:
                    self.seen.messages.append(type(event.data)().join(map(type(event.data), self._parts)))
                    self._parts, self._size = [], 0
            elif isinstance(event, Ping):
                self.seen.pings.append(bytes(event.payload))
            elif isinstance(event, CloseConnection):
                if self._wsproto.state is ConnectionState.OPEN:
                    self.seen.failure = int(event.code)
                else:
                    self.seen.closed = CloseFrame(event.code, event.reason or "")
            else:
                assert isinstance(event, Pong)


def parse_header(data, start):
    """The first byte, where the payload starts and the size it declares; None for an incomplete header."""
    if len(data) < start + 2:
        return None
    size, body = data[start + 1] & 0x7F, start + 2
    width = {126: 2, 127: 8}.get(size, 0)
    if width:
        if len(data) < body + width:
            return None
        size = int.from_bytes(data[body : body + width], "big")
        body += width
    if data[start + 1] & MASKED:
        body += 4
        if len(data) < body:
            return None
    return data[start], body, size


def check(is_client, data, chunks=(), limit=NO_LIMIT):
    """Both find the same."""
    seen, reference = by_inbound(is_client, data, chunks, limit), Reference(is_client, limit)
    try:
        reference.read(data)
    except TooLarge:
        pass
    assert seen.failure in reference.verdicts
    reference.seen.failure = seen.failure
    assert seen == reference.seen


# Any frames in any chunks.

texts = st.text(max_size=10).map(str.encode)
bad_texts = st.sampled_from([b"\xff", b"\xc3", b"a\xe2\x82", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"ok\xfe"])
sizes = st.sampled_from([0, 1, 2, 124, 125, 126, 127, 128, 300, 599, 600, 601, 65535, 65536, 65537])
payloads = st.one_of(texts, bad_texts, st.binary(max_size=20), sizes.map(lambda size: b"x" * size))
close_payloads = st.one_of(
    st.just(b""),
    st.binary(max_size=3),
    st.builds(
        lambda code, reason: struct.pack("!H", code) + reason,
        st.sampled_from([0, 999, 1000, 1001, 1003, 1004, 1005, 1006, 1007, 1011, 1014, 1015, 1016, 2999, 3000, 4999, 5000]),
        st.one_of(texts, bad_texts, st.binary(max_size=123)),
    ),
)
keys = st.one_of(st.just(b"\0\0\0\0"), st.binary(min_size=4, max_size=4))


@st.composite
def good_message(draw, to_client):
    """A message in one frame or several, with control frames between them; the text may be cut inside a character."""
    opcode = draw(st.sampled_from([TEXT, BINARY]))
    payload = draw(st.one_of(texts, st.binary(max_size=10), sizes.map(lambda size: b"y" * size)))
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=4)))
    pieces = [payload[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(payload)])]
    data = b""
    for index, piece in enumerate(pieces):
        data += frame(
            CONTINUATION if index else opcode, piece, to_client=to_client, fin=index == len(pieces) - 1, key=draw(keys)
        )
        if draw(st.booleans()):
            control = draw(st.sampled_from([PING, PONG]))
            data += frame(control, draw(st.binary(max_size=8)), to_client=to_client, key=draw(keys))
    return data


@st.composite
def any_frame(draw, to_client):
    """A frame that is wrong in any way there is, or not."""
    opcode = draw(st.sampled_from([CONTINUATION, TEXT, TEXT, BINARY, CLOSE, PING, PONG, 3, 7, 11, 15]))
    payload = draw(close_payloads if opcode == CLOSE else payloads)
    return frame(
        opcode,
        payload,
        to_client=to_client,
        fin=draw(st.sampled_from([True, True, True, False])),
        rsv=draw(st.sampled_from([0, 0, 0, 0, 0, RSV1, RSV2, RSV3, RSV1 | RSV3])),
        key=draw(keys),
        masked=draw(st.sampled_from([None, None, None, None, True, False])),
        declared=draw(st.sampled_from([None] * 8 + [0, 1, 125, 126, 65535, 65536, 2**40, 2**63 - 1, 2**63, 2**64 - 1])),
        width=draw(st.sampled_from([None, None, None, 2, 8])),
    )


@st.composite
def streams(draw, to_client):
    """The bytes of some frames, perhaps cut short, and how they come."""
    parts = draw(st.lists(st.one_of(good_message(to_client), good_message(to_client), any_frame(to_client)), max_size=6))
    data = b"".join(parts)
    if draw(st.booleans()):
        data = data[: draw(st.integers(0, len(data)))]
    chunks = draw(
        st.one_of(
            st.just([]),
            st.lists(st.integers(1, 12), max_size=30),
            st.lists(st.sampled_from([1, 2, 3, 7, 64, 126, 4096, 65536]), max_size=30),
        )
    )
    return data, chunks


@pytest.mark.parametrize("is_client", ROLES)
@given(data=st.data())
@properties
def test_any_frames_in_any_chunks_are_judged_as_wsproto_judges_them(is_client, data):
    stream, chunks = data.draw(streams(to_client=is_client))
    check(is_client, stream, chunks)


@pytest.mark.parametrize("is_client", ROLES)
@given(data=st.data(), limit=st.sampled_from([1, 2, 10, 125, 126, 600, 65535, 65536, 100_000]))
@properties
def test_any_frames_are_judged_alike_under_a_limit_of_size(is_client, data, limit):
    stream, chunks = data.draw(streams(to_client=is_client))
    check(is_client, stream, chunks, limit)


@pytest.mark.parametrize("is_client", ROLES)
@given(stream=st.binary(max_size=60), chunks=st.lists(st.integers(1, 9), max_size=20))
@example(stream=b"\x81\x7f" + b"\xff" * 8, chunks=[])
@example(stream=b"\x81\xfe\x00\x05" + KEY + b"hello", chunks=[])
@example(stream=b"\x01\x80" + KEY + b"\x81\x80" + KEY, chunks=[1] * 12)
@properties
def test_any_bytes_are_judged_as_wsproto_judges_them(is_client, stream, chunks):
    check(is_client, stream, chunks)


@pytest.mark.parametrize("is_client", ROLES)
@given(data=st.data())
@properties
def test_chunks_make_no_difference(is_client, data):
    stream, chunks = data.draw(streams(to_client=is_client))
    whole = by_inbound(is_client, stream, limit=1000)
    assert by_inbound(is_client, stream, chunks, limit=1000) == whole
    if len(stream) < 2000:
        assert by_inbound(is_client, stream, [1] * len(stream), limit=1000) == whole


# Messages, one by one.


@pytest.fixture(params=ROLES)
def is_client(request):
    """Whether this end is the client."""
    return request.param


@pytest.fixture
def inbound(is_client):
    return Inbound(is_client, 1_000_000)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 200_000])
def test_a_text_frame_of_any_size_is_a_message(inbound, is_client, size):
    text = ("é" * size)[: size // 2] + "x" * (size % 2)
    assert inbound.feed(frame(TEXT, text.encode(), to_client=is_client)) == [text]
    assert not inbound.is_notable


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65536])
def test_a_binary_frame_of_any_size_is_a_message_of_bytes(inbound, is_client, size):
    (message,) = inbound.feed(frame(BINARY, b"\xff" * size, to_client=is_client))
    assert (message, type(message)) == (b"\xff" * size, bytes)


def test_messages_that_come_together_are_returned_together(inbound, is_client):
    data = b"".join(frame(TEXT, b"%d" % number, to_client=is_client) for number in range(100))
    assert inbound.feed(data) == [str(number) for number in range(100)]


def test_a_message_that_comes_byte_by_byte_is_returned_with_its_last_byte(inbound, is_client):
    data = frame(TEXT, b"hello", to_client=is_client)
    assert [inbound.feed(bytes([byte])) for byte in data] == [[]] * (len(data) - 1) + [["hello"]]


def test_fragments_make_one_message(inbound, is_client):
    euro = "€".encode()
    assert inbound.feed(frame(TEXT, b"1" + euro[:1], to_client=is_client, fin=False)) == []
    assert inbound.feed(frame(CONTINUATION, euro[1:2], to_client=is_client, fin=False)) == []
    assert inbound.feed(frame(CONTINUATION, euro[2:], to_client=is_client)) == ["1€"]
    assert inbound.feed(frame(TEXT, b"next", to_client=is_client)) == ["next"]


def test_a_control_frame_may_come_between_fragments(inbound, is_client):
    data = frame(BINARY, b"a", to_client=is_client, fin=False)
    data += frame(PING, b"?", to_client=is_client) + frame(PONG, b"!", to_client=is_client)
    data += frame(CONTINUATION, b"b", to_client=is_client)
    assert inbound.feed(data) == [b"ab"]
    assert inbound.pings == [b"?"]


def test_every_ping_is_told_with_its_payload_and_a_pong_is_nothing(inbound, is_client):
    data = b"".join(frame(PING, payload, to_client=is_client) for payload in (b"", b"1", b"x" * 125))
    assert inbound.feed(frame(PONG, b"unasked", to_client=is_client)) == []
    assert not inbound.is_notable
    assert inbound.feed(data) == []
    assert inbound.pings == [b"", b"1", b"x" * 125]
    assert inbound.is_notable


def test_a_close_frame_tells_code_and_reason(inbound, is_client):
    inbound.feed(frame(CLOSE, struct.pack("!H", 1001) + "adieu é".encode(), to_client=is_client))
    assert inbound.closed == (1001, "adieu é")
    assert inbound.failure is None
    assert inbound.is_notable


def test_a_close_frame_without_a_code_has_the_code_1005(inbound, is_client):
    inbound.feed(frame(CLOSE, b"", to_client=is_client))
    assert inbound.closed == (1005, "")


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999])
def test_close_codes_that_may_be_sent_are_accepted(inbound, is_client, code):
    inbound.feed(frame(CLOSE, struct.pack("!H", code), to_client=is_client))
    assert inbound.closed == (code, "")


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_close_codes_that_may_not_be_sent_break_the_protocol(inbound, is_client, code):
    inbound.feed(frame(CLOSE, struct.pack("!H", code), to_client=is_client))
    assert inbound.closed is None
    assert inbound.failure.code == 1002


def test_what_came_before_the_end_is_returned_and_what_comes_after_is_ignored(inbound, is_client):
    hello = frame(TEXT, b"hello", to_client=is_client)
    ping = frame(PING, b"?", to_client=is_client)
    assert inbound.feed(hello + frame(CLOSE, b"", to_client=is_client) + hello + ping) == ["hello"]
    assert inbound.feed(hello) == []
    assert inbound.feed(ping) == []
    assert inbound.pings == []


def test_what_came_before_a_failure_is_returned_and_what_comes_after_is_ignored(inbound, is_client):
    hello = frame(TEXT, b"hello", to_client=is_client)
    assert inbound.feed(hello + frame(3, b"", to_client=is_client) + hello) == ["hello"]
    assert inbound.failure.code == 1002
    assert inbound.feed(hello + frame(CLOSE, b"", to_client=is_client)) == []
    assert inbound.closed is None


# Failures, one by one.


def failures(to_client):
    """Streams that break the protocol, and the close code for it."""

    def make(opcode, payload=b"", **options):
        return frame(opcode, payload, to_client=to_client, **options)

    return {
        "masked the wrong way": (make(TEXT, b"hello", masked=to_client), 1002),
        "a control frame masked the wrong way": (make(PING, b"hello", masked=to_client), 1002),
        "first reserved bit": (make(TEXT, b"hello", rsv=RSV1), 1002),
        "second reserved bit": (make(TEXT, b"hello", rsv=RSV2), 1002),
        "third reserved bit": (make(BINARY, b"hello", rsv=RSV3), 1002),
        "reserved bit in a control frame": (make(PING, b"hello", rsv=RSV1), 1002),
        "reserved opcode": (make(3, b"hello"), 1002),
        "reserved control opcode": (make(11, b"hello"), 1002),
        "continuation of nothing": (make(CONTINUATION, b"hello"), 1002),
        "message in a message": (make(TEXT, b"a", fin=False) + make(TEXT, b"b"), 1002),
        "binary in a text message": (make(TEXT, b"a", fin=False) + make(BINARY, b"b"), 1002),
        "fragmented ping": (make(PING, b"a", fin=False), 1002),
        "fragmented close": (make(CLOSE, b"", fin=False), 1002),
        "control frame of 126 bytes": (make(PING, b"x" * 126), 1002),
        "close frame of 126 bytes": (make(CLOSE, struct.pack("!H", 1000) + b"x" * 124), 1002),
        "length in two bytes that fits one": (make(TEXT, b"hello", width=2), 1002),
        "length in eight bytes that fits one": (make(TEXT, b"hello", width=8), 1002),
        "126 in eight bytes": (make(TEXT, b"x" * 126, width=8), 1002),
        "127 in eight bytes": (make(TEXT, b"x" * 127, width=8), 1002),
        "length in eight bytes that fits two": (make(TEXT, b"x" * 300, width=8), 1002),
        "close frame with one byte": (make(CLOSE, b"\x03"), 1002),
        "text that is not UTF-8": (make(TEXT, b"\xff"), 1007),
        "text cut inside a character": (make(TEXT, "€".encode()[:2]), 1007),
        "surrogate in UTF-8": (make(TEXT, b"\xed\xa0\x80"), 1007),
        "overlong UTF-8": (make(TEXT, b"\xc0\x80"), 1007),
        "fragment that is not UTF-8": (make(TEXT, b"a", fin=False) + make(CONTINUATION, b"\xff", fin=False), 1007),
        "fragments cut inside a character": (make(TEXT, b"\xe2", fin=False) + make(CONTINUATION, b"\x82"), 1007),
        "reason that is not UTF-8": (make(CLOSE, struct.pack("!H", 1000) + b"\xff"), 1007),
        "frame larger than the limit": (make(TEXT, b"x" * 1001), 1009),
        "binary frame larger than the limit": (make(BINARY, b"x" * 1001), 1009),
        "fragments larger than the limit": (make(TEXT, b"x" * 600, fin=False) + make(CONTINUATION, b"x" * 401), 1009),
        "2 to the 62 bytes declared": (make(TEXT, b"", declared=2**62), 1009),
        "2 to the 63 bytes less one declared": (make(BINARY, b"", declared=2**63 - 1), 1009),
    }


@pytest.mark.parametrize("name", failures(True))
def test_a_fault_of_the_peer_has_its_close_code(is_client, name):
    data, code = failures(to_client=is_client)[name]
    good = frame(TEXT, b"before", to_client=is_client)
    after = b"" if "fragment" in name or "message in" in name or "in a text" in name else good
    for chunks in ([], [1] * (len(after) + len(data))):
        seen = by_inbound(is_client, after + data, chunks, limit=1000)
        assert (seen.failure, seen.closed) == (code, None)
        assert seen.messages == (["before"] if after else [])


def test_a_failure_has_a_reason_that_fits_a_close_frame(is_client):
    for data, _ in failures(to_client=is_client).values():
        inbound = Inbound(is_client, 1000)
        inbound.feed(data)
        code, reason = inbound.failure
        assert reason
        assert len(frames.close_payload(code, reason)) <= 125


def test_a_bad_fragment_is_judged_before_the_message_is_complete(inbound, is_client):
    inbound.feed(frame(TEXT, b"a\xff", to_client=is_client, fin=False))
    assert inbound.failure.code == 1007


def test_a_bad_header_is_judged_before_its_payload_comes(inbound, is_client):
    header_alone = frame(TEXT, b"", to_client=is_client, rsv=RSV1, declared=500)
    inbound.feed(header_alone)
    assert inbound.failure.code == 1002


# Limits.


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("limit", [1, 125, 126, 65535, 65536])
def test_a_message_of_exactly_the_limit_passes_and_one_byte_more_fails(is_client, opcode, limit):
    inbound = Inbound(is_client, limit)
    (message,) = inbound.feed(frame(opcode, b"x" * limit, to_client=is_client))
    assert len(message) == limit
    assert inbound.feed(frame(opcode, b"x" * (limit + 1), to_client=is_client)) == []
    assert inbound.failure.code == 1009
    assert str(limit) in inbound.failure.reason


def test_the_limit_counts_bytes_and_not_characters(is_client):
    inbound = Inbound(is_client, 10)
    assert inbound.feed(frame(TEXT, ("é" * 5).encode(), to_client=is_client)) == ["é" * 5]
    inbound.feed(frame(TEXT, ("é" * 6).encode(), to_client=is_client))
    assert inbound.failure.code == 1009


def test_the_limit_counts_the_fragments_of_a_message_together(is_client):
    inbound = Inbound(is_client, 10)
    for _ in range(3):  # each message anew
        inbound.feed(frame(BINARY, b"x" * 5, to_client=is_client, fin=False))
        assert inbound.feed(frame(CONTINUATION, b"x" * 5, to_client=is_client)) == [b"x" * 10]
    inbound.feed(frame(TEXT, b"x" * 6, to_client=is_client, fin=False))
    inbound.feed(frame(CONTINUATION, b"x" * 5, to_client=is_client, fin=False))
    assert inbound.failure.code == 1009


def test_control_frames_do_not_count(is_client):
    inbound = Inbound(is_client, 10)
    data = frame(TEXT, b"x" * 5, to_client=is_client, fin=False) + frame(PING, b"y" * 125, to_client=is_client)
    assert inbound.feed(data + frame(CONTINUATION, b"x" * 5, to_client=is_client)) == ["x" * 10]


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_frame_that_declares_too_much_fails_before_it_is_read(is_client, opcode):
    inbound = Inbound(is_client, 1000)
    assert inbound.feed(frame(opcode, b"", to_client=is_client, declared=2**40)) == []
    assert inbound.failure.code == 1009


def test_a_declared_size_takes_no_memory(is_client):
    inbound = Inbound(is_client, 2**62)
    inbound.feed(frame(TEXT, b"x" * 100, to_client=is_client, declared=2**61))
    inbound.feed(b"y" * 100)
    assert inbound.failure is None
    assert inbound._beginning.size < 1000


def test_an_endless_message_of_empty_fragments_takes_no_memory(is_client):
    inbound = Inbound(is_client, 1000)
    data = frame(TEXT, b"", to_client=is_client, fin=False) + frame(CONTINUATION, b"", to_client=is_client, fin=False) * 5000
    inbound.feed(data)
    assert inbound.failure is None
    assert not inbound._message
    assert inbound.feed(frame(CONTINUATION, b"end", to_client=is_client)) == ["end"]


# Frames out.


def reader_of(is_client):
    """A wsproto connection at the other end of one that sends."""
    return Connection(ConnectionType.SERVER if is_client else ConnectionType.CLIENT)


def read_back(is_client, data):
    reader = reader_of(is_client)
    reader.receive_data(data)
    return list(reader.events())


SIZES = [0, 1, 3, 4, 5, 124, 125, 126, 127, 599, 600, 601, 65534, 65535, 65536, 65537, 300_001]


@pytest.mark.parametrize("size", SIZES)
def test_a_text_frame_is_read_as_it_was_written(is_client, size):
    text = ("é0123" * size).encode()[: size - size % 2].decode(errors="ignore")
    data = Framing(is_client).text(text.encode())
    events = read_back(is_client, data)
    assert "".join(event.data for event in events) == text
    assert [event.message_finished for event in events] == [True]


@pytest.mark.parametrize("size", [0, 1, 2, 125])
@pytest.mark.parametrize("opcode, kind", [(PING, Ping), (PONG, Pong)])
def test_a_control_frame_is_read_as_it_was_written(is_client, opcode, kind, size):
    payload = bytes(range(size))
    assert read_back(is_client, Framing(is_client).control(opcode, payload)) == [kind(payload)]


@pytest.mark.parametrize("code, reason", [(1000, ""), (1001, "adieu"), (4999, "é" * 50)])
def test_a_close_frame_is_read_as_it_was_written(is_client, code, reason):
    data = Framing(is_client).control(CLOSE, frames.close_payload(code, reason))
    (event,) = read_back(is_client, data)
    assert (event.code, event.reason or "") == (code, reason)


@pytest.mark.parametrize("size", SIZES)
def test_a_server_never_masks_and_a_client_always_does(size):
    assert not Framing(is_client=False).text(b"x" * size)[1] & MASKED
    assert Framing(is_client=True).text(b"x" * size)[1] & MASKED


def test_every_frame_of_a_client_has_a_key_of_its_own():
    framing = Framing(is_client=True)
    made = [framing.text(b"x")[2:6] for _ in range(1500)] + [framing.control(PING, b"")[2:6] for _ in range(1500)]
    assert len(set(made)) > 2990


def test_two_clients_have_different_keys():
    assert Framing(True).text(b"") != Framing(True).text(b"")


def test_keys_never_run_out():
    assert [len(key) for key in islice(frames.masking_keys(), 5000)] == [4] * 5000


def test_reads_grow_with_what_comes_and_are_small_again_when_little_does():
    inbound, framing = Inbound(False, 10_000_000), Framing(True)
    assert inbound.reads == (4096,)
    large = framing.text(b"x" * 5_000_000)
    assert inbound.feed(large[:4096]) == []
    assert inbound.reads == (1024 * 1024,)
    assert inbound.feed(large[4096:-70_000]) == []
    assert inbound.reads == (70_000,)
    assert inbound.feed(large[-70_000:]) == ["x" * 5_000_000]
    assert inbound.feed(framing.text(b"short")) == ["short"]
    assert inbound.reads == (4096,)


@given(st.binary(max_size=700), st.binary(min_size=4, max_size=4))
@example(b"x" * 599, KEY)
@example(b"x" * 600, KEY)
@example(b"x" * 601, KEY)
@example(b"\0" * 1000, b"\0\0\0\0")
@properties
def test_masking_is_a_repeated_xor_and_undoes_itself(data, key):
    assert frames.mask is not frames.slow_mask, "the test extra brings the C function"
    for mask in (frames.mask, frames.slow_mask):
        for given_as in (bytes, memoryview):
            masked = mask(given_as(data), key)
            assert masked == xor(data, key)
            assert isinstance(masked, (bytes, bytearray))
        assert mask(masked, key) == data


@pytest.mark.parametrize("is_client", [True, False])
def test_frames_are_the_same_without_the_c_function(is_client, monkeypatch):
    monkeypatch.setattr(frames, "mask", frames.slow_mask)
    for size in (0, 1, 125, 126, 700, 65535, 65536, 1_000_000):
        text = os.urandom(size).hex()[:size]
        assert Inbound(not is_client, 2_000_000).feed(Framing(is_client).text(text.encode())) == [text]


@pytest.mark.parametrize("code", [1005, 1006])
def test_a_code_that_never_travels_makes_an_empty_close_frame(code):
    assert frames.close_payload(code, "reason") == b""


@given(st.integers(1000, 4999).filter(lambda code: code not in (1005, 1006)), st.text(max_size=200))
@properties
def test_a_close_reason_is_cut_to_fit_and_stays_whole_characters(code, reason):
    payload = frames.close_payload(code, reason)
    assert len(payload) <= 125
    assert payload[:2] == struct.pack("!H", code)
    assert reason.startswith(payload[2:].decode())
    assert len(payload) > 121 or payload[2:].decode() == reason


def test_a_close_reason_with_a_lone_surrogate_can_be_sent():
    assert frames.close_payload(1000, "file \udcff")[2:].decode() == "file ?"
