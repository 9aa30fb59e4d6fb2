"""Tasks that run on a Dask cluster: of this machine, or of a hundred.

Run it with ``python -m examples.on_dask``: it starts two worker processes here, a server and a client. On a hundred machines,
run ``dask scheduler`` on one and ``dask worker tcp://HOST:8786`` on each of the others, then ``python -m examples.on_dask
tcp://HOST:8786``; what the tasks import must be installed there. Needs distributed.
"""

import os
import sys

from distributed import Client as Dask

from oompa import Client, Schema, Server


def count_primes(low, high):
    """How many primes there are from low to high, and which process has counted them."""
    found = sum(n > 1 and all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(low, high))
    return {"count": found, "by": os.getpid()}


def make_server(executor):
    """A task in the cluster takes no thread here while it runs, and no place of ``concurrency``."""
    schema = Schema()
    schema.add("PRIMES", count_primes, executor=executor)
    return Server(schema)


def main(dask):
    server = make_server(dask.get_executor())
    server.listen(0).result()
    with Client(f"ws://localhost:{server.port}", timeout=60.0) as client:
        calls = [client.dispatch("PRIMES", {"low": low, "high": low + 1000}) for low in range(0, 100_000, 1000)]
        results = [call.result() for call in calls]
    print(f"{sum(each['count'] for each in results)} primes below 100000")
    print(f"counted by {len({each['by'] for each in results})} processes")
    server.close().result()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        cluster = Dask(sys.argv[1], set_as_default=False)
    else:
        cluster = Dask(n_workers=2, threads_per_worker=1, dashboard_address=None, set_as_default=False)
    with cluster:
        main(cluster)
