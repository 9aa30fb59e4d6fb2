"""What a task costs through each executor, and Once with each store: ``python -m tests.benchmarks.engines [ROUNDS]``.

Server and client are in this process, joined by a pair of sockets, so what is printed is what an engine adds to a call that
costs nearly nothing: the task adds two numbers. Executors have two workers, which have started and are warm. One call at a time
gives µs a call, the median of the rounds' medians; 64 calls in hand give calls a second. Rounds are interleaved.

Needs ``pip install -e '.[test-all]'`` and redis-server; what is not there is left out, which stderr tells.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import statistics
import sys
import tempfile
from collections import defaultdict, deque
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any, Callable, Iterator, Optional

from oompa import Client, Once, Schema, Server
from oompa.once import MemoryStore, RedisStore, SqliteStore
from oompa.testing import connect
from tests.benchmarks.machine import describe_machine
from tests.benchmarks.report import markdown_table

WORKERS = 2
IN_HAND = 64

#: Calls of a round: one at a time, and with many in hand.
SERIAL, SPREAD = 300, 1000

#: Server options that keep what is measured from being the queue.
OPTIONS = {"concurrency": IN_HAND}


def add(x: int, y: int) -> int:
    """The task."""
    return x + y


# Executors.


@contextlib.contextmanager
def loky_pool() -> Iterator[Executor]:
    """Two processes of loky's."""
    import loky

    with loky.ProcessPoolExecutor(WORKERS, timeout=None) as pool:
        yield pool


@contextlib.contextmanager
def dask_pool() -> Iterator[Executor]:
    """A scheduler and two workers of Dask's, each a process."""
    from distributed import Client as Dask

    with Dask(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, set_as_default=False) as dask:
        yield dask.get_executor()


EXECUTORS: dict[str, Callable[[], Any]] = {
    "the server's own threads": contextlib.nullcontext,
    "ThreadPoolExecutor": lambda: ThreadPoolExecutor(WORKERS),
    "ProcessPoolExecutor": lambda: ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn")),
    "loky": loky_pool,
    "Dask": dask_pool,
}


@contextlib.contextmanager
def through(executor: str) -> Iterator[Client]:
    """A client of a server whose task runs there."""
    schema = Schema()
    with EXECUTORS[executor]() as pool:
        schema.add("ADD", add, executor=pool)
        with served(Server(schema, **OPTIONS)) as client:
            yield client


# Stores.


@contextlib.contextmanager
def sqlite_store() -> Iterator[SqliteStore]:
    """A store in a file."""
    with tempfile.TemporaryDirectory() as directory, contextlib.closing(SqliteStore(f"{directory}/once.db")) as store:
        yield store


@contextlib.contextmanager
def redis_store() -> Iterator[RedisStore]:
    """A store in a Redis of this machine, on a Unix socket."""
    import redis

    sys.path.append(str(Path(__file__).parents[1]))  # from which the modules of the tests import each other
    from redis_server import redis_running

    with redis_running() as path, redis.Redis(unix_socket_path=path) as client:
        yield RedisStore(client)


STORES: dict[str, Callable[[], Any]] = {
    "no middleware": contextlib.nullcontext,
    "a middleware that passes on": contextlib.nullcontext,
    "Once, MemoryStore": lambda: contextlib.nullcontext(MemoryStore()),
    "Once, SqliteStore": sqlite_store,
    "Once, RedisStore": redis_store,
}


@contextlib.contextmanager
def upon(store: str) -> Iterator[Client]:
    """A client of a server whose requests run once."""
    schema = Schema()
    schema.add("ADD", add)
    server = Server(schema, **OPTIONS)
    with STORES[store]() as made:
        if made is not None:
            server.use(Once(store=made))
        elif store != "no middleware":
            server.use(lambda request, call_next: call_next(request))
        with served(server) as client:
            yield client


@contextlib.contextmanager
def served(server: Server) -> Iterator[Client]:
    """A client that is connected; the server is closed afterwards."""
    try:
        with connect(server, timeout=60.0) as client:
            client.call("ADD", {"x": 1, "y": 6})
            yield client
    finally:
        server.close(0).result()


# Measuring.


def one_at_a_time(client: Client, key: Optional[str] = None) -> float:
    """µs a call, the median; of the same request where a key is given."""
    times = []
    for _ in range(SERIAL):
        begun = perf_counter()
        client.dispatch("ADD", {"x": 1, "y": 6}, key=key).result()
        times.append(perf_counter() - begun)
    return statistics.median(times) * 1e6


def many_in_hand(client: Client) -> float:
    """Calls a second."""
    begun = perf_counter()
    calls = deque(client.dispatch("ADD", {"x": 1, "y": 6}) for _ in range(IN_HAND))
    for _ in range(SPREAD - IN_HAND):
        calls.popleft().result()
        calls.append(client.dispatch("ADD", {"x": 1, "y": 6}))
    for call in calls:
        call.result()
    return SPREAD / (perf_counter() - begun)


Figures = tuple[float, ...]
Samples = dict[str, list[Figures]]


def of_executor(client: Client) -> Figures:
    """A round through an executor."""
    return one_at_a_time(client), many_in_hand(client)


def of_store(client: Client) -> Figures:
    """A round upon a store: new requests, the same one, and many."""
    return one_at_a_time(client), one_at_a_time(client, "k"), many_in_hand(client)


def measure(
    names: dict[str, Any], opened: Callable[[str], Any], figures: Callable[[Client], Figures], rounds: int
) -> Samples:
    """The figures of each round, by what is measured; rounds are interleaved, what could not begin is left out."""
    samples: Samples = defaultdict(list)
    with contextlib.ExitStack() as stack:
        clients = {}
        for name in names:
            try:
                clients[name] = stack.enter_context(opened(name))
            except BaseException as error:  # pytest's own, where a program is missing, is no Exception
                if isinstance(error, KeyboardInterrupt):
                    raise
                print(f"{name} is left out: {error!r}", file=sys.stderr)
        for _ in range(rounds):
            for name, client in clients.items():
                samples[name].append(figures(client))
    return samples


def table_of(heads: list[str], samples: Samples) -> str:
    """The medians of the rounds, and what each adds to the first."""
    rows = [heads]
    base = None
    for name, each in samples.items():
        middle = [statistics.median(column) for column in zip(*each)]
        base = middle if base is None else base
        rows.append([name, *(f"{value:,.0f}" for value in middle), f"{middle[0] - base[0]:+,.0f}"])
    return markdown_table(rows)


def main() -> None:
    """Print both tables."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    print(describe_machine())
    many = f"{IN_HAND} in hand, calls/s"
    heads = ["the task runs in", "one at a time, µs a call", many, "it adds, µs"]
    print(f"\n{table_of(heads, measure(EXECUTORS, through, of_executor, rounds))}\n")
    heads = ["around the task", "new requests, µs a call", "one that has run, µs a call", many, "it adds, µs"]
    print(table_of(heads, measure(STORES, upon, of_store, rounds)))


if __name__ == "__main__":
    main()
