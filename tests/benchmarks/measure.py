"""One measurement: start a server and its clients, let them work, and end them."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass

from tests.benchmarks.machine import Usage, free_port, is_listening, socket_path, usage_of_group
from tests.benchmarks.processes import Child, ChildFailed
from tests.benchmarks.workloads import Assignment, Workload

START_TIMEOUT = 30.0
WORK_TIMEOUT = 90.0
LOOK_INTERVAL = 0.02


@dataclass(frozen=True)
class Settings:
    """What the command line chose.

    Attributes:
        seconds: how long one measurement takes, without starting and warming up.
        idle: how many connections W5 opens.
        python: the interpreter of servers and clients; empty: this one.
    """

    seconds: float = 2.0
    idle: int = 500
    python: str = ""


def server_core() -> int:
    """Return the first core this program may use."""
    return min(os.sched_getaffinity(0))


def client_core() -> int:
    """Return the second core this program may use; the first where there is only one."""
    return sorted(os.sched_getaffinity(0))[:2][-1]


def measure(system: str, workload: Workload, settings: Settings) -> dict[str, float]:
    """Do one workload against one system and return its figures.

    Raises:
        ChildFailed: a process ended or did not answer in time.
    """
    core = None if not workload.is_pinned else server_core() if workload.one_core else client_core()
    with ExitStack() as stack:
        server, port = start_server(stack, system, workload.is_pinned, settings.python)
        assignment = Assignment(system, workload.work, port, settings.seconds, settings.idle)
        clients = [start_client(stack, core, assignment, settings.python) for _ in range(workload.processes)]
        figures, usages = converse(clients, server, settings.seconds)
    if len(usages) == 2:
        figures.update(_growth(usages[0], usages[1], settings.idle))
    return figures


def start_server(stack: ExitStack, system: str, is_pinned: bool = True, python: str = "") -> tuple[Child, int]:
    """Start a server that ends with the stack; return it and its port once it listens there, or at the socket for it."""
    port = free_port()
    stack.callback(socket_path(port).unlink, missing_ok=True)
    server = stack.enter_context(Child(server_core() if is_pinned else None, "serve", system, str(port), python=python))
    deadline = time.monotonic() + START_TIMEOUT
    while not is_listening(port):
        server.fail_if_ended()
        if time.monotonic() > deadline:
            raise ChildFailed(f"the server of {system} did not listen in time")
        time.sleep(LOOK_INTERVAL)
    return server, port


def start_client(stack: ExitStack, core: int | None, assignment: Assignment, python: str = "") -> Child:
    """Start a client process that ends with the stack."""
    return stack.enter_context(Child(core, "work", assignment.to_json(), python=python))


def converse(clients: list[Child], server: Child, seconds: float) -> tuple[dict[str, float], list[Usage]]:
    """Lead clients through their pauses together.

    Returns:
        Their figures added up, and what the server used in each pause.
    """
    usages: list[Usage] = []
    deadline = time.monotonic() + seconds + WORK_TIMEOUT
    while True:
        messages = [client.next_message(deadline) for client in clients]
        if "result" in messages[0]:
            results = [message["result"] for message in messages]
            return {key: sum(result[key] for result in results) for key in results[0]}, usages
        usages.append(usage_of_group(server.group))
        for client in clients:
            client.release()


def _growth(before: Usage, after: Usage, connections: int) -> dict[str, float]:
    return {
        "memory": (after.memory - before.memory) / connections,
        "threads": (after.threads - before.threads) / connections,
    }
