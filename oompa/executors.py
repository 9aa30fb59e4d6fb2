"""Tasks that run in a ``concurrent.futures.Executor``: a pool of threads or processes, loky, mpi4py, Dask.

A task that is bound to an executor is a factory that submits and returns the Future; who waits for it, and cancels it, is no
matter of this module. What can be told beforehand is told before anything is submitted: a function that the executor could not
pickle where the task is written or, of a function whose module is still being imported, where the Server is made; arguments
that do not fit, before they travel.
"""

import importlib
import inspect
import sys
from concurrent.futures import BrokenExecutor, Executor, Future
from functools import partial
from types import FunctionType
from typing import Any, Callable, Mapping, NamedTuple, Optional

from .errors import HealthcheckFailed


class _Known(NamedTuple):
    """What there is to know of the executors of a package.

    Attributes:
        pickler: The module whose ``dumps`` says whether a function can travel.
        keywords: What ``submit`` takes beside the function, unless the executor has its own.
    """

    pickler: str
    keywords: Mapping[str, Any] = {}


#: By how the module of an executor's class begins. Dask takes calls with equal arguments for one and the same unless it is told
#: otherwise: a cancel would be that of all.
_KNOWN = {
    "concurrent.futures.process": _Known("pickle"),
    "loky": _Known("loky.backend.reduction"),
    "mpi4py": _Known("pickle"),
    "distributed": _Known("cloudpickle", {"pure": False}),
}


class Submitting:
    """Calls a function in an executor, and gives the Future. Any thread may call it.

    Attributes:
        broken: What the executor raised when it broke; None while it is well.

    Args:
        task: The task type, for errors.

    Raises:
        TypeError: ``executor`` is none, or would have to pickle the function and could not.
    """

    def __init__(self, task: str, function: Callable[..., Any], executor: Any) -> None:
        if not isinstance(executor, Executor):
            hint = "client.get_executor()" if hasattr(executor, "get_executor") else "ProcessPoolExecutor()"
            raise TypeError(
                f"the executor of {task!r} must be a concurrent.futures.Executor, such as {hint}, not {executor!r}"
            )
        self.broken: Optional[BaseException] = None
        self._task = task
        self._function = function
        self._executor = executor
        self._known = _known_of(executor)
        keywords = self._known.keywords if self._known else {}
        self._keywords = {name: value for name, value in keywords.items() if name not in getattr(executor, "_kwargs", {})}
        self._signature = _signature_of(function)
        if not _is_being_defined(function):
            self.check_function()

    def check_function(self) -> None:
        """Raise TypeError where the executor would have to pickle the function and could not."""
        if self._known is None:
            return
        try:
            importlib.import_module(self._known.pickler).dumps(self._function)
        except Exception as error:
            raise TypeError(
                f"the task {self._task!r} cannot run in {self._executor!r}: {self._function!r} cannot be pickled ({error}); "
                "make it a function at the top of a module, with arguments for what it needs"
            ) from error

    def __call__(self, /, **arguments: Any) -> "Future[Any]":
        """Submit the function with its arguments.

        Raises:
            TypeError: They do not fit the function.
            BrokenExecutor: The executor takes nothing any more.
        """
        if self._signature is not None:
            try:
                self._signature.bind(**arguments)
            except TypeError as misfit:
                error = TypeError(f"{getattr(self._function, '__name__', self._task)}(): {misfit}")
                raise error from None
        known = self.broken
        try:
            # Not as keywords of ``submit``: a payload has no say in where and how it runs, which some take from there.
            future: Future[Any] = self._executor.submit(partial(self._function, **arguments), **self._keywords)
        except TypeError:  # of an argument that cannot be pickled
            raise
        except Exception as error:  # it is broken, shut down, or has lost its cluster
            self.broken = error
            raise BrokenExecutor(f"the executor takes no tasks: {type(error).__name__}: {error}") from error
        future.add_done_callback(partial(self._settled, known))
        return future

    def _settled(self, known: Optional[BaseException], future: "Future[Any]") -> None:
        """A call has ended, by which the executor shows how it is. One that was submitted before it broke, when that was
        ``known``, may still end well, and shows nothing; neither does one that was cancelled."""
        if future.cancelled():
            return
        error = future.exception()
        if isinstance(error, BrokenExecutor):
            self.broken = error
        elif self.broken is known:
            self.broken = None

    def check_executor(self) -> None:
        """Raise HealthcheckFailed where the executor is broken, as the last call showed."""
        error = self.broken
        if error is not None:
            raise HealthcheckFailed(f"the executor of {self._task!r} is broken: {type(error).__name__}: {error}")


def _known_of(executor: Executor) -> Optional[_Known]:
    """What is known of an executor, by the first of its classes that says something."""
    for each in type(executor).__mro__:
        for prefix, known in _KNOWN.items():
            if each.__module__ == prefix or each.__module__.startswith(f"{prefix}."):
                return known
    return None


def _signature_of(function: Callable[..., Any]) -> Optional[inspect.Signature]:
    """The signature; None of a builtin that tells none."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def _is_being_defined(function: Any) -> bool:
    """Whether it is decorated just now: its module has not got it under its name yet, by which it is pickled."""
    if not isinstance(function, (FunctionType, type)) or "<" in function.__qualname__:
        return False  # a lambda, or within a function: it never will
    found: Any = sys.modules.get(function.__module__)
    for part in function.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is not function
