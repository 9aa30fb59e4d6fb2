"""The server's door: whether a request may become a WebSocket, and the answer that makes it one.

simple-websocket finds the socket in a WSGI environ and is used for that alone (see ``oompa.wire.channel``). The only file
that imports it.
"""

import base64
import binascii
import hashlib
import socket
from typing import Any, Collection, Mapping, NamedTuple, Optional

import simple_websocket

#: Where a WSGI environ has what the handshake's answer is made of.
KEY = "HTTP_SEC_WEBSOCKET_KEY"


class BadHandshake(Exception):
    """An upgrade request that is none. ``status`` and ``headers`` are for the answer."""

    def __init__(self, problem: str, status: int = 400, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(problem)
        self.status = status
        self.headers = headers


def wants_websocket(environ: Mapping[str, Any]) -> bool:
    """Whether a request means to open a WebSocket, well or badly."""
    return (
        "websocket" in _tokens(environ, "HTTP_UPGRADE")
        or KEY in environ
        or "HTTP_SEC_WEBSOCKET_VERSION" in environ
    )


def check_handshake(environ: Mapping[str, Any]) -> None:
    """Check an upgrade request against :rfc:`6455#section-4.2.1`.

    simple-websocket lets a short key through and turns other faults into a 500.

    Raises:
        BadHandshake: Naming the fault.
    """
    if environ["REQUEST_METHOD"] != "GET":  # Flask takes HEAD wherever it takes GET
        raise BadHandshake("a WebSocket is opened with GET", 405, (("Allow", "GET"),))
    if environ.get("SERVER_PROTOCOL") in ("HTTP/0.9", "HTTP/1.0", "HTTP/2.0"):
        raise BadHandshake("a WebSocket needs HTTP/1.1")
    if environ.get("CONTENT_LENGTH", "0").strip() not in ("", "0") or "HTTP_TRANSFER_ENCODING" in environ:
        raise BadHandshake("the request that opens a WebSocket has no body")
    if not environ.get("HTTP_HOST"):
        raise BadHandshake("the Host header is missing")
    if "websocket" not in _tokens(environ, "HTTP_UPGRADE"):
        raise BadHandshake("the Upgrade header must be websocket", 426, (("Upgrade", "websocket"),))
    if "upgrade" not in _tokens(environ, "HTTP_CONNECTION"):
        raise BadHandshake("the Connection header must contain Upgrade")
    version = environ.get("HTTP_SEC_WEBSOCKET_VERSION")
    if version != "13":
        raise BadHandshake(
            "the Sec-WebSocket-Version header must be 13", 426 if version else 400, (("Sec-WebSocket-Version", "13"),)
        )
    try:
        key = base64.b64decode(environ.get(KEY, ""), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 16:
        raise BadHandshake("the Sec-WebSocket-Key header must be 16 bytes in base64")


def chosen_subprotocol(environ: Mapping[str, Any], known: Collection[str]) -> Optional[str]:
    """The first that the client offers and the server knows, None for none. A browser that offers some fails without one."""
    offered = (each.strip() for each in environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "").split(","))
    return next((each for each in offered if each in known), None)


def _tokens(environ: Mapping[str, Any], name: str) -> list[str]:
    return [token.strip().lower() for token in environ.get(name, "").split(",")]


def _accept_key(key: str) -> str:
    """What proves to the client that its request was understood (:rfc:`6455#section-4.2.2`)."""
    return base64.b64encode(hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()


class _NoThread:
    """Stands for the thread in which simple-websocket would read."""

    name = ""

    def __init__(self, target: Any) -> None:
        pass

    def start(self) -> None:
        """Do nothing."""


class _Door(simple_websocket.Server):  # type: ignore[misc]
    """simple-websocket's way to the socket, with an answer of our own: its would accept deflate, and takes h11 to parse
    again what the web server has parsed."""

    def __init__(self, environ: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        self._headers = headers
        super().__init__(environ, thread_class=_NoThread)

    def handshake(self) -> None:
        """Answer the request."""
        lines = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Accept": _accept_key(self.environ[KEY]),
            **self._headers,
        }
        answer = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.sock.sendall(f"HTTP/1.1 101 Switching Protocols\r\n{answer}\r\n".encode())
        self.connected = True


class Accepted(NamedTuple):
    """A socket past the server's handshake, and what came early (see ``takeover``)."""

    sock: socket.socket
    received: bytes = b""


def accept(environ: Mapping[str, Any], headers: Mapping[str, str]) -> Accepted:
    """Answer an upgrade request that ``check_handshake`` let pass, with ``headers`` beside those of the handshake.

    Raises:
        RuntimeError: The web server gives no access to its socket.
        OSError: The peer is gone.
    """
    return Accepted(_Door(environ, headers).sock)
