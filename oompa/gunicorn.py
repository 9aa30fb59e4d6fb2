"""A gunicorn configuration: ``gunicorn -c python:oompa.gunicorn examples.calculator:server``.

The names gunicorn knows are its settings and hooks; the command line wins over all of them. What it is for: a WebSocket
holds a thread of the pool for as long as it lives, and bare gunicorn tells an application nothing when it stops. So the
connections are kept below the number of threads, which leaves some for ``/health``, and SIGTERM drains: ``/health`` answers
503, upgrades are refused, running tasks finish, every WebSocket is closed with 1000, and then gunicorn stops.

The number of threads comes from ``--threads`` or ``WEB_THREADS``, that of workers from ``--workers`` or ``WEB_CONCURRENCY``. A
configuration file of your own begins with ``from oompa.gunicorn import *``.

Threads: gunicorn runs the hooks on the main thread of a process, ``post_request`` on a thread of the pool. Each worker has one
thread more, which waits for the signal to stop: a signal handler may not start threads itself, for the main thread may hold
the lock that starting one takes.
"""

import os
import signal
import socket
from importlib.util import find_spec
from mmap import mmap
from queue import SimpleQueue
from threading import Thread
from typing import Any

from gunicorn.util import load_class
from gunicorn.workers.gthread import ThreadWorker

from .server.last_resort import follow
from .server.server import Server

worker_class = "gthread"
threads = int(os.environ.get("WEB_THREADS") or 64)

#: Seconds from SIGTERM to SIGKILL: ``drain_timeout``, ``close_timeout``, and what gunicorn itself needs to stop.
graceful_timeout = 35

#: Seconds the thread that accepts may hang before its worker is killed. A task may take as long as it likes.
timeout = 30

#: A kept-alive connection would count as one, and hold up the end of a worker.
keepalive = 0

#: A worker that ends of itself is not told by a signal, and so does not drain.
max_requests = 0

#: The socket would be a file in the home directory. gunicorn before 25.1 has no such setting, and ignores it here.
control_socket_disable = True

#: Seconds of ``graceful_timeout`` that gunicorn needs when everything is closed.
_STOPPING = 3.0

#: How often the master has reloaded, modulo 256, in memory that it shares with its workers.
_reloads = mmap(-1, 1)


def on_starting(arbiter: Any) -> None:
    """Check and complete the settings when all of them are known. Raises RuntimeError, which gunicorn shows and exits."""
    cfg = arbiter.cfg
    named = cfg.settings["worker_class"].get()
    if not issubclass(load_class(named), ThreadWorker):
        raise RuntimeError(f"oompa needs gunicorn's gthread worker, not {named!r}: leave out --worker-class")
    if cfg.threads < 2:
        raise RuntimeError("oompa needs --threads 2 or more: a connection holds one, and /health another")
    if cfg.max_requests:
        arbiter.log.warning("--max-requests ends a worker without a signal: its connections are cut, not drained")
    if cfg.worker_connections == cfg.settings["worker_connections"].default:
        cfg.set("worker_connections", cfg.threads)  # a worker that is full leaves new connections to the others


def on_reload(arbiter: Any) -> None:
    """Check and complete the settings anew, and let the workers there are know that others take over."""
    on_starting(arbiter)
    _reloads[0] = (_reloads[0] + 1) % 256


def post_worker_init(worker: Any) -> None:
    """Bound the connections by the threads there are, drain when told to stop, and tell of it at gunicorn's log level."""
    servers = _servers_of(worker.wsgi)
    if not servers:
        worker.log.warning("no oompa server found in %r: nothing will be drained", worker.wsgi)
        return
    follow("oompa.server", worker.log.error_log.level)
    _bound_connections(servers, worker)
    _drain_on_signals(servers, worker)


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
        try:
            environ["gunicorn.socket"].shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the peer was faster


def _servers_of(application: Any) -> list[Server]:
    """The servers of a WSGI application: a Server, a Flask application, or either inside middleware that has ``app``."""
    while application is not None and not hasattr(application, "extensions"):
        application = getattr(application, "app", None)
    return [] if application is None else list(application.extensions.get("oompa", ()))


def _bound_connections(servers: list[Server], worker: Any) -> None:
    """Share out the threads, less some for HTTP, among the servers that have no ``max_connections``."""
    count = worker.cfg.threads
    for_http = min(max(2, count // 8), count - 1)
    unbounded = [server for server in servers if server.max_connections is None]
    left = count - for_http - sum(server.max_connections or 0 for server in servers)
    for server in unbounded:
        server.max_connections = max(1, left // len(unbounded))
    if left < len(unbounded):
        worker.log.warning("max_connections leaves too few of %d threads for /health", count)


def _drain_on_signals(servers: list[Server], worker: Any) -> None:
    """Close the servers on SIGTERM before gunicorn stops; without waiting for tasks on SIGINT and SIGQUIT, as it stops."""
    stop: Any = signal.getsignal(signal.SIGTERM)
    limits: SimpleQueue[float] = SimpleQueue()
    reloads = _reloads[0]

    def drain() -> None:
        limit = limits.get()
        if _reloads[0] != reloads:
            stop(signal.SIGTERM, None)  # accept no more: the new workers do, and they are well
        try:
            closing = [server.close(min(limit, _drain_limit(server, worker))) for server in servers]
            for closed in closing:
                closed.result()
        except Exception:
            worker.log.exception("draining failed")
        finally:
            stop(signal.SIGTERM, None)

    def quit_at_once(number: int) -> None:
        stop_now: Any = signal.getsignal(number)

        def handle(signum: int, frame: Any) -> None:
            limits.put(0.0)
            stop_now(signum, frame)

        signal.signal(number, handle)

    Thread(target=drain, name="oompa-drain", daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: limits.put(float("inf")))  # a second one changes nothing
    signal.siginterrupt(signal.SIGTERM, False)
    quit_at_once(signal.SIGINT)
    quit_at_once(signal.SIGQUIT)


def _drain_limit(server: Server, worker: Any) -> float:
    """Seconds the tasks of a server may have: its ``drain_timeout``, or less where gunicorn would kill the worker first."""
    available = float(worker.cfg.graceful_timeout) - server.close_timeout - _STOPPING
    return max(0.0, min(server.drain_timeout, available))
