"""Options, each described once: name, type, default, check and meaning stand in one place.

::

    class ClientOptions(TypedDict, total=False):
        timeout: Annotated[float, Option(10.0, seconds, "how long one attempt of a request may take")]

A constructor takes ``**options: Unpack[ClientOptions]``, which type checkers and editors see through, and has them checked and
completed by ``complete``. The signature that ``help`` shows and the README's table are made of the same descriptions, and every
error names the option, the value and what would do.
"""

import sys
from typing import TYPE_CHECKING, Any, Callable, Mapping, NamedTuple, Optional, TypeVar, cast

if sys.version_info >= (3, 11):
    from typing import Unpack as Unpack
elif TYPE_CHECKING:
    from typing_extensions import Unpack as Unpack  # noqa: F401
else:

    class Unpack:
        """What 3.10 has not got yet; it says something to type checkers alone."""

        def __class_getitem__(cls, item: Any) -> Any:
            return item

#: The longest duration in seconds, three years: the system's timers cannot wait much longer.
LONGEST = 1e8

Options = TypeVar("Options")


class Option(NamedTuple):
    """What there is to know of an option, beside its name and its type.

    Attributes:
        default: Its value when it is left out.
        check: ``check(name, value)`` returns the value to use, or raises TypeError or ValueError.
        meaning: A line for the README, in Markdown.
        shown: The default as the README shows it, where that is not its ``repr``.
    """

    default: Any
    check: Callable[[str, Any], Any]
    meaning: str
    shown: str = ""


Table = dict[str, Option]


def table_of(options: type) -> Table:
    """The descriptions of a TypedDict whose values are ``Annotated`` with an :class:`Option` each."""
    return {name: hint.__metadata__[0] for name, hint in options.__annotations__.items()}


def complete(owner: str, table: Table, given: Options) -> Options:
    """The options given, checked, and the defaults of all others.

    Raises:
        TypeError: There is no such option, or its value is of a wrong type.
        ValueError: A value is out of range.
    """
    values = cast(Mapping[str, Any], given)
    for name in values:
        if name not in table:
            import difflib

            close = difflib.get_close_matches(name, table, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"the options are {', '.join(sorted(table))}"
            raise TypeError(f"{owner} has no option {name!r}; {hint}")
    return cast(Options, {name: each.check(name, values.get(name, each.default)) for name, each in table.items()})


class Signature:
    """Shows the options of a class in what ``inspect.signature`` and ``help`` tell of it; made when somebody asks."""

    def __init__(self, options: type, table: Table) -> None:
        self._options = options
        self._table = table

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is not None:
            raise AttributeError("__signature__")
        import inspect

        constructor = inspect.signature(getattr(owner, "__init__"))
        own = [each for each in constructor.parameters.values() if each.kind is not each.VAR_KEYWORD]
        if len(own) == len(constructor.parameters):
            return constructor.replace(parameters=own[1:])  # a subclass that takes no options
        named = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=each.default,
                annotation=self._options.__annotations__[name].__origin__,
            )
            for name, each in self._table.items()
            if name not in constructor.parameters
        ]
        return constructor.replace(parameters=[*own[1:], *named])


# Checks.


def seconds(name: str, value: Any) -> float:
    """A duration above zero."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be a finite number of seconds above 0, not {value!r}")
    if value > LONGEST:
        raise ValueError(f"{name} must be at most {LONGEST:.0e} seconds, not {value!r}")
    return float(value)


def seconds_or_none(name: str, value: Any) -> Optional[float]:
    """A duration above zero, or None."""
    return None if value is None else seconds(name, value)


def count(name: str, value: Any) -> int:
    """A whole number above zero."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be 1 or more, not {value!r}")
    return value


def count_or_none(name: str, value: Any) -> Optional[int]:
    """A whole number above zero, or None."""
    return None if value is None else count(name, value)


def flag(name: str, value: Any) -> bool:
    """True or False, and nothing that merely counts as either: ``"false"`` is true."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return value


def flag_or_none(name: str, value: Any) -> Optional[bool]:
    """True, False or None."""
    return None if value is None else flag(name, value)


#: In no path that a request is matched with: converters, a query, a fragment, escapes, and what Werkzeug merges.
_NEVER_IN_PATHS = ("<", ">", "?", "#", "%", "//")


def route(name: str, value: Any) -> str:
    """A path on the web server, as it reads when it is decoded."""
    if not isinstance(value, str) or not value.startswith("/"):
        raise ValueError(f"{name} must be a path that starts with '/', not {value!r}")
    for each in _NEVER_IN_PATHS:
        if each in value:
            raise ValueError(f"{name} must be a plain path such as '/ws', not {value!r}: no request matches {each!r} in it")
    return value


def route_or_none(name: str, value: Any) -> Optional[str]:
    """A path on the web server, or None."""
    return None if value is None else route(name, value)
