"""``oompa serve``: a server out of a module, in this process or under gunicorn."""

import errno
import importlib
import json
import logging
import os
import socket
import sys
import traceback
from typing import Any, Mapping, NoReturn, Optional

import click

from ..errors import printable
from .output import Output, duration
from .reaching import json_option


@click.command(short_help="Serve the tasks of a module.")
@click.argument("target", metavar="MODULE[:SERVER]")
@click.option(
    "-b",
    "--bind",
    default="127.0.0.1:9000",
    show_default=True,
    metavar="PLACE",
    help="HOST:PORT, or unix:/path/of.sock; port 0 takes one that is free.",
)
@click.option(
    "-w", "--workers", type=click.IntRange(1), metavar="N", default=1, show_default=True, help="Processes; above 1: gunicorn's."
)
@click.option("-v", "--verbose", is_flag=True, help="A line for each call: type, id, outcome, time, from whom.")
@json_option
@click.pass_obj
def serve(output: Output, target: str, bind: str, workers: int, verbose: bool) -> None:
    """Serve the tasks of a module until SIGTERM or Ctrl-C, and let those that run finish; a second Ctrl-C does not wait.

    SERVER is the name of a Server, a Schema or a mapping of task types to functions; left out, "server" or "schema". The
    module is looked for in the current folder first.

    HOST 127.0.0.1 can be reached from this machine alone, 0.0.0.0 from everywhere: whoever gets there may call, unless the
    Server has authenticate. The health is on the same port, http://HOST:PORT/health. TLS is for a proxy in front.

    With --workers the processes are gunicorn's, under the configuration oompa.gunicorn (pip install 'oompa[gunicorn]').

    What it tells goes to stderr: that it serves, warnings and errors of its tasks and, with -v, each call:
    ADD tVLBK2dK1sI1 ok in 15 us from 127.0.0.1:50412. With --json these are objects, one a line.

    \b
    Examples:
      oompa serve calculator
      oompa serve calculator:schema -v
      oompa serve calculator:server --bind 0.0.0.0:80 --workers 4
    """
    sys.path.insert(0, os.getcwd())
    host, port, path = _place(bind)
    server = load(target, verbose, output.is_json)
    if workers > 1:
        _serve_by_gunicorn(target, bind, workers, f"{verbose}, {output.is_json}")
    _show_log(verbose)

    def tell() -> None:
        output.note(f"serving {target} on {_shown(host, server.port, path)} (Ctrl-C stops)")

    try:
        if path is not None:
            server.run(path=path, on_ready=tell)
        else:
            server.run(port, host, on_ready=tell)
    except (OSError, OverflowError) as error:
        raise _cannot_listen(_shown(host, port, path), error) from None
    except ValueError as error:  # an explorer that would be open to the world
        raise click.UsageError(str(error)) from None


def _shown(host: str, port: Any, path: Optional[str]) -> str:
    return f"ws+unix:{path}" if path else f"ws://{f'[{host}]' if ':' in host else host}:{port}"


def _cannot_listen(place: str, error: Exception) -> click.UsageError:
    number = getattr(error, "errno", None)
    text = "another program listens there" if number == errno.EADDRINUSE else os.strerror(number) if number else str(error)
    return click.UsageError(f"cannot listen on {place}: {text}; --bind takes another place")


def load(target: str, verbose: bool = False, as_json: bool = False) -> Any:
    """The server that a target names; what gunicorn calls as well.

    Raises:
        click.UsageError: There is none; it tells why.
    """
    from ..schema import Schema
    from ..server.server import Server

    found = _found(target)
    if not isinstance(found, (Server, Mapping)):
        kind = type(found).__name__
        hint = "; gunicorn serves an application that has a Server" if hasattr(found, "wsgi_app") else ""
        raise click.UsageError(f"{target} must be a Server, a Schema or a mapping of types to functions, not a {kind}{hint}")
    try:
        server = found if isinstance(found, Server) else Server(found if isinstance(found, Schema) else dict(found))
    except (TypeError, ValueError) as error:
        raise click.UsageError(f"{target} cannot be served: {error}") from None
    if verbose:
        server.on("reply", _tell_json if as_json else _tell)
    return server


def _found(target: str) -> Any:
    module_name, colon, name = target.partition(":")
    if module_name.endswith(".py") or "/" in module_name:
        raise click.UsageError(f"{target!r} is a file; write it as a module: {_as_module(module_name)}{colon}{name}")
    if not module_name:
        raise click.UsageError(f"{target!r} names no module: write MODULE or MODULE:SERVER, such as calculator:server")
    module = _imported(module_name)
    found = module
    for each in name.split(".") if name else ():
        try:
            found = getattr(found, each)
        except AttributeError:
            raise click.UsageError(f"the module {module_name} has no {name!r}; it has {_offers(module)}") from None
    if not name:
        found = getattr(module, "server", getattr(module, "schema", None))
        if found is None:
            raise click.UsageError(
                f"the module {module_name} has neither 'server' nor 'schema'; name what to serve, as in {module_name}:app"
            )
    return found


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise click.UsageError(f"there is no module {name!r}, neither here nor installed; is this its folder?") from None
        raise click.UsageError(f"the module {name} cannot be imported: {_place_of(error)}{printable(str(error))}") from None
    except (Exception, SystemExit) as error:
        text = f"{type(error).__name__}: {printable(str(error))}"
        raise click.UsageError(f"the module {name} cannot be imported: {_place_of(error)}{text}") from None


def _place_of(error: BaseException) -> str:
    """The file and the line that raised, of the last frame that is not the import machinery's."""
    if isinstance(error, SyntaxError):
        return ""  # its text tells
    frames = [each for each in traceback.extract_tb(error.__traceback__) if not each.filename.startswith("<frozen")]
    return f"{frames[-1].filename}:{frames[-1].lineno}: " if len(frames) > 1 else ""


def _as_module(path: str) -> str:
    return path.removeprefix("./").removesuffix(".py").replace("/", ".")


def _offers(module: Any) -> str:
    from ..server.server import Server

    public = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    found = [name for name, value in public.items() if isinstance(value, (Server, Mapping))]
    return ", ".join(found) or "no Server, Schema or mapping"


def _place(bind: str) -> "tuple[str, int, Optional[str]]":
    """Host and port, or the path of a Unix socket."""
    if bind.startswith("unix:"):
        return "", 0, bind[len("unix:") :]
    host, _, port = bind.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise click.UsageError(f"--bind must be HOST:PORT, such as 127.0.0.1:9000, or unix:/path/of.sock, not {bind!r}")
    return host.strip("[]"), int(port), None


# What is shown.


def _show_log(verbose: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger("oompa").setLevel(logging.INFO if verbose else logging.WARNING)


def _tell(reply: Any) -> None:
    """A line for a call, as it ends."""
    told = _told(reply)
    id = "-" if told["id"] is None else printable(str(told["id"]))[:64]
    outcome = "ok" if told["error"] is None else f"error {printable(str(told['error']))[:200]}"
    queued = f" after {duration(reply.waited)} in the queue" if reply.waited else ""
    task, peer = printable(told["type"] or "-")[:100], told["peer"] or "nobody known"
    click.echo(f"{task} {id} {outcome} in {duration(reply.elapsed)}{queued} from {peer}", err=True)


def _tell_json(reply: Any) -> None:
    click.echo(json.dumps(_told(reply), default=repr), err=True)


def _told(reply: Any) -> "dict[str, Any]":
    """What there is to say of a call, for a program; what it has taken, and waited, in seconds."""
    from ..server.contexts import current_request
    from ..wire.messages import ERR, MISSING, peer_of

    request = current_request()
    return {
        "type": reply.task,
        "id": None if reply.id is MISSING else reply.id,
        "error": reply.error if reply.type == ERR else None,
        "elapsed": round(reply.elapsed, 6),
        "waited": round(reply.waited, 6),
        "peer": None if request is None else peer_of(request.connection),
    }


# gunicorn.


def _serve_by_gunicorn(target: str, bind: str, workers: int, how: str) -> NoReturn:
    """Become gunicorn, which loads the target anew in each worker."""
    try:
        importlib.import_module("gunicorn")
    except ImportError:
        raise click.UsageError("more than one worker needs gunicorn: pip install 'oompa[gunicorn]'") from None
    _check_free(bind)
    application = f"oompa.cli.serving:load({target!r}, {how})"
    command = [sys.executable, "-m", "gunicorn", "-c", "python:oompa.gunicorn", "-b", bind, "-w", str(workers), application]
    sys.stderr.flush()
    os.execv(sys.executable, command)


def _check_free(bind: str) -> None:
    """Raise click.UsageError for a port that is taken: gunicorn would try again for seconds, and tell of each."""
    host, port, path = _place(bind)
    if path is not None:
        return
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except (OSError, OverflowError) as error:
        raise _cannot_listen(_shown(host, port, path), error) from None
