"""Where values and errors go: values on stdout, all else on stderr; with ``--json`` one object a line, errors too."""

import contextlib
import json
import os
import sys
from typing import Any, Iterable, Iterator, Sequence

import click

from ..errors import printable


class Output:
    """Of one run of the command."""

    def __init__(self) -> None:
        self.is_json = False

    def value(self, value: Any) -> None:
        """Print a JSON value: a document over several lines, or all on one with ``--json``."""
        if self.is_json:
            self.line(json.dumps(value, ensure_ascii=_is_ascii(), separators=(",", ":")))
        else:
            indent = 2 if isinstance(value, (dict, list)) and len(json.dumps(value)) > 100 else None
            self.line(json.dumps(value, ensure_ascii=_is_ascii(), indent=indent))

    def line(self, text: str) -> None:
        """Print a line, at once: whoever reads may be a program that waits for it."""
        click.echo(text)
        sys.stdout.flush()

    def told(self, text: str) -> None:
        """Print a line of what a server tells: nothing in it reaches the terminal as a command."""
        self.line(printable(text))

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Print columns: text to the left, numbers to the right."""
        for each in table(heads, rows):
            self.line(each)

    def note(self, text: str) -> None:
        """Tell something beside the values."""
        if not self.is_json:
            click.echo(text, err=True)

    def error(self, text: str, kind: str, code: int, **more: Any) -> None:
        """Tell why the command failed."""
        if self.is_json:
            told = {"error": text, "kind": kind, "exit": code, **more}
            click.echo(json.dumps(told, separators=(",", ":")), err=True)
        else:
            click.echo(f"oompa: {text}", err=True)


def is_terminal(file: Any) -> bool:
    """Whether what is written there is drawn, and may be drawn over."""
    return bool(file.isatty()) and os.environ.get("TERM") != "dumb"


@contextlib.contextmanager
def cursor_shown_after(file: Any) -> Iterator[None]:
    """Whatever hides the cursor of a terminal within: an interrupt may come before that would show it again."""
    try:
        yield
    finally:
        file.write("\x1b[?25h")
        file.flush()


def rich_console(file: Any) -> Any:
    """A console of rich on a terminal; None where it is none, or rich is not installed."""
    if not is_terminal(file):
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=file)


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> "list[str]":
    """Lines of columns, without control characters; a column is of numbers, and stands to the right, where its first cell
    begins with a digit."""
    cells = [tuple(printable(str(cell)) for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells)]
    to_right = [cell[:1].isdigit() for cell in cells[0]] if cells else [False] * len(heads)
    return ["  ".join(map(_padded, row, widths, to_right)).rstrip() for row in (heads, *cells)]


def _padded(cell: str, width: int, to_right: bool) -> str:
    return cell.rjust(width) if to_right else cell.ljust(width)


def duration(seconds: float) -> str:
    """Seconds as a person reads them."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _is_ascii() -> bool:
    return (getattr(sys.stdout, "encoding", None) or "ascii").lower().replace("-", "") != "utf8"
