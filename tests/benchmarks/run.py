"""Compare oompa with its peers.

    python -m tests.benchmarks [--systems a,b] [--workloads W1S,W2] [--rounds 5] [--seconds 2] [--markdown FILE]

Each measurement has a server process and client processes of its own. A round does every workload with every system in
turn, so that what else the machine does meets all of them alike; compare ratios inside one run.
"""

from __future__ import annotations

import argparse
import signal
import sys
from datetime import date
from pathlib import Path

from tests.benchmarks.curves import measure_curves
from tests.benchmarks.machine import allow_many_descriptors, describe_machine
from tests.benchmarks.measure import Settings, client_core, measure, server_core
from tests.benchmarks.processes import ChildFailed
from tests.benchmarks.report import Results, render, versions
from tests.benchmarks.systems import SYSTEMS
from tests.benchmarks.workloads import WORKLOADS

CURVE_SYSTEMS = ("oompa", "oompa-fast")
INTERRUPTED = 130


def main() -> int:
    """Run what the command line asks for; an interrupt ends it early and reports what there is."""
    options = _parse()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    allow_many_descriptors()
    if server_core() == client_core():
        print("only one core: server and clients share it in every workload", file=sys.stderr)
    systems = _present(options.systems)
    try:
        text = _curves(systems, options) if options.curves else _comparison(systems, options)
    except KeyboardInterrupt:
        return INTERRUPTED
    print(text)
    if options.markdown:
        options.markdown.write_text(text)
    return 0


def _comparison(systems: list[str], options: argparse.Namespace) -> str:
    results = Results(systems, options.workloads, [name for name in options.relative_to if name in systems])
    try:
        _measure_rounds(results, options.rounds, Settings(options.seconds, options.idle))
    except KeyboardInterrupt:
        results.failures.append("interrupted before the last round was complete")
    return render(results, _heading(systems, options))


def _curves(systems: list[str], options: argparse.Namespace) -> str:
    ours = [name for name in CURVE_SYSTEMS if name in systems]
    curves = measure_curves(ours, options.rounds, options.seconds)
    return "\n\n".join(["\n".join(_heading(ours, options)), curves])


def _measure_rounds(results: Results, rounds: int, settings: Settings) -> None:
    for number in range(1, rounds + 1):
        for workload in results.workloads:
            for system in results.systems:
                if workload not in SYSTEMS[system].cannot:
                    print(f"round {number} of {rounds}: {workload} {system}", file=sys.stderr)
                    _measure_once(results, system, workload, settings)


def _measure_once(results: Results, system: str, workload: str, settings: Settings) -> None:
    try:
        results.add(system, workload, measure(system, WORKLOADS[workload], settings))
    except ChildFailed as failure:
        results.failures.append(f"{system}, {workload}: failed")
        print(failure, file=sys.stderr)


def _heading(systems: list[str], options: argparse.Namespace) -> list[str]:
    return [
        f"{date.today()}; {options.rounds} rounds, {options.seconds:g} s per measurement; {describe_machine()}",
        versions(systems),
    ]


def _present(names: list[str]) -> list[str]:
    reasons = {name: SYSTEMS[name].missing() for name in names}
    for name, reason in reasons.items():
        if reason is not None:
            print(f"without {name}: {reason}", file=sys.stderr)
    return [name for name in names if reasons[name] is None]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Compare oompa with its peers.")
    parser.add_argument("--systems", type=_names_of_systems, default=list(SYSTEMS), help=", ".join(SYSTEMS))
    parser.add_argument("--workloads", type=_names_of_workloads, default=list(WORKLOADS), help=", ".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each measurement takes")
    parser.add_argument("--idle", type=int, default=500, help="how many connections W5 opens")
    parser.add_argument("--relative-to", type=_names_of_systems, default=["rpyc"], help="what ratios refer to")
    parser.add_argument("--curves", action="store_true", help="the two curves for oompa alone instead")
    parser.add_argument("--markdown", type=Path, help="a file for the report, beside stdout")
    return parser.parse_args()


def _names_of_systems(text: str) -> list[str]:
    return _names(text, list(SYSTEMS))


def _names_of_workloads(text: str) -> list[str]:
    return _names(text, list(WORKLOADS))


def _names(text: str, known: list[str]) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    return names
