"""Requests and replies on the wire: what is written, what is read, and what is refused with which words."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oompa.errors import ProtocolError
from oompa.wire import messages as module
from oompa.wire.codec import NOT_JSON, codec_named
from oompa.wire.messages import (
    ERR,
    MISSING,
    OK,
    OWN_TYPES,
    PING,
    Progress,
    Reply,
    Request,
    RequestWriter,
    UnreadableRequest,
    describe,
    read_progress,
    read_reply,
    read_request,
    write_cancel,
    write_progress,
    write_reply,
)

AN_OBJECT = pytest.param(object(), id="an object")  # its repr differs from process to process

properties = settings(max_examples=200, deadline=None, database=None)


@pytest.fixture(params=["json", "msgspec"], scope="module")
def codec(request):
    return codec_named(request.param)


# Requests out.


@pytest.fixture
def writer(codec):
    return RequestWriter(codec)


def test_a_request_has_a_type_an_id_and_a_payload(writer):
    text = writer.write("ADD", "7", {"x": 1, "y": 6})
    assert json.loads(text) == {"type": "ADD", "id": "7", "payload": {"x": 1, "y": 6}}


def test_a_request_without_a_payload_has_no_such_key(writer):
    assert json.loads(writer.write("NOW", "7")) == {"type": "NOW", "id": "7"}


def test_a_payload_of_none_is_sent_as_null(writer):
    assert json.loads(writer.write("NOW", "7", None)) == {"type": "NOW", "id": "7", "payload": None}


def test_a_request_is_written_anew_each_time_though_its_type_is_remembered(writer):
    assert json.loads(writer.write("ADD", "1", 1)) == {"type": "ADD", "id": "1", "payload": 1}
    assert json.loads(writer.write("ADD", "2")) == {"type": "ADD", "id": "2"}
    assert json.loads(writer.write("SUB", "3", 3)) == {"type": "SUB", "id": "3", "payload": 3}
    assert json.loads(writer.write("ADD", "4", 4)) == {"type": "ADD", "id": "4", "payload": 4}


def test_types_made_up_at_run_time_do_not_fill_the_memory(writer):
    for number in range(3000):
        assert json.loads(writer.write(f"T{number}", "7")) == {"type": f"T{number}", "id": "7"}
    assert len(writer._heads) <= 1000


def test_the_ping_has_the_type_of_the_node_original(writer):
    assert PING == "$OOMPA/PING"
    assert json.loads(writer.write(PING, "7")) == {"type": "$OOMPA/PING", "id": "7"}


@pytest.mark.parametrize("type", ["", 'A"\\\n', "é😀", "\x00", '","id":"8'], ids=ascii)
def test_a_type_is_written_as_a_json_string_whatever_it_holds(writer, type):
    for _ in range(2):
        assert json.loads(writer.write(type, "7")) == {"type": type, "id": "7"}


@pytest.mark.parametrize("payload", [{1, 2}, float("nan"), "\ud800", b"x", AN_OBJECT, [float("inf")]], ids=repr)
def test_a_payload_that_is_not_json_is_refused(writer, payload):
    with pytest.raises(NOT_JSON):
        writer.write("ADD", "7", payload)


def test_a_type_with_a_lone_surrogate_is_refused_each_time(writer):
    for _ in range(2):
        with pytest.raises(ValueError):
            writer.write("\ud800", "7")


# Requests in.


def test_a_request_is_read_with_all_it_has(codec):
    connection = object()
    request = read_request(codec, '{"type":"ADD","id":"7","payload":{"x":1}}', connection)
    assert (request.type, request.id, request.payload, request.connection) == ("ADD", "7", {"x": 1}, connection)


def test_a_request_without_a_payload_has_none(codec):
    assert read_request(codec, '{"type":"ADD","id":"7"}').payload is None


def test_a_request_without_an_id_is_told_from_one_whose_id_is_null(codec):
    assert read_request(codec, '{"type":"ADD"}').id is MISSING
    assert read_request(codec, '{"type":"ADD","id":null}').id is None


def test_a_binary_message_that_holds_json_is_a_request(codec):
    request = read_request(codec, '{"type":"É","id":1}'.encode())
    assert (request.type, request.id) == ("É", 1)


def test_keys_that_are_not_known_are_ignored(codec):
    assert read_request(codec, '{"type":"ADD","id":1,"error":2,"elapsed":3,"connection":4}').connection is None


IDS = ["7", "", 0, 7, -1, 2**70, 1.5, 1e300, True, False, None, [], [1, ["a", None]], {}, {"a": {"b": [1.5]}}, "é😀"]


@pytest.mark.parametrize("id", IDS, ids=repr)
def test_any_json_value_is_an_id_and_is_echoed_as_it_came(codec, id):
    request = read_request(codec, json.dumps({"type": "ADD", "id": id}))
    assert (request.id, type(request.id)) == (id, type(id))
    echoed = json.loads(write_reply(codec, Reply(OK, request.id, 7)))["id"]
    assert (echoed, type(echoed)) == (id, type(id))


@pytest.mark.parametrize("type", ["", "ADD", "toString", "__class__", "é", "\u0000", "$OOMPA/PING", "x" * 1000])
def test_any_string_is_a_type(codec, type):
    assert read_request(codec, json.dumps({"type": type})).type == type


@pytest.mark.parametrize(
    "text",
    ["", "ADD", "{", '{"type":"ADD",}', '{"type":"A","payload":NaN}', '{"type":"A","id":"\\ud800"}', b"\xff", "[" * 200_000],
    ids=lambda text: ascii(text[:30]),
)
def test_what_is_not_json_is_refused_without_an_id(codec, text):
    with pytest.raises(UnreadableRequest, match="^a request must be JSON: ") as refusal:
        read_request(codec, text)
    assert refusal.value.id is None
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize(
    "text, name",
    [
        ("[]", "an array"),
        ('["ADD"]', "an array"),
        ('"ADD"', "a string"),
        ("7", "a number"),
        ("1.5", "a number"),
        ("true", "a boolean"),
        ("null", "null"),
    ],
)
def test_what_is_no_object_is_refused_without_an_id(codec, text, name):
    with pytest.raises(UnreadableRequest, match=f"^a request must be a JSON object, not {name}$") as refusal:
        read_request(codec, text)
    assert refusal.value.id is None


@pytest.mark.parametrize(
    "type, name",
    [
        ("null", "null"),
        ("7", "a number"),
        ("1.5", "a number"),
        ("false", "a boolean"),
        ('["ADD"]', "an array"),
        ('{"ADD":1}', "an object"),
    ],
)
@pytest.mark.parametrize("id", ["7", None, [1], 0])
def test_a_type_that_is_no_string_is_refused_with_the_id(codec, type, name, id):
    with pytest.raises(UnreadableRequest, match=f'^the "type" of a request must be a string, not {name}$') as refusal:
        read_request(codec, '{"id":%s,"type":%s}' % (json.dumps(id), type))
    assert refusal.value.id == id


@pytest.mark.parametrize("text", ["{}", '{"payload":1}', '{"type":null}', '{"type":7}'])
def test_a_request_with_neither_a_type_nor_an_id_is_answered_with_the_id_null(codec, text):
    with pytest.raises(UnreadableRequest) as refusal:
        read_request(codec, text)
    reply = write_reply(codec, Reply(ERR, refusal.value.id, error=str(refusal.value)))
    assert json.loads(reply).get("id", "no id") is None


@pytest.mark.parametrize("id", ["1e999", "-1e999", "[1e999]", '{"a":[{"b":1e999}]}'])
def test_an_id_that_cannot_be_sent_back_is_refused_without_it(codec, id):
    with pytest.raises(UnreadableRequest, match="^the id of a request must be JSON that can be sent back$") as refusal:
        read_request(codec, '{"type":"ADD","id":%s}' % id)
    assert refusal.value.id is None


@pytest.mark.parametrize("type", ["7", "null"])
def test_an_id_that_cannot_be_sent_back_is_not_sent_back_for_a_bad_type_either(codec, type):
    with pytest.raises(UnreadableRequest) as refusal:
        read_request(codec, '{"type":%s,"id":1e999}' % type)
    assert refusal.value.id is None


def test_a_reply_that_cannot_be_read_is_told_with_the_id_of_its_call(codec):
    """Case 31, the other way: a caller waits for it."""
    for text, id in [
        ('{"type":"OK","id":"7","payload":"\\ud83c"}', "7"),
        ('{"type":"OK","payload":NaN,"id":"7"}', "7"),
        ('{"type":"OK","id":"7","payload":%s}' % ("[" * 2000 + "]" * 2000), "7"),
        ('{"type":"OK","id":"7","payload":%s}' % ("1" * 5000), "7"),
        ('{"type":"NO","id":"7"}', None),  # no reply at all, whoever sends it: the call goes on
        ("{", None),
        ("[]", None),
    ]:
        with pytest.raises(ProtocolError) as caught:
            read_reply(codec, text)
        assert caught.value.id == id


@pytest.mark.parametrize("levels", [1000, 1001, 5000])
def test_a_payload_of_more_than_a_thousand_levels_is_a_value_error(codec, levels):
    """Case 43: never a RecursionError, at either end."""
    payload = 7
    for _ in range(levels):
        payload = [payload]
    with pytest.raises(ValueError, match="nested more than 1000 deep"):
        RequestWriter(codec).write("T", "7", [payload])


@pytest.mark.parametrize("payload", ["x" * 5000, ["x"] * 5000, {"a": "[" * 5000}], ids=["string", "list", "brackets"])
def test_a_long_payload_is_written(codec, payload):
    assert json.loads(RequestWriter(codec).write("T", "7", payload)) == {"type": "T", "id": "7", "payload": payload}


def test_an_unreadable_request_is_a_protocol_error():
    assert issubclass(UnreadableRequest, ProtocolError)


# Replies out.


def test_a_success_has_type_ok_the_id_and_a_payload(codec):
    assert json.loads(write_reply(codec, Reply(OK, "7", payload=7))) == {"type": "OK", "id": "7", "payload": 7}


def test_a_failure_has_type_err_the_id_and_an_error(codec):
    text = write_reply(codec, Reply(ERR, "7", error="Error: Zero div"))
    assert json.loads(text) == {"type": "ERR", "id": "7", "error": "Error: Zero div"}


def test_a_payload_or_an_error_of_none_is_null(codec):
    assert json.loads(write_reply(codec, Reply(OK, "7"))) == {"type": "OK", "id": "7", "payload": None}
    assert json.loads(write_reply(codec, Reply(ERR, "7"))) == {"type": "ERR", "id": "7", "error": None}


def test_a_reply_to_a_request_without_an_id_has_none(codec):
    assert json.loads(write_reply(codec, Reply(OK, MISSING, payload=7))) == {"type": "OK", "payload": 7}
    assert json.loads(write_reply(codec, Reply(ERR, MISSING, error="x"))) == {"type": "ERR", "error": "x"}


def test_a_reply_to_the_id_null_has_the_id_null(codec):
    assert json.loads(write_reply(codec, Reply(OK, None, payload=7))) == {"type": "OK", "id": None, "payload": 7}


@pytest.mark.parametrize("value", [{1}, float("nan"), ["\udc00"], AN_OBJECT], ids=repr)
def test_a_result_or_an_error_that_is_not_json_is_refused(codec, value):
    with pytest.raises(NOT_JSON):
        write_reply(codec, Reply(OK, "7", payload=value))
    with pytest.raises(NOT_JSON):
        write_reply(codec, Reply(ERR, "7", error=value))


# Replies in.


@pytest.mark.parametrize(
    "meta, remaining",
    [({"timeout": 2.5}, 2.5), ({"timeout": 3}, 3.0), ({}, None), (None, None)]
    + [({"timeout": wrong}, None) for wrong in (0, -1, True, "2", None, 1e300, [])],
    ids=repr,
)
def test_the_timeout_of_a_request_becomes_its_deadline(codec, meta, remaining, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    request = read_request(codec, json.dumps({"type": "ADD", "meta": meta}))
    assert request.deadline == (None if remaining is None else 100.0 + remaining)
    assert request.remaining() == remaining and request.cancelled is False
    now[0] = 200.0
    assert request.remaining() == (None if remaining is None else 0.0)


class Listening:
    """A connection that keeps what a task tells."""

    remote_address = None

    def __init__(self):
        self.told = []

    def tell_progress(self, request, progress):
        self.told.append(progress)


def test_progress_is_told_to_who_asked_for_it_alone():
    for meta, told in [({"progress": True}, [(1, 2, "x"), (3, None, None)]), ({"progress": 1}, []), ({}, []), (None, [])]:
        request = Request("COPY", connection=Listening(), meta=meta)
        request.progress(1, 2, "x")
        request.progress(3)
        assert request.connection.told == told
    Request("COPY", meta={"progress": True}).progress(1)  # nobody is there


@pytest.mark.parametrize(
    "wrong", [("1",), (None,), (True,), (float("nan"),), (1, float("inf")), (1, "2"), (1, 2, 3), (1, 2, "\ud800")], ids=repr
)
def test_progress_that_cannot_be_sent_is_refused(wrong):
    with pytest.raises((TypeError, ValueError)):
        Request("COPY", connection=Listening(), meta={"progress": True}).progress(*wrong)


def failure(codec, text):
    """An ERR as it is read, its error taken apart."""
    kind, id, error = read_reply(codec, text)
    return kind, id, error.error, error.details


@pytest.mark.parametrize("value", [None, 0, "", [1], {"a": None}])
def test_replies_are_read_with_their_value(codec, value):
    text = json.dumps(value)
    assert read_reply(codec, '{"type":"OK","id":"7","payload":%s}' % text) == (OK, "7", value)
    assert failure(codec, '{"type":"ERR","id":"7","error":%s}' % text) == (ERR, "7", value, None)


def test_a_success_is_read_for_its_payload_and_a_failure_for_its_error(codec):
    both = '"id":"7","payload":1,"error":2}'
    assert read_reply(codec, '{"type":"OK",' + both) == (OK, "7", 1)
    assert failure(codec, '{"type":"ERR",' + both) == (ERR, "7", 2, None)


def test_what_a_reply_lacks_is_none(codec):
    assert read_reply(codec, '{"type":"OK"}') == (OK, None, None)
    assert failure(codec, b'{"type":"ERR"}') == (ERR, None, None, None)


def test_a_failure_is_read_with_its_details(codec):
    details = {"code": "unavailable", "data": [1], "retry_after": 2, "newer": None}
    text = json.dumps({"type": "ERR", "id": "7", "error": "full", "details": details})
    assert failure(codec, text) == (ERR, "7", "full", details)
    error = read_reply(codec, text)[2]
    assert (error.code, error.data, error.retry_after) == ("unavailable", [1], 2.0)


@pytest.mark.parametrize("details", [None, 7, "internal", [], ["code"]])
def test_details_that_are_no_object_are_none(codec, details):
    text = json.dumps({"type": "ERR", "id": "7", "error": "full", "details": details})
    assert failure(codec, text) == (ERR, "7", "full", None)


@pytest.mark.parametrize("text", ["", "OK", '{"type":"OK","payload":Infinity}', b"\xff\xff", "{" * 200_000, '{"type":"OK"} x'])
def test_a_reply_that_is_not_json_is_a_protocol_error(codec, text):
    with pytest.raises(ProtocolError, match="^a reply must be JSON: ") as refusal:
        read_reply(codec, text)
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize("text, name", [("[]", "an array"), ('"OK"', "a string"), ("7", "a number"), ("null", "null")])
def test_a_reply_that_is_no_object_is_a_protocol_error(codec, text, name):
    with pytest.raises(ProtocolError, match=f"^a reply must be a JSON object, not {name}$"):
        read_reply(codec, text)


@pytest.mark.parametrize("type", ['"ok"', '"ADD"', "null", "true", "1", '["OK"]', '{"OK":1}', '"%s"' % ("x" * 10_000)])
def test_a_reply_of_another_type_is_a_protocol_error(codec, type):
    with pytest.raises(ProtocolError, match="^a reply must have type OK or ERR, not ") as refusal:
        read_reply(codec, '{"id":"7","type":%s}' % type)
    assert len(str(refusal.value)) < 300


def test_a_reply_without_a_type_is_a_protocol_error(codec):
    with pytest.raises(ProtocolError, match="not None$"):
        read_reply(codec, '{"id":"7","payload":7}')


@pytest.mark.parametrize("type", ["$OOMPA/PROGRESS", "$OOMPA/", "$OOMPA/OK"])
def test_a_message_of_the_librarys_own_is_read_with_its_payload(codec, type):
    assert read_reply(codec, json.dumps({"type": type, "id": "7", "payload": 7, "error": 8})) == (type, "7", 7)


# Meta and details.


def test_the_meta_of_a_request_goes_in_place_of_its_last_brace(writer):
    for text in (writer.write("ADD", "7", {"x": 1}), writer.write("ADD", "7")):
        whole = json.loads(text[:-1] + writer.write_meta(2.5, {"key": "k"}))
        assert whole == {**json.loads(text), "meta": {"timeout": 2.5, "key": "k"}}
        for meta in (None, {}):
            assert json.loads(text[:-1] + writer.write_meta(1e-05, meta)) == {**json.loads(text), "meta": {"timeout": 1e-05}}


def test_the_text_that_cancels_names_the_request_and_has_no_id_of_its_own():
    assert json.loads(write_cancel("a-7")) == {"type": "$OOMPA/CANCEL", "payload": {"id": "a-7"}}


@pytest.mark.parametrize("progress", [Progress(1), Progress(0.5, 2, "copying"), Progress(3, None, "")])
def test_progress_is_read_as_it_was_written(codec, progress):
    kind, id, payload = read_reply(codec, write_progress(codec, "7", progress))
    assert (kind, id, read_progress(payload)) == ("$OOMPA/PROGRESS", "7", progress)


@pytest.mark.parametrize(
    "payload", [None, 7, [], {}, {"done": "1"}, {"done": True}, {"done": 1, "total": "2"}, {"done": 1, "message": 7}], ids=str
)
def test_progress_that_cannot_be_read_is_none(payload):
    assert read_progress(payload) is None


@pytest.mark.parametrize("meta", [{"a": float("nan")}, {"a": object()}, {"a": "\ud800"}], ids=["NaN", "object", "surrogate"])
def test_meta_that_is_not_json_is_refused(writer, meta):
    with pytest.raises(NOT_JSON):
        writer.write_meta(1.0, meta)


@pytest.mark.parametrize("meta, read", [('{"key":"k"}', {"key": "k"}), ("{}", {}), ("null", {}), ("7", {}), ('["key"]', {})])
def test_the_meta_of_a_request_is_an_object_or_none_at_all(codec, meta, read):
    assert read_request(codec, '{"type":"ADD","id":"7","meta":%s}' % meta).meta == read


def test_each_request_without_meta_has_an_empty_one_of_its_own(codec):
    first, second = (read_request(codec, '{"type":"ADD","id":"7"}') for _ in range(2))
    assert first.meta == second.meta == {} and first.meta is not second.meta


@pytest.mark.parametrize("id", ["7", MISSING], ids=["id", "none"])
def test_the_details_of_an_error_stand_beside_it_and_an_ok_has_none(codec, id):
    details = {"code": "not_found", "data": [1]}
    told = json.loads(write_reply(codec, Reply(ERR, id, error="x", details=details)))
    assert (told["error"], told["details"]) == ("x", details)
    assert "details" not in json.loads(write_reply(codec, Reply(ERR, id, error="x")))
    assert "details" not in json.loads(write_reply(codec, Reply(OK, id, 7, details=details)))


# What a handler sees.


def test_the_attributes_of_a_request_are_assignable():
    request = Request("ADD", {"x": 1}, "7")
    request.type, request.payload, request.id = "SUB", [1], "8"
    assert (request.type, request.payload, request.id) == ("SUB", [1], "8")


def test_a_request_and_a_reply_show_what_they_are():
    assert repr(Request("ADD", {"x": 1}, "7")) == "<Request 'ADD' id='7'>"
    assert repr(Reply("OK", "7", 7)) == "<Reply OK id='7'>"
    assert repr(Reply("OK", "7", 7, task="ADD")) == "<Reply OK to 'ADD' id='7'>"  # Case 51
    assert repr(Reply("ERR", MISSING)) == "<Reply ERR id=MISSING>"


def test_a_reply_has_a_type_an_id_a_payload_an_error_and_the_time_it_took():
    reply = Reply(OK, "7", payload=7, elapsed=0.25)
    assert (reply.type, reply.id, reply.payload, reply.error, reply.elapsed) == ("OK", "7", 7, None, 0.25)


# What the wire says of an exception.


class Custom(Exception):
    pass


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    "error, text",
    [
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (Custom("why"), "Custom: why"),
        (Custom(), "Custom"),
        (Custom(""), "Custom"),
        (KeyError("x"), "KeyError: 'x'"),
        (Custom(1, 2), "Custom: (1, 2)"),
        (Unprintable(), "Unprintable"),
        (SystemExit(3), "SystemExit: 3"),
        (Custom("é😀"), "Custom: é😀"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_an_exception_is_its_class_name_and_its_message(error, text):
    assert describe(error) == text


def test_a_message_with_a_lone_surrogate_can_be_sent_all_the_same(codec):
    text = describe(Custom("file \udcff"))
    assert text == "Custom: file \\udcff"
    assert json.loads(codec.encode(text)) == text


# Any message.

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(st.text(), st.text("abcXYZ019-_", min_size=1), values | st.just(MISSING))
@properties
def test_any_request_that_is_written_is_read_as_it_was(codec, type, id, payload):
    request = read_request(codec, RequestWriter(codec).write(type, id, payload))
    assert (request.type, request.id, request.payload) == (type, id, None if payload is MISSING else payload)


@given(values, values)
@properties
def test_any_reply_that_is_written_is_read_as_it_was(codec, id, value):
    assert read_reply(codec, write_reply(codec, Reply(OK, id, payload=value))) == (OK, id, value)
    assert failure(codec, write_reply(codec, Reply(ERR, id, error=value))) == (ERR, id, value, None)


@given(st.text() | st.binary() | values.map(json.dumps))
@properties
def test_any_message_is_a_request_or_an_error_that_can_be_answered(codec, text):
    try:
        id = read_request(codec, text).id
    except UnreadableRequest as refusal:
        id = refusal.id
        assert codec.encode(str(refusal))
    json.loads(write_reply(codec, Reply(ERR, id, error="x")))


@given(st.text() | st.binary() | values.map(json.dumps))
@properties
def test_any_message_is_a_reply_or_a_protocol_error(codec, text):
    try:
        kind, _, _ = read_reply(codec, text)
    except ProtocolError:
        return
    assert kind in (OK, ERR) or kind.startswith(OWN_TYPES)
