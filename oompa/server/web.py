"""The Flask side: health, upgrade, disconnect. HTTP ends here; what is upgraded goes to a ``Connection``.

The view of the WebSocket path decides and answers like any other; the response it returns takes the socket over when the web
server calls it, and lives as long as the connection.
"""

import hmac
import logging
from typing import Any, Collection, Iterable, Mapping, Optional, Protocol, Union
from urllib.parse import urlsplit

from flask import Blueprint, Request, Response, request

from ..errors import printable
from ..wire.announcement import read_announcement, server_headers
from ..wire.messages import describe
from .connection import Visitor
from .handshake import Accepted, BadHandshake, accept, check_handshake, wants_websocket
from .options import Authenticate, ServerOptions

#: Seconds after which a refused client may try again.
RETRY_AFTER = 1


class Host(Protocol):
    """What the web side needs of the server."""

    def check_health(self) -> Any:
        """Raise when unhealthy."""

    def is_draining(self) -> bool:
        """Whether the server is shutting down."""

    def admit(self) -> bool:
        """Take a place for a connection, if there is one."""

    def dismiss(self) -> None:
        """Give the place back."""

    def serve(self, accepted: Accepted, visitor: Visitor) -> None:
        """Serve a WebSocket until it ends, in a place that was taken."""

    def disconnect(self) -> int:
        """Close every connection; returns how many there were."""


def blueprint(name: str, host: Host, options: ServerOptions, logger: logging.Logger) -> Blueprint:
    """The routes of a server, for any Flask application."""

    def health() -> Response:
        return _health(host, logger)

    def websocket() -> Response:
        if not wants_websocket(request.environ):
            return _health(host, logger)
        return upgrade(request, host, options, logger)

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
    if options["disconnect_token"] is not None:
        routes.add_url_rule("/disconnect", "disconnect", disconnect, methods=["POST"])
    return routes


def _text(text: str, status: int, headers: Optional[dict[str, str]] = None) -> Response:
    return Response(text, status, headers, mimetype="text/plain")


def _health(host: Host, logger: logging.Logger) -> Response:
    if host.is_draining():
        return _text("draining", 503, {"Retry-After": str(RETRY_AFTER)})
    try:
        host.check_health()
    except BaseException as error:
        logger.warning("the healthcheck failed: %s", printable(describe(error)))
        return _text("error", 500)
    return _text("ok", 200)


def upgrade(request: Request, host: Host, options: ServerOptions, logger: logging.Logger) -> Response:
    """Decide on an upgrade request. Needs Flask's contexts only where ``authenticate`` does."""
    environ = request.environ
    try:
        check_handshake(environ)
        _check_origin(environ, options["origins"])
        identity = _identify(options["authenticate"], request)
    except BadHandshake as fault:
        logger.warning("handshake of %s refused: %s", request.remote_addr, str(fault))
        return _text(str(fault), fault.status, dict(fault.headers))
    if not environ.get("wsgi.multithread", True):
        logger.error("a WebSocket needs a web server with threads, such as gunicorn --threads 64")
        return _text("this web server has no threads", 501)
    if host.is_draining():
        return _text("draining", 503, {"Retry-After": str(RETRY_AFTER)})
    address = (request.remote_addr or "", int(environ.get("REMOTE_PORT") or 0))
    visitor = Visitor(address, request.headers, identity, read_announcement(request.headers.get))
    return _Upgrade(host, visitor, server_headers(options["max_message_size"]), logger)


def _check_origin(environ: Mapping[str, Any], origins: Optional[Collection[str]]) -> None:
    """A browser tells the site it acts for; others are refused, for a user's cookies would come along with them."""
    origin = environ.get("HTTP_ORIGIN")
    if origin is None or (origins is not None and (origin in origins or "*" in origins)):
        return
    try:
        parts = urlsplit(origin)
        is_own = parts.hostname is not None and _host_and_port(parts.netloc, parts.scheme) == _host_and_port(
            environ["HTTP_HOST"], parts.scheme
        )
    except ValueError:
        is_own = False
    if origins is not None or not is_own:
        raise BadHandshake(f"the origin {printable(origin)} may not connect", 403)


def _host_and_port(netloc: str, scheme: str) -> tuple[Optional[str], Optional[int]]:
    parts = urlsplit(f"//{netloc}")
    return parts.hostname, parts.port or {"http": 80, "https": 443}.get(scheme)


def _identify(authenticate: Optional[Authenticate], request: Request) -> Any:
    """Who the visitor is, None without ``authenticate``."""
    if authenticate is None:
        return None
    try:
        answer = authenticate(request)
    except PermissionError as error:
        raise BadHandshake(str(error) or "forbidden", 403) from None
    if answer is None or answer is False:
        raise BadHandshake("who are you?", 401)
    return None if answer is True else answer


class _Upgrade(Response):
    """The answer to a good upgrade request: the whole life of the WebSocket."""

    def __init__(self, host: Host, visitor: Visitor, answer: Mapping[str, str], logger: logging.Logger) -> None:
        super().__init__()
        self._host = host
        self._visitor = visitor
        self._answer = answer
        self._logger = logger

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        if not self._host.admit():
            self._logger.warning("handshake of %s refused: the server is full", self._visitor.remote_address)
            full = _text("try again later", 503, {"Retry-After": str(RETRY_AFTER)})
            return full(environ, start_response)
        try:
            accepted = self._accept(environ)
            if isinstance(accepted, Response):
                return accepted(environ, start_response)
            self._host.serve(accepted, self._visitor)
        finally:
            self._host.dismiss()
        if accepted.mode == "gunicorn":
            raise StopIteration  # gunicorn's way to end a connection without writing a response
        # Werkzeug writes one whatever happens. The socket is shut down: it goes nowhere.
        start_response("200 OK", [("Content-Length", "0")])
        return []

    def _accept(self, environ: Any) -> Union[Accepted, Response]:
        try:
            return accept(environ, self._answer)
        except RuntimeError:
            return _text("this web server gives no access to its socket; use server.run() or gunicorn --threads", 501)
        except OSError:
            return _text("the peer is gone", 400)
