"""The web server that ``listen`` starts: Werkzeug's threaded one, with what it lacks.

A thread for each connection; the request must be there within ``handshake_timeout``, however slowly it drips. ``_lock``
guards the sockets in use, which ``close`` ends. A child that a task forks closes its copy of the listening socket, which would
keep the port taken.
"""

import errno
import io
import logging
import os
import re
import socket
import ssl
import sys
import threading
import time
import weakref
from ipaddress import ip_address
from typing import Any, Optional

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from ..errors import printable
from .sockets import SocketFile, listen_on_port

#: A key of the WSGI environ: whether the server is bound to loopback, so that whoever calls it is on this machine.
IS_LOOPBACK = "oompa.is_loopback"

#: Another one: a function that tells what was read beyond the request.
EARLY = "oompa.early"

#: Seconds between looks for a request to stop; bounds how long ``close`` waits for the accepting thread.
_POLL_INTERVAL = 0.1

#: Seconds to leave the listening socket alone when there is no descriptor for what it has to give.
_NO_DESCRIPTOR_PAUSE = 0.05

#: Bytes of a request read at once; the buffer lives as long as the connection.
_REQUEST_BUFFER = 1024

#: What the peer of a Unix socket is called, as Werkzeug does: it has no address.
LOCAL_PEER = ("<local>", 0)

#: What a WSGI application is told of a server on a Unix socket, which has no host and port.
LOCAL_SERVER = ("127.0.0.1", 80)

#: What no value of a header may hold (:rfc:`9110#section-5.5`): control characters but the tab. Folded lines are among them.
_FORBIDDEN = re.compile(r"[^\t\x20-\x7e\x80-\xff]")


class _DeadlineReader(io.RawIOBase):
    """Reads a socket under one deadline for everything; the timeout of a socket alone starts anew at each byte."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline
        self.is_done = False

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what there is. The deadline and a fault of the socket count as its end: Werkzeug reads on after a response
        and leaks a selector when that raises."""
        if self.is_done:
            return 0
        try:
            self._sock.settimeout(max(0.001, self._deadline - time.monotonic()))
            return self._sock.recv_into(buffer)
        except OSError:
            return 0


class RequestHandler(WSGIRequestHandler):
    """Reads the request of one connection and has it answered; whoever makes a class of it says where it logs."""

    logger: logging.Logger
    server: "EmbeddedServer"

    def setup(self) -> None:
        """Prepare to read the request, all of it before the deadline."""
        deadline = time.monotonic() + self.server.handshake_timeout
        if isinstance(self.request, ssl.SSLSocket):
            self._start_tls(self.request, deadline)
        super().setup()
        self._reader = _DeadlineReader(self.connection, deadline)
        self.rfile = self._buffered = io.BufferedReader(self._reader, _REQUEST_BUFFER)

    def _start_tls(self, sock: ssl.SSLSocket, deadline: float) -> None:
        """Shake hands, here and not where connections are accepted: a peer that says nothing holds up nobody else."""
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            if _is_probe(sock):
                self.logger.debug("%s connected and left without a word", self.client_address[0])
                raise _NoRequest
            sock.do_handshake()
        except OSError as error:
            self.logger.warning("TLS handshake of %s refused: %s", self.client_address[0], str(error))
            raise _NoRequest from None

    def parse_request(self) -> bool:
        """Read the request; one without headers, or whose headers are none, is refused (:rfc:`9112#section-5`)."""
        if not super().parse_request():
            return False
        if self.request_version == "HTTP/0.9":  # a line alone, without headers; from Python 3.14 on they are a dict then
            self.send_error(400, "HTTP/0.9 is not spoken")
            return False
        is_forbidden = any(_FORBIDDEN.search(value) for value in self.headers.values())
        if is_forbidden or self.headers.defects or len(self.headers.get_all("Host", ())) > 1:
            self.send_error(400, "Bad header")
            return False
        return True

    def make_environ(self) -> Any:
        """What Werkzeug makes of the request, and where it came in."""
        return {**super().make_environ(), IS_LOOPBACK: self.server.is_loopback, EARLY: self._early}

    def _early(self) -> bytes:
        """What was read beyond the request, which nobody reads on."""
        self._reader.is_done = True
        return self._buffered.peek()

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Log a request without its query, which may hold secrets."""
        path = getattr(self, "path", "-").partition("?")[0]
        self.logger.debug("%s: %s %s: %s", self.client_address[0], self.command, printable(path), getattr(code, "value", code))

    def log(self, type: str, message: str, *args: Any) -> None:
        """Log what Werkzeug has to say."""
        self.logger.debug(message, *args)


class _NoRequest(Exception):
    """The connection ended before it could bring a request; it is logged."""


def _is_probe(sock: ssl.SSLSocket) -> bool:
    """Whether a peer on a TLS port has connected only to see that somebody listens, as load balancers do."""
    try:
        return not socket.socket.recv(sock, 1, socket.MSG_PEEK)
    except ConnectionError:
        return True


#: The servers there are, for a fork.
_servers: "weakref.WeakSet[EmbeddedServer]" = weakref.WeakSet()


def _let_go() -> None:
    """In a child: the port is the parent's."""
    for server in list(_servers):
        server.socket.close()


os.register_at_fork(after_in_child=_let_go)


def _shut(sock: socket.socket) -> None:
    """Wake whoever waits on a socket, for good; TLS, if there is any, is not told."""
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        pass


def check_context(context: Any) -> None:
    """Raise TypeError or ValueError for what is no ``ssl.SSLContext`` of a server: no connection could be accepted with it."""
    if context is None:
        return
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(
            f"ssl must be an ssl.SSLContext, not {type(context).__name__}: make one with "
            "ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) and load_cert_chain(certificate, key)"
        )
    if context.protocol == ssl.PROTOCOL_TLS_CLIENT:
        raise ValueError(
            "ssl must be a context for servers, not for clients: ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), with "
            "load_cert_chain(certificate, key)"
        )


class EmbeddedServer(ThreadedWSGIServer):
    """Serves a WSGI application on a thread of its own, from the time it is made until ``close``.

    Args:
        handshake_timeout: Seconds a peer has to send its request, TLS handshake included.
        context: For TLS; None: none.
        path: Of a Unix socket to listen on instead of host and port.

    Raises:
        OSError: The port is taken, or the host is not this machine's; a server listens on the path, or it is no socket.
    """

    def __init__(
        self,
        host: str,
        port: int,
        application: Any,
        logger: logging.Logger,
        *,
        handshake_timeout: float,
        context: Optional[ssl.SSLContext] = None,
        path: Optional[str] = None,
    ) -> None:
        self.handshake_timeout = handshake_timeout
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._logger = logger
        # Bound here: Werkzeug prints and exits when a port is taken.
        self._file = None if path is None else SocketFile(path)
        with listen_on_port(host, port) if self._file is None else self._file.listening as listening:
            handler = type("Handler", (RequestHandler,), {"logger": logger})
            if self._file is None:
                super().__init__(host, listening.getsockname()[1], application, handler, fd=listening.fileno())
            else:
                super().__init__(f"unix://{self._file.path}", 0, application, handler, fd=listening.fileno())
                self.server_address = LOCAL_SERVER
        self.is_loopback = self._file is not None or ip_address(str(self.server_address[0])).is_loopback
        self.ssl_context = context  # Werkzeug would shake hands on the thread that accepts
        _servers.add(self)
        self._thread = threading.Thread(target=self._serve, name="oompa-http", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        self.serve_forever(poll_interval=_POLL_INTERVAL)

    def close(self) -> None:
        """Stop accepting, end the connections there are, and free the port, or remove the file of the socket."""
        if self._file is not None:
            self._file.remove()
        # A child may have a copy that it has yet to close, and the accepting thread wakes. Not every system lets a
        # listening socket be shut down.
        _shut(self.socket)
        self.shutdown()
        self._thread.join()
        with self._lock:
            left = list(self._open)
        for sock in left:
            _shut(sock)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; without a descriptor for it, pause instead of trying again at once for ever."""
        try:
            sock, address = super().get_request()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._logger.error("no descriptor left for a new connection")
                time.sleep(_NO_DESCRIPTOR_PAUSE)
            raise
        if self.ssl_context is not None:
            try:
                sock.getpeername()  # raises for a peer that is gone, where wrap_socket would leak a socket as well
                sock = self.ssl_context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            except BaseException as error:  # the peer is gone already, or the context is none to accept with
                sock.close()
                if isinstance(error, OSError):
                    self._logger.debug("%s connected and left without a word", address[0])
                else:
                    self._logger.exception("a connection could not be accepted")
                    raise OSError("no TLS") from error
                raise
        with self._lock:
            self._open.add(sock)
        return sock, address or LOCAL_PEER

    def shutdown_request(self, request: Any) -> None:
        """A connection is over."""
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what escaped a request, or what kept its thread from starting."""
        if isinstance(sys.exc_info()[1], _NoRequest):
            return
        self._logger.exception("request of %s failed", client_address)
