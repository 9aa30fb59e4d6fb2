"""A Dask cluster of the test's own: a scheduler and two workers, each a process, as on several machines."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import needs
from ports import reserved_port

CEILING = 60.0


@contextlib.contextmanager
def dask_running(directory: Path, *, workers: int = 2, threads: int = 2) -> Iterator[str]:
    """The address of the scheduler; the cluster ends with the block."""
    needs.package("distributed")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([".", "tests"]), "PYTHONWARNINGS": "ignore"}
    processes: list[subprocess.Popen[bytes]] = []

    def start(*command: str) -> None:
        with open(directory / f"dask-{len(processes)}.log", "wb") as log:
            arguments = [sys.executable, "-m", "distributed.cli." + command[0], *command[1:]]
            processes.append(subprocess.Popen(arguments, env=environment, stdout=log, stderr=log))

    with reserved_port() as port:
        address = f"tcp://127.0.0.1:{port}"
        try:
            start("dask_scheduler", "--host", "127.0.0.1", "--port", f"{port}", "--no-dashboard", "--no-show")
            for _ in range(workers):
                options = ("--no-dashboard", "--no-nanny", "--nthreads", f"{threads}", "--memory-limit", "0")
                start("dask_worker", address, *options, "--local-directory", str(directory))
            deadline, pause = time.monotonic() + CEILING, threading.Event()
            while sum("Registered to" in log.read_text() for log in directory.glob("dask-*.log")) < workers:
                logs = "\n".join(log.read_text() for log in directory.glob("dask-*.log"))
                assert time.monotonic() < deadline and all(each.poll() is None for each in processes), logs
                pause.wait(0.05)
            yield address
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                process.wait(CEILING)
