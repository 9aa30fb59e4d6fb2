"""A WebSocket after its handshake, over a stream in memory: what it takes, what it writes, how it ends.

The test is the peer. What the channel writes is read by a wsproto connection of the other role; what it reads is put into the
stream by hand. A stream does as it is told: it takes a part of a write, none of it, or fails.
"""

import queue
import struct
import threading
import time
from collections import deque

import pytest
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from oompa.wire import channel as module
from oompa.wire import outbox
from oompa.wire.channel import Channel
from oompa.wire.closing import ChannelClosed
from oompa.wire.heartbeat import Silence

CEILING = 10.0  # seconds until a wait counts as failed

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
FIN, MASKED = 0x80, 0x80
KEY = b"\x0a\x0b\x0c\x0d"
BLOCKED = BlockingIOError(11, "not now")
WRITE_TIMEOUT, CLOSE_TIMEOUT = 7.0, 2.0


class FakeStream:
    """A connected socket in memory.

    Attributes:
        incoming: What ``recv`` gives: bytes, ``b""`` for the end, or an exception.
        written: Every byte that ``send`` took.
        takes: What the next sends do: take so many bytes at most, or raise. Then all is taken, if ``is_full`` is not set.
        is_full: No room in the kernel until the peer reads.
        passed: Seconds that were waited for in vain; the clock goes on by so many.
        on_wait: Called when a wait was in vain.
        calls: What was done to the stream, in order.
    """

    def __init__(self):
        self.incoming = queue.Queue()
        self.written = bytearray()
        self.takes = deque()
        self.is_full = False
        self.is_standing_still = False
        self.passed = 0.0
        self.on_wait = lambda: None
        self.is_shut = False
        self.is_closed = False
        self.is_reading = False
        self.tick = None
        self.sends = 0
        self.calls = []
        self.waits = queue.Queue()  # the timeouts of wait_writable
        self._wakes = threading.Semaphore(0)

    def set_tick(self, tick):
        self.tick = tick

    def hurry(self):
        self.calls.append("hurry")

    def calm(self):
        self.calls.append("calm")

    def recv(self, size):
        assert not self.is_closed
        if self.is_shut:
            return b""
        try:
            item = self.incoming.get(timeout=CEILING) if self.tick is None else self.incoming.get_nowait()
        except queue.Empty:
            assert self.tick is not None, "nobody woke the reader"
            raise BLOCKED from None
        if isinstance(item, BaseException):
            raise item
        assert len(item) <= size
        return item

    def send(self, data):
        assert not self.is_closed
        self.sends += 1
        if self.is_shut:
            raise BrokenPipeError(32, "Broken pipe")
        take = len(data)
        if self.takes:
            take = self.takes.popleft()
            if isinstance(take, BaseException):
                raise take
            take = min(take, len(data))
        elif self.is_full:
            raise BLOCKED
        self.written += data[:take]
        return take

    def has_unread(self):
        return not self.incoming.empty()

    def wait_readable(self, timeout):
        self.calls.append("wait_readable")
        return not self.incoming.empty()

    def wait_writable(self, timeout):
        self.waits.put(timeout)
        if self.is_standing_still:
            self.passed += timeout
            self.on_wait()
            return False
        if self.is_full and not self.is_shut:
            assert self._wakes.acquire(timeout=CEILING), "the peer never read"
        return True

    def end_writing(self):
        self.calls.append("end_writing")

    def shutdown(self):
        self.calls.append("shutdown")
        self.is_shut = True
        self._wakes.release()
        self.incoming.put(b"")

    def close(self):
        self.calls.append("close")
        self.is_closed = True

    # The peer.

    def reads_again(self):
        """The peer reads: there is room in the kernel."""
        self.is_full = False
        self._wakes.release()

    def reads_a_little(self, *takes):
        """The peer reads: there is room for what the next sends take, and no more."""
        self.takes.extend(takes)
        self._wakes.release()

    def await_standstill(self):
        """Return when somebody waits for the peer to read."""
        return self.waits.get(timeout=CEILING)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock.monotonic)
    return clock


@pytest.fixture(params=[True, False], ids=["client", "server"])
def is_client(request):
    """Whether the channel is the client's end."""
    return request.param


@pytest.fixture
def stream(monkeypatch):
    stream = FakeStream()
    for each in (module, outbox):
        monkeypatch.setattr(each, "monotonic", lambda: time.monotonic() + stream.passed)
    return stream


@pytest.fixture
def open_channel(stream, is_client):
    """Make a channel on the stream: ``open_channel(**options)``; detached after the test."""
    channels = []

    def open_channel(**options):
        settings = {
            "is_client": is_client,
            "max_message_size": 1000,
            "ping_interval": 25.0,
            "write_timeout": WRITE_TIMEOUT,
            "close_timeout": CLOSE_TIMEOUT,
        }
        channel = Channel(stream, **{**settings, **options})
        channels.append(channel)
        return channel

    yield open_channel
    stream.reads_again()
    for channel in channels:
        in_time(channel.detach)


@pytest.fixture
def channel(open_channel):
    return open_channel()


@pytest.fixture
def peer(stream, is_client):
    return Peer(stream, is_client)


class Peer:
    """The other end of the channel's stream."""

    def __init__(self, stream, is_client):
        self._stream = stream
        self._masks = not is_client
        self._reader = Connection(ConnectionType.SERVER if is_client else ConnectionType.CLIENT)
        self._read = 0

    def frame(self, opcode, payload=b"", first=FIN):
        size = len(payload)
        bit = MASKED if self._masks else 0
        head = bytes([first | opcode, bit | size]) if size < 126 else struct.pack("!BBH", first | opcode, bit | 126, size)
        if not self._masks:
            return head + payload
        return head + KEY + bytes(byte ^ KEY[index % 4] for index, byte in enumerate(payload))

    def close_frame(self, code=None, reason=""):
        return self.frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason.encode())

    def sends(self, *frames):
        """Bytes that come in one read."""
        self._stream.incoming.put(b"".join(frames))

    def says(self, text):
        self.sends(self.frame(TEXT, text.encode()))

    def ends(self):
        self._stream.incoming.put(b"")

    def hears(self):
        """What came since the last time: tuples of a kind and what it holds. A frame that is cut off is no event yet."""
        data = bytes(self._stream.written[self._read :])
        self._read += len(data)
        assert not (data and self._reader.state is not ConnectionState.OPEN), "something follows a close frame"
        self._reader.receive_data(data)
        events = [self._tell(event) for event in self._reader.events()]
        if events and events[-1][0] == "close":
            self._check_end(data, *events[-1][1:])
        return events

    def _check_end(self, data, code, reason):
        """The close frame is the last: wsproto would not notice what follows."""
        size = 0 if code == 1005 else 2 + len(reason.encode())
        last = data[-2 - size - (0 if self._masks else 4) :]
        assert (last[0], last[1] & 0x7F) == (FIN | CLOSE, size), "something follows a close frame"

    def _tell(self, event):
        if isinstance(event, (TextMessage, BytesMessage)):
            assert event.message_finished, "a message in pieces"
            return ("text" if isinstance(event, TextMessage) else "binary", event.data)
        if isinstance(event, (Ping, Pong)):
            return (type(event).__name__.lower(), bytes(event.payload))
        assert isinstance(event, CloseConnection)
        assert self._reader.state is not ConnectionState.OPEN, f"not a good frame: {event}"
        return ("close", int(event.code), event.reason or "")


def in_time(function, *args):
    """What a call returns or raises, which must not take for ever."""
    outcome = queue.Queue()

    def run():
        try:
            outcome.put((True, function(*args)))
        except BaseException as error:
            outcome.put((False, error))

    threading.Thread(target=run, name="in time", daemon=True).start()
    is_good, value = outcome.get(timeout=CEILING)
    if not is_good:
        raise value
    return value


def started(function, *args):
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread


def wait_until(condition):
    deadline, pause = time.monotonic() + CEILING, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        pause.wait(0.001)


def writers():
    return [thread for thread in threading.enumerate() if thread.name == "oompa-writer"]


def await_writer_end():
    """Return when what was left to a thread has been written."""
    for thread in writers():
        thread.join(CEILING)
        assert not thread.is_alive()


def ended(channel):
    """How the channel has ended."""
    with pytest.raises(ChannelClosed) as closed:
        in_time(channel.receive)
    return closed.value


# Receiving.


def test_messages_are_received_in_order(channel, peer):
    peer.says("first")
    peer.sends(peer.frame(TEXT, b"second"), peer.frame(BINARY, b"\xff"), peer.frame(TEXT, "drüben".encode()))
    assert channel.receive() == ["first"]
    assert channel.receive() == ["second", b"\xff", "drüben"]


def test_a_message_that_comes_in_pieces_is_received_with_the_last(channel, peer):
    data = peer.frame(TEXT, b"hello")
    for byte in data:
        peer.sends(bytes([byte]))
    assert [channel.receive() for _ in data] == [[]] * (len(data) - 1) + [["hello"]]


def test_what_came_along_with_the_handshake_comes_first(open_channel, peer, stream):
    channel = open_channel(received=peer.frame(TEXT, b"early") + peer.frame(TEXT, b"half")[:3])
    stream.tick = 1.0
    assert channel.receive(timeout=5.0) == ["early"]
    peer.sends(peer.frame(TEXT, b"half")[3:])
    assert channel.receive() == ["half"]
    assert channel.receive() == []


def test_a_tick_of_silence_returns_nothing(channel, stream, peer):
    channel.set_tick(0.02)
    assert stream.tick == 0.02
    assert channel.receive() == []
    peer.says("hello")
    assert channel.receive() == ["hello"]
    channel.set_tick(None)
    assert stream.tick is None


def test_a_timeout_is_waited_for_instead_of_the_tick(channel, stream, peer):
    assert channel.receive(timeout=3.0) == []
    peer.says("hello")
    assert channel.receive(timeout=3.0) == ["hello"]
    assert stream.calls == ["wait_readable", "wait_readable"]


def test_the_end_without_a_close_frame_has_the_code_1006(channel, peer, stream):
    peer.says("last words")
    peer.ends()
    assert channel.receive() == ["last words"]
    closed = ended(channel)
    assert closed.code == 1006
    assert "without closing" in closed.reason
    assert stream.is_shut
    assert not channel.is_open


@pytest.mark.parametrize("fault", [ConnectionResetError(104, "reset"), OSError(9, "Bad"), ValueError("bad fd")], ids=repr)
def test_a_fault_while_reading_ends_the_channel_with_1006(channel, stream, fault):
    stream.incoming.put(fault)
    closed = ended(channel)
    assert (closed.code, closed.reason) == (1006, str(fault))
    assert stream.is_shut


def test_a_channel_that_has_ended_says_so_each_time(channel, peer):
    peer.sends(peer.close_frame(4000, "enough"))
    channel.receive()
    for _ in range(3):
        closed = ended(channel)
        assert (closed.code, closed.reason) == (4000, "enough")


def test_how_a_channel_ended_reads_as_code_and_reason():
    assert str(ChannelClosed(1008, "not you")) == "1008 not you"
    assert str(ChannelClosed(1005)) == "1005"


def test_bytes_are_a_sign_of_life_and_silence_is_none(open_channel, peer, stream, clock):
    channel = open_channel()
    stream.tick = 1.0
    assert channel.heard_at == 1000.0
    clock.now = 1001.0
    channel.receive()
    assert channel.heard_at == 1000.0
    peer.sends(peer.frame(TEXT, b"hello")[:1])
    channel.receive()
    assert channel.heard_at == 1001.0


def test_a_channel_is_idle_until_bytes_have_left_the_socket(channel, peer, stream):
    assert channel.is_idle
    stream.tick = 1.0
    channel.receive()
    assert channel.is_idle
    peer.says("hello")
    channel.receive()
    assert not channel.is_idle
    channel.receive()
    assert channel.is_idle


def test_an_interrupted_reader_leaves_the_channel_idle_and_usable(channel, peer, stream):
    stream.incoming.put(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        channel.receive()
    assert channel.is_idle
    peer.says("hello")
    assert channel.receive() == ["hello"]


# Sending.


@pytest.mark.parametrize("way", ["send", "post"])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 200_000])
def test_a_text_is_sent_as_one_frame(channel, peer, way, size):
    getattr(channel, way)(b"x" * size)
    assert b"".join(data.encode() for _, data in peer.hears()) == b"x" * size
    assert writers() == []


def test_texts_are_sent_in_order(channel, peer):
    for number in range(10):
        (channel.send if number % 2 else channel.post)(b"%d" % number)
    assert peer.hears() == [("text", str(number)) for number in range(10)]


def test_a_client_masks_and_a_server_does_not(channel, stream, is_client):
    channel.send(b"hello")
    assert bool(stream.written[1] & MASKED) == is_client


def test_a_send_in_parts_is_whole_in_the_end(channel, stream, peer):
    stream.takes.extend([1, 2, BLOCKED, 3, 5, 8])
    channel.send(b"hello " * 10)
    assert peer.hears() == [("text", "hello " * 10)]
    assert stream.waits.qsize() == 6
    assert {stream.await_standstill() for _ in range(6)} == {WRITE_TIMEOUT}


def test_a_send_waits_while_the_kernel_is_full(channel, stream, peer):
    stream.is_full = True
    sending = started(channel.send, b"hello")
    stream.await_standstill()
    assert peer.hears() == []
    assert sending.is_alive()
    stream.reads_again()
    sending.join(CEILING)
    assert peer.hears() == [("text", "hello")]


@pytest.mark.parametrize("takes", [[], [3]], ids=["nothing written", "half a frame written"])
def test_a_send_that_stands_still_for_write_timeout_ends_the_channel(channel, stream, peer, takes):
    stream.takes.extend(takes)
    stream.is_full = stream.is_standing_still = True
    with pytest.raises(ChannelClosed, match="1006 a write stood still for 7.0 s"):
        channel.send(b"hello")
    assert stream.is_shut
    assert len(stream.written) == sum(takes)
    closed = ended(channel)
    assert (closed.code, closed.reason) == (1006, "a write stood still for 7.0 s")


def hears_a_sign(channel, stream, peer, times):
    """Stand still, but for so many signs of life; the peer reads on behind the last."""
    left = list(range(times))

    def sign():
        peer.sends(peer.frame(PONG))
        assert channel.receive() == []
        left.pop()
        if not left:
            stream.is_standing_still = False
            stream.reads_again()

    stream.is_full = stream.is_standing_still = True
    stream.on_wait = sign


def test_a_clients_write_may_stand_still_while_the_server_says_that_it_lives(channel, stream, peer, is_client):
    hears_a_sign(channel, stream, peer, times=20)
    if is_client:
        channel.send(b"hello")
        assert peer.hears() == [("text", "hello")]
        assert stream.passed > 10 * WRITE_TIMEOUT
    else:  # a client that only talks and never reads would hold threads for ever
        with pytest.raises(ChannelClosed, match="a write stood still for 7.0 s"):
            channel.send(b"hello")


def test_a_write_that_stands_still_is_no_sign_of_life(channel, stream):
    """What keeps pings back while a write is under way is not what the write itself waits for."""
    stream.is_full = stream.is_standing_still = True
    stream.on_wait = lambda: channel.check(time.monotonic() + stream.passed)
    with pytest.raises(ChannelClosed, match="a write stood still for 7.0 s"):
        channel.send(b"hello")


RESET = ConnectionResetError(104, "Connection reset by peer")


def nothing_more_is_written(channel, stream):
    """Neither a message, a pong, a ping nor a close frame comes after a fault, and nobody waits for ever."""
    before = bytes(stream.written)
    stream.is_full = stream.is_shut = stream.is_standing_still = False  # whatever came now would be written
    for way in (channel.send, channel.post):
        with pytest.raises(ChannelClosed):
            in_time(way, b"more")
    in_time(channel.check, 1e9)
    in_time(channel.close)
    in_time(channel.abort, "again")
    in_time(channel.detach)
    await_writer_end()
    return bytes(stream.written) == before


@pytest.mark.parametrize("takes", [[RESET], [3, RESET], [3, BLOCKED, RESET]], ids=["at once", "mid-frame", "after a wait"])
def test_after_a_send_failed_nothing_more_is_written(channel, stream, takes):
    stream.takes.extend(takes)
    with pytest.raises(ChannelClosed, match="Connection reset by peer") as closed:
        channel.send(b"hello")
    assert closed.value.code == 1006
    assert not channel.is_open
    assert stream.is_shut
    assert nothing_more_is_written(channel, stream)


@pytest.mark.parametrize("takes", [[RESET], [3, RESET]], ids=["at once", "mid-frame"])
def test_a_post_that_fails_ends_the_channel_and_the_receiver_learns_why(channel, stream, takes):
    stream.takes.extend(takes)
    channel.post(b"hello")
    await_writer_end()
    assert not channel.is_open
    assert ended(channel).reason == str(RESET)
    assert nothing_more_is_written(channel, stream)


def test_a_fault_while_others_wait_to_be_written_leaves_no_thread_behind(channel, stream):
    stream.takes.append(3)
    stream.is_full = True
    channel.post(b"first")
    stream.await_standstill()
    for _ in range(10):
        channel.post(b"waits")
    stream.reads_a_little(RESET)
    await_writer_end()
    assert ended(channel).reason == str(RESET)
    assert nothing_more_is_written(channel, stream)


def test_a_write_that_stands_still_while_others_wait_leaves_no_thread_behind(channel, stream):
    stream.takes.append(3)
    stream.is_full = True
    channel.post(b"first")
    stream.await_standstill()
    for _ in range(10):
        channel.post(b"waits")
    stream.is_standing_still = True
    stream.reads_a_little(1)
    await_writer_end()
    assert ended(channel).reason == "a write stood still for 7.0 s"
    assert nothing_more_is_written(channel, stream)


def test_a_post_does_not_wait_for_a_peer_that_does_not_read(channel, stream, peer):
    stream.takes.extend([4])
    stream.is_full = True
    for number in range(5):
        channel.post(b"message %d" % number)
    stream.await_standstill()
    assert len(writers()) == 1
    assert writers()[0].daemon
    stream.reads_again()
    await_writer_end()
    assert peer.hears() == [("text", f"message {number}") for number in range(5)]
    assert writers() == []


def test_messages_that_wait_are_written_together(channel, stream, peer):
    stream.is_full = True
    for number in range(1000):
        channel.post(b"%d" % number)
    stream.await_standstill()
    before = stream.sends
    stream.reads_again()
    await_writer_end()
    assert peer.hears() == [("text", str(number)) for number in range(1000)]
    assert stream.sends - before < 10


def test_messages_that_wait_are_not_all_joined_into_one_write(channel, stream, peer):
    largest = 0
    take_all = stream.send

    def send(data):
        nonlocal largest
        largest = max(largest, len(data))
        return take_all(data)

    stream.send = send
    stream.is_full = True
    for number in range(100):
        channel.post(b"x" * 10_000)
    stream.reads_again()
    await_writer_end()
    assert len(peer.hears()) == 100
    assert largest < 100_000


def test_a_send_behind_a_slow_post_waits_for_its_own_message(channel, stream, peer):
    stream.is_full = True
    channel.post(b"first")
    stream.await_standstill()
    sending = started(channel.send, b"second")
    sending.join(0.05)
    assert sending.is_alive() and peer.hears() == []
    stream.reads_again()
    sending.join(CEILING)
    assert not sending.is_alive()
    assert peer.hears() == [("text", "first"), ("text", "second")]


def test_without_a_thread_to_be_had_a_post_waits_itself(channel, stream, peer, monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    stream.takes.extend([2, BLOCKED, 3])
    channel.post(b"hello")
    monkeypatch.undo()
    assert peer.hears() == [("text", "hello")]
    channel.post(b"next")
    assert peer.hears() == [("text", "next")]


@pytest.mark.parametrize("way", ["send", "post"])
def test_frames_of_many_threads_are_never_mixed(channel, stream, peer, way):
    stream.takes.extend([5, BLOCKED, 1, 70, BLOCKED, 100, 3] * 100)

    def work(name):
        for number in range(50):
            getattr(channel, way)(b"%d %d " % (name, number) + b"x" * (number * 7))

    threads = [started(work, name) for name in range(8)]
    for thread in threads:
        thread.join(CEILING)
        assert not thread.is_alive()
    await_writer_end()
    heard = [data.split() for kind, data in peer.hears()]
    for name in range(8):
        own = [(int(words[1]), len("".join(words[2:]))) for words in heard if words[0] == str(name)]
        assert own == [(number, number * 7) for number in range(50)]
    assert len(heard) == 400


def test_an_interrupted_write_ends_the_channel_for_nobody_knows_how_much_was_written(channel, stream):
    stream.takes.extend([3, KeyboardInterrupt()])
    with pytest.raises(KeyboardInterrupt):
        channel.send(b"hello")
    assert not channel.is_open
    assert ended(channel).reason == "interrupted while writing"
    assert nothing_more_is_written(channel, stream)


def test_an_interrupted_post_lets_go_of_the_lock(channel, stream):
    stream.takes.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        channel.post(b"hello")
    assert ended(channel).reason == "interrupted while writing"
    assert nothing_more_is_written(channel, stream)


class LockThatLetsGoSlowly:
    """A lock in whose release something else happens first, while others find it taken still."""

    def __init__(self, meanwhile):
        self._lock = threading.Lock()
        self._meanwhile = [meanwhile]

    def acquire(self, blocking=True, timeout=-1):
        return self._lock.acquire(blocking, timeout)

    def release(self):
        if self._meanwhile:
            self._meanwhile.pop()()
        self._lock.release()

    def __enter__(self):
        self.acquire()

    def __exit__(self, *exc_info):
        self.release()


@pytest.mark.parametrize("way", ["send", "post"])
def test_what_others_leave_to_a_writer_that_is_just_letting_go_is_written(channel, peer, way):
    """Nothing lies in the outbox until somebody happens to write again: a close frame would miss its time."""
    channel._outbox._writing = LockThatLetsGoSlowly(meanwhile=lambda: channel.close(1000))
    getattr(channel, way)(b"hello")
    await_writer_end()
    assert peer.hears() == [("text", "hello"), ("close", 1000, "")]


def test_what_others_leave_to_a_writers_thread_that_is_just_letting_go_is_written(channel, stream, peer):
    channel._outbox._writing = LockThatLetsGoSlowly(meanwhile=lambda: channel.close(1000))
    stream.takes.extend([2, BLOCKED])
    channel.post(b"hello")
    await_writer_end()
    assert peer.hears() == [("text", "hello"), ("close", 1000, "")]


def test_what_is_posted_while_another_thread_sends_is_written(channel, stream, peer):
    send, posts = stream.send, [b"posted"]

    def send_slowly(data):
        if posts:
            posting = started(channel.post, posts.pop())
            posting.join(CEILING)
        return send(data)

    stream.send = send_slowly
    channel.send(b"sent")
    assert peer.hears() == [("text", "sent"), ("text", "posted")]


def test_an_interruption_while_bytes_leave_a_stream_that_takes_steps_to_read_is_no_idleness(channel, stream):
    stream.is_reading = True
    assert not channel.is_idle


class SlowLock:
    """A lock for which somebody waits until something else has happened."""

    def __init__(self, meanwhile):
        self._lock = threading.Lock()
        self._meanwhile = [meanwhile]

    def acquire(self, blocking=True, timeout=-1):
        if blocking and self._meanwhile:
            self._meanwhile.pop()()
        return self._lock.acquire(blocking, timeout)

    def release(self):
        self._lock.release()

    def __enter__(self):
        self.acquire()

    def __exit__(self, *exc_info):
        self.release()


def test_a_send_that_comes_too_late_for_its_message_to_be_sent_says_so(channel, peer):
    """Otherwise a reply counts as sent which nobody will ever get."""
    channel._outbox._writing = SlowLock(meanwhile=lambda: channel.close(1000))
    with pytest.raises(ChannelClosed):
        channel.send(b"too late")
    assert peer.hears() == [("close", 1000, "")]


class Waiting:
    """Who waits for the answer to a message."""

    is_settled = False


def test_a_message_whose_answer_somebody_waits_for_is_sent(channel, peer):
    channel.post(b"hello", Waiting())
    assert peer.hears() == [("text", "hello")]


def test_a_message_in_the_outbox_whose_answer_nobody_waits_for_any_more_is_dropped(channel, stream, peer):
    stream.is_full = True
    channel.post(b"first")
    stream.await_standstill()
    waiting = [Waiting() for _ in range(5)]
    for number, each in enumerate(waiting):
        channel.post(b"%d" % number, each)
    waiting[0].is_settled = waiting[2].is_settled = waiting[4].is_settled = True
    stream.reads_again()
    await_writer_end()
    assert peer.hears() == [("text", "first"), ("text", "1"), ("text", "3")]


def test_an_outbox_of_which_all_is_dropped_holds_nothing_up(channel, stream, peer):
    stream.is_full = True
    channel.post(b"first")
    stream.await_standstill()
    waiting = Waiting()
    for _ in range(3):
        channel.post(b"dropped", waiting)
    waiting.is_settled = True
    channel.close(1000)
    stream.reads_again()
    await_writer_end()
    assert peer.hears() == [("text", "first"), ("close", 1000, "")]


def test_a_message_that_is_half_written_is_finished_though_nobody_waits_for_its_answer(channel, stream, peer):
    stream.takes.append(3)
    stream.is_full = True
    waiting = Waiting()
    channel.post(b"hello", waiting)
    stream.await_standstill()
    waiting.is_settled = True
    stream.reads_again()
    await_writer_end()
    assert peer.hears() == [("text", "hello")]


def test_a_channel_is_stalled_while_the_peer_has_yet_to_take_what_was_written(channel, stream):
    assert not channel.is_stalled
    stream.takes.append(3)
    stream.is_full = True
    channel.post(b"hello")
    stream.await_standstill()
    assert channel.is_stalled
    stream.reads_again()
    await_writer_end()
    assert not channel.is_stalled


# Closing.


def test_closing_sends_a_close_frame_and_waits_for_the_peers(channel, peer, stream):
    channel.close(4001, "shift is over")
    assert peer.hears() == [("close", 4001, "shift is over")]
    assert not channel.is_open
    assert not stream.is_shut
    peer.sends(peer.close_frame(4001))
    assert channel.receive() == []
    assert ended(channel).code == 4001
    assert stream.is_shut
    assert peer.hears() == []


def test_closing_has_the_code_1000_by_default(channel, peer):
    channel.close()
    assert peer.hears() == [("close", 1000, "")]


def test_closing_again_sends_nothing_again(channel, peer):
    channel.close(1001)
    channel.close(1000)
    assert peer.hears() == [("close", 1001, "")]


def test_closing_again_changes_nothing_though_the_peer_has_yet_to_take_the_close_frame(channel, stream, peer):
    stream.is_full = True
    channel.post(b"hello")
    stream.await_standstill()
    channel.close(1001, "first")
    channel.close(1000, "second")
    stream.reads_again()
    await_writer_end()
    assert peer.hears() == [("text", "hello"), ("close", 1001, "first")]


def test_a_closing_channel_sends_no_more_messages(channel, peer):
    channel.close()
    for way in (channel.send, channel.post):
        with pytest.raises(ChannelClosed):
            way(b"too late")
    assert peer.hears() == [("close", 1000, "")]


def test_a_closing_channel_still_receives(channel, peer):
    channel.close()
    peer.says("on its way")
    assert channel.receive() == ["on its way"]
    peer.sends(peer.frame(TEXT, b"last"), peer.close_frame(1000))
    assert channel.receive() == ["last"]
    assert ended(channel).code == 1000


def test_a_closing_channel_sends_no_ping(channel, peer):
    channel.close()
    peer.hears()
    channel.check(now=1e9)
    assert peer.hears() == []


def test_a_closing_channel_answers_no_ping_for_nothing_follows_the_close_frame(channel, peer):
    channel.close()
    peer.hears()
    peer.sends(peer.frame(PING, b"?"))
    channel.receive()
    assert peer.hears() == []


class OutboxThatIsLate(deque):
    """An outbox into which another thread's close comes just before a message does."""

    def __init__(self, close):
        super().__init__()
        self._close = close

    def append(self, item):
        close, self._close = self._close, lambda: None
        close()
        super().append(item)


class LockThatIsLate:
    """A lock that another thread's close gets hold of just before."""

    def __init__(self, close):
        self._close = close
        self._lock = threading.Lock()
        self.release = self._lock.release

    def acquire(self, *args, **kwargs):
        close, self._close = self._close, lambda: None
        close()
        return self._lock.acquire(*args, **kwargs)


def test_a_post_that_comes_too_late_finds_the_channel_closed(channel, peer):
    channel._outbox._writing = LockThatIsLate(channel.close)
    with pytest.raises(ChannelClosed):
        channel.post(b"too late")
    assert peer.hears() == [("close", 1000, "")]


def test_a_post_that_comes_too_late_is_not_written_after_the_close_frame(channel, peer):
    channel._outbox._control_due = True  # so that it goes by the outbox
    channel._outbox._texts = OutboxThatIsLate(channel.close)
    channel.post(b"too late")
    assert peer.hears() == [("close", 1000, "")]
    assert len(channel._outbox._texts) == 0


def test_what_waits_to_be_written_is_written_before_the_close_frame(channel, stream, peer):
    stream.takes.append(2)
    stream.is_full = True
    channel.post(b"first")
    channel.post(b"second")
    channel.close(1000)
    stream.reads_again()
    await_writer_end()
    assert peer.hears() == [("text", "first"), ("text", "second"), ("close", 1000, "")]


def test_closing_does_not_wait_for_a_peer_that_does_not_read(channel, stream, peer):
    stream.is_full = True
    in_time(channel.close)
    stream.await_standstill()
    stream.reads_again()
    await_writer_end()
    assert peer.hears() == [("close", 1000, "")]


def test_a_long_reason_is_cut(channel, peer):
    channel.close(1000, "é" * 200)
    ((_, _, reason),) = peer.hears()
    assert reason == "é" * 61


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1008, 1009, 1011, 1012, 4000, 4999])
def test_a_close_frame_of_the_peer_is_echoed_with_its_code(channel, peer, stream, code):
    peer.sends(peer.close_frame(code, "why not"))
    assert channel.receive() == []
    assert peer.hears() == [("close", code, "")]
    closed = ended(channel)
    assert (closed.code, closed.reason) == (code, "why not")
    assert not channel.is_open
    assert stream.is_shut


def test_a_close_frame_without_a_code_is_echoed_without_one_and_counts_as_1005(channel, peer, stream):
    peer.sends(peer.close_frame())
    channel.receive()
    assert peer.hears() == [("close", 1005, "")]  # which is how wsproto reads an empty one
    assert len(stream.written) in (2, 6)
    assert ended(channel).code == 1005


def test_what_came_before_a_close_frame_is_received_first(channel, peer):
    peer.sends(peer.frame(TEXT, b"one"), peer.frame(TEXT, b"two"), peer.close_frame(1000), peer.frame(TEXT, b"never"))
    assert channel.receive() == ["one", "two"]
    assert ended(channel).code == 1000


def test_a_channel_that_the_peer_has_closed_sends_no_more_messages(channel, peer):
    peer.sends(peer.close_frame(1001, "bye"))
    channel.receive()
    peer.hears()
    for way in (channel.send, channel.post):
        with pytest.raises(ChannelClosed) as closed:
            way(b"too late")
        assert closed.value.code == 1001
    channel.close(1000)
    assert peer.hears() == []


def test_both_may_close_at_the_same_time(channel, peer):
    channel.close(1000)
    peer.sends(peer.close_frame(1001, "me first"))
    channel.receive()
    assert peer.hears() == [("close", 1000, "")]
    assert ended(channel).code == 1001


def test_a_peer_that_closes_while_a_message_is_written_gets_it_and_the_answer(channel, stream, peer):
    stream.takes.append(2)
    stream.is_full = True
    channel.post(b"hello")
    stream.await_standstill()
    peer.sends(peer.close_frame(1000))
    receiving = started(channel.receive)
    wait_until(lambda: not channel.is_open)
    stream.reads_again()
    receiving.join(CEILING)
    assert not receiving.is_alive()
    await_writer_end()
    assert peer.hears() == [("text", "hello"), ("close", 1000, "")]
    assert ended(channel).code == 1000


def test_a_peer_that_closes_and_reads_no_more_holds_the_channel_up_for_close_timeout_at_most(open_channel, stream, peer):
    channel = open_channel(close_timeout=0.01)
    stream.takes.append(2)
    stream.is_full = True
    channel.post(b"hello")
    stream.await_standstill()
    peer.sends(peer.close_frame(1000))
    in_time(channel.receive)
    assert stream.is_shut
    assert ended(channel).code == 1000
    await_writer_end()


# Faults of the peer.


def faults(peer):
    return {
        "reserved bit": (peer.frame(TEXT, b"x", first=FIN | 0x40), 1002),
        "unknown opcode": (peer.frame(3, b"x"), 1002),
        "bad close code": (peer.close_frame(1005), 1002),
        "bad UTF-8": (peer.frame(TEXT, b"\xff"), 1007),
        "too large": (peer.frame(TEXT, b"x" * 1001), 1009),
        "too large in fragments": (peer.frame(TEXT, b"x" * 600, first=0) + peer.frame(0, b"x" * 600, first=0), 1009),
    }


NAMES = ["reserved bit", "unknown opcode", "bad close code", "bad UTF-8", "too large", "too large in fragments"]


@pytest.mark.parametrize("name", NAMES)
def test_a_fault_of_the_peer_is_answered_with_its_close_code_and_ends_the_channel(channel, peer, stream, name):
    data, code = faults(peer)[name]
    peer.sends(peer.frame(TEXT, b"before"), data, peer.frame(TEXT, b"after"))
    peer.ends()
    assert channel.receive() == ["before"]  # which may still be answered
    assert channel.is_open and peer.hears() == []
    closed = ended(channel)
    ((kind, sent, reason),) = peer.hears()
    assert (kind, sent) == ("close", code)
    assert reason
    assert (closed.code, closed.reason) == (code, reason)
    assert not channel.is_open
    assert stream.is_shut


def test_a_message_of_exactly_the_maximum_size_is_received(channel, peer):
    peer.says("x" * 1000)
    assert channel.receive() == ["x" * 1000]


def test_the_maximum_size_is_named_to_the_peer(channel, peer):
    peer.says("x" * 1001)
    peer.ends()
    channel.receive()
    assert peer.hears() == [("close", 1009, "message exceeds max_message_size of 1000 bytes")]


def test_a_fault_after_closing_sends_no_second_close_frame(channel, peer):
    channel.close(1000)
    peer.sends(peer.frame(3, b"x"))
    peer.ends()
    channel.receive()
    assert peer.hears() == [("close", 1000, "")]
    assert ended(channel).code == 1002


@pytest.fixture
def faulty(peer):
    """A peer that has broken the protocol."""
    peer.sends(peer.frame(3, b"x"))
    return peer


@pytest.mark.parametrize("is_client", [False], indirect=True)
def test_a_server_reads_on_after_a_fault_so_that_the_close_frame_is_not_lost(channel, faulty, stream):
    for _ in range(5):
        faulty.says("more of it")
    faulty.ends()
    channel.receive()
    assert stream.calls[0] == "end_writing"
    assert stream.calls[-1] == "shutdown"
    assert stream.calls.count("wait_readable") == 6


@pytest.mark.parametrize("is_client", [True], indirect=True)
def test_a_client_does_not_read_on_after_a_fault(channel, faulty, stream):
    faulty.says("more of it")
    channel.receive()
    assert stream.calls == ["shutdown"]


@pytest.mark.parametrize("is_client", [False], indirect=True)
def test_a_peer_that_falls_silent_after_a_fault_is_given_up(channel, faulty, stream):
    channel.receive()
    assert stream.calls == ["end_writing", "wait_readable", "shutdown"]
    assert ended(channel).code == 1002


@pytest.mark.parametrize("is_client", [False], indirect=True)
def test_a_peer_that_resets_after_a_fault_is_given_up(channel, faulty, stream):
    stream.incoming.put(RESET)
    channel.receive()
    assert ended(channel).code == 1002


@pytest.mark.parametrize("is_client", [False], indirect=True)
def test_a_peer_that_goes_on_for_ever_after_a_fault_is_given_up_after_close_timeout(open_channel, faulty, stream, clock):
    channel = open_channel()
    waits = []

    def wait_readable(timeout):
        waits.append(timeout)
        clock.now += 0.5
        faulty.says("more of it")
        return True

    stream.wait_readable = wait_readable
    in_time(channel.receive)
    assert waits == [2.0, 1.5, 1.0, 0.5]
    assert stream.is_shut


# Aborting, detaching, releasing.


def test_aborting_ends_the_connection_without_a_close_frame(channel, stream, peer):
    channel.abort("no more")
    assert stream.is_shut
    assert not channel.is_open
    closed = ended(channel)
    assert (closed.code, closed.reason) == (1006, "no more")
    assert nothing_more_is_written(channel, stream)
    assert stream.written == b""


def test_aborting_wakes_a_reader(channel, stream):
    outcome = queue.Queue()

    def receive():
        try:
            channel.receive()
        except ChannelClosed as closed:
            outcome.put(closed)

    started(receive)
    channel.abort("no more")
    assert outcome.get(timeout=CEILING).reason == "no more"


def test_aborting_again_keeps_the_first_reason(channel):
    channel.abort("first")
    channel.abort("second")
    assert ended(channel).reason == "first"


def test_aborting_wakes_a_writer(channel, stream):
    stream.takes.append(2)
    stream.is_full = True
    channel.post(b"hello")
    stream.await_standstill()
    channel.abort("no more")
    await_writer_end()
    assert ended(channel).reason == "no more"


def test_a_send_on_an_aborted_channel_tells_the_reason(channel):
    channel.abort("no more")
    for way in (channel.send, channel.post):
        with pytest.raises(ChannelClosed, match="1006 no more"):
            way(b"hello")


def test_when_detach_returns_nobody_writes_any_more(channel, stream):
    stream.takes.append(2)
    stream.is_full = True
    channel.post(b"hello")
    stream.await_standstill()
    in_time(channel.detach)
    assert stream.is_shut
    assert not stream.is_closed
    assert channel._outbox._writing.acquire(timeout=CEILING)
    channel._outbox._writing.release()


def test_detach_does_not_wait_for_ever_for_a_writer_that_was_killed(open_channel):
    channel = open_channel(close_timeout=0.01)
    channel._outbox._writing.acquire()
    in_time(channel.detach)
    channel._outbox._writing.release()


def test_release_frees_the_descriptor_after_the_connection_has_ended(channel, stream):
    channel.release()
    assert stream.calls == ["shutdown", "close"]
    assert stream.is_closed


# Pings of the peer.


def test_a_ping_is_answered_with_its_payload(channel, peer):
    for payload in (b"", b"?", b"x" * 125):
        peer.sends(peer.frame(PING, payload))
        assert channel.receive() == []
        assert peer.hears() == [("pong", payload)]


def test_every_ping_of_a_peer_that_reads_is_answered(channel, peer):
    peer.sends(*[peer.frame(PING, b"%d" % number) for number in range(5)], peer.frame(TEXT, b"hello"))
    assert channel.receive() == ["hello"]
    assert peer.hears() == [("pong", b"%d" % number) for number in range(5)]


def test_a_pong_is_answered_with_nothing(channel, peer):
    peer.sends(peer.frame(PONG, b"unasked"))
    assert channel.receive() == []
    assert peer.hears() == []
    assert channel.is_open


def test_a_pong_does_not_come_into_the_middle_of_a_frame(channel, stream, peer):
    stream.takes.append(2)
    stream.is_full = True
    channel.post(b"hello")
    stream.await_standstill()
    peer.sends(peer.frame(PING, b"?"))
    assert in_time(channel.receive) == []
    stream.reads_again()
    await_writer_end()
    assert peer.hears() == [("text", "hello"), ("pong", b"?")]


def test_a_flood_of_pings_from_a_peer_that_does_not_read_takes_no_memory(channel, stream, peer):
    stream.takes.append(2)
    stream.is_full = True
    channel.post(b"hello")
    stream.await_standstill()
    for number in range(100):
        peer.sends(peer.frame(PING, b"%d" % number))
        in_time(channel.receive)
    assert len(channel._outbox._texts) == 0
    stream.reads_again()
    await_writer_end()
    assert peer.hears() == [("text", "hello"), *(("pong", b"%d" % number) for number in range(84, 100))]


def test_a_flood_of_pings_in_one_read_is_answered_in_one_write(channel, stream, peer):
    writes, send = [], stream.send
    stream.send = lambda data: writes.append(1) or send(data)
    peer.sends(*(peer.frame(PING, b"%d" % number) for number in range(100)))
    channel.receive()
    assert peer.hears() == [("pong", b"%d" % number) for number in range(84, 100)]
    assert len(writes) == 1


def test_pings_before_a_close_frame_are_answered_before_it(channel, peer):
    peer.sends(peer.frame(PING, b"?"), peer.close_frame(1000))
    channel.receive()
    assert peer.hears() == [("pong", b"?"), ("close", 1000, "")]


# Our own pings.


@pytest.fixture
def beating(open_channel, clock):
    """A channel that pings after 25 s of silence."""
    return open_channel(ping_interval=25.0)


def test_a_silent_peer_is_pinged_after_ping_interval(beating, peer):
    assert beating.check(now=1024.9) is Silence.WAIT
    assert peer.hears() == []
    assert beating.check(now=1025.0) is Silence.PING
    assert peer.hears() == [("ping", b"")]


def test_a_peer_that_answers_pings_stays(beating, peer, clock):
    for _ in range(5):
        clock.now += 25.0
        assert beating.check(clock.now) is Silence.PING
        assert peer.hears() == [("ping", b"")]
        clock.now += 1.0
        peer.sends(peer.frame(PONG, b""))
        beating.receive()
    assert beating.is_open


def test_a_peer_without_a_sign_of_life_by_the_next_ping_is_cut_off(beating, peer, stream):
    beating.check(now=1025.0)
    peer.hears()
    assert beating.check(now=1049.9) is Silence.WAIT
    assert beating.is_open
    assert beating.check(now=1050.0) is Silence.DEAD
    assert stream.is_shut
    assert peer.hears() == []
    closed = ended(beating)
    assert closed.code == 1006
    assert "ping_interval" in closed.reason


def test_bytes_that_nobody_has_read_are_a_sign_of_life_to_one_who_looks_after_the_channel(beating, peer):
    beating.look_after(now=1025.0)
    assert peer.hears() == [("ping", b"")]
    peer.sends(peer.frame(PONG, b""))
    beating.look_after(now=1050.0)
    assert beating.is_open
    assert beating.check_due() == 1075.0


def test_one_who_looks_after_the_channel_gives_up_a_peer_that_has_sent_nothing(beating, stream):
    beating.look_after(now=1025.0)
    beating.look_after(now=1049.9)
    assert beating.is_open
    beating.look_after(now=1050.0)
    assert stream.is_shut


def test_any_byte_is_a_sign_of_life(beating, peer, clock):
    beating.check(now=1025.0)
    clock.now = 1030.0
    peer.sends(peer.frame(TEXT, b"hello")[:1])
    beating.receive()
    assert beating.check(now=1054.9) is Silence.WAIT
    assert beating.is_open


def test_the_next_check_is_due_an_interval_after_the_last_byte_or_ping(beating, peer, clock):
    assert beating.check_due() == 1025.0
    beating.check(now=1025.0)
    assert beating.check_due() == 1050.0
    clock.now = 1030.0
    peer.says("hello")
    beating.receive()
    assert beating.check_due() == 1055.0


def test_without_ping_interval_nobody_is_pinged_or_cut_off(open_channel, peer, clock):
    channel = open_channel(ping_interval=None)
    assert channel.check(now=1e9) is Silence.WAIT
    assert channel.check_due() == float("inf")
    assert peer.hears() == []
    assert channel.is_open


def test_no_ping_is_queued_behind_a_message_that_is_being_written(beating, stream, peer):
    stream.takes.append(2)
    stream.is_full = True
    beating.post(b"hello")
    stream.await_standstill()
    beating.check(now=1025.0)
    stream.reads_again()
    await_writer_end()
    assert peer.hears() == [("text", "hello")]


def test_a_peer_that_takes_a_long_message_slowly_is_not_cut_off_for_a_ping_it_never_got(beating, stream, peer):
    """The write makes progress and has a timeout of its own; the ping that was not sent cannot be answered."""
    stream.takes.append(2)
    stream.is_full = True
    beating.post(b"hello")
    stream.await_standstill()
    for now in (1025.0, 1049.0):
        beating.check(now)
        stream.reads_a_little(1)
        stream.await_standstill()
    beating.check(now=1050.0)
    is_open = beating.is_open
    stream.reads_again()
    await_writer_end()
    assert is_open
    assert peer.hears() == [("text", "hello")]


def test_a_write_that_fails_while_pinging_ends_the_channel(beating, stream):
    stream.takes.append(RESET)
    beating.check(now=1025.0)
    assert not beating.is_open
    assert ended(beating).reason == str(RESET)
