"""Tasks of a connection that have returned a Future: who replies when it is settled, and who gives it up when its caller does.

Whoever settles a Future, an executor's thread maybe, only leaves word; a stand-in makes the replies and has them sent, one
after the other for each connection. The watcher looks when the next caller stops waiting.

No lock of its own: the connection's guards what is awaited; nothing is settled, cancelled, made or sent under it.
"""

from functools import partial
from time import monotonic
from typing import Any, ContextManager, Optional, Protocol

from flask import Flask

from ..wire.messages import Reply, Request
from .awaited import Awaited, Awaiting
from .contexts import NOTHING_SET, Worker, work_as
from .pipeline import Answer
from .service import Service


class Owner(Protocol):
    """The connection, as far as its Futures need it."""

    def make_worker(self) -> Worker:
        """What runs on the thread that replies."""

    def send_settled(self, awaiting: Awaiting, reply: Reply, text: bytes) -> None:
        """A Future was settled: its reply goes out, and it is awaited no more."""

    def abort(self, reason: str) -> None:
        """A reply is missing."""


class Futures:
    """Looks after what a connection awaits.

    Args:
        state: The connection's lock.
        app: In whose contexts the replies become text; None: in none.

    Attributes:
        awaited: What is awaited; the connection adopts, counts and tells, too.
    """

    def __init__(self, owner: Owner, state: ContextManager[Any], service: Service, app: Optional[Flask]) -> None:
        self.awaited = Awaited()
        self._owner = owner
        self._state = state
        self._service = service
        self._app = app
        self._looks_at = float("inf")

    def began(self, awaiting: Awaiting) -> None:
        """A task has returned a Future, which is awaited: whoever settles it sees to the reply."""
        request = awaiting.request
        if request.cancelled:  # while the task ran
            request.awaits.cancel()
        if request.deadline is not None:
            self.watch_deadlines()
        request.awaits.add_done_callback(partial(self._settled, awaiting))

    def watch_deadlines(self) -> None:
        """Have the watcher look when the next caller stops waiting for a Future."""
        with self._state:
            due = self.awaited.due_locked()
            if self._looks_at <= due:
                return
            self._looks_at = due
        self._service.watcher.began(self, max(0.0, due - monotonic()))

    def stuck(self) -> None:
        """Called by the watcher: a caller has stopped waiting for a Future, unless a copy has given it more time."""
        with self._state:
            self._looks_at = float("inf")
            late = self.awaited.overdue_locked(monotonic())
        for awaiting in late:
            give_up(awaiting.request)
        self.watch_deadlines()

    def close(self) -> None:
        """The connection has ended: the watcher need not look any more."""
        self._service.watcher.ended(self)

    def _settled(self, awaiting: Awaiting, _: Any) -> None:
        """A Future is settled; on the thread that did it, which is not to be held up."""
        awaiting.elapsed = monotonic() - awaiting.request.began
        with self._state:
            is_mine = self.awaited.settled_locked(awaiting)
        if not is_mine:
            return
        try:
            self._service.stand_ins.run(self._tell_settled)
        except Exception:  # no thread to be had, no memory: here, then
            self._tell_settled()

    def _tell_settled(self) -> None:
        """Reply for the Futures that are settled, while there are any."""
        me = self._owner.make_worker()
        work_as(me)
        try:
            while (awaiting := self._next_settled()) is not None:
                me.request = awaiting.request
                reply, text = NOTHING_SET.copy().run(self._conclude, awaiting)
                self._owner.send_settled(awaiting, reply, text)
        except BaseException:
            self._service.logger.exception("a defect of oompa: a reply to %r is missing", self._owner)
            self._owner.abort("internal error")
            raise
        finally:
            work_as(None)

    def _next_settled(self) -> Optional[Awaiting]:
        with self._state:
            return self.awaited.next_locked()

    def _conclude(self, awaiting: Awaiting) -> Answer:
        type, id = awaiting.key
        answer = self._service.pipeline.conclude(self._app, awaiting.request, type, id, awaiting.elapsed)
        awaiting.request.awaits = None  # it holds on to this, by its callback: what it came to goes now, not with the collector
        answer[0].waited = awaiting.waited
        return answer


def give_up(request: Request) -> None:
    """Cancel the Future that a request waits for, if it still does."""
    future = request.awaits
    if future is not None:
        future.cancel()
