"""The store in memory, beyond what every store does."""

import pytest

from oompa.once import MemoryStore


def test_beyond_max_entries_the_one_written_first_is_forgotten():
    store = MemoryStore(max_entries=2)
    for key in "ab":
        assert store.swap(key, None, b"1", 60.0)
    assert store.swap("a", b"1", b"1", 60.0)  # a lease that is renewed
    assert store.swap("c", None, b"1", 60.0)
    assert [store.get(key) for key in "abc"] == [b"1", None, b"1"]
    assert repr(store) == "<MemoryStore of 2>"


def test_what_is_taken_out_makes_room():
    store = MemoryStore(max_entries=2)
    for key in "ab":
        store.swap(key, None, b"1", 60.0)
    store.swap("b", b"1", None, 60.0)
    store.swap("c", None, b"1", 60.0)
    assert [store.get(key) for key in "abc"] == [b"1", None, b"1"]


@pytest.mark.parametrize("limit", [0, -1, 1.5, None, "many"])
def test_a_limit_is_a_whole_number_above_0(limit):
    with pytest.raises((TypeError, ValueError), match="max_entries must be"):
        MemoryStore(limit)
