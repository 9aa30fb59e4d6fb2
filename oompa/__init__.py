"""A tiny library for WebSocket-based, stateless microservices in synchronous, threaded Python.

The house has three wings and a landing:

- ``oompa.wire``: what both ends speak: values as JSON, requests and replies, frames, a WebSocket after its handshake.
- ``oompa.client``: calls out, Futures back, and a connection that mends itself.
- ``oompa.server``: a schema of tasks behind a WebSocket, and its health behind HTTP.
- On the landing is what users open: this module, the command in ``oompa.cli``, ``oompa.gunicorn``, ``prometheus``,
  ``opentelemetry``, ``testing``, ``once``, ``executors``, ``typed``, ``stub``, ``schema``, ``errors``; and what any wing may
  use: ``options``, ``emitter``, ``threads``, ``callables``.

The wings stand on the wire and do not know each other. The path of one call:

1. ``Client.call`` -> ``client/link``: a request gets an id, ``client/exchange`` remembers it until it settles.
2. ``wire/messages`` and ``wire/codec`` make it text, ``wire/outbox`` and ``wire/frames`` a frame, ``wire/streams`` writes it.
3. ``server/connection`` reads it on the thread that leads there, and gives it a thread or a place in the queue.
4. ``server/pipeline`` runs middleware and factory in ``server/contexts``, and makes what comes of it a ``Reply``.
5. ``wire/messages`` makes that text, ``wire/outbox`` sends it.
6. Whoever leads in ``client/turns``, mostly the caller itself, reads it; ``client/link`` settles the ``client/call``.

To mend a fault in reconnecting, begin in ``client/keeper``; in who reads, in ``client/turns``; in what is sent again, in
``client/exchange``; in what a client finds that comes back, in ``server/resume``; in who may connect, in ``server/gates``; in
how tasks get their threads, in ``server/connection``; in how a worker of gunicorn ends, in ``server/workers``.
"""

import importlib
import logging
from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

if TYPE_CHECKING:
    from .client.call import Call as Call
    from .client.client import Client as Client
    from .client.pool import Pool as Pool
    from .errors import ClientClosed as ClientClosed
    from .errors import ConnectionLost as ConnectionLost
    from .errors import HealthcheckFailed as HealthcheckFailed
    from .errors import OompaError as OompaError
    from .errors import ProtocolError as ProtocolError
    from .errors import RemoteError as RemoteError
    from .errors import RequestTimeout as RequestTimeout
    from .errors import TaskError as TaskError
    from .errors import TooManyPending as TooManyPending
    from .once.middleware import Once as Once
    from .schema import Schema as Schema
    from .server.connection import Connection as Connection
    from .server.contexts import current_request as current_request
    from .server.server import Server as Server
    from .wire.messages import Reply as Reply
    from .wire.messages import Request as Request

#: Where each name lives. A name is imported when it is first used, so a client costs no Flask.
_HOMES = {
    "Call": ".client.call",
    "Client": ".client.client",
    "ClientClosed": ".errors",
    "Connection": ".server.connection",
    "ConnectionLost": ".errors",
    "HealthcheckFailed": ".errors",
    "Once": ".once.middleware",
    "OompaError": ".errors",
    "Pool": ".client.pool",
    "ProtocolError": ".errors",
    "RemoteError": ".errors",
    "Reply": ".wire.messages",
    "Request": ".wire.messages",
    "RequestTimeout": ".errors",
    "Schema": ".schema",
    "Server": ".server.server",
    "TaskError": ".errors",
    "TooManyPending": ".errors",
    "current_request": ".server.contexts",
}

#: What else ``import oompa`` lets a user name.
_MODULES = ("errors", "schema")

__all__ = list(_HOMES)

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    """Import a name of ``_HOMES``, or a module of the landing (:pep:`562`)."""
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
