"""A tiny library for WebSocket-based, stateless microservices in synchronous, threaded Python."""

import importlib
import logging
from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

if TYPE_CHECKING:
    from .client.call import Call as Call
    from .client.client import Client as Client
    from .errors import ClientClosed as ClientClosed
    from .errors import ConnectionLost as ConnectionLost
    from .errors import HealthcheckFailed as HealthcheckFailed
    from .errors import OompaError as OompaError
    from .errors import ProtocolError as ProtocolError
    from .errors import RemoteError as RemoteError
    from .errors import RequestTimeout as RequestTimeout
    from .errors import TaskError as TaskError
    from .errors import TooManyPending as TooManyPending
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
    "OompaError": ".errors",
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

__all__ = list(_HOMES)

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    """Import a name of ``_HOMES`` (:pep:`562`)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
