"""What metrics and traces have in common: the word for how a call ended."""

import concurrent.futures
from concurrent.futures import Future
from typing import Any, Optional

from .errors import CODES, ClientClosed, ConnectionLost, ProtocolError, RemoteError, RequestTimeout, TaskError, TooManyPending

#: How a call ended that did not fail.
SUCCESS = "ok"

#: What stands for task types that nobody has written down: peers may make up any number.
OTHER = "_OTHER"

#: The code of an error that tells none, as in gRPC.
UNKNOWN = "unknown"

#: The codes of what a caller raises, the more special classes first.
_CODES: "tuple[tuple[type[BaseException], str], ...]" = (
    (RequestTimeout, "deadline_exceeded"),
    (ConnectionLost, "unavailable"),
    (ClientClosed, "cancelled"),
    (concurrent.futures.CancelledError, "cancelled"),
    (TooManyPending, "resource_exhausted"),
    (ProtocolError, "internal"),
    (TypeError, "invalid_argument"),
    (ValueError, "invalid_argument"),
)


def status_of(error: Optional[BaseException]) -> str:
    """``ok``, or one of ``CODES``: of what a call was settled with, or ``dispatch`` raised."""
    if error is None:
        return SUCCESS
    if isinstance(error, (RemoteError, TaskError)):
        return status_in(error.details)
    return next((code for kind, code in _CODES if isinstance(error, kind)), UNKNOWN)


def status_in(details: Any) -> str:
    """The code that the details of an ERR have; a code that this version does not know is as good as none."""
    code = details.get("code") if type(details) is dict else None
    return code if isinstance(code, str) and code in CODES else UNKNOWN


def error_of(future: "Future[Any]") -> Optional[BaseException]:
    """What a Future that is done failed with, None where it did not."""
    return concurrent.futures.CancelledError() if future.cancelled() else future.exception()
