"""A server for tests of several processes: its tasks note who ran them; all of it upon one store.

``ONCE_STORE`` is ``sqlite:<path>`` or ``redis:<path of a socket>``, ``ONCE_LOG`` the file for notes, ``ONCE_LEASE`` seconds.
"""

import os
import time

from oompa import Once, Schema, Server, TaskError
from oompa.once import RedisStore, SqliteStore

schema = Schema()


@schema.task("PID")
def pid():
    """The process that answers."""
    return os.getpid()


@schema.task("RUN")
def run(seconds=0.0, until=None, error=None):
    """Note the run; take so long, or until a file is there; return who it was, or raise."""
    with open(os.environ["ONCE_LOG"], "a") as log:
        log.write(f"{os.getpid()}\n")
    time.sleep(seconds)
    while until is not None and not os.path.exists(until):
        time.sleep(0.05)
    if error == "task":
        raise TaskError({"by": os.getpid()}, code="aborted")
    if error is not None:
        raise OSError(error)
    return {"by": os.getpid()}


def store_of(text):
    """The store that a setting names."""
    kind, path = text.split(":", 1)
    if kind == "sqlite":
        return SqliteStore(path)
    import redis

    return RedisStore(redis.Redis(unix_socket_path=path, socket_timeout=10.0))


once = Once({"RUN"}, store=store_of(os.environ["ONCE_STORE"]))
once.lease = float(os.environ["ONCE_LEASE"])
server = Server(schema)
server.use(once)
