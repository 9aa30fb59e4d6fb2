"""The server: a schema of tasks behind a WebSocket, and its health behind HTTP.

Threads: each connection has the web server's thread (see ``connection``); one watcher and one pulse serve them all; ``listen``
adds the thread that accepts, ``close`` one that closes.
"""

import ssl
import threading
from concurrent.futures import Future
from typing import Any, Callable, Mapping, Optional, TypeVar

import flask

from ..emitter import Emitter, Listenable
from ..logs import get_logger
from ..options import Signature, Unpack, complete, count_or_none, seconds
from ..schema import Factory
from ..wire.channel import Channel
from ..wire.closing import CloseCode
from ..wire.codec import codec_named
from ..wire.streams import stream_of
from .admission import Admission
from .ages import Reaper
from .connection import Connection
from .embedded import EmbeddedServer, check_context
from .explorer import check_explorer, check_reach
from .handshake import Accepted
from .health import SharedCheck
from .introspection import Introspection, Load
from .last_resort import LastResort
from .options import SERVER_OPTIONS, ServerOptions
from .paces import Paces
from .pipeline import Healthcheck, Middleware, Pipeline
from .pulse import Pulse
from .resume import resume_within
from .service import Service, Visitor
from .stand_ins import StandIns
from .stopping import Stop
from .watcher import Watcher
from .web import Site, blueprint, paths_of, shared_routes
from .workers import enlist

_logger = get_logger("oompa.server")
_logger.addHandler(LastResort("oompa.server"))

#: The name of the routes of the only server of an application, or the first.
_BLUEPRINT = "oompa"

#: The events, and what each listener gets.
_EVENTS = {
    "connection": ("connection",),
    "terminated": ("connection",),
    "error": ("exception",),
    "reply": ("reply",),
    "stale": ("reply",),
}

M = TypeVar("M", bound=Middleware)


class Server(Listenable):
    """Runs the tasks of a schema for WebSocket clients.

    Args:
        schema: Task types to factories, each ``factory(payload) -> result``; a plain mapping or a :class:`Schema`.
        healthcheck: A callable; healthy unless it raises or returns False. None: always healthy.
        options: See :class:`~oompa.server.options.ServerOptions`, which describes each.

    Events: ``connection(connection)``, ``terminated(connection)``, ``error(exception)`` when the healthcheck fails,
    ``reply(reply)`` when a reply is ready, ``stale(reply)`` after it when there is no live connection left. Listeners run on
    the thread that emits; one that raises is logged.

    A server is a WSGI callable, for gunicorn with threads.
    """

    __signature__ = Signature(ServerOptions, SERVER_OPTIONS)

    def __init__(
        self,
        schema: Mapping[str, Factory],
        healthcheck: Optional[Healthcheck] = None,
        **options: "Unpack[ServerOptions]",
    ) -> None:
        self._options = complete("Server", SERVER_OPTIONS, options)
        check_explorer(self._options, paths_of(self._options))
        codec = codec_named(self._options["codec"], self._options["default"])
        self._emitter = Emitter(_EVENTS, _logger)
        self._introspection = Introspection(schema, self._options, self._load)
        self._pipeline = Pipeline(
            schema,
            None if healthcheck is None else SharedCheck(healthcheck, self._options["healthcheck_timeout"]),
            codec=codec,
            max_reply_size=self._options["max_message_size"],
            expose_errors=self._options["expose_errors"],
            on_unhealthy=self._unhealthy,
            logger=_logger,
            own=self._introspection.answers,
            count=self._introspection.count,
        )
        watcher = Watcher()
        self._service = Service(
            self._pipeline,
            codec,
            watcher,
            StandIns(),
            Paces(),
            self._emitter,
            _logger,
            self._options,
            resume_within(self._options["resume_timeout"], codec, watcher),
        )
        self._admission = Admission(self._options["max_connections"], self._options["close_timeout"], _logger)
        self._reaper = self._new_reaper()
        self._pulse = Pulse(self._options["ping_interval"])
        self._embedded: Optional[EmbeddedServer] = None
        self._stop: Optional[Stop] = None
        #: The Flask application: add routes of your own to it.
        self.app = flask.Flask(__name__, static_folder=None)
        self.init_app(self.app)
        enlist(self)

    # For users.

    def __repr__(self) -> str:
        where = "" if self.port is None else f" on port {self.port}"
        return f"<Server{where} with {len(self.connections)} connections{' draining' if self.is_draining() else ''}>"

    @property
    def port(self) -> Optional[int]:
        """The port ``listen`` has bound; None while not listening, and on a Unix socket."""
        return None if self._embedded is None else self._embedded.port or None

    @property
    def connections(self) -> list[Connection]:
        """The connections there are at the moment."""
        return self._admission.connections

    @property
    def max_connections(self) -> Optional[int]:
        """Connections beyond which an upgrade is refused; may be set at any time. None: no limit."""
        return self._admission.limit

    @max_connections.setter
    def max_connections(self, limit: Optional[int]) -> None:
        self._admission.limit = count_or_none("max_connections", limit)

    @property
    def drain_timeout(self) -> float:
        """Seconds running tasks have to finish when the server closes."""
        return self._options["drain_timeout"]

    @property
    def close_timeout(self) -> float:
        """Seconds the closing handshake may take."""
        return self._options["close_timeout"]

    def use(self, middleware: M) -> M:
        """Add a middleware, ``middleware(request, call_next) -> result``; also a decorator.

        Middleware runs in the order of ``use``, for known task types only.
        """
        self._pipeline.use(middleware)
        return middleware

    def knows(self, type: str) -> bool:
        """Whether there is a task of that type."""
        return self._pipeline.knows(type)

    def init_app(self, app: flask.Flask) -> None:
        """Put the routes of this server into a Flask application that exists.

        Tasks of connections that come through it run in its application contexts, unless ``app_context`` is False.

        Raises:
            ValueError: The application, or another server in it, has a route of the same path.
        """
        if self.ready_path in (self._options["path"], self._options["health_path"]):
            raise ValueError(f"ready_path={self.ready_path!r} must differ from path and health_path: it tells something else")
        servers = app.extensions.get("oompa", [])
        name = f"oompa-{len(servers) + 1}" if servers else _BLUEPRINT
        self._check_routes(app, name)
        app.extensions["oompa"] = [*servers, self]
        app.register_blueprint(blueprint(name, Site(self, self._options, self._context_of(app), _logger)))

    def _check_routes(self, app: flask.Flask, name: str) -> None:
        """Raise ValueError where the application has a route that this server needs."""
        for problem in shared_routes(app, name, self._options):
            raise ValueError(problem)

    def _context_of(self, app: flask.Flask) -> Optional[flask.Flask]:
        """The application in whose contexts the tasks run that come through ``app``."""
        wanted = self._options["app_context"]
        return app if wanted or (wanted is None and app is not self.app) else None

    def __call__(self, environ: Any, start_response: Any) -> Any:
        """Answer a request as a WSGI application."""
        return self.app(environ, start_response)

    def listen(
        self,
        port: Optional[int] = None,
        host: str = "127.0.0.1",
        ssl: Optional[ssl.SSLContext] = None,
        *,
        path: Optional[str] = None,
    ) -> "Future[None]":
        """Serve on ``host`` and ``port``; port 0 picks one, ``port`` tells it. With an ``ssl.SSLContext``, over TLS.

        Args:
            path: Of a Unix socket, instead of a port: whoever may write to the file may connect. It goes when the server
                closes; one that a killed server left behind is replaced.

        Returns:
            A Future that is done when the server is ready; OSError when the port or the path is taken.

        Raises:
            RuntimeError: The server listens already.
            TypeError: Neither port nor path is given, or both; ``ssl`` is no ``ssl.SSLContext``.
            ValueError: ``ssl`` is not for a server; an explorer without ``authenticate`` would be open to more than loopback;
                a route was added to ``app`` that has a path of this server's.
        """
        if (port is None) == (path is None):
            raise TypeError('listen needs a port, such as listen(9000), or a path, such as listen(path="/run/app.sock")')
        check_context(ssl)
        if self in self.app.extensions.get("oompa", ()):  # it may have been given another application
            self._check_routes(self.app, _BLUEPRINT)
        if path is None:
            check_reach(self._options, host)
        if self._embedded is not None:
            raise RuntimeError(f"the server listens already, on {self._place()}")
        ready: Future[None] = Future()
        timeout = self._options["handshake_timeout"]
        try:
            self._admission.reopen()
            self._embedded = EmbeddedServer(
                host, port or 0, self, _logger, handshake_timeout=timeout, context=ssl, path=path
            )
        except (OSError, OverflowError) as error:
            ready.set_exception(error)
        else:
            _logger.info("listening on %s", f"{host}:{self.port}" if path is None else path)
            ready.set_result(None)
        return ready

    def _place(self) -> str:
        """Where it listens, in words."""
        return f"port {self.port}" if self._embedded is None or self.port else self._embedded.host

    def close(self, timeout: Optional[float] = None) -> "Future[None]":
        """Drain and close: no new connections, running tasks finish, every WebSocket is closed with 1000, then HTTP.

        Args:
            timeout: Seconds running tasks have, instead of ``drain_timeout``; 0 for none.

        Returns:
            A Future that is done when everything is closed.

        Raises:
            TypeError, ValueError: The timeout is no number of seconds.
        """
        closed: Future[None] = Future()
        limit = self.drain_timeout if timeout is None else timeout and seconds("timeout", timeout)
        threading.Thread(target=self._close, args=(limit, closed), name="oompa-closing", daemon=True).start()
        return closed

    def run(
        self,
        port: Optional[int] = None,
        host: str = "127.0.0.1",
        ssl: Optional[ssl.SSLContext] = None,
        *,
        path: Optional[str] = None,
        on_ready: Callable[[], object] = lambda: None,
    ) -> None:
        """Listen and block until SIGTERM, SIGINT or ``close``; drain, and return. A second signal does its usual work.

        Args:
            on_ready: Called when the server is ready, as with ``lambda: print(server.port)``.

        Raises:
            OSError: The port or the path is taken.
            TypeError: As ``listen``.
        """
        with Stop() as self._stop:
            self.listen(port, host, ssl, path=path).result()
            on_ready()
            self._stop.wait()
        self.close().result()

    def info(self) -> dict[str, Any]:
        """Who this server is: name, id, version, tasks and their docstrings; what a request of type ``$OOMPA/INFO`` gets."""
        return self._introspection.info()

    def stats(self) -> dict[str, Any]:
        """What this server, in this process, has done and has in hand: what a request of type ``$OOMPA/STATS`` gets.

        By task type ``num_requests``, ``num_errors``, ``processing_time`` and ``average_processing_time`` in seconds, and
        ``last_error``, which is None where ``expose_errors`` is False. Types that are not in the schema count under ``""``,
        pings nowhere. Any thread.
        """
        return self._introspection.stats()

    def asyncapi(self) -> dict[str, Any]:
        """The tasks as an AsyncAPI 3 document: what a request of type ``$OOMPA/SCHEMA`` gets.

        Payloads are described as far as the signatures and annotations of the factories tell.
        """
        return self._introspection.asyncapi()

    # For the web side.

    def check_health(self) -> Any:
        """Raise what the healthcheck raises."""
        return self._pipeline.check_health()

    def is_draining(self) -> bool:
        """Whether ``close`` was called."""
        return self._admission.is_draining

    def server_id(self) -> Optional[str]:
        """What clients know this process by; None where the server tells nothing of itself."""
        return self._introspection.id if self._options["introspection"] else None

    @property
    def ready_path(self) -> str:
        """Where readiness is told."""
        return self._options["ready_path"]

    def is_ready(self) -> bool:
        """Whether a further connection would be admitted."""
        return self._admission.has_room()

    def admit(self) -> bool:
        """Take a place for a connection, if there is one."""
        return self._admission.admit()

    def dismiss(self) -> None:
        """Give a place back."""
        self._admission.dismiss()

    def serve(self, accepted: Accepted, visitor: Visitor) -> None:
        """Serve one WebSocket until it ends."""
        options = self._options
        channel = Channel(
            stream_of(accepted.sock),
            is_client=False,
            max_message_size=options["max_message_size"],
            ping_interval=options["ping_interval"],
            write_timeout=options["write_timeout"],
            close_timeout=options["close_timeout"],
            received=accepted.received,
            announced=visitor.announced,
        )
        connection = Connection(channel, self._service, visitor)
        pulse = self._pulse
        self._admission.entered(connection)
        try:
            pulse.entered(connection)
            if self._reaper is not None:
                self._reaper.entered(connection)
            connection.serve(visitor.came_at)
        finally:
            pulse.left(connection)
            self._admission.left(connection)

    def disconnect(self) -> int:
        """Close every connection with 1000, so that clients connect anew; returns how many there were."""
        connections = self.connections
        for connection in connections:
            connection.close(CloseCode.NORMAL_CLOSURE)
        return len(connections)

    # Closing.

    def see_out(self, limit: float) -> None:
        """See every connection end, on the calling thread; what runs may take ``limit`` seconds to finish."""
        self._admission.drain(limit)

    def _close(self, limit: float, closed: "Future[None]") -> None:
        try:
            _logger.info("draining: %d connections, whose tasks have %g seconds", len(self.connections), limit)
            self._admission.drain(limit)
            watcher, stand_ins = self._service.watcher, self._service.stand_ins
            fresh = Watcher()
            resume = resume_within(self._options["resume_timeout"], self._service.codec, fresh)
            self._service = self._service._replace(watcher=fresh, stand_ins=StandIns(), resume=resume)
            watcher.close()
            stand_ins.close()
            if self._reaper is not None:
                self._reaper.close()
                self._reaper = self._new_reaper()
            self._pulse.close()
            self._pulse = Pulse(self._options["ping_interval"])
            embedded = self._embedded
            if embedded is not None:
                embedded.close()
                self._embedded = None
            if self._stop is not None:
                self._stop.request()
            _logger.info("closed")
            closed.set_result(None)
        except BaseException as error:
            closed.set_exception(error)
            raise

    def _new_reaper(self) -> Optional[Reaper]:
        age = self._options["max_connection_age"]
        return None if age is None else Reaper(age, self.drain_timeout)

    def _load(self) -> Load:
        connections = self.connections
        loads = [connection.load() for connection in connections]
        return Load(len(connections), sum(running for running, _ in loads), sum(queued for _, queued in loads))

    def _unhealthy(self, error: BaseException) -> None:
        self._emitter.emit("error", error)
