"""Several links behind the methods of one: which of them carries a call, and what holds for them together.

It holds no lock: the links are made once and stay, and which of them are connected may change at any moment anyway.
"""

import random
from contextlib import ExitStack
from typing import Any, Callable, Optional, Sequence

from ..errors import ConnectionLost
from .call import Call
from .link import Link, Wishes, deadline_of, doze


class Spread:
    """Spreads calls over links.

    Each call goes to the one with fewer calls pending of two that are drawn at random among the connected ("the power of two
    choices"): it needs no view of them all, and does not send everybody to the same one at once as choosing the best would.

    Args:
        links: One at least.
        shown: Where they lead, as messages tell it.
        draw: Gives numbers from 0 up to 1, as ``random.random``.
    """

    def __init__(self, links: Sequence[Link], shown: str, draw: Callable[[], float] = random.random) -> None:
        self._links = tuple(links)
        self.shown = shown
        self._draw = draw

    def start(self) -> None:
        """Connect all of them. Does not wait. Raises ClientClosed."""
        for link in self._links:
            link.start()

    def dispatch(self, type: str, payload: Any, wishes: Optional[Wishes] = None, owner: Any = None) -> Call:
        """Send a request through one of them; parameters and errors as ``Link.dispatch``."""
        return self.chosen().dispatch(type, payload, wishes, owner)

    def call(self, type: str, payload: Any, wishes: Optional[Wishes] = None) -> Any:
        """Send a request through one of them and wait, as ``Link.call``."""
        return self.chosen().call(type, payload, wishes)

    def chosen(self) -> Link:
        """The link for the next call: where none is connected, one of those that may be soon."""
        one, other = _two_of(self._links, self._draw)
        if not (one.is_ready and other.is_ready):
            one, other = _two_of(self._hopeful(), self._draw)
        return one if len(one) <= len(other) else other

    def _hopeful(self) -> Sequence[Link]:
        """Those that are ready, or else will be soonest."""
        return (
            [link for link in self._links if link.is_ready]
            or [link for link in self._links if link.is_connected]
            or [link for link in self._links if not link.is_refused]
            or self._links
        )

    @property
    def is_connected(self) -> bool:
        """Whether one of them is connected."""
        return any(link.is_connected for link in self._links)

    @property
    def state(self) -> str:
        """How many are connected, or what they do instead, in a few words."""
        connected = sum(link.is_connected for link in self._links)
        return f"{connected} of {len(self._links)} connected" if connected else self._links[0].state

    def __len__(self) -> int:
        """How many calls are pending on all of them."""
        return sum(map(len, self._links))

    def wait_connected(self, timeout: Optional[float]) -> None:
        """Return when one of them is connected; raises as ``Link.wait_connected``, once it holds for every one."""
        deadline = deadline_of(timeout)
        with ExitStack() as stack:
            waker = stack.enter_context(self._links[0].woken())
            for link in self._links[1:]:
                stack.enter_context(link.woken(waker))
            while True:  # see turns of loops within a try
                if self._meets_connection(deadline):
                    return
                doze(waker, deadline)

    def _meets_connection(self, deadline: float) -> bool:
        failures = []
        for link in self._links:
            try:
                if link.meets_connection(deadline):
                    return True
            except ConnectionLost as error:
                failures.append(error)
        if len(failures) == len(self._links):
            raise failures[0]
        return False

    def drain(self, timeout: Optional[float]) -> bool:
        """Take no new calls, wait until what is pending on all of them has settled, at most ``timeout`` seconds, and close."""
        deadline = deadline_of(timeout)
        for link in self._links:
            link.refuse_more()
        has_settled = all([link.wait_settled(deadline) for link in self._links])
        self.close()
        return has_settled

    def close(self) -> None:
        """Close all of them side by side: what one server takes for its goodbye, another may take as well."""
        for link, farewell in [(link, link.begin_closing()) for link in self._links]:
            link.finish_closing(farewell)

    def abandon(self) -> None:
        """Close them, each on its timer's thread, and return at once."""
        for link in self._links:
            link.abandon()


def _two_of(links: Sequence[Link], draw: Callable[[], float]) -> tuple[Link, Link]:
    """Two different ones, where there are two."""
    count = len(links)
    one = int(draw() * count)
    return links[one], links[(one + 1 + int(draw() * (count - 1))) % count]
