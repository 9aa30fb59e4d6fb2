"""Traces, by OpenTelemetry (the extra ``otel``, which brings its API; the SDK and its settings are the application's)::

    from oompa.opentelemetry import instrument

    instrument(server)                  # a span for each task
    instrument(client)                  # a span for each call

The span of a task is a child of the span of its call: ``request.meta`` carries ``traceparent``, ``tracestate`` and ``baggage``
as W3C writes them, whatever propagators are set for HTTP. A server that does not know ``meta``, such as the original, gets
none of it, and its calls have their spans all the same. Spans are named by the task type; their attributes are those of the
semantic conventions for RPC, where ``rpc.response.status_code`` is ``ok`` or one of gRPC's codes in lower case.

Both are middleware. Of a server's it sees tasks alone: no pings, and no types that the server does not have; and a task that
returns a Future holds a thread while it waits, as with any middleware. A span tells nothing of payloads, but the event
``exception`` has what a task raised.

Threads: the span of a task begins and ends on the task's thread; that of a call begins on the caller's and ends on the client's
callback thread, at the time at which the call settled. ``_lock`` guards what is instrumented.
"""

import threading
import time
import weakref
from concurrent.futures import Future
from typing import Any, Callable, Mapping, Optional
from urllib.parse import urlsplit

try:
    from opentelemetry import context as contexts
    from opentelemetry import trace
    from opentelemetry.baggage.propagation import W3CBaggagePropagator
    from opentelemetry.propagators.composite import CompositePropagator
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as error:
    raise ImportError(f"oompa.opentelemetry needs opentelemetry-api ({error}): pip install 'oompa[otel]'") from None

from .errors import CODES, RemoteError, TaskError, ValidationError
from .observing import SUCCESS, error_of, status_of
from .schema import is_misfit
from .version import __version__
from .wire.messages import Request, describe

#: The codes that mean that the server failed, and not its caller, by the semantic conventions for gRPC.
_FAULTS = frozenset({"unknown", "deadline_exceeded", "unimplemented", "internal", "unavailable", "data_loss"})

_propagator = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])

CallNext = Callable[[Request], "Future[Any]"]

_lock = threading.RLock()
_instrumented: "weakref.WeakSet[Any]" = weakref.WeakSet()


def instrument(target: Any, tracer_provider: Any = None) -> None:
    """Make a span for each task of a server, or each call of a client, from now on.

    The middleware stands where this is called: what was ``use``d before is around the span, what comes later within.

    Args:
        target: A Server; or a Client or a Pool.
        tracer_provider: Whose tracer makes the spans; None: the global one.

    Raises:
        TypeError: It is neither a server nor a client.
        ValueError: It is instrumented already.
    """
    is_client = hasattr(target, "dispatch") and hasattr(target, "use")
    if not is_client and not (hasattr(target, "knows") and hasattr(target, "use")):
        raise TypeError(f"what is instrumented must be a Server, a Client or a Pool, not {target!r}")
    with _lock:
        if target in _instrumented:
            raise ValueError(f"{target!r} is instrumented already: once is enough")
        _instrumented.add(target)
    tracer = trace.get_tracer("oompa", __version__, tracer_provider)
    target.use(_tracing_calls(tracer, _server_of(getattr(target, "url", None))) if is_client else _tracing_tasks(tracer))


def _tracing_tasks(tracer: Any) -> "Callable[[Request, Callable[[Request], Any]], Any]":
    """A server's middleware."""

    def trace_task(request: Request, call_next: "Callable[[Request], Any]") -> Any:
        token = contexts.attach(_propagator.extract(_texts(request.meta)))  # a task begins in an empty context
        try:
            with tracer.start_as_current_span(
                request.type,
                kind=SpanKind.SERVER,
                attributes={**_attributes(request), **_peer(request.connection)},
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                try:
                    result = call_next(request)
                except BaseException as error:
                    _describe(span, error, _task_status(error), _FAULTS)
                    raise
                span.set_attribute("rpc.response.status_code", SUCCESS)
                return result
        finally:
            contexts.detach(token)

    return trace_task


def _tracing_calls(tracer: Any, server: "dict[str, Any]") -> "Callable[[Request, CallNext], Future[Any]]":
    """A client's middleware."""
    from .client.stopwatch import Stopwatch

    def trace_call(request: Request, call_next: CallNext) -> "Future[Any]":
        watch, began = Stopwatch(), time.time_ns()  # in this order, so that the span ends no earlier than that of the task
        context = _propagator.extract(_texts(request.meta), contexts.get_current())  # the caller may name another parent
        attributes = {**_attributes(request), **server}
        span = tracer.start_span(request.type, context, SpanKind.CLIENT, attributes, start_time=began)
        token = contexts.attach(trace.set_span_in_context(span, context))
        try:
            _propagator.inject(request.meta)
            future = call_next(request)
        except BaseException as error:
            _describe(span, error, status_of(error))
            span.end()
            raise
        finally:
            contexts.detach(token)

        def settled(future: "Future[Any]") -> None:
            error = error_of(future)
            _describe(span, error, status_of(error))
            span.end(began + int(watch.seconds * 1e9))

        watch.time(future, settled)
        return future

    return trace_call


def _describe(span: Span, error: Optional[BaseException], status: str, faults: "frozenset[str]" = CODES) -> None:
    """How a call or a task ended; ``faults`` are the codes that count as errors."""
    span.set_attribute("rpc.response.status_code", status)
    if error is None:
        return
    is_told = isinstance(error, (RemoteError, TaskError))  # on purpose, so that its traceback tells nothing
    if not is_told:
        span.record_exception(error)
    if status in faults:
        span.set_attribute("error.type", status if is_told else type(error).__qualname__)
        span.set_status(Status(StatusCode.ERROR, describe(error)))


def _task_status(error: BaseException) -> str:
    """The code that the caller of a task gets to see."""
    if isinstance(error, (RemoteError, TaskError)):
        return status_of(error)
    return "invalid_argument" if isinstance(error, ValidationError) or is_misfit(error) else "internal"


def _attributes(request: Request) -> "dict[str, Any]":
    return {"rpc.system.name": "oompa", "rpc.method": request.type}


def _peer(connection: Any) -> "dict[str, Any]":
    host, port = connection.remote_address
    return {"client.address": host, "network.peer.address": host, "network.peer.port": port}


def _server_of(url: Any) -> "dict[str, Any]":
    """Where calls go, if that is one place: nothing of passwords or queries."""
    if not isinstance(url, str):
        return {}
    place = urlsplit(url)
    if place.scheme == "ws+unix":
        return {"server.address": place.path.partition(":")[0], "network.transport": "unix"}
    return {"server.address": place.hostname or "", "server.port": place.port or (443 if place.scheme == "wss" else 80)}


def _texts(meta: Mapping[str, Any]) -> "dict[str, str]":
    """What a propagator may read: a peer may put anything there."""
    return {key: value for key in ("traceparent", "tracestate", "baggage") if isinstance(value := meta.get(key), str)}
