"""The options of a server, each described once (see ``oompa.options``)."""

import json
import re
from typing import Annotated, Any, Callable, Collection, Iterable, Mapping, Optional

from flask import Request

from ..callables import checked_with
from ..options import (
    Option,
    count,
    count_or_none,
    flag,
    flag_or_none,
    route,
    route_or_none,
    seconds,
    seconds_or_none,
    table_of,
)
from ..wire.options import ConnectionOptions

Authenticate = Callable[[Request], Any]


#: An origin as browsers send it (:rfc:`6454#section-6.1`): scheme, host, and a port that is not the scheme's own.
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?", re.ASCII)
_LAST_PORT = 65535
_OWN_PORTS = {"http": "80", "https": "443"}

#: What browsers send for what has no origin of its own, and for files.
_NAMELESS = frozenset({"*", "null", "file://"})

#: A name as Flask's TRUSTED_HOSTS has it.
_NAME = re.compile(r"\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?|\[[0-9a-f:.]+\]", re.ASCII)

#: A token (:rfc:`9110#section-5.6.2`).
_PROTOCOL = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)

#: Printable ASCII without spaces: what a header brings as it was sent.
_TOKEN = re.compile(r"[!-~]+", re.ASCII)


def _authenticate(name: str, value: Any) -> Optional[Authenticate]:
    return None if value is None else checked_with(name, value, "request")


def _token(name: str, value: Any) -> Optional[str]:
    if value is not None and (not isinstance(value, str) or not value):
        raise TypeError(f"{name} must be a string that is not empty, or None, not one of type {type(value).__name__}")
    if value is not None and not _TOKEN.fullmatch(value):  # not shown: it is a secret
        raise ValueError(f"{name} must be printable ASCII without spaces or line ends: no header could bring this one")
    return value


def _strings(name: str, value: Any, example: str) -> list[str]:
    found = None if isinstance(value, (str, bytes)) or not isinstance(value, Iterable) else list(value)
    if found is None or not all(isinstance(each, str) for each in found):
        raise TypeError(f"{name} must be a list of strings, such as [{example!r}], not {value!r}")
    return found


def _origins(name: str, value: Any) -> Optional[frozenset[str]]:
    if value is None:
        return None
    origins = _strings(name, value, "https://example.com")
    for origin in origins:
        match = _ORIGIN.fullmatch(origin)
        if origin not in _NAMELESS and (match is None or not _is_sent(match[1], match[3])):
            raise ValueError(
                f"{name} has {origin!r}, which no browser sends: an origin is scheme://host or scheme://host:port in small "
                "letters, without a path, a final slash or the scheme's own port, such as 'https://example.com'; '*' alone "
                "stands for all"
            )
    return frozenset(origins)


def _is_sent(scheme: str, port: Optional[str]) -> bool:
    """Whether browsers send an origin of this scheme and port; None: without one."""
    return scheme not in ("ws", "wss") and (port is None or (port != _OWN_PORTS.get(scheme) and int(port) <= _LAST_PORT))


def _subprotocols(name: str, value: Any) -> tuple[str, ...]:
    found = tuple(_strings(name, value, "oompa"))
    for each in found:
        if not _PROTOCOL.fullmatch(each):
            raise ValueError(f"{name} has {each!r}, which no header can name: letters, digits and !#$%&'*+-.^_`|~ alone can")
    return found


def _hosts(name: str, value: Any) -> Optional[frozenset[str]]:
    if value is None:
        return None
    hosts = _strings(name, value, "example.com")
    if not hosts:
        raise ValueError(f"{name} must not be empty: nobody could connect; None stands for any host")
    for host in hosts:
        if not _NAME.fullmatch(host):
            raise ValueError(
                f"{name} has {host!r}, which no request can name: a host is a name or an address in small letters without "
                "scheme and port, such as 'example.com', or '.example.com' for it and its subdomains"
            )
    return frozenset(hosts)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {value!r}")
    return value


def _text_or_none(name: str, value: Any) -> Optional[str]:
    return None if value is None else _text(name, value)


def _metadata(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise TypeError(f'{name} must be a mapping of strings to JSON values, such as {{"zone": "eu-1"}}, not {value!r}')
    try:
        json.dumps(dict(value), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{name} must be JSON, for INFO sends it: {error}") from None
    return dict(value)


class ServerOptions(ConnectionOptions, total=False):
    """What a server may be told."""

    path: Annotated[str, Option("/", route, "where the WebSocket lives")]
    health_path: Annotated[
        str, Option("/health", route, "where `GET` tells the health: 200 `ok`, 500 `error`, 503 while draining")
    ]
    ready_path: Annotated[
        str,
        Option("/ready", route, "where `GET` tells whether a further connection would be admitted: 200 `ok`, or 503"),
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
            "requests of one connection that may wait; beyond, or when those that wait and run hold more than "
            "`max_message_size` bytes, the server stops reading it",
        ),
    ]
    max_connections: Annotated[
        Optional[int],
        Option(
            None,
            count_or_none,
            "beyond, an upgrade gets 503 with Retry-After; None: no limit, or what the threads allow where gunicorn itself "
            "speaks TLS",
        ),
    ]
    max_connection_age: Annotated[
        Optional[float],
        Option(
            None,
            seconds_or_none,
            "±10 %: a connection that is older takes no more requests, and is closed with 1000 when those that run have "
            "replied, at most `drain_timeout` later; None: it may grow as old as it likes",
        ),
    ]
    healthcheck_timeout: Annotated[
        float, Option(5.0, seconds, "a healthcheck that takes longer has failed; whoever asks while it runs shares its result")
    ]
    handshake_timeout: Annotated[
        float, Option(10.0, seconds, "how long a peer may take to send its request; under gunicorn, gunicorn's affair")
    ]
    drain_timeout: Annotated[float, Option(30.0, seconds, "how long running tasks may take to finish on `close`")]
    resume_timeout: Annotated[
        Optional[float],
        Option(
            30.0,
            seconds_or_none,
            "how long a reply is kept for a client that has lost its connection, so that nothing runs twice; None: not at all",
        ),
    ]
    authenticate: Annotated[
        Optional[Authenticate],
        Option(
            None,
            _authenticate,
            "called with the upgrade request (a `flask.Request`): True lets in, any other true value, too, and is "
            "`connection.identity`; a false one is 401, `PermissionError` 403, `abort(...)` what it says",
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
    hosts: Annotated[
        Optional[Collection[str]],
        Option(
            None,
            _hosts,
            'hosts that may be named, such as `["example.com", ".example.com"]`; None: any, but a browser must name a loopback '
            "host where `listen` is bound to one",
        ),
    ]
    app_context: Annotated[
        Optional[bool],
        Option(
            None,
            flag_or_none,
            "True: each task runs in a Flask application context of its own; None: those that come through an application of "
            "`init_app` do",
        ),
    ]
    subprotocols: Annotated[
        Collection[str],
        Option((), _subprotocols, "the first one that a client offers and that is listed is chosen; browsers need it", "none"),
    ]
    expose_errors: Annotated[bool, Option(True, flag, "False: clients get an error id, the log gets the error")]
    name: Annotated[Optional[str], Option(None, _text_or_none, "what INFO, STATS and SCHEMA call the server", "its module")]
    version: Annotated[str, Option("", _text, "of the service, which INFO and SCHEMA tell")]
    metadata: Annotated[Mapping[str, Any], Option({}, _metadata, 'what else INFO tells, such as `{"zone": "eu-1"}`')]
    introspection: Annotated[bool, Option(True, flag, "False: INFO, STATS and SCHEMA are not answered")]
    explorer: Annotated[
        Optional[str],
        Option(
            None,
            route_or_none,
            'a path such as `"/explore"` of a page to see and call the tasks on; without `authenticate` for loopback alone',
        ),
    ]


SERVER_OPTIONS = table_of(ServerOptions)
