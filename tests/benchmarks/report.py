"""From samples to Markdown: medians, ranges and ratios."""

from __future__ import annotations

import importlib.metadata
import statistics
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Mapping

from tests.benchmarks.systems import SYSTEMS, System
from tests.benchmarks.workloads import WORKLOADS, Metric

Table = list[list[str]]


@dataclass
class Results:
    """What the rounds gave.

    Attributes:
        systems: names, in the order of the columns and rows.
        workloads: names.
        baselines: systems to which the others are related.
        samples: (system, workload, metric key) to one figure per round.
        failures: what went wrong, in words.
    """

    systems: list[str]
    workloads: list[str]
    baselines: list[str]
    samples: dict[tuple[str, str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    failures: list[str] = field(default_factory=list)

    def add(self, system: str, workload: str, figures: dict[str, float]) -> None:
        """Keep the figures of one measurement."""
        for metric in WORKLOADS[workload].metrics:
            self.samples[system, workload, metric.key].append(figures[metric.key])

    def median(self, system: str, workload: str, metric: Metric) -> float | None:
        """Return the median; None if there are no samples."""
        samples = self.samples.get((system, workload, metric.key))
        return statistics.median(samples) if samples else None


def render(results: Results, heading: list[str]) -> str:
    """Return the whole report: the medians of everything, then one table per figure, then what is missing and why."""
    parts = ["\n".join(heading), "## Medians", markdown_table(_summary(results))]
    for workload in results.workloads:
        for metric in WORKLOADS[workload].metrics:
            parts += [f"## {_title(workload, metric)}", markdown_table(_details(results, workload, metric))]
    notes = _notes(results)
    if notes:
        parts += ["## Left out", "\n".join(f"- {note}" for note in notes)]
    return "\n\n".join(parts) + "\n"


def markdown_table(rows: Table) -> str:
    """Return rows as a table with even columns; the first row is its head, numbers stand to the right."""
    widths = [max(3, *map(len, column)) for column in zip(*rows)]
    lines = [[cell.rjust(width) for cell, width in zip(row, widths)] for row in rows]
    for line, row in zip(lines, rows):
        line[0] = row[0].ljust(widths[0])
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])


def format_range(samples: list[float], digits: int) -> str:
    """Return the smallest and the largest sample."""
    return f"{min(samples):,.{digits}f}–{max(samples):,.{digits}f}"


def versions(systems: list[str]) -> str:
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


def _title(workload: str, metric: Metric) -> str:
    name = workload if len(WORKLOADS[workload].metrics) == 1 else f"{workload} {metric.title}"
    return f"{name}, {metric.unit}"


def _summary(results: Results) -> Table:
    columns = [(name, metric) for name in results.workloads for metric in WORKLOADS[name].metrics]
    head = ["", *(_title(name, metric) for name, metric in columns)]
    rows = [
        [system, *(_median_cell(results, system, name, metric) for name, metric in columns)]
        for system in results.systems
    ]
    return [head, *rows]


def _median_cell(results: Results, system: str, workload: str, metric: Metric) -> str:
    median = results.median(system, workload, metric)
    return "-" if median is None else f"{median:,.{metric.digits}f}"


def _details(results: Results, workload: str, metric: Metric) -> Table:
    head = ["", "median", "min–max", *(f"× {baseline}" for baseline in results.baselines)]
    rows = [_detail_row(results, system, workload, metric) for system in results.systems]
    return [head, *rows]


def _detail_row(results: Results, system: str, workload: str, metric: Metric) -> list[str]:
    median = results.median(system, workload, metric)
    if median is None:
        return [system, "-", "-", *("-" for _ in results.baselines)]
    samples = results.samples[system, workload, metric.key]
    ratios = (_ratio(median, results.median(baseline, workload, metric)) for baseline in results.baselines)
    return [system, f"{median:,.{metric.digits}f}", format_range(samples, metric.digits), *ratios]


def _ratio(median: float, baseline: float | None) -> str:
    return f"{median / baseline:.2f}" if baseline else "-"


def _notes(results: Results) -> list[str]:
    notes = [
        f"{name}, {workload}: {SYSTEMS[name].cannot[workload]}"
        for name in results.systems
        for workload in results.workloads
        if workload in SYSTEMS[name].cannot
    ]
    return notes + results.failures
