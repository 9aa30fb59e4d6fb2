"""A store in a file, for the processes of one machine."""

import os
import threading
import weakref
from time import time
from typing import Any, Optional, Union

#: Seconds a write waits for those of other processes.
_BUSY_TIMEOUT = 10.0

#: Values written by one process after which it removes those whose time is over.
_SWEEP = 256

_TABLE = """
    CREATE TABLE IF NOT EXISTS oompa_once (key TEXT PRIMARY KEY, value BLOB NOT NULL, expires REAL NOT NULL) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS oompa_once_expires ON oompa_once (expires);
"""

_GET = "SELECT value FROM oompa_once WHERE key = ? AND expires > ?"
_INSERT = """
    INSERT INTO oompa_once (key, value, expires) VALUES (:key, :new, :expires)
    ON CONFLICT (key) DO UPDATE SET value = :new, expires = :expires WHERE oompa_once.expires <= :now
"""
_UPDATE = "UPDATE oompa_once SET value = :new, expires = :expires WHERE key = :key AND value = :old AND expires > :now"
_DELETE = "DELETE FROM oompa_once WHERE key = :key AND value = :old AND expires > :now"
_REMOVE_OLD = "DELETE FROM oompa_once WHERE expires <= ?"

#: Connections that a fork has inherited. To close them, which the collector would, takes the parent's locks off the file:
#: https://sqlite.org/howtocorrupt.html
_inherited: list[Any] = []


class SqliteStore:
    """Keeps values in an SQLite database on a local disk, for all processes of a machine that open it; any thread may use it.

    Times are the wall clock's, the only one that survives a restart: set it forward by an hour, and what was kept for less
    than that is gone; set it back, and what a process that died has left stays for as much longer.

    ``_lock`` guards the connection, which does one thing at a time: writing to the file is a part of that. A fork has a lock of
    its own, for the thread that holds its parent's is not there.

    Args:
        path: Of the file, made where there is none; two more, ``-wal`` and ``-shm``, stand beside it.

    Raises:
        ValueError: The path is empty or ``":memory:"``: what SQLite keeps there, one connection alone can see.
        sqlite3.Error: It cannot be opened or written, or is no database.
    """

    def __init__(self, path: Union[str, "os.PathLike[str]"]) -> None:
        self._path = os.fspath(path)
        if self._path in ("", ":memory:"):
            raise ValueError(f"path must be that of a file, not {self._path!r}: for one process there is MemoryStore()")
        self._lock = threading.RLock()
        self._writes = 0
        self._connection: Any = self._opened()
        _stores.add(self)

    def __repr__(self) -> str:
        return f"<SqliteStore {self._path!r}>"

    def get(self, key: str) -> Optional[bytes]:
        """The value under ``key``, None for none."""
        with self._lock:
            row = self._own_locked().execute(_GET, (key, time())).fetchone()
        return None if row is None else row[0]

    def swap(self, key: str, old: Optional[bytes], new: Optional[bytes], ttl: float) -> bool:
        """Put ``new`` in place of ``old`` for ``ttl`` seconds, and tell whether ``old`` was there."""
        if old is None and new is None:
            return self.get(key) is None
        statement = _INSERT if old is None else _DELETE if new is None else _UPDATE
        now = time()
        values = {"key": key, "old": old, "new": new, "now": now, "expires": now + ttl}
        with self._lock:
            connection = self._own_locked()
            self._writes += 1
            if self._writes % _SWEEP == 0:
                connection.execute(_REMOVE_OLD, (now,))
            return bool(connection.execute(statement, values).rowcount == 1)

    def close(self) -> None:
        """Close the file; what uses the store afterwards opens it again."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def disown(self) -> None:
        """This process is a fork: the connection is the parent's, and another thread of the parent may have held the lock."""
        self._lock = threading.RLock()
        _inherited.append(self._connection)
        self._connection = None

    def _own_locked(self) -> Any:
        """The connection of this process."""
        if self._connection is None:
            self._connection = self._opened()
        return self._connection

    def _opened(self) -> Any:
        import sqlite3

        try:
            connection = sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")  # a crash of the machine may lose the last values, no more
                connection.executescript(_TABLE)
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:  # which does not say of which file
            raise type(error)(f"{error}: {self._path!r}, a file that this process must be able to write") from error
        return connection


#: The stores there are, for a fork.
_stores: "weakref.WeakSet[SqliteStore]" = weakref.WeakSet()


def _forked() -> None:
    for store in list(_stores):
        store.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
