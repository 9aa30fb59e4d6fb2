"""What stands between a caller and the connection: the client's middleware, and what it may not do.

Everything runs on the caller's thread. The chain is made for each call, of a tuple that ``use`` replaces whole, so it needs no
lock.
"""

from concurrent.futures import Future
from typing import Any, Callable, Mapping, Optional

from ..wire.messages import Request

CallNext = Callable[[Request], "Future[Any]"]
Middleware = Callable[[Request, CallNext], "Future[Any]"]

#: What ``meta`` holds on the library's own account.
RESERVED_KEYS = frozenset({"timeout", "key", "progress"})


def before(middleware: Middleware, call_next: CallNext) -> CallNext:
    """``call_next`` with a middleware in front of it."""

    def run(request: Request) -> "Future[Any]":
        outcome = middleware(request, call_next)
        if not isinstance(outcome, Future):
            raise TypeError(
                f"the middleware {middleware!r} must return a Future, such as what call_next(request) returns, not {outcome!r}"
            )
        return outcome

    return run


def check_meta(meta: Mapping[str, Any]) -> dict[str, Any]:
    """A user's ``meta`` as a dict of its own. Raises TypeError or ValueError for what it may not be."""
    if not isinstance(meta, Mapping):
        raise TypeError(f"meta must be a mapping, not {meta!r}")
    reserved = sorted(RESERVED_KEYS.intersection(meta))
    if reserved:
        raise ValueError(f"meta has the reserved keys {reserved}: they are set by the options of the call")
    return dict(meta)


def own_meta(key: Optional[str], wants_progress: bool) -> dict[str, Any]:
    """What ``meta`` holds for the options of a call. Raises TypeError or ValueError for a key that is none."""
    own: dict[str, Any] = {}
    if key is not None:
        if not isinstance(key, str):
            raise TypeError(f"key must be a string, not {key!r}")
        if not key:
            raise ValueError("key must be a string that is not empty; None for no key")
        own["key"] = key
    if wants_progress:
        own["progress"] = True
    return own
