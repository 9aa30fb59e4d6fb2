"""The healthcheck as it is asked: one run at a time, which everybody who asks meanwhile shares, and not for ever.

Load balancers ask every second, and so do the pings of clients. A check that hangs must take none of their threads along: it
runs on a thread of its own, in the application context of whoever asked first, and whoever has waited until the run's time is
over goes away unhealthy.
``_lock`` guards which run there is. Whoever begins one makes its thread, which ends with it.
"""

import threading
from time import monotonic
from types import TracebackType
from typing import Any, Callable, Optional

from flask import Flask, current_app, has_app_context

from ..callables import checked_with
from ..errors import HealthcheckFailed
from .contexts import run_apart
from .verdicts import health_of


class _Run:
    """A run of the healthcheck, and what came of it."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.is_over = threading.Event()
        self.value: Any = None
        self.error: Optional[BaseException] = None
        self.traceback: Optional[TracebackType] = None


class SharedCheck:
    """A healthcheck that many may ask, from any thread.

    Args:
        check: The user's; a Future that it returns is waited for.
        timeout: Seconds a run may take.

    Raises:
        TypeError: The healthcheck cannot be called, or not without arguments.
    """

    def __init__(self, check: Callable[[], Any], timeout: float) -> None:
        self._check = checked_with("the healthcheck", check)
        self._timeout = timeout
        self._lock = threading.Lock()
        self._run: Optional[_Run] = None

    def __call__(self) -> Any:
        """What the healthcheck returned, or the Future that it returned came to.

        Raises:
            HealthcheckFailed: It takes too long, or returned False, or what cannot be meant.
            Exception: Whatever it raised.
        """
        with self._lock:
            run, is_first = self._run, self._run is None
            if run is None:
                run = self._run = _Run(monotonic() + self._timeout)
        if is_first:
            self._begin(run)
        if not run.is_over.wait(max(0.0, run.deadline - monotonic())):
            raise HealthcheckFailed(f"the healthcheck takes longer than healthcheck_timeout of {self._timeout:g} s")
        if run.error is not None:
            try:
                raise run.error.with_traceback(run.traceback)  # as it was: others raise it, too, each on a thread of its own
            finally:
                del run  # whose error knows this frame
        return run.value

    def _begin(self, run: _Run) -> None:
        app: Optional[Flask] = current_app._get_current_object() if has_app_context() else None  # type: ignore[attr-defined]
        try:
            threading.Thread(target=self._answer, args=(run, app), name="oompa-healthcheck", daemon=True).start()
        except BaseException as error:  # no thread to be had, no memory
            self._end(run, error)

    def _answer(self, run: _Run, app: Optional[Flask]) -> None:
        try:
            run.value = run_apart(app, lambda: health_of(self._check()))
        except BaseException as error:  # sys.exit() in a healthcheck ends nothing
            self._end(run, error)
        else:
            self._end(run)
        finally:
            del run  # whose error knows this frame

    def _end(self, run: _Run, error: Optional[BaseException] = None) -> None:
        if error is not None:
            run.error, run.traceback = error, error.__traceback__
        with self._lock:
            self._run = None
        run.is_over.set()
