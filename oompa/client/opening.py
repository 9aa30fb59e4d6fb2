"""The client's door: how a WebSocket gets open.

websocket-client writes the request and checks the answer, and goes through SOCKS proxies; it is used for that alone (see
``oompa.wire.channel``). The only file that imports it; its errors end here.
"""

import base64
import re
import socket
import ssl
import threading
import time
from typing import Any, Mapping, NamedTuple, Optional

import websocket

from ..errors import ConnectionLost, printable
from ..wire.announcement import Announcement, read_announcement
from .address import Address

#: Bytes the answer to a handshake may have; a real one has a few hundred.
_ANSWER_LIMIT = 65536


class Opened(NamedTuple):
    """A socket past the client's handshake, the bytes that came with the answer, and what that told of the server."""

    sock: socket.socket
    received: bytes
    announced: Announcement


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
        self._lock = threading.RLock()
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
        opened = websocket.WebSocket()
        opened.connect(self._address.url, socket=shaking, **options)  # type: ignore[no-untyped-call]
        return Opened(sock, shaking.received, _announced(opened))

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
        return Opened(opened.sock, b"", _announced(opened))

    def _hold(self, sock: socket.socket) -> None:
        with self._lock:
            self._sock = sock
            if self._aborted:
                raise ConnectionError("connecting was given up")

    def _close(self) -> None:
        if self._sock is not None:
            self._sock.close()


def _announced(opened: websocket.WebSocket) -> Announcement:
    headers = opened.getheaders() or {}  # by their names in lower case
    return read_announcement(lambda name: headers.get(name.lower()))


def _body_of(error: websocket.WebSocketBadStatusException) -> str:
    body = printable((error.resp_body or b"")[:200].decode(errors="replace").strip())
    return f": {body}" if body else ""
