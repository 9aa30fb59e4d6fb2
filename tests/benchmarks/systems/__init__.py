"""The systems that are compared, one module each.

A module has ``serve(port)``, which blocks, and ``Client(port)``, which is a ``Client`` as below. It may have
``SharedClient(port)``, where threads that share one connection need another kind of client than a single thread does.
A module whose clients are no Python has ``work(assignment)`` instead, which takes over the client process.

Only child processes import these modules, so that none of them can disturb the program or one another.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Protocol

ONE_AT_A_TIME = "a connection carries one call at a time"
NOT_SHARED = "threads may not share a client"
NO_THREADS = {"W7": "Node has no threads", "W8": "its client of this benchmark sends texts and numbers alone"}
NO_SCHEMA = {"W8": "each message would need a schema of its own"}

#: Workloads that only those systems do which are there for them.
FOR_FEW = ("W9",)


class Client(Protocol):
    """One connection to a calculator."""

    def call_add(self, x: int, y: int) -> int:
        """Return x + y as the server has it."""

    def echo(self, text: str) -> str:
        """Return the text that the server sends back."""

    def pipeline(self, calls: int, in_flight: int) -> None:
        """Make so many ADDs with so many in flight, and check the answers."""

    def prepared(self, payload: Any) -> Any:
        """Return a structured payload as users of the system have it."""

    def send_back(self, payload: Any) -> Any:
        """Return the structured payload that the server sends back."""

    def compute(self) -> None:
        """Have the server compute for some milliseconds."""

    def close(self) -> None:
        """End the connection."""


class Plain:
    """For clients whose structured payloads are dicts and lists."""

    def prepared(self, payload: Any) -> Any:
        """Return it as it is."""
        return payload


@dataclass(frozen=True)
class System:
    """One entry of the comparison.

    Attributes:
        module: the module of this package that knows it.
        packages: what that module imports; the report names their versions.
        cannot: workloads it cannot do, each with the reason.
        options: keyword arguments for the module's functions and classes.
        becomes_another_program: whether its processes are soon none of Python.
        hides: modules that it shall not find, though another system has brought them.
        only: the workloads that it is there for; empty: all.
    """

    module: str
    packages: tuple[str, ...] = ()
    cannot: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    becomes_another_program: bool = False
    hides: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    def does(self, workload: str) -> bool:
        """Say whether it takes part in a workload."""
        if workload in FOR_FEW or self.only:
            return workload in self.only
        return workload not in self.cannot

    def load(self) -> ModuleType:
        """Import the module."""
        for name in self.hides:
            sys.modules[name] = None  # type: ignore[assignment]
        return importlib.import_module(f"{__name__}.{self.module}")

    def serve(self, port: int) -> None:
        """Serve on a port of the loopback interface until killed."""
        self.load().serve(port, **self.options)

    def connect(self, port: int) -> Client:
        """Return a client for one thread."""
        client: Client = self.load().Client(port, **self.options)
        return client

    def connect_shared(self, port: int) -> Client:
        """Return a client that threads may share."""
        module = self.load()
        client: Client = getattr(module, "SharedClient", module.Client)(port, **self.options)
        return client

    def missing(self) -> str | None:
        """Say what keeps it from running here; None if nothing does."""
        for package in self.packages:
            if importlib.util.find_spec(package) is None:
                return f"{package} is not installed"
        reason: str | None = self.load().missing() if self.becomes_another_program else None
        return reason


#: What ``oompa[fast]`` is.
WHAT_FAST_BRINGS = ("msgspec", "websockets")

SYSTEMS = {
    "tcp": System("tcp"),
    "rpyc": System("rpyc", ("rpyc",)),
    "rpyc-brine": System("rpyc_brine", ("rpyc",), only=("W8",)),
    "Pyro5": System("pyro5", ("Pyro5",), {"W2": ONE_AT_A_TIME, "W7": NOT_SHARED}),
    "thriftpy2": System("thriftpy2", ("thriftpy2",), {"W2": ONE_AT_A_TIME, "W7": NOT_SHARED}),
    "grpcio": System("grpcio", ("grpc", "grpc_tools"), NO_SCHEMA),
    "websockets": System("websockets", ("websockets",)),
    "http": System(
        "http",
        ("flask", "gunicorn", "requests"),
        {"W2": ONE_AT_A_TIME, "W5": "a connection exists only while it is used", "W7": NOT_SHARED},
    ),
    "node": System("node", cannot=NO_THREADS, becomes_another_program=True),
    "node-plain": System("node", (), NO_THREADS, {"deflate": False}, becomes_another_program=True),
    "oompa": System("oompa", ("oompa",), options={"codec": "json"}, hides=WHAT_FAST_BRINGS),
    "oompa-fast": System("oompa", ("oompa", *WHAT_FAST_BRINGS), options={"codec": "auto"}),
    "oompa-gunicorn": System("oompa_gunicorn", ("oompa", "gunicorn"), options={"codec": "json"}, hides=WHAT_FAST_BRINGS),
    "oompa-gunicorn-fast": System("oompa_gunicorn", ("oompa", "gunicorn", *WHAT_FAST_BRINGS), options={"codec": "auto"}),
    "oompa-unix": System("oompa_unix", ("oompa",), options={"codec": "json"}, hides=WHAT_FAST_BRINGS),
    "oompa-unix-fast": System("oompa_unix", ("oompa", *WHAT_FAST_BRINGS), options={"codec": "auto"}),
    "oompa-workers": System(
        "oompa_workers", ("oompa", "gunicorn"), options={"pooled": False}, hides=WHAT_FAST_BRINGS, only=("W9",)
    ),
    "oompa-pool": System(
        "oompa_workers", ("oompa", "gunicorn"), options={"pooled": True}, hides=WHAT_FAST_BRINGS, only=("W9",)
    ),
    "oompa-one": System("oompa_one", ("oompa",), options={"codec": "json"}, hides=WHAT_FAST_BRINGS),
}


def taken_part(workload: str) -> list[str]:
    """Return the systems that take part in a workload."""
    return [name for name, system in SYSTEMS.items() if system.does(workload)]


#: Servers that only the curves need; no entries of the comparison.
EXTRAS = {"half-silent": System("half_silent", ("websockets",))}
