"""What importing a client takes, as a ratio to what importing Flask alone takes: ``python -m tests.benchmarks.imports``.

Each in new interpreters, in turn; the bytecode is there, as an installation leaves it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

ROUNDS = 21
CLIENT, FLASK = "from oompa import Client", "import flask"


def seconds(statement: str) -> float:
    """How long a statement takes in a new interpreter, whose own start does not count."""
    script = f"from time import perf_counter as now; began = now()\n{statement}\nprint(now() - began)"
    return float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Print the medians and the median of the ratios."""
    seconds(CLIENT), seconds(FLASK)
    pairs = [(seconds(CLIENT), seconds(FLASK)) for _ in range(ROUNDS)]
    client, flask = (statistics.median(column) * 1000 for column in zip(*pairs))
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    print(f"{CLIENT}: {client:.1f} ms; {FLASK}: {flask:.1f} ms; ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
