"""A gunicorn configuration: ``gunicorn -c python:oompa.gunicorn examples.calculator:server``.

The names gunicorn knows are its settings and hooks; the command line wins over all of them. Connections hold no threads of
gunicorn's and are drained without it (see ``server/takeover`` and ``server/workers``). What only a configuration can do: at
SIGTERM a worker still accepts until everything is drained, and answers ``/health`` and upgrades with 503, so that a load
balancer learns of it; workers that a reload replaces leave that to the new ones.

The number of threads comes from ``--threads`` or ``WEB_THREADS``, that of workers from ``--workers`` or ``WEB_CONCURRENCY``. A
configuration file of your own begins with ``from oompa.gunicorn import *``.

Threads: gunicorn runs the hooks on the main thread of a process, ``post_request`` on a thread of the pool.
"""

import os
import socket
from contextlib import suppress
from importlib.util import find_spec
from math import inf
from mmap import mmap
from selectors import EVENT_READ
from time import monotonic
from typing import Any

from gunicorn.util import load_class
from gunicorn.workers.gthread import ThreadWorker

from .server.heads import Heads, is_possible
from .server.last_resort import show
from .server.workers import follow

worker_class = "oompa.gunicorn.Worker"

#: For HTTP alone: a WebSocket holds none, unless gunicorn itself speaks TLS.
threads = int(os.environ.get("WEB_THREADS") or 16)

#: Seconds from SIGTERM to SIGKILL: ``drain_timeout``, ``close_timeout``, and what gunicorn itself needs to stop.
graceful_timeout = 35

#: Seconds the thread that accepts may hang before its worker is killed. A task may take as long as it likes.
timeout = 30

#: A kept-alive connection would hold up the end of a worker.
keepalive = 0

#: The socket would be a file in the home directory. gunicorn before 25.1 has no such setting, and ignores it here.
control_socket_disable = True

#: How often the master has reloaded, modulo 256, in memory that it shares with its workers.
_reloads = mmap(-1, 1)

#: Seconds a peer has to send its request; until it is there it holds no thread.
_HEAD_TIMEOUT = 10.0

#: Of these a worker that ends leaves so many.
_LAST_HEADS = 1.0


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker, which no peer that drips its request keeps from others."""

    def init_process(self) -> None:
        """Prepare to wait for requests."""
        is_http = not self.cfg.is_ssl and getattr(self.cfg, "protocol", "http") == "http"
        self._heads = Heads(_HEAD_TIMEOUT) if is_possible and is_http else None
        self._ends_at = inf
        super().init_process()

    def run(self) -> None:
        """Accept and serve until the worker ends."""
        if self._heads is None:
            super().run()
            return
        self.poller.register(self._heads, EVENT_READ, self._look_at)
        super().run()
        self._heads.close()

    def enqueue_req(self, conn: Any) -> None:
        """Give a connection to a thread, when its request is there."""
        if self._heads is None or conn.initialized:
            super().enqueue_req(conn)
        else:
            self._heads.wait(conn, conn.sock, monotonic())
            self._look_at(self._heads)

    def murder_keepalived(self, *args: Any, **kwargs: Any) -> None:
        """Called now and then: end the connections that have taken too long."""
        super().murder_keepalived(*args, **kwargs)
        if self._heads is None:
            return
        now = monotonic()
        if not self.alive:
            self._ends_at = min(self._ends_at, now + _LAST_HEADS)
        for conn in self._heads.overdue(inf if now >= self._ends_at else now):
            self._drop(conn)

    def _look_at(self, heads: Heads) -> None:
        for conn, is_there in heads.arrived():
            if is_there:
                conn.data_ready = True
                super().enqueue_req(conn)
            else:
                self._drop(conn)

    def _drop(self, conn: Any) -> None:
        self.nr_conns -= 1
        conn.close()


def on_starting(arbiter: Any) -> None:
    """Check the settings when all of them are known. Raises RuntimeError, which gunicorn shows and exits."""
    cfg = arbiter.cfg
    named = cfg.settings["worker_class"].get()
    kinds = {kind.__name__ for kind in load_class(named).__mro__}
    if not kinds & {"ThreadWorker", "GeventWorker"}:
        raise RuntimeError(f"oompa needs gunicorn's gthread or gevent worker, not {named!r}: leave out --worker-class")
    if cfg.is_ssl and cfg.threads < 2 and "ThreadWorker" in kinds:
        raise RuntimeError("oompa needs --threads 2 or more: over TLS a connection holds one, and /health another")


def on_reload(arbiter: Any) -> None:
    """Check the settings anew, and let the workers there are know that others take over."""
    on_starting(arbiter)
    _reloads[0] = (_reloads[0] + 1) % 256


def post_worker_init(worker: Any) -> None:
    """Have the worker drain before it ends, and tell of it at gunicorn's log level."""
    show("oompa.server", worker.log.error_log.level)
    reloads = _reloads[0]
    follow(worker, accepts=lambda: _reloads[0] == reloads)


def child_exit(arbiter: Any, worker: Any) -> None:
    """The gauges of a worker that has ended go with it, where prometheus_client keeps them in files."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ and find_spec("prometheus_client") is not None:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)


def post_request(worker: Any, req: Any, environ: Any, resp: Any) -> None:
    """End a connection that has its last answer.

    gunicorn 26 and newer do it on the thread that accepts, and wait there for up to two seconds for each peer that stays. They
    have a reason to where a body may be left unread: a reset would overtake the answer.
    """
    if resp is None or not resp.should_close() or not environ.get("SERVER_PROTOCOL", "").startswith("HTTP/1."):
        return
    if environ.get("CONTENT_LENGTH", "0") in ("", "0") and "HTTP_TRANSFER_ENCODING" not in environ:
        with suppress(OSError):  # the peer was faster
            environ["gunicorn.socket"].shutdown(socket.SHUT_RDWR)
