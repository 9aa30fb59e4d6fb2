"""What the reliability tests share: waiting with a ceiling, records of what happened, a real server, a client in a process.

Durations are float seconds. `SLACK` is what a busy machine may add to a documented bound.
"""

import itertools
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import pytest

from oompa import Client, OompaError, Server, TaskError

CEILING = 10.0  # seconds until a wait counts as failed
SLACK = 1.0  # seconds a loaded machine may add to a bound
CLOSING = 2.0  # seconds close() may take
MOMENT = 0.3  # seconds in which something that must never happen may try to

#: Clients of these tests reconnect soon, ping never and judge no timeouts, unless told otherwise.
QUICK: dict[str, Any] = {"reconnect_interval": 0.05, "close_timeout": 0.1, "ping_interval": None, "tolerance": None}


def eventually(condition: Callable[[], Any], timeout: float = CEILING) -> bool:
    """Wait until ``condition()`` is true; return whether it became so within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            return False
        pause.wait(0.005)
    return True


def a_moment(seconds: float = MOMENT) -> None:
    """Give what must not happen the time to happen."""
    threading.Event().wait(seconds)


def outcome(future: Future[Any]) -> Any:
    """Wait for a Future; return its result, or the class of its error."""
    try:
        return future.result(CEILING)
    except (OompaError, CancelledError) as error:
        return type(error)


def outcomes(futures: list[Any]) -> list[Any]:
    """Wait for all of them; return their results or the classes of their errors."""
    return [outcome(future) for future in futures]


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self) -> float:
        return time.monotonic() - self._began


class Events:
    """Records the events of a client as (name, arguments, instant)."""

    NAMES = ("error", "host-closed", "reconnect-failed", "reconnected")

    def __init__(self, client: Client) -> None:
        self.seen: list[tuple[str, tuple[Any, ...], float]] = []
        for name in self.NAMES:
            client.on(name, self._recorder(name))

    def _recorder(self, name: str) -> Callable[..., None]:
        return lambda *args: self.seen.append((name, args, time.monotonic()))

    def names(self) -> list[str]:
        return [name for name, _, _ in list(self.seen)]

    def errors(self) -> list[Exception]:
        return [args[0] for name, args, _ in list(self.seen) if name == "error"]

    def wait(self, name: str, count: int = 1, timeout: float = CEILING) -> float:
        """Wait until ``name`` came for the ``count``-th time; return the instant at which it did."""
        assert eventually(lambda: self.names().count(name) >= count, timeout), f"{name} is missing in {self.names()}"
        return [at for seen, _, at in self.seen if seen == name][count - 1]


class Counts:
    """How often each Future has called back."""

    def __init__(self) -> None:
        self._calls: Counter[str] = Counter()

    def watch(self, future: Any) -> Any:
        future.add_done_callback(lambda done: self._calls.update([done.id]))
        return future

    def all_once(self, futures: list[Any]) -> bool:
        """Wait until every Future has called back; return whether each did so once."""
        ids = [future.id for future in futures]
        return eventually(lambda: all(self._calls[id] for id in ids)) and {self._calls[id] for id in ids} == {1}


class Service:
    """The real server, with a log of what it ran.

    Attributes:
        runs: (id, task type, payload) of every run, in order.
        carriers: (id, connection) of every run: which connection brought it.
        connections: every connection there ever was.
        gate: what GATED waits for.
    """

    def __init__(self, port: int = 0, without: tuple[str, ...] = (), **options: Any) -> None:
        self.runs: list[tuple[str, str, Any]] = []
        self.carriers: list[tuple[str, Any]] = []
        self.connections: list[Any] = []
        self.gate = threading.Event()
        self._ordinals = itertools.count(1)
        tasks = {
            "ADD": lambda p: p["x"] + p["y"],
            "SIZE": len,
            "ECHO": lambda p: p,
            "FAIL": self._fail,
            "GATED": self._gated,
            "ORDINAL": lambda p: next(self._ordinals),
        }
        self.server = Server({name: task for name, task in tasks.items() if name not in without}, **options)
        self.server.use(self._log)
        self.server.on("connection", self.connections.append)
        self.server.listen(port).result(CEILING)
        self.port: int = self.server.port  # type: ignore[assignment]

    def ids(self) -> Counter[str]:
        """Count the runs of each request id."""
        return Counter(id for id, _, _ in list(self.runs))

    def close(self) -> None:
        self.gate.set()
        self.server.close(timeout=1.0).result(CEILING)

    def _log(self, request: Any, call_next: Any) -> Any:
        self.runs.append((request.id, request.type, request.payload))
        self.carriers.append((request.id, request.connection))
        return call_next(request)

    def _gated(self, payload: Any) -> Any:
        assert self.gate.wait(CEILING)
        return payload

    @staticmethod
    def _fail(payload: Any) -> Any:
        raise TaskError(payload)


class Script:
    """A client in a process of its own.

    The code finds ``URL`` and what `PRELUDE` imports; ``say(...)`` reaches `line`, `tell` ends its ``listen()``.
    """

    PRELUDE = """
import gc, os, resource, signal, socket, sys, threading, time
from oompa import *
URL = sys.argv[1]
def say(*words): print(*words, flush=True)
def listen(): return sys.stdin.readline().strip()
def descriptors(): return len(os.listdir("/proc/self/fd"))
def eventually(condition, timeout=10.0):
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline: return False
        threading.Event().wait(0.005)
    return True
"""

    #: Python 3.12 and newer warn of each fork of a process with threads, which is what these scripts are about.
    WARNINGS = "default,ignore:This process:DeprecationWarning"

    def __init__(self, code: str, port: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", self.PRELUDE + code, f"ws://127.0.0.1:{port}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONWARNINGS": self.WARNINGS},
        )
        self.pid = self._process.pid

    def line(self, timeout: float = CEILING) -> str:
        """Return the next line the script says."""
        assert self._process.stdout is not None
        ready = select.select([self._process.stdout], [], [], timeout)[0]
        text = self._process.stdout.readline() if ready else ""
        assert text, f"the script says nothing more: {self.finish(kill=True)}"
        return text.strip()

    def tell(self, word: str = "") -> None:
        """End the script's ``listen()``."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def finish(self, kill: bool = False) -> tuple[int, str, str]:
        """Wait for the end; return the exit status and what was printed to stdout and stderr meanwhile."""
        if kill:
            self._process.kill()
        out, err = self._process.communicate(timeout=CEILING)
        return self._process.returncode, out, err

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


#: Threads that an earlier test left behind: its fault, not that of the next.
strays: set[threading.Thread] = set()


def client_threads() -> set[threading.Thread]:
    """Return the threads that clients of this test have started, by the names they give them."""
    names = ("oompa-keeper", "oompa-timer", "oompa-callbacks", "oompa-writer")
    return {thread for thread in threading.enumerate() if thread.name in names} - strays


def serious(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the errors that were logged so far."""
    return [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR]


def add(client: Client, x: int, y: int) -> Any:
    return client.dispatch("ADD", {"x": x, "y": y})


def up(client: Client) -> Client:
    """Wait until the client is connected and has been answered."""
    assert add(client, 1, 2).result(CEILING) == 3
    return client


def add_with_limit(client: Client, timeout: float) -> Any:
    try:
        return client.call("ADD", {"x": 1, "y": 2}, timeout=timeout)
    except OompaError as error:
        return type(error)


Connect = Callable[..., Client]
Start = Callable[..., Script]
