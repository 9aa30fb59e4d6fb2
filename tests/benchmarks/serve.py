"""A server process: ``python -m tests.benchmarks.serve SYSTEM PORT``."""

from __future__ import annotations

import sys

from tests.benchmarks.lifeline import hold_lifeline
from tests.benchmarks.systems import EXTRAS, SYSTEMS


def main() -> None:
    """Serve until the process is killed."""
    name, port = sys.argv[1:]
    system = SYSTEMS.get(name) or EXTRAS[name]
    if not system.becomes_another_program:
        hold_lifeline()
    system.serve(int(port))


if __name__ == "__main__":
    main()
