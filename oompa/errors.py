"""Every error that oompa raises on its own account, and the one a handler may raise.

::

    OompaError
    +-- ProtocolError       the peer sent what is not a message of this protocol
    +-- RemoteError         the server answered ERR; ``.error`` is the value it sent
    +-- RequestTimeout      every attempt timed out; also a TimeoutError
    +-- ConnectionLost      the server cannot be talked to; also a ConnectionError
    +-- ClientClosed        the client was closed, or belongs to another process
    +-- TooManyPending      ``max_pending`` calls are already waiting for a reply
    +-- HealthcheckFailed   the healthcheck returned False

    TaskError               raised by a handler: its ``.error`` is sent as it is
"""

import concurrent.futures
import sys
from typing import Any, Optional


class OompaError(Exception):
    """The base of what oompa raises."""


class ProtocolError(OompaError):
    """The peer sent something that is no message of the protocol.

    Attributes:
        id: The id found in it all the same, None where there is none.
    """

    def __init__(self, problem: str, id: Any = None) -> None:
        super().__init__(problem)
        self.id = id


class RemoteError(OompaError):
    """The server answered with ERR.

    ``error`` is the value of the reply's ``error`` key, any JSON value: a string such as ``"ZeroDivisionError: division
    by zero"`` for an exception, or whatever a handler put into :class:`TaskError`.
    """

    def __init__(self, error: Any) -> None:
        super().__init__(error)
        self.error = error


if sys.version_info >= (3, 11):

    class RequestTimeout(OompaError, TimeoutError):
        """No reply came in time, in any attempt. The task may or may not have run."""

else:  # concurrent.futures.TimeoutError became the builtin in 3.11.

    class RequestTimeout(OompaError, TimeoutError, concurrent.futures.TimeoutError):
        """No reply came in time, in any attempt. The task may or may not have run."""


class ConnectionLost(OompaError, ConnectionError):
    """The connection ended, or could not be opened. A call that fails with it may or may not have run.

    Attributes:
        code: The close code, 1006 for none; None where no connection was opened.
        status: The HTTP status a handshake was refused with, None otherwise.
    """

    def __init__(self, message: str, code: Optional[int] = None, status: Optional[int] = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class ClientClosed(OompaError):
    """The client was closed before the reply came, or is used in a process that did not make it."""


class TooManyPending(OompaError):
    """``max_pending`` calls wait for a reply already; this one was not sent."""


class HealthcheckFailed(OompaError):
    """The healthcheck returned False."""


class TaskError(Exception):
    """Raise this in a factory or a middleware to send ``error``, any JSON value, as the reply's error."""

    def __init__(self, error: Any = None) -> None:
        super().__init__(error)
        self.error = error


def printable(text: str) -> str:
    """Text of a peer as it may stand in a message or a log: on one line, without control characters."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
