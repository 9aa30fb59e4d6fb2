"""How ``run`` waits until it is told to stop.

The kernel may give a signal to any thread of a process, and Python runs its handler when the main thread next runs: one that
waits for a lock or a queue then sleeps on. So the main thread waits for a byte on a socket, which Python writes for each
signal, on whatever thread it comes (``signal.set_wakeup_fd``).
"""

import signal
import socket
import threading
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Waits for SIGTERM, SIGINT or ``request``. As a context manager: within it the signals ask to stop; afterwards they do
    their usual work again. On another thread than the main one, which alone may handle signals, ``request`` is the only way.
    """

    def __init__(self) -> None:
        self._is_requested = False
        self._woken, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._is_main = threading.current_thread() is threading.main_thread()
        self._handlers: dict[int, Any] = {}
        self._wakeup_fd = -1

    def __enter__(self) -> "Stop":
        if self._is_main:
            self._wakeup_fd = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
            self._handlers = {number: signal.signal(number, lambda *_: self.request()) for number in _SIGNALS}
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._is_main:
            signal.set_wakeup_fd(self._wakeup_fd)
        self._woken.close()
        self._waker.close()

    def request(self) -> None:
        """Let ``wait`` return. Any thread, or a signal handler, any number of times; once it is over, without effect."""
        self._is_requested = True
        try:
            self._waker.send(b"\0")
        except OSError:  # full of bytes that are not read yet, or closed
            pass

    def wait(self) -> None:
        """Return once it is asked to stop. Other signals run their handlers and wait goes on."""
        while not self._is_requested:
            self._woken.recv(1024)
