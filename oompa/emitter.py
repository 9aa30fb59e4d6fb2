"""Named events and their listeners.

``_lock`` guards changes of the listener table. The table holds tuples that are replaced and never changed, so ``emit``
reads without the lock and calls listeners outside it. Listeners run on the thread that emits.
"""

import logging
import threading
from typing import Any, Callable, Mapping, NamedTuple, Optional, TypeVar, overload

from .callables import checked_with

Listener = Callable[..., Any]
Self = TypeVar("Self", bound="Listenable")
Decorated = TypeVar("Decorated", bound=Listener)


class _Entry(NamedTuple):
    listener: Listener
    once: bool


class Emitter:
    """A table of listeners by event name.

    Args:
        events: The events there are, and the names of what each passes to its listeners.
        families: The same of further events, by their prefixes, such as ``"OK:"``.
        logger: Where a listener that raises is reported.
    """

    def __init__(
        self,
        events: Mapping[str, tuple[str, ...]],
        logger: logging.Logger,
        families: Mapping[str, tuple[str, ...]] = {},
    ) -> None:
        self._events = events
        self._families = families
        self._logger = logger
        self._lock = threading.RLock()
        #: Listeners by event; empty when nobody listens to anything.
        self.table: dict[str, tuple[_Entry, ...]] = {}

    def disown(self) -> None:
        """This process is a fork: another thread of the parent may have held the lock."""
        self._lock = threading.RLock()

    def check(self, event: Any) -> None:
        """Raise TypeError or ValueError for what is no event, such as a listener where the brackets are missing."""
        if not isinstance(event, str):
            raise TypeError(f'an event must be a string, not {event!r}: write @....on("{next(iter(self._events))}")')
        if event not in self._events and not event.startswith(tuple(self._families)):
            known = ", ".join((*self._events, *(f"{family}<id>" for family in self._families)))
            raise ValueError(f"unknown event {event!r}; the events are {known}")

    def add(self, event: str, listener: Listener, once: bool = False) -> None:
        """Call ``listener`` at each ``event``, or at the next one only. Raises as ``check`` does, and for no listener."""
        self.check(event)
        checked_with(f"a listener of {event!r}", listener, *self._arguments_of(event))
        with self._lock:
            self.table[event] = (*self.table.get(event, ()), _Entry(listener, once))

    def _arguments_of(self, event: str) -> tuple[str, ...]:
        """The names of what a listener is called with."""
        return self._events.get(event) or self._families.get(event[: event.find(":") + 1], ())

    def remove(self, event: str, listener: Optional[Listener] = None) -> None:
        """Forget ``listener``, or every listener of ``event``. What was not there is no error."""
        with self._lock:
            kept = tuple(e for e in self.table.get(event, ()) if listener is not None and e.listener != listener)
            self._replace_locked(event, kept)

    def has(self, event: str) -> bool:
        """Whether anybody listens to ``event``; cheap enough for a hot path."""
        return event in self.table

    def emit(self, event: str, *args: Any) -> None:
        """Call the listeners of ``event`` in the order they were added. One that raises is logged."""
        for entry in self.table.get(event, ()):
            if entry.once and not self._taken(event, entry):
                continue
            try:
                entry.listener(*args)
            except BaseException:  # sys.exit() in a listener must not end the thread either
                self._logger.exception("a listener of %r raised", event)

    def _taken(self, event: str, entry: _Entry) -> bool:
        """Remove a once-entry; False when another thread has it already."""
        with self._lock:
            entries = self.table.get(event, ())
            kept = tuple(e for e in entries if e is not entry)
            self._replace_locked(event, kept)
            return len(kept) < len(entries)

    def _replace_locked(self, event: str, entries: tuple[_Entry, ...]) -> None:
        if entries:
            self.table[event] = entries
        else:
            self.table.pop(event, None)


class Listenable:
    """``on``, ``once`` and ``off`` for a facade that has an ``_emitter``. Any thread may call them."""

    _emitter: Emitter

    @overload
    def on(self: Self, event: str, listener: Listener) -> Self: ...

    @overload
    def on(self, event: str) -> Callable[[Decorated], Decorated]: ...

    def on(self: Self, event: str, listener: Optional[Listener] = None) -> Any:
        """Call ``listener`` at every ``event``; returns ``self``. Without a listener: a decorator.

        Raises:
            ValueError: There is no such event.
            TypeError: The event is no string, as where the brackets of the decorator are missing; or the listener cannot be
                called with what the event passes, or is a coroutine function.
        """
        return self._listen(event, listener, once=False)

    @overload
    def once(self: Self, event: str, listener: Listener) -> Self: ...

    @overload
    def once(self, event: str) -> Callable[[Decorated], Decorated]: ...

    def once(self: Self, event: str, listener: Optional[Listener] = None) -> Any:
        """Like :meth:`on`, for the next ``event`` only."""
        return self._listen(event, listener, once=True)

    def off(self: Self, event: str, listener: Optional[Listener] = None) -> Self:
        """Forget ``listener``, or every listener of ``event``; returns ``self``."""
        if not isinstance(event, str):
            raise TypeError(f"an event must be a string, not {event!r}")
        self._emitter.remove(event, listener)
        return self

    def _listen(self: Self, event: str, listener: Optional[Listener], once: bool) -> Any:
        if listener is not None:
            self._emitter.add(event, listener, once)
            return self
        self._emitter.check(event)

        def decorate(function: Listener) -> Listener:
            self._emitter.add(event, function, once)
            return function

        return decorate
