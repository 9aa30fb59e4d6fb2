"""A store in the memory of one process."""

import threading
from time import monotonic
from typing import NamedTuple, Optional

from ..options import count


class _Entry(NamedTuple):
    """A value, and when it is gone, on the monotonic clock."""

    value: bytes
    expires: float


class MemoryStore:
    """Keeps values in a dict, for servers of one process; any thread may use it.

    ``_lock`` guards ``_entries``, the entry written last at its end.

    Args:
        max_entries: How many are kept; beyond, the one that was written first is forgotten.

    Raises:
        TypeError, ValueError: ``max_entries`` is no whole number above 0.
    """

    def __init__(self, max_entries: int = 10_000) -> None:
        self._max_entries = count("max_entries", max_entries)
        self._lock = threading.RLock()
        self._entries: dict[str, _Entry] = {}

    def __repr__(self) -> str:
        return f"<MemoryStore of {len(self._entries)}>"

    def get(self, key: str) -> Optional[bytes]:
        """The value under ``key``, None for none."""
        with self._lock:
            return self._get_locked(key)

    def swap(self, key: str, old: Optional[bytes], new: Optional[bytes], ttl: float) -> bool:
        """Put ``new`` in place of ``old`` for ``ttl`` seconds, and tell whether ``old`` was there."""
        with self._lock:
            if self._get_locked(key) != old:
                return False
            self._entries.pop(key, None)
            if new is not None:
                if len(self._entries) >= self._max_entries:
                    del self._entries[next(iter(self._entries))]
                self._entries[key] = _Entry(new, monotonic() + ttl)
            return True

    def _get_locked(self, key: str) -> Optional[bytes]:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires <= monotonic():
            del self._entries[key]
            return None
        return entry.value
