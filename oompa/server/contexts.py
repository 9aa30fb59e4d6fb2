"""What surrounds a task while it runs: the request it runs for, and contexts that nobody else has.

A thread says once that it is a worker, and a worker holds the request it runs, so that saying which costs next to nothing.

Tasks of all connections share threads, and a thread has the context of whoever used it first: the web server's middleware, the
upgrade's request. So each task runs in an empty ``contextvars`` context, and, in an application that was given to ``init_app``,
in a Flask application context of its own: what the one leaves behind (a session, a transaction that failed, ``flask.g``) ends
with it.
"""

import threading
from contextvars import Context
from typing import Any, Callable, Optional, Protocol, TypeVar

from flask import Flask

from ..wire.messages import Request

T = TypeVar("T")

#: An empty context. Nothing runs in it but in copies of it, which are made quicker than new ones.
NOTHING_SET = Context()


class Worker(Protocol):
    """Whatever runs requests on a thread, one at a time.

    Attributes:
        request: What it runs.
        is_replying: Whether the task is over.
    """

    request: Optional[Request]
    is_replying: bool


class _Here(threading.local):
    worker: Optional[Worker] = None


_here = _Here()


def work_as(worker: Optional[Worker]) -> None:
    """The calling thread runs the requests of ``worker`` from here on; None: of nobody."""
    _here.worker = worker


def current_request() -> Optional[Request]:
    """The request that the calling code runs for: for a factory, which gets the payload alone.

    None outside a request, and in threads that a task starts. Listeners of ``reply`` see theirs.
    """
    worker = _here.worker
    return None if worker is None else worker.request


def run_apart(app: Optional[Flask], function: Callable[..., T], *args: Any) -> T:
    """Call ``function`` in an empty ``contextvars`` context and, with ``app``, in an application context of its own.

    Raises whatever the function raises, or one that Flask calls as the context begins or ends.
    """
    if app is None:
        return NOTHING_SET.copy().run(function, *args)
    return NOTHING_SET.copy().run(_within, app, function, *args)


def _within(app: Flask, function: Callable[..., T], *args: Any) -> T:
    with app.app_context():
        return function(*args)
