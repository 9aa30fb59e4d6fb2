"""The Flask side: health, readiness, upgrade, disconnect. HTTP ends here; what is upgraded goes to a ``Connection``.

The view of the WebSocket path decides and answers like any other, whatever the application does around its views. The response
it returns hands the socket over to a thread of ours where it can be taken off the web server (see ``takeover``), and is done.
Elsewhere it takes the socket over when the web server iterates it, and lives as long as the connection; by then Flask has ended
the request and its contexts. Either way what they held, a database session of a ``before_request`` say, is free.
"""

import hmac
import logging
import socket
import threading
from time import monotonic
from typing import Any, Iterable, Iterator, Mapping, NamedTuple, Optional, Protocol, Union

from flask import Blueprint, Flask, Request, Response, current_app, request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException

from ..errors import printable
from ..wire.announcement import read_announcement, server_headers
from ..wire.messages import describe
from .contexts import run_apart
from .explorer import add_explorer, explorer_paths
from .gates import check_host, check_origin, identify
from .handshake import KEY, Accepted, BadHandshake, accept, check_handshake, chosen_subprotocol, wants_websocket
from .options import ServerOptions
from .service import Visitor
from .takeover import SOCKET, Taken, can_be_taken, early_bytes, is_hosted
from .workers import Ending, hosts

#: What the endpoint of readiness ends in: the one path that several servers of an application may share.
READY = ".ready"

#: What to do about two routes of one path, where it is not to choose another path.
_REMEDIES = {"disconnect_token": "one of the two has to go"}

#: Where every connection is closed.
DISCONNECT_PATH = "/disconnect"

#: A key of the WSGI environ: what stands for ``authenticate``. No header can set it: those begin with ``HTTP_``.
AUTHENTICATE = "oompa.authenticate"

#: What gunicorn's sync worker is told, which does one thing at a time.
NO_THREADS = "a WebSocket needs a web server with threads: gunicorn --threads 4, or -k gevent, not -k sync"

#: Seconds after which a refused client may try again.
RETRY_AFTER = 1


class Host(Ending, Protocol):
    """What the web side needs of the server."""

    @property
    def ready_path(self) -> str:
        """Where readiness is told."""

    def check_health(self) -> Any:
        """Raise when unhealthy."""

    def is_ready(self) -> bool:
        """Whether a further connection would be admitted."""

    def is_draining(self) -> bool:
        """Whether the server is shutting down."""

    def server_id(self) -> Optional[str]:
        """What clients know this process by; None: nothing."""

    def admit(self) -> bool:
        """Take a place for a connection, if there is one."""

    def dismiss(self) -> None:
        """Give the place back."""

    def serve(self, accepted: Accepted, visitor: Visitor) -> None:
        """Serve a WebSocket until it ends, in a place that was taken."""

    def disconnect(self) -> int:
        """Close every connection; returns how many there were."""


class Site(NamedTuple):
    """A server in an application.

    Attributes:
        app: The application in whose contexts tasks run; None: in none.
    """

    host: Host
    options: ServerOptions
    app: Optional[Flask]
    logger: logging.Logger


def blueprint(name: str, site: Site) -> Blueprint:
    """The routes of a server, for any Flask application."""
    host, options, _, logger = site
    unchecked = threading.Lock()  # guards nothing: whoever gets it, the first request, looks

    def check_routes() -> None:
        if unchecked.acquire(blocking=False):
            for problem in shared_routes(current_app, name, options):
                logger.error("%s", problem)

    def health() -> Response:
        check_routes()
        return _health(site)

    def ready() -> Response:  # of all servers in the application that tell it here
        check_routes()
        hosts: list[Host] = [each for each in current_app.extensions["oompa"] if each.ready_path == options["ready_path"]]
        if any(each.is_draining() for each in hosts):
            return _busy("draining")
        return _text("ok", 200) if all(each.is_ready() for each in hosts) else _busy("full")

    def websocket() -> Response:
        check_routes()
        return _upgrade(request, site) if wants_websocket(request.environ) else _health(site)

    def disconnect() -> Response:
        expected = f"Bearer {options['disconnect_token']}"
        if not hmac.compare_digest(request.headers.get("Authorization", "").encode(), expected.encode()):
            return _text("a bearer token is needed", 401, {"WWW-Authenticate": "Bearer"})
        return _text(f"{host.disconnect()} connections closed", 200)

    routes = Blueprint(name, __name__)
    for upgrades in (False, True):  # Werkzeug routes by whether the request has Upgrade: websocket
        routes.add_url_rule(options["path"], "websocket", websocket, methods=["GET"], websocket=upgrades)
    if options["health_path"] != options["path"]:
        routes.add_url_rule(options["health_path"], "health", health, methods=["GET"])
    routes.add_url_rule(options["ready_path"], "ready", ready, methods=["GET"])
    if options["disconnect_token"] is not None:
        routes.add_url_rule(DISCONNECT_PATH, "disconnect", disconnect, methods=["POST"])
    add_explorer(routes, options)
    return routes


def paths_of(options: ServerOptions) -> list[tuple[str, str, str]]:
    """The routes of a server, each as the option that names it, its path and its method."""
    paths = [(option, options[option], "GET") for option in ("path", "health_path", "ready_path")]
    paths += [("explorer", path, "GET") for path in explorer_paths(options)]
    return paths if options["disconnect_token"] is None else [*paths, ("disconnect_token", DISCONNECT_PATH, "POST")]


def shared_routes(app: Flask, name: str, options: ServerOptions) -> Iterator[str]:
    """What is wrong with each route of the application that a server needs: one of the two is never reached.

    Args:
        name: Of the blueprint of that server, whose own routes are right.
    """
    for option, path, method in paths_of(options):
        for rule in app.url_map.iter_rules():
            is_ours = rule.endpoint.startswith(f"{name}.") or (option == "ready_path" and rule.endpoint.endswith(READY))
            if rule.rule == path and method in (rule.methods or ()) and not is_ours:
                remedy = _REMEDIES.get(option, f"choose another one with Server(..., {option}=...)")
                yield (
                    f"{option}={path!r}: the application has a route of this path already, the endpoint {rule.endpoint!r}, and "
                    f"one of the two is never reached; {remedy}"
                )


def _text(text: str, status: int, headers: Optional[dict[str, str]] = None) -> Response:
    return Response(text, status, headers, mimetype="text/plain")


def _busy(text: str) -> Response:
    return _text(text, 503, {"Retry-After": str(RETRY_AFTER)})


def _health(site: Site) -> Response:
    if site.host.is_draining():
        return _busy("draining")
    try:
        run_apart(site.app, site.host.check_health)
    except BaseException as error:
        site.logger.warning("the healthcheck failed: %s", printable(describe(error)))
        return _text("error", 500)
    return _text("ok", 200)


def _upgrade(request: Request, site: Site) -> Response:
    """Decide on an upgrade request."""
    host, options, app, logger = site
    environ = request.environ
    try:
        identity = _let_in(request, options)
    except BadHandshake as fault:
        logger.warning("handshake of %s refused: %s", request.remote_addr, str(fault))
        return _text(str(fault), fault.status, dict(fault.headers))
    except HTTPException as aborted:
        logger.warning("handshake of %s refused: authenticate answered %s", request.remote_addr, aborted.code)
        raise
    if not environ.get("wsgi.multithread", True):
        logger.error("handshake of %s refused: %s", request.remote_addr, NO_THREADS)
        return _text(NO_THREADS, 501)
    if host.is_draining():
        return _busy("draining")
    address = (request.remote_addr or "", int(environ.get("REMOTE_PORT") or 0))
    announced = read_announcement(request.headers.get)
    visitor = Visitor(address, Headers(list(request.headers)), identity, announced, app, monotonic())
    headers = server_headers(options["max_message_size"], host.server_id(), options["resume_timeout"] is not None)
    subprotocol = chosen_subprotocol(environ, options["subprotocols"])
    if subprotocol is not None:
        headers["Sec-WebSocket-Protocol"] = subprotocol
    return _Upgrade(host, visitor, headers, logger)


def _let_in(request: Request, options: ServerOptions) -> Any:
    """Who the visitor is. Raises BadHandshake, or what ``authenticate`` raises."""
    check_handshake(request.environ)
    check_host(request.environ, options["hosts"])
    check_origin(request.environ, options["origins"])
    return identify(request.environ.get(AUTHENTICATE, options["authenticate"]), request)


class _Upgrade(Response):
    """The answer to a good upgrade request. Where the socket can be taken off the web server it is an ordinary one, which goes
    nowhere; else the whole life of the WebSocket."""

    def __init__(self, host: Host, visitor: Visitor, answer: Mapping[str, str], logger: logging.Logger) -> None:
        super().__init__(status=101)
        self._host = host
        self._visitor = visitor
        self._answer = answer
        self._logger = logger

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        if self.status_code != 101:  # an ``after_request`` has made another answer of it
            return super().__call__(environ, start_response)
        if is_hosted(environ):
            hosts(self._host)
        if not can_be_taken(environ):
            return self._live(environ, start_response)
        refusal = self._hand_over(environ)
        return super().__call__(environ, start_response) if refusal is None else refusal(environ, start_response)

    def _hand_over(self, environ: Any) -> Optional[Response]:
        """Serve the WebSocket on a thread of its own; returns what is to be answered instead where that cannot be done."""
        if not self._host.admit():
            return self._full()
        try:
            taken = self._taken(environ)
        except (OSError, RuntimeError, MemoryError) as error:
            self._host.dismiss()
            self._logger.error("handshake of %s refused: %s", self._visitor.remote_address, error)
            return _busy("try again later")
        except BaseException:
            self._host.dismiss()
            raise
        taken.leave()
        return None

    def _taken(self, environ: Any) -> Taken:
        """The socket, which a thread of its own serves already, and will leave the place that was taken for it.

        Raises:
            OSError, RuntimeError, MemoryError: There is no descriptor or no thread to be had.
        """
        taken = Taken(environ)
        try:
            request, early = {SOCKET: taken.sock, KEY: environ[KEY]}, early_bytes(environ)
            serving = (taken.sock, request, early)
            threading.Thread(target=self._serve, args=serving, name="oompa-connection", daemon=True).start()
        except BaseException:
            taken.stay()
            raise
        return taken

    def _serve(self, sock: socket.socket, environ: Mapping[str, Any], early: bytes) -> None:
        """Run on a thread of its own."""
        try:
            with sock:
                self._host.serve(accept(environ, self._answer)._replace(received=early), self._visitor)
        except OSError:
            pass  # the peer is gone
        except Exception:  # which the web server would have logged
            self._logger.exception("the connection of %s failed", self._visitor.remote_address)
        finally:
            self._host.dismiss()

    def _live(self, environ: Any, start_response: Any) -> Iterator[bytes]:
        """Run when the web server iterates what the application returned, and so after all of it."""
        if not self._host.admit():
            yield from self._full()(environ, start_response)
            return
        try:
            accepted = self._accept(environ)
            if isinstance(accepted, Accepted):
                self._host.serve(accepted, self._visitor)
        finally:
            self._host.dismiss()
        if isinstance(accepted, Response):
            yield from accepted(environ, start_response)
        else:  # the web server writes one whatever happens. The socket is shut down: it goes nowhere.
            start_response("101 Switching Protocols", [])

    def _accept(self, environ: Any) -> Union[Accepted, Response]:
        try:
            return accept(environ, self._answer)._replace(received=early_bytes(environ))
        except RuntimeError:
            return _text("this web server gives no access to its socket; use server.run() or gunicorn --threads", 501)
        except OSError:
            return _text("the peer is gone", 400)

    def _full(self) -> Response:
        self._logger.warning("handshake of %s refused: the server is full", self._visitor.remote_address)
        return _busy("try again later")
