"""Where a server's log goes that nobody has told where to log: as with Flask, warnings and errors are written to stderr, under
gunicorn to gunicorn's error log. As soon as there is a handler of the application's, ours is silent.
"""

import logging
import sys
from typing import Any


class LastResort(logging.Handler):
    """Writes warnings and errors of a logger that has no other handler.

    Args:
        name: The logger, to which this handler is added.
    """

    def __init__(self, name: str) -> None:
        super().__init__(logging.WARNING)
        self._name = name
        self._fallback = logging.StreamHandler()
        self._fallback.setFormatter(logging.Formatter("[%(asctime)s] %(levelname)s in %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, unless somebody else does."""
        if self.is_needed():
            for handler in logging.getLogger("gunicorn.error").handlers or [_to_stderr(self._fallback)]:
                handler.handle(record)

    def is_needed(self) -> bool:
        """Whether nobody else writes what the logger is given."""
        logger: Any = logging.getLogger(self._name)
        while logger is not None:
            if any(not isinstance(handler, (LastResort, logging.NullHandler)) for handler in logger.handlers):
                return False
            logger = logger.parent if logger.propagate else None
        return True


def show(name: str, level: int) -> None:
    """Show a logger from ``level`` on, if nobody has configured it."""
    logger = logging.getLogger(name)
    for handler in logger.handlers:
        if isinstance(handler, LastResort) and handler.is_needed() and logger.level == logging.NOTSET:
            handler.setLevel(level)
            logger.setLevel(level)


def _to_stderr(handler: "logging.StreamHandler[Any]") -> "logging.StreamHandler[Any]":
    """The handler, writing to what ``sys.stderr`` is now."""
    handler.setStream(sys.stderr)
    return handler
