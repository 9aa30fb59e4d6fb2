"""How many of a peer's faults are worth a line in the log. Pure, but for a lock."""

import threading
from typing import Optional

#: Lines a second.
_RATE = 5


class Complaints:
    """Counts the warnings of one connection. ``_lock`` guards the counts."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._since = float("-inf")
        self._told = 0
        self._hidden = 0

    def one_more(self, now: float) -> Optional[int]:
        """How many warnings were left out before this one, or None: this one is to be left out, too."""
        with self._lock:
            if now - self._since >= 1.0:
                self._since, self._told = now, 0
            self._told += 1
            if self._told > _RATE:
                self._hidden += 1
                return None
            return self._take_hidden_locked()

    def left_out(self) -> int:
        """How many were left out since the last that was told."""
        with self._lock:
            return self._take_hidden_locked()

    def _take_hidden_locked(self) -> int:
        hidden, self._hidden = self._hidden, 0
        return hidden
