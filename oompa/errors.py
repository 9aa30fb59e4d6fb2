"""Every error that oompa raises on its own account, and the one a handler may raise.

::

    OompaError
    +-- ProtocolError       the peer sent what is not a message of this protocol
    +-- RemoteError         the server answered ERR; ``.error`` is the value it sent, ``.code`` what kind of failure it is
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

#: gRPC's names, in lower case, for what went wrong: https://grpc.io/docs/guides/status-codes/
CODES = frozenset(
    {
        "aborted",
        "already_exists",
        "cancelled",
        "data_loss",
        "deadline_exceeded",
        "failed_precondition",
        "internal",
        "invalid_argument",
        "not_found",
        "out_of_range",
        "permission_denied",
        "resource_exhausted",
        "unauthenticated",
        "unavailable",
        "unimplemented",
        "unknown",
    }
)


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


class ValidationError(ValueError):
    """A payload is not what its task is annotated with; the message tells where, such as ``$.items[3].price``."""


class RemoteError(OompaError):
    """The server answered with ERR.

    ``error`` is the value of the reply's ``error`` key, any JSON value: a string such as ``"ZeroDivisionError: division
    by zero"`` for an exception, or whatever a handler put into :class:`TaskError`.

    Attributes:
        error: The value.
        details: What the server tells beside it, a dict; None for nothing, as from the original.
    """

    def __init__(self, error: Any, details: Optional[dict[str, Any]] = None) -> None:
        super().__init__(error)
        self.error = error
        self.details = details

    @property
    def code(self) -> Optional[str]:
        """One of ``CODES``, or a newer server's; None where the server tells none."""
        code = self._detail("code")
        return code if isinstance(code, str) else None

    @property
    def data(self) -> Any:
        """What a handler adds for a program to read, any JSON value; None for nothing."""
        return self._detail("data")

    @property
    def retry_after(self) -> Optional[float]:
        """Seconds after which the same request is worth sending again, for nothing has run; None where it is not said."""
        seconds = self._detail("retry_after")
        return float(seconds) if is_retry_after(seconds) else None

    def _detail(self, key: str) -> Any:
        return None if self.details is None else self.details.get(key)


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
    """Raise this in a factory or a middleware to send ``error``, any JSON value, as the reply's error.

    Args:
        error: What the caller finds in :attr:`RemoteError.error`.
        code: What kind of failure it is, for a program to read: one of gRPC's sixteen, such as ``"not_found"``.
        data: Any JSON value beside it.
        retry_after: Seconds after which the same request is worth sending again. It says that nothing has run: a client
            sends it again by itself, within the time its call has.

    Raises:
        ValueError: There is no such code, or ``retry_after`` is no number of seconds above 0.
    """

    def __init__(
        self, error: Any = None, *, code: Optional[str] = None, data: Any = None, retry_after: Optional[float] = None
    ) -> None:
        super().__init__(error)
        if code is not None and not (isinstance(code, str) and code in CODES):
            raise ValueError(f"code must be one of {', '.join(sorted(CODES))}, not {code!r}")
        if retry_after is not None and not is_retry_after(retry_after):
            raise ValueError(f"retry_after must be a finite number of seconds above 0, not {retry_after!r}")
        self.error = error
        self.code = code
        self.data = data
        self.retry_after = retry_after

    @property
    def details(self) -> Optional[dict[str, Any]]:
        """What the reply tells beside the error; None for nothing."""
        told = {"code": self.code, "data": self.data, "retry_after": self.retry_after}
        return {key: value for key, value in told.items() if value is not None} or None


def is_retry_after(seconds: Any) -> bool:
    """Whether it says how long to wait: a finite number above 0."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        return False
    return 0 < seconds <= sys.float_info.max  # neither NaN nor infinity is


def printable(text: str) -> str:
    """Text of a peer as it may stand in a message or a log: on one line, without control characters."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
