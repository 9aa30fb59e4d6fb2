"""A client process: ``python -m tests.benchmarks.work ASSIGNMENT``.

Each function of ``WORK`` connects, warms up, pauses until the program says go, and returns its figures.
"""

from __future__ import annotations

import json
import random
import statistics
import string
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, Callable

from tests.benchmarks.lifeline import finish, hold_lifeline, pause
from tests.benchmarks.payloads import STRUCTURED
from tests.benchmarks.systems import SYSTEMS, Client, System
from tests.benchmarks.workloads import CALLERS, ECHO_SIZES, IN_FLIGHT, THREADS, WARM_CONNECTIONS, Assignment

Figures = dict[str, float]
Count = Callable[[Client, float], int]

WARM_UP = 0.25
TRIAL_CALLS = 2000
MEETING_TIMEOUT = 60.0


def main() -> None:
    """Do what the command line assigns and report the figures."""
    assignment = Assignment(**json.loads(sys.argv[1]))
    system = SYSTEMS[assignment.system]
    if system.becomes_another_program:
        system.load().work(assignment, **system.options)
    hold_lifeline()
    finish(WORK[assignment.work](system, assignment))


def serial(system: System, assignment: Assignment) -> Figures:
    """Make one ADD at a time."""
    with closing(system.connect(assignment.port)) as client:
        return _latency(client, assignment.seconds)


def beside_pending(system: System, assignment: Assignment) -> Figures:
    """Make one ADD at a time on a client with calls that stay unanswered."""
    client: Client = system.load().PatientClient(assignment.port, pending=assignment.size, **system.options)
    return _latency(client, assignment.seconds)


def in_flight(system: System, assignment: Assignment) -> Figures:
    """Keep ADDs in flight."""
    with closing(system.connect(assignment.port)) as client:
        trial = _pipeline_rate(client, TRIAL_CALLS)
        pause()
        return {"rate": _pipeline_rate(client, max(TRIAL_CALLS, int(trial * assignment.seconds)))}


def own_connections(system: System, assignment: Assignment) -> Figures:
    """Make one ADD at a time in each of several threads with a connection each."""
    return {"rate": _thread_rate(lambda: system.connect(assignment.port), assignment.seconds)}


def shared_client(system: System, assignment: Assignment) -> Figures:
    """Make one ADD at a time in each of several threads that share a client."""
    client = system.connect_shared(assignment.port)
    return {"rate": _thread_rate(lambda: client, assignment.seconds)}


def echoes(system: System, assignment: Assignment) -> Figures:
    """Have texts of one letter echoed one at a time, in several sizes."""
    return _echoes(system, assignment, "x")


def random_echoes(system: System, assignment: Assignment) -> Figures:
    """The same with letters that cannot be compressed so well."""
    return _echoes(system, assignment, string.ascii_letters)


def _echoes(system: System, assignment: Assignment, letters: str) -> Figures:
    texts = {name: "".join(random.choices(letters, k=size)) for name, size in ECHO_SIZES.items()}
    with closing(system.connect(assignment.port)) as client:
        for text in texts.values():
            _echo_rate(client, text, WARM_UP / len(texts))
        pause()
        share = assignment.seconds / len(texts)
        return {name: _echo_rate(client, text, share) for name, text in texts.items()}


def structured(system: System, assignment: Assignment) -> Figures:
    """Have structured payloads sent back one at a time."""
    with closing(system.connect(assignment.port)) as client:
        payloads = {name: client.prepared(make()) for name, make in STRUCTURED.items()}
        for payload in payloads.values():
            _return_rate(client, payload, WARM_UP / len(payloads))
        pause()
        share = assignment.seconds / len(payloads)
        return {name: _return_rate(client, payload, share) for name, payload in payloads.items()}


def computing(system: System, assignment: Assignment) -> Figures:
    """Have a task computed at a time in each of several threads that share a client."""
    client = system.connect_shared(assignment.port)
    return {"rate": _thread_rate(lambda: client, assignment.seconds, CALLERS, _count_computed)}


def idle(system: System, assignment: Assignment) -> Figures:
    """Open connections and leave them idle; the program looks at the server in each of the two pauses."""
    warm = _open(system, assignment.port, WARM_CONNECTIONS)
    pause()
    start = time.perf_counter()
    clients = _open(system, assignment.port, assignment.size)
    elapsed = time.perf_counter() - start
    pause()
    return {"set-ups": assignment.size / elapsed, "held": len(warm) + len(clients)}


def hold(system: System, assignment: Assignment) -> Figures:
    """Open connections and keep them until the program ends this process."""
    clients = _open(system, assignment.port, assignment.size)
    pause()
    return {"held": len(clients)}


WORK: dict[str, Callable[[System, Assignment], Figures]] = {
    function.__name__: function
    for function in (
        serial,
        beside_pending,
        in_flight,
        own_connections,
        shared_client,
        echoes,
        random_echoes,
        structured,
        computing,
        idle,
        hold,
    )
}


def _latency(client: Client, seconds: float) -> Figures:
    _durations(client, WARM_UP)
    pause()
    return {"p50": statistics.median(_durations(client, seconds)) / 1000}


def _durations(client: Client, seconds: float) -> list[int]:
    """Return how many nanoseconds each of as many ADDs as fit took."""
    call_add, clock = client.call_add, time.perf_counter_ns
    durations: list[int] = []
    before = clock()
    end = before + int(seconds * 1e9)
    while before < end:
        x = len(durations)
        if call_add(x, 1) != x + 1:
            raise AssertionError("wrong answer")
        after = clock()
        durations.append(after - before)
        before = after
    return durations


def _pipeline_rate(client: Client, calls: int) -> float:
    start = time.perf_counter()
    client.pipeline(calls, IN_FLIGHT)
    return calls / (time.perf_counter() - start)


def _echo_rate(client: Client, text: str, seconds: float) -> float:
    """Return megabytes of text per second, counting what goes and comes once."""
    calls = 0
    start = time.perf_counter()
    while time.perf_counter() < start + seconds:
        if client.echo(text) != text:
            raise AssertionError("wrong answer")
        calls += 1
    return calls * len(text) / (time.perf_counter() - start) / 1e6


def _return_rate(client: Client, payload: Any, seconds: float) -> float:
    """Return how often a second a payload comes back; that it does so unchanged is looked at once."""
    if client.send_back(payload) != payload:
        raise AssertionError("wrong answer")
    calls = 0
    start = time.perf_counter()
    while time.perf_counter() < start + seconds:
        client.send_back(payload)
        calls += 1
    return calls / (time.perf_counter() - start)


def _open(system: System, port: int, count: int) -> list[Client]:
    """Open connections one after another; one counts as open when it has answered an ADD."""
    clients = []
    for x in range(count):
        clients.append(system.connect(port))
        if clients[-1].call_add(x, 1) != x + 1:
            raise AssertionError("wrong answer")
    return clients


def _count_adds(client: Client, seconds: float) -> int:
    return len(_durations(client, seconds))


def _count_computed(client: Client, seconds: float) -> int:
    calls, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        client.compute()
        calls += 1
    return calls


def _thread_rate(
    connect: Callable[[], Client], seconds: float, threads: int = THREADS, count: Count = _count_adds
) -> float:
    """Return calls per second of several threads together."""
    meeting = threading.Barrier(threads + 1)
    with ThreadPoolExecutor(threads) as pool:
        members = [pool.submit(_count_calls, connect, meeting, seconds, count) for _ in range(threads)]
        meeting.wait(MEETING_TIMEOUT)
        pause()
        meeting.wait(MEETING_TIMEOUT)
        return sum(member.result() for member in members) / seconds


def _count_calls(connect: Callable[[], Client], meeting: threading.Barrier, seconds: float, count: Count) -> int:
    """Connect, warm up, meet the others twice, and return how many calls were answered."""
    try:
        client = connect()
        count(client, WARM_UP)
        meeting.wait(MEETING_TIMEOUT)
        meeting.wait(MEETING_TIMEOUT)
        return count(client, seconds)
    except BaseException:
        traceback.print_exc()
        meeting.abort()
        raise


if __name__ == "__main__":
    main()
