"""The worker of gunicorn that this process may be: how many connections may hold its threads, and how it comes to its end.

At the end what runs may finish, and then every WebSocket is closed, without any configuration. Servers are known by
registering themselves when they are made. How each end is met:

- A worker of gunicorn ends when its ``alive`` turns false, whoever does that: the handler of SIGTERM, ``--reload``,
  ``--max-requests``. ``follow`` has ``alive`` stay true until the servers are closed, so the worker goes on with what it does
  while it lives: it tells the master so, runs other requests, and starts the threads that tasks need.
- SIGINT and SIGQUIT end the process at once, by SystemExit. So may anything else, under any web server: at the exit of the
  interpreter, before it waits for threads, what is left of the connections that came through a foreign web server is closed.
  Nothing is waited for where gunicorn was told to quit.

Threads: ``alive`` is set on the main thread, in a signal handler, or on any other. A thread that waits for it does the work:
a signal handler may not start one, for the main thread may hold the lock that starting takes. ``_lock`` guards which worker is
followed.
"""

import os
import queue
import signal
import threading
import weakref
from concurrent.futures import Future
from typing import Any, Callable, Optional, Protocol

from ..logs import get_logger

_logger = get_logger("oompa.server")

#: Seconds of ``graceful_timeout`` that gunicorn needs when everything is closed.
STOPPING = 3.0

#: Signals that gunicorn's workers handle with methods of theirs.
_HANDLED = (signal.SIGTERM, signal.SIGQUIT, signal.SIGABRT, signal.SIGUSR1, signal.SIGWINCH)


class Ending(Protocol):
    """What the end of a process needs of a server."""

    max_connections: Optional[int]

    @property
    def drain_timeout(self) -> float:
        """Seconds running tasks have to finish."""

    @property
    def close_timeout(self) -> float:
        """Seconds the closing handshake may take."""

    def close(self, timeout: Optional[float] = None) -> "Future[None]":
        """Drain and close."""

    def see_out(self, limit: float) -> None:
        """See every connection end, on the calling thread."""


_servers: "weakref.WeakSet[Ending]" = weakref.WeakSet()
_hosted: "weakref.WeakSet[Ending]" = weakref.WeakSet()
_lock = threading.Lock()
_followed: Optional["_Worker"] = None


def enlist(server: Ending) -> None:
    """A server has been made."""
    _servers.add(server)


def hosts(server: Ending) -> None:
    """A web server that is not ours brings a connection to a server of this process."""
    if server not in _hosted:
        worker = _gunicorn_worker()
        try:
            if worker is not None:
                follow(worker)
        except (RuntimeError, MemoryError) as error:
            _logger.warning("no thread that would drain this worker of gunicorn as it ends: %s", error)
            return  # the next connection tries again
        _hosted.add(server)


def follow(worker: Any, accepts: Callable[[], bool] = lambda: False) -> None:
    """Have a worker of gunicorn live until the servers of its process are closed. Any number of times.

    Args:
        accepts: Whether the worker goes on accepting while it drains; asked when it was told to end by a signal.
    """
    global _followed
    with _lock:
        if _followed is None:
            followed = _Worker(worker, accepts)
            followed.start()
            _followed = followed


def _gunicorn_worker() -> Any:
    """The worker of gunicorn that this process is; None where it is none. gunicorn does not tell an application."""
    for number in _HANDLED:
        worker = getattr(signal.getsignal(number), "__self__", None)
        if hasattr(worker, "alive") and hasattr(worker, "cfg") and hasattr(worker, "handle_quit"):
            return worker
    return None


class _Worker:
    """A worker of gunicorn and its end.

    Attributes:
        is_over: Whether everything is closed.
    """

    def __init__(self, worker: Any, accepts: Callable[[], bool]) -> None:
        self.is_asked = self.is_over = False
        self._worker = worker
        self._accepts = accepts
        self._asked: queue.SimpleQueue[bool] = queue.SimpleQueue()  # of the module: gevent may have patched it meanwhile
        self._thread = threading.Thread(target=self._wait, name="oompa-ending", daemon=True)

    def start(self) -> None:
        """Begin to follow it."""
        if self._worker.cfg.is_ssl and hasattr(self._worker, "tpool"):
            bound(list(_servers), self._worker.cfg.threads)
        self._thread.start()
        kind = type(self._worker)
        self._worker.__class__ = type(kind.__name__, (_Followed, kind), {"__module__": kind.__module__, "_ending": self})
        if not self._worker.__dict__["alive"]:
            self.ask()

    def ask(self) -> None:
        """The worker is to end. Any thread, or a signal handler, any number of times."""
        if not self.is_asked:
            self.is_asked = True
            is_signal = threading.current_thread() is threading.main_thread()
            if is_signal and not self._accepts():
                self._stop_accepting()  # the new workers accept, or nobody is to
            self._worker.max_requests = float("inf")  # asked for once
            self._asked.put(True)

    def _stop_accepting(self) -> None:
        """Of threaded workers; one of gevent goes on."""
        if hasattr(self._worker, "set_accept_enabled"):
            self._worker.worker_connections = 0
        elif hasattr(self._worker, "tpool"):  # gunicorn 23
            for listener in self._worker.sockets:
                self._worker.poller.unregister(listener)

    def _wait(self) -> None:
        self._asked.get()
        try:
            closing = [server.close(self._limit(server)) for server in list(_servers)]
            for closed in closing:
                closed.result()
        except Exception:
            _logger.exception("draining failed")
        finally:
            self.is_over = True
            wake = getattr(getattr(self._worker, "method_queue", None), "defer", None)
            if wake is not None:
                wake(_nothing)

    def _limit(self, server: Ending) -> float:
        return limit_of(server, float(self._worker.cfg.graceful_timeout))


def bound(servers: list[Ending], threads: int) -> None:
    """Over TLS a connection holds a thread of the pool (see ``takeover``): share them out among the servers without a limit of
    their own, less some for HTTP."""
    unbounded = [server for server in servers if server.max_connections is None]
    for_http = min(max(2, threads // 8), threads - 1)
    left = threads - for_http - sum(server.max_connections or 0 for server in servers)
    for server in unbounded:
        server.max_connections = max(1, left // len(unbounded))
    if left < len(unbounded):
        _logger.warning("max_connections leaves too few of %d threads for HTTP: over TLS a connection holds one", threads)


def limit_of(server: Ending, graceful_timeout: float) -> float:
    """Seconds the tasks of a server may have: its ``drain_timeout``, or less where gunicorn would kill the worker first."""
    return max(0.0, min(server.drain_timeout, graceful_timeout - server.close_timeout - STOPPING))


def _nothing() -> None:
    """Wake the thread that accepts."""


class _Followed:
    """What a worker becomes: one that ends when everything is closed."""

    _ending: _Worker

    @property
    def alive(self) -> bool:
        """Whether to go on."""
        return not self._ending.is_over

    @alive.setter
    def alive(self, alive: bool) -> None:
        self.__dict__["alive"] = alive
        if not alive:
            self._ending.ask()


def _exit() -> None:
    """The interpreter exits. There may be no new threads any more, so this is done here."""
    quits = _followed is not None and _followed.is_asked
    for server in list(_hosted):
        try:
            server.see_out(0.0 if quits else server.drain_timeout)
        except Exception:
            _logger.exception("draining failed")


def _forked() -> None:
    """In a child: the connections are the parent's."""
    global _lock, _followed
    _lock = threading.Lock()
    _followed = None
    _hosted.clear()


os.register_at_fork(after_in_child=_forked)

#: As concurrent.futures does, which joins its threads at that time; they may be those that hold our connections.
_register: Callable[[Callable[[], None]], None] = getattr(threading, "_register_atexit")
_register(_exit)
