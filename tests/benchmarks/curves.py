"""Two curves for oompa alone: does a call cost more beside many idle connections, or beside many pending calls?

Both give the p50 of one ADD at a time with server and client on one core, the steadiest figure there is. Idle
connections are held by a third process. Pending calls go to a server that answers ADD and nothing else: an oompa
server works on ``concurrency`` calls of a connection at a time, so with unanswered ones it would measure the queue.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from contextlib import ExitStack
from typing import Callable

from tests.benchmarks.measure import WORK_TIMEOUT, client_core, converse, server_core, start_client, start_server
from tests.benchmarks.processes import ChildFailed
from tests.benchmarks.report import Table, format_range, markdown_table
from tests.benchmarks.workloads import Assignment

Samples = dict[tuple[str, int], list[float]]
Point = Callable[[str, int, float], float]

IDLE_CONNECTIONS = (1, 10, 100, 1000)
PENDING_CALLS = (1, 10, 100, 1000, 10_000)


def measure_curves(systems: list[str], rounds: int, seconds: float) -> str:
    """Measure both curves for each system, rounds interleaved, and return them as Markdown."""
    parts = [
        "## Cost of a call beside idle connections, p50 in µs",
        _curve(beside_idle, systems, IDLE_CONNECTIONS, rounds, seconds),
        "## Cost of a call beside pending calls, p50 in µs",
        _curve(beside_pending, systems, PENDING_CALLS, rounds, seconds),
    ]
    return "\n\n".join(parts) + "\n"


def beside_idle(system: str, count: int, seconds: float) -> float:
    """Return the p50 with so many other connections open on the server."""
    with ExitStack() as stack:
        server, port = start_server(stack, system)
        holder = start_client(stack, client_core(), Assignment(system, "hold", port, seconds, count))
        holder.next_message(time.monotonic() + WORK_TIMEOUT)
        client = start_client(stack, server_core(), Assignment(system, "serial", port, seconds))
        return converse([client], server, seconds)[0]["p50"]


def beside_pending(system: str, count: int, seconds: float) -> float:
    """Return the p50 with so many calls pending on the client."""
    with ExitStack() as stack:
        server, port = start_server(stack, "half-silent")
        assignment = Assignment(system, "beside_pending", port, seconds, count)
        client = start_client(stack, server_core(), assignment)
        return converse([client], server, seconds)[0]["p50"]


def _curve(point: Point, systems: list[str], counts: tuple[int, ...], rounds: int, seconds: float) -> str:
    samples: Samples = defaultdict(list)
    for number in range(1, rounds + 1):
        for count in counts:
            for system in systems:
                print(f"round {number}: {system} {point.__name__} {count}", file=sys.stderr)
                _try_point(samples, point, system, count, seconds)
    return markdown_table(_rows(samples, systems, counts))


def _try_point(samples: Samples, point: Point, system: str, count: int, seconds: float) -> None:
    try:
        samples[system, count].append(point(system, count, seconds))
    except ChildFailed as failure:
        print(failure, file=sys.stderr)


def _rows(samples: Samples, systems: list[str], counts: tuple[int, ...]) -> Table:
    head = [""]
    for system in systems:
        head += [system, "min–max", "× first"]
    return [head, *([f"{count:,}", *_cells(samples, systems, counts[0], count)] for count in counts)]


def _cells(samples: Samples, systems: list[str], first: int, count: int) -> list[str]:
    cells: list[str] = []
    for system in systems:
        these, those = samples[system, count], samples[system, first]
        if these and those:
            median = statistics.median(these)
            cells += [f"{median:.1f}", format_range(these, 1), f"{median / statistics.median(those):.2f}"]
        else:
            cells += ["-", "-", "-"]
    return cells
