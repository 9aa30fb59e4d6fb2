"""The Future a dispatch gives back, and what ``Client.call`` waits for.

The Future differs from a plain ``concurrent.futures.Future`` in this: a thread that waits in ``result`` reads the connection
itself instead of being woken by the thread that does; callbacks run on the client's callback thread, but those of asyncio,
which only wake its loop, at once; cancelling forgets the request; and the condition variable of a Future, half of what it
costs, is made when somebody needs it, which for ``result`` nobody does. ``wait``, ``as_completed`` and ``asyncio.wrap_future``
work as on any Future, through the names that concurrent.futures shares between its own modules (``_state``, ``_condition``,
``_waiters``, ``_done_callbacks``).

A call settles once, whoever comes first. A signal handler may raise on any line of the main thread, so whatever comes after
the change of state is a step that is done once and can be taken by any thread: wakers are released again, and who waits in
``wait`` or has a callback is told by ``_tell``, on a thread that no signal interrupts. Settling again changes nothing but does
what is left of that; whoever was interrupted while settling has not forgotten the request yet, so its deadline comes again.
"""

import os
import threading
from concurrent.futures import Future, InvalidStateError
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol, TypeVar

from ..callables import checked
from ..threads import is_main

T = TypeVar("T")
Callback = Callable[["Future[Any]"], object]


class Driver(Protocol):
    """What a call needs of the client it belongs to."""

    def wait_for(self, call: "Call", timeout: Optional[float]) -> None:
        """Return when the call is settled or the timeout is over."""

    def forget(self, call: "Call") -> None:
        """The call was cancelled."""

    def run_later(self, function: Callable[..., Any], *args: Any) -> None:
        """Run a callback on the callback thread."""

    def run_undisturbed(self, function: Callable[[], object]) -> None:
        """Run a function that does not wait where no signal handler interrupts it, and not under a lock."""

    def check_owned(self) -> None:
        """Raise ClientClosed in a fork of the process that made the call."""


#: Whose callbacks do nothing but wake an event loop, or look at the clock.
_QUICK = frozenset({"asyncio.futures", "oompa.client.stopwatch"})

#: Seconds after which a thread goes on without the lock of a condition variable: concurrent.futures holds it for moments, but
#: for ever where Ctrl-C ended the main thread's ``wait`` just then.
_PATIENCE = 1.0

#: Guards the making of condition variables, the state of calls that have none, and wakers. A signal handler may settle, too.
_making = threading.RLock()


def _forked() -> None:
    """Another thread of the parent may have held it."""
    global _making
    _making = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class Call(Future[Any]):
    """A request that was dispatched.

    Attributes:
        id: The id of the request on the wire.
        type: Its task type.
        is_settled: ``done`` without a lock.

    ``result`` and ``exception`` raise ``concurrent.futures.TimeoutError`` when their own timeout passes first; the request
    then goes on. Callbacks run on the client's callback thread, in order; those added after the client was closed run at once.
    """

    _waiters: Any = ()  # a list once there is a condition
    _untold: Any = ()  # of those who waited when it settled, the ones that are still to be told
    _done_callbacks: Any = ()
    _lock: Any  # of the condition variable

    def __init__(self, driver: Driver, id: str, type: str, owner: Any = None) -> None:
        # Not Future.__init__, which makes the condition.
        self.id = id
        self.type = type
        self.is_settled = False
        self._state = PENDING
        self._result: Any = None
        self._exception: Optional[BaseException] = None
        self._made: Optional[threading.Condition] = None
        self._wakers: tuple[threading.Lock, ...] = ()
        self._driver = driver
        self._owner = owner  # keeps a client that nobody else holds alive until the reply is there

    def __repr__(self) -> str:
        state, error = "pending", self._exception
        if self._state == FINISHED:
            told = f"returned {type(self._result).__name__}" if error is None else f"raised {type(error).__name__}"
            state = f"finished {told}"
        elif self._state != PENDING:
            state = "cancelled"
        return f"<{type(self).__name__} {self.type} (request {self.id}), {state}>"

    def result(self, timeout: Optional[float] = None) -> Any:
        """The payload of the reply.

        Raises:
            RemoteError: The server answered ERR.
            RequestTimeout: No reply came in any attempt.
            ConnectionLost: The server cannot be talked to.
            ClientClosed: The client was closed first.
            CancelledError: The call was cancelled.
            concurrent.futures.TimeoutError: ``timeout`` seconds have passed.
        """
        if not self.is_settled:
            self._driver.wait_for(self, _limit(timeout))
        if self._state == FINISHED and self._exception is None:
            return self._result
        return super().result(0)

    def exception(self, timeout: Optional[float] = None) -> Optional[BaseException]:
        """The error of the call, None when it succeeded. Raises as ``result`` does, its own errors excepted."""
        if not self.is_settled:
            self._driver.wait_for(self, _limit(timeout))
        return super().exception(0)

    def done(self) -> bool:
        """Whether the call has a result or an error, or was cancelled."""
        return self.is_settled

    def cancel(self) -> bool:
        """Give the call up: it is never sent again and its reply is dropped. True unless it is done already."""
        if self.settle(state=CANCELLED_AND_NOTIFIED):
            self._driver.forget(self)
        return self._state == CANCELLED_AND_NOTIFIED

    def set_result(self, result: Any) -> None:
        """Not for a call: it is settled by its reply. Raises InvalidStateError, as setting an exception does."""
        raise InvalidStateError(f"{self!r} is settled by its reply; to give it up, cancel it")

    def set_exception(self, exception: Optional[BaseException]) -> None:
        """As for ``set_result``."""
        self.set_result(None)

    def set_running_or_notify_cancel(self) -> bool:
        """As for ``set_result``."""
        raise InvalidStateError(f"{self!r} is run by the server; no executor runs it")

    def add_done_callback(self, fn: Callback) -> None:
        """Call ``fn(call)`` on the callback thread once the call is done.

        Raises:
            TypeError: A coroutine function, which would never run.
            ClientClosed: In a fork, while the call is pending: the reply comes to the parent.
        """
        checked("a callback", fn)
        self._condition  # which makes the list
        if not self._guarded(self._append_callback, fn):
            self._call_back(fn)

    def _append_callback(self, callback: Callback) -> bool:
        if self._state != PENDING:
            return False
        self._done_callbacks.append(callback)
        return True

    def _call_back(self, callback: Callback) -> None:
        """Have a callback run: one of asyncio's here and now, for it does nothing but wake an event loop, and shall not wait
        behind those of a user; so one that takes the time."""
        if getattr(callback, "__module__", None) not in _QUICK:
            return self._driver.run_later(callback, self)
        try:
            callback(self)
        except Exception as error:
            self._driver.run_later(_raise, error)  # told where those of other callbacks are

    def settle(self, result: Any = None, error: Optional[BaseException] = None, state: str = FINISHED) -> bool:
        """Set the result or the error, unless the call is done already; returns whether it was not."""
        with _making:
            is_guarded = self._made is not None
            if not is_guarded:  # nobody waits but in wait_for, and nobody can begin to
                is_first = self._change(state, result, error)
        if is_guarded:
            is_first = self._guarded(self._change, state, result, error)
        for waker in self._wakers:
            release(waker)
        if self._untold or self._done_callbacks:
            self._driver.run_undisturbed(self._tell)
        self._owner = None  # outside the lock of all calls: with the last reference to a client users' code may run
        return is_first

    def add_waker(self, waker: threading.Lock) -> None:
        """Release ``waker`` when the call is settled. Look at ``is_settled`` afterwards: it may be already."""
        with _making:
            self._wakers = (*self._wakers, waker)

    def remove_waker(self, waker: threading.Lock) -> None:
        """Forget ``waker``."""
        with _making:
            self._wakers = tuple(each for each in self._wakers if each is not waker)

    def _tell(self) -> None:
        """Tell those in ``wait`` and ``as_completed``, and hand over the callbacks: each once, whoever else is about to."""
        self._guarded(self._tell_waiters)
        callbacks = self._done_callbacks  # which has stopped growing
        while callbacks:
            try:
                callback = callbacks.pop(0)
            except IndexError:
                return
            try:
                self._call_back(callback)
            except BaseException:  # interrupted: the next to settle goes on
                callbacks.insert(0, callback)
                raise

    def _change(self, state: str, result: Any, error: Optional[BaseException]) -> bool:
        if self._state != PENDING:
            return False
        if self._waiters:
            self._untold = list(self._waiters)
        self._result = result
        self._exception = error
        self._state = state
        self.is_settled = True
        return True

    def _tell_waiters(self) -> None:
        while self._untold:
            waiter = self._untold.pop(0)
            if self._state != FINISHED:
                waiter.add_cancelled(self)
            elif self._exception is None:
                waiter.add_result(self)
            else:
                waiter.add_exception(self)

    def _guarded(self, step: Callable[..., T], *args: Any) -> T:
        """Take a step under the lock of the condition variable, which there must be."""
        lock = self._lock
        if is_main():
            with lock:  # not the condition: its methods are Python, and interrupted in them a thread keeps the lock for ever
                return step(*args)
        is_held = lock.acquire(timeout=_PATIENCE)
        try:
            return step(*args)
        finally:
            if is_held:
                lock.release()

    def _get_condition(self) -> threading.Condition:
        """The condition variable that concurrent.futures knows, and what it guards. Nobody waits for its notification.

        Raises ClientClosed in a fork, while the call is pending.
        """
        if not self.is_settled:
            self._driver.check_owned()
        if self._made is None:
            with _making:
                if self._made is None:
                    self._waiters, self._done_callbacks = [], []
                    self._lock = threading.RLock()
                    self._made = threading.Condition(self._lock)
        return self._made

    if TYPE_CHECKING:  # what takes Futures, such as ``as_completed``, is annotated with an attribute that can be set
        _condition: threading.Condition
    else:
        _condition = property(_get_condition)

    def disown(self) -> None:
        """This process is a fork: those who wait, and their locks, are the parent's."""
        self._made, self._waiters, self._untold, self._done_callbacks, self._wakers = None, (), (), (), ()


class AwaitedCall:
    """A request that only the thread that makes it waits for, and knows of: it needs no condition, callbacks or cancelling.

    Its thread waits for it once. Once settled it keeps its outcome; settled twice at a time, say by its reply and by the timer,
    it ends with either.

    Attributes:
        call, waker, is_gone: It is its own waiter, see ``turns.Waiter``, which is an object less.
    """

    __slots__ = ("is_settled", "waker", "is_gone", "_outcome")
    _outcome: tuple[Any, Optional[BaseException]]

    def __init__(self) -> None:
        self.is_settled = self.is_gone = False
        self.waker: Optional[threading.Lock] = None

    @property
    def call(self) -> "AwaitedCall":
        """Itself."""
        return self

    def outcome(self) -> Any:
        """The result, or the error raised. Once, and only when it is settled."""
        result, error = self._outcome
        if error is None:
            return result
        try:
            raise error
        finally:
            del error, self._outcome  # no cycle of the error and the frame it was raised in

    def settle(self, result: Any = None, error: Optional[BaseException] = None) -> None:
        """Set the result or the error, unless the call is done already; wake who waits, in either case."""
        if not self.is_settled:
            self._outcome = (result, error)
            self.is_settled = True
        waker = self.waker
        if waker is not None:
            release(waker)

    def add_waker(self, waker: threading.Lock) -> None:
        """Release ``waker`` when the call is settled. Look at ``is_settled`` afterwards: it may be already."""
        self.waker = waker

    def remove_waker(self, waker: threading.Lock) -> None:
        """Forget ``waker``."""
        self.waker = None


def _limit(timeout: Optional[float]) -> Optional[float]:
    """The timeout of somebody who waits, unless it is none."""
    if timeout is None or isinstance(timeout, (int, float)) and timeout == timeout:
        return timeout
    kind = ValueError if isinstance(timeout, float) else TypeError
    raise kind(f"timeout must be a number of seconds or None, not {timeout!r}")


def _raise(error: BaseException) -> None:
    raise error


def release(waker: threading.Lock) -> None:
    """Wake the thread that waits to acquire ``waker``; twice is as good as once."""
    try:
        waker.release()
    except RuntimeError:
        pass
