"""The client's door: how a WebSocket gets open.

websocket-client writes the request and checks the answer, and goes through SOCKS proxies; it is used for that alone (see
``oompa.wire.channel``). The only file that imports it; its errors end here.

One attempt visits the addresses of a server, and the servers of a list, in the order and at the times that ``endpoints`` says,
all on one thread and under one deadline. A *visit* is one address being connected to and shaken hands with: a generator that
stops wherever it would block and tells what for. What a visit fails with, ``failures`` puts into words.
"""

import base64
import encodings.idna  # noqa: F401  ssl uses it at its first handshake: not to be imported while a process forks
import errno
import os
import select
import socket
import ssl
import threading
from time import monotonic
from typing import Any, Generator, Mapping, NamedTuple, NoReturn, Optional, Sequence, Union

import websocket
from websocket._http import connect as connect_by_proxy
from websocket._http import proxy_info

from ..wire.announcement import Announcement, read_announcement
from .address import Address
from .endpoints import Endpoints, Race
from .failures import Failure, NotTrusted, answer, fault, of_addresses, of_urls, speaks_tls

#: Bytes the head of an answer to a handshake may have, a real one has a few hundred; and those read of a refusal's body.
_ANSWER_LIMIT = 65536
_BODY_LIMIT = 1000

#: Seconds after which it looks whether it was aborted, where shutting down a socket does not wake it.
_LOOK = 0.1

#: What websocket-client is told of the host: nothing, so no cookie it keeps for all of its process is meant for it.
_NOBODY = "ws://oompa.invalid"

#: The first byte of a TLS alert (:rfc:`8446#section-5.1`).
_TLS_ALERT = 0x15

_UNDER_WAY = frozenset({errno.EINPROGRESS, errno.EALREADY, errno.EINTR})

Steps = Generator[int, None, "Opened"]
SocketAddress = Any


class Opened(NamedTuple):
    """A socket past the client's handshake, the bytes that came with the answer, and what that told of the server."""

    sock: socket.socket
    received: bytes
    announced: Announcement
    address: Address


class NotOpened(Exception):
    """An attempt has failed; ``failure`` tells why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure.error))
        self.failure = failure


class _Refused(Exception):
    """What came instead of a handshake; ``failure`` tells what."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure.error))
        self.failure = failure


class _Target(NamedTuple):
    """An address as the resolver found it."""

    server: int
    family: int
    kind: int
    protocol: int
    place: SocketAddress


Candidate = Union[int, _Target]  # a server, by its index, whose name is to be resolved; or an address


class _Transcript:
    """What websocket-client takes for a socket: it keeps the request, and reads an answer that has come already."""

    def __init__(self, answer: bytes = b"") -> None:
        self.request = b""
        # Without cookies: websocket-client keeps them for every client of its process.
        self._lines = [line for line in answer.splitlines(keepends=True) if not _is_cookie(line)]

    def send(self, data: bytes) -> int:
        """As of a socket."""
        self.request += data
        return len(data)

    def recv(self, size: int) -> bytes:
        """A line, but its end apart: what looks for the end byte by byte takes two calls to find it."""
        if not self._lines:
            raise EOFError
        line = self._lines.pop(0)
        if len(line) > 1:
            self._lines.insert(0, line[-1:])
        return line[:-1] or line

    def gettimeout(self) -> Optional[float]:
        """As of a socket."""
        return None

    def close(self) -> None:
        """As of a socket."""


class _Handshake:
    """The opening handshake of one visit (:rfc:`6455#section-4.1`), by websocket-client, without a socket."""

    def __init__(self, address: Address, headers: Mapping[str, str], subprotocols: Sequence[str]) -> None:
        own = {name.lower() for name in headers}
        lines = {name: value for name, value in headers.items() if name.lower() != "host"}
        lines["Sec-WebSocket-Key"] = base64.b64encode(os.urandom(16)).decode()
        if address.authorization is not None and "authorization" not in own:
            lines["Authorization"] = address.authorization
        if subprotocols:
            lines["Sec-WebSocket-Protocol"] = ", ".join(subprotocols)
        host = [value for name, value in headers.items() if name.lower() == "host"]
        self._options = {
            "header": lines,
            "host": host[0] if host else address.host_header,
            "suppress_origin": True,
            "redirect_limit": 0,
        }
        self._address = address
        self._subprotocols = subprotocols

    def request(self) -> bytes:
        """The bytes of the request."""
        transcript = _Transcript()
        try:
            self._play(transcript)
        except EOFError:  # there is no answer yet
            pass
        rest = transcript.request.partition(b"\r\n")[2]  # of a path with ";" websocket-client sends a part
        return f"GET {self._address.resource} HTTP/1.1\r\n".encode() + rest

    def check(self, head: bytes) -> Announcement:
        """What a 101 tells. Raises ConnectionError when it is none of a WebSocket server."""
        try:
            opened = self._play(_Transcript(head))
        except (websocket.WebSocketException, EOFError) as error:
            raise ConnectionError(f"it answered with what is no WebSocket handshake ({error})") from error
        told = opened.getheaders() or {}  # by their names in lower case
        chosen = told.get("sec-websocket-protocol")
        if chosen is not None and chosen not in self._subprotocols:
            raise ConnectionError(f"it chose the subprotocol {chosen[:100]!r}, which was not offered")
        return read_announcement(lambda name: told.get(name.lower()))

    def _play(self, transcript: _Transcript) -> websocket.WebSocket:
        opened = websocket.WebSocket()
        opened.connect(_NOBODY + self._address.resource, socket=transcript, **self._options)  # type: ignore[no-untyped-call]
        return opened


class _Visit:
    """One address being connected to.

    Attributes:
        waits_for: What ``poll`` is to wait for before the next step.
        is_connected: Whether TCP is up, to the server or to a proxy.
        refusal: What the answer says, where its body is still to come.
    """

    def __init__(self, opening: "ClientOpening", target: _Target, deadline: float) -> None:
        self.target = target
        self.address = opening.addresses[target.server]
        dial = self.address.dial
        self.sock = socket.socket(target.family, target.kind, target.protocol) if dial is None else dial()
        self.waits_for = select.POLLOUT
        self.is_connected = False
        self.refusal: Optional[Failure] = None
        self._opening = opening
        self._deadline = deadline
        self._received = b""
        self._steps = self._open()

    def step(self) -> Optional[Opened]:
        """Go on until it would block, or the WebSocket is open. Raises what ends the visit."""
        try:
            self.waits_for = next(self._steps)
        except StopIteration as done:
            opened: Opened = done.value
            return opened
        return None

    def shutdown(self) -> None:
        """End the connection. Any thread."""
        try:
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        """End the connection, also where a forked process has a copy of the descriptor, and free it."""
        self.shutdown()
        self.sock.close()

    def _open(self) -> Steps:
        is_local = self.address.path is not None or self.address.dial is not None
        proxy = {} if is_local else self._opening.proxy
        if proxy and proxy["proxy_type"] != "http":
            self._connect_by_socks(proxy)
        else:
            yield from self._connect()
        self.is_connected = True
        if proxy.get("proxy_type") == "http":
            yield from self._tunnel(proxy)
        if self.address.is_secure:
            yield from self._start_tls()
        handshake = _Handshake(self.address, self._opening.headers, self._opening.subprotocols)
        yield from self._send(handshake.request())
        head = yield from self._read_head()
        if _status_of(head) != 101:
            yield from self._refuse(head)
        return Opened(self.sock, self._received, handshake.check(head), self.address)

    def _connect(self) -> Generator[int, None, None]:
        self.sock.settimeout(0.0)
        if self.address.dial is not None:
            return
        problem = self.sock.connect_ex(self.target.place)
        if problem in _UNDER_WAY:
            yield select.POLLOUT
            problem = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if problem:
            raise OSError(problem, os.strerror(problem))

    def _connect_by_socks(self, proxy: Mapping[str, Any]) -> None:
        """Let websocket-client connect, which knows SOCKS. It blocks, each step of it for what is left of the time."""
        left = max(0.001, self._deadline - monotonic())
        host = f"[{self.address.host}]" if ":" in self.address.host else self.address.host
        url = f"ws://{host}:{self.address.port}/"
        options = proxy_info(**proxy, http_proxy_timeout=left)  # type: ignore[no-untyped-call]
        self.sock.close()
        try:
            self.sock = connect_by_proxy(url, None, options, None)[0]
        except Exception as error:  # python-socks has errors of its own kind
            raise ConnectionError(f"no way through the SOCKS proxy: {error or type(error).__name__}") from error
        self._opening.hold()
        self.sock.settimeout(0.0)

    def _tunnel(self, proxy: Mapping[str, Any]) -> Generator[int, None, None]:
        """Ask an HTTP proxy for a way to the server (:rfc:`9110#section-9.3.6`)."""
        host = f"[{self.address.host}]" if ":" in self.address.host else self.address.host
        request = f"CONNECT {host}:{self.address.port} HTTP/1.1\r\nHost: {host}:{self.address.port}\r\n"
        if auth := proxy.get("http_proxy_auth"):
            request += f"Proxy-Authorization: Basic {base64.b64encode(':'.join(auth).encode()).decode()}\r\n"
        yield from self._send(f"{request}\r\n".encode())
        head = yield from self._read_head("the proxy")
        status = _status_of(head)
        if status == 200 and not self._received:
            return
        problem = f"the proxy answered CONNECT with {head.splitlines()[0].decode(errors='replace')!r}"
        raise (NotTrusted if status in (403, 407) else ConnectionError)(problem)

    def _start_tls(self) -> Generator[int, None, None]:
        context = self._opening.context()
        self.sock = context.wrap_socket(self.sock, server_hostname=self.address.host, do_handshake_on_connect=False)
        self._opening.hold()
        while True:
            try:
                return self.sock.do_handshake()
            except ssl.SSLWantReadError:
                yield select.POLLIN
            except ssl.SSLWantWriteError:
                yield select.POLLOUT

    def _send(self, data: bytes) -> Generator[int, None, None]:
        while data:
            try:
                data = data[self.sock.send(data) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                yield select.POLLOUT
            except ssl.SSLWantReadError:
                yield select.POLLIN

    def _receive(self) -> Generator[int, None, bytes]:
        while True:
            try:
                return self.sock.recv(4096)
            except (BlockingIOError, ssl.SSLWantReadError):
                yield select.POLLIN
            except ssl.SSLWantWriteError:
                yield select.POLLOUT

    def _read_head(self, whose: str = "the server") -> Generator[int, None, bytes]:
        """Read up to the empty line; what comes behind it stays in ``_received``."""
        while b"\r\n\r\n" not in self._received:
            data = yield from self._receive()
            if not data:
                raise EOFError(f"{whose} ended the connection")
            self._received += data
            if self._received[0] == _TLS_ALERT and not self.address.is_secure:
                raise _Refused(speaks_tls(self.address))
            if len(self._received) > _ANSWER_LIMIT:
                raise ConnectionError(f"the answer to the handshake exceeds {_ANSWER_LIMIT} bytes")
        head, end, self._received = self._received.partition(b"\r\n\r\n")
        return head + end

    def _refuse(self, head: bytes) -> Generator[int, None, NoReturn]:
        """Read what an answer that is no 101 has to say, and raise that."""
        status, headers = _status_of(head), _headers_of(head)
        if status is None:
            raise ConnectionError("it answered with what is no HTTP")
        self.refusal = answer(self.address, status, headers, self._received)
        length = headers.get("content-length", "")
        size = min(_BODY_LIMIT, int(length[:9])) if length.isdigit() and length.isascii() else 0
        while len(self._received) < size:
            data = yield from self._receive()
            if not data:
                break
            self._received += data
        raise _Refused(answer(self.address, status, headers, self._received[:_BODY_LIMIT]))


def _is_cookie(line: bytes) -> bool:
    """Whether it sets a cookie, as websocket-client reads it."""
    return line.decode(errors="replace").strip().lower().startswith("set-cookie:")


def _status_of(head: bytes) -> Optional[int]:
    parts = head[:30].split(None, 2)
    is_http = len(parts) > 1 and parts[0].startswith(b"HTTP/") and parts[1].isdigit() and len(parts[1]) == 3
    return int(parts[1]) if is_http else None


def _headers_of(head: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
    return {name.lower(): value.strip() for name, colon, value in pairs if colon}


class ClientOpening:
    """One attempt to open a WebSocket. ``abort`` may be called by any thread and wakes the one in ``open``.

    ``_lock`` guards the sockets at hand against an abort that comes between two steps.

    Args:
        addresses: Of a server, or of several of which any will do, in the order to try them.
        endpoints: Says with which address of a name to begin.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        *,
        headers: Mapping[str, str],
        ssl_context: Optional[ssl.SSLContext],
        proxy: dict[str, Any],
        timeout: float,
        subprotocols: Sequence[str] = (),
        endpoints: Optional[Endpoints] = None,
    ) -> None:
        self.addresses = addresses
        self.headers = headers
        self.proxy = proxy
        self.subprotocols = subprotocols
        self._ssl_context = ssl_context
        self._timeout = timeout
        self._endpoints = endpoints or Endpoints()
        self._lock = threading.RLock()
        self._visits: list[_Visit] = []
        self._failures: dict[int, list[Failure]] = {}
        self._race: Race[Candidate] = Race(range(len(addresses)))
        self._aborted = False

    @property
    def shown(self) -> str:
        """What errors and logs tell of where it leads."""
        return ", ".join(address.shown for address in self.addresses)

    def open(self) -> Opened:
        """Connect and shake hands.

        Resolving a name is the system's affair and not under the timeout; connecting, TLS and the handshake together are.
        Through a SOCKS proxy the timeout holds for each step.

        Raises:
            NotOpened: Nothing has opened; its ``failure`` tells why.
        """
        opened: Optional[Opened] = None
        try:
            opened = self._open(monotonic() + self._timeout)
            return opened
        finally:
            for visit in self._visits:
                if opened is None or visit.sock is not opened.sock:
                    visit.close()

    def abort(self) -> None:
        """Give up: ``open`` raises soon."""
        with self._lock:
            self._aborted = True
            visits = list(self._visits)
        for visit in visits:
            visit.shutdown()

    def context(self) -> ssl.SSLContext:
        """For ``wss://``; made once, for reading the system's authorities takes long."""
        if self._ssl_context is None:
            self._ssl_context = ssl.create_default_context()
        return self._ssl_context

    def hold(self) -> None:
        """A visit has another socket. Raises ConnectionError when ``abort`` came meanwhile: it may have missed that."""
        with self._lock:
            if self._aborted:
                raise ConnectionError("connecting was given up")

    def _open(self, deadline: float) -> Opened:
        while True:
            now = monotonic()
            if self._aborted or now >= deadline:
                self._expire()
            opened = self._start_next(now, deadline)
            if opened is None and not self._visits and self._race.due == float("inf"):
                raise NotOpened(self._verdict())
            for visit in [] if opened else self._wait(min(deadline, self._race.due)):
                opened = opened or self._step(visit)
            if opened is not None:
                return opened

    def _start_next(self, now: float, deadline: float) -> Optional[Opened]:
        """Start the candidate that is due, if one is."""
        candidate = self._race.next(now)
        if candidate is None:
            return None
        if isinstance(candidate, int):
            self._resolve(candidate)
            return None
        try:
            visit = _Visit(self, candidate, deadline)
        except OSError as error:  # no descriptor, or no such family of addresses
            self._note(candidate.server, fault(self.addresses[candidate.server], error))
            return None
        with self._lock:
            self._visits.append(visit)
        return self._step(visit)

    def _resolve(self, server: int) -> None:
        """Find the addresses of a server, or of the proxy that leads to it."""
        address = self.addresses[server]
        try:
            targets = self._targets(server, address)
        except OSError as error:
            self._note(server, fault(address, error))
        else:
            self._race.resolved(targets, monotonic())

    def _targets(self, server: int, address: Address) -> list[_Target]:
        if address.path is not None or address.dial is not None:
            return [_Target(server, socket.AF_UNIX, socket.SOCK_STREAM, 0, address.path)]
        host, port = address.host, address.port
        if self.proxy:
            host, port = self.proxy["http_proxy_host"], self.proxy["http_proxy_port"]
            if self.proxy["proxy_type"] != "http":  # websocket-client resolves
                return [_Target(server, socket.AF_INET, socket.SOCK_STREAM, 0, None)]
        # The host as bytes: of a str it would make IDNA, by a codec that is imported when it is first used.
        found = socket.getaddrinfo(host.encode(), port, type=socket.SOCK_STREAM)
        targets = [_Target(server, family, kind, protocol, place) for family, kind, protocol, _, place in found]
        return self._endpoints.addresses(targets, lambda target: target.family)

    def _wait(self, until: float) -> list[_Visit]:
        """The visits that can go on, if any can before it is time for something else."""
        poll = select.poll()
        for visit in self._visits:
            poll.register(visit.sock, visit.waits_for)
        left = min(_LOOK, max(0.0, until - monotonic()))
        ready = {descriptor for descriptor, _ in poll.poll(left * 1000.0)}
        return [visit for visit in self._visits if visit.sock.fileno() in ready]

    def _step(self, visit: _Visit) -> Optional[Opened]:
        """Let a visit go on."""
        if visit not in self._visits:  # postponed by one that was quicker
            return None
        was_connected = visit.is_connected
        try:
            opened = visit.step()
        except _Refused as refused:
            self._leave(visit)
            self._note(visit.target.server, refused.failure)
            return None
        except (OSError, EOFError, ValueError, websocket.WebSocketException) as error:
            self._leave(visit)
            self._note(visit.target.server, visit.refusal or fault(visit.address, error, visit.is_connected))
            return None
        if visit.is_connected and not was_connected and opened is None:
            self._postpone_others()
        return opened

    def _postpone_others(self) -> None:
        """One has connected: those that have not are tried again if it comes to nothing."""
        others = [visit for visit in self._visits if not visit.is_connected]
        for other in others:
            self._leave(other)
        self._race.connected([other.target for other in others], monotonic())

    def _leave(self, visit: _Visit) -> None:
        with self._lock:
            self._visits.remove(visit)
        visit.close()

    def _note(self, server: int, failure: Failure) -> None:
        self._failures.setdefault(server, []).append(failure)
        self._race.failed(monotonic())

    def _expire(self) -> NoReturn:
        """The time is over, or it was aborted: whoever is under way has failed."""
        for visit in self._visits:
            error: OSError = TimeoutError(f"connecting took longer than connect_timeout, {self._timeout} s")
            if self._aborted:
                error = ConnectionError("connecting was given up")
            self._note(visit.target.server, visit.refusal or fault(visit.address, error, visit.is_connected))
        raise NotOpened(self._verdict())

    def _verdict(self) -> Failure:
        """What the whole attempt comes to."""
        failures = [of_addresses(each) for _, each in sorted(self._failures.items())]
        return of_urls(failures or [fault(self.addresses[0], OSError("the name has no address"))])
