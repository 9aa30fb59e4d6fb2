"""Command line options of the randomised reliability run; imported by ``conftest.py``."""

import pytest

SEEDS, LONG_SEEDS = range(4), range(20)  # the seeds of a run that names none
SECONDS = 2.0  # how long the faults of one seed last


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run last longer, or repeat one that failed."""
    group = parser.getgroup("chaos", "the randomised reliability run")
    group.addoption(
        "--chaos-seconds", type=float, default=SECONDS, help="seconds of faults for each seed (default: %(default)s)"
    )
    group.addoption("--chaos-seed", type=int, action="append", help="run this seed only; may be repeated (default: several)")
