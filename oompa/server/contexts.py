"""What surrounds a task while it runs: the request it runs for.

A thread says once that it is a worker, and a worker holds the request it runs, so that saying which costs next to nothing.
"""

import threading
from typing import Optional, Protocol

from ..wire.messages import Request


class Worker(Protocol):
    """Whatever runs requests on a thread, one at a time."""

    request: Optional[Request]


class _Here(threading.local):
    worker: Optional[Worker] = None


_here = _Here()


def work_as(worker: Optional[Worker]) -> None:
    """The calling thread runs the requests of ``worker`` from here on; None: of nobody."""
    _here.worker = worker


def current_request() -> Optional[Request]:
    """The request that the calling code runs for: for a factory, which gets the payload alone.

    None outside a request, and in threads that a task starts. Listeners of ``reply`` and the healthcheck of a ping see theirs.
    """
    worker = _here.worker
    return None if worker is None else worker.request
