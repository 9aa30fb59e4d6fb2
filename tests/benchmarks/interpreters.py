"""The interpreters that are compared: which they are, and which systems they have the packages for.

``python -m tests.benchmarks.interpreters SYSTEMS`` tells it, as JSON, of the one it runs on.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Mapping

from tests.benchmarks.systems import SYSTEMS, System


@dataclass(frozen=True)
class Interpreter:
    """A Python with what is installed for it.

    Attributes:
        path: how it is started.
        name: which it is, and where it is from: how it was built decides more than anything else, and it does not always tell.
        missing: what keeps each system from running on it; None: nothing.
        versions: the packages of the systems.
    """

    path: str
    name: str
    missing: dict[str, str | None]
    versions: str

    def present(self) -> list[str]:
        """Return the systems that can run on it."""
        return [name for name, reason in self.missing.items() if reason is None]


def examine(path: str, systems: list[str]) -> Interpreter:
    """Ask an interpreter about itself.

    Raises:
        SystemExit: it cannot be started, or has no oompa.
    """
    command = [path, "-m", "tests.benchmarks.interpreters", ",".join(systems)]
    try:
        told = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise SystemExit(f"{path} cannot be started: {error}") from None
    if told.returncode:
        raise SystemExit(f"{path} cannot run the benchmark: {(told.stderr.strip() or 'no error').splitlines()[-1]}")
    return Interpreter(path=path, **json.loads(told.stdout))


def _name() -> str:
    base = getattr(sys, "_base_executable", sys.executable)
    return f"{platform.python_implementation()} {platform.python_version()} ({base}, {platform.python_compiler()})"


def _versions(systems: list[str]) -> str:
    """Name the packages of the systems with their versions."""
    packages = dict.fromkeys(package for name in systems for package in SYSTEMS[name].packages)
    known = importlib.metadata.packages_distributions()
    named = [_distribution(package, known) for package in packages]
    node = next((SYSTEMS[name] for name in systems if SYSTEMS[name].becomes_another_program), None)
    return ", ".join([*named, *([_node_versions(node)] if node else [])])


def _distribution(package: str, known: Mapping[str, list[str]]) -> str:
    if package not in known:
        return f"{package} of this repository"
    name = known[package][0]
    return f"{name} {importlib.metadata.version(name)}"


def _node_versions(node: System) -> str:
    named: str = node.load().versions()
    return named


def main() -> None:
    """Tell of this interpreter."""
    missing = {name: SYSTEMS[name].missing() for name in sys.argv[1].split(",")}
    versions = _versions([name for name, reason in missing.items() if reason is None])
    told = asdict(Interpreter("", _name(), missing, versions))
    del told["path"]
    print(json.dumps(told))


if __name__ == "__main__":
    main()
