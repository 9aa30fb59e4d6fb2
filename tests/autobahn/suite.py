"""One run of the suite in one role, and what it found."""

import json
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable, NamedTuple

from .echo import Testee

AGENT = "oompa"

#: Seconds the suite may take to start, and a whole run of all groups.
_START_CEILING = 60.0
_RUN_CEILING = 1800.0

_BEHAVIORS = ("OK", "NON-STRICT", "INFORMATIONAL", "FAILED", "UNCLEAN")


class Outcome(NamedTuple):
    """What a run found. Each case counts once, as the worst of how it behaved and how it closed."""

    role: str
    announced: int
    counts: "Counter[str]"
    faults: list[str]
    remarks: list[str]
    lanes: "Counter[str]"

    @property
    def is_clean(self) -> bool:
        """Whether every case was run, and none failed or ended uncleanly."""
        return not self.faults and self.announced == sum(self.counts.values()) > 0

    def __str__(self) -> str:
        counted = ", ".join(f"{name} {self.counts[name]}" for name in _BEHAVIORS)
        fast = self.lanes["messages"] - self.lanes["others"]
        lanes = f"{fast} of {self.lanes['messages']} messages in a text frame"
        return f"{self.role}: {sum(self.counts.values())} of {self.announced} cases run: {counted} ({lanes})"


def patterns(groups: str) -> list[str]:
    """The suite's case patterns for groups such as ``1-7,9,10``."""
    numbers = []
    for part in groups.split(","):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return [f"{number}.*" for number in numbers]


def run(role: str, wstest: Path, groups: str) -> Outcome:
    """Run the groups with oompa as ``server`` or as ``client``."""
    testee = Testee()
    with tempfile.TemporaryDirectory() as directory:
        attempt: Callable[..., int] = _test_server if role == "server" else _test_client
        announced = attempt(testee, wstest, Path(directory), {"outdir": "reports", "cases": patterns(groups)})
        index = Path(directory, "reports", "index.json")
        found = json.loads(index.read_text()).get(AGENT, {}) if index.exists() else {}
    counts: "Counter[str]" = Counter()
    faults, remarks = [], []
    for case, verdict in found.items():
        worst = _worst(verdict["behavior"], verdict["behaviorClose"])
        counts[worst] += 1
        if worst in ("FAILED", "UNCLEAN"):
            close = f"close {verdict['behaviorClose']} (code {verdict['remoteCloseCode']})"
            faults.append(f"case {case}: behavior {verdict['behavior']}, {close}")
        elif worst != "OK":
            remarks.append(f"case {case}: {worst}")
    return Outcome(role, announced, counts, faults, remarks, testee.lanes)


def _worst(behavior: str, close: str) -> str:
    if behavior not in ("OK", "NON-STRICT", "INFORMATIONAL") or close in ("FAILED", "WRONG CODE"):
        return "FAILED"
    if close not in ("OK", "INFORMATIONAL"):
        return "UNCLEAN"  # dropped by the wrong end, too
    return "INFORMATIONAL" if "INFORMATIONAL" in (behavior, close) else behavior


def _test_server(testee: Testee, wstest: Path, directory: Path, spec: dict[str, Any]) -> int:
    server = testee.listen()
    try:
        spec["servers"] = [{"agent": AGENT, "url": f"ws://127.0.0.1:{server.port}"}]
        suite = _Suite(wstest, "fuzzingclient", directory, spec)
        try:
            suite.process.wait(_RUN_CEILING)
        finally:
            suite.stop()
    finally:
        server.close()
        server.server_close()
    return suite.announced()


def _test_client(testee: Testee, wstest: Path, directory: Path, spec: dict[str, Any]) -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    spec["url"] = url = f"ws://127.0.0.1:{port}"
    suite = _Suite(wstest, "fuzzingserver", directory, spec)
    try:
        suite.wait_for_port(port)
        testee.run_cases(url, AGENT)
    finally:
        suite.stop()
    return suite.announced()


class _Suite:
    """A process of ``wstest``."""

    def __init__(self, wstest: Path, mode: str, directory: Path, spec: dict[str, Any]) -> None:
        self._log = directory / "log.txt"
        specification = directory / "spec.json"
        specification.write_text(json.dumps(spec))
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(wstest), "--mode", mode, "--spec", str(specification), "--webport", "0"],
                cwd=directory,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for_port(self, port: int) -> None:
        """Wait until the suite listens."""
        deadline, pause = time.monotonic() + _START_CEILING, threading.Event()
        while True:
            try:
                return socket.create_connection(("127.0.0.1", port), 1.0).close()
            except OSError:
                assert self.process.poll() is None and time.monotonic() < deadline, self._log.read_text(errors="replace")
                pause.wait(0.1)

    def announced(self) -> int:
        """How many cases the suite said it would run."""
        log = self._log.read_text(errors="replace")
        _, found, rest = log.partition("will run ")
        assert found, log
        return int(rest.split()[0])

    def stop(self) -> None:
        """End the process."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
