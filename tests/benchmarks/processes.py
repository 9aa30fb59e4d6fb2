"""Starting, pinning, talking to and ending the child processes. Linux only."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

ERROR_LINES = 12


class ChildFailed(Exception):
    """A child process ended, or said nothing until its deadline; the message says what it left on stderr."""


class Child:
    """A process group of its own that ends with the ``with`` block.

    Args:
        arguments: what follows ``python -m tests.benchmarks.``
        core: the core for all its processes and threads; None: any.
        python: the interpreter it runs on; empty: this one.
    """

    def __init__(self, core: int | None, *arguments: str, python: str = "") -> None:
        self._errors = tempfile.TemporaryFile()
        self._unread = b""
        self._name = " ".join(arguments)
        module, *rest = arguments
        self._process = subprocess.Popen(
            [python or sys.executable, "-m", f"tests.benchmarks.{module}", *rest],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
            preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),  # safe: this program has one thread
        )
        self.group = self._process.pid

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill the group; idempotent."""
        if self._process.returncode is None:
            os.killpg(self.group, signal.SIGKILL)  # its leader is not reaped yet, so the number is still its own
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()

    def fail_if_ended(self) -> None:
        """Raise ChildFailed if the first process of the group has ended."""
        if os.waitid(os.P_PID, self.group, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            raise ChildFailed(f"{self._name} ended: {self._last_errors()}")

    def next_message(self, deadline: float) -> dict[str, Any]:
        """Wait for what the child tells next.

        Raises:
            ChildFailed: it ended, or the deadline passed.
        """
        output = self._process.stdout
        assert output is not None
        while b"\n" not in self._unread:
            if not select.select([output], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise ChildFailed(f"{self._name} did not answer in time: {self._last_errors()}")
            read = os.read(output.fileno(), 65536)
            if not read:
                raise ChildFailed(f"{self._name} ended: {self._last_errors()}")
            self._unread += read
        line, _, self._unread = self._unread.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def release(self) -> None:
        """Let the child go on after a pause."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def _last_errors(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-ERROR_LINES:]) or "nothing on stderr"
