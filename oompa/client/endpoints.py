"""Which address next, and when: pure, driven by a plain ``now``.

An attempt to connect has *candidates*: the URLs of a list, and the addresses that a name turns out to have. They are tried one
after the other, and the next does not wait for the last to be given up (:rfc:`8305`)::

    waiting --next--> connecting --connected--> shaking hands --> open
       ^                  |                          |
       +--- postponed ----+------- failed -----------+----> the next at once
            (another one has connected)

The next starts when one has failed, when none has connected for 250 ms, or when one that has connected says nothing for a
second: it goes on meanwhile, and whichever opens first is taken.
"""

import random
from collections import deque
from typing import Callable, Generic, Iterable, Optional, Sequence, TypeVar

#: Seconds one may take to connect before the next is tried as well (:rfc:`8305#section-5`).
CONNECT_DELAY = 0.25

#: Seconds one that has connected may take to answer before the next is tried as well: more, for each has the server work.
ANSWER_DELAY = 1.0

T = TypeVar("T")
K = TypeVar("K")


class Endpoints:
    """Where each attempt to connect begins: with another one each time."""

    def __init__(self, draw: Callable[[int], int] = random.randrange) -> None:
        self._draw = draw
        self._attempts = -1
        self._last: object = None

    def urls(self, urls: Sequence[T]) -> list[T]:
        """The order for the next attempt: begun at a random one, though not at the one the last attempt began with."""
        self._attempts += 1
        if len(urls) < 2:
            return list(urls)
        starts = [index for index, url in enumerate(urls) if url != self._last] or [0]
        start = starts[self._draw(len(starts))]
        self._last = urls[start]
        return rotated(urls, start)

    #: Whether the connection there is leads to one of several servers that is another connection's rather than this one's.
    is_away = False

    def elsewhere(self, url: object, process: Optional[str]) -> Optional[float]:
        """In how many seconds to try again, though a server was met at a URL, which may have named its process; None: it will
        do."""
        return None

    def may_go(self) -> bool:
        """Whether a connection that is away has done what it was opened for."""
        return True

    def addresses(self, found: Sequence[T], family: Callable[[T], K]) -> list[T]:
        """The order of a name's addresses: their families in turn, and another one first at each attempt."""
        return rotated(interleaved(found, family), self._attempts)


class HomeFirst(Endpoints):
    """Of one among several clients, each of which has a URL that is its own: the first.

    It goes to the others only with what is pending, and comes back when that is settled.

    Args:
        may_go: Whether it is not needed: nothing is pending, and what may come others can carry.
    """

    def __init__(self, may_go: Callable[[], bool]) -> None:
        super().__init__()
        self._may_go = may_go
        self._home: object = None

    def urls(self, urls: Sequence[T]) -> list[T]:
        """Its own alone where it is not needed; else all, begun at its own at every other attempt, for at the one between it
        was just lost there."""
        self._attempts += 1
        self._home, self.is_away = urls[0], False
        if self._may_go():
            return list(urls[:1])
        is_home = self._attempts % 2 == 0 or len(urls) < 2
        return rotated(urls, 0 if is_home else 1 + self._attempts // 2 % (len(urls) - 1))

    def elsewhere(self, url: object, process: Optional[str]) -> Optional[float]:
        """Never: it notes where it is."""
        self.is_away = url != self._home
        return None

    def may_go(self) -> bool:
        """Whether it is not needed."""
        return self._may_go()


def rotated(items: Sequence[T], start: int) -> list[T]:
    """The items, begun at ``start``, which may exceed their number."""
    start %= len(items) or 1
    return [*items[start:], *items[:start]]


def interleaved(items: Iterable[T], family: Callable[[T], K]) -> list[T]:
    """The items with their families in turn (:rfc:`8305#section-4`), so that one that does not work costs one try."""
    lines: dict[K, deque[T]] = {}
    for item in items:
        lines.setdefault(family(item), deque()).append(item)
    order = []
    while lines:
        for key, line in list(lines.items()):
            order.append(line.popleft())
            if not line:
                del lines[key]
    return order


class Race(Generic[T]):
    """When each candidate of one attempt starts."""

    def __init__(self, candidates: Iterable[T]) -> None:
        self._waiting = deque(candidates)
        self._due = float("-inf")

    @property
    def due(self) -> float:
        """When the next one is to start, on the clock of ``now``; infinity when none waits."""
        return self._due if self._waiting else float("inf")

    def next(self, now: float) -> Optional[T]:
        """The candidate to start now, if it is time for one."""
        if not self._waiting or now < self._due:
            return None
        self._due = now + CONNECT_DELAY
        return self._waiting.popleft()

    def resolved(self, candidates: Iterable[T], now: float) -> None:
        """The candidate that started stands for these, which take its place."""
        self._waiting.extendleft(reversed(list(candidates)))
        self._due = now

    def connected(self, postponed: Iterable[T], now: float) -> None:
        """One has connected; those that were about to wait again."""
        self._waiting.extendleft(reversed(list(postponed)))
        self._due = now + ANSWER_DELAY

    def failed(self, now: float) -> None:
        """One has failed: the next is to start."""
        self._due = now
