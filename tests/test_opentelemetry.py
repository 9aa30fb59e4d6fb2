"""Traces: one from a browser through a Flask view and two ends of oompa to the task; and what its spans tell."""

import json
import logging
import threading
from concurrent.futures import CancelledError, Future

import flask
import needs
import pytest
from conftest import CALCULATOR, CEILING, url_of, wait_until

from oompa import Client, ConnectionLost, Pool, RemoteError, Schema, Server, TaskError, current_request

needs.package("opentelemetry.sdk")

from opentelemetry import baggage, context, trace  # noqa: E402
from opentelemetry.sdk.trace import TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402
from opentelemetry.trace import SpanKind, StatusCode  # noqa: E402

from oompa.opentelemetry import instrument  # noqa: E402


class Traces:
    """A tracer provider, and the spans that have ended."""

    def __init__(self):
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def instrumented(self, *targets):
        for each in targets:
            instrument(each, self.provider)

    def spans(self, count):
        """So many spans by name and kind: a call's ends on the callback thread, maybe after its result is there."""
        wait_until(lambda: len(self.exporter.get_finished_spans()) >= count)
        spans = self.exporter.get_finished_spans()
        assert len(spans) == count
        return {(span.name, span.kind): span for span in spans}


@pytest.fixture
def traces():
    return Traces()


def is_child(span, parent):
    assert span.context.trace_id == parent.context.trace_id
    return span.parent.span_id == parent.context.span_id


def test_browser_view_client_server_and_task_are_one_trace(serve, connect, traces):
    needs.package("opentelemetry.instrumentation.flask")
    from opentelemetry.instrumentation.flask import FlaskInstrumentor

    def add(payload):
        with traces.provider.get_tracer("database").start_as_current_span("SELECT"):
            return payload["x"] + payload["y"]

    server = serve({"ADD": add})
    client = connect(server)
    traces.instrumented(server, client)
    app = flask.Flask("shop")
    app.add_url_rule("/sum", "sum", lambda: str(client.call("ADD", {"x": 1, "y": 6})))
    FlaskInstrumentor().instrument_app(app, tracer_provider=traces.provider)
    try:
        browser = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "vendor=1"}
        assert app.test_client().get("/sum", headers=browser).text == "7"
    finally:
        FlaskInstrumentor().uninstrument_app(app)
    spans = traces.spans(4)
    view = spans["GET /sum", SpanKind.SERVER]
    call, task = spans["ADD", SpanKind.CLIENT], spans["ADD", SpanKind.SERVER]
    assert f"{view.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{view.parent.span_id:016x}" == "b7ad6b7169203331"
    assert is_child(call, view) and is_child(task, call) and is_child(spans["SELECT", SpanKind.INTERNAL], task)
    assert task.context.trace_state == call.context.trace_state == {"vendor": "1"}


def test_spans_have_the_attributes_of_the_conventions(serve, connect, traces):
    server = serve(CALCULATOR)
    client = connect(url_of(server))
    traces.instrumented(server, client)
    client.call("ADD", {"x": 1, "y": 6})
    spans = traces.spans(2)
    common = {"rpc.system.name": "oompa", "rpc.method": "ADD", "rpc.response.status_code": "ok"}
    call, task = spans["ADD", SpanKind.CLIENT], spans["ADD", SpanKind.SERVER]
    assert dict(call.attributes) == {**common, "server.address": "127.0.0.1", "server.port": server.port}
    assert {**task.attributes, "network.peer.port": 0} == {
        **common,
        "client.address": "127.0.0.1",
        "network.peer.address": "127.0.0.1",
        "network.peer.port": 0,
    }
    assert call.status.status_code == task.status.status_code == StatusCode.UNSET
    assert call.start_time <= task.start_time <= task.end_time <= call.end_time


def refuse(payload):
    raise TaskError("sold out", code="not_found")


@pytest.mark.parametrize(
    "type, status, of_call, of_task, events",
    [
        ("DIV", "internal", ("ERROR", "internal"), ("ERROR", "ZeroDivisionError"), ["exception"]),
        ("REFUSE", "not_found", ("ERROR", "not_found"), ("UNSET", None), []),
        ("TAKE", "invalid_argument", ("ERROR", "invalid_argument"), ("UNSET", None), ["exception"]),
    ],
)
def test_spans_tell_how_a_task_failed(serve, connect, traces, type, status, of_call, of_task, events):
    schema = Schema()
    schema.update({"DIV": lambda payload: 1 / 0, "REFUSE": refuse})
    schema.task("TAKE")(lambda x: x)
    server = serve(schema)
    client = connect(server)
    traces.instrumented(server, client)
    with pytest.raises(RemoteError):
        client.call(type, {"y": 1})
    spans = traces.spans(2)
    for kind, (expected, error_type) in ((SpanKind.CLIENT, of_call), (SpanKind.SERVER, of_task)):
        span = spans[type, kind]
        assert span.attributes["rpc.response.status_code"] == status
        assert (span.status.status_code.name, span.attributes.get("error.type")) == (expected, error_type)
    assert [event.name for event in spans[type, SpanKind.SERVER].events] == events
    assert [event.name for event in spans[type, SpanKind.CLIENT].events] == []


def test_spans_of_calls_that_come_to_nothing_end(connect, traces, serve):
    go_on = threading.Event()
    client = connect(serve({"WAIT": lambda payload: go_on.wait(CEILING)}))
    traces.instrumented(client)
    try:
        call = client.dispatch("WAIT")
        call.cancel()
        with pytest.raises(CancelledError):
            call.result()
        with pytest.raises(TypeError):
            client.dispatch("WAIT", {1})
    finally:
        go_on.set()
    wait_until(lambda: len(traces.exporter.get_finished_spans()) == 2)
    spans = traces.exporter.get_finished_spans()
    assert sorted(span.attributes["rpc.response.status_code"] for span in spans) == ["cancelled", "invalid_argument"]
    assert all(span.status.status_code == StatusCode.ERROR for span in spans)


def test_a_server_that_cannot_be_reached_is_unavailable(connect, traces):
    client = connect("ws://127.0.0.1:1", timeout=0.2, attempts=1)
    traces.instrumented(client)
    with pytest.raises((ConnectionLost, TimeoutError)):
        client.call("ADD")
    (span,) = traces.spans(1).values()
    assert span.attributes["rpc.response.status_code"] == "deadline_exceeded"
    assert span.attributes["error.type"] == "RequestTimeout"


def test_baggage_reaches_the_task_and_what_it_calls(serve, connect, traces):
    seen = []
    inner = serve({"SEE": lambda payload: seen.append(dict(baggage.get_all()))})
    to_inner = connect(inner)
    outer = serve({"SEE": lambda payload: to_inner.call("SEE")})
    client = connect(outer)
    traces.instrumented(inner, to_inner, outer, client)
    token = context.attach(baggage.set_baggage("tenant", "seven"))
    try:
        client.call("SEE")
    finally:
        context.detach(token)
    assert seen == [{"tenant": "seven"}]
    wait_until(lambda: len(traces.exporter.get_finished_spans()) == 4)
    assert len({span.context.trace_id for span in traces.exporter.get_finished_spans()}) == 1


def test_nothing_of_one_task_is_there_for_the_next(serve, connect, traces):
    seen = []
    server = serve({"SEE": lambda payload: seen.append(trace.get_current_span().get_span_context().trace_id)})
    client = connect(server)
    traces.instrumented(server)
    client.call("SEE")
    client.call("SEE")
    assert len(set(seen)) == 2 and not trace.get_current_span().get_span_context().is_valid


def test_a_caller_may_name_a_parent_itself(serve, connect, traces):
    server = serve(CALCULATOR)
    client = connect(server)
    traces.instrumented(server, client)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    client.call("ECHO", meta={"traceparent": parent})
    call = traces.spans(2)["ECHO", SpanKind.CLIENT]
    assert f"00-{call.context.trace_id:032x}-{call.parent.span_id:016x}-01" == parent


@pytest.mark.parametrize("meta", [{"traceparent": 5}, {"traceparent": ["x"]}, {"traceparent": "00-x"}, {"baggage": {"a": 1}}])
def test_whatever_a_peer_writes_there_begins_a_trace(serve, connect, traces, meta):
    server = serve(CALCULATOR)
    traces.instrumented(server)
    assert connect(server).call("ADD", {"x": 1, "y": 6}, meta=meta) == 7
    assert traces.spans(1)["ADD", SpanKind.SERVER].parent is None


def test_calls_of_a_pool_have_spans(serve, traces):
    server = serve(CALCULATOR)
    with Pool([f"ws://127.0.0.1:{server.port}"] * 2) as pool:
        traces.instrumented(server, pool)
        pool.call("ADD", {"x": 1, "y": 6})
    spans = traces.spans(2)
    assert is_child(spans["ADD", SpanKind.SERVER], spans["ADD", SpanKind.CLIENT])


def test_a_task_that_is_a_future_is_a_span_until_it_is_settled(serve, connect, traces):
    future = Future()
    server = serve({"WAIT": lambda payload: future})
    traces.instrumented(server)
    call = connect(server).dispatch("WAIT")
    wait_until(lambda: server.stats()["running"] == 1)
    assert traces.exporter.get_finished_spans() == ()
    future.set_exception(KeyError("x"))
    with pytest.raises(RemoteError):
        call.result(CEILING)
    assert traces.spans(1)["WAIT", SpanKind.SERVER].attributes["error.type"] == "KeyError"


def test_a_future_of_somebody_elses_is_a_call_too(serve, connect, traces):
    client = connect(serve(CALCULATOR))
    traces.instrumented(client)

    @client.use
    def cached(request, call_next):
        future = Future()
        future.set_result(17)
        return future

    assert client.call("ADD") == 17
    assert traces.spans(1)["ADD", SpanKind.CLIENT].attributes["rpc.response.status_code"] == "ok"


def test_what_cannot_be_instrumented_is_refused(traces):
    with pytest.raises(TypeError, match="must be a Server, a Client or a Pool, not 3"):
        instrument(3)
    server = Server({})
    traces.instrumented(server)
    with pytest.raises(ValueError, match="is instrumented already: once is enough"):
        traces.instrumented(server)


@pytest.mark.parametrize(
    "url, address",
    [
        ("ws://user:secret@example.com/?token=1", {"server.address": "example.com", "server.port": 80}),
        ("wss://example.com:9000", {"server.address": "example.com", "server.port": 9000}),
        ("ws+unix:/run/app.sock:/tasks", {"server.address": "/run/app.sock", "network.transport": "unix"}),
        (["ws://a", "ws://b"], {}),
    ],
)
def test_where_a_call_goes_is_told_where_it_is_one_place(url, address, traces):
    with Client(url, no_server=True) as client:
        traces.instrumented(client)
        client.dispatch("ADD")
    (span,) = traces.spans(1).values()
    told = {key: value for key, value in span.attributes.items() if key.startswith(("server.", "network."))}
    assert told == address


def test_logs_of_a_task_know_its_trace(serve, connect, traces, caplog):
    def log(payload):
        span = trace.get_current_span().get_span_context()
        logging.getLogger("app").warning(json.dumps({"trace": f"{span.trace_id:032x}"}))
        return current_request().meta["traceparent"]

    server = serve({"LOG": log})
    client = connect(server)
    traces.instrumented(server, client)
    told = client.call("LOG")
    (line,) = [record.message for record in caplog.records if record.name == "app"]
    assert json.loads(line)["trace"] == told.split("-")[1]
