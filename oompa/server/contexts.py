"""What surrounds a task while it runs: a context of its own, and the request it runs for.

Each task, with its middleware, runs in a ``contextvars`` context that begins empty, whichever thread it runs on, so nothing
that one task sets is seen by another.
"""

from contextvars import Context, ContextVar
from typing import Any, Callable, Optional

from ..wire.messages import Request

_request: "ContextVar[Optional[Request]]" = ContextVar("oompa_request", default=None)


def current_request() -> Optional[Request]:
    """The request that the calling code runs for: for a factory, which gets the payload alone.

    None outside a task, and in threads that a task starts.
    """
    return _request.get()


def run_task(function: Callable[[Request], Any], request: Request) -> Any:
    """Run a task on this thread, in a context of its own: ``function(request)``."""
    return Context().run(_enter, function, request)


def _enter(function: Callable[[Request], Any], request: Request) -> Any:
    _request.set(request)
    return function(request)
