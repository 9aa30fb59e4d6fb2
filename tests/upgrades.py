"""Servers that answer upgrade requests with bytes they are told."""

import contextlib
import socket
import threading
import time

from conftest import CEILING

#: A client that tries again soon.
SOON = {"reconnect_interval": 0.02}


class Answers:
    """A server that answers each upgrade with the next of so many answers, the last one again and again; keeps the requests."""

    def __init__(self, *answers):
        self._answers = list(answers)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.requests = []
        self.came = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.port}"

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._socket.accept()
                self.came.append(time.monotonic())
                with peer, contextlib.suppress(OSError):
                    peer.settimeout(CEILING)
                    head = b""
                    while not head.endswith(b"\r\n\r\n") and (data := peer.recv(4096)):
                        head += data
                    self.requests.append(head.decode())
                    peer.sendall(self._answers.pop(0) if len(self._answers) > 1 else self._answers[0])

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(CEILING)


def answer(status, *lines, body=""):
    """The bytes of an HTTP answer."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines]
    return "\r\n".join([*head, "", body]).encode()
