"""``oompa top``: what a server does right now, from the difference of two STATS."""

import contextlib
import itertools
import sys
from time import monotonic
from typing import Any, Callable, Iterator, Mapping, Optional

import click

from ..errors import printable
from ..wire.messages import STATS
from .asking import introspect
from .output import Output, cursor_shown_after, duration, is_terminal, rich_console, table
from .reaching import Command, Reach, connected, reaches, url_argument

#: Takes the cursor home and clears what is below it, line by line: the screen does not flicker.
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


@click.command(cls=Command, short_help="Watch a server at work.")
@url_argument
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    metavar="SECONDS",
    default=1.0,
    show_default=True,
    help="Between two looks.",
)
@click.option("-n", "--looks", type=click.IntRange(1), metavar="N", help="Looks, and then stop.  [default: until Ctrl-C]")
@reaches
@click.pass_obj
def top(output: Output, url: str, interval: float, looks: Optional[int], reach: Reach) -> None:
    """Show, again and again, what one process of a server does: for each task type the calls and errors a second, and how long
    they took, since the look before; the connections, the tasks that run and the requests in queues.

    P50 and P99 are what half, and 99 in 100, of the calls did not exceed, up to a fifth too high; the time in the queue is not
    in them. On a terminal the screen is drawn anew, in colour with rich (pip install 'oompa[cli]'); elsewhere, and with --json,
    each look is printed below the one before. Of several workers it shows the one that answers.

    \b
    Examples:
      oompa top ws://localhost:9000
      oompa top ws://localhost:9000 --interval 10 --json >> load.jsonl
    """
    import threading

    pause = threading.Event()
    with connected(url, reach) as client:
        before, since = introspect(client, reach, STATS), monotonic()
        with _screen(output) as show:
            for _ in itertools.count() if looks is None else range(looks):
                pause.wait(interval)
                stats, now = introspect(client, reach, STATS), monotonic()
                show(difference(before, stats, now - since))
                before, since = stats, now


def difference(before: Mapping[str, Any], after: Mapping[str, Any], seconds: float) -> "dict[str, Any]":
    """What happened between two STATS that were asked ``seconds`` apart; of another process, since that started."""
    old = before["tasks"] if before["id"] == after["id"] else {}
    return {
        **{key: after[key] for key in ("name", "id", "connections", "running", "queued")},
        "tasks": {task: _difference(old.get(task, {}), counts, seconds) for task, counts in after["tasks"].items()},
    }


def _difference(old: Mapping[str, Any], new: Mapping[str, Any], seconds: float) -> "dict[str, Any]":
    calls, errors, time = (new[key] - old.get(key, 0) for key in ("num_requests", "num_errors", "processing_time"))
    spread = _spread(old.get("durations", []), new.get("durations", []))
    return {
        "rate": calls / seconds,
        "error_rate": errors / seconds,
        "average": time / calls if calls else None,
        "p50": _percentile(spread, 50),
        "p99": _percentile(spread, 99),
    }


def _spread(old: Any, new: Any) -> "list[tuple[float, int]]":
    """How many took how long, up to each bound, since the look before."""
    counted = {bound: count for bound, count in old}
    return [(bound, count - counted.get(bound, 0)) for bound, count in new]


def _percentile(spread: "list[tuple[float, int]]", percent: float) -> Optional[float]:
    """The bound that ``percent`` of all did not exceed; None where there were none."""
    left = sum(count for _, count in spread) * percent / 100
    if not left:
        return None
    for bound, count in spread:
        left -= count
        if left <= 0:
            return bound
    return spread[-1][0]


_HEADS = ("TASK", "CALLS/S", "ERRORS/S", "AVERAGE", "P50", "P99")

Told = Mapping[str, Any]


@contextlib.contextmanager
def _screen(output: Output) -> "Iterator[Callable[[Told], object]]":
    """What a look is shown by: in place of the last one on a terminal, below it elsewhere."""
    console = None if output.is_json else rich_console(sys.stdout)
    if console is not None:
        from rich.live import Live

        with cursor_shown_after(sys.stdout), Live(console=console, auto_refresh=False) as live:
            yield lambda told: live.update(_rich_of(told), refresh=True)
    elif output.is_json:
        yield output.value
    elif is_terminal(sys.stdout):
        yield lambda told: output.line(_HOME + "".join(f"{line}{_CLEAR_LINE}\n" for line in _lines(told)) + _CLEAR_BELOW)
    else:
        yield lambda told: output.line("\n".join([*_lines(told), ""]))


def _lines(told: Told) -> "list[str]":
    return [*_summary(told), "", *table(_HEADS, _rows(told["tasks"]))]


def _summary(told: Told) -> "tuple[str, str]":
    load = f"connections: {told['connections']}, running: {told['running']}, queued: {told['queued']}"
    return printable(f"{told['name']} ({told['id']})"), load


def _rich_of(told: Told) -> Any:
    """The same with rich: what is idle is dim, what fails is red."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    name, load = _summary(told)
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for head in _HEADS:
        shown.add_column(head, justify="left" if head == "TASK" else "right")
    for row, each in zip(_rows(told["tasks"]), _ordered(told["tasks"])):
        style = "red" if each[1]["error_rate"] else "" if each[1]["rate"] else "dim"
        shown.add_row(*(Text(printable(cell)) for cell in row), style=style)
    return Group(Text(name, style="bold"), Text(load), Text(), shown)


def _ordered(tasks: Told) -> "list[tuple[str, Mapping[str, Any]]]":
    """The busiest first."""
    return sorted(tasks.items(), key=lambda item: -item[1]["rate"])


def _rows(tasks: Told) -> "list[tuple[str, ...]]":
    return [
        (
            task or "(unknown)",
            f"{each['rate']:.1f}",
            f"{each['error_rate']:.1f}",
            *("0" if each[key] is None else duration(each[key]) for key in ("average", "p50", "p99")),
        )
        for task, each in _ordered(tasks)
    ]
