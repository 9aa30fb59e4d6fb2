"""The application schema: which function runs which task type."""

from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar

from .callables import checked, checked_for_keywords

if TYPE_CHECKING:
    from concurrent.futures import Executor

Factory = Callable[[Any], Any]
Function = TypeVar("Function", bound=Callable[..., Any])

#: Of a factory that spreads the payload's keys as arguments: the attribute that holds the function it calls.
_FUNCTION = "oompa_function"

#: What it calls to have that done: the function, or what submits it to an executor.
_CALL = "oompa_call"

#: Modules that call the functions of tasks.
_CALLERS = frozenset({__name__, "oompa.executors"})


class Schema(dict[str, Factory]):
    """Task types and their factories; a dict, so ``schema["ADD"] = factory`` works as well.

    ::

        schema = Schema()

        @schema.task("ADD")
        def add(x, y):
            return x + y

    Args:
        validate: Whether payloads are checked against the annotations of :meth:`task` and :meth:`add`, see ``oompa.typed``;
            needs the extra ``typed``.
    """

    def __init__(self, *args: Any, validate: bool = False, **factories: Factory) -> None:
        super().__init__(*args, **factories)
        self._validate = validate

    def __setitem__(self, type: str, factory: Factory) -> None:
        super().__setitem__(type, checked(f"the factory of {type!r}", factory))

    def task(
        self, type: str, *, validate: Optional[bool] = None, executor: Optional["Executor"] = None
    ) -> Callable[[Function], Function]:
        """Make the decorated function run ``type``; the payload's keys become its keyword arguments.

        A request without a payload calls it without arguments.

        Args:
            validate: Whether the payload is checked against the annotations; None: as the schema says.
            executor: Where the function runs, any ``concurrent.futures.Executor``; None: on a thread of the server.

        Raises:
            TypeError: ``type`` is no string, such as the function itself where the brackets are missing; or ``executor`` is
                none, or needs to pickle the function and cannot.
            ValueError: ``type`` has a factory already.
        """
        self._check_new(type)

        def decorate(function: Function) -> Function:
            self.add(type, function, validate=validate, executor=executor)
            return function

        return decorate

    def add(
        self,
        type: str,
        factory: Callable[..., Any],
        *,
        validate: Optional[bool] = None,
        executor: Optional["Executor"] = None,
    ) -> None:
        """Let ``factory`` run ``type``: :meth:`task` without the decorator.

        Raises:
            TypeError: ``type`` is no string, or the factory cannot be called, or not by keywords, or is a coroutine function;
                or ``executor`` is none, or needs to pickle the factory and cannot.
            ValueError: ``type`` has a factory already.
        """
        self._check_new(type)
        function = checked_for_keywords(f"the factory of {type!r}", factory)
        call = function
        if executor is not None:
            from .executors import Submitting

            call = Submitting(type, function, executor)
        if self._validate if validate is None else validate:
            from .typed import validated

            run = validated(type, function, call)
        else:
            run = _spread(type, call)
        setattr(run, _FUNCTION, function)
        setattr(run, _CALL, call)
        self[type] = run

    def _check_new(self, type: Any) -> None:
        if not isinstance(type, str):
            named = f"{getattr(type, '__name__', 'ADD')}".upper()
            raise TypeError(f'a task type must be a string, not {type!r}: write @schema.task("{named}")')
        if type in self:
            raise ValueError(f"task type {type!r} has a factory already")


def _spread(type: str, function: Callable[..., Any]) -> Factory:
    """A factory that calls ``function`` with the payload's keys."""

    def run(payload: Any) -> Any:
        if payload is None:
            return function()
        if not isinstance(payload, dict):
            raise TypeError(f"the payload of {type} must be an object whose keys are arguments")
        return function(**payload)

    return run


def function_of(factory: Factory) -> tuple[Callable[..., Any], bool]:
    """The function behind a factory, and whether the payload's keys are its arguments, rather than the payload its only one."""
    function = getattr(factory, _FUNCTION, None)
    return (factory, False) if function is None else (function, True)


def call_of(factory: Factory) -> Callable[..., Any]:
    """What a factory calls to have its function called."""
    return getattr(factory, _CALL, factory)


def is_misfit(error: BaseException) -> bool:
    """Whether a payload's keys are not the arguments of its factory: a TypeError of the call itself, not from within."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return isinstance(error, TypeError) and trace is not None and trace.tb_frame.f_globals.get("__name__") in _CALLERS
