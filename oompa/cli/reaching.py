"""How a command gets a connection: the options that say where and how, and a client that fails at the first attempt."""

import contextlib
import functools
import os
import re
from typing import Any, Callable, Iterator, NamedTuple, Optional, Sequence, TypeVar

import click

from ..client.client import Client
from ..client.options import ClientOptions
from ..errors import ClientClosed
from ..options import Unpack
from .output import Output

F = TypeVar("F", bound=Callable[..., Any])


class Reach(NamedTuple):
    """Where a server is and how to get in."""

    timeout: float
    headers: Sequence[str]
    cacert: Optional[str]
    cert: Optional[str]
    key: Optional[str]
    insecure: bool


def _set_json(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Output).is_json = True


json_option = click.option(
    "--json", is_flag=True, expose_value=False, callback=_set_json, help="One JSON object a line, errors too (on stderr)."
)

_OPTIONS = [
    click.option(
        "--timeout",
        type=click.FloatRange(0, min_open=True),
        metavar="SECONDS",
        default=10.0,
        show_default=True,
        help="To wait for a connection, and for each reply.",
    ),
    click.option(
        "-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header of the handshake; may be repeated."
    ),
    click.option("--cacert", metavar="FILE", help="Trust the authorities of this file (PEM), for wss://."),
    click.option("--cert", metavar="FILE", help="The certificate of this client (PEM)."),
    click.option("--key", metavar="FILE", help="Its private key, where --cert does not have it."),
    click.option("--insecure", is_flag=True, help="Trust any certificate. Whoever is between can read and change everything."),
    json_option,
]

#: The names of those that say how to get in.
_CONNECTING = {"timeout", "headers", "cacert", "cert", "key", "insecure"}


class Command(click.Command):
    """One whose help has the options of the connection apart, since most commands have them in common."""

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options."""
        own: "list[tuple[str, str]]" = []
        connecting: "list[tuple[str, str]]" = []
        for each in self.get_params(context):
            record = each.get_help_record(context)
            if record is not None:
                (connecting if each.name in _CONNECTING else own).append(record)
        for title, records in (("Options", own), ("Connection", connecting)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def reaches(command: F) -> F:
    """Give a command the options that say how to reach a server; it gets them as ``reach``."""

    @functools.wraps(command)
    def run(*args: Any, timeout: float, headers: Any, cacert: Any, cert: Any, key: Any, insecure: bool, **rest: Any) -> Any:
        return command(*args, reach=Reach(timeout, headers, cacert, cert, key, insecure), **rest)

    for option in reversed(_OPTIONS):
        run = option(run)
    return run  # type: ignore[return-value]


def _given(context: click.Context, parameter: click.Parameter, value: Optional[str]) -> str:
    return value or _url_of_environment("")


url_argument = click.argument("url", envvar="OOMPA_URL", required=False, metavar="[URL]", callback=_given)


def url_and_rest(arguments: Sequence[str]) -> "tuple[str, Sequence[str]]":
    """The URL, which comes first or from ``OOMPA_URL``, and what else was given."""
    if arguments and (":/" in arguments[0] or arguments[0].startswith("ws+unix:")):
        return arguments[0], arguments[1:]
    return _url_of_environment(arguments[0] if arguments else ""), arguments


def _url_of_environment(first: str) -> str:
    """The URL that ``OOMPA_URL`` has. ``first`` is what was given in its place."""
    url = os.environ.get("OOMPA_URL")
    if url:
        return url
    if re.fullmatch(r"[\w.-]+:\d+(/.*)?|[\w-]+(\.[\w-]+)+(/.*)?", first):
        raise click.UsageError(f"{first!r} is no URL; did you mean ws://{first}?")
    raise click.UsageError("no URL was given: put one first, such as ws://localhost:9000, or set OOMPA_URL")


def client_of(url: str, reach: Reach, **options: "Unpack[ClientOptions]") -> Client:
    """A client that has not begun to connect. Raises click.UsageError for a URL or an option that cannot be meant."""
    given: ClientOptions = {
        "timeout": reach.timeout,
        "connect_timeout": reach.timeout,
        "attempts": 1,
        "headers": dict(map(_header, reach.headers)),
        "ssl": _context(reach),
        "no_server": True,
        **options,
    }
    try:
        return Client(url, **given)
    except (TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from None


@contextlib.contextmanager
def connected(url: str, reach: Reach, **options: "Unpack[ClientOptions]") -> Iterator[Client]:
    """A client with a connection, closed afterwards.

    Raises:
        ConnectionLost: The first attempt to connect failed; it tells why.
        click.UsageError: The URL or an option cannot be meant.
    """
    with client_of(url, reach, **options) as client:
        connect(client, reach.timeout)
        yield client


def connect(client: Client, timeout: float) -> None:
    """Connect, or raise what the first attempt failed with: whoever types a command sees no point in a second one."""
    reasons: "list[BaseException]" = []

    def give_up(error: BaseException) -> None:
        reasons.append(error)
        client.close()

    client.on("error", give_up)
    client.start()
    try:
        client.wait_connected(timeout)
    except ClientClosed:
        if not reasons:
            raise
        raise reasons[0] from None
    client.off("error", give_up)


def _header(text: str) -> "tuple[str, str]":
    name, colon, value = text.partition(":")
    if not colon:
        raise click.UsageError("a header must look like 'Authorization: Bearer TOKEN', with a colon; the one given has none")
    return name.strip(), value.strip()


def _context(reach: Reach) -> Any:
    if not (reach.cacert or reach.cert or reach.key or reach.insecure):
        return None
    import ssl

    if reach.key and not reach.cert:
        raise click.UsageError("--key belongs to a certificate: give --cert, too")
    for file in filter(None, (reach.cacert, reach.cert, reach.key)):
        try:
            open(file, "rb").close()
        except OSError as error:
            raise click.UsageError(f"{file} cannot be read: {error.strerror}") from None
    try:
        context = ssl.create_default_context(cafile=reach.cacert)
    except ssl.SSLError:
        raise click.UsageError(f"{reach.cacert} has no certificate, or is no PEM file") from None
    try:
        if reach.cert:
            context.load_cert_chain(reach.cert, reach.key, _no_password)
    except (ssl.SSLError, ValueError) as error:
        whose = reach.cert if reach.key is None else f"{reach.cert} and {reach.key}"
        text = getattr(error, "reason", None) or str(error)
        raise click.UsageError(f"{whose} cannot be used: a certificate and its key are needed, as PEM ({text})") from None
    if reach.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _no_password() -> str:
    """Instead of OpenSSL's own question on the terminal, which scripts would wait at."""
    raise ValueError("the key has a password, which the command does not ask for: give one without")
