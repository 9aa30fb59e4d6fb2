"""A request that is sent twice runs once: a middleware, and the stores in which it keeps what came of a request.

::

    server.use(Once({"PAY"}, store=SqliteStore("/var/lib/shop/once.db")))

- ``middleware``: :class:`Once` itself: who runs a request, and who waits for whom.
- ``keys``: which requests are the same, and which payloads.
- ``records``: what stands in a store: that somebody runs a request, or how the run ended.
- ``leases``: one thread that says of all that run that they still do.
- ``store``: what a store must be able to do, two methods; ``memory``, ``sqlite`` and ``redis`` can, and ``conformance`` tells
  of any other whether it can.
"""

from .conformance import check_store as check_store
from .memory import MemoryStore as MemoryStore
from .middleware import Once as Once
from .redis import RedisStore as RedisStore
from .sqlite import SqliteStore as SqliteStore
from .store import Store as Store

__all__ = ["MemoryStore", "Once", "RedisStore", "SqliteStore", "Store", "check_store"]
