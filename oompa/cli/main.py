"""The commands by name, and what ends in which exit code."""

import importlib
import os
import sys
from typing import Any, Optional, Sequence

import click

from ..errors import ClientClosed, ConnectionLost, OompaError, RemoteError, RequestTimeout, printable
from ..version import __version__
from .output import Output
from .reaching import json_option

DONE, FAILED, USAGE, NO_CONNECTION, TIMED_OUT, INTERRUPTED = 0, 1, 2, 3, 4, 130

#: Where each command lives.
_HOMES = {
    "serve": "serving",
    "call": "asking",
    "ping": "asking",
    "info": "asking",
    "stats": "asking",
    "schema": "asking",
    "stub": "asking",
    "top": "watching",
    "bench": "benching",
}


class _Commands(click.Group):
    """Imports a command when it is asked for."""

    def list_commands(self, context: click.Context) -> "list[str]":
        """In the order in which one learns them."""
        return list(_HOMES)

    def get_command(self, context: click.Context, name: str) -> Optional[click.Command]:
        """The command, None where there is none."""
        if name not in _HOMES:
            return None
        command: click.Command = getattr(importlib.import_module(f".{_HOMES[name]}", __package__), name)
        return command

    def resolve_command(self, context: click.Context, args: "list[str]") -> Any:
        """As click does, with the likely command where there is none of that name."""
        try:
            return super().resolve_command(context, args)
        except click.UsageError as error:
            import difflib

            close = difflib.get_close_matches(args[0], _HOMES, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"the commands are {', '.join(_HOMES)}"
            raise click.UsageError(f"there is no command {args[0]!r}; {hint}", error.ctx) from None


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="oompa")
@json_option
def oompa() -> None:
    """Serve tasks over WebSockets, call them, and see how they are.

    \b
    The first minute, with a calculator.py that has a Schema or a Server named "server":
      oompa serve calculator -v
    and in another terminal:
      export OOMPA_URL=ws://localhost:9000
      oompa info
      oompa call ADD '{"x": 1, "y": 6}'
      oompa bench ADD '{"x": 1, "y": 6}'

    URL is ws://HOST:PORT/PATH, wss:// over TLS, or ws+unix:/path/of.sock; it may be left out where the environment has it as
    OOMPA_URL. Values go to stdout, everything else to stderr. 'oompa COMMAND --help' tells more.

    \b
    Exit codes:
      0    done
      1    the task failed, or the server is unhealthy
      2    the command cannot be meant: an option, a URL, JSON, a module
      3    no connection: nothing listens there, or the server refused
      4    no reply in time
      130  interrupted
    """


def run(arguments: Sequence[str]) -> int:
    """Run the command; its exit code. Whatever goes wrong is told in a sentence."""
    output = Output()
    try:
        code = _run(list(arguments), output)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read has enough, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def _run(arguments: "list[str]", output: Output) -> int:
    if not arguments:
        click.echo(_manual(), err=True)
        return USAGE
    try:
        code = oompa.main(arguments, prog_name="oompa", standalone_mode=False, obj=output)
        return code if isinstance(code, int) else DONE
    except click.ClickException as error:
        context: Optional[click.Context] = getattr(error, "ctx", None)
        hint = "" if context is None else f" (see {context.command_path} --help)"
        output.error(_sentence(error.format_message()) + hint, "usage", USAGE)
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        output.error("interrupted", "interrupted", INTERRUPTED)
        return INTERRUPTED
    except RemoteError as error:
        output.error(_remote(error), "task", FAILED, value=error.error)
        return FAILED
    except (ConnectionLost, ClientClosed) as error:
        output.error(_lost(error), "connection", NO_CONNECTION)
        return NO_CONNECTION
    except RequestTimeout as error:
        output.error(f"{error}; --timeout gives it longer", "timeout", TIMED_OUT)
        return TIMED_OUT
    except OompaError as error:
        output.error(str(error), "protocol", FAILED)
        return FAILED
    except BrokenPipeError:
        raise
    except Exception as error:
        if os.environ.get("OOMPA_TRACEBACK"):
            raise
        output.error(f"{type(error).__name__}: {printable(str(error))} (OOMPA_TRACEBACK=1 shows where)", "other", FAILED)
        return FAILED


def _manual() -> str:
    return oompa.get_help(click.Context(oompa, info_name="oompa", **oompa.context_settings))


def _lost(error: OompaError) -> str:
    """Why there is no connection, with remedies of the command instead of the library's."""
    return str(error).replace("ssl=ssl.create_default_context(cafile=...)", "--cacert FILE")


def _remote(error: RemoteError) -> str:
    """What the server answered, on one line."""
    if isinstance(error.error, str):
        is_unknown = error.code == "unimplemented" and error.error.startswith("Unknown request type")
        hint = "; 'oompa info' lists those it has" if is_unknown else ""
        return printable(error.error) + hint
    import json

    return json.dumps(error.error)


def _sentence(text: str) -> str:
    """Click's own errors end in a full stop, ours do not; theirs may have lines."""
    return " ".join(text.split()).removesuffix(".")
