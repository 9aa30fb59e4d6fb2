"""The stores that are there do what Once asks of one; and what does not is found out."""

import time

import pytest

from oompa.once import MemoryStore, SqliteStore, check_store


def test_memory_does_what_a_store_must():
    check_store(MemoryStore, shared=False)


def test_sqlite_does_what_a_store_must(tmp_path):
    stores = []

    def make_store():
        stores.append(SqliteStore(tmp_path / "once.db"))
        return stores[-1]

    check_store(make_store)
    for store in stores:
        store.close()


def test_two_stores_that_have_nothing_in_common_are_found_out():
    with pytest.raises(AssertionError, match="pass shared=False"):
        check_store(MemoryStore)


class Decoding(MemoryStore):
    """Gives text."""

    def get(self, key):
        """The value, as text."""
        value = super().get(key)
        return None if value is None else value.decode("latin-1")


class Deaf(MemoryStore):
    """Tells nobody whether it has swapped."""

    def swap(self, key, old, new, ttl):
        """Swap, and return None."""
        super().swap(key, old, new, ttl)


class Blind(MemoryStore):
    """Does not look whose value it replaces."""

    def swap(self, key, old, new, ttl):
        """Swap what is there."""
        there = self.get(key)
        return (there is None) == (old is None) and super().swap(key, there, new, ttl)


class Lasting(MemoryStore):
    """Lets a value that is put in its own place go when it would have before."""

    def swap(self, key, old, new, ttl):
        """Swap, unless that would change nothing."""
        return self.get(key) == old if old == new else super().swap(key, old, new, ttl)


class Unlocked(MemoryStore):
    """Looks first and writes then."""

    def swap(self, key, old, new, ttl):
        """Swap in two steps."""
        if self.get(key) != old:
            return False
        time.sleep(0.01)  # others come in between
        super().swap(key, self.get(key), new, ttl)
        return True


class Forgetful(MemoryStore):
    """Keeps one value at most."""

    def __init__(self):
        super().__init__(max_entries=1)


@pytest.mark.parametrize("wrong", [Decoding, Deaf, Blind, Lasting, Unlocked, Forgetful])
def test_what_is_no_store_is_found_out(wrong):
    with pytest.raises(AssertionError):
        check_store(wrong, shared=False)
