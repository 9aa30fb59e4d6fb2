"""How long the text of a value will be, told before it is made; and whether it ends.

A list that holds one string a thousand times takes little memory itself, but its text may take a gigabyte, and encoding it
stops every thread meanwhile. To look at each item would cost nearly what encoding does, so most replies are judged by a few of
their items; the text is measured anyway.
"""

from itertools import islice
from typing import Any, Iterable, Iterator

from .codec import NESTING_LIMIT, TooDeep

_CONTAINERS = (dict, list, tuple)

#: What has a short text, whatever its value, but for an int, whose digits json itself limits (4,300).
NUMBERS = frozenset({int, float, bool, type(None)})

#: Of a container so many items are looked at; with a few more a dict of 40 fields takes more than a tenth of its encoding.
_FEW = 8

#: Levels at which it is suspected to be nested too deep, or to contain itself.
_SUSPICIOUS_DEPTH = 16

#: A value whose length is guessed at this part of the limit is walked through, for others may be longer than those looked at.
_SUSPICIOUS_PART = 4

#: Items from which on it pays to look first whether all are numbers, which takes a fourth of looking at each.
_MANY = 16

#: Containers of one level from which on it is worth a look whether some are the same: only then can what contains itself grow
#: faster than it is walked through.
_WIDE = 1000


def is_longer(value: Any, limit: int) -> bool:
    """Whether the JSON text of ``value`` is surely longer than ``limit`` bytes, told without making it.

    Raises:
        TooDeep: It is, or contains itself. One that is not suspected may do so, too, and is not measured.
    """
    if type(value) is str:
        return len(value) > limit
    if not isinstance(value, _CONTAINERS):
        return False
    return _may_be_long(value, limit // _SUSPICIOUS_PART) and _is_long(value, limit)


def _may_be_long(container: Any, suspicious: int) -> bool:
    """Guess from a few items, and a few of the largest container among them, and so on."""
    size, like_it, levels = 0, 1, 0
    while True:
        count = len(container)
        size += 2 * count * like_it  # each item has a separator and at least one byte
        levels += 1
        if size > suspicious or levels > _SUSPICIOUS_DEPTH:
            return True
        items: Iterable[Any] = container.values() if isinstance(container, dict) else container
        if count > _FEW:
            items = islice(items, _FEW)
            like_it *= count // _FEW
        largest, most = None, -1
        for item in items:
            kind = type(item)
            if kind is str:
                size += len(item) * like_it
            elif kind not in NUMBERS and isinstance(item, _CONTAINERS) and len(item) > most:
                largest, most = item, len(item)
        if largest is None:
            return size > suspicious
        container = largest


def _is_long(value: Any, limit: int) -> bool:
    """Add up what is there, level by level."""
    size, level, levels = 0, [value], 0
    while level:
        levels += 1
        _check_level(value, level, levels)
        below: list[Any] = []
        for container in level:
            size += 2 * len(container)  # each item has a separator and at least one byte
            items = container.values() if isinstance(container, dict) else container
            are_numbers = len(container) > _MANY and NUMBERS.issuperset(map(type, items))
            for item in () if are_numbers else items:
                if type(item) is str:
                    size += len(item)
                elif isinstance(item, _CONTAINERS):
                    below.append(item)
            if size > limit:
                return True
        level = below
    return False


def _check_level(value: Any, level: list[Any], levels: int) -> None:
    """Raise TooDeep where ``level``, the containers so many levels down in ``value``, is too deep, or shows a circle."""
    is_repeated = len(level) > _WIDE and len(set(map(id, level))) < len(level)
    if (is_repeated or levels > NESTING_LIMIT) and _contains_itself(value):
        raise TooDeep("contains itself")
    if levels > NESTING_LIMIT:
        raise TooDeep


def _contains_itself(value: Any) -> bool:
    """Whether a container is among those within it; looks into each once."""
    path, done, stack = {id(value)}, set(), [(value, _containers_in(value))]
    while stack:
        container, rest = stack[-1]
        inner = next(rest, None)
        if inner is None:
            stack.pop()
            path.discard(id(container))
            done.add(id(container))
        elif id(inner) in path:
            return True
        elif id(inner) not in done:
            path.add(id(inner))
            stack.append((inner, _containers_in(inner)))
    return False


def _containers_in(container: Any) -> Iterator[Any]:
    items = container.values() if isinstance(container, dict) else container
    return (item for item in items if isinstance(item, _CONTAINERS))
