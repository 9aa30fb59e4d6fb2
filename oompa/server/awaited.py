"""Requests of a connection that run on no thread of it: a task returned a Future, and its reply comes when that is settled; or
they came over from a connection that was lost, and still run there.

They hold no place of ``concurrency``. They count in what a connection may hold, and a drain waits for them.

``Awaited`` has no lock of its own: methods that end in ``_locked`` need its connection's.
"""

from collections import deque
from typing import Any, Iterator, Optional

from ..wire.messages import Request

#: A request's type and id.
Key = tuple[str, Any]


class Awaiting:
    """One request whose reply is awaited.

    Attributes:
        key: Its type and id as they came.
        is_adopted: Whether it runs for a connection that was lost.
        size: Bytes of its message.
        waited: Seconds it was queued.
        elapsed: Seconds from the start of the task until the Future was settled.
        is_given_up: Whether it was cancelled for its deadline, as far as it could be.
        is_replying: Whether its reply is about to be written, or is.
    """

    is_given_up = False
    is_replying = False

    def __init__(self, key: Key, request: Request, size: int, waited: float = 0.0, is_adopted: bool = False) -> None:
        self.key = key
        self.request = request
        self.is_adopted = is_adopted
        self.size = size
        self.waited = waited
        self.elapsed = 0.0

    @property
    def deadline(self) -> Optional[float]:
        """When to give it up; None: never, or that is done."""
        return None if self.is_given_up else self.request.deadline


class Awaited:
    """What one connection awaits.

    Attributes:
        size: Bytes of all the messages.
    """

    def __init__(self) -> None:
        self.size = 0
        self._pending: dict[Awaiting, None] = {}
        self._settled: deque[Awaiting] = deque()
        self._is_telling = False

    def __len__(self) -> int:
        return len(self._pending)

    def __iter__(self) -> Iterator[Awaiting]:
        return iter(self._pending)

    def add_locked(self, awaiting: Awaiting) -> None:
        """A task has returned a Future."""
        self._pending[awaiting] = None
        self.size += awaiting.size

    def settled_locked(self, awaiting: Awaiting) -> bool:
        """A Future is settled; returns whether the caller has to see that somebody tells, for nobody does yet."""
        self._settled.append(awaiting)
        is_telling, self._is_telling = self._is_telling, True
        return not is_telling

    def next_locked(self) -> Optional[Awaiting]:
        """The next to tell of; None: nothing is left, and whoever tells is dismissed."""
        if self._settled:
            return self._settled.popleft()
        self._is_telling = False
        return None

    def told_locked(self, awaiting: Awaiting) -> None:
        """The reply was sent."""
        if self._pending.pop(awaiting, self) is None:
            self.size -= awaiting.size

    def due_locked(self) -> float:
        """When the next caller stops waiting whose Future has not been given up."""
        return min((deadline for each in self._pending if (deadline := each.deadline) is not None), default=float("inf"))

    def overdue_locked(self, now: float) -> list[Awaiting]:
        """Those whose callers do not wait any more; each once."""
        late = [each for each in self._pending if (deadline := each.deadline) is not None and deadline <= now]
        for each in late:
            each.is_given_up = True
        return late
