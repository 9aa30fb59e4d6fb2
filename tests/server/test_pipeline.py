"""From request to reply: factories, middleware, healthcheck, errors, limits. No sockets and no threads but a Future's."""

import json
import logging
import re
import threading
from concurrent.futures import Future

import pytest

from oompa.errors import HealthcheckFailed, RemoteError, TaskError
from oompa.schema import Schema
from oompa.server import pipeline as module
from oompa.server.pipeline import Pipeline
from oompa.wire.announcement import Announcement
from oompa.wire.codec import codec_named
from oompa.wire.messages import ERR, MISSING, OK, PING, Reply, Request

CEILING = 10.0  # seconds until a wait counts as failed

LOGGER = logging.getLogger("oompa.test.pipeline")


def add(payload):
    return payload["x"] + payload["y"]


@pytest.fixture
def unhealthy():
    """What the healthcheck raised."""
    return []


@pytest.fixture
def build(unhealthy):
    """Make a pipeline: ``build(schema, healthcheck, **options)``."""

    def build(schema=None, healthcheck=None, *, max_reply_size=1000, expose_errors=True):
        return Pipeline(
            {"ADD": add} if schema is None else schema,
            healthcheck,
            codec=codec_named("json"),
            max_reply_size=max_reply_size,
            expose_errors=expose_errors,
            on_unhealthy=unhealthy.append,
            logger=LOGGER,
        )

    return build


def run(pipeline, type="ADD", payload=None, id="7"):
    reply = pipeline.handle(Request(type, payload, id))
    assert reply.id == id
    return (reply.type, reply.payload if reply.type == OK else reply.error)


def raising(error):
    def factory(payload):
        raise error

    return factory


def future_of(result=None, error=None):
    future = Future()
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
    return future


# Tasks.


def test_a_request_runs_the_factory_of_its_type_with_its_payload(build):
    assert run(build(), payload={"x": 1, "y": 6}) == (OK, 7)


@pytest.mark.parametrize("id", ["7", None, 0, [1], MISSING], ids=repr)
def test_the_reply_has_the_id_of_the_request(build, id):
    assert build().handle(Request("ADD", {"x": 1, "y": 6}, id)).id is id
    assert build().handle(Request("MEOW", None, id)).id is id


def test_a_request_without_a_payload_reaches_its_factory_as_none(build):
    assert run(build({"ECHO": lambda payload: [payload]}), "ECHO") == (OK, [None])


def test_a_schema_runs_its_tasks_with_keyword_arguments(build):
    schema = Schema()
    schema.task("ADD")(lambda x, y: x + y)
    assert run(build(schema), payload={"x": 1, "y": 6}) == (OK, 7)


@pytest.mark.parametrize("payload", [[1, 6], "xy", {"x": 1}, {"x": 1, "y": 2, "z": 3}])
def test_a_payload_that_does_not_fit_is_the_requests_error(build, payload):
    schema = Schema()
    schema.task("ADD")(lambda x, y: x + y)
    kind, error = run(build(schema), payload=payload)
    assert kind == ERR
    assert error.startswith("TypeError: ")


def test_a_task_added_later_is_known(build):
    schema = {}
    pipeline = build(schema)
    schema["ADD"] = add
    assert run(pipeline, payload={"x": 1, "y": 6}) == (OK, 7)


@pytest.mark.parametrize("type", ["MEOW", "", "add", "toString", "__class__", "keys", "constructor", 'a"b', "é"])
def test_an_unknown_type_is_an_error_in_the_words_of_the_node_original(build, type):
    assert run(build(), type) == (ERR, f'Unknown request type: "{type}"')


def test_a_type_is_looked_up_as_a_key_and_nowhere_else(build):
    class Odd(Schema):
        hidden = staticmethod(lambda payload: "never")

        def __missing__(self, key):
            raise AssertionError("a type is looked up where it is not")

    assert run(build(Odd()), "hidden") == (ERR, 'Unknown request type: "hidden"')


def test_the_time_a_task_took_is_told_in_seconds(build, monkeypatch):
    times = iter([100.0, 100.25])
    monkeypatch.setattr(module, "monotonic", lambda: next(times))
    assert build().handle(Request("ADD", {"x": 1, "y": 6}, "7")).elapsed == 0.25


@pytest.mark.parametrize("type", ["FAIL", "MEOW", "TASK"])
def test_the_time_a_failure_took_is_told_as_well(build, monkeypatch, type):
    times = iter([100.0, 102.0])
    monkeypatch.setattr(module, "monotonic", lambda: next(times))
    pipeline = build({"FAIL": raising(ValueError("x")), "TASK": raising(TaskError(1))})
    assert pipeline.handle(Request(type, None, "7")).elapsed == 2.0


# Failures.


@pytest.mark.parametrize(
    "error, text",
    [
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (KeyError("x"), "KeyError: 'x'"),
        (ValueError(), "ValueError"),
        (StopIteration(3), "StopIteration: 3"),
        (RecursionError("deep"), "RecursionError: deep"),
        (MemoryError(), "MemoryError"),
        (HealthcheckFailed("a handler's own"), "HealthcheckFailed: a handler's own"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (GeneratorExit(), "GeneratorExit"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_an_exception_in_a_factory_becomes_the_error_of_the_reply(build, caplog, error, text):
    assert run(build({"FAIL": raising(error)}), "FAIL") == (ERR, text)
    assert [record.getMessage() for record in caplog.records] == ["task 'FAIL' (id '7') raised"]
    assert caplog.records[0].exc_info[1] is error


@pytest.mark.parametrize("value", [None, "no", 0, [1, None], {"code": 7, "why": "é"}])
def test_a_task_error_sends_its_value_itself(build, caplog, value):
    pipeline = build({"FAIL": raising(TaskError(value))})
    assert run(pipeline, "FAIL") == (ERR, value)
    assert caplog.records == []


def test_a_subclass_of_task_error_sends_its_value_too(build):
    class Refused(TaskError):
        pass

    assert run(build({"FAIL": raising(Refused({"code": 7}))}), "FAIL") == (ERR, {"code": 7})


def test_errors_that_are_not_exposed_stay_in_the_log_and_have_an_id_to_find_them_by(build, caplog):
    pipeline = build({"FAIL": raising(ValueError("secret"))}, expose_errors=False)
    kind, error = run(pipeline, "FAIL")
    assert kind == ERR
    assert "secret" not in error and "ValueError" not in error
    error_id = error.split()[-1]
    assert error == f"Internal error, id {error_id}"
    assert f"error id {error_id}" in caplog.records[0].getMessage()
    assert str(caplog.records[0].exc_info[1]) == "secret"
    assert run(pipeline, "FAIL") != (ERR, error)


def test_what_a_handler_says_on_purpose_is_exposed_always(build):
    pipeline = build({"FAIL": raising(TaskError("on purpose"))}, expose_errors=False)
    assert run(pipeline, "FAIL") == (ERR, "on purpose")
    assert run(pipeline, "MEOW") == (ERR, 'Unknown request type: "MEOW"')


def test_an_exception_that_cannot_be_printed_is_told_by_its_class(build):
    class Unprintable(Exception):
        def __str__(self):
            raise RuntimeError

    assert run(build({"FAIL": raising(Unprintable())}), "FAIL") == (ERR, "Unprintable")


# Futures.


def test_a_future_of_a_factory_is_waited_for(build):
    future = Future()
    pipeline = build({"LATER": lambda payload: future})
    setting = threading.Thread(target=future.set_result, args=(7,))
    setting.start()
    assert run(pipeline, "LATER") == (OK, 7)
    setting.join(CEILING)


def test_a_future_that_fails_is_the_error_of_the_reply(build):
    pipeline = build({"LATER": lambda payload: future_of(error=ZeroDivisionError("no"))})
    assert run(pipeline, "LATER") == (ERR, "ZeroDivisionError: no")


def test_a_future_that_fails_with_a_task_error_sends_its_value(build):
    assert run(build({"LATER": lambda payload: future_of(error=TaskError([1]))}), "LATER") == (ERR, [1])


def test_a_future_that_was_cancelled_is_an_error(build):
    future = Future()
    future.cancel()
    assert run(build({"LATER": lambda payload: future}), "LATER") == (ERR, "CancelledError")


def test_call_next_returns_the_value_of_a_future(build):
    seen = []
    pipeline = build({"LATER": lambda payload: future_of(7)})

    def watch(request, call_next):
        seen.append(call_next(request))
        return future_of(seen[-1] + 1)

    pipeline.use(watch)
    pipeline.use(watch)
    assert run(pipeline, "LATER") == (OK, 9)
    assert seen == [7, 8]


# Middleware.


def test_middleware_runs_in_the_order_of_use(build):
    seen = []

    def named(name):
        def middleware(request, call_next):
            seen.append(f"{name} before")
            result = call_next(request)
            seen.append(f"{name} after")
            return result

        return middleware

    pipeline = build({"T": lambda payload: seen.append("factory")})
    for name in "abc":
        pipeline.use(named(name))
    run(pipeline, "T")
    assert seen == ["a before", "b before", "c before", "factory", "c after", "b after", "a after"]


def test_middleware_may_change_the_request(build):
    def double(request, call_next):
        request.payload = {key: 2 * value for key, value in request.payload.items()}
        return call_next(request)

    pipeline = build()
    pipeline.use(double)
    assert run(pipeline, payload={"x": 1, "y": 6}) == (OK, 14)


def test_middleware_may_pass_another_request_on(build):
    pipeline = build()
    pipeline.use(lambda request, call_next: call_next(Request("ADD", {"x": 2, "y": 2})))
    assert run(pipeline, payload={"x": 1, "y": 6}) == (OK, 4)


def test_middleware_may_change_the_type(build):
    def redirect(request, call_next):
        request.type = request.payload
        return call_next(request)

    pipeline = build({"OLD": raising(AssertionError), "NEW": lambda payload: "new"})
    pipeline.use(redirect)
    assert run(pipeline, "OLD", "NEW") == (OK, "new")
    assert run(pipeline, "OLD", "NONE") == (ERR, 'Unknown request type: "NONE"')


def test_the_reply_carries_the_id_that_came_whatever_a_middleware_makes_of_it(build):
    def change(request, call_next):
        request.id = "another"
        return call_next(request)

    pipeline = build()
    pipeline.use(change)
    assert run(pipeline, payload={"x": 1, "y": 6}) == (OK, 7)


def test_middleware_may_answer_without_calling_on(build):
    pipeline = build({"T": raising(AssertionError)})
    pipeline.use(lambda request, call_next: "cached")
    pipeline.use(lambda request, call_next: raising(AssertionError)(request))
    assert run(pipeline, "T") == (OK, "cached")


def test_middleware_may_transform_the_result(build):
    pipeline = build()
    pipeline.use(lambda request, call_next: {"sum": call_next(request)})
    assert run(pipeline, payload={"x": 1, "y": 6}) == (OK, {"sum": 7})


def test_middleware_may_call_on_more_than_once(build):
    counts = []
    pipeline = build({"T": lambda payload: counts.append(1) or len(counts)})
    pipeline.use(lambda request, call_next: [call_next(request), call_next(request)])
    assert run(pipeline, "T") == (OK, [1, 2])


def test_middleware_may_handle_what_a_factory_raises(build):
    def mend(request, call_next):
        try:
            return call_next(request)
        except ZeroDivisionError:
            return None

    pipeline = build({"FAIL": raising(ZeroDivisionError())})
    pipeline.use(mend)
    assert run(pipeline, "FAIL") == (OK, None)


@pytest.mark.parametrize("error, expected", [(PermissionError("no"), "PermissionError: no"), (TaskError({"a": 1}), {"a": 1})])
def test_an_exception_in_a_middleware_becomes_the_error_of_the_reply(build, error, expected):
    def refuse(request, call_next):
        raise error

    pipeline = build()
    pipeline.use(refuse)
    assert run(pipeline) == (ERR, expected)


def test_middleware_runs_for_known_types_only(build):
    seen = []
    pipeline = build(healthcheck=lambda: "healthy")
    pipeline.use(lambda request, call_next: seen.append(request.type))
    assert run(pipeline, "MEOW") == (ERR, 'Unknown request type: "MEOW"')
    assert run(pipeline, PING) == (OK, "healthy")
    assert seen == []


def test_middleware_sees_type_payload_id_and_connection(build):
    seen = []
    pipeline = build()
    pipeline.use(lambda request, call_next: seen.append((request.type, request.payload, request.id, request.connection)))
    pipeline.handle(Request("ADD", [1], "7", "the connection"))
    assert seen == [("ADD", [1], "7", "the connection")]


def test_middleware_added_later_runs_for_later_requests(build):
    pipeline = build()
    assert run(pipeline, payload={"x": 1, "y": 6}) == (OK, 7)
    pipeline.use(lambda request, call_next: -call_next(request))
    assert run(pipeline, payload={"x": 1, "y": 6}) == (OK, -7)


@pytest.mark.parametrize("middleware", [None, "cache", 5])
def test_a_middleware_that_cannot_be_called_is_a_type_error(build, middleware):
    with pytest.raises(TypeError, match="a middleware must be callable"):
        build().use(middleware)


# Health.


def test_without_a_healthcheck_the_server_is_healthy_and_ping_answers_true(build, unhealthy):
    assert build().check_health() is True
    assert run(build(), PING) == (OK, True)
    assert unhealthy == []


@pytest.mark.parametrize("health", [None, True, 0, "", "fine", {"load": 0.5}, []])
def test_ping_answers_what_the_healthcheck_returned(build, unhealthy, health):
    assert run(build(healthcheck=lambda: health), PING) == (OK, health)
    assert unhealthy == []


def test_a_healthcheck_that_raises_is_the_error_of_the_ping_and_is_reported(build, unhealthy):
    error = OSError("no database")

    def healthcheck():
        raise error

    pipeline = build(healthcheck=healthcheck)
    assert run(pipeline, PING) == (ERR, "OSError: no database")
    with pytest.raises(OSError):
        pipeline.check_health()
    assert unhealthy == [error, error]


def test_a_healthcheck_that_returns_false_counts_as_raising(build, unhealthy):
    pipeline = build(healthcheck=lambda: False)
    kind, error = run(pipeline, PING)
    assert kind == ERR
    assert error.startswith("HealthcheckFailed: ")
    with pytest.raises(HealthcheckFailed):
        pipeline.check_health()
    assert [type(error) for error in unhealthy] == [HealthcheckFailed, HealthcheckFailed]


def test_a_healthcheck_may_send_a_task_error(build, unhealthy):
    def healthcheck():
        raise TaskError({"disk": "full"})

    assert run(build(healthcheck=healthcheck), PING) == (ERR, {"disk": "full"})
    assert [error.error for error in unhealthy] == [{"disk": "full"}]


def test_a_healthcheck_that_exits_is_unhealthy_and_ends_nothing(build, unhealthy):
    def healthcheck():
        raise SystemExit(1)

    assert run(build(healthcheck=healthcheck), PING) == (ERR, "SystemExit: 1")
    assert [type(error) for error in unhealthy] == [SystemExit]


def test_a_future_of_a_healthcheck_is_waited_for(build, unhealthy):
    assert run(build(healthcheck=lambda: future_of({"ok": 1})), PING) == (OK, {"ok": 1})
    assert run(build(healthcheck=lambda: future_of(error=OSError("down"))), PING) == (ERR, "OSError: down")
    assert run(build(healthcheck=lambda: future_of(False)), PING)[0] == ERR
    assert [type(error) for error in unhealthy] == [OSError, HealthcheckFailed]


def test_a_hidden_error_of_the_healthcheck_is_reported_all_the_same(build, unhealthy):
    def healthcheck():
        raise OSError("secret")

    _, error = run(build(healthcheck=healthcheck, expose_errors=False), PING)
    assert "secret" not in error
    assert str(unhealthy[0]) == "secret"


# Replies to texts.


def written(pipeline, reply):
    told, text = pipeline.write(reply)
    fields = json.loads(text)
    assert (told.type, told.id) == (fields["type"], fields.get("id", MISSING))
    assert fields.get("payload") == told.payload
    assert fields.get("error") == told.error
    return told, fields


def test_a_reply_is_written_as_it_is(build):
    reply = Reply(OK, "7", payload=[7])
    assert build().write(reply) == (reply, b'{"type":"OK","id":"7","payload":[7]}')


@pytest.mark.parametrize("value", [{1}, float("nan"), float("inf"), "\ud800", Exception, b"x", {(1, 2): 3}], ids=ascii)
@pytest.mark.parametrize("kind", [OK, ERR])
def test_a_result_that_is_not_json_gives_an_error(build, value, kind):
    _, fields = written(build(), Reply(kind, "7", value, value))
    assert (fields["type"], fields["id"]) == (ERR, "7")
    assert fields["error"].startswith("the result is not JSON: ")


@pytest.mark.parametrize("kind, named", [(OK, "the result of task 'ADD'"), (ERR, "the error of task 'ADD'")])
@pytest.mark.parametrize("expose_errors", [True, False])
def test_what_is_not_json_is_told_with_its_place_and_logged_with_type_and_id(build, caplog, kind, named, expose_errors):
    """Case 45: a result and the value of a TaskError."""
    value = {"users": [1, {"tags": {"secret"}}]}
    pipeline = build(expose_errors=expose_errors)
    _, fields = written(pipeline, Reply(kind, "7", value if kind == OK else None, value if kind == ERR else None, task="ADD"))
    (record,) = caplog.records
    assert record.levelname == "ERROR" and not record.exc_info  # there is no line of the task's in it
    assert record.getMessage().startswith(f"{named} (id '7')") and ".users[1].tags" in record.getMessage()
    if expose_errors:
        assert ".users[1].tags" in fields["error"] and "set" in fields["error"]
    else:
        assert re.fullmatch("Internal error, id [0-9a-f]{16}", fields["error"])
        assert fields["error"].split()[-1] in record.getMessage()


def test_an_exception_raised_while_a_result_becomes_text_is_hidden_like_any_other(build, caplog):
    """Case 45: a lazy value may tell of the database."""

    class Lazy(dict):
        def items(self):
            raise ConnectionError("could not connect to db-7 as admin:hunter2")

        values = items

    _, fields = written(build(expose_errors=False), Reply(OK, "7", Lazy(a=1), task="ADD"))
    assert "hunter2" not in fields["error"] and fields["error"].split()[-1] in caplog.text
    assert "hunter2" in caplog.text and "in items" in caplog.text


def test_a_reply_that_is_too_large_is_logged_with_type_and_id(build, caplog):
    """Case 45."""
    written(build(max_reply_size=200), Reply(OK, "7", payload="x" * 300, task="ADD"))
    (record,) = caplog.records
    assert record.levelname == "ERROR" and record.getMessage().startswith("'ADD' (id '7'): the reply ")


def test_a_result_that_contains_itself_is_called_that(build):
    """Case 43."""
    value = []
    value.append([value, value])
    _, fields = written(build(max_reply_size=2**24), Reply(OK, "7", value))
    assert fields["error"] == "the result is not JSON: contains itself"


@pytest.mark.parametrize("value", [[*range(20), "deep"], {"a": 0, "b": "deep"}], ids=["far behind", "beside"])
def test_a_result_that_no_client_would_read_is_refused(build, value):
    deep = 7
    for _ in range(1001):
        deep = [deep]
    result = [deep if item == "deep" else item for item in value] if isinstance(value, list) else {**value, "b": deep}
    _, fields = written(build(max_reply_size=2**24), Reply(OK, "7", result))
    assert "nested more than 1000 deep" in fields["error"]


@pytest.mark.parametrize("function", [lambda payload: sleep(), lambda payload: (yield)], ids=["coroutine", "generator"])
def test_a_coroutine_that_a_plain_function_returns_is_told_as_what_it_is(build, caplog, function):
    """Case 41."""
    pipeline = build({"X": function})
    fields = json.loads(pipeline.write(pipeline.handle(Request("X", None, "7")))[1])
    assert fields["error"].startswith("the result is not JSON: it is a ")
    assert "'X' (id '7')" in caplog.text


async def sleep():
    """Nothing that anybody awaits."""


@pytest.mark.parametrize("error", [TaskError("down"), RemoteError("down")], ids=["TaskError", "RemoteError"])
def test_a_ping_tells_what_the_healthcheck_said_and_the_log_that_it_failed(build, caplog, error):
    """Cases 40 and 45: a state of this server, whoever is to blame."""

    def healthcheck():
        raise error

    assert run(build(healthcheck=healthcheck), PING) == (ERR, "down")
    assert [record.levelname for record in caplog.records] == ["WARNING"] and "the healthcheck failed" in caplog.text


def test_an_unknown_type_leaves_a_warning(build, caplog):
    """Case 45."""
    assert run(build(), "MEOW\n") == (ERR, 'Unknown request type: "MEOW\n"')
    (record,) = caplog.records
    assert record.levelname == "WARNING" and record.getMessage() == "unknown task type: 'MEOW\\n' (id '7')"


@pytest.mark.parametrize("value", [{"code": 42}, "LookupError: nothing", None, [1]])
@pytest.mark.parametrize("expose_errors", [True, False])
def test_a_gateway_passes_on_what_the_server_behind_it_has_said(build, caplog, value, expose_errors):
    """Case 40: raised, in a Future, or from middleware; an error of that server is no fault of this one."""
    caplog.set_level(logging.DEBUG)
    schema = {"RAISED": raising(RemoteError(value)), "FUTURE": lambda _: future_of(error=RemoteError(value))}
    pipeline = build(schema, expose_errors=expose_errors)
    assert run(pipeline, "RAISED") == run(pipeline, "FUTURE") == (ERR, value)
    pipeline.use(lambda request, call_next: raising(RemoteError(value))(request))
    assert run(pipeline, "RAISED") == (ERR, value)
    assert [record.levelname for record in caplog.records] == ["DEBUG"] * 3


def test_a_result_nested_too_deep_gives_an_error(build):
    value = []
    for _ in range(100_000):
        value = [value]
    _, fields = written(build(), Reply(OK, "7", value))
    assert (fields["type"], fields["id"]) == (ERR, "7")


def test_a_result_whose_conversion_fails_in_its_own_way_gives_an_error_too(build):
    class Nasty(dict):
        def items(self):
            raise ZeroDivisionError("not my day")

    _, fields = written(build(), Reply(OK, "7", Nasty(a=1)))
    assert fields["type"] == ERR


def test_a_reply_of_exactly_the_maximum_size_is_sent(build):
    reply = Reply(OK, "7", payload="x" * 100)
    size = len(build().write(reply)[1])
    assert build(max_reply_size=size).write(reply)[0] is reply
    assert build(max_reply_size=size - 1).write(reply)[0].type == ERR


def test_a_reply_that_is_too_large_gives_an_error(build):
    _, fields = written(build(max_reply_size=200), Reply(OK, "7", payload="x" * 300))
    assert (fields["type"], fields["id"]) == (ERR, "7")
    assert "exceeds max_message_size of 200 bytes" in fields["error"]


def test_the_size_of_a_reply_is_counted_in_bytes(build):
    _, fields = written(build(max_reply_size=200), Reply(OK, "7", payload="é" * 100))
    assert fields["type"] == ERR


def test_a_result_that_would_fill_a_gigabyte_is_refused_before_it_is_written(build, monkeypatch):
    written = []
    monkeypatch.setattr(module, "write_reply", lambda codec, reply: written.append(reply) or b"{}")
    text = "x" * 1_000_000
    pipeline = build(max_reply_size=16_000_000)
    for value in ([text] * 1000, {"a": [[text] * 100] * 10}, "x" * 30_000_000):
        assert pipeline.write(Reply(OK, "7", payload=value))[0].type == ERR
        assert pipeline.write(Reply(ERR, "7", error=value))[0].error.startswith("the reply exceeds max_message_size")
    assert {(reply.type, reply.payload) for reply in written} == {(ERR, None)}
    assert all(len(reply.error) < 100 for reply in written)


def test_an_error_that_is_too_large_gives_an_error_that_is_not(build):
    told, text = build(max_reply_size=200).write(Reply(ERR, "7", error="x" * 5000))
    assert len(text) <= 200
    assert "exceeds max_message_size" in told.error


def test_a_reply_whose_id_alone_is_too_large_does_not_exceed_the_maximum_either(build):
    _, text = build(max_reply_size=200).write(Reply(OK, "7" * 500, payload=1))
    assert len(text) <= 200


def test_the_error_in_place_of_a_reply_keeps_the_time_and_the_lack_of_an_id(build):
    told, fields = written(build(), Reply(OK, MISSING, payload={1}, elapsed=2.5))
    assert "id" not in fields
    assert told.elapsed == 2.5


def test_a_pipeline_knows_the_types_of_its_schema(build):
    assert build().knows("ADD")
    assert not build().knows("MEOW")
    assert not build().knows(PING)


# What a pipeline refuses to be made of.


@pytest.mark.parametrize("schema", [None, [], "ADD", add, [("ADD", add)]], ids=["None", "[]", "text", "a function", "pairs"])
def test_a_schema_that_is_no_mapping_is_a_type_error(schema):
    with pytest.raises(TypeError, match="the schema must map task types to factories"):
        Pipeline(
            schema, None, codec=codec_named("json"), max_reply_size=1, expose_errors=True, on_unhealthy=print, logger=LOGGER
        )


@pytest.mark.parametrize("key", [1, None, b"ADD", ("ADD",)])
def test_a_task_type_that_is_no_string_is_a_type_error(build, key):
    with pytest.raises(TypeError, match="a task type must be a string, not "):
        build({key: add})


@pytest.mark.parametrize("factory", [None, 7, "add"])
def test_a_factory_that_cannot_be_called_is_a_type_error(build, factory):
    with pytest.raises(TypeError, match="the factory of 'ADD' must be callable, not "):
        build({"ADD": factory})


@pytest.mark.parametrize("healthcheck", [True, 0, "ok"])
def test_a_healthcheck_that_cannot_be_called_is_a_type_error(build, healthcheck):
    with pytest.raises(TypeError, match="the healthcheck must be callable, not "):
        build(healthcheck=healthcheck)


# Details.


def details_of(pipeline, type="X", payload=None):
    """What is told beside the error, in the reply and in its text."""
    reply, text = pipeline.write(pipeline.handle(Request(type, payload, "7")))
    assert reply.type == ERR and json.loads(text).get("details") == reply.details
    return reply.details


@pytest.mark.parametrize("expose_errors", [True, False])
def test_each_kind_of_failure_has_its_code(build, expose_errors):
    schema = Schema(X=raising(OSError("down")), DEEP=raising(TypeError("within")), SET=lambda _: {1})
    schema.task("ADD")(lambda x, y: x + y)
    pipeline = build(schema, raising_health, expose_errors=expose_errors)
    assert details_of(pipeline, "MEOW") == {"code": "unimplemented"}
    assert details_of(pipeline, "X") == details_of(pipeline, "DEEP") == {"code": "internal"}
    assert details_of(pipeline, "SET") == {"code": "internal"}
    assert details_of(pipeline, "$OOMPA/PING") == {"code": "unavailable"}
    for payload in ([1, 6], {"x": 1}, {"x": 1, "y": 2, "z": 3}):
        assert details_of(pipeline, "ADD", payload) == {"code": "invalid_argument"}
    assert details_of(pipeline, "ADD", {"x": 1, "y": "a"}) == {"code": "internal"}


def raising_health():
    raise OSError("down")


def test_a_task_error_tells_its_own_details_and_none_without(build):
    told = {"code": "not_found", "data": {"id": 7}, "retry_after": 1.5}
    pipeline = build({"X": raising(TaskError("gone", **told)), "PLAIN": raising(TaskError("gone"))})
    assert details_of(pipeline) == told
    assert details_of(pipeline, "PLAIN") is None


@pytest.mark.parametrize("details", [None, {"code": "not_found", "newer": [1]}])
def test_a_gateway_passes_the_details_on_with_the_error(build, details):
    assert details_of(build({"X": raising(RemoteError("gone", details))})) == details


def test_a_failed_ping_is_unavailable_unless_the_healthcheck_says_otherwise(build):
    def says(error):
        return build({}, lambda: raising(error)(None))

    assert details_of(says(TaskError("down")), "$OOMPA/PING") == {"code": "unavailable"}
    assert details_of(says(TaskError("down", data=7)), "$OOMPA/PING") == {"code": "unavailable", "data": 7}
    assert details_of(says(TaskError("down", code="data_loss")), "$OOMPA/PING") == {"code": "data_loss"}


def test_data_that_is_not_json_gives_an_error_that_names_its_place(build, caplog):
    pipeline = build({"X": raising(TaskError("gone", code="not_found", data={"a": {1}}))})
    reply, text = pipeline.write(pipeline.handle(Request("X", None, "7")))
    assert reply.error.startswith("the result is not JSON (at details.data.a): TypeError: ")
    assert reply.details == json.loads(text)["details"] == {"code": "internal"}


class Peer:
    """A connection, as far as a reply needs one."""

    remote_address = ("127.0.0.1", 1)

    def __init__(self, max_message_size):
        self.announced = Announcement(max_message_size=max_message_size)


def test_a_reply_over_what_the_client_takes_becomes_an_error_and_is_told_whose_limit_it_is(build):
    reply = Reply(OK, "7", payload="x" * 500)
    size = len(build().write(reply)[1])
    for limit in (None, size, 5000):
        assert build().write(reply, Peer(limit))[0] is reply
    told, text = build().write(reply, Peer(size - 1))
    assert told.error == f"the reply of {size} bytes exceeds max_message_size of the client of {size - 1} bytes"
    assert told.details == {"code": "resource_exhausted"} and len(text) < size
