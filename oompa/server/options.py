"""The options of a server, each described once (see ``oompa.options``)."""

from typing import Annotated, Any, Callable, Collection, Iterable, Optional

from flask import Request

from ..options import Option, callable_or_none, count, count_or_none, flag, route, seconds, table_of
from ..wire.options import ConnectionOptions

Authenticate = Callable[[Request], Any]


def _token(name: str, value: Any) -> Optional[str]:
    if value is not None and (not isinstance(value, str) or not value):
        raise TypeError(f"{name} must be a string that is not empty, or None, not one of type {type(value).__name__}")
    return value


def _origins(name: str, value: Any) -> Optional[frozenset[str]]:
    if value is None:
        return None
    found = None if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    if found is None or not all(isinstance(origin, str) for origin in found):
        raise TypeError(f"{name} must be a list of strings, such as ['https://example.com'], not {value!r}")
    return frozenset(found)


class ServerOptions(ConnectionOptions, total=False):
    """What a server may be told."""

    path: Annotated[str, Option("/", route, "where the WebSocket lives")]
    health_path: Annotated[
        str, Option("/health", route, "where `GET` tells the health: 200 `ok`, 500 `error`, 503 while draining")
    ]
    disconnect_token: Annotated[
        Optional[str],
        Option(None, _token, "given, `POST /disconnect` with `Authorization: Bearer <token>` closes every connection"),
    ]
    concurrency: Annotated[int, Option(16, count, "tasks of one connection at once; 1: strictly one by one")]
    max_queued: Annotated[
        int,
        Option(
            1000,
            count,
            "requests of one connection that may wait, `max_message_size` bytes in all; beyond, the server stops reading it",
        ),
    ]
    max_connections: Annotated[
        Optional[int],
        Option(
            None,
            count_or_none,
            "beyond, an upgrade gets 503 with Retry-After; None: no limit, or what the threads allow under "
            "`-c python:oompa.gunicorn`",
        ),
    ]
    handshake_timeout: Annotated[
        float, Option(10.0, seconds, "how long a peer may take to send its request; under gunicorn, gunicorn's affair")
    ]
    drain_timeout: Annotated[float, Option(30.0, seconds, "how long running tasks may take to finish on `close`")]
    authenticate: Annotated[
        Optional[Authenticate],
        Option(
            None,
            callable_or_none,
            "called with the upgrade request (a `flask.Request`): False or None is 401, `PermissionError` 403, True yes, "
            "anything else yes and `connection.identity`",
        ),
    ]
    origins: Annotated[
        Optional[Collection[str]],
        Option(
            None,
            _origins,
            'origins of browsers that may connect, such as `["https://example.com"]`, or `["*"]`; who sends none is not asked',
            "same host",
        ),
    ]
    expose_errors: Annotated[bool, Option(True, flag, "False: clients get an error id, the log gets the error")]


SERVER_OPTIONS = table_of(ServerOptions)
