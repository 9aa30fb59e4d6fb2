"""Clients joined to servers: by a pair of sockets, or by a Unix socket for what makes its clients itself.

Threads: one for each connection, which ends with it. A listener has one more, which ends with the block.
"""

import shutil
import socket
import tempfile
import threading
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Iterator, Optional
from urllib.parse import quote

from ..client.address import Address
from ..client.client import Client, Methods
from ..client.options import ClientOptions
from ..errors import ClientClosed, ConnectionLost
from ..logs import get_logger
from ..options import Unpack
from ..server.embedded import LOCAL_PEER, LOCAL_SERVER, EmbeddedServer, RequestHandler
from ..server.server import Server
from ..server.web import AUTHENTICATE
from .faults import Faults, meddle

_logger = get_logger("oompa.testing")

#: Seconds between looks for a request to stop: what closing costs a test.
_POLL_INTERVAL = 0.001

#: Seconds in which a test's client shakes hands.
_HANDSHAKE_TIMEOUT = 10.0

#: Where a joined client says that it goes.
_URL = "ws://localhost/"


class _Handler(RequestHandler):
    logger = _logger
    server: Any

    def make_environ(self) -> Any:
        """What Werkzeug makes of the request, and who the client is said to be."""
        environ = super().make_environ()
        identity = self.server.identity
        return environ if identity is None else {**environ, AUTHENTICATE: lambda request: identity}


class _Joint:
    """What a request handler takes for its web server: it listens nowhere, and makes each connection itself.

    It holds nothing but the server, and the threads end with their connections: it needs no closing.
    """

    multithread = True
    multiprocess = False
    passthrough_errors = False
    ssl_context = None
    is_loopback = True
    handshake_timeout = _HANDSHAKE_TIMEOUT
    server_address = LOCAL_SERVER
    _server_version = "oompa.testing"

    def __init__(self, server: Server, identity: Any, faults: Optional[Faults]) -> None:
        self.app = server
        self.identity = identity
        self._faults = faults

    def dial(self) -> socket.socket:
        """A new connection: the client's end of it. The server's has a thread of its own."""
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._serve, args=(ours,), name="oompa-joint", daemon=True).start()
        if self._faults is not None:
            between, (theirs, far) = theirs, socket.socketpair()
            meddle(far, between, self._faults)
        return theirs

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            try:
                _Handler(sock, LOCAL_PEER, self)  # type: ignore[arg-type]
            except Exception:
                _logger.exception("a request failed")

    def log(self, type: str, message: str, *args: Any) -> None:
        """Log what Werkzeug has to say."""
        _logger.debug(message, *args)


def connect(
    server: Server,
    methods: Optional[Methods] = None,
    *,
    identity: Any = None,
    faults: Optional[Faults] = None,
    **client_options: "Unpack[ClientOptions]",
) -> Client:
    """A client that is connected to ``server``, without a port; close it, or use it as a context manager.

    It connects anew as any client does, each time by a new pair of sockets.

    Args:
        methods: As of :class:`oompa.Client`.
        identity: What ``authenticate`` is taken to have returned: True, False or who it is. None: it is asked.
        faults: What happens to replies on the way; None: what the stub was told, if ``server`` is one.
        client_options: As of :class:`oompa.Client`, ``headers`` among them.

    Raises:
        ConnectionLost: The server refuses the client, or ``authenticate`` raises; it tells why.
    """
    joint = _Joint(server, identity, faults or getattr(server, "faults", None))
    address: Any = Address(_URL, "localhost", 80, False, dial=joint.dial)
    client = Client([address], methods, **client_options)
    if not client_options.get("no_server"):
        try:
            _wait_connected(client)
        except BaseException:
            client.close()
            raise
    return client


def _wait_connected(client: Client) -> None:
    """Wait for a connection, but not for a server whose own fault is in the way: it would be the same each second."""
    broken: list[ConnectionLost] = []

    def give_up(error: Any) -> None:
        if isinstance(error, ConnectionLost) and error.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            broken.append(error)
            client.close()

    client.on("error", give_up)
    try:
        client.wait_connected(_HANDSHAKE_TIMEOUT)
    except ClientClosed:
        if not broken:
            raise
        raise broken[0] from None
    client.off("error", give_up)


class _Listener(EmbeddedServer):
    """Listens on a Unix socket for the length of a test, and is quick to stop."""

    def __init__(self, server: Server, faults: Optional[Faults]) -> None:
        self._faults = faults
        self._directory = tempfile.mkdtemp(prefix="oompa-")
        path = f"{self._directory}/s"
        try:
            super().__init__("127.0.0.1", 0, server, _logger, handshake_timeout=_HANDSHAKE_TIMEOUT, path=path)
        except BaseException:
            shutil.rmtree(self._directory, ignore_errors=True)
            raise
        self.url = f"ws+unix:{quote(path)}:/"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection, with somebody in between where there are to be faults."""
        if self._faults is not None:
            between, (request, far) = request, socket.socketpair()
            meddle(between, far, self._faults)
        super().process_request(request, client_address)

    def _serve(self) -> None:
        self.serve_forever(poll_interval=_POLL_INTERVAL)

    def close(self) -> None:
        """Stop, end the connections there are, and leave no file behind."""
        super().close()
        self.server_close()
        shutil.rmtree(self._directory, ignore_errors=True)


@contextmanager
def serve(server: Server, *, faults: Optional[Faults] = None) -> Iterator[str]:
    """Give a URL at which ``server`` is to be reached, without a port, while the block runs.

    The server is left open: one of a module may serve every test of it.

    Args:
        faults: What happens to replies on the way; None: what the stub was told, if ``server`` is one.
    """
    listener = _Listener(server, faults or getattr(server, "faults", None))
    try:
        yield listener.url
    finally:
        listener.close()
