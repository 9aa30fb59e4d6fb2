"""Checks of option values: the error names the option, the value and what would do."""

from typing import Any, Optional

#: The longest duration in seconds, three years: the system's timers cannot wait much longer.
LONGEST = 1e8


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


def route(name: str, value: Any) -> str:
    """A path on the web server."""
    if not isinstance(value, str) or not value.startswith("/"):
        raise ValueError(f"{name} must be a path that starts with '/', not {value!r}")
    return value
