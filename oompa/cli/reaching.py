"""How a command gets a connection: the options that say where and how, and a client that fails at the first attempt."""

import contextlib
import functools
import os
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
        "--timeout", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True, help="Seconds to wait."
    ),
    click.option(
        "-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header of the handshake; may be repeated."
    ),
    click.option("--cacert", type=click.Path(), help="Trust the authorities of this file (PEM), for wss://."),
    click.option("--cert", type=click.Path(), help="The certificate of this client (PEM)."),
    click.option("--key", type=click.Path(), help="Its private key, where --cert does not have it."),
    click.option("--insecure", is_flag=True, help="Trust any certificate. Whoever is between can read and change everything."),
    json_option,
]


def reaches(command: F) -> F:
    """Give a command the options that say how to reach a server; it gets them as ``reach``."""

    @functools.wraps(command)
    def run(*args: Any, timeout: float, headers: Any, cacert: Any, cert: Any, key: Any, insecure: bool, **rest: Any) -> Any:
        return command(*args, reach=Reach(timeout, headers, cacert, cert, key, insecure), **rest)

    for option in reversed(_OPTIONS):
        run = option(run)
    return run  # type: ignore[return-value]


url_argument = click.argument("url", envvar="OOMPA_URL", metavar="[URL]")


def url_and_rest(arguments: Sequence[str]) -> "tuple[str, Sequence[str]]":
    """The URL, which comes first or from ``OOMPA_URL``, and what else was given."""
    if arguments and (":/" in arguments[0] or arguments[0].startswith("ws+unix:")):
        return arguments[0], arguments[1:]
    url = os.environ.get("OOMPA_URL")
    if not url:
        raise click.UsageError("no URL was given: put one first, such as ws://localhost:9000, or set OOMPA_URL")
    return url, arguments


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
    try:
        context = ssl.create_default_context(cafile=reach.cacert)
        if reach.cert:
            context.load_cert_chain(reach.cert, reach.key)
    except OSError as error:  # ssl.SSLError is one
        raise click.UsageError(f"the certificates cannot be read: {error}; they must be PEM files") from None
    if reach.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
