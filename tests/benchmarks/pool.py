"""What a pool brings on a server with two processes: ``python -m tests.benchmarks.pool [ROUNDS [SECONDS]]``.

Tasks that compute, sixteen in hand, through one client and through ``Pool(size=4)``, in turn: W9 of the benchmark.
"""

from __future__ import annotations

import statistics
import sys

from tests.benchmarks.interpreters import examine
from tests.benchmarks.machine import describe_machine
from tests.benchmarks.report import Results
from tests.benchmarks.run import measure_rounds

CLIENT, POOL = "oompa-workers", "oompa-pool"


def main() -> None:
    """Print the rates of each round, and the median of their ratios."""
    rounds, seconds = (*map(float, sys.argv[1:]), *(7.0, 2.0)[len(sys.argv) - 1 :])
    interpreter = examine(sys.executable, [CLIENT, POOL])
    results = Results(interpreter, interpreter.present(), ["W9"], [])
    measure_rounds([results], int(rounds), seconds)
    client, pool = (results.samples[system, "W9", "rate"] for system in (CLIENT, POOL))
    print(describe_machine())
    for one, several in zip(client, pool):
        print(f"one client: {one:,.0f} tasks/s; pool: {several:,.0f} tasks/s; ratio {several / one:.2f}")
    print(f"median of the ratios: {statistics.median(several / one for one, several in zip(client, pool)):.2f}")
    for failure in results.failures:
        print(failure)


if __name__ == "__main__":
    main()
