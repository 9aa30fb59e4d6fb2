"""Listening sockets: of TCP, and of a path in the file system, whose file comes and goes with the server."""

import errno
import os
import socket
import stat
from typing import Optional

#: Connections the kernel may keep waiting to be accepted.
_BACKLOG = 1024

#: Seconds a server may take to show that it lives, when its file is in the way.
_PROBE_TIMEOUT = 1.0


def listen_on_port(host: str, port: int) -> socket.socket:
    """A socket that listens; ``"::"`` takes IPv4 as well where the system can.

    Raises OSError when the port is taken, or the host is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    is_dual = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=is_dual)


class SocketFile:
    """A Unix socket that listens, and its file, which ``remove`` takes away.

    A file that a server has left behind, by being killed, is replaced; one of a server that lives, and one that is no socket,
    is left alone.

    Raises:
        OSError: The file is in use or no socket, or cannot be made.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._process = os.getpid()
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._bind()
            self.listening.listen(_BACKLOG)
            self._identity = _identity_of(self.path)
        except BaseException:
            self.listening.close()
            raise

    def remove(self) -> None:
        """Take the file away, unless it is another's by now, or this is a fork. Any number of times."""
        if self._process == os.getpid() and _identity_of(self.path) == self._identity:
            try:
                os.unlink(self.path)
            except FileNotFoundError:
                pass

    def _bind(self) -> None:
        try:
            self.listening.bind(self.path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise OSError(error.errno, f"cannot listen on {self.path}: {error.strerror or error}") from error
            self._take_over()
            self.listening.bind(self.path)

    def _take_over(self) -> None:
        """Remove the file in the way, if nobody listens there."""
        if not stat.S_ISSOCK(os.lstat(self.path).st_mode):
            raise FileExistsError(errno.EEXIST, f"cannot listen on {self.path}: there is a file that is no socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(_PROBE_TIMEOUT)
            try:
                probe.connect(self.path)
            except ConnectionRefusedError:
                os.unlink(self.path)
                return
            except OSError:  # not to be told: it may live
                pass
        raise OSError(errno.EADDRINUSE, f"cannot listen on {self.path}: a server listens there already")


def _identity_of(path: str) -> Optional[tuple[int, int]]:
    """What tells a file from another of the same path; None for none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
