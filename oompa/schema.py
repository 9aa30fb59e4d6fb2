"""The application schema: which function runs which task type."""

from typing import Any, Callable, TypeVar

Factory = Callable[[Any], Any]
Function = TypeVar("Function", bound=Callable[..., Any])


class Schema(dict[str, Factory]):
    """Task types and their factories; a dict, so ``schema["ADD"] = factory`` works as well.

    ::

        schema = Schema()

        @schema.task("ADD")
        def add(x, y):
            return x + y
    """

    def task(self, type: str) -> Callable[[Function], Function]:
        """Make the decorated function run ``type``; the payload's keys become its keyword arguments.

        A request without a payload calls it without arguments.

        Raises:
            ValueError: ``type`` has a factory already.
        """
        if type in self:
            raise ValueError(f"task type {type!r} has a factory already")

        def decorate(function: Function) -> Function:
            def factory(payload: Any) -> Any:
                if payload is None:
                    return function()
                if not isinstance(payload, dict):
                    raise TypeError(f"the payload of {type} must be an object whose keys are arguments")
                return function(**payload)

            self[type] = factory
            return function

        return decorate
