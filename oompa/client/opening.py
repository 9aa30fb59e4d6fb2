"""The two doors: how a WebSocket gets open on the server and on the client.

simple-websocket finds the socket in a WSGI environ; websocket-client writes the request of the client and checks the
answer, and goes through proxies. Both are used for that alone (see ``channel``). The only file that imports
them; their errors end here.
"""

import base64
import binascii
import hashlib
import re
import socket
import ssl
import threading
import time
from typing import Any, Mapping, NamedTuple, Optional
from urllib.parse import unquote, urlsplit

import simple_websocket
import websocket

from .errors import ConnectionLost, printable

#: Bytes the answer to a handshake may have; a real one has a few hundred.
_ANSWER_LIMIT = 65536


# The server's door.


class BadHandshake(Exception):
    """An upgrade request that is none. ``status`` and ``headers`` are for the answer."""

    def __init__(self, problem: str, status: int = 400, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(problem)
        self.status = status
        self.headers = headers


def wants_websocket(environ: Mapping[str, Any]) -> bool:
    """Whether a request means to open a WebSocket, well or badly."""
    return (
        "websocket" in _tokens(environ, "HTTP_UPGRADE")
        or "HTTP_SEC_WEBSOCKET_KEY" in environ
        or "HTTP_SEC_WEBSOCKET_VERSION" in environ
    )


def check_handshake(environ: Mapping[str, Any]) -> None:
    """Check an upgrade request against :rfc:`6455#section-4.2.1`.

    simple-websocket lets a short key through and turns other faults into a 500.

    Raises:
        BadHandshake: Naming the fault.
    """
    if environ.get("SERVER_PROTOCOL") in ("HTTP/0.9", "HTTP/1.0"):
        raise BadHandshake("a WebSocket needs HTTP/1.1")
    if not environ.get("HTTP_HOST"):
        raise BadHandshake("the Host header is missing")
    if "websocket" not in _tokens(environ, "HTTP_UPGRADE"):
        raise BadHandshake("the Upgrade header must be websocket", 426, (("Upgrade", "websocket"),))
    if "upgrade" not in _tokens(environ, "HTTP_CONNECTION"):
        raise BadHandshake("the Connection header must contain Upgrade")
    version = environ.get("HTTP_SEC_WEBSOCKET_VERSION")
    if version != "13":
        raise BadHandshake(
            "the Sec-WebSocket-Version header must be 13", 426 if version else 400, (("Sec-WebSocket-Version", "13"),)
        )
    try:
        key = base64.b64decode(environ.get("HTTP_SEC_WEBSOCKET_KEY", ""), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 16:
        raise BadHandshake("the Sec-WebSocket-Key header must be 16 bytes in base64")


def _tokens(environ: Mapping[str, Any], name: str) -> list[str]:
    return [token.strip().lower() for token in environ.get(name, "").split(",")]


def _accept_key(key: str) -> str:
    """What proves to the client that its request was understood (:rfc:`6455#section-4.2.2`)."""
    return base64.b64encode(hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()


class _NoThread:
    """Stands for the thread in which simple-websocket would read."""

    name = ""

    def __init__(self, target: Any) -> None:
        pass

    def start(self) -> None:
        """Do nothing."""


class _Door(simple_websocket.Server):  # type: ignore[misc]
    """simple-websocket's way to the socket, with an answer of our own: its would accept deflate, and takes h11 to parse
    again what the web server has parsed."""

    def handshake(self) -> None:
        """Answer the request."""
        answer = (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {_accept_key(self.environ['HTTP_SEC_WEBSOCKET_KEY'])}\r\n\r\n"
        )
        self.sock.sendall(answer.encode())
        self.connected = True


class Accepted(NamedTuple):
    """A socket past the server's handshake, and what kind of web server it came from."""

    sock: socket.socket
    mode: str


def accept(environ: Mapping[str, Any]) -> Accepted:
    """Answer an upgrade request that ``check_handshake`` let pass.

    Raises:
        RuntimeError: The web server gives no access to its socket.
        OSError: The peer is gone.
    """
    door = _Door(environ, thread_class=_NoThread)
    return Accepted(door.sock, door.mode)


# The client's door.


class Address(NamedTuple):
    """A WebSocket URL, taken apart."""

    url: str
    host: str
    port: int
    is_secure: bool

    @property
    def shown(self) -> str:
        """What errors and logs tell of it: no path, query or password, which may hold secrets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'wss' if self.is_secure else 'ws'}://{host}:{self.port}"


def parse_url(url: str) -> Address:
    """Take a WebSocket URL apart. Raises ValueError for anything else."""
    if not isinstance(url, str):
        raise ValueError(f"the URL must be a string such as 'ws://localhost:9000', not {url!r}")
    shown = _without_secrets(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its text may show a part of a password
        parts, port = urlsplit(""), 0
    if parts.scheme not in ("ws", "wss") or not parts.hostname or port == 0:
        raise ValueError(f"{shown!r} is no WebSocket URL; it must look like 'ws://localhost:9000' or 'wss://example.com/path'")
    if parts.fragment:
        raise ValueError(f"{shown!r} is no WebSocket URL: it may not have a fragment")
    if any(character <= " " or character == "\x7f" for character in url):
        raise ValueError(f"{shown!r} is no WebSocket URL: it may not have spaces or control characters")
    is_secure = parts.scheme == "wss"
    url = f"{parts.scheme}{url[len(parts.scheme):]}"  # in lower case, as websocket-client wants it
    return Address(url, parts.hostname, port or (443 if is_secure else 80), is_secure)


def _without_secrets(url: str) -> str:
    """A URL as an error may show it: without user, password and query."""
    return re.sub("//[^/?#]*@", "//***@", url.partition("?")[0])


_PROXY_TYPES = ("http", "socks4", "socks4a", "socks5", "socks5h")


def proxy_options(proxy: Optional[str]) -> dict[str, Any]:
    """What websocket-client calls the parts of a proxy URL. Raises ValueError, or TypeError, for no proxy URL."""
    if proxy is None:
        return {}
    if not isinstance(proxy, str):
        raise TypeError(f"proxy must be a URL such as 'http://proxy.example:3128', not {proxy!r}")
    shown = _without_secrets(proxy)
    try:
        parts = urlsplit(proxy)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme not in _PROXY_TYPES or not parts.hostname or not port:
        raise ValueError(f"{shown!r} is no proxy URL; it must look like 'http://user:password@proxy.example:3128'")
    options: dict[str, Any] = {
        "http_proxy_host": parts.hostname,
        "http_proxy_port": port,
        "proxy_type": parts.scheme,
        "http_no_proxy": ["\0"],  # the proxy was asked for: no exceptions from the environment
    }
    if parts.username:
        options["http_proxy_auth"] = (unquote(parts.username), unquote(parts.password or ""))
    return options


class Opened(NamedTuple):
    """A socket past the client's handshake, and the bytes that came with the answer."""

    sock: socket.socket
    received: bytes


class NotTrusted(ConnectionLost):
    """A certificate was not accepted, or a proxy does not let this client through: trying again soon is pointless."""


class _HandshakeSocket:
    """A socket as websocket-client reads it, which is byte by byte: from a buffer, under one deadline for everything."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self.received = b""
        self._sock = sock
        self._deadline = deadline
        self._room = _ANSWER_LIMIT

    def recv(self, size: int) -> bytes:
        """All of a line, then its end: what looks for the end byte by byte takes two calls to find it."""
        if not self.received:
            self._sock.settimeout(_left(self._deadline))
            self.received = self._sock.recv(min(4096, self._room))
            self._room -= len(self.received)
            if not self._room:
                raise ConnectionError(f"the answer to the handshake exceeds {_ANSWER_LIMIT} bytes")
        end = self.received.find(b"\n") or 1
        taken, self.received = (self.received[:end], self.received[end:]) if end > 0 else (self.received, b"")
        return taken

    def send(self, data: bytes) -> int:
        """Write all of it."""
        self._sock.settimeout(_left(self._deadline))
        self._sock.sendall(data)
        return len(data)

    def gettimeout(self) -> Optional[float]:
        """As of a socket."""
        return self._sock.gettimeout()

    def close(self) -> None:
        """As of a socket."""
        self._sock.close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("connecting took longer than connect_timeout")
    return left


def _header(name: Any, value: Any) -> str:
    """A line of the request. Raises TypeError or ValueError for what would be more than that, or less."""
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(f"the header {name!r} and its value must be strings")
    if not name or any(character in "\r\n\0" for character in name + value) or any(character in " :" for character in name):
        raise ValueError(f"{name!r} is no header, or its value has more than one line")
    return f"{name}: {value}"


#: OpenSSL's words for what a server has against the certificate of a client, or the lack of one.
_CERTIFICATE_ALERT = re.compile("ALERT_.*(CERT|UNKNOWN_CA)")


class ClientOpening:
    """One attempt to open a WebSocket. ``abort`` may be called by any thread and wakes the one in ``open``.

    ``_lock`` guards the socket at hand against an abort that comes between two steps.
    """

    def __init__(
        self,
        address: Address,
        *,
        headers: Mapping[str, str],
        ssl_context: Optional[ssl.SSLContext],
        proxy: dict[str, Any],
        timeout: float,
    ) -> None:
        self._address = address
        self._headers = [_header(name, value) for name, value in headers.items()]
        self._ssl_context = ssl_context
        self._proxy = proxy
        self._timeout = timeout
        self._lock = threading.Lock()
        self._sock: Optional[socket.socket] = None
        self._aborted = False

    def open(self) -> Opened:
        """Connect and shake hands.

        Resolving the name is the system's affair and not under the timeout; connecting, TLS and the handshake together
        are. Through a SOCKS proxy the timeout holds for each step.

        Raises:
            NotTrusted: A certificate or what a proxy asks for is not in order.
            ConnectionLost: Anything else that kept the connection from opening; ``status`` tells a refusal's HTTP status.
        """
        try:
            return self._open()
        except websocket.WebSocketBadStatusException as error:
            self._close()
            message = f"{self._address.shown} answered the handshake with status {error.status_code}{_body_of(error)}"
            raise ConnectionLost(message, status=error.status_code) from error
        except NotTrusted:
            self._close()
            raise
        except ssl.SSLCertVerificationError as error:
            self._close()
            raise NotTrusted(f"the certificate of {self._address.host} is not accepted: {error.verify_message}") from error
        except (websocket.WebSocketException, OSError, ValueError) as error:
            self._close()
            if isinstance(error, ssl.SSLError) and _CERTIFICATE_ALERT.search(error.reason or ""):
                problem = f"{self._address.host} does not accept the certificate of this client: {error.reason}"
                raise NotTrusted(problem) from error
            raise ConnectionLost(f"{self._address.shown} cannot be reached: {error or type(error).__name__}") from error

    def abort(self) -> None:
        """Give up: ``open`` raises soon."""
        with self._lock:
            self._aborted = True
            sock = self._sock
        if sock is not None:
            try:
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except OSError:
                pass

    def _open(self) -> Opened:
        deadline = time.monotonic() + self._timeout
        options: dict[str, Any] = {"header": self._headers, "suppress_origin": True, "redirect_limit": 0}
        if self._proxy and self._proxy["proxy_type"] != "http":
            return self._open_by_socks(options)
        if self._proxy:
            sock = self._connect(self._proxy["http_proxy_host"], self._proxy["http_proxy_port"], deadline)
            self._tunnel(sock, deadline)
        else:
            sock = self._connect(self._address.host, self._address.port, deadline)
        if self._address.is_secure:
            sock = self._start_tls(sock, deadline)
        shaking = _HandshakeSocket(sock, deadline)
        websocket.WebSocket().connect(self._address.url, socket=shaking, **options)  # type: ignore[no-untyped-call]
        return Opened(sock, shaking.received)

    def _tunnel(self, sock: socket.socket, deadline: float) -> None:
        """Ask an HTTP proxy for a way to the server (:rfc:`9110#section-9.3.6`); websocket-client has no total deadline."""
        host = f"[{self._address.host}]" if ":" in self._address.host else self._address.host
        request = f"CONNECT {host}:{self._address.port} HTTP/1.1\r\nHost: {host}:{self._address.port}\r\n"
        if auth := self._proxy.get("http_proxy_auth"):
            request += f"Proxy-Authorization: Basic {base64.b64encode(':'.join(auth).encode()).decode()}\r\n"
        shaking = _HandshakeSocket(sock, deadline)
        shaking.send(f"{request}\r\n".encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            piece = shaking.recv(1)
            if not piece:
                raise ConnectionError("the proxy ended the connection")
            answer += piece
        status = answer.split(b" ", 2)[1:2]
        if status == [b"200"] and not shaking.received:
            return
        problem = f"the proxy answered CONNECT with {answer.splitlines()[0].decode(errors='replace')!r}"
        if status in ([b"403"], [b"407"]):
            raise NotTrusted(problem)
        raise ConnectionError(problem)

    def _connect(self, host: str, port: int, deadline: float) -> socket.socket:
        """Try the addresses of a host in order, all under one deadline (websocket-client gives each its own)."""
        error: Optional[OSError] = None
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            sock = socket.socket(family, kind, protocol)
            self._hold(sock)
            try:
                sock.settimeout(_left(deadline))
                sock.connect(address)
                return sock
            except OSError as fault:
                sock.close()
                error = fault
        raise error or OSError("the name has no address")

    def _start_tls(self, sock: socket.socket, deadline: float) -> socket.socket:
        context = self._ssl_context or ssl.create_default_context()
        wrapped = context.wrap_socket(sock, server_hostname=self._address.host, do_handshake_on_connect=False)
        self._hold(wrapped)
        wrapped.settimeout(_left(deadline))
        wrapped.do_handshake()
        return wrapped

    def _open_by_socks(self, options: dict[str, Any]) -> Opened:
        """Let websocket-client connect: it knows SOCKS. It reads byte by byte, so nothing is left over."""
        context = self._ssl_context or (ssl.create_default_context() if self._address.is_secure else None)
        sslopt: dict[str, Any] = {}
        if context is not None:  # it would set both to its own defaults
            sslopt = {"context": context, "cert_reqs": context.verify_mode, "check_hostname": context.check_hostname}
        opened = websocket.WebSocket(sslopt=sslopt)
        opened.connect(  # type: ignore[no-untyped-call]
            self._address.url, timeout=self._timeout, http_proxy_timeout=self._timeout, **options, **self._proxy
        )
        assert opened.sock is not None
        self._hold(opened.sock)
        return Opened(opened.sock, b"")

    def _hold(self, sock: socket.socket) -> None:
        with self._lock:
            self._sock = sock
            if self._aborted:
                raise ConnectionError("connecting was given up")

    def _close(self) -> None:
        if self._sock is not None:
            self._sock.close()


def _body_of(error: websocket.WebSocketBadStatusException) -> str:
    body = printable((error.resp_body or b"")[:200].decode(errors="replace").strip())
    return f": {body}" if body else ""
