"""A middleware that answers what it has seen before without calling the factory.

Run it with ``python -m examples.cache_middleware [PORT]``.
"""

import sys

from examples.calculator import healthcheck, schema
from oompa import Server

cache = {}


def cache_middleware(request, call_next):
    if not isinstance(request.payload, dict) or request.payload.keys() != {"x", "y"}:
        return call_next(request)
    key = (request.type, request.payload["x"], request.payload["y"])
    if key not in cache:
        cache[key] = call_next(request)
    return cache[key]


server = Server(schema, healthcheck)
server.use(cache_middleware)

if __name__ == "__main__":
    server.run(int(sys.argv[1]) if len(sys.argv) > 1 else 9000)
