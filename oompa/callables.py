"""What users hand over to be called, checked where they write it down."""

import functools
from types import FunctionType, MethodType
from typing import Any

#: Of ``code.co_flags``: an ``async def`` without and with ``yield``, as in ``inspect``, which is slow to import.
_COROUTINE, _ASYNC_GENERATOR = 0x80, 0x200
_GENERATORS = 0x20 | _COROUTINE | _ASYNC_GENERATOR


def checked(name: str, value: Any) -> Any:
    """The value, if it can be called and comes to an end without an event loop.

    Args:
        name: What it is to be, for the error.

    Raises:
        TypeError: It cannot be called, or is a coroutine function, which would run nothing here.
    """
    if not callable(value):
        raise TypeError(f"{name} must be callable, not {value!r}")
    if is_coroutine_function(value):
        raise TypeError(
            f"{name} must not be a coroutine function, as {value!r} is: nothing would run it; write a plain def, with "
            "asyncio.run or run_coroutine_threadsafe in it where it needs a loop"
        )
    return value


def checked_with(name: str, value: Any, *arguments: str) -> Any:
    """The value, if it is ``checked`` and can be called with these arguments, by position, and with no other.

    Raises:
        TypeError: As ``checked``, or it takes other arguments.
    """
    checked(name, value)
    code = value.__code__ if isinstance(value, FunctionType) else None
    if code is None or code.co_argcount != len(arguments) or code.co_kwonlyargcount:
        _check_arguments(name, value, arguments)
    return value


def _check_arguments(name: str, function: Any, arguments: tuple[str, ...]) -> None:
    import inspect  # late: it is slow to import

    try:
        signature = inspect.signature(function, follow_wrapped=False)  # a decorator may bring what the function within takes
    except (TypeError, ValueError):
        return  # of a builtin, maybe: only calling it will tell
    try:
        signature.bind(*arguments)
    except TypeError:
        raise TypeError(f"{name} must take ({', '.join(arguments)}), but {function!r} takes {signature}") from None


def checked_middleware(middleware: Any) -> Any:
    """The middleware, if it takes a request and what calls on, and returns something.

    Raises:
        TypeError: As ``checked_with``, or it would never return a result.
    """
    checked_with("a middleware", middleware, "request", "call_next")
    if forgets_to_return(middleware):
        raise TypeError(f"a middleware must return a result, and {middleware!r} never does: return call_next(request)")
    return middleware


def checked_for_keywords(name: str, value: Any) -> Any:
    """The value, if it is ``checked`` and may be called with keyword arguments alone.

    Raises:
        TypeError: As ``checked``, or it needs arguments by their position.
    """
    checked(name, value)
    if isinstance(value, FunctionType) and not value.__code__.co_posonlyargcount:
        return value
    import inspect  # late: it is slow to import

    try:
        parameters = inspect.signature(value, follow_wrapped=False).parameters.values()
    except (TypeError, ValueError):
        return value
    needed = [each.name for each in parameters if each.kind is each.POSITIONAL_ONLY and each.default is each.empty]
    if needed:
        raise TypeError(
            f"{name} gets the payload's keys as keyword arguments, but {value!r} takes {', '.join(needed)} by position alone"
        )
    return value


def forgets_to_return(function: Any) -> bool:
    """Whether a function of Python's comes to an end and never with a value, though it uses its last argument."""
    import dis

    code = getattr(_unwrapped(function), "__code__", None)
    if code is None or code.co_flags & _GENERATORS:
        return False
    steps = list(dis.get_instructions(code))
    last = code.co_varnames[code.co_argcount - 1] if code.co_argcount else ""
    ends = [(before, step) for before, step in zip(steps, steps[1:]) if step.opname.startswith("RETURN_")]
    values = [before if step.opname == "RETURN_VALUE" else step for before, step in ends if step.opname != "RETURN_GENERATOR"]
    is_used = any(last in _names_in(step.argval) and step.opname.startswith("LOAD_") for step in steps)
    return is_used and bool(values) and all("CONST" in value.opname and value.argval is None for value in values)


def _names_in(argument: Any) -> tuple[Any, ...]:
    return argument if isinstance(argument, tuple) else (argument,)  # 3.13 loads two at once


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
