"""Compare oompa with its peers.

    python -m tests.benchmarks [--systems a,b] [--workloads W1S,W2] [--rounds 5] [--seconds 2] [--markdown FILE]
    python -m tests.benchmarks --goals --python .venv-debian/bin/python --python .venv/bin/python --rounds 7

Each measurement has a server process and client processes of its own. A round does every workload with every system on
every interpreter in turn, so that what else the machine does meets all of them alike; compare ratios inside one run.
"""

from __future__ import annotations

import argparse
import signal
import sys
from datetime import date
from pathlib import Path

from tests.benchmarks.curves import measure_curves
from tests.benchmarks.goals import needed
from tests.benchmarks.interpreters import Interpreter, examine
from tests.benchmarks.machine import allow_many_descriptors, describe_hardware
from tests.benchmarks.measure import Settings, client_core, measure, server_core
from tests.benchmarks.processes import ChildFailed
from tests.benchmarks.report import Results, render
from tests.benchmarks.systems import SYSTEMS, taken_part
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
    interpreters = [examine(path, options.systems) for path in options.python or [sys.executable]]
    for interpreter in interpreters:
        _tell_missing(interpreter)
    try:
        text = _curves(interpreters[0], options) if options.curves else _comparison(interpreters, options)
    except KeyboardInterrupt:
        return INTERRUPTED
    print(text)
    if options.markdown:
        options.markdown.write_text(text)
    return 0


def _comparison(interpreters: list[Interpreter], options: argparse.Namespace) -> str:
    runs = [_empty(interpreter, options) for interpreter in interpreters]
    try:
        measure_rounds(runs, options.rounds, options.seconds, options.idle, needed() if options.goals else None)
    except KeyboardInterrupt:
        for run in runs:
            run.failures.append("interrupted before the last round was complete")
    return render(runs, _heading(options))


def _empty(interpreter: Interpreter, options: argparse.Namespace) -> Results:
    systems = interpreter.present()
    return Results(interpreter, systems, options.workloads, [name for name in options.relative_to if name in systems])


def _curves(interpreter: Interpreter, options: argparse.Namespace) -> str:
    ours = [name for name in CURVE_SYSTEMS if name in interpreter.present()]
    curves = measure_curves(ours, options.rounds, options.seconds)
    return "\n\n".join([_heading(options), interpreter.versions, curves])


def measure_rounds(
    runs: list[Results], rounds: int, seconds: float, idle: int = 500, wanted: set[tuple[str, str]] | None = None
) -> None:
    """Fill in the results, one sample of each a round.

    Args:
        seconds: how long each measurement takes.
        idle: how many connections W5 opens.
        wanted: the systems and workloads to measure; None: all.
    """
    for number in range(1, rounds + 1):
        for workload in runs[0].workloads:
            for system in taken_part(workload):
                if wanted is None or (system, workload) in wanted:
                    for run in runs:
                        if system in run.systems:
                            print(f"round {number} of {rounds}: {workload} {system} {run.interpreter.path}", file=sys.stderr)
                            _measure_once(run, system, workload, Settings(seconds, idle, run.interpreter.path))


def _measure_once(results: Results, system: str, workload: str, settings: Settings) -> None:
    try:
        results.add(system, workload, measure(system, WORKLOADS[workload], settings))
    except ChildFailed as failure:
        results.failures.append(f"{system}, {workload}: failed")
        print(failure, file=sys.stderr)


def _heading(options: argparse.Namespace) -> str:
    return f"{date.today()}; {options.rounds} rounds, {options.seconds:g} s per measurement; {describe_hardware()}"


def _tell_missing(interpreter: Interpreter) -> None:
    for name, reason in interpreter.missing.items():
        if reason is not None:
            print(f"without {name} on {interpreter.path}: {reason}", file=sys.stderr)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Compare oompa with its peers.")
    parser.add_argument("--systems", type=_names_of_systems, default=list(SYSTEMS), help=", ".join(SYSTEMS))
    parser.add_argument("--workloads", type=_names_of_workloads, default=list(WORKLOADS), help=", ".join(WORKLOADS))
    parser.add_argument("--goals", action="store_true", help="only what is asked of oompa, and its peers there")
    parser.add_argument("--python", action="append", help="an interpreter, instead of this one; may be given several times")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each measurement takes")
    parser.add_argument("--idle", type=int, default=500, help="how many connections W5 opens")
    parser.add_argument("--relative-to", type=_names_of_systems, default=["rpyc"], help="what ratios refer to")
    parser.add_argument("--curves", action="store_true", help="the two curves for oompa alone instead, on this interpreter")
    parser.add_argument("--markdown", type=Path, help="a file for the report, beside stdout")
    options = parser.parse_args()
    if options.curves and options.python:
        parser.error("--curves is for the interpreter it is started with")
    return options


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
