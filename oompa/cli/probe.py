"""A ping that imports next to nothing: one socket, one request, one reply.

It knows the usual case alone, a ``ws://`` URL and a server that answers in one small frame. Whatever else comes, it says
nothing and leaves the ping to a real client, which knows everything and has the words for what is wrong.
"""

import os
import socket
import sys
from time import monotonic
from typing import Optional, Sequence

#: Any value does as a key, and so does any mask: nothing of a probe is to be kept from a proxy.
_KEY = "b29tcGEncyBwcm9iZTAwMQ=="

_HEAD = "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {}\r\n" \
    "Sec-WebSocket-Version: 13\r\n\r\n"
_PING = b'{"type":"$OOMPA/PING","id":"1"}'
_HEALTHY = b'{"type":"OK","id":"1","payload":'

#: The frame that a client sends to close, with code 1000 and the mask 0.
_CLOSE = b"\x88\x82\0\0\0\0\x03\xe8"

_SECONDS = 10.0
_LONGEST_HEAD = 8192


class _Unusual(Exception):
    """Something for a real client."""


def probe(arguments: Sequence[str]) -> Optional[int]:
    """Ping with the arguments of ``oompa ping``: 0 where the server is healthy, having printed what its healthcheck returned;
    None for whatever is not as usual."""
    try:
        health = _ping(*_read(arguments))
    except (_Unusual, OSError, ValueError):
        return None
    sys.stdout.buffer.write(health + b"\n")
    return 0


def _read(arguments: Sequence[str]) -> "tuple[str, int, str, float]":
    """Host, port, path and seconds."""
    url, timeout = os.environ.get("OOMPA_URL", ""), _SECONDS
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--timeout" and rest:
            timeout = float(rest.pop(0))
        elif word.startswith("-"):
            raise _Unusual(word)
        else:
            url = word
    scheme, _, rest_of_url = url.partition("://")
    place, slash, path = rest_of_url.partition("/")
    host, colon, port = place.partition(":")
    known = scheme == "ws" and colon and port.isdecimal() and host and 0 < timeout < 1e6
    if not known or not url.isascii() or not url.isprintable() or not set(url).isdisjoint(" @#?[]\"'"):
        raise _Unusual(url)
    return host, int(port), f"/{path}", timeout


def _ping(host: str, port: int, path: str, timeout: float) -> bytes:
    deadline = monotonic() + timeout
    with socket.create_connection((host, port), timeout) as sock:
        sock.sendall(_HEAD.format(path, f"{host}:{port}", _KEY).encode())
        received = b""
        while b"\r\n\r\n" not in received:
            received += _some(sock, deadline)
        head, _, received = received.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101 "):
            raise _Unusual("refused")
        sock.sendall(bytes((0x81, 0x80 | len(_PING), 0, 0, 0, 0)) + _PING)
        text = _reply(sock, received, deadline)
        sock.sendall(_CLOSE)
    if not text.startswith(_HEALTHY) or not text.endswith(b"}"):
        raise _Unusual("unhealthy, or in other words")
    return text[len(_HEALTHY) : -1]


def _reply(sock: socket.socket, received: bytes, deadline: float) -> bytes:
    """The text of one small frame (:rfc:`6455#section-5.2`)."""
    while len(received) < 2:
        received += _some(sock, deadline)
    if received[0] != 0x81 or received[1] > 125:
        raise _Unusual("a ping, a fragment, a long reply")
    while len(received) < 2 + received[1]:
        received += _some(sock, deadline)
    return received[2 : 2 + received[1]]


def _some(sock: socket.socket, deadline: float) -> bytes:
    sock.settimeout(max(0.001, deadline - monotonic()))
    received = sock.recv(_LONGEST_HEAD)
    if not received:
        raise _Unusual("it hung up")
    return received
