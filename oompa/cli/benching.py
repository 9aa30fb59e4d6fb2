"""``oompa bench``: how many calls a second, and how long each takes.

Each caller is a thread with a connection of its own. A call is *due* when it may begin: with ``--rate`` at its place in time,
whether or not a caller is free for it then, and what it takes counts from there, so that a server that stalls is charged for
the calls that piled up meanwhile; without it as soon as a caller is free.

``Turn._lock`` guards the number of the next call; callers take it in turns.
"""

import contextlib
import sys
import threading
from functools import partial
from time import perf_counter
from typing import Any, Callable, Optional, Sequence

import click

from ..client.client import Client
from ..errors import ConnectionLost, OompaError, RemoteError, RequestTimeout, printable
from ..wire.messages import MISSING
from .asking import payload_of
from .measuring import Measured, report, summary
from .output import Output, cursor_shown_after, is_terminal, rich_console
from .reaching import Command, Reach, client_of, connect, reaches, url_and_rest

_CALLS = 10_000
_POSITIVE = click.FloatRange(0, min_open=True)

#: Seconds between two looks of the progress bar.
_LOOK = 0.1

#: Characters of an error that make its kind.
_KIND = 80


@click.command(cls=Command, short_help="Measure calls a second and latencies.")
@click.argument("arguments", nargs=-1, metavar="[URL] TYPE [JSON | @FILE | -]")
@click.option("-c", "--callers", type=click.IntRange(1, 1000), metavar="N", default=8, show_default=True, help="At once.")
@click.option("-n", "--calls", type=click.IntRange(1), metavar="N", help=f"Calls in all.  [default: {_CALLS}, or --duration]")
@click.option(
    "--duration", "seconds", type=_POSITIVE, metavar="SECONDS", help="To go on, instead of -n; with both, what is over first."
)
@click.option("--rate", type=_POSITIVE, metavar="N", help="Calls to begin a second; left out, as fast as they end.")
@reaches
@click.pass_obj
def bench(
    output: Output,
    arguments: Sequence[str],
    callers: int,
    calls: Optional[int],
    seconds: Optional[float],
    rate: Optional[float],
    reach: Reach,
) -> int:
    """Call the task TYPE many times and print calls a second, percentiles of the latency, a histogram, and errors by kind.

    Each of the -c callers is a thread with a connection of its own: many of them are limited by this process, too.

    With --rate the time of a call counts from when it was due, not from when a caller was free for it: a stall is not hidden.
    Without, callers that wait for a stalled server send nothing meanwhile, and the percentiles look better than it is.

    A bar on stderr tells how far it is, where that is a terminal, and more of it with rich (pip install 'oompa[cli]').
    Latencies are of calls that succeeded. Exits with 1 where a call failed; it ends early, with 3 or 4, where the server has
    gone and is not back within --timeout. With --json: calls, seconds, rate, latency and histogram in seconds, errors by kind.

    \b
    Examples:
      oompa bench ws://localhost:9000 ADD '{"x": 1, "y": 6}'
      oompa bench ws://localhost:9000 ADD '{"x": 1, "y": 6}' -c 32 --duration 30 --rate 2000 --json
    """
    url, rest = url_and_rest(arguments)
    if len(rest) not in (1, 2):
        raise click.UsageError("a task type is needed, and one payload at most: oompa bench URL TYPE '{\"x\": 1}'")
    payload = payload_of(rest[1]) if len(rest) == 2 else MISSING
    limit = calls or (_CALLS if seconds is None else None)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client_of(url, reach)) for _ in range(callers)]
        for client in clients:
            connect(client, reach.timeout)
        turn = Turn(limit, seconds, rate)
        measured: "list[Measured]" = []
        try:
            _measure(clients, turn, lambda client: client.call(rest[0], payload, timeout=reach.timeout), measured)
        finally:  # also on Ctrl-C: what was measured by then
            has_failed = _report(output, measured)
    if turn.fault is not None:
        raise turn.fault
    return 1 if has_failed else 0


def _report(output: Output, measured: "Sequence[Measured]") -> bool:
    """Print what was measured, if anything was; whether a call failed."""
    calls = tuple(measured)  # of callers that still call, when it was interrupted
    if not calls:
        return False
    told = summary(calls, max(each.ended for each in calls))
    if output.is_json:
        output.value(told)
    else:
        output.line("\n".join(report(told)))
    return bool(told["errors"])


class Turn:
    """Who may call next, and when the call is due.

    Args:
        limit: Calls in all; None: any number.
        seconds: After which no further call is due; None: never.
        rate: Calls due in a second; None: each when it is asked for.
    """

    def __init__(self, limit: Optional[int], seconds: Optional[float], rate: Optional[float]) -> None:
        self.limit = limit
        self.seconds = seconds
        self._rate = rate
        self._lock = threading.Lock()
        self._taken = 0
        self._stopped = False
        #: Why it ended before the time; None where it did not.
        self.fault: Optional[OompaError] = None

    def next(self, now: float) -> Optional[float]:
        """When the next call is due, in seconds since the start, as ``now`` is; None: there is none."""
        with self._lock:
            due = now if self._rate is None else self._taken / self._rate
            is_over = self.limit is not None and self._taken >= self.limit
            if self._stopped or is_over or (self.seconds is not None and due >= self.seconds):
                return None
            self._taken += 1
            return due

    def stop(self, fault: Optional[OompaError] = None) -> None:
        """There are no more."""
        self.fault = self.fault or fault
        self._stopped = True

    @property
    def taken(self) -> int:
        """How many calls were given out."""
        return self._taken

    def done(self, now: float) -> float:
        """How much of all this is, from 0 to 1."""
        by_time = 0.0 if self.seconds is None else now / self.seconds
        return min(1.0, max(by_time, self._taken / self.limit if self.limit else 0.0))


def _measure(
    clients: Sequence[Client], turn: Turn, call: Callable[[Client], Any], measured: "list[Measured]"
) -> None:
    """Let each client's caller call, and put down what it finds, until the turns are over, or there is no server any more."""
    began, wait = perf_counter(), threading.Event().wait

    def now() -> float:
        return perf_counter() - began

    def call_once(client: Client) -> None:
        try:
            call(client)
        except (RequestTimeout, ConnectionLost) as error:
            if not client.is_connected:
                turn.stop(error)
            raise

    threads = [
        threading.Thread(target=run_caller, args=(turn, partial(call_once, client), measured, now, wait), daemon=True)
        for client in clients
    ]
    try:
        for each in threads:
            each.start()
        _show_progress(threads, turn, now)
    finally:
        turn.stop()  # on Ctrl-C; each caller ends with its call


def run_caller(
    turn: Turn,
    call: Callable[[], Any],
    found: "list[Measured]",
    now: Callable[[], float],
    wait: Callable[[float], Any],
) -> None:
    """Call, one after the other, until there are no more turns. ``now()`` is in seconds since the start."""
    while (due := turn.next(now())) is not None:
        ahead = due - now()
        if ahead > 0:
            wait(ahead)
        fault = None
        try:
            call()
        except (OompaError, TypeError, ValueError) as error:
            fault = kind_of(error)
        ended = now()
        found.append(Measured(ended, ended - due, fault))


def kind_of(error: BaseException) -> str:
    """What errors are counted by: the class, and of a task's the part before the colon, which names its class."""
    if isinstance(error, RemoteError):
        text = error.error.partition(": ")[0] if isinstance(error.error, str) else repr(error.error)
        return f"RemoteError: {printable(text)[:_KIND]}"
    return type(error).__name__


def _show_progress(threads: "Sequence[threading.Thread]", turn: Turn, now: Callable[[], float]) -> None:
    """Return when all threads have ended; a bar on stderr meanwhile, where that is a terminal."""
    if not is_terminal(sys.stderr):
        return _join(threads, lambda: None)
    with cursor_shown_after(sys.stderr):
        console = rich_console(sys.stderr)
        if console is not None:
            return _show_rich_progress(console, threads, turn, now)
        with click.progressbar(length=1000, file=sys.stderr, label="calling") as bar:
            _join(threads, lambda: bar.update(int(1000 * turn.done(now())) - bar.pos))
            bar.update(1000 - bar.pos)


def _show_rich_progress(console: Any, threads: "Sequence[threading.Thread]", turn: Turn, now: Callable[[], float]) -> None:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    rate = TextColumn("{task.fields[rate]:.0f} calls/s")
    columns = ("calling", BarColumn(), TaskProgressColumn(), rate, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=1.0, rate=0.0)
        _join(threads, lambda: progress.update(bar, completed=turn.done(now()), rate=turn.taken / now()))


def _join(threads: "Sequence[threading.Thread]", look: Callable[[], None]) -> None:
    for each in threads:
        while each.is_alive():
            each.join(_LOOK)
            look()
