"""Metrics for Prometheus, under OpenTelemetry's names (the extra ``prometheus``)::

    from oompa.prometheus import instrument

    instrument(server, path="/metrics")         # and http://HOST:PORT/metrics tells them
    instrument(client)

=====================================  ==========================================================================
``rpc_server_call_duration_seconds``   histogram: from when a request was read to its reply, its time in the queue
                                       included; by ``rpc_method``, the task type, and ``rpc_response_status_code``,
                                       ``ok`` or one of gRPC's codes in lower case
``oompa_server_connections``           gauge
``oompa_server_running``               gauge: tasks that run, or wait for a Future
``oompa_server_queued``                gauge: requests that wait for one of the ``concurrency`` places
``rpc_client_call_duration_seconds``   histogram: from ``dispatch`` or ``call`` until it settled, resending included; what
                                       these refuse, raising, was no call
``oompa_client_pending``               gauge: calls that have not settled
``oompa_client_reconnects_total``      counter
=====================================  ==========================================================================

Types that a server does not have are ``_OTHER``, on its clients, too. Pings, and what is asked of the server itself, do not
count. What is instrumented in one registry adds up: where that is not wanted, give each a registry of its own.

Several processes, as gunicorn's workers, share what they count through files where ``PROMETHEUS_MULTIPROC_DIR`` names a folder
for them; each then tells the sums of all. Give each start of the server an empty one, and let the configuration
``oompa.gunicorn`` take the gauges of workers that have ended away::

    PROMETHEUS_MULTIPROC_DIR=$(mktemp -d) gunicorn -c python:oompa.gunicorn app:server

Threads: what is counted is counted on threads of the server or on a client's callback thread. Where there are files, a thread
of each process writes the gauges once a second, as long as there is a client or a connection, and ends by itself. ``_lock``
guards what is instrumented, ``_Writer._lock`` whether that thread runs.
"""

import os
import threading
import weakref
from concurrent.futures import Future
from typing import Any, Callable, Iterator, Optional

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.multiprocess import MultiProcessCollector
except ImportError as error:
    raise ImportError(f"oompa.prometheus needs prometheus_client ({error}): pip install 'oompa[prometheus]'") from None

from .observing import OTHER, SUCCESS, error_of, status_in, status_of
from .wire.messages import OK, Reply, Request

#: Upper bounds in seconds: those that OpenTelemetry advises, and finer ones, for a call may take less than a millisecond.
BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_LABELS = ("rpc_method", "rpc_response_status_code")

#: Seconds between two looks at gauges that are written to files.
_INTERVAL = 1.0

_lock = threading.RLock()


def instrument(target: Any, registry: Any = REGISTRY, path: Optional[str] = None) -> None:
    """Count what a server or a client does, from now on.

    Args:
        target: A Server; or a Client or a Pool.
        registry: Where the metrics are registered, a ``prometheus_client.CollectorRegistry``.
        path: Of a page of the server, such as ``"/metrics"``, that tells them to whoever can reach it. An application given to
            ``init_app`` needs a route of its own; ``exposition`` is what it returns.

    Raises:
        TypeError: It is neither a server nor a client.
        ValueError: It is instrumented in this registry already; or the path is none, or taken; or ``path`` was given with a
            client, which serves no pages.
    """
    is_client = hasattr(target, "dispatch") and hasattr(target, "use")
    if not is_client and not (hasattr(target, "knows") and hasattr(target, "stats")):
        raise TypeError(f"what is instrumented must be a Server, a Client or a Pool, not {target!r}")
    if path is not None:
        _check_path(target, is_client, path)
    with _lock:
        metrics = _metrics_in(registry, _ClientMetrics if is_client else _ServerMetrics)
        if any(each is target for each in metrics.targets()):
            raise ValueError(f"{target!r} is instrumented already: once is enough, for each registry")
        metrics.add(target)
    if path is not None:
        target.app.add_url_rule(path, f"oompa-metrics-{path}", lambda: exposition(registry))


def exposition(registry: Any = REGISTRY) -> Any:
    """The answer to Prometheus, a Flask response, for a route of an application of your own."""
    from flask import Response, request

    if _is_shared():
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return Response(encode(registry), content_type=content_type)


def _check_path(target: Any, is_client: bool, path: str) -> None:
    if is_client:
        raise ValueError(f"path={path!r} is for a server: a client serves no pages; prometheus_client.start_http_server does")
    if not isinstance(path, str) or not path.startswith("/"):
        raise ValueError(f'path must begin with a slash, as "/metrics" does, not {path!r}')
    if any(rule.rule == path for rule in target.app.url_map.iter_rules()):
        raise ValueError(f"path={path!r}: the server has a page there already; choose another one")


def _is_shared() -> bool:
    """Whether several processes share what they count, through files."""
    return "PROMETHEUS_MULTIPROC_DIR" in os.environ


class _Metrics:
    """Those of the servers, or of the clients, that are instrumented in one registry."""

    def __init__(self, registry: Any) -> None:
        self._registry = registry
        self._targets: "tuple[weakref.ref[Any], ...]" = ()
        self._gauges: "list[tuple[Any, Callable[[], float]]]" = []
        self._writer = _Writer(self._write, self._is_worth_it)

    def targets(self) -> "Iterator[Any]":
        """What is instrumented, and still there."""
        return (target for each in self._targets if (target := each()) is not None)

    def add(self, target: Any) -> None:
        """Count what ``target`` does."""
        self._targets = (*(each for each in self._targets if each() is not None), weakref.ref(target))

    def _histogram(self, name: str, text: str) -> Any:
        return Histogram(name, text, _LABELS, registry=self._registry, buckets=BUCKETS)

    def _gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge that is asked for its value, or written where the processes cannot ask one another."""
        gauge = Gauge(name, text, registry=self._registry, multiprocess_mode="livesum")
        if _is_shared():
            self._gauges.append((gauge, value))
        else:
            gauge.set_function(value)

    def _write(self) -> None:
        for gauge, value in self._gauges:
            gauge.set(value())

    def _awake(self, *_: Any) -> None:
        """There is something to look at."""
        if self._gauges:
            self._writer.start()

    def _is_worth_it(self) -> bool:
        raise NotImplementedError


class _ServerMetrics(_Metrics):
    def __init__(self, registry: Any) -> None:
        super().__init__(registry)
        self._durations = self._histogram("rpc_server_call_duration_seconds", "From reading a request to its reply.")
        #: Of the tasks there are; looking one up by its labels takes three times as long.
        self._known: "dict[tuple[str, str], Any]" = {}
        for name, text in (
            ("connections", "Connections there are."),
            ("running", "Tasks that run, or wait for a Future."),
            ("queued", "Requests that wait for their turn."),
        ):
            self._gauge(f"oompa_server_{name}", text, self._summing(name))

    def add(self, target: Any) -> None:
        from .server.introspection import OWN

        super().add(target)
        knows, observe = target.knows, self._observe

        def count(reply: Reply) -> None:
            task = reply.task
            if task is not None and knows(task):
                observe(task, reply)
            elif task not in OWN:
                observe(OTHER, reply)

        target.on("reply", count)
        target.on("connection", self._awake)

    def _observe(self, method: str, reply: Reply) -> None:
        status = SUCCESS if reply.type == OK else status_in(reply.details)
        durations = self._known.get((method, status))
        if durations is None:
            durations = self._known[method, status] = self._durations.labels(method, status)
        durations.observe(reply.waited + reply.elapsed)

    def _summing(self, name: str) -> Callable[[], float]:
        return lambda: float(sum(server.stats()[name] for server in self.targets()))

    def _is_worth_it(self) -> bool:
        return any(server.connections for server in self.targets())


class _ClientMetrics(_Metrics):
    def __init__(self, registry: Any) -> None:
        super().__init__(registry)
        self._durations = self._histogram("rpc_client_call_duration_seconds", "From dispatching a call until it settled.")
        self._reconnects = Counter("oompa_client_reconnects", "Connections made after one was lost.", registry=registry)
        #: The calls that have not settled. A set, for a signal handler may come between any two steps of ours.
        self._pending: "set[Any]" = set()
        self._gauge("oompa_client_pending", "Calls that have not settled.", lambda: float(len(self._pending)))

    def add(self, target: Any) -> None:
        from .client.stopwatch import Stopwatch

        super().add(target)
        pending = self._pending

        def count(request: Request, call_next: "Callable[[Request], Future[Any]]") -> "Future[Any]":
            watch, method = Stopwatch(), request.type
            pending.add(watch)
            try:
                future = call_next(request)
            except BaseException:
                pending.discard(watch)
                raise

            def settled(future: "Future[Any]") -> None:
                pending.discard(watch)
                self._observe(method, error_of(future), watch.seconds)

            watch.time(future, settled)
            return future

        target.use(count)
        target.on("reconnected", self._reconnects.inc)
        self._awake()

    def _observe(self, method: str, error: Optional[BaseException], seconds: float) -> None:
        status = status_of(error)
        self._durations.labels(OTHER if status == "unimplemented" else method, status).observe(seconds)

    def _is_worth_it(self) -> bool:
        return any(True for _ in self.targets())


class _Writer:
    """Writes gauges to files, on a thread that ends when there is nothing to look at any more.

    Args:
        write: Writes them.
        is_worth_it: Whether there is something to look at.
    """

    def __init__(self, write: Callable[[], None], is_worth_it: Callable[[], bool]) -> None:
        self._write = write
        self._is_worth_it = is_worth_it
        self._lock = threading.RLock()
        self._process: Optional[int] = None  # where the thread runs: a fork has none

    def start(self) -> None:
        """Begin to write, unless it was begun."""
        with self._lock:
            if self._process == os.getpid():
                return
            self._process = os.getpid()
        threading.Thread(target=self._run, name="oompa-metrics", daemon=True).start()

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            self._write()
            with self._lock:
                if not self._is_worth_it():
                    self._process = None
                    break
            pause.wait(_INTERVAL)
        self._write()


#: By registry, and by what they are the metrics of.
_registries: "weakref.WeakKeyDictionary[Any, dict[Any, Any]]" = weakref.WeakKeyDictionary()


def _metrics_in(registry: Any, kind: "type[_Metrics]") -> Any:
    there = _registries.setdefault(registry, {})
    if kind not in there:
        there[kind] = kind(registry)
    return there[kind]
