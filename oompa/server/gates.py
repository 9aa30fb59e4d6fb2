"""Who may connect: the Host and the Origin of an upgrade request, and what ``authenticate`` says of it.

Whatever is neither a clear yes nor a clear no keeps the door shut. A fault of the visitor's is told to the visitor
(``BadHandshake``), a fault of the function's to the developer (an exception, which Flask logs and answers with a 500).

``origins`` keeps a browser from acting for its user on behalf of another site. By itself it cannot stop DNS rebinding, where
the name of a strange site comes to point at this machine: Host and Origin agree then. ``hosts`` does, and so does the rule that
a browser must call a server on loopback by a name of loopback.
"""

import re
from ipaddress import ip_address
from typing import Any, Collection, Mapping, Optional
from urllib.parse import urlsplit

from flask import Request

from ..errors import printable
from .embedded import IS_LOOPBACK
from .handshake import BadHandshake
from .options import Authenticate
from .verdicts import mistake_in, verdict_of

_DEFAULT_PORTS = {"http": 80, "https": 443}

#: A Host header: a name or an address, and maybe a port.
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)


def check_host(environ: Mapping[str, Any], hosts: Optional[Collection[str]]) -> None:
    """Refuse a request that was made for another host.

    Args:
        hosts: Names, those with a leading dot for their subdomains as well. None: any, but a browser must name loopback to a
            server that ``listen`` has bound to it.

    Raises:
        BadHandshake: With the Host, and the option that would let it in.
    """
    name = _name_of(environ["HTTP_HOST"])
    if hosts is not None:
        is_ours = name is not None and any(_is_named(name, each) for each in hosts)
    else:
        is_foreign = environ.get(IS_LOOPBACK, False) and "HTTP_ORIGIN" in environ
        is_ours = not is_foreign or (name is not None and _is_loopback(name))
    if not is_ours:
        host = printable(environ["HTTP_HOST"])
        option = f"Server(hosts=[{name!r}])" if name is not None else "the option hosts"
        raise BadHandshake(f'the Host "{host}" may not be called here; {option} would allow it', 403)


def _name_of(host: str) -> Optional[str]:
    """The name in a Host header, without its port and in small letters; None where it is no host."""
    match = _HOST.fullmatch(host)
    return None if match is None else match[1].lower()


def _is_named(name: str, host: str) -> bool:
    return name == host.removeprefix(".") or (host.startswith(".") and name.endswith(host))


def _is_loopback(name: str) -> bool:
    name = name.removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def check_origin(environ: Mapping[str, Any], origins: Optional[Collection[str]]) -> None:
    """A browser tells the site it acts for; others are refused, for a user's cookies would come along with them.

    Raises:
        BadHandshake: With the Host that was compared, and the option that would let the origin in.
    """
    origin = environ.get("HTTP_ORIGIN")
    if origin is None or (origins is not None and (origin in origins or "*" in origins)):
        return
    if origins is None and _is_same_host(origin, environ["HTTP_HOST"]):
        return
    host = printable(environ["HTTP_HOST"])
    raise BadHandshake(
        f'the origin "{printable(origin)}" may not connect to the Host "{host}"; '
        f"Server(origins=[{printable(origin)!r}]) would allow it",
        403,
    )


def _is_same_host(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
        return parts.hostname is not None and _host_and_port(parts.netloc, parts.scheme) == _host_and_port(host, parts.scheme)
    except ValueError:
        return False


def _host_and_port(netloc: str, scheme: str) -> tuple[Optional[str], Optional[int]]:
    parts = urlsplit(f"//{netloc}")
    return parts.hostname, parts.port or _DEFAULT_PORTS.get(scheme)


def identify(authenticate: Optional[Authenticate], request: Request) -> Any:
    """Who the visitor is, None without ``authenticate``.

    Raises:
        BadHandshake: It said no, or raised a ``PermissionError`` of its own.
        TypeError: What it returned is no answer.
        Exception: Whatever it raised, ``flask.abort`` included, and a ``PermissionError`` of the operating system, which is
            no verdict on the visitor.
    """
    if authenticate is None:
        return None
    try:
        answer = verdict_of(authenticate(request))
    except PermissionError as error:
        if error.errno is not None:
            raise
        raise BadHandshake(printable(str(error)) or "forbidden", 403) from None
    mistake = mistake_in(answer)
    if mistake is not None:
        raise TypeError(f"authenticate returned {mistake}; return True or an identity to let in, False to refuse")
    if not answer:
        raise BadHandshake("who are you?", 401)
    return None if answer is True else answer
