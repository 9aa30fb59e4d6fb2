"""What a client finds again that has lost its connection: requests that still run, and replies that did not reach it.

Pure, but for a lock.

A client is known by its ``Oompa-Client`` *and* its identity, and has a *line* for each connection. What its newest line asks
for once more, and an older one has in hand, is *adopted*: the reply goes to the line that asked last. What has finished
meanwhile is *kept* for a while. Since nobody knows which of the last replies have arrived when a connection ends, the last ones
written count as finished meanwhile. What was queued has not begun: it is forgotten, and runs when it is asked for again.

A line that was not read for want of room is *behind*: its client may have sent a request again before its reply was written,
and that copy is read after it. For a while such a copy is looked for among the replies that were written last.

::

                 lost                 finished                         tick: too old
    in hand  ------------>  running  ----------->  kept  ------------------------------>  gone
                            |  ^ lost  \\                   asked: answered with it
                       asked v  |       \\  finished
                            adopted ----------------->  sent on the line that asked

``_lock`` guards all of it but what a line writes, a deque of single steps. It is re-entrant for a finalizer.
"""

import threading
from collections import deque
from time import monotonic
from typing import Any, Callable, Hashable, Iterable, NamedTuple, Optional

from ..wire.codec import Codec
from ..wire.messages import MISSING, Reply, Request
from .watcher import Watcher

#: How many of the replies that were written last a line remembers, and bytes of them.
REPLIES = 64
REPLY_BYTES = 1 << 20

#: Bytes that are kept for one client, what has finished while it was away included, and for all clients together.
KEPT_BYTES = 2 << 20
TOTAL_BYTES = 64 << 20

#: What a kept reply takes besides its text, in bytes, about: so many small ones are bounded as well.
ENTRY = 512

#: As many replies of this size as are remembered may be: only larger ones have to be counted as they are written.
SMALL = REPLY_BYTES // REPLIES

#: For how long a connection that was full may still read what its client sent meanwhile, in seconds.
BEHIND = 10.0

#: A type and an id, alike for requests that are copies of each other and for no others.
Key = Hashable

#: The type and the id of a request, and the text of its reply: None after one that says to try again, nothing of one too large.
Written = tuple[Optional[str], Any, Optional[bytes]]


class InHand(NamedTuple):
    """A request that a line has in hand as it is lost.

    Attributes:
        is_replying: Whether the task is over, and the reply maybe written.
    """

    key: Key
    request: Optional[Request]
    is_replying: bool = False


class Line:
    """One connection of a client.

    Attributes:
        connection: Whatever the driver sends on.
        came_at: When it was asked for.
        written: The replies that were written last.
        is_lost: Whether nothing can be sent on it any more.
        is_behind: Whether what is read may have been sent long ago, before the replies that were written last.
    """

    def __init__(self, session: "Session", connection: Any, came_at: float) -> None:
        self.session = session
        self.connection = connection
        self.came_at = came_at
        self.written: deque[Written] = deque(maxlen=REPLIES)
        self.is_lost = False
        self.is_behind = False
        self._behind_until = 0.0

    @property
    def has_past(self) -> bool:
        """Whether it might ask for anything that has begun. Needs no lock: but for falling behind, what is missing will not
        come."""
        return bool(self.session.running or self.session.kept or self.is_behind)

    def fell_behind(self, now: float) -> None:
        """It was not read for a while."""
        self.is_behind, self._behind_until = True, now + BEHIND

    def tick(self, now: float) -> None:
        """Time has passed: maybe it has caught up."""
        self.is_behind = now < self._behind_until

    def is_adopted(self, key: Optional[Key]) -> bool:
        """Whether the reply to what runs for it goes to another line. Needs no lock."""
        running = self.session.running.get(key)
        return running is not None and running.adopter is not None

    def note(self, reply: Reply, text: bytes) -> None:
        """A reply is about to be written."""
        kept = None if says_to_try_again(reply) else text if len(text) <= REPLY_BYTES else b""
        self.add((reply.task, reply.id, kept))

    def add(self, written: Written) -> None:
        """A reply is about to be written, for the first time or once more."""
        self.written.append(written)
        while sum(len(each[2] or b"") for each in tuple(self.written)) > REPLY_BYTES:
            try:
                self.written.popleft()
            except IndexError:  # another thread was quicker
                return


class Running(NamedTuple):
    """A request that runs for a line that was lost.

    Attributes:
        adopter: The line that its reply goes to; None: it is kept.
    """

    line: Line
    request: Optional[Request]
    adopter: Optional[Line] = None


class _Kept(NamedTuple):
    session: "Session"
    key: Key
    written: Written
    size: int
    until: float


class Session:
    """What there is of one client: a name and an identity.

    Attributes:
        line: Its newest line, None when that is lost.
    """

    def __init__(self, client_id: str, identity: Any) -> None:
        self.client_id = client_id
        self.identity = identity
        self.line: Optional[Line] = None
        self.running: dict[Key, Running] = {}
        self.kept: dict[Key, _Kept] = {}
        self.size = 0


def says_to_try_again(reply: Reply) -> bool:
    """Whether a reply has ``retry_after``: nothing has run, and the request is worth another try."""
    return reply.details is not None and "retry_after" in reply.details


def is_worth_keeping(reply: Reply, text: bytes) -> bool:
    """Whether to send a reply again."""
    return len(text) <= REPLY_BYTES and not says_to_try_again(reply)


def keys_with(codec: Codec) -> Callable[[Optional[str], Any], Optional[Key]]:
    """What makes a key of a type and an id: in JSON 1 is not true, and there are lists and objects."""

    def key_of(task: Optional[str], id: Any) -> Optional[Key]:
        if task is None or id is None or id is MISSING:
            return None
        return (task, id) if type(id) is str else (task, codec.encode(id))

    return key_of


def is_same_identity(one: Any, other: Any) -> bool:
    """Whether two identities are equal. One that cannot tell, an array say, or an object that equals itself only, is not."""
    try:
        return type(one) is type(other) and bool(one == other)
    except Exception:  # of an application's own class
        return False


class Resume:
    """The clients of a server, and what they may come back for.

    Args:
        timeout: Seconds a reply is kept.
        watch: Called with this and the seconds after which to call ``stuck``, as ``Watcher.began``.
        key_of: The key of a type and an id; None for a request that cannot be told from another.
        total: Bytes of replies kept for all clients; the oldest goes first.
    """

    def __init__(
        self,
        timeout: float,
        key_of: Callable[[Optional[str], Any], Optional[Key]],
        watch: "Callable[[Resume, float], None]" = lambda resume, seconds: None,
        total: int = TOTAL_BYTES,
    ) -> None:
        self._timeout = timeout
        self._watch = watch
        self._total = total
        self.key_of = key_of
        self._lock = threading.RLock()
        self._sessions: dict[str, list[Session]] = {}
        self._order: dict[int, _Kept] = {}  # by when they came, which is when they go
        self._size = 0

    def known(self, client_id: str) -> list[Session]:
        """The clients of that name; which of them has the identity is for the caller to see, without a lock."""
        with self._lock:
            return list(self._sessions.get(client_id, ()))

    def opened(
        self,
        client_id: str,
        identity: Any,
        others: list[Session],
        own: Optional[Session],
        connection: Any,
        came_at: float = 0.0,
    ) -> Optional[tuple[Line, Optional[Line]]]:
        """A connection has come.

        Args:
            others: The ones of that name that are somebody else.
            own: The one it belongs to; None: it is new.
            came_at: When it did; one that came later may have been told of before.

        Returns:
            Its line, and the one that is to be lost before it asks: the one before it, where that has not been lost yet, or
            itself, where there is a newer one. None where there are clients that the caller has not seen, or has seen for the
            last time: look again.
        """
        with self._lock:
            sessions = self._sessions.setdefault(client_id, [])
            if own is None and all(any(session is other for other in others) for session in sessions):
                own = Session(client_id, identity)
                sessions.append(own)
            elif not any(session is own for session in sessions):
                return None
            assert own is not None
            before, line = own.line, Line(own, connection, came_at)
            if before is not None and before.came_at > came_at:
                return line, line
            own.line = line
            return line, before

    def lost(self, line: Line, in_hand: Callable[[], Iterable[InHand]], now: float) -> None:
        """Nothing can be sent on a line any more, and it starts nothing; only the first time counts.

        Args:
            in_hand: What it has begun and has no reply yet, asked for while nobody else looks.
        """
        with self._lock:
            if line.is_lost:
                return
            line.is_lost = True
            session = line.session
            if session.line is line:
                session.line = None
            for key, running in session.running.items():
                if running.adopter is line:
                    session.running[key] = running._replace(adopter=None)
            begun = {each.key: each for each in in_hand()}
            written = {self.key_of(each[0], each[1]): each for each in tuple(line.written)}
            for key, each in begun.items():
                if not each.is_replying:
                    written.pop(key, None)  # of an earlier request with the same id
                if key not in written:
                    session.running[key] = Running(line, each.request)
            for key, last in written.items():
                if key is not None and last[2]:
                    self._keep_locked(session, key, last, now)
            line.written.clear()
            self._tidy_locked(session, now)

    def asked(self, line: Line, key: Key, now: float) -> "Optional[bytes | Running]":
        """A request has come: the reply that was kept for it, or what runs already, whose reply this line gets from here on;
        nothing, of no bytes, where the client has a newer line, on which it asks again. None: it is to be run."""
        with self._lock:
            session = line.session
            if session.line is not line:
                return b""  # what it left behind is for the newer line, and may be there already
            self._drop_old_locked(now)
            kept = session.kept.get(key)
            if kept is not None:
                self._drop_locked(kept)
                line.add(kept.written)  # here, lest the line is lost in between, and the reply with it
                return kept.written[2]
            running = session.running.get(key)
            if running is not None:
                running = session.running[key] = running._replace(adopter=line)
            return running

    def answered(self, line: Line, key: Key) -> Optional[Written]:
        """What was written last for a request on its own line. Needs no lock."""
        return next((each for each in reversed(tuple(line.written)) if self.key_of(each[0], each[1]) == key), None)

    def owes(self, line: Line, key: Key) -> bool:
        """Whether this line is to get the reply to what runs elsewhere."""
        with self._lock:
            running = line.session.running.get(key)
            return running is not None and running.adopter is line

    def counts(self, line: Line, key: Key, forget: Callable[[], object]) -> bool:
        """Whether a lost line was seen to have a request in hand; if not, ``forget`` is called before anybody else looks."""
        with self._lock:
            running = line.session.running.get(key)
            if line.is_lost and running is not None and running.line is line:
                return True
            forget()
            return False

    def finished(self, line: Line, reply: Reply, text: bytes, now: float) -> Optional[Line]:
        """A request of a lost line has its reply: the line to send it on, None: nobody has asked for it yet."""
        with self._lock:
            session, key = line.session, self.key_of(reply.task, reply.id)
            running = session.running.get(key)
            if running is None or running.line is not line:
                return None  # written as the line was lost, or without an id
            del session.running[key]
            adopter = running.adopter
            if adopter is not None:
                adopter.note(reply, text)
            elif is_worth_keeping(reply, text):
                self._keep_locked(session, key, (reply.task, reply.id, text), now)
            self._tidy_locked(session, now)
            return adopter

    def tick(self, now: float) -> None:
        """Time has passed: forget what is too old."""
        with self._lock:
            self._drop_old_locked(now)

    def stuck(self) -> None:
        """Called by the watcher when something may be too old."""
        now = monotonic()
        self.tick(now)
        self.arm(now)

    def arm(self, now: float) -> None:
        """See that ``stuck`` is called when the next is too old."""
        due = self.due()
        if due < float("inf"):
            self._watch(self, max(0.0, due - now))

    def due(self) -> float:
        """When to ``tick`` next."""
        with self._lock:
            return next((kept.until for kept in self._order.values()), float("inf"))

    def __len__(self) -> int:
        """How many clients there is anything of."""
        with self._lock:
            return sum(map(len, self._sessions.values()))

    def _keep_locked(self, session: Session, key: Key, written: Written, now: float) -> None:
        old = session.kept.get(key)
        if old is not None:
            self._drop_locked(old)
        kept = session.kept[key] = _Kept(session, key, written, ENTRY + len(written[2] or b""), now + self._timeout)
        self._order[id(kept)] = kept
        session.size += kept.size
        self._size += kept.size
        while session.size > KEPT_BYTES:
            self._drop_locked(next(iter(session.kept.values())))
        while self._size > self._total:
            oldest = next(iter(self._order.values()))
            self._drop_locked(oldest)
            if oldest.session is not session:
                self._forget_locked(oldest.session)

    def _drop_locked(self, kept: _Kept) -> None:
        session = kept.session
        del session.kept[kept.key], self._order[id(kept)]
        session.size -= kept.size
        self._size -= kept.size

    def _drop_old_locked(self, now: float) -> None:
        while self._order and (kept := next(iter(self._order.values()))).until <= now:
            self._drop_locked(kept)
            self._forget_locked(kept.session)

    def _tidy_locked(self, session: Session, now: float) -> None:
        self._drop_old_locked(now)
        self._forget_locked(session)

    def _forget_locked(self, session: Session) -> None:
        """Forget a client that is away and has nothing to come back for."""
        if session.line is None and not session.running and not session.kept:
            sessions = self._sessions.get(session.client_id, [])
            if any(each is session for each in sessions):
                sessions.remove(session)
            if not sessions:
                self._sessions.pop(session.client_id, None)


def resume_within(timeout: Optional[float], codec: Codec, watcher: Watcher) -> Optional[Resume]:
    """What a server with this ``resume_timeout`` needs; None where nothing is kept."""
    return None if timeout is None else Resume(timeout, keys_with(codec), watcher.began)
