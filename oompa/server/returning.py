"""What one connection has to do with those before and after it of the same client: where ``resume`` meets a real one.

Nothing here needs the connection's lock, and nothing is sent or run here: ``resume`` has a lock of its own, and what it finds
is for the connection to deal with.
"""

from time import monotonic
from typing import Any, Callable, Iterable, Optional, Protocol, Union

from ..wire.messages import Reply, Request
from .awaited import Key
from .resume import InHand, Line, Resume, Running, is_same_identity


class Returning(Protocol):
    """A connection, as far as the others of its client need it."""

    def retire(self) -> None:
        """There is a newer one."""

    def send_adopted(self, reply: Reply, text: bytes) -> bool:
        """Send the reply to what ran for an earlier one; whether that was possible."""


class Past:
    """What the client of a connection has left behind on earlier ones, and what this one leaves to later ones.

    Attributes:
        line: The connection, as ``resume`` knows it.
    """

    def __init__(self, resume: Resume, line: Line) -> None:
        self._resume = resume
        self.line = line

    def find(self, key: Key, is_replying: Callable[[Key], bool]) -> "Optional[Union[bytes, Running]]":
        """What there is of a request that has begun, on an earlier connection or before this one read its copy.

        Args:
            is_replying: Whether this connection is just replying to one of that key.

        Returns:
            The text of its reply, empty where nothing is to be sent; or what runs elsewhere, and this connection gets the reply
            from here on. None: it is to be run.
        """
        counted = self._resume.key_of(*key)
        if counted is None:
            return None
        now = monotonic()
        found = self._resume.asked(self.line, counted, now)
        if found is None and self.line.is_behind:
            written = self._resume.answered(self.line, counted)
            found = written[2] if written is not None else b"" if is_replying(key) else None
        self.line.tick(now)
        return found

    def owes(self, key: Key) -> bool:
        """Whether this connection is still to get the reply to what it found running."""
        counted = self._resume.key_of(*key)
        return counted is not None and self._resume.owes(self.line, counted)

    def counts(self, key: Key, forget: Callable[[], object]) -> bool:
        """Whether a request that began as the connection was lost was seen; if not, ``forget`` is called first."""
        counted = self._resume.key_of(*key)
        if counted is None:
            forget()
            return False
        return self._resume.counts(self.line, counted, forget)

    def is_elsewhere(self, key: Key) -> bool:
        """Whether a newer connection has adopted what runs for this one."""
        return self.line.is_lost and self.line.is_adopted(self._resume.key_of(*key))

    def lost(self, begun: Callable[[], Iterable[tuple[Key, Optional[Request], bool]]]) -> None:
        """Nothing can be sent on the connection any more, and it starts nothing; only the first time counts, and whoever comes
        later waits for it.

        Args:
            begun: Asked while nobody else looks: the key of each request in hand, the request, whether its task is over.
        """
        now = monotonic()
        self._resume.lost(self.line, lambda: self._in_hand(begun()), now)
        self._resume.arm(now)

    def _in_hand(self, begun: Iterable[tuple[Key, Optional[Request], bool]]) -> list[InHand]:
        found = [(self._resume.key_of(*key), request, is_replying) for key, request, is_replying in begun]
        return [InHand(key, request, is_replying) for key, request, is_replying in found if key is not None]

    def finished(self, reply: Reply, text: bytes) -> Optional[Returning]:
        """What ran for this connection, which was lost, has its reply: the connection to send it on; None: it is kept."""
        now = monotonic()
        adopter = self._resume.finished(self.line, reply, text, now)
        self._resume.arm(now)
        return None if adopter is None else adopter.connection


def past_of(
    resume: Resume, client_id: str, identity: Any, connection: Returning, came_at: float
) -> tuple[Past, Optional[Returning]]:
    """What a client has left behind; and which connection is to retire before this one asks: the one before it, or, where there
    is a newer one, this."""
    opened = None
    while opened is None:
        known = resume.known(client_id)
        own = next((each for each in known if is_same_identity(each.identity, identity)), None)
        opened = resume.opened(client_id, identity, [each for each in known if each is not own], own, connection, came_at)
    line, before = opened
    return Past(resume, line), None if before is None else before.connection
