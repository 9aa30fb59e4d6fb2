"""The server: a schema of tasks behind a WebSocket, and its health behind HTTP.

Threads: each connection has the web server's thread (see ``connection``); one watcher serves them all; ``listen`` adds the
thread that accepts, ``close`` one that closes. ``_state`` guards the set of connections, the places taken and whether the
server drains.
"""

import logging
import signal
import ssl
import threading
from concurrent.futures import Future
from queue import SimpleQueue
from time import monotonic
from typing import Any, Iterable, Mapping, Optional, TypeVar

import flask

from .. import options
from ..emitter import Emitter, Listenable
from ..schema import Factory
from ..wire.channel import Channel
from ..wire.closing import CloseCode
from ..wire.codec import codec_named
from ..wire.streams import stream_of
from .connection import Connection
from .embedded import EmbeddedServer
from .handshake import Accepted, wants_websocket
from .pipeline import Healthcheck, Middleware, Pipeline
from .watcher import Watcher
from .web import Authenticate, Visitor, WebOptions, blueprint, upgrade

_logger = logging.getLogger("oompa.server")

#: Seconds between looks at the connections that are being closed.
_CLOSING_LOOK = 0.05

M = TypeVar("M", bound=Middleware)


class Server(Listenable):
    """Runs the tasks of a schema for WebSocket clients.

    Args:
        schema: Task types to factories, each ``factory(payload) -> result``; a plain mapping or a :class:`Schema`.
        healthcheck: A callable; healthy unless it raises or returns False. None: always healthy.
        path: Where the WebSocket lives.
        health_path: Where ``GET`` tells the health: 200 ``ok``, 500 ``error``, 503 while draining.
        disconnect_token: Given, ``POST /disconnect`` with ``Authorization: Bearer <token>`` closes every connection.
        concurrency: Tasks of one connection at once; 1 means one by one, in order.
        max_queued: Requests of one connection that may wait for their turn, ``max_message_size`` bytes of them in all;
            beyond, the server stops reading the connection.
        max_connections: Connections beyond which an upgrade gets a 503 with Retry-After; None: no limit.
        max_message_size: Bytes of a message, in and out; beyond, close code 1009, or an ERR instead of the reply.
        ping_interval: Seconds of silence before a ping; as many again without a sign of life end the connection. None: off.
        handshake_timeout: Seconds a peer has to send its request to the server that ``listen`` starts.
        write_timeout: Seconds a write may stand still before the connection is ended.
        close_timeout: Seconds the closing handshake may take.
        drain_timeout: Seconds running tasks have to finish when the server closes.
        authenticate: Called with the upgrade request, a ``flask.Request``, before the handshake. False or None refuses
            with 401, PermissionError with 403; True lets in; anything else lets in and becomes ``connection.identity``.
        origins: Origins of browsers that may connect, such as ``["https://example.com"]``, or ``["*"]``. None: the same
            host only. Clients that are no browsers send no Origin and are not asked.
        expose_errors: False: a handler's exception stays in the log, and the client gets an id to find it by.
        codec: ``"json"``, ``"msgspec"``, or ``"auto"`` for msgspec where it is installed.

    Events: ``connection(connection)``, ``terminated(connection)``, ``error(exception)`` when the healthcheck fails,
    ``reply(reply)`` when a reply is ready, ``stale(reply)`` after it when there is no live connection left. Listeners run on
    the thread that emits; one that raises is logged.

    A server is a WSGI callable, for gunicorn with threads.
    """

    def __init__(
        self,
        schema: Mapping[str, Factory],
        healthcheck: Optional[Healthcheck] = None,
        *,
        path: str = "/",
        health_path: str = "/health",
        disconnect_token: Optional[str] = None,
        concurrency: int = 16,
        max_queued: int = 1000,
        max_connections: Optional[int] = None,
        max_message_size: int = 16 * 1024 * 1024,
        ping_interval: Optional[float] = 25.0,
        handshake_timeout: float = 10.0,
        write_timeout: float = 10.0,
        close_timeout: float = 2.0,
        drain_timeout: float = 30.0,
        authenticate: Optional[Authenticate] = None,
        origins: Optional[Iterable[str]] = None,
        expose_errors: bool = True,
        codec: str = "json",
    ) -> None:
        self._concurrency = options.count("concurrency", concurrency)
        self._max_queued = options.count("max_queued", max_queued)
        self._max_connections = options.count_or_none("max_connections", max_connections)
        self._max_message_size = options.count("max_message_size", max_message_size)
        self._ping_interval = options.seconds_or_none("ping_interval", ping_interval)
        self._handshake_timeout = options.seconds("handshake_timeout", handshake_timeout)
        self._write_timeout = options.seconds("write_timeout", write_timeout)
        self._close_timeout = options.seconds("close_timeout", close_timeout)
        self._drain_timeout = options.seconds("drain_timeout", drain_timeout)
        self._codec = codec_named(codec)
        self._emitter = Emitter(("connection", "terminated", "error", "reply", "stale"), _logger)
        self._pipeline = Pipeline(
            schema,
            healthcheck,
            codec=self._codec,
            max_reply_size=self._max_message_size,
            expose_errors=expose_errors,
            on_unhealthy=self._unhealthy,
            logger=_logger,
        )
        self._web_options = WebOptions(
            options.route("path", path),
            options.route("health_path", health_path),
            disconnect_token,
            authenticate,
            _origins(origins),
        )
        self._watcher = Watcher()
        self._slow_types: set[str] = set()
        self._state = threading.Lock()
        self._connections: set[Connection] = set()
        self._places = 0
        self._draining = False
        self._embedded: Optional[EmbeddedServer] = None
        self._stops: SimpleQueue[None] = SimpleQueue()
        #: The Flask application: add routes of your own to it.
        self.app = flask.Flask(__name__, static_folder=None)
        self._wsgi_app = self.app.wsgi_app
        self.init_app(self.app)

    # For users.

    @property
    def port(self) -> Optional[int]:
        """The port ``listen`` has bound; None while not listening."""
        return None if self._embedded is None else self._embedded.port

    @property
    def connections(self) -> list[Connection]:
        """The connections there are at the moment."""
        with self._state:
            return list(self._connections)

    @property
    def max_connections(self) -> Optional[int]:
        """Connections beyond which an upgrade is refused; may be set at any time. None: no limit."""
        return self._max_connections

    @max_connections.setter
    def max_connections(self, limit: Optional[int]) -> None:
        self._max_connections = options.count_or_none("max_connections", limit)

    @property
    def drain_timeout(self) -> float:
        """Seconds running tasks have to finish when the server closes."""
        return self._drain_timeout

    @property
    def close_timeout(self) -> float:
        """Seconds the closing handshake may take."""
        return self._close_timeout

    def use(self, middleware: M) -> M:
        """Add a middleware, ``middleware(request, call_next) -> result``; also a decorator.

        Middleware runs in the order of ``use``, for known task types only.
        """
        self._pipeline.use(middleware)
        return middleware

    def init_app(self, app: flask.Flask) -> None:
        """Put the routes of this server into a Flask application that exists."""
        servers = app.extensions.setdefault("oompa", [])
        servers.append(self)
        name = "oompa" if len(servers) == 1 else f"oompa-{len(servers)}"
        app.register_blueprint(blueprint(name, self, self._web_options, _logger))

    def __call__(self, environ: Any, start_response: Any) -> Any:
        """Answer a request as a WSGI application."""
        if self._is_simple_upgrade(environ):
            return upgrade(flask.Request(environ), self, self._web_options, _logger)(environ, start_response)
        return self.app(environ, start_response)

    def _is_simple_upgrade(self, environ: Any) -> bool:
        """Whether Flask, whose contexts a connection would keep for its whole life, adds nothing to an upgrade."""
        app, web = self.app, self._web_options
        return (
            environ["PATH_INFO"] == web.path
            and environ["REQUEST_METHOD"] == "GET"
            and wants_websocket(environ)
            and web.authenticate is None
            and app.wsgi_app == self._wsgi_app
            and not (app.before_request_funcs or app.after_request_funcs or app.teardown_request_funcs)
        )

    def listen(
        self, port: int, host: str = "127.0.0.1", ssl: Optional[ssl.SSLContext] = None
    ) -> "Future[None]":
        """Serve on ``host`` and ``port``; port 0 picks one, ``port`` tells it. With an ``ssl.SSLContext``, over TLS.

        Returns:
            A Future that is done when the server is ready; OSError when the port is taken.

        Raises:
            RuntimeError: The server listens already.
        """
        if self._embedded is not None:
            raise RuntimeError(f"the server listens already, on port {self.port}")
        ready: Future[None] = Future()
        try:
            with self._state:
                self._draining = False
            self._embedded = EmbeddedServer(
                host, port, self, _logger, handshake_timeout=self._handshake_timeout, context=ssl
            )
        except (OSError, OverflowError) as error:
            ready.set_exception(error)
        else:
            ready.set_result(None)
        return ready

    def close(self, timeout: Optional[float] = None) -> "Future[None]":
        """Drain and close: no new connections, running tasks finish, every WebSocket is closed with 1000, then HTTP.

        Args:
            timeout: Seconds running tasks have, instead of ``drain_timeout``; 0 for none.

        Returns:
            A Future that is done when everything is closed.
        """
        closed: Future[None] = Future()
        limit = self._drain_timeout if timeout is None else timeout
        threading.Thread(target=self._close, args=(limit, closed), name="oompa-closing", daemon=True).start()
        return closed

    def run(self, port: int, host: str = "127.0.0.1", ssl: Optional[ssl.SSLContext] = None) -> None:
        """Listen and block until SIGTERM, SIGINT or ``close``; drain, and return. A second signal does its usual work.

        Raises:
            OSError: The port is taken.
        """
        self._stops = SimpleQueue()
        previous = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                previous[number] = signal.signal(number, lambda *_: self._stops.put(None))
        try:
            self.listen(port, host, ssl).result()
            _logger.info("listening on %s:%s", host, self.port)
            self._stops.get()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        self.close().result()

    # For the web side.

    def check_health(self) -> Any:
        """Raise what the healthcheck raises."""
        return self._pipeline.check_health()

    def is_draining(self) -> bool:
        """Whether ``close`` was called."""
        return self._draining

    def admit(self) -> bool:
        """Take a place for a connection, if there is one."""
        with self._state:
            if self._draining or (self._max_connections is not None and self._places >= self._max_connections):
                return False
            self._places += 1
            return True

    def dismiss(self) -> None:
        """Give a place back."""
        with self._state:
            self._places -= 1

    def serve(self, accepted: Accepted, visitor: Visitor) -> None:
        """Serve one WebSocket until it ends."""
        channel = Channel(
            stream_of(accepted.sock),
            is_client=False,
            max_message_size=self._max_message_size,
            ping_interval=self._ping_interval,
            write_timeout=self._write_timeout,
            close_timeout=self._close_timeout,
        )
        connection = Connection(
            channel,
            self._pipeline,
            self._codec,
            self._watcher,
            self._slow_types,
            self._emitter,
            _logger,
            concurrency=self._concurrency,
            max_queued=self._max_queued,
            max_queued_size=self._max_message_size,
            ping_interval=self._ping_interval,
            close_timeout=self._close_timeout,
            remote_address=visitor.remote_address,
            headers=visitor.headers,
            identity=visitor.identity,
        )
        with self._state:
            self._connections.add(connection)
            draining = self._draining
        if draining:
            connection.drain()
        try:
            connection.serve()
        finally:
            with self._state:
                self._connections.discard(connection)

    def disconnect(self) -> int:
        """Close every connection with 1000, so that clients connect anew; returns how many there were."""
        connections = self.connections
        for connection in connections:
            connection.close(CloseCode.NORMAL_CLOSURE)
        return len(connections)

    # Closing.

    def _close(self, limit: float, closed: "Future[None]") -> None:
        try:
            with self._state:
                self._draining = True
                embedded, connections = self._embedded, list(self._connections)
            for connection in connections:
                connection.drain()
            self._finish_connections(monotonic() + limit)
            watcher, self._watcher = self._watcher, Watcher()
            watcher.close()
            if embedded is not None:
                embedded.close()
                self._embedded = None
            self._stops.put(None)
            closed.set_result(None)
        except BaseException as error:
            closed.set_exception(error)
            raise

    def _finish_connections(self, deadline: float) -> None:
        """Wait until every connection has ended: drained and closed, or cut where the peer or a task takes too long."""
        pause = threading.Event()
        while (connections := self.connections) or self._places:
            now = monotonic()
            if now >= deadline:
                for connection in connections:
                    connection.close()
            is_late = now > deadline + self._close_timeout
            if is_late and not any(connection.is_live for connection in connections):
                return  # what is left are tasks that do not end; their threads are daemons
            if now > deadline + 2 * self._close_timeout:
                _logger.error("%d connections could not be ended: a listener may be blocking", len(connections))
                return
            pause.wait(_CLOSING_LOOK)

    def _unhealthy(self, error: BaseException) -> None:
        self._emitter.emit("error", error)


def _origins(origins: Optional[Iterable[str]]) -> Optional[frozenset[str]]:
    found = None if origins is None else list(origins)
    if isinstance(origins, str) or not all(isinstance(origin, str) for origin in found or ()):
        raise TypeError(f"origins must be a list of strings, such as ['https://example.com'], not {origins!r}")
    return None if found is None else frozenset(found)
