"""What latencies come to: percentiles, a histogram, errors by kind. Pure."""

import math
from collections import Counter
from typing import Any, NamedTuple, Sequence

from .output import duration

PERCENTILES = (50.0, 90.0, 99.0, 99.9)

_BAR = 40


class Measured(NamedTuple):
    """One call: when it ended, how long it took, both in seconds, and what went wrong; None for nothing."""

    ended: float
    latency: float
    fault: "str | None" = None


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that ``percent`` of all are no larger than (the nearest rank)."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def summary(calls: Sequence[Measured], seconds: float) -> "dict[str, Any]":
    """Numbers for scripts: seconds, and calls a second. Latencies are those of calls that succeeded."""
    latencies = sorted(each.latency for each in calls if each.fault is None)
    faults = Counter(each.fault for each in calls if each.fault is not None)
    told: "dict[str, Any]" = {
        "calls": len(calls),
        "seconds": seconds,
        "rate": len(calls) / seconds if seconds else 0.0,
        "errors": dict(faults.most_common()),
    }
    if latencies:
        told["latency"] = {
            "min": latencies[0],
            "mean": math.fsum(latencies) / len(latencies),
            **{f"p{percent:g}": percentile(latencies, percent) for percent in PERCENTILES},
            "max": latencies[-1],
        }
        told["histogram"] = histogram(latencies)
    return told


def histogram(latencies: Sequence[float]) -> "list[tuple[float, int]]":
    """Upper bounds in seconds and how many are below each, but not below the one before; each bound is 1, 2 or 5 times a power
    of ten, so that those of two runs can be compared."""
    counts = Counter(map(_step, latencies))
    return [(_bound(step), counts[step]) for step in range(min(counts), max(counts) + 1)]


_FACTORS = (1, 2, 5)


def _bound(step: int) -> float:
    return float(f"{_FACTORS[step % 3]}e{step // 3}")


def _step(latency: float) -> int:
    step = 3 * math.floor(math.log10(latency)) if latency > 0 else -27
    while _bound(step) < latency:
        step += 1
    return step


def report(told: "dict[str, Any]") -> "list[str]":
    """Lines for people."""
    lines = [f"{told['calls']} calls in {duration(told['seconds'])}: {told['rate']:.0f} calls/s"]
    if "latency" in told:
        lines += ["", *(f"  {name:<6}{duration(value):>10}" for name, value in told["latency"].items()), ""]
        most = max(count for _, count in told["histogram"])
        for bound, count in told["histogram"]:
            bar = "#" * math.ceil(count / most * _BAR)
            lines.append(f"  up to {duration(bound):>8} {count:>9} {bar}".rstrip())
    failed = sum(told["errors"].values())
    if failed:
        lines += ["", f"{failed} errors:", *(f"  {count:>9} {kind}" for kind, count in told["errors"].items())]
    return lines
