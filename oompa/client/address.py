"""URLs of servers and proxies, taken apart. Their errors show no user, password or query."""

import base64
import os
import re
import socket
from typing import Any, Callable, NamedTuple, Optional, Sequence, Union
from urllib.parse import quote, unquote, urlsplit

#: What a client may be given as ``url``: one, several of which any will do, or what is asked for them at each connect.
Urls = Union[str, Sequence[str]]
Url = Union[Urls, Callable[[], Urls]]

_UNIX_SCHEME = "ws+unix:"
_SCHEME = re.compile("[A-Za-z][A-Za-z0-9+.-]*://")

#: Bytes the path of a Unix socket may have, on Linux; 104 elsewhere, where connecting then fails.
_LONGEST_PATH = 107


class Address(NamedTuple):
    """A WebSocket URL, taken apart.

    Attributes:
        url: Without user and password.
        host: In ASCII, so that resolving it needs no codec that would be imported when it is first used.
        authorization: The value of the header that ``user:password@`` stands for.
        path: Of a Unix socket, which then counts instead of host and port.
        dial: Gives a socket that is connected already, anew for each connection, which then counts instead of all of these.
    """

    url: str
    host: str
    port: int
    is_secure: bool
    authorization: Optional[str] = None
    path: Optional[str] = None
    dial: Optional[Callable[[], socket.socket]] = None

    @property
    def shown(self) -> str:
        """What errors and logs tell of it: no path, query or password, which may hold secrets."""
        if self.dial is not None:
            return "a server of this process"
        if self.path is not None:
            return f"{_UNIX_SCHEME}{self.path}"
        return f"{'wss' if self.is_secure else 'ws'}://{self._bracketed}:{self.port}"

    @property
    def host_header(self) -> str:
        """The value of ``Host`` (:rfc:`9110#section-7.2`): without the port where it is the scheme's own."""
        is_usual = self.port == (443 if self.is_secure else 80)
        return self._bracketed if is_usual else f"{self._bracketed}:{self.port}"

    @property
    def resource(self) -> str:
        """Path and query."""
        parts = urlsplit(self.url)
        return f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


def parse_urls(urls: Any) -> list[Address]:
    """Take a URL apart, or each of a list. Raises ValueError for anything else."""
    if isinstance(urls, (list, tuple)):
        if not urls:
            raise ValueError("the list of URLs is empty; it needs one at least")
        return [parse_url(url) for url in urls]
    return [parse_url(urls)]


def parse_url(url: Union[str, Address]) -> Address:
    """Take a WebSocket URL apart, unless it is already. Raises ValueError for anything else."""
    if isinstance(url, Address):
        return url
    if not isinstance(url, str):
        raise ValueError(
            "the URL must be a string such as 'ws://localhost:9000', not of type "
            f"{type(url).__name__}; a list of them and a callable that returns either do as well"
        )
    shown = without_secrets(url)
    if any(character <= " " or character == "\x7f" for character in url):
        raise ValueError(f"{shown!r} is no WebSocket URL: it may not have spaces or control characters")
    if url[: len(_UNIX_SCHEME)].lower() == _UNIX_SCHEME:
        return _parse_unix(url, shown)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its text may show a part of a password
        parts, port = urlsplit(""), 0
    if parts.scheme not in ("ws", "wss") or not parts.hostname or port == 0:
        raise ValueError(f"{shown!r} is no WebSocket URL; it must look like 'ws://localhost:9000' or 'wss://example.com/path'")
    if parts.fragment:
        raise ValueError(f"{shown!r} is no WebSocket URL: it may not have a fragment")
    is_secure = parts.scheme == "wss"
    host = _ascii_host(parts.hostname, shown)
    user, at, place = parts.netloc.rpartition("@")
    if not place.isascii():
        place = f"{host}:{port}" if port else host
    url = f"{parts.scheme}://{place}{_ascii_resource(parts.path, parts.query, shown)}"
    return Address(url, host, port or (443 if is_secure else 80), is_secure, _authorization(user, shown))


def _parse_unix(url: str, shown: str) -> Address:
    """``ws+unix:/path/of.sock:/path``; the first part percent-decoded, for a path that has a colon."""
    path, _, resource = url[len(_UNIX_SCHEME) :].partition(":")
    path = unquote(path[2:] if path.startswith("///") else path)
    if not path.startswith("/") or path.startswith("//") or not path.isprintable() or "#" in url:
        raise ValueError(f"{shown!r} is no URL of a Unix socket; it must look like 'ws+unix:/path/of.sock:/path'")
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ValueError(f"{shown!r} is no URL of a Unix socket: its path may have {_LONGEST_PATH} bytes at most")
    if resource and not resource.startswith("/"):
        raise ValueError(f"{shown!r} is no URL of a Unix socket: what follows the second colon must begin with '/'")
    resource, _, query = resource.partition("?")
    return Address(f"ws://localhost{_ascii_resource(resource, query, shown)}", "localhost", 80, False, None, path)


def _ascii_host(host: str, shown: str) -> str:
    """A name as the resolver and the certificate have it (:rfc:`5890`)."""
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        raise ValueError(f"{shown!r} is no WebSocket URL: {host!r} cannot be the name of a host") from None


def _ascii_resource(path: str, query: str, shown: str) -> str:
    """Path and query with what is not ASCII percent-encoded, as browsers send it."""
    text = f"{path}{'?' if query else ''}{query}"
    try:
        return text if text.isascii() else quote(text, safe="%/:?[]@!$&'()*+,;=-._~")
    except UnicodeEncodeError:
        raise ValueError(f"{shown!r} is no WebSocket URL: it has a lone surrogate") from None


def _authorization(user: str, shown: str) -> Optional[str]:
    """What ``user:password`` says as a header (:rfc:`7617`)."""
    if not user:
        return None
    name, _, password = user.partition(":")
    if "%3a" in name.lower():
        raise ValueError(f"{shown!r} cannot be used: a user name for Basic authorization may not have a colon")
    try:
        credentials = f"{unquote(name)}:{unquote(password)}".encode()
    except UnicodeEncodeError:
        raise ValueError(f"{shown!r} cannot be used: user and password must be text") from None
    return f"Basic {base64.b64encode(credentials).decode()}"


def without_secrets(url: str) -> str:
    """A URL as an error may show it: without user, password and query, also where a password has what should be escaped."""
    scheme = _SCHEME.match(url)
    head, rest = ("", url) if scheme is None else (scheme[0], url[scheme.end() :])
    user, at, place = rest.rpartition("@")
    if at and not set(user).isdisjoint("/?#"):  # of a password, or of a path or query with an @: nobody can tell
        return f"{head}***"
    return f"{head}{'***@' if at else ''}{place.partition('?')[0]}"


_PROXY_TYPES = ("http", "socks4", "socks4a", "socks5", "socks5h")


def proxy_options(proxy: Optional[str]) -> dict[str, Any]:
    """What websocket-client calls the parts of a proxy URL. Raises ValueError, or TypeError, for no proxy URL."""
    if proxy is None:
        return {}
    if not isinstance(proxy, str):
        raise TypeError(f"proxy must be a URL such as 'http://proxy.example:3128', not of type {type(proxy).__name__}")
    shown = without_secrets(proxy)
    try:
        parts = urlsplit(proxy)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme not in _PROXY_TYPES or not parts.hostname or not port:
        raise ValueError(f"{shown!r} is no proxy URL; it must look like 'http://user:password@proxy.example:3128'")
    options: dict[str, Any] = {
        "http_proxy_host": _ascii_host(parts.hostname, shown),
        "http_proxy_port": port,
        "proxy_type": parts.scheme,
        "http_no_proxy": ["\0"],  # the proxy was asked for: no exceptions from the environment
    }
    if parts.username:
        options["http_proxy_auth"] = (unquote(parts.username), unquote(parts.password or ""))
    return options
