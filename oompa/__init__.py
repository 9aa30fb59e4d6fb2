"""A tiny library for WebSocket-based, stateless microservices in synchronous, threaded Python."""

import logging

from .client import Client as Client
from .errors import ClientClosed as ClientClosed
from .errors import ConnectionLost as ConnectionLost
from .errors import HealthcheckFailed as HealthcheckFailed
from .errors import OompaError as OompaError
from .errors import ProtocolError as ProtocolError
from .errors import RemoteError as RemoteError
from .errors import RequestTimeout as RequestTimeout
from .errors import TaskError as TaskError
from .errors import TooManyPending as TooManyPending
from .messages import Reply as Reply
from .messages import Request as Request
from .schema import Schema as Schema
from .server import Server as Server
from .version import __version__ as __version__

logging.getLogger("oompa").addHandler(logging.NullHandler())
