"""Loggers of ours, which never raise: a handler or a filter that does costs no reply, no connection and no thread.

What was raised is shown once on stderr, as logging itself shows what a handler raises.
"""

import logging
import sys
import traceback
from typing import Any


class _NeverRaises(logging.Logger):
    """Handles a record, and whatever its handlers and filters raise."""

    _has_told = False

    def handle(self, record: logging.LogRecord) -> None:
        """Pass a record to the filters and handlers."""
        try:
            super().handle(record)
        except Exception:  # an interrupt goes on to whoever is interrupted
            self._tell()

    def _tell(self) -> None:
        if logging.raiseExceptions and not self._has_told:
            self._has_told = True
            try:
                print(f"--- what a handler or filter of the logger {self.name!r} raised, shown once ---", file=sys.stderr)
                traceback.print_exc()
            except Exception:  # no stderr, or a broken one
                pass


def get_logger(name: str) -> logging.Logger:
    """The logger of that name, whoever has asked for it before."""
    logger: Any = logging.getLogger(name)
    if not isinstance(logger, _NeverRaises):
        logger.__class__ = type(type(logger).__name__, (_NeverRaises, type(logger)), {})
    return logger  # type: ignore[no-any-return]
