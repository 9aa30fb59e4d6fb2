"""What users hand over to be called, checked where they write it down."""

import functools
from types import MethodType
from typing import Any

#: Of ``code.co_flags``: an ``async def`` without and with ``yield``, as in ``inspect``, which is slow to import.
_COROUTINE, _ASYNC_GENERATOR = 0x80, 0x200


def checked(name: str, value: Any, *arguments: str) -> Any:
    """The value, if it can be called and comes to an end without an event loop.

    Args:
        name: What it is to be, for the error.
        arguments: What it is to be called with, by position; none are looked at when none are named.

    Raises:
        TypeError: It cannot be called, or is a coroutine function, which would run nothing here, or takes other arguments.
    """
    if not callable(value):
        raise TypeError(f"{name} must be callable, not {value!r}")
    if is_coroutine_function(value):
        raise TypeError(
            f"{name} must not be a coroutine function, as {value!r} is: nothing would run it; write a plain def, with "
            "asyncio.run or run_coroutine_threadsafe in it where it needs a loop"
        )
    if arguments:
        _check_arguments(name, value, arguments)
    return value


def _check_arguments(name: str, function: Any, arguments: tuple[str, ...]) -> None:
    import inspect

    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # of a builtin, maybe: only calling it will tell
    try:
        signature.bind(*arguments)
    except TypeError:
        raise TypeError(f"{name} must take ({', '.join(arguments)}), but {function!r} takes {signature}") from None


def is_coroutine_function(value: Any) -> bool:
    """Whether calling ``value`` gives a coroutine or an asynchronous generator: also in ``partial``, as a method, as an
    instance whose ``__call__`` is one, or by its mark (``inspect.markcoroutinefunction``)."""
    function = _unwrapped(value)
    if not hasattr(function, "__code__") and not isinstance(function, type):
        function = _unwrapped(getattr(type(function), "__call__", None))
    flags = getattr(getattr(function, "__code__", None), "co_flags", 0)
    is_marked = type(getattr(function, "_is_coroutine_mark", None)) is object
    return is_marked or (isinstance(flags, int) and bool(flags & (_COROUTINE | _ASYNC_GENERATOR)))


def _unwrapped(function: Any) -> Any:
    """The function within methods and ``partial``."""
    while isinstance(function, (functools.partial, MethodType)):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    return function
