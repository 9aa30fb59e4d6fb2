"""The explorer: a page on which a person sees the tasks of a server, calls them and watches; three files of the package.

The page talks to the server over its WebSocket, like any other client, and whoever may open it may call every task. So it is
for those alone whom ``authenticate`` lets in; without ``authenticate``, for those who sit at this machine: the peer is on
loopback, has called it by a name of loopback, and no proxy has passed the request on.
"""

import functools
import posixpath
import re
import socket
from html import escape
from importlib.resources import files
from ipaddress import IPv6Address, ip_address
from string import Template
from typing import Iterable, Mapping, NamedTuple
from urllib.parse import quote

from flask import Blueprint, Request, Response, request

from ..errors import printable
from .embedded import IS_LOOPBACK
from .gates import check_host, identify
from .handshake import BadHandshake
from .options import ServerOptions


class _File(NamedTuple):
    name: str
    mimetype: str


_PAGE = _File("page.html", "text/html")
_ASSETS = (_File("page.js", "text/javascript"), _File("page.css", "text/css"))

#: What proxies add to a request, as WSGI names it. None of them can be relied upon to add one, so it is not the only sign.
_OF_PROXIES = ("HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_REAL_IP")

_REMEDY = "Server(authenticate=...) opens it to those whom you let in"

#: Nothing but the script, the stylesheet and the WebSocket of this server, and no page around it. Nothing of it becomes
#: markup, whatever the script does: values of peers are text.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src {sources}; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

#: A Host header that is safe to repeat in a policy.
_PLAIN_HOST = re.compile(r"[A-Za-z0-9._:\[\]-]+", re.ASCII)


def explorer_paths(options: ServerOptions) -> list[str]:
    """The paths of the page and of its files; none where there is no explorer."""
    page = options["explorer"]
    return [] if page is None else [page, *(_path_of(page, each) for each in _ASSETS)]


def check_explorer(options: ServerOptions, paths: Iterable[tuple[str, str, str]]) -> None:
    """Raise ValueError where the options do not go together.

    Args:
        paths: All routes of the server, each as the option that names it, its path and its method.
    """
    if options["explorer"] is None:
        return
    if not options["introspection"]:
        raise ValueError("explorer needs introspection=True: the page asks for SCHEMA and STATS as any client would")
    taken = {path: option for option, path, method in paths if option != "explorer" and method == "GET"}
    for path in explorer_paths(options):
        if path in taken:
            raise ValueError(f"explorer={options['explorer']!r} needs the path {path!r}, which is that of {taken[path]}")


def check_reach(options: ServerOptions, host: str) -> None:
    """Raise ValueError where ``listen`` would open an explorer to others than this machine, and nothing asks who they are."""
    if options["explorer"] is not None and options["authenticate"] is None and not _is_here(host):
        raise ValueError(
            f"explorer={options['explorer']!r} would let everybody who reaches {host!r} call every task: listen on loopback, "
            f'as listen(9000, "127.0.0.1") does; or {_REMEDY}'
        )


def _is_here(host: str) -> bool:
    """Whether all addresses of a host to listen on are of loopback; one that has none is left to ``listen`` to refuse."""
    try:
        found = socket.getaddrinfo(host or "0.0.0.0", None, type=socket.SOCK_STREAM)
    except OSError:
        return True
    return all(_is_loopback(str(address[0])) for *_, address in found)


def add_explorer(routes: Blueprint, options: ServerOptions) -> None:
    """Add the routes of the page and its files, where the server has an explorer."""
    page = options["explorer"]
    if page is None:
        return
    views = [(page, _PAGE, _page_text(page, options["path"]))]
    views += [(_path_of(page, each), each, _text_of(each)) for each in _ASSETS]
    for path, file, text in views:
        view = functools.partial(_answer, options, file.mimetype, text)
        routes.add_url_rule(path, file.name.replace(".", "_"), view, methods=["GET"])


def _path_of(page: str, file: _File) -> str:
    return f"{page.removesuffix('/')}/{file.name}"


def _page_text(page: str, endpoint: str) -> str:
    """The page, which finds its files and the WebSocket relative to itself: so a prefix that a proxy or an application puts
    before all of them needs to be known to nobody."""
    script, style = (_path_of(page, each) for each in _ASSETS)
    places = {"script": script, "style": style, "endpoint": endpoint}
    return Template(_text_of(_PAGE)).substitute({name: escape(_relative(path, page)) for name, path in places.items()})


def _relative(path: str, page: str) -> str:
    found = posixpath.relpath(path, posixpath.dirname(page))
    return quote(found) + ("/" if path.endswith("/") else "")


def _text_of(file: _File) -> str:
    return (files("oompa") / "explorer" / file.name).read_text("utf-8")


# Who may see it.


def _answer(options: ServerOptions, mimetype: str, text: str) -> Response:
    try:
        _let_in(request, options)
    except BadHandshake as refusal:
        answer = Response(str(refusal), refusal.status, dict(refusal.headers), mimetype="text/plain")
    else:
        answer = Response(text, mimetype=mimetype)
    answer.headers.update(_HEADERS)
    answer.headers["Content-Security-Policy"] = _policy(request.environ.get("HTTP_HOST", ""))
    return answer


def _policy(host: str) -> str:
    """The policy for a page of this host. By itself ``'self'`` would do, but older browsers do not count a WebSocket."""
    sources = f"'self' ws://{host} wss://{host}" if _PLAIN_HOST.fullmatch(host) else "'self'"
    return _POLICY.format(sources=sources)


def _let_in(request: Request, options: ServerOptions) -> None:
    """Raise BadHandshake, or what ``authenticate`` raises, for who may not see the page."""
    environ = {"HTTP_HOST": "", **request.environ, "HTTP_ORIGIN": ""}  # whoever opens a page is a browser
    if options["authenticate"] is None:
        _check_peer(environ)
        environ[IS_LOOPBACK] = True
        check_host(environ, options["hosts"])
        return
    check_host(environ, options["hosts"])
    try:
        identify(options["authenticate"], request)
    except BadHandshake as refusal:
        if refusal.status == 401:  # a browser asks its user then
            raise BadHandshake(str(refusal), 401, (("WWW-Authenticate", 'Basic realm="explorer", charset="UTF-8"'),)) from None
        raise


def _check_peer(environ: Mapping[str, object]) -> None:
    """Refuse whoever is not at this machine, as far as a request tells."""
    sign = next((each for each in environ if each in _OF_PROXIES or each.startswith("HTTP_X_FORWARDED_")), None)
    if sign is not None:
        header = sign.removeprefix("HTTP_").replace("_", "-").title()
        raise BadHandshake(f"the explorer answers nobody behind a proxy (there is a header {header}); {_REMEDY}", 403)
    if environ.get("SERVER_PROTOCOL") == "HTTP/1.0":  # nginx before 1.29.7, which adds no header by itself
        raise BadHandshake(f"the explorer answers no HTTP/1.0, which only proxies still speak; {_REMEDY}", 403)
    peer = str(environ.get("REMOTE_ADDR") or "")
    if not _is_loopback(peer):
        raise BadHandshake(f"the explorer answers loopback alone, not {printable(peer) or 'a Unix socket'}; {_REMEDY}", 403)


def _is_loopback(text: str) -> bool:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback
