"""What is measured: the workloads, their figures, and what a client process is told.

======== ===================================================================================
W1       one client, one ADD at a time, server and client on two cores
W1S      the same with both on one core
W2       64 ADDs in flight on one connection
W3       16 connections from 2 processes of 8 threads, one ADD at a time on each
W4       one client, one echo of 1 KiB, 64 KiB or 1 MiB at a time; a byte counts once per call
W4R      the same with random letters
W5       connections opened one after another, each used for one ADD, then left idle
W3U      W3 as a user runs it: pinned to no core
W7       8 threads share one client, one ADD at a time in each
W8       one client, one structured payload at a time, there and back: a dict of 40 fields, a list of 1,000 dicts
W9       16 threads share one client of a server with two processes, one task in each that computes for milliseconds
======== ===================================================================================

The texts of W4 are one letter repeated: kind to the systems that compress, which are rpyc and Node as shipped, and all the
same to the others. W4R is closer to what is sent in earnest.

The server is pinned to the first core, the client processes to the second; in W1S both to the first; in W3U and W9 nothing is
pinned. All threads of the two client processes of W3 share the second core, so that what a server does is compared, and not
where the scheduler happens to put sixteen threads.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

KIB = 1024
ECHO_SIZES = {"1 KiB": KIB, "64 KiB": 64 * KIB, "1 MiB": KIB * KIB}
IN_FLIGHT = 64
THREADS = 8
CALLERS = 16
WARM_CONNECTIONS = 20


@dataclass(frozen=True)
class Metric:
    """One figure of a workload."""

    key: str
    title: str
    unit: str
    digits: int = 0


@dataclass(frozen=True)
class Workload:
    """One thing that every system is made to do.

    Attributes:
        name: W1 to W9.
        work: the function of ``work.py`` that a client process runs.
        metrics: the figures it gives.
        processes: how many client processes run it at once; their figures are added up.
        one_core: whether the clients share the server's core.
        is_pinned: whether server and clients keep to their cores.
    """

    name: str
    work: str
    metrics: tuple[Metric, ...]
    processes: int = 1
    one_core: bool = False
    is_pinned: bool = True


@dataclass(frozen=True)
class Assignment:
    """What one client process is told to do.

    Attributes:
        system: a key of ``systems.SYSTEMS``.
        work: a key of ``work.WORK``.
        port: where the server listens.
        seconds: how long to measure.
        size: idle connections to open, or calls to leave pending, where the work has a size.
    """

    system: str
    work: str
    port: int
    seconds: float
    size: int = 0

    def to_json(self) -> str:
        """Return it as one argument of a command line."""
        return json.dumps(asdict(self))


LATENCY = Metric("p50", "p50", "µs", 1)
RATE = Metric("rate", "rate", "calls/s")
STRUCTURED = (Metric("dict", "dict", "calls/s"), Metric("list", "list", "calls/s", 1))
ECHOES = tuple(Metric(size, size, "MB/s", 1) for size in ECHO_SIZES)
IDLE = (
    Metric("set-ups", "set-ups", "per s"),
    Metric("memory", "memory", "KiB per connection", 1),
    Metric("threads", "threads", "per connection", 2),
)

WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("W1", "serial", (LATENCY,)),
        Workload("W1S", "serial", (LATENCY,), one_core=True),
        Workload("W2", "in_flight", (RATE,)),
        Workload("W3", "own_connections", (RATE,), processes=2),
        Workload("W3U", "own_connections", (RATE,), processes=2, is_pinned=False),
        Workload("W4", "echoes", ECHOES),
        Workload("W4R", "random_echoes", ECHOES),
        Workload("W5", "idle", IDLE),
        Workload("W7", "shared_client", (RATE,)),
        Workload("W8", "structured", STRUCTURED),
        Workload("W9", "computing", (RATE,), is_pinned=False),
    )
}
