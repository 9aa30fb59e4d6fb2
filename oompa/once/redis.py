"""A store in Redis, for processes on any machine."""

from inspect import iscoroutinefunction
from typing import Any, Optional

#: KEYS[1]: the key; ARGV: whether something must be there, what, whether something is to be there, what, for how many ms.
_SWAP = """
local found = redis.call('GET', KEYS[1])
if ARGV[1] == '0' and found or ARGV[1] == '1' and found ~= ARGV[2] then
    return 0
end
if ARGV[3] == '0' then
    redis.call('DEL', KEYS[1])
else
    redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
end
return 1
"""


class RedisStore:
    """Keeps values in Redis; any thread may use it.

    A Redis that evicts keys, or that forgets its last writes when it falls over to another, may let a request run again. What
    does as a Redis does, Valkey for one, will do.

    Args:
        redis: A client of the package ``redis`` (the extra ``redis``), ``redis.Redis(...)``, which stays yours to close. A
            request, and its reply, wait as long for Redis as the client does: give it a ``socket_timeout``, and a ``retry``
            such as ``Retry(NoBackoff(), 1)``, for by itself it tries again up to ten times.
        prefix: What its keys begin with.

    Raises:
        TypeError: ``redis`` is no such client, or one for asyncio.
    """

    def __init__(self, redis: Any, *, prefix: str = "oompa:once:") -> None:
        if not hasattr(redis, "register_script") or iscoroutinefunction(getattr(redis, "execute_command", None)):
            raise TypeError(f"redis must be a client such as redis.Redis(host='localhost'), not {redis!r}")
        self._redis = redis
        self._prefix = prefix
        self._swap = redis.register_script(_SWAP)

    def __repr__(self) -> str:
        return f"<RedisStore {self._prefix!r}>"

    def get(self, key: str) -> Optional[bytes]:
        """The value under ``key``, None for none."""
        value = self._redis.get(self._prefix + key)
        return value.encode() if isinstance(value, str) else value  # of a client that decodes responses

    def swap(self, key: str, old: Optional[bytes], new: Optional[bytes], ttl: float) -> bool:
        """Put ``new`` in place of ``old`` for ``ttl`` seconds, and tell whether ``old`` was there."""
        milliseconds = max(1, round(ttl * 1000))
        args = [int(old is not None), old or b"", int(new is not None), new or b"", milliseconds]
        return bool(self._swap(keys=[self._prefix + key], args=args))
