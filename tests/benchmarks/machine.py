"""What /proc tells of the machine and of the processes on it. Linux only."""

from __future__ import annotations

import os
import platform
import re
import resource
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

PROC = Path("/proc")
LISTEN = "0A"
DESCRIPTORS = 8192


@dataclass(frozen=True)
class Usage:
    """What a process group takes: memory in KiB (shared pages divided among their users), and threads."""

    memory: float
    threads: int


def free_port() -> int:
    """Return a port of the loopback interface on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def socket_path(port: int) -> Path:
    """Where a server listens that is given a port and prefers a Unix socket."""
    return Path(tempfile.gettempdir()) / f"oompa-benchmark-{port}.sock"


def is_listening(port: int) -> bool:
    """Say whether something listens on the port or at the socket that stands for it, without connecting to it."""
    pattern = re.compile(rf":{port:04X} \S+ {LISTEN} ")
    tables = "".join((PROC / "net" / table).read_text() for table in ("tcp", "tcp6"))
    return bool(pattern.search(tables)) or f" {socket_path(port)}\n" in (PROC / "net" / "unix").read_text()


def usage_of_group(group: int) -> Usage:
    """Add up the processes of a group."""
    memory, threads = 0.0, 0
    for process in _members(group):
        memory += _number(process / "smaps_rollup", "Pss")
        threads += _number(process / "status", "Threads")
    return Usage(memory, threads)


def allow_many_descriptors() -> None:
    """Raise the limit on open descriptors for this process and its children."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, DESCRIPTORS)), hard))
    elif soft < DESCRIPTORS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))


def describe_machine() -> str:
    """Name the processor, the system and the interpreter in one line."""
    return f"{describe_hardware()}, {platform.python_implementation()} {platform.python_version()}"


def describe_hardware() -> str:
    """Name the processor and the system in one line."""
    return f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {platform.system()} {platform.release()}"


def _processor() -> str:
    names = re.findall(r"^model name\s*: (.*)$", (PROC / "cpuinfo").read_text(), re.MULTILINE)
    return names[0] if names else platform.machine()


def _members(group: int) -> Iterator[Path]:
    for entry in PROC.iterdir():
        if entry.name.isdigit() and _group_of(int(entry.name)) == group:
            yield entry


def _group_of(process: int) -> int | None:
    try:
        return os.getpgid(process)
    except ProcessLookupError:
        return None


def _number(path: Path, key: str) -> int:
    found = re.search(rf"^{key}:\s*(\d+)", path.read_text(), re.MULTILINE)
    return int(found[1]) if found else 0
