"""Which requests and payloads are the same."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_middleware import request_of

from oompa import TaskError
from oompa.once.keys import canonical, digest, key_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def reversed_keys(value):
    """The value with the keys of its objects the other way round."""
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(item) for item in value] if isinstance(value, list) else value


def told_apart(value):
    """The value as JSON knows it: True is not 1, and 1.0 is."""
    if isinstance(value, dict):
        return {key: told_apart(item) for key, item in value.items()}
    if isinstance(value, list):
        return [told_apart(item) for item in value]
    return (type(value) in (int, float), value)


@settings(max_examples=40, deadline=None)
@given(JSON, JSON)
def test_texts_are_equal_where_values_are(one, other):
    assert canonical(one) == canonical(reversed_keys(one)) == canonical(json.loads(json.dumps(one)))
    assert (canonical(one) == canonical(other)) == (told_apart(one) == told_apart(other))


@pytest.mark.parametrize(
    "one, other",
    [
        ({"a": 1, "b": 2}, {"b": 2.0, "a": 1.0}),
        (1e16, 10**16),
        (1.5e300, int(1.5e300)),
        (-0.0, 0),
        ([1.0, "1.0"], [1, "1.0"]),
        ({"1.0": 2.0}, {"1.0": 2}),
        ('a \\" 1.0', 'a \\" 1.0'),
    ],
)
def test_equal_in_json(one, other):
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    "one, other",
    [
        (1, True),
        (0, False),
        ("1", 1),
        ("1.0", "1"),
        (None, "null"),
        (1.1, 1),
        (1e-07, 0),
        (2**53, 2**53 + 1),
        ([1, 2], [2, 1]),
        ({}, []),
        ({"a": None}, {}),
        ('"', '\\"'),
        ('"1.0"', '"1"'),
    ],
)
def test_not_equal_in_json(one, other):
    assert canonical(one) != canonical(other)


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), [float("inf")]])
def test_what_is_not_json_is_refused(value):
    with pytest.raises(TaskError, match="the payload cannot be compared: ") as refused:
        digest("the payload", value)
    assert refused.value.code == "invalid_argument"


def test_what_is_nested_too_deep_is_refused():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(TaskError, match="nested too deep"):
        digest("the payload", deep)
    while deep:
        deep = deep.pop()  # or the collector would go as deep


@pytest.mark.parametrize("key", [1, True, ["k"], {}])
def test_a_key_must_be_a_string(key):
    with pytest.raises(TaskError, match="meta.key must be a string"):
        key_of(request_of(key=key))


def test_an_empty_key_is_one():
    assert key_of(request_of(key="", client=None)) is not None


def test_a_key_and_an_id_that_read_alike_are_two():
    keys = {key_of(request_of(key="1")), key_of(request_of(id="1")), key_of(request_of(key='id","a","1'))}
    assert len(keys) == 3


class User:
    """As Flask-Login has them."""

    def __init__(self, number):
        self.number = number

    def get_id(self):
        """Who it is."""
        return self.number


class Guest(User):
    """Numbered apart."""


def test_an_object_is_known_by_its_class_and_get_id():
    assert key_of(request_of(identity=User("1"))) == key_of(request_of(identity=User("1")))
    others = [User("1"), User("2"), Guest("1"), "1", None]
    assert len({key_of(request_of(identity=other)) for other in others}) == 5


def test_an_identity_that_nothing_tells_from_others_is_refused():
    with pytest.raises(TypeError, match=r"have authenticate return a JSON value.*or an object with get_id\(\)"):
        key_of(request_of(identity=object()))
