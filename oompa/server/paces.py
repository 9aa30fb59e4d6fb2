"""Which task types hold the others of a connection up: those that take long, and those that wait, however shortly.

A task that waits (a database, another service) leaves the processor to others, so they may go on at once; handing the
connection to another thread pays for itself from some tenths of a millisecond on. A task that computes gains nothing by it.
Which is which shows in the processor time of its thread, whose clock is a system call: so it is read only for types that were
seen to take some time while others were held up. A type is believed to wait when it did so the next time, too, for a thread
that the operating system or the interpreter lets stand for a moment looks as if it had waited.

Shared by all connections of a server. ``_types`` is a dict whose single operations are atomic in CPython; what is overwritten
by another thread is learnt again.
"""

#: Seconds from which on it pays to have another thread read on while a task waits. Handing over costs about a tenth of it.
WORTH = 0.0003

#: A task may hold up the others of its connection for so many seconds, whatever it does.
PATIENCE = 0.005


class Paces:
    """What was learnt of the task types."""

    def __init__(self) -> None:
        self._types: dict[str, bool] = {}
        #: None for a type of which nothing is known or that is quick, False for one to be measured, True for a slow one.
        self.of = self._types.get

    def is_slow(self, type: str) -> bool:
        """Whether others are to go on while a task of this type runs."""
        return self._types.get(type) is True

    def suspect(self, type: str) -> None:
        """A task of this type took longer than ``WORTH`` while others were held up: it is measured the next time."""
        self._types.setdefault(type, False)

    def took_long(self, type: str) -> None:
        """A task of this type has been running for longer than ``PATIENCE``."""
        self._types[type] = True

    def measured(self, type: str, elapsed: float, computed: float) -> None:
        """A task of this type took ``elapsed`` seconds, and ``computed`` of them on the processor."""
        if elapsed >= PATIENCE or (elapsed > WORTH and computed < elapsed / 2):
            self._types[type] = True
        else:
            self._types.pop(type, None)
