"""Commands that ask a server something and print what it says."""

import json
import math
import sys
from time import monotonic
from typing import Any, NoReturn, Sequence

import click

from ..client.client import Client
from ..errors import RemoteError
from ..wire.messages import INFO, MISSING, PING, SCHEMA, STATS
from .output import Output, duration
from .reaching import Command, Reach, connected, reaches, url_and_rest, url_argument


@click.command(cls=Command, short_help="Run a task and print its result.")
@click.argument("arguments", nargs=-1, metavar="[URL] TYPE [JSON | @FILE | -]")
@reaches
@click.pass_obj
def call(output: Output, arguments: Sequence[str], reach: Reach) -> None:
    """Run the task TYPE and print its result, a JSON value.

    The payload is JSON, the content of a file (@FILE), or what stdin brings (-); left out, the task gets none.

    The task may run more than once: where the connection is lost, the request is sent again on the next one.

    With --json: {"payload": the result, "elapsed": seconds}.

    \b
    Examples:
      oompa call ws://localhost:9000 ADD '{"x": 1, "y": 6}'
      oompa call wss://example.com/ws IMPORT @orders.json --timeout 60 -H 'Authorization: Bearer ...'
      echo '[1, 2]' | OOMPA_URL=ws://localhost:9000 oompa call ECHO -
    """
    url, rest = url_and_rest(arguments)
    if not rest:
        raise click.UsageError("no task type was given; 'oompa info' lists those of a server")
    if len(rest) > 2:
        raise click.UsageError(f"there are {len(rest) - 2} arguments too many: put the payload in quotes, '{{\"x\": 1}}'")
    payload = payload_of(rest[1]) if len(rest) == 2 else MISSING
    _ask(output, url, reach, rest[0], payload)


@click.command(cls=Command, short_help="Ask for the health of a server.")
@url_argument
@reaches
@click.pass_obj
def ping(output: Output, url: str, reach: Reach) -> None:
    """Run the healthcheck of a server and print what it returned. Exits with 1 where it fails, with 3 where nobody answers.

    Made for probes: a ping imports next to nothing, as long as the URL is a plain ws:// one.

    \b
    Examples, of a container and of Kubernetes:
      HEALTHCHECK CMD oompa ping ws://localhost:9000 --timeout 2
      livenessProbe: {exec: {command: [oompa, ping, "ws://localhost:9000", --timeout, "2"]}, timeoutSeconds: 3}
    """
    _ask(output, url, reach, PING, MISSING)


def _ask(output: Output, url: str, reach: Reach, type: str, payload: Any) -> None:
    with connected(url, reach) as client:
        began = monotonic()
        try:
            result = client.call(type, payload, timeout=reach.timeout)
        except (TypeError, ValueError) as error:
            raise click.UsageError(str(error)) from None  # it was never sent
        elapsed = monotonic() - began
    output.value({"payload": result, "elapsed": round(elapsed, 6)} if output.is_json else result)


@click.command(cls=Command, short_help="Who a server is, and its tasks.")
@url_argument
@reaches
@click.pass_obj
def info(output: Output, url: str, reach: Reach) -> None:
    """Print who a server is: its name, version and process, and the tasks it has, each with its first line of documentation.

    \b
    Example:
      oompa info ws://localhost:9000 --json | jq -r '.tasks[].type'
    """
    told = _introspect(url, reach, INFO)
    if output.is_json:
        return output.value(told)
    for key in ("name", "version", "id", "started", "library"):
        output.told(f"{key + ':':<10}{told.get(key) or '-'}")
    output.told(f"{'features:':<10}{', '.join(told.get('features', ()))}")
    for key, value in told.get("metadata", {}).items():
        output.told(f"{key + ':':<10}{value if isinstance(value, str) else json.dumps(value)}")
    output.line("")
    output.table(("TASK", "DOC"), [(each["type"] or '""', each["doc"].partition("\n")[0]) for each in told["tasks"]])


@click.command(cls=Command, short_help="What a server has done.")
@url_argument
@reaches
@click.pass_obj
def stats(output: Output, url: str, reach: Reach) -> None:
    """Print what one process of a server has done since it started, by task type, and what it has in hand.

    AVERAGE and TOTAL are the time that the tasks ran, without that in the queue. Requests of a type that the server does not
    have are those of (unknown); pings do not count. 'oompa top' shows what happens now.

    \b
    Examples:
      oompa stats ws://localhost:9000
      oompa stats ws://localhost:9000 --json | jq '.tasks.ADD.num_errors'
    """
    told = _introspect(url, reach, STATS)
    if output.is_json:
        return output.value(told)
    output.told(f"{told['name']} ({told['id']}), since {told['started']}")
    output.line(f"connections: {told['connections']}, running: {told['running']}, queued: {told['queued']}")
    output.line("")
    rows = [
        (
            task or "(unknown)",
            each["num_requests"],
            each["num_errors"],
            duration(each["average_processing_time"]),
            duration(each["processing_time"]),
            each["last_error"] or "",
        )
        for task, each in told["tasks"].items()
    ]
    output.table(("TASK", "REQUESTS", "ERRORS", "AVERAGE", "TOTAL", "LAST ERROR"), rows)


@click.command(cls=Command, short_help="What a server can be asked for, as AsyncAPI.")
@url_argument
@reaches
@click.pass_obj
def schema(output: Output, url: str, reach: Reach) -> None:
    """Print the tasks of a server, with what is known of their payloads, as an AsyncAPI 3 document (JSON).

    \b
    Example:
      oompa schema ws://localhost:9000 > asyncapi.json
    """
    told = _introspect(url, reach, SCHEMA)
    output.line(json.dumps(told, indent=None if output.is_json else 2))


@click.command(cls=Command, short_help="Write a typed client of a server, in Python.")
@url_argument
@reaches
@click.pass_obj
def stub(output: Output, url: str, reach: Reach) -> None:
    """Print a Python module with a client of this server: one class, one typed method a task, with its docstring.

    What the tasks take and give comes from their signatures and annotations, so annotate them. The methods return Futures.

    \b
    Example:
      oompa stub ws://localhost:9000 > calculator.py
      python -c 'from calculator import Calculator; print(Calculator("ws://localhost:9000").add(1, 6).result())'
    """
    from ..stub import module_text

    text = module_text(_introspect(url, reach, SCHEMA))
    output.line(json.dumps({"module": text}) if output.is_json else text.rstrip("\n"))


def _introspect(url: str, reach: Reach, type: str) -> Any:
    with connected(url, reach) as client:
        return introspect(client, reach, type)


def introspect(client: Client, reach: Reach, type: str) -> Any:
    """What a server says of itself. Raises RemoteError, with the reason, where it does not."""
    try:
        return client.call(type, timeout=reach.timeout)
    except RemoteError as error:
        if isinstance(error.error, str) and error.error.startswith("Unknown request type"):
            text = "the server does not tell: it was made with introspection=False, or its library knows no such request"
            raise RemoteError(text) from None
        raise


def payload_of(text: str) -> Any:
    """The value that an argument stands for."""
    source = "the payload"
    if text == "-":
        source, text = "what stdin brought", _read(sys.stdin.buffer.read(), "stdin")
    elif text.startswith("@"):
        source = text[1:]
        try:
            with open(source, "rb") as file:
                text = _read(file.read(), source)
        except OSError as error:
            raise click.UsageError(f"{source} cannot be read: {error.strerror}") from None
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        hint = _hint_of(text) if source == "the payload" else ""
        raise click.UsageError(f"{source} is not JSON: {error}{hint}") from None


def _read(content: bytes, source: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise click.UsageError(f"{source} is not UTF-8, as JSON is") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it has {constant}, which is no JSON value")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse(digits)


def _hint_of(text: str) -> str:
    """What may have been meant by what is no JSON."""
    name, equals, value = text.partition("=")
    if equals and name.isidentifier():
        return f"; an argument is written as '{{\"{name}\": {value or 'null'}}}'"
    return "" if text[:1] in ("{", "[", '"') else "; a text needs quotes of its own: '\"text\"'"
