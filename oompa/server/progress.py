"""How far a task is, told to its caller: never more often than the caller can use, and never at the cost of the task.

A task may tell as often as it likes: most of that replaces what was not sent yet. What is left over is sent by the watcher's
thread when its time has come, or before the reply when the task is over. A peer that reads slowly gets the latest when it has
read what was before; nobody waits for it.
"""

import threading
from time import monotonic
from typing import Optional, Protocol

from ..wire.codec import Codec
from ..wire.messages import Progress, Request, write_progress
from .watcher import Watcher

#: Seconds between two messages about one request.
INTERVAL = 0.1


class Addressee(Protocol):
    """A connection, as far as a report needs one."""

    def offer(self, text: bytes) -> bool:
        """Send what may be lost, unless the peer is slow; whether it need not be offered again."""


class Report:
    """What one task tells.

    ``_lock`` guards what is to be sent, and whether the watcher is to send it. Nothing is sent under it. It is re-entrant for a
    finalizer that comes in between.

    Args:
        request: Whose task; its ``connection`` may change meanwhile.
    """

    def __init__(self, request: Request, codec: Codec, watcher: Watcher) -> None:
        self._request = request
        self._codec = codec
        self._watcher = watcher
        self._lock = threading.RLock()
        self._latest: Optional[Progress] = None
        self._due = 0.0
        self._is_timed = False
        self._is_over = False

    def tell(self, progress: Progress) -> None:
        """Send this, now or later, or something newer in its stead. Any thread; never blocks on the network."""
        with self._lock:
            if self._is_over:
                return
            self._latest = progress
            if self._is_timed:
                return
            wait = self._due - monotonic()
            self._is_timed = wait > 0
        if wait > 0:
            self._watcher.began(self, wait)
        else:
            self._send()

    def finish(self) -> None:
        """The task is over: send what is left, for the reply follows, and nothing more."""
        with self._lock:
            self._is_over = True
        self._watcher.ended(self)
        self._send()

    def stuck(self) -> None:
        """Called by the watcher: it is time for the next."""
        with self._lock:
            self._is_timed = False
        self._send()

    def _send(self) -> None:
        with self._lock:
            progress, self._latest = self._latest, None
            self._due = monotonic() + INTERVAL
        if progress is None:
            return
        addressee: Addressee = self._request.connection
        if not addressee.offer(write_progress(self._codec, self._request.id, progress)):
            self._postpone(progress)

    def _postpone(self, progress: Progress) -> None:
        """The peer has not read what was before: again later, unless there is something newer or the task is over."""
        with self._lock:
            self._latest = self._latest or progress
            if self._is_timed or self._is_over:
                return
            self._is_timed = True
        self._watcher.began(self, INTERVAL)
