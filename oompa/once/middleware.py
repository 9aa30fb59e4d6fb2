"""The middleware by which a request runs once.

Of the requests that are the same (``keys``) one runs: whoever puts its lease into the store. In the process where it runs the
others wait for the *flight* of the first of them there. Where it runs in another process, the first one there looks into the
store now and then, after 10 ms, then less and less often until it does so four times a second, and the others wait for it. So
what waits costs a process no more than four looks a second for each request that others run.

``Once._lock`` guards the table of flights. The store is never called under it, nor is a task run.
"""

import secrets
import threading
import time
from concurrent.futures import CancelledError
from typing import Any, Callable, Iterable, Optional

from ..errors import TaskError
from ..logs import get_logger
from ..options import seconds
from ..wire.codec import Codec, JsonCodec
from ..wire.messages import Request
from .keys import digest, key_of
from .leases import Leases
from .memory import MemoryStore
from .records import Lease, Outcome, failed, read_record, succeeded
from .store import Store

_logger = get_logger("oompa.once")

#: Seconds a lease lasts.
LEASE = 60.0

#: Seconds for which those who wait in other processes can learn what a run has raised.
_TOLD = 60.0

#: Seconds before the first look whether another process is done; how much longer each pause is, and the longest.
_FIRST_PAUSE, _GROWTH, _LONGEST_PAUSE = 0.01, 1.5, 0.25

#: Seconds after which a request is worth sending again whose store could not be reached.
_RETRY_AFTER = 1.0

CallNext = Callable[[Request], Any]


class _Flight:
    """A request that runs in this process, or looks what another process makes of it; others wait for it here.

    Attributes:
        outcome: How the run ended; None until then, and for good when this one gave up.
    """

    def __init__(self) -> None:
        self.outcome: Optional[Outcome] = None
        self.landed = threading.Event()


class Once:
    """A middleware: of requests that are the same one runs, and the others get what came of it.

    ::

        server.use(Once({"PAY", "REFUND"}, ttl=86400, store=SqliteStore("/var/lib/shop/once.db")))

    Two requests are the same that are of one caller (what ``authenticate`` returned) and one type, and have the same ``key``
    or, without one, the same client and id, as when a client sends a request again. Whoever comes while it runs waits; whoever
    comes within ``ttl`` after that gets the same result or :class:`TaskError`. Another payload under the same key is a
    ``TaskError`` with the code ``invalid_argument``. What has neither key nor client runs each time.

    Other exceptions go to those who wait and are forgotten; so is what says, by ``retry_after``, that nothing has run. When the
    caller whose request runs gives it up, one of those who wait runs it. That a process has died is noticed when its lease
    runs out.

    When the store cannot be reached nothing runs: the error is ``unavailable`` and says when to try again.

    Args:
        types: Task types it is for; None: all. A request of another passes through.
        ttl: Seconds for which what came of a request is kept.
        store: Where: a :class:`MemoryStore` of its own when left out, which serves one process.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: ``ttl`` is no duration above 0.

    Attributes:
        lease: Seconds, 60, after which a run whose process has died counts as over; while a task runs its lease is renewed. To
            be set before the first request.
    """

    def __init__(self, types: Optional[Iterable[str]] = None, *, ttl: float = 600.0, store: Optional[Store] = None) -> None:
        self._types = None if types is None else _checked_types(types)
        self._ttl = seconds("ttl", ttl)
        self._store: Store = MemoryStore() if store is None else _checked_store(store)
        self.lease = LEASE
        self._codec = JsonCodec()
        self._leases = Leases(self._store)
        self._lock = threading.RLock()
        self._flights: dict[tuple[str, str], _Flight] = {}

    def __call__(self, request: Request, call_next: CallNext) -> Any:
        """Run the request, or give what came of the one that is the same."""
        key = key_of(request) if self._types is None or request.type in self._types else None
        if key is None:
            return call_next(request)
        payload = digest("the payload", request.payload)
        codec = getattr(request.connection, "codec", self._codec)
        while True:
            flight, is_first = self._join(key, payload)
            if is_first:
                return self._fly(flight, key, payload, codec, request, call_next)
            while not flight.landed.wait(_LONGEST_PAUSE):
                _check_wanted(request)
            if flight.outcome is not None:
                return flight.outcome.give(codec)

    def _join(self, key: str, payload: str) -> tuple[_Flight, bool]:
        """The flight of a request, and whether it has just begun."""
        with self._lock:
            flight = self._flights.get((key, payload))
            if flight is not None:
                return flight, False
            self._flights[key, payload] = flight = _Flight()
            return flight, True

    def _fly(self, flight: _Flight, key: str, payload: str, codec: Codec, request: Request, call_next: CallNext) -> Any:
        """Have the store say what is to be done, and do it; whatever happens, nobody waits for it afterwards."""
        try:
            lease = Lease(payload, secrets.token_hex(8))
            flight.outcome = self._claim(key, lease, request)
            if flight.outcome is None:
                return self._run(flight, key, lease, codec, request, call_next)
            return flight.outcome.give(codec)
        finally:
            with self._lock:
                del self._flights[key, payload]
            flight.landed.set()

    def _run(self, flight: _Flight, key: str, lease: Lease, codec: Codec, request: Request, call_next: CallNext) -> Any:
        """Run the request under a lease, and keep what comes of it."""
        self._leases.began(key, lease.to_bytes(), self.lease)
        try:
            result = call_next(request)
            flight.outcome = succeeded(lease.payload, result, codec)
            return result
        except BaseException as error:
            if not (request.cancelled or isinstance(error, CancelledError)):  # else nobody has run it to its end
                flight.outcome = failed(lease.payload, error, codec)
            raise
        finally:
            self._leases.ended(lease.to_bytes())
            self._keep(key, lease, flight.outcome)

    # The store.

    def _claim(self, key: str, lease: Lease, request: Request) -> Optional[Outcome]:
        """Take the lease, None; or what came of the request in another process, now or before."""
        try:
            while not self._store.swap(key, None, lease.to_bytes(), self.lease):
                found = self._store.get(key)
                record = None if found is None else read_record(found)
                if record is not None and record.payload != lease.payload:
                    raise TaskError("another payload was sent under the same key", code="invalid_argument")
                if isinstance(record, Lease):
                    record = self._await(key, record, request)
                if record is not None:
                    return record
                _check_wanted(request)
                if found is None:
                    time.sleep(_FIRST_PAUSE)  # it has ended just now, unless the store contradicts itself
            return None
        except TaskError:
            raise
        except Exception as error:
            _logger.error("the store of Once failed, and %r was not run", request, exc_info=True)
            text = "the store of Once cannot be reached"
            raise TaskError(text, code="unavailable", retry_after=_RETRY_AFTER) from error

    def _await(self, key: str, lease: Lease, request: Request) -> Optional[Outcome]:
        """Wait for another process; None when it has given up or died."""
        pause = _FIRST_PAUSE
        while self._store.get(key) == lease.to_bytes():
            _check_wanted(request)
            time.sleep(pause)
            pause = min(pause * _GROWTH, _LONGEST_PAUSE)
        told = self._store.get(lease.token)
        outcome = None if told is None else read_record(told)
        return outcome if isinstance(outcome, Outcome) else None

    def _keep(self, key: str, lease: Lease, outcome: Optional[Outcome]) -> None:
        """The lease is over: put the outcome in its place, or tell it to those alone who wait."""
        old = lease.to_bytes()
        try:
            if outcome is not None and outcome.is_kept:
                new = outcome.to_bytes()
                if not (self._store.swap(key, old, new, self._ttl) or self._store.swap(key, None, new, self._ttl)):
                    _logger.warning("a request has run for longer than its lease was kept, and another one has its place")
                return
            if outcome is not None:
                self._store.swap(lease.token, None, outcome.to_bytes(), _TOLD)
            self._store.swap(key, old, None, self._ttl)
        except Exception:
            _logger.error("the store of Once failed: what came of a request is not kept", exc_info=True)


def _check_wanted(request: Request) -> None:
    """Raise where nobody waits for the request any more."""
    if request.cancelled:
        raise TaskError("cancelled while the same request ran", code="cancelled")
    if request.remaining() == 0:
        raise TaskError("the deadline passed while the same request ran", code="deadline_exceeded")


def _checked_types(types: Any) -> frozenset[str]:
    if isinstance(types, str):
        raise TypeError(f"types must be a collection of task types, such as [{types!r}], not {types!r}")
    chosen = frozenset(types)
    for each in chosen:
        if not isinstance(each, str):
            raise TypeError(f"a task type must be a string, not {each!r}")
    return chosen


def _checked_store(store: Any) -> Store:
    if isinstance(store, type) or not (callable(getattr(store, "get", None)) and callable(getattr(store, "swap", None))):
        raise TypeError(f"store must be one such as MemoryStore() or SqliteStore(path), not {store!r}")
    return store  # type: ignore[no-any-return]
