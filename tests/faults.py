"""A TCP proxy that misbehaves on demand: the network of the reliability tests.

    with FaultProxy("127.0.0.1", server_port) as proxy:
        client = connect(proxy.port)
        proxy.blackhole("down")          # from here on nothing comes back
        ...
        proxy.heal()                     # a plain proxy again

A direction is ``"up"`` (client to server), ``"down"`` (server to client) or
``"both"``. There are two kinds of fault:

- standing ones hold for present and future connections until they are set
  otherwise or `heal()` ends them: latency, blackhole, stall, throttle, chop,
  drip, refuse, swallow;
- passing ones happen once: reset, drop and fin to the connections of the
  moment; truncate, duplicate and corrupt to the first connection that gets
  there, counted from the call (or from its start, if it is younger).

What a healthy network passes on, the proxy does: data, FIN and RST, each under
the faults of its direction. A blackhole hides a FIN too, until `heal()`.

Threads: one thread per proxy owns all sockets and rules and alone writes the
counters. Any other thread may call the methods; they hand their work to that
thread and return when it is done, so a fault is in force when its method
returns. `_changed` guards the waiting commands and whether more may come, and
announces new figures in the counters.
"""

import contextlib
import errno
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType

CHUNK = 65536  # bytes read at once
BACKLOG = 1 << 20  # bytes held per direction; beyond, the proxy stops reading
SOCKET_BUFFER = 1 << 18  # bytes; fixed, so that a stall is felt soon
TURN = 64  # pieces forwarded before the other connections get their turn
CEILING = 10.0  # seconds a command may take before the proxy counts as broken
PAUSE = 0.05  # seconds without accepting after descriptors ran out

_DIRECTIONS = {"up": ("up",), "down": ("down",), "both": ("up", "down")}
_NOT_NOW = (BlockingIOError, InterruptedError)


@dataclass
class Charge:
    """A passing fault, shared by the connections it may hit: first come, first hit."""

    offset: int = 0
    times: int = 1
    reset: bool = False
    flip: int = 0xFF


@dataclass
class Rules:
    """The faults of one direction; the defaults are a plain wire."""

    latency: float = 0.0
    blackhole: bool = False
    stall: bool = False
    throttle: float | None = None
    chop: int | None = None
    drip: float | None = None
    charges: dict[str, Charge] = field(default_factory=dict)

    def clear(self) -> None:
        """Become a plain wire."""
        vars(self).update(vars(Rules()))

    def piece(self) -> int:
        """Return how many bytes one send may carry."""
        if self.drip is not None:
            return 1
        limit = self.chop or CHUNK
        return min(limit, max(1, int(self.throttle / 50))) if self.throttle else limit

    def pace(self, count: int) -> float:
        """Return the seconds to wait after ``count`` bytes were sent."""
        throttled = count / self.throttle if self.throttle else 0.0
        return max(throttled, self.drip or 0.0)


@dataclass
class Wire:
    """What the connections of a proxy share: rules and byte counts by direction."""

    rules: dict[str, Rules] = field(
        default_factory=lambda: {"up": Rules(), "down": Rules()}
    )
    received: dict[str, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    forwarded: dict[str, int] = field(default_factory=lambda: {"up": 0, "down": 0})


class Pipe:
    """One direction of one connection: what was read and not yet forwarded.

    The end of the source (`ended`: "fin" or "reset") follows the data before it
    and suffers the same faults.
    """

    def __init__(
        self, source: socket.socket, sink: socket.socket, way: str, wire: "Wire"
    ) -> None:
        self.source = source
        self.sink = sink
        self.way = way
        self.wire = wire
        self.rules = wire.rules[way]
        self.queue: deque[tuple[float, bytes]] = deque()  # (instant read, bytes)
        self.held = 0
        self.forwarded = 0
        self.ended: str | None = None
        self.ended_at = 0.0
        self.closed = False  # the sink was told the end
        self.broken = False  # the sink takes no more
        self.blocked = False  # the sink's buffer is full
        self.next_at = 0.0  # the pace of throttle and drip allows no send before
        self.charges: dict[str, tuple[int, Charge]] = {}
        for kind, charge in self.rules.charges.items():
            self.arm(kind, charge)

    def arm(self, kind: str, charge: Charge) -> None:
        """Let a passing fault hit ``charge.offset`` bytes from here."""
        self.charges[kind] = (self.forwarded + charge.offset, charge)

    def disarm(self) -> None:
        """Forget the passing faults and the pace of the standing ones."""
        self.charges.clear()
        self.next_at = 0.0

    def wants_read(self) -> bool:
        """Tell whether the source is to be read."""
        return self.ended is None and not self.rules.stall and self.held < BACKLOG

    def fill(self, now: float) -> None:
        """Read once from the source."""
        try:
            data = self.source.recv(CHUNK)
        except _NOT_NOW:
            return
        except OSError:
            return self.end("reset", now)
        if not data:
            return self.end("fin", now)
        self.wire.received[self.way] += len(data)
        if not (self.rules.blackhole or self.closed or self.broken):
            copies = 2 if self._spend("duplicate") else 1
            self.queue.extend([(now, data)] * copies)
            self.held += len(data) * copies

    def end(self, how: str, now: float) -> None:
        """Note that the source came to its end; the first note counts."""
        if self.ended is None:
            self.ended, self.ended_at = how, now

    def cut(self) -> None:
        """Tell the sink that the stream is over; what still comes vanishes."""
        self.clear()
        if not self.closed:
            self.closed = True
            with contextlib.suppress(OSError):
                self.sink.shutdown(socket.SHUT_WR)

    def clear(self) -> None:
        """Throw away what is held."""
        self.queue.clear()
        self.held = 0
        self.blocked = False

    def due(self) -> float | None:
        """Return the instant of the next step, None while only an event can help."""
        if self.rules.blackhole or self.blocked:
            return None
        if self.queue:
            return max(self.queue[0][0] + self.rules.latency, self.next_at)
        if self.ended is None or (self.closed and self.ended == "fin"):
            return None
        return self.ended_at + self.rules.latency

    def step(self, now: float) -> bool:
        """Forward one piece if one is due; return whether to go on."""
        due = self.due()
        if due is None or due > now or not self.queue:
            return False
        arrival, data = self.queue.popleft()
        piece = self._altered(data[: self._allowance()])
        count = self._send(piece)
        if self.broken:
            self.clear()
            return False
        if count < len(data):
            self.queue.appendleft((arrival, data[count:]))
        self.held -= count
        self.forwarded += count
        self.wire.forwarded[self.way] += count
        self._spend_passed("corrupt")
        self.next_at = max(self.next_at, now) + self.rules.pace(count)
        return count == len(piece)

    def exhausted(self) -> Charge | None:
        """Return the truncation that has been reached, if one has."""
        position, charge = self.charges.get("truncate", (0, None))
        if charge is None or not charge.times or self.forwarded < position:
            return None
        charge.times -= 1
        return charge

    def _send(self, piece: bytes) -> int:
        try:
            return self.sink.send(piece)
        except _NOT_NOW:
            self.blocked = True
        except OSError:
            self.broken = True
        return 0

    def _allowance(self) -> int:
        position, charge = self.charges.get("truncate", (0, None))
        limit = self.rules.piece()
        if charge is None or not charge.times:
            return limit
        return min(limit, position - self.forwarded)

    def _altered(self, piece: bytes) -> bytes:
        position, charge = self.charges.get("corrupt", (0, None))
        index = position - self.forwarded
        if charge is None or not charge.times or index >= len(piece):
            return piece
        altered = bytearray(piece)
        altered[index] ^= charge.flip
        return bytes(altered)

    def _spend_passed(self, kind: str) -> None:
        if kind in self.charges and self.forwarded > self.charges[kind][0]:
            self._spend(kind)

    def _spend(self, kind: str) -> bool:
        _, charge = self.charges.pop(kind, (0, None))
        if charge is None or not charge.times:
            return False
        charge.times -= 1
        return True


class Connection:
    """A client's socket, the one to the server, and the pipes between them.

    `upstream` is None while the connection is swallowed; `pipes` is empty until
    the server has accepted. `over` asks for `close()`, in order or by RST.
    """

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.upstream: socket.socket | None = None
        self.pipes: tuple[Pipe, ...] = ()
        self.over = False
        self.reset = False

    def connect(self, address: tuple[str, int]) -> None:
        """Begin to connect to the server; OSError if not even that works."""
        self.upstream = _tuned(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        status = self.upstream.connect_ex(address)
        if status not in (0, errno.EINPROGRESS):
            raise OSError(status, "cannot connect upstream")

    def connected(self, wire: Wire) -> None:
        """Join the two sockets; OSError if the server could not be reached."""
        assert self.upstream is not None
        status = self.upstream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if status:
            raise OSError(status, "upstream refused")
        self.pipes = (
            Pipe(self.client, self.upstream, "up", wire),
            Pipe(self.upstream, self.client, "down", wire),
        )

    def interest(self) -> Iterator[tuple[socket.socket, int]]:
        """Yield each socket with the selector events it waits for, 0 for none."""
        if self.pipes:
            for pipe, reverse in (self.pipes, self.pipes[::-1]):
                read = selectors.EVENT_READ if pipe.wants_read() else 0
                write = selectors.EVENT_WRITE if reverse.blocked else 0
                yield pipe.source, read | write
        elif self.upstream is not None:
            yield self.upstream, selectors.EVENT_WRITE

    def ready(self, sock: socket.socket, events: int, now: float) -> None:
        """Take note of what the selector found on ``sock``."""
        for pipe in self.pipes:
            if pipe.source is sock and events & selectors.EVENT_READ:
                if pipe.wants_read():
                    pipe.fill(now)
            if pipe.sink is sock and events & selectors.EVENT_WRITE:
                pipe.blocked = False

    def pump(self, now: float) -> None:
        """Forward what is due: data, then ends."""
        for pipe in self.pipes:
            self._forward(pipe, now)
        if self.pipes and not self.over:
            for pipe, reverse in (self.pipes, self.pipes[::-1]):
                self._forward_end(pipe, reverse, now)
            if all(pipe.closed and pipe.ended for pipe in self.pipes):
                self.end()

    def due(self) -> float | None:
        """Return the instant at which `pump` has something to do."""
        instants = [pipe.due() for pipe in self.pipes]
        return min((at for at in instants if at is not None), default=None)

    def end(self, reset: bool = False) -> None:
        """Ask for both sockets to be closed, with RST or in order."""
        self.over, self.reset = True, reset

    def sockets(self) -> Iterator[socket.socket]:
        """Yield the sockets there are."""
        yield self.client
        if self.upstream is not None:
            yield self.upstream

    def _forward(self, pipe: Pipe, now: float) -> None:
        if pipe.rules.blackhole:
            pipe.clear()
        for _ in range(TURN):
            truncation = pipe.exhausted()
            if truncation is not None:
                return self.end(truncation.reset)
            if self.over or not pipe.step(now):
                return None
        return None

    def _forward_end(self, pipe: Pipe, reverse: Pipe, now: float) -> None:
        if pipe.broken:  # its sink is gone, so the reverse has lost its source
            reverse.end("reset", now)
        due = pipe.due()
        if due is None or due > now or pipe.queue or self.over:
            return
        if pipe.ended == "reset":
            self.end(reset=True)
        else:
            pipe.cut()


class FaultProxy:
    """Stand between a client and a server on 127.0.0.1 and break what is asked for.

    Args:
        upstream_host, upstream_port: where the server listens. It need not
            listen yet: a connection it refuses is reset.

    Attributes:
        port: where the proxy listens, for its whole life, refusing or not.
        connections: how many were ever accepted.
        live: how many of them are not over yet.
        received: bytes read so far, by direction, vanished ones included.
        forwarded: bytes sent on so far, by direction.
    """

    def __init__(self, upstream_host: str, upstream_port: int) -> None:
        self.upstream = (upstream_host, upstream_port)
        self.connections = 0
        self.live = 0
        self._wire = Wire()
        self.received = self._wire.received
        self.forwarded = self._wire.forwarded
        self._links: list[Connection] = []
        self._swallowing = False
        self._accept_from = 0.0
        self._stopping = False
        self._broken: BaseException | None = None
        self._commands: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._changed = threading.Condition()
        self._selector = selectors.DefaultSelector()
        self._waker, self._wakened = socket.socketpair()
        self._wakened.setblocking(False)
        self._selector.register(self._wakened, selectors.EVENT_READ)
        # Bound, never listening: keeps the port ours while it refuses.
        self._reservation = _bound(0)
        self.port: int = self._reservation.getsockname()[1]
        self._listener: socket.socket | None = _listening(self.port)
        self._thread = threading.Thread(
            target=self._run, name="fault-proxy", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> "FaultProxy":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all connections, join the thread, close every descriptor.

        Raises:
            RuntimeError: the proxy itself failed while it ran.
        """
        with self._changed:
            self._stopping = True
        self._wake()
        self._thread.join()
        self._waker.close()
        if self._broken is not None:
            broken, self._broken = self._broken, None
            raise RuntimeError("the fault proxy failed") from broken

    def wait_until(
        self, predicate: Callable[["FaultProxy"], bool], timeout: float = 5.0
    ) -> bool:
        """Wait until ``predicate(proxy)`` holds; return whether it does.

        Args:
            predicate: looks at the counters; called whenever one has changed.
            timeout: seconds.
        """
        with self._changed:
            return self._changed.wait_for(lambda: predicate(self), timeout)

    # Standing faults ------------------------------------------------------

    def latency(self, direction: str, seconds: float) -> None:
        """Deliver everything ``seconds`` after it was sent; 0 ends it."""
        self._set(direction, latency=seconds)

    def blackhole(self, direction: str, on: bool = True) -> None:
        """Let data vanish while the connection stays open."""
        self._set(direction, blackhole=on)

    def stall(self, direction: str, on: bool = True) -> None:
        """Stop reading, so that the sender's buffers fill."""
        self._set(direction, stall=on)

    def throttle(self, direction: str, rate: float | None) -> None:
        """Forward at most ``rate`` bytes per second; None ends it."""
        self._set(direction, throttle=rate)

    def chop(self, direction: str, size: int | None) -> None:
        """Forward in pieces of at most ``size`` bytes; None ends it."""
        self._set(direction, chop=size)

    def drip(self, direction: str, interval: float | None) -> None:
        """Forward one byte every ``interval`` seconds; None ends it."""
        self._set(direction, drip=interval)

    def refuse(self, on: bool = True) -> None:
        """Refuse new connections; live ones are untouched."""
        self._command(self._unlisten if on else self._listen)

    def swallow(self, on: bool = True) -> None:
        """Accept new connections and neither answer nor connect upstream.

        Turned off (or healed) the swallowed ones are connected at last.
        """
        self._command(lambda: self._swallow(on))

    # Passing faults -------------------------------------------------------

    def reset(self) -> None:
        """End the live connections with an RST to both sides."""
        self._command(lambda: self._end_all(reset=True))

    def drop(self) -> None:
        """End the live connections with a FIN to both sides."""
        self._command(lambda: self._end_all(reset=False))

    def fin(self, direction: str) -> None:
        """Half-close: send a FIN that way; what follows that way vanishes."""
        self._command(lambda: self._cut(direction))

    def truncate(
        self, direction: str, after: int, times: int = 1, reset: bool = False
    ) -> None:
        """Forward ``after`` more bytes, then end the connection.

        Args:
            direction: where the bytes are counted.
            after: bytes.
            times: how many connections end like this before it is over.
            reset: end with RST instead of FIN.
        """
        self._arm(direction, "truncate", Charge(after, times, reset))

    def duplicate(self, direction: str) -> None:
        """Forward the next chunk, as it is read, twice."""
        self._arm(direction, "duplicate", Charge())

    def corrupt(self, direction: str, offset: int, flip: int = 0xFF) -> None:
        """Flip the bits ``flip`` of the byte at ``offset`` (bytes) of what follows."""
        self._arm(direction, "corrupt", Charge(offset, flip=flip))

    def heal(self) -> None:
        """End all faults, for present and future connections."""
        self._command(self._heal)

    # The work of the methods, on the proxy's thread -----------------------

    def _set(self, direction: str, **values: object) -> None:
        self._command(lambda: self._set_now(direction, values))

    def _set_now(self, direction: str, values: dict[str, object]) -> None:
        for way in _ways(direction):
            vars(self._wire.rules[way]).update(values)
        for pipe in self._pipes(direction):
            pipe.next_at = 0.0

    def _arm(self, direction: str, kind: str, charge: Charge) -> None:
        self._command(lambda: self._arm_now(direction, kind, charge))

    def _arm_now(self, direction: str, kind: str, charge: Charge) -> None:
        for way in _ways(direction):
            self._wire.rules[way].charges[kind] = charge
        for pipe in self._pipes(direction):
            pipe.arm(kind, charge)

    def _cut(self, direction: str) -> None:
        for pipe in self._pipes(direction):
            pipe.cut()

    def _end_all(self, reset: bool) -> None:
        for link in self._links:
            link.end(reset)

    def _swallow(self, on: bool) -> None:
        self._swallowing = on
        if not on:
            for link in self._links:
                if link.upstream is None:
                    self._connect(link)

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = _listening(self.port)

    def _unlisten(self) -> None:
        if self._listener is not None:
            self._watch(self._listener, 0)
            self._listener.close()
            self._listener = None

    def _heal(self) -> None:
        for rules in self._wire.rules.values():
            rules.clear()
        for pipe in self._pipes("both"):
            pipe.disarm()
        self._swallow(False)
        self._listen()

    def _pipes(self, direction: str) -> Iterator[Pipe]:
        for link in self._links:
            for pipe in link.pipes:
                if pipe.way in _ways(direction):
                    yield pipe

    # The loop -------------------------------------------------------------

    def _command(self, work: Callable[[], None]) -> None:
        done: Future[None] = Future()
        with self._changed:
            if self._stopping:
                raise RuntimeError("the fault proxy is closed")
            self._commands.append((work, done))
        self._wake()
        done.result(CEILING)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # already closed
            self._waker.send(b"\0")

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
        except BaseException as error:  # told by close()
            self._broken = error
        finally:
            self._shut()

    def _turn(self) -> None:
        self._watch_all()
        ready = self._selector.select(self._patience())
        now = time.monotonic()
        for key, events in ready:
            self._handle(key, events, now)
        done = self._obey()
        for link in self._links:
            if not link.over:
                link.pump(now)
        self._bury()
        for future in done:
            future.set_result(None)

    def _handle(self, key: selectors.SelectorKey, events: int, now: float) -> None:
        if key.fileobj is self._wakened:
            with contextlib.suppress(*_NOT_NOW):
                self._wakened.recv(4096)
        elif key.fileobj is self._listener:
            self._accept(now)
        else:
            link, sock = key.data, key.fileobj
            assert isinstance(link, Connection) and isinstance(sock, socket.socket)
            if link.pipes:
                link.ready(sock, events, now)
            else:
                self._join(link)

    def _obey(self) -> list[Future[None]]:
        """Carry out the commands; return those that worked, to be told so."""
        done: list[Future[None]] = []
        while True:
            with self._changed:
                if not self._commands:
                    return done
                work, future = self._commands.popleft()
            try:
                work()
                done.append(future)
            except Exception as error:
                future.set_exception(error)

    def _accept(self, now: float) -> None:
        assert self._listener is not None
        try:
            client = _tuned(self._listener.accept()[0])
        except _NOT_NOW:
            return
        except OSError:  # out of descriptors: it stays readable, so look away
            self._accept_from = now + PAUSE
            return
        link = Connection(client)
        self._links.append(link)
        with self._changed:
            self.connections += 1
        if not self._swallowing:
            self._connect(link)

    def _connect(self, link: Connection) -> None:
        try:
            link.connect(self.upstream)
        except OSError:
            link.end(reset=True)

    def _join(self, link: Connection) -> None:
        try:
            link.connected(self._wire)
        except OSError:
            link.end(reset=True)

    def _bury(self) -> None:
        """Close the connections that are over and announce the new figures."""
        for link in self._links:
            if link.over:
                for sock in link.sockets():
                    self._watch(sock, 0)
                    _finish(sock, link.reset)
        with self._changed:
            self._links = [link for link in self._links if not link.over]
            self.live = len(self._links)
            self._changed.notify_all()

    def _patience(self) -> float | None:
        """Return the seconds until a timer is due; None: only an event can help."""
        instants = [link.due() for link in self._links]
        if self._accept_from:
            instants.append(self._accept_from)
        pending = [at for at in instants if at is not None]
        return max(0.0, min(pending) - time.monotonic()) if pending else None

    def _watch_all(self) -> None:
        if self._accept_from and time.monotonic() >= self._accept_from:
            self._accept_from = 0.0
        if self._listener is not None:
            accepting = 0 if self._accept_from else selectors.EVENT_READ
            self._watch(self._listener, accepting)
        for link in self._links:
            for sock, events in link.interest():
                self._watch(sock, events, link)

    def _watch(
        self, sock: socket.socket, events: int, link: Connection | None = None
    ) -> None:
        key = self._selector.get_map().get(sock)
        if key is None:
            if events:
                self._selector.register(sock, events, link)
        elif not events:
            self._selector.unregister(sock)
        elif key.events != events:
            self._selector.modify(sock, events, link)

    def _shut(self) -> None:
        with self._changed:
            self._stopping = True
            unheard = list(self._commands)
            self._commands.clear()
        self._end_all(reset=False)
        self._bury()
        self._unlisten()
        self._reservation.close()
        self._selector.close()
        self._wakened.close()
        for _, future in unheard:
            future.set_exception(RuntimeError("the fault proxy is closed"))


def _ways(direction: str) -> tuple[str, ...]:
    try:
        return _DIRECTIONS[direction]
    except KeyError:
        raise ValueError(f'"up", "down" or "both", not {direction!r}') from None


def _tuned(sock: socket.socket) -> socket.socket:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
    return sock


def _bound(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock


def _listening(port: int) -> socket.socket:
    sock = _bound(port)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
    sock.setblocking(False)
    sock.listen(1024)
    return sock


def _finish(sock: socket.socket, reset: bool) -> None:
    """Close with an RST, or with a FIN even where unread bytes are left."""
    if reset:
        linger = struct.pack("ii", 1, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    else:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):  # unread bytes turn a close into an RST
            while sock.recv(CHUNK):
                pass
    sock.close()
