"""URLs of servers and proxies, taken apart. Their errors show no user, password or query."""

import re
from typing import Any, NamedTuple, Optional
from urllib.parse import unquote, urlsplit


class Address(NamedTuple):
    """A WebSocket URL, taken apart."""

    url: str
    host: str
    port: int
    is_secure: bool

    @property
    def shown(self) -> str:
        """What errors and logs tell of it: no path, query or password, which may hold secrets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'wss' if self.is_secure else 'ws'}://{host}:{self.port}"


def parse_url(url: str) -> Address:
    """Take a WebSocket URL apart. Raises ValueError for anything else."""
    if not isinstance(url, str):
        raise ValueError(f"the URL must be a string such as 'ws://localhost:9000', not {url!r}")
    shown = _without_secrets(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its text may show a part of a password
        parts, port = urlsplit(""), 0
    if parts.scheme not in ("ws", "wss") or not parts.hostname or port == 0:
        raise ValueError(f"{shown!r} is no WebSocket URL; it must look like 'ws://localhost:9000' or 'wss://example.com/path'")
    if parts.fragment:
        raise ValueError(f"{shown!r} is no WebSocket URL: it may not have a fragment")
    if any(character <= " " or character == "\x7f" for character in url):
        raise ValueError(f"{shown!r} is no WebSocket URL: it may not have spaces or control characters")
    is_secure = parts.scheme == "wss"
    url = f"{parts.scheme}{url[len(parts.scheme):]}"  # in lower case, as websocket-client wants it
    return Address(url, parts.hostname, port or (443 if is_secure else 80), is_secure)


def _without_secrets(url: str) -> str:
    """A URL as an error may show it: without user, password and query."""
    return re.sub("//[^/?#]*@", "//***@", url.partition("?")[0])


_PROXY_TYPES = ("http", "socks4", "socks4a", "socks5", "socks5h")


def proxy_options(proxy: Optional[str]) -> dict[str, Any]:
    """What websocket-client calls the parts of a proxy URL. Raises ValueError, or TypeError, for no proxy URL."""
    if proxy is None:
        return {}
    if not isinstance(proxy, str):
        raise TypeError(f"proxy must be a URL such as 'http://proxy.example:3128', not {proxy!r}")
    shown = _without_secrets(proxy)
    try:
        parts = urlsplit(proxy)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme not in _PROXY_TYPES or not parts.hostname or not port:
        raise ValueError(f"{shown!r} is no proxy URL; it must look like 'http://user:password@proxy.example:3128'")
    options: dict[str, Any] = {
        "http_proxy_host": parts.hostname,
        "http_proxy_port": port,
        "proxy_type": parts.scheme,
        "http_no_proxy": ["\0"],  # the proxy was asked for: no exceptions from the environment
    }
    if parts.username:
        options["http_proxy_auth"] = (unquote(parts.username), unquote(parts.password or ""))
    return options
