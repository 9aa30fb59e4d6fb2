"""Run Autobahn|Testsuite in both roles: exits with 0 when nothing failed or ended uncleanly."""

import argparse
import sys

from . import environment, suite

GROUPS = "1-7,9,10"
NO_PYTHON27 = "there is no Python 2.7 on PATH or among pyenv's: Autobahn|Testsuite is not run; --python27 names one"


def main() -> int:
    """Parse the command line, run, and print a line for each role and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.autobahn", description=__doc__)
    parser.add_argument("--groups", default=GROUPS, help="groups of cases (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=1, help="runs in a row (default: %(default)s)")
    parser.add_argument("--role", choices=["server", "client"], action="append", help="one role only (default: both)")
    parser.add_argument("--python27", help="a Python 2.7 (default: the first on PATH or among pyenv's)")
    parser.add_argument("--optional", action="store_true", help="exit with 0 where the suite cannot be installed, and say so")
    parser.add_argument("--verbose", action="store_true", help="name the cases that are neither OK nor at fault, too")
    arguments = parser.parse_args()
    python27 = arguments.python27 or environment.find_python27()
    if python27 is None:
        print(NO_PYTHON27, file=sys.stderr)
        return 0 if arguments.optional else 1
    try:
        wstest = environment.make(python27)
    except RuntimeError as error:
        print(f"Autobahn|Testsuite is not run: {error}", file=sys.stderr)
        return 0 if arguments.optional else 1
    is_clean = True
    for _ in range(arguments.runs):
        for role in arguments.role or ("server", "client"):
            outcome = suite.run(role, wstest, arguments.groups)
            print(outcome, flush=True)
            for fault in outcome.faults + (outcome.remarks if arguments.verbose else []):
                print(f"  {fault}", flush=True)
            is_clean = is_clean and outcome.is_clean
    return 0 if is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
