"""A WebSocket's socket taken off the web server that brought it, so that it holds none of the server's threads.

The only place that knows which web server is which:

- gunicorn's threads (``gthread``): the pool has few, and HTTP needs them. The descriptor is duplicated, a dead one takes its
  place and number, and gunicorn closes that one when the view has returned, as it closes any other.
- gunicorn's threads over gunicorn's own TLS: the TLS object is bound to its descriptor, so the thread of the pool stays.
- Our own server has a thread for each connection anyway; gevent a greenlet, and its loop watches descriptors by their number.
- Of other servers nothing is known: the thread stays.
"""

import os
import socket
from typing import Any, Mapping

from .embedded import EARLY, IS_LOOPBACK

#: Where gunicorn keeps the socket of a request.
SOCKET = "gunicorn.socket"


def is_hosted(environ: Mapping[str, Any]) -> bool:
    """Whether a web server that is not ours brought the request: it ends as it likes, and does not close the server."""
    return IS_LOOPBACK not in environ


def can_be_taken(environ: Mapping[str, Any]) -> bool:
    """Whether the socket of a request can be taken off its web server."""
    is_patched = socket.socket.__module__ != "socket"  # by gevent
    return type(environ.get(SOCKET)) is socket.socket and not is_patched


def early_bytes(environ: Mapping[str, Any]) -> bytes:
    """What the web server has read beyond the request: frames of a peer that did not wait for the answer. Without them the
    stream would be read from the middle of a frame."""
    if EARLY in environ:
        return bytes(environ[EARLY]())
    reader = getattr(environ["wsgi.input"], "reader", None)  # gunicorn's
    buffered = getattr(getattr(reader, "unreader", None), "buf", None)
    return b"" if buffered is None else bytes(buffered.getvalue())


class Taken:
    """A socket that is about to leave its web server.

    Attributes:
        sock: The duplicate, which is ours to close.

    Raises:
        OSError: There is no descriptor left.
    """

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._left: socket.socket = environ[SOCKET]
        dead, other = socket.socketpair()
        other.close()
        try:
            self.sock = self._left.dup()
        except BaseException:
            dead.close()
            raise
        self._dead = dead

    def leave(self) -> None:
        """Leave the dead one in its place, where writing fails and reading ends. On the web server's thread."""
        with self._dead:
            os.dup2(self._dead.fileno(), self._left.fileno(), inheritable=False)

    def stay(self) -> None:
        """Leave everything as it was."""
        self._dead.close()
        self.sock.close()
