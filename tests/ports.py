"""Ports of this machine for servers of other processes, and for nobody at all."""

import contextlib
import socket
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A port that nobody listens on, for a server that binds it by its number.

    Tests run beside each other, and whoever asks for any port might be given one that was merely free a moment ago. A
    socket that is bound but does not listen prevents that; Linux lets a server bind the same port if both have SO_REUSEADDR.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        port: int = holder.getsockname()[1]
        if sys.platform != "linux":
            holder.close()
        yield port
