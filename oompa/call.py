"""The Future a dispatch gives back.

It differs from a plain ``concurrent.futures.Future`` in three ways: a thread that waits in ``result`` reads the connection
itself instead of being woken by the thread that does; callbacks run on the client's callback thread; and cancelling
forgets the request. ``wait``, ``as_completed`` and ``asyncio.wrap_future`` work as on any Future, through the names that
concurrent.futures shares between its own modules (``_state``, ``_condition``, ``_waiters``, ``_done_callbacks``).
"""

import threading
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from typing import Any, Callable, Optional, Protocol


class Driver(Protocol):
    """What a call needs of the client it belongs to."""

    def wait_for(self, call: "Call", timeout: Optional[float]) -> None:
        """Return when the call is done or the timeout is over."""

    def forget(self, call: "Call") -> None:
        """The call was cancelled."""

    def run_later(self, function: Callable[..., Any], *args: Any) -> None:
        """Run a callback on the callback thread."""


class Call(Future):  # type: ignore[type-arg]
    """A request that was dispatched.

    Attributes:
        id: The id of the request on the wire.
        type: Its task type.

    ``result`` and ``exception`` raise ``concurrent.futures.TimeoutError`` when their own timeout passes first; the request
    then goes on. Callbacks run on the client's callback thread, in order.
    """

    _done_callbacks: list[Callable[["Future[Any]"], object]]

    def __init__(self, driver: Driver, id: str, type: str, owner: Any = None) -> None:
        super().__init__()
        self.id = id
        self.type = type
        self._driver = driver
        self._owner = owner  # keeps a client that nobody else holds alive until the reply is there
        self._wakers: tuple[threading.Lock, ...] = ()

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
        if self._state == PENDING:
            self._driver.wait_for(self, timeout)
        if self._state == FINISHED and self._exception is None:
            return self._result
        return super().result(0)

    def exception(self, timeout: Optional[float] = None) -> Optional[BaseException]:
        """The error of the call, None when it succeeded. Raises as ``result`` does, its own errors excepted."""
        if self._state == PENDING:
            self._driver.wait_for(self, timeout)
        return super().exception(0)

    @property
    def is_settled(self) -> bool:
        """``done`` without the lock: a call that is done stays so."""
        return self._state != PENDING

    def cancel(self) -> bool:
        """Give the call up: it is never sent again and its reply is dropped. True unless it is done already."""
        if self._finish(CANCELLED_AND_NOTIFIED):
            self._driver.forget(self)
        return self.cancelled()

    def add_done_callback(self, fn: Callable[["Future[Any]"], object]) -> None:
        """Call ``fn(call)`` on the callback thread once the call is done."""
        with self._condition:
            if not self.done():
                self._done_callbacks.append(fn)
                return
        self._driver.run_later(fn, self)

    def settle(self, result: Any = None, error: Optional[BaseException] = None) -> bool:
        """Set the result or the error, unless the call is done already; returns whether it was not."""
        return self._finish(FINISHED, result, error)

    def _finish(self, state: str, result: Any = None, error: Optional[BaseException] = None) -> bool:
        with self._condition:
            if self._state != PENDING:
                return False
            self._result = result
            self._exception = error
            self._state = state
            if self._waiters:
                self._tell_waiters()
            self._condition.notify_all()
        self._owner = None
        if self._done_callbacks:
            self._invoke_callbacks()
        for waker in self._wakers:
            release(waker)
        return True

    def _tell_waiters(self) -> None:
        """Tell those in ``wait`` and ``as_completed``."""
        for waiter in self._waiters:
            if self._state != FINISHED:
                waiter.add_cancelled(self)
            elif self._exception is None:
                waiter.add_result(self)
            else:
                waiter.add_exception(self)

    def _invoke_callbacks(self) -> None:
        for callback in self._done_callbacks:
            self._driver.run_later(callback, self)

    def add_waker(self, waker: threading.Lock) -> None:
        """Release ``waker`` when the call is done. Look at ``done`` afterwards: it may be already."""
        with self._condition:
            self._wakers = (*self._wakers, waker)

    def remove_waker(self, waker: threading.Lock) -> None:
        """Forget ``waker``."""
        with self._condition:
            self._wakers = tuple(each for each in self._wakers if each is not waker)


def release(waker: threading.Lock) -> None:
    """Wake the thread that waits to acquire ``waker``; twice is as good as once."""
    try:
        waker.release()
    except RuntimeError:
        pass
