"""From samples to Markdown: medians, ranges and ratios."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass, field

from tests.benchmarks.goals import GOALS, Goal, Ratio
from tests.benchmarks.interpreters import Interpreter
from tests.benchmarks.systems import SYSTEMS
from tests.benchmarks.workloads import WORKLOADS, Metric

Table = list[list[str]]


@dataclass
class Results:
    """What the rounds gave on one interpreter.

    Attributes:
        interpreter: which.
        systems: names, in the order of the columns and rows.
        workloads: names.
        baselines: systems to which the others are related.
        samples: (system, workload, metric key) to one figure per round.
        failures: what went wrong, in words.
    """

    interpreter: Interpreter
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

    def ratio(self, goal: Goal, ratio: Ratio) -> float | None:
        """Return what a goal asks for; None if there are no samples."""
        ours = self.median(ratio.system, goal.workload, goal.metric)
        theirs = self.median(ratio.peer, goal.workload, goal.metric)
        return ours / theirs if ours is not None and theirs else None

    def has(self, workload: str) -> list[str]:
        """Return the systems of which there are samples."""
        key = WORKLOADS[workload].metrics[0].key
        return [name for name in self.systems if (name, workload, key) in self.samples]


def render(runs: list[Results], heading: str) -> str:
    """Return the whole report: the ratios that are asked for, then for each interpreter the medians of everything, one table
    per figure, and what is missing and why."""
    parts = [heading]
    ratios = _ratios(runs)
    if len(ratios) > 1:
        parts += ["## Ratios", _numbered(runs), markdown_table(ratios)]
    for run in runs:
        parts += [f"## {run.interpreter.name}", run.interpreter.versions, "### Medians", markdown_table(_summary(run))]
        for workload in run.workloads:
            if run.has(workload):
                for metric in WORKLOADS[workload].metrics:
                    parts += [f"### {_title(workload, metric)}", markdown_table(_details(run, workload, metric))]
        notes = _notes(run)
        if notes:
            parts += ["### Left out", "\n".join(f"- {note}" for note in notes)]
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


def _numbered(runs: list[Results]) -> str:
    told = "Each is the ratio of two medians. **Bold**: not what is asked."
    return "\n".join([told, "", *(f"- Python {number}: {run.interpreter.name}" for number, run in enumerate(runs, 1))])


def _ratios(runs: list[Results]) -> Table:
    columns = [f"Python {number}, {kind}" for number in range(1, len(runs) + 1) for kind in ("json", "fast")]
    rows = [["", "asked, json", "asked, fast", *columns]]
    for goal in GOALS:
        cells = [_ratio_cell(run, goal, ratio) for run in runs for ratio in (goal.json, goal.fast)]
        if any(cell != "-" for cell in cells):
            asked = ["" if ratio is None else ratio.asked for ratio in (goal.json, goal.fast)]
            rows.append([goal.title, *asked, *cells])
    return rows


def _ratio_cell(run: Results, goal: Goal, ratio: Ratio | None) -> str:
    found = None if ratio is None else run.ratio(goal, ratio)
    if ratio is None or found is None:
        return "-"
    return f"**{found:.2f}**" if ratio.is_missed_by(found) else f"{found:.2f}"


def _title(workload: str, metric: Metric) -> str:
    name = workload if len(WORKLOADS[workload].metrics) == 1 else f"{workload} {metric.title}"
    return f"{name}, {metric.unit}"


def _summary(results: Results) -> Table:
    columns = [(name, metric) for name in results.workloads if results.has(name) for metric in WORKLOADS[name].metrics]
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
    return [head, *(_detail_row(results, system, workload, metric) for system in results.has(workload))]


def _detail_row(results: Results, system: str, workload: str, metric: Metric) -> list[str]:
    samples = results.samples[system, workload, metric.key]
    median = statistics.median(samples)
    ratios = (_ratio(median, results.median(baseline, workload, metric)) for baseline in results.baselines)
    return [system, f"{median:,.{metric.digits}f}", format_range(samples, metric.digits), *ratios]


def _ratio(median: float, baseline: float | None) -> str:
    return f"{median / baseline:.2f}" if baseline else "-"


def _notes(results: Results) -> list[str]:
    absent = [f"{name}: {reason}" for name, reason in results.interpreter.missing.items() if reason is not None]
    unable = [
        f"{name}, {workload}: {SYSTEMS[name].cannot[workload]}"
        for name in results.systems
        for workload in results.workloads
        if workload in SYSTEMS[name].cannot
    ]
    return absent + unable + results.failures
