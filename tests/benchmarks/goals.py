"""What is asked of oompa: ratios to peers, each of two medians of one interleaved run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator

from tests.benchmarks.workloads import ECHO_SIZES, WORKLOADS, Metric


@dataclass(frozen=True)
class Ratio:
    """One of our systems beside another, by one figure of a workload.

    Attributes:
        lowest, highest: what the ratio may be; None: there is no bound, it is told for what it is worth.
    """

    system: str
    peer: str
    lowest: float | None = None
    highest: float | None = None

    @property
    def asked(self) -> str:
        """What is asked, in words."""
        if self.lowest is not None and self.highest is not None:
            return f"{self.lowest:g} to {self.highest:g}"
        if self.lowest is not None:
            return f"at least {self.lowest:g}"
        return "" if self.highest is None else f"at most {self.highest:g}"

    def is_missed_by(self, ratio: float) -> bool:
        """Say whether it is out of bounds, as it is printed."""
        shown = round(ratio, 2)
        return self.lowest is not None and shown < self.lowest or self.highest is not None and shown > self.highest


@dataclass(frozen=True)
class Goal:
    """A line of the table.

    Attributes:
        json, fast: with the standard library's JSON, and with ``oompa[fast]``, None where that makes no difference.
        sides: what is related to what, where it is not oompa to a peer.
    """

    workload: str
    metric: Metric
    json: Ratio
    fast: Ratio | None = None
    sides: str = ""

    @property
    def title(self) -> str:
        """The figure, and what it is related to."""
        figure = self.workload if self.metric.key == "rate" else f"{self.workload} {self.metric.title}"
        return f"{figure}, {self.sides}" if self.sides else f"{figure} ÷ {self.json.peer}"


def _goals() -> Iterator[Goal]:
    def line(workload: str, key: str, json: Ratio, fast: Ratio | None = None, sides: str = "") -> Goal:
        return Goal(workload, next(each for each in WORKLOADS[workload].metrics if each.key == key), json, fast, sides)

    def against(peer: str, lowest: float | None, fast: float | None = None) -> tuple[Ratio, Ratio]:
        return Ratio("oompa", peer, lowest), Ratio("oompa-fast", peer, fast)

    yield line("W1S", "p50", Ratio("oompa", "rpyc", None, 0.5), Ratio("oompa-fast", "rpyc"))
    yield line("W1S", "p50", Ratio("oompa", "thriftpy2"), Ratio("oompa-fast", "thriftpy2", None, 1.0))
    yield line("W2", "rate", *against("rpyc", 2.6, 2.9))
    yield line("W3", "rate", *against("rpyc", 1.6))
    yield line("W3", "rate", *against("thriftpy2", None, 1.05))
    yield line("W3U", "rate", *against("rpyc", 1.9))
    yield line("W3U", "rate", *against("thriftpy2", None, 0.85))
    yield line("W7", "rate", *against("websockets", 2.1, 2.3))
    for size in list(ECHO_SIZES)[1:]:
        yield line("W4", size, *against("rpyc", 1.5, 2.5))
        yield line("W4R", size, *against("rpyc", 7.0))
    for kind in ("dict", "list"):
        yield line("W8", kind, *against("rpyc", 1.0, 2.0))
        yield line("W8", kind, *against("rpyc-brine", None))
        yield line("W8", kind, *against("thriftpy2", None))
    for workload, key in (("W1S", "p50"), ("W2", "rate"), ("W3", "rate"), ("W7", "rate")):
        yield line(
            workload,
            key,
            Ratio("oompa-gunicorn", "oompa", *_within(workload, 0.05)),
            Ratio("oompa-gunicorn-fast", "oompa-fast", *_within(workload, 0.05)),
            "gunicorn ÷ embedded",
        )
    for workload, key in (("W1S", "p50"), ("W3U", "rate")):
        yield line(workload, key, Ratio("oompa-unix", "oompa"), Ratio("oompa-unix-fast", "oompa-fast"), "Unix socket ÷ TCP")
    yield line("W9", "rate", Ratio("oompa-pool", "oompa-workers", 1.6), sides="Pool ÷ Client on two processes")


def _within(workload: str, share: float) -> tuple[float | None, float | None]:
    """The bound of what shall be no worse than something else by more than a share."""
    return (None, 1 + share) if workload.startswith("W1") else (1 - share, None)


GOALS = tuple(_goals())


def needed() -> set[tuple[str, str]]:
    """The systems and workloads that the goals are about."""
    return {
        (system, goal.workload)
        for goal in GOALS
        for ratio in (goal.json, goal.fast)
        if ratio is not None
        for system in (ratio.system, ratio.peer)
    }
