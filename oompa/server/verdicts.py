"""What a callable of the user's has said: the value of a Future, and answers that cannot be meant.

A healthcheck and ``authenticate`` answer yes or no, and nearly everything in Python counts as a yes: a coroutine that nobody
awaits, an exception that is returned instead of raised, ``("Unauthorized", 401)``. Such an answer is a mistake of whoever wrote
the function, and no yes. So is a function that is returned where its value was meant.
"""

from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator
from concurrent.futures import Future
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Optional

from werkzeug.local import LocalProxy
from werkzeug.wrappers import Response

from ..errors import HealthcheckFailed

#: What lacks its brackets where it is an answer. An object of a class with ``__call__`` may well be somebody.
_TO_BE_CALLED = (FunctionType, BuiltinFunctionType, MethodType, partial, type)


def value_of(result: Any) -> Any:
    """The result itself, or what a Future for it comes to. Whoever made the Future must settle it."""
    return result.result() if isinstance(result, Future) else result


def verdict_of(answer: Any) -> Any:
    """What a function that answers yes or no has answered: a Future is waited for, and of a proxy such as Flask-Login's
    ``current_user`` there is what it stands for now: later, in a task, it would stand for nothing."""
    answer = value_of(answer)
    return answer._get_current_object() if type(answer) is LocalProxy else answer


def mistake_in(answer: Any) -> Optional[str]:
    """What an answer is that cannot be meant as one, None for any other."""
    if isinstance(answer, Coroutine):
        answer.close()  # otherwise Python warns that it was never awaited
    if isinstance(answer, (Awaitable, AsyncIterator)):
        return f"a {type(answer).__name__} that nobody awaits"
    if isinstance(answer, (Iterator, Future)):
        return f"a {type(answer).__name__} and no value"
    if isinstance(answer, BaseException) or (isinstance(answer, type) and issubclass(answer, BaseException)):
        return f"{answer!r}, which is to be raised"
    if isinstance(answer, Response):
        return f"a response, {answer!r}; flask.abort(...) answers with one"
    if isinstance(answer, _TO_BE_CALLED):
        return f"{answer!r}, which is to be called"
    if answer is NotImplemented or answer is Ellipsis:
        return f"{answer!r}, which says nothing"
    return f"a tuple, {answer!r}" if type(answer) is tuple else None


def health_of(answer: Any) -> Any:
    """What a healthcheck has answered.

    Raises:
        HealthcheckFailed: It is False, or what cannot be meant.
        Exception: What a Future came to.
    """
    health = verdict_of(answer)
    mistake = "False" if health is False else mistake_in(health)
    if mistake is not None:
        raise HealthcheckFailed(f"the healthcheck returned {mistake}")
    return health
