"""Values to JSON text and back, strict both ways; both codecs must give the same values and the same errors."""

import collections
import dataclasses
import datetime
import decimal
import enum
import json
import math
import re
import sys
import threading
import uuid

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from oompa.wire import codec as module
from oompa.wire.codec import NOT_JSON, JsonCodec, MsgspecCodec, TooDeep, codec_named, is_deep, place_of_fault

CEILING = 10.0  # seconds until a wait counts as failed

properties = settings(max_examples=300, deadline=None, database=None)


@pytest.fixture(params=["json", "msgspec"], scope="module")
def codec(request):
    return codec_named(request.param)


# Encoding.

TEXTS = [
    (None, b"null"),
    (True, b"true"),
    (False, b"false"),
    (0, b"0"),
    (-7, b"-7"),
    (2**53 + 1, b"9007199254740993"),
    (2**63 - 1, b"9223372036854775807"),
    (2**64, b"18446744073709551616"),
    (-(2**63) - 1, b"-9223372036854775809"),
    (10**40, b"1" + b"0" * 40),
    (1.5, b"1.5"),
    (-0.25, b"-0.25"),
    (1.0, b"1.0"),
    ("", b'""'),
    ("add", b'"add"'),
    ('"\\/', b'"\\"\\\\/"'),
    ("\b\f\n\r\t", b'"\\b\\f\\n\\r\\t"'),
    ("\x00\x1f", b'"\\u0000\\u001f"'),
    ("\x7f", b'"\x7f"'),
    ("é€😀", '"é€😀"'.encode()),
    ("\u2028\ufffe\uffff\U0010ffff", '"\u2028\ufffe\uffff\U0010ffff"'.encode()),
    ([], b"[]"),
    ({}, b"{}"),
    ((), b"[]"),
    ((1, (2,)), b"[1,[2]]"),
    ([1, "a", None, [True]], b'[1,"a",null,[true]]'),
    ({"x": 1, "y": {"z": [6]}}, b'{"x":1,"y":{"z":[6]}}'),
    ({"": 0, "é": 1}, '{"":0,"é":1}'.encode()),
]


@pytest.mark.parametrize("value, text", TEXTS, ids=[repr(value)[:30] for value, _ in TEXTS])
def test_a_json_value_is_written_compactly_in_utf_8(codec, value, text):
    assert codec.encode(value) == text
    assert type(codec.encode(value)) is bytes


@pytest.mark.parametrize("place", [0, 1500, 3000])
def test_a_long_text_is_written_as_short_ones(codec, place):
    before, after = "a" * place, "a" * (3000 - place)
    for character in (*map(chr, range(0x82)), "é", "€", "😀"):
        text = codec.encode(character)[1:-1]
        assert codec.encode(before + character + after) == b'"%b%b%b"' % (before.encode(), text, after.encode())


@pytest.mark.parametrize("text", ["\ud800" + "a" * 3000, "a" * 3000 + "\udfff"], ids=["first", "last"])
def test_a_lone_surrogate_in_a_long_text_never_leaves(codec, text):
    with pytest.raises(ValueError):
        codec.encode(text)


class Colour(str, enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    BIG = 3


class Name(str):
    pass


class Shout(str):
    def __str__(self):
        return "SHOUTED"


class Amount(int):
    def __repr__(self):
        return "Amount"


class Share(float):
    def __repr__(self):
        return "Share"


Point = collections.namedtuple("Point", "x y")

SUBCLASSES = [
    (Size.BIG, b"3"),
    (Colour.RED, b'"red"'),
    (Name("ann"), b'"ann"'),
    (Shout("said"), b'"said"'),
    (Amount(5), b"5"),
    (Share(0.5), b"0.5"),
    (Point(1, 2), b"[1,2]"),
    (collections.OrderedDict(b=1, a=2), b'{"b":1,"a":2}'),
    (collections.defaultdict(list, a=[1]), b'{"a":[1]}'),
    ({Name("ann"): Amount(5)}, b'{"ann":5}'),
]


@pytest.mark.parametrize("value, text", SUBCLASSES, ids=[repr(value)[:30] for value, _ in SUBCLASSES])
def test_a_subclass_of_a_json_type_is_written_as_that_type(codec, value, text):
    assert codec.encode(value) == text
    assert codec.encode([value]) == b"[%b]" % text
    assert codec.encode({"a": (value,)}) == b'{"a":[%b]}' % text


KEYS = [({1: 0}, b'{"1":0}'), ({None: 0}, b'{"null":0}'), ({True: 0}, b'{"true":0}'), ({1.5: 0}, b'{"1.5":0}')]


@pytest.mark.parametrize("value, text", KEYS, ids=repr)
def test_a_key_that_is_a_scalar_becomes_its_json_text_as_in_the_standard_library(codec, value, text):
    assert codec.encode(value) == text == json.dumps(value, separators=(",", ":")).encode()


@dataclasses.dataclass
class Task:
    x: int = 1


class Opaque:
    def __repr__(self):
        return "<opaque>"


NOT_JSON_TYPES = {
    "set": {1},
    "frozenset": frozenset(),
    "bytes": b"abc",
    "bytearray": bytearray(b"abc"),
    "memoryview": memoryview(b"abc"),
    "complex": 1j,
    "object": Opaque(),
    "class": Opaque,
    "function": len,
    "generator": (number for number in [1]),
    "dict view": {}.keys(),
    "deque": collections.deque([1]),
    "datetime": datetime.datetime(2024, 1, 1),
    "date": datetime.date(2024, 1, 1),
    "timedelta": datetime.timedelta(1),
    "decimal": decimal.Decimal("1.5"),
    "uuid": uuid.UUID(int=1),
    "dataclass": Task(),
    "enum": enum.Enum("Plain", "A").A,
    "exception": ValueError("x"),
}


@pytest.mark.parametrize("value", NOT_JSON_TYPES.values(), ids=NOT_JSON_TYPES)
def test_a_type_without_a_json_form_is_a_type_error(codec, value):
    for each in (value, [1, (value,)], {"a": {"b": value}}):
        with pytest.raises(TypeError, match="is not JSON serializable"):
            codec.encode(each)


@pytest.mark.parametrize("key", [(1, 2), b"a", Opaque(), frozenset()], ids=repr)
def test_a_key_without_a_json_form_is_a_type_error(codec, key):
    with pytest.raises(TypeError, match="keys must be str, int, float, bool or None"):
        codec.encode({key: 1})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, Share("nan")], ids=["nan", "inf", "-inf", "subclass"])
def test_nan_and_infinity_never_leave(codec, value):
    for each in (value, [value], ({"a": [{"b": value}]},), {value: 1}, {"a": {value: 1}}):
        with pytest.raises(ValueError):
            codec.encode(each)


LONE = ["\ud800", "\udfff", "a\ud83d", "\ude00\ud83d", "\ud83d\ud83d\ude00", "x" * 1000 + "\udc00"]


@pytest.mark.parametrize("text", LONE, ids=ascii)
def test_lone_surrogates_never_leave(codec, text):
    for each in (text, [{"a": text}], {text: 1}, [{"a": {text: 1}}]):
        with pytest.raises(ValueError):
            codec.encode(each)


def test_a_value_that_contains_itself_is_an_error(codec):
    circular_list, circular_dict = [], {}
    circular_list.append(circular_list)
    circular_dict["a"] = [circular_dict]
    for value in (circular_list, circular_dict):
        with pytest.raises(NOT_JSON):
            codec.encode(value)


def nested(depth, make):
    value = 1
    for _ in range(depth):
        value = make(value)
    return value


@pytest.mark.parametrize("make", [lambda value: [value], lambda value: {"a": value}], ids=["lists", "dicts"])
def test_what_is_nested_too_deep_is_an_error_and_not_a_crash(codec, make):
    with pytest.raises(NOT_JSON):
        codec.encode(nested(200_000, make))


@pytest.mark.parametrize("make", [lambda value: [value], lambda value: {"a": value}], ids=["lists", "dicts"])
def test_what_is_nested_some_hundreds_deep_passes(codec, make):
    value = nested(300, make)
    assert codec.decode(codec.encode(value)) == value


def test_an_integer_of_more_digits_than_python_converts_is_a_value_error(codec):
    huge = 10 ** sys.get_int_max_str_digits()
    with pytest.raises(ValueError, match="Exceeds the limit"):
        codec.encode(huge)
    with pytest.raises(ValueError, match="Exceeds the limit"):
        codec.encode({"a": [huge]})


def test_without_the_encoder_in_c_the_same_is_written_and_refused(monkeypatch):
    monkeypatch.setattr(json.encoder, "c_make_encoder", None)
    codec = JsonCodec()
    assert [codec.encode(value) for value, _ in TEXTS] == [text for _, text in TEXTS]
    for value in (math.nan, [math.inf], {"a": -math.inf}, "\ud800"):
        with pytest.raises(ValueError):
            codec.encode(value)
    for value in NOT_JSON_TYPES.values():
        with pytest.raises(TypeError):
            codec.encode([value])


def test_a_value_whose_methods_raise_is_that_error_and_nothing_worse(codec):
    class Nasty(dict):
        def items(self):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        codec.encode({"a": Nasty(b=1)})


# Decoding.

VALUES = [
    (b"null", None),
    (b"true", True),
    (b"false", False),
    (b"0", 0),
    (b"-0", 0),
    (b"-0.0", -0.0),
    (b"12", 12),
    (b"9007199254740993", 2**53 + 1),
    (b"9223372036854775808", 2**63),
    (b"18446744073709551616", 2**64),
    (b"-9223372036854775809", -(2**63) - 1),
    (b"1" + b"0" * 40, 10**40),
    (b"1.0", 1.0),
    (b"1e3", 1000.0),
    (b"1E-2", 0.01),
    (b"2.2250738585072011e-308", 2.2250738585072011e-308),
    (b"5e-324", 5e-324),
    (b"1e-999", 0.0),
    (b"0.1000000000000000055511151231257827", 0.1),
    (b'""', ""),
    (b'"\\u00e9\\n\\/\\b\\f\\r\\t\\\\\\""', 'é\n/\b\f\r\t\\"'),
    ('"é€😀"'.encode(), "é€😀"),
    (b'"\\ud83d\\ude00"', "😀"),
    (b'"\\u0000"', "\x00"),
    (b"[]", []),
    (b"{}", {}),
    (b' \t\r\n[ 1 , 2 ]\n', [1, 2]),
    (b'{"a":1,"b":[{"c":null}]}', {"a": 1, "b": [{"c": None}]}),
    (b'{"a":1,"a":2}', {"a": 2}),
]


def exactly(value):
    """A form in which 1, 1.0 and True differ, as do 0.0 and -0.0, and the order of keys."""
    if isinstance(value, dict):
        return ("dict", [(exactly(key), exactly(item)) for key, item in value.items()])
    if isinstance(value, list):
        return ("list", [exactly(item) for item in value])
    return (type(value).__name__, repr(value))


@pytest.mark.parametrize("text, value", VALUES, ids=[repr(text)[:40] for text, _ in VALUES])
def test_json_text_is_read_from_text_and_from_bytes(codec, text, value):
    assert exactly(codec.decode(text)) == exactly(codec.decode(text.decode())) == exactly(value)


NOT_JSON_TEXTS = [
    "",
    " ",
    "nul",
    "True",
    "None",
    "undefined",
    "'a'",
    '"',
    '"a',
    '"\\x41"',
    '"\\u12"',
    '"\n"',
    '"\x00"',
    "01",
    "+1",
    "1.",
    ".5",
    "1e",
    "-",
    "0x10",
    "1_000",
    "[1,]",
    "[1 2]",
    "[,1]",
    "[",
    "]",
    "{",
    '{"a"}',
    '{"a":}',
    '{"a":1,}',
    '{"a" 1}',
    "{a:1}",
    "{1:2}",
    "1 2",
    "[] []",
    "/* */ 1",
    "\ufeff1",
    "\xa01",
    "１",
]


@pytest.mark.parametrize("text", NOT_JSON_TEXTS, ids=ascii)
def test_text_that_is_not_json_is_a_value_error(codec, text):
    for each in (text, text.encode()):
        with pytest.raises(ValueError):
            codec.decode(each)


@pytest.mark.parametrize("name", ["NaN", "Infinity", "-Infinity", "nan", "inf", "-inf"])
def test_nan_and_infinity_never_enter(codec, name):
    for form in ("%s", "[%s]", '{"a": [1, %s]}'):
        with pytest.raises(ValueError):
            codec.decode(form % name)


@pytest.mark.parametrize("escapes", ["\\ud800", "\\uDFFF", "\\ud83dx", "\\ude00\\ud83d", "\\ud83d\\u0041"])
def test_lone_surrogates_never_enter(codec, escapes):
    for form in ('"%s"', '["a", "%s"]', '{"a": {"b": "%s"}}', '{"%s": 1}'):
        with pytest.raises(ValueError, match="a lone surrogate is not JSON"):
            codec.decode(form % escapes)


def test_an_escaped_backslash_before_a_u_is_no_surrogate(codec):
    assert codec.decode(b'"\\\\ud800"') == "\\ud800"


@pytest.mark.parametrize(
    "text",
    [b'"\xff"', b'"\xc3"', b'"\xed\xa0\x80"', b'"\xc0\x80"', b'"\xf4\x90\x80\x80"', b'{"\xff":1}', b"\xff\xfe1\x00"],
    ids=repr,
)
def test_bytes_that_are_not_utf_8_are_a_value_error(codec, text):
    with pytest.raises(ValueError):
        codec.decode(text)


@pytest.mark.parametrize(
    "text", ["[" * 200_000 + "]" * 200_000, '{"a":' * 200_000 + "1" + "}" * 200_000], ids=["lists", "dicts"]
)
def test_text_that_is_nested_too_deep_is_an_error_and_not_a_crash(codec, text):
    with pytest.raises(NOT_JSON):
        codec.decode(text)


def test_text_of_an_integer_of_too_many_digits_is_a_value_error(codec):
    with pytest.raises(ValueError):
        codec.decode("[" + "9" * (sys.get_int_max_str_digits() + 1) + "]")


def test_a_number_too_large_for_a_float_is_read_as_in_the_standard_library(codec):
    assert codec.decode("[1e999, -1e999]") == json.loads("[1e999, -1e999]") == [math.inf, -math.inf]


def test_a_codec_may_be_used_by_many_threads_at_once(codec):
    value = {"a": [1.5, "é", {"b": None}], "c" * 50: list(range(50))}
    wrong, barrier = [], threading.Barrier(4)

    def work():
        barrier.wait(CEILING)
        for _ in range(300):
            if codec.decode(codec.encode(value)) != value:
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(CEILING)
    assert wrong == []


DEEP_TEXTS = {
    "lists": ("[", "]"),
    "objects": ('{"a":', "}"),
    "both": ('[{"a":', "}]"),
    "beside others": ('[{},[[]],"]",', "]"),
    "behind brackets in strings": ('["]]]]}}}",', "]"),
    "behind escaped quotes": (r'["\"]",', "]"),
}


@pytest.mark.parametrize("form", DEEP_TEXTS)
@pytest.mark.parametrize("kind", [str, str.encode])
def test_a_text_of_more_than_a_thousand_levels_is_told_by_its_brackets(codec, form, kind):
    """Case 43: 18 KB of them crash CPython 3.13 where threads have small stacks, so it is never decoded."""
    opening, closing = DEEP_TEXTS[form]
    limit = 500 if form == "both" else 1000
    inner = 0 if form != "beside others" else 2
    assert not is_deep(kind(opening * (limit - inner) + "7" + closing * (limit - inner)))
    text = kind(opening * (limit + 1) + "7" + closing * (limit + 1))
    assert is_deep(text)
    with pytest.raises(ValueError, match="nested more than 1000 deep"):
        codec.decode(text)


@pytest.mark.parametrize(
    "text",
    ["[" + ",".join(["[]"] * 5000) + "]", json.dumps([{"a": [1, {"b": {}}]}] * 3000), json.dumps(["[[[["] * 2000),
     json.dumps([r'\"[{[{' * 3] * 2000), json.dumps({"[" * 3000: "{" * 3000})],
    ids=range(5),
)
def test_a_wide_text_is_not_deep(codec, text):
    """Case 43."""
    assert not is_deep(text) and not is_deep(text.encode())
    assert codec.decode(text) == json.loads(text)


@given(st.lists(st.sampled_from(["[", "]", "{", "}", '"', "\\", '\\"', "a", ",", "[[[[", "]]]]"]), max_size=200))
@properties
def test_brackets_are_counted_as_a_parser_counts_them(pieces):
    """Case 43: against a plain loop over the characters."""
    text, depth, deepest, is_quoted, is_escaped = "".join(pieces), 0, 0, False, False
    for each in text:
        if is_quoted:
            is_quoted = each != '"' or is_escaped
            is_escaped = each == "\\" and not is_escaped
        elif each == '"':
            is_quoted = True
        elif each in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif each in "]}":
            depth -= 1
    if "\\" in re.sub(r'"[^"\\]*(?:\\.[^"\\]*)*("|$)', "", text, flags=re.DOTALL):
        return  # a backslash outside a string is no JSON whichever way it is read
    filler = "[" * (1001 - deepest) if deepest else "[" * 1001
    assert is_deep(filler + text)


# An encoder of the user's.


class Money:
    """What JSON has no form for."""

    def __init__(self, amount):
        self.amount = amount


@pytest.mark.parametrize("name", ["json", "msgspec"])
def test_default_is_called_for_what_has_no_json_form(name):
    """Case 44: at any depth, again for what it returns, and for nothing else."""
    asked = []

    def default(value):
        asked.append(value)
        return {"amount": value.amount} if isinstance(value, Money) else sorted(value)

    codec = codec_named(name, default)
    value = {"a": [Money(7), {"b": Money({2, 1})}], "c": {3}, "d": "text"}
    assert json.loads(codec.encode(value)) == {"a": [{"amount": 7}, {"b": {"amount": [1, 2]}}], "c": [3], "d": "text"}
    assert len(asked) == 4
    with pytest.raises(TypeError):  # not for keys
        codec.encode({(1, 2): 3})


@pytest.mark.parametrize("name", ["json", "msgspec"])
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), "\ud800"], ids=ascii)
def test_what_default_returns_is_as_strict_json_as_all_else(name, odd):
    """Case 44."""
    with pytest.raises(ValueError):
        codec_named(name, lambda value: [odd]).encode([Money(1)])


@pytest.mark.parametrize("name", ["json", "msgspec"])
def test_a_default_that_raises_or_comes_to_no_end_is_an_error(name):
    """Case 44."""
    with pytest.raises(LookupError, match="no currency"):
        codec_named(name, raising(LookupError("no currency"))).encode(Money(1))
    with pytest.raises(ValueError):
        codec_named(name, lambda value: [value]).encode(Money(1))


def raising(error):
    """A function that raises."""

    def function(value):
        raise error

    return function


@pytest.mark.parametrize(
    "value, place",
    [
        ({1}, ""),
        ([1, {2}, "never"], "[1]"),
        ({"users": [{"name": "ann"}, {"tags": {1}}]}, ".users[1].tags"),
        ({"a": float("nan")}, ".a"),
        (["ok", ("x", "\ud800")], "[1][1]"),
        ({"a": {(1, 2): 3}}, ".a"),
    ],
    ids=ascii,
)
def test_the_place_of_what_is_not_json_is_named(codec, value, place):
    """Case 45."""

    looked = []

    def is_json(inner):
        looked.append(inner)
        try:
            codec.encode(inner)
        except NOT_JSON:
            return False
        return True

    with pytest.raises(NOT_JSON) as caught:
        codec.encode(value)
    assert place_of_fault(caught.value, value, is_json) == place
    assert "never" not in looked  # what stands behind the first


def test_what_is_nested_too_deep_has_no_place_and_is_not_looked_through(codec):
    """Each level would be encoded with all that is below it."""
    value = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(TooDeep) as caught:
        codec.encode(value)
    assert place_of_fault(caught.value, value, lambda inner: pytest.fail("looked at")) == ""


# Names.


def test_codecs_are_known_by_name():
    assert type(codec_named("json")) is JsonCodec


@pytest.mark.parametrize("name", ["msgspec", "auto"])
def test_msgspec_is_used_where_it_is_installed(name):
    assert type(codec_named(name)) is MsgspecCodec


def test_auto_is_the_standard_library_where_msgspec_is_not_installed(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert type(codec_named("auto")) is JsonCodec


def test_a_codec_that_is_not_installed_is_a_value_error_that_says_how(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs msgspec: pip install 'oompa\[fast\]'"):
        codec_named("msgspec")


@pytest.mark.parametrize("name", ["", "JSON", "pickle", None, 5])
def test_an_unknown_codec_is_a_value_error_that_names_the_codecs(name):
    with pytest.raises(ValueError, match="the codecs are 'json', 'msgspec' and 'auto'"):
        codec_named(name)


# Any value, any text.

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 2**64 - 1])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(), inner, max_size=6),
    max_leaves=25,
)


@given(values)
@properties
def test_any_json_value_comes_back_as_it_went(codec, value):
    text = codec.encode(value)
    assert exactly(codec.decode(text)) == exactly(value)
    assert exactly(codec.decode(text.decode())) == exactly(value)


@given(values)
@properties
def test_what_is_written_is_what_any_json_parser_reads(codec, value):
    def refuse(name):
        raise AssertionError(name)

    assert exactly(json.loads(codec.encode(value), parse_constant=refuse)) == exactly(value)


def outcome(function, argument):
    """What a call comes to: a value, or an error with its text."""
    try:
        return exactly(function(argument))
    except NOT_JSON as error:
        return type(error), str(error)


JSON_CHARACTERS = '{}[]:,"\\/ \t\n\r0123456789.eE+-truefalsnNaInity\\ud800dfé\ud83d'.replace("\ud83d", "😀")


@st.composite
def near_json(draw):
    """The text of a JSON value, written in some way, with a few characters changed."""
    value = draw(values)
    text = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, None, 1, "\t"])))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(text)))
        stop = start + draw(st.integers(0, 2))
        text = text[:start] + draw(st.text(JSON_CHARACTERS, max_size=3)) + text[stop:]
    return text


texts = near_json() | st.text(JSON_CHARACTERS, max_size=12) | st.text(max_size=12)


@given(texts)
@example("-0")
@example("-0.0")
@example("1e999")
@example("123456789012345678901234567890")
@example('{"a":1,"a":{"a":2,"a":3}}')
@example('"\\ud83d\\ud83d\\ude00"')
@example("\x00")
@properties
def test_both_codecs_read_the_same_from_any_text(text):
    strict, fast = JsonCodec(), MsgspecCodec()
    assert outcome(fast.decode, text) == outcome(strict.decode, text)
    assert outcome(fast.decode, text.encode()) == outcome(strict.decode, text.encode())


@given(st.binary(max_size=30) | st.binary(max_size=10).map(lambda inner: b'"' + inner + b'"'))
@example(b'"\xed\xa0\x80"')
@example(b'{"\xc3":1}')
@example(b"\xef\xbb\xbf1")
@properties
def test_both_codecs_read_the_same_from_any_bytes(text):
    assert outcome(MsgspecCodec().decode, text) == outcome(JsonCodec().decode, text)


odd_scalars = st.one_of(
    scalars,
    st.floats(),
    st.text(st.characters(categories=["Cs", "Ll"])),
    st.binary(max_size=4),
    st.decimals(),
    st.datetimes(),
    st.uuids(),
    st.complex_numbers(),
    st.sampled_from([Size.BIG, Colour.RED, Name("x"), Shout("x"), Amount(5), Share(0.5), Share("nan"), Task(), len]),
    st.frozensets(st.integers(), max_size=2),
    st.tuples(st.integers(), st.text(max_size=2)),
    st.builds(Point, st.integers(), st.floats()),
)
odd_keys = st.one_of(
    st.text(max_size=3),
    st.text(st.characters(categories=["Cs"]), max_size=2),
    st.integers(),
    st.floats(),
    st.none() | st.booleans(),
    st.binary(max_size=2),
    st.sampled_from([Name("x"), Size.BIG, (1, 2)]),
)
odd_values = st.recursive(
    odd_scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(odd_keys, inner, max_size=4),
        st.dictionaries(st.text(max_size=3), inner, max_size=4).map(collections.OrderedDict),
    ),
    max_leaves=12,
)


@given(odd_values)
@properties
def test_both_codecs_refuse_the_same_values_and_write_the_same_from_the_others(value):
    strict, fast = JsonCodec(), MsgspecCodec()

    def read_back(codec):
        return lambda value: json.loads(codec.encode(value))

    assert outcome(read_back(fast), value) == outcome(read_back(strict), value)
