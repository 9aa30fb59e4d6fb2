"""How long the text of a value will be: what is told before it is made, and what is found out at once."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oompa.wire.codec import JsonCodec
from oompa.wire.sizes import is_longer

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=50),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner) | st.tuples(inner, inner),
)


LONG = [
    "x" * 101,
    ["x" * 50] * 3,
    [0] * 51,
    {"a": ["x" * 102]},
    ({"a": "x" * 50}, ("x" * 50,)),
    [[[]]] * 51,
    {number: 0 for number in range(51)},
]


@pytest.mark.parametrize("value", LONG, ids=lambda value: repr(value)[:20])
def test_a_value_whose_text_is_surely_too_long_is_known_without_its_text(value):
    assert is_longer(value, 100)
    assert not is_longer(value, len(JsonCodec().encode(value)))


def circles():
    """Values that contain themselves, each in its own way."""
    thread, tree, sibling = [], [], {}
    thread.append([thread])
    tree.extend([tree, tree])
    sibling["rows"] = [{"parent": sibling} for _ in range(5000)]
    deep = [tree]
    for _ in range(500):
        deep = [deep]
    return {"a thread": thread, "a tree": tree, "rows that know their table": sibling, "far down": deep}


@pytest.mark.parametrize("circle", circles())
def test_a_value_that_contains_itself_is_found_out_at_once(circle):
    """Case 43: it burned seconds of CPU, and was called too large."""
    started = time.thread_time()
    with pytest.raises(ValueError, match="^contains itself$"):
        is_longer(circles()[circle], 16 * 1024 * 1024)
    assert time.thread_time() - started < 0.5


def test_a_value_that_is_shared_contains_nothing_of_itself():
    """Case 43."""
    row = {"x": 1}
    assert not is_longer([[row] * 5000, [row] * 5000], 16 * 1024 * 1024)


@pytest.mark.parametrize("make", [lambda inner: [inner], lambda inner: {"a": inner}, lambda inner: (inner,)])
def test_a_value_of_a_thousand_levels_is_measured_and_one_more_is_refused(make):
    """Case 43."""
    value = 7
    for _ in range(1000):
        value = make(value)
    assert not is_longer(value, 16 * 1024 * 1024)
    with pytest.raises(ValueError, match="nested more than 1000 deep"):
        is_longer(make(value), 16 * 1024 * 1024)


def test_a_few_items_stand_for_all():
    """Most replies are not looked through: what others than those looked at hold is found when the text is measured."""
    text = "x" * 1000
    assert is_longer([{"a": [text] * 1000}] * 1000, 1_000_000)
    assert is_longer([*range(100), [text] * 1000], 800)  # long enough to be looked through
    assert not is_longer([*range(100), [text] * 1000], 100_000)


@pytest.mark.parametrize("value", [None, 10**200, 1.5, True, object(), {1}, b"x" * 1000, object], ids=lambda v: str(type(v)))
def test_what_is_no_text_and_no_container_is_not_known_to_be_too_long(value):
    assert not is_longer(value, 1)


@given(values)
@settings(max_examples=300, deadline=None, database=None)
def test_no_value_is_taken_for_longer_than_it_is(value):
    assert not is_longer(value, len(JsonCodec().encode(value)))
