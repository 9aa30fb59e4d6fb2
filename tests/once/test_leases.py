"""Leases are renewed while they are held, by one thread that comes and goes."""

import threading

import pytest
from conftest import CEILING, wait_until

from oompa.once import MemoryStore
from oompa.once.leases import Leases


class Store(MemoryStore):
    """Notes each swap; one raises, where it is told to. What is renewed late, on a busy machine, is there all the same."""

    def __init__(self):
        super().__init__()
        self.swapped = threading.Semaphore(0)
        self.error = None

    def swap(self, key, old, new, ttl):
        """Swap, and note it."""
        self.swapped.release()
        if self.error is not None:
            raise self.error
        return super().swap(key, old, new, 600.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Looks are short."""
    monkeypatch.setattr("oompa.once.leases._LOOK", 0.002)


def threads():
    """Those that renew."""
    return [thread for thread in threading.enumerate() if thread.name == "oompa-once"]


def test_one_thread_renews_all_and_ends_by_itself():
    store = Store()
    leases = Leases(store)
    for number in range(50):
        store.swap(f"{number}", None, b"%d" % number, 0.3)
        leases.began(f"{number}", b"%d" % number, 0.3)
    assert len(threads()) == 1
    for _ in range(200):
        assert store.swapped.acquire(timeout=CEILING)
    assert all(store.get(f"{number}") for number in range(50)) and len(threads()) == 1
    for number in range(50):
        leases.ended(b"%d" % number)
    wait_until(lambda: not threads())
    leases.began("again", b"again", 60.0)
    assert len(threads()) == 1
    leases.ended(b"again")


def test_a_lease_that_has_ended_is_not_renewed():
    store = Store()
    leases = Leases(store)
    leases.began("a", b"1", 3.0)
    leases.ended(b"1")
    wait_until(lambda: not threads())
    assert not store.swapped.acquire(blocking=False)


def test_a_store_that_cannot_be_reached_is_tried_again(caplog):
    store = Store()
    leases = Leases(store)
    store.error = OSError("no store")
    leases.began("a", b"1", 0.03)
    for _ in range(3):
        assert store.swapped.acquire(timeout=CEILING)
    leases.ended(b"1")
    assert "a lease could not be renewed" in caplog.text and "no store" in caplog.text


def test_a_lease_that_is_lost_is_told(caplog):
    store = Store()
    leases = Leases(store)
    leases.began("a", b"1", 0.03)
    wait_until(lambda: "a lease was lost" in caplog.text)
    leases.ended(b"1")


def test_without_a_thread_the_next_lease_tries_again(monkeypatch, caplog):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    leases = Leases(Store())
    with monkeypatch.context() as patched:
        patched.setattr("oompa.once.leases.OwnedThread.start", refuse)
        leases.began("a", b"1", 60.0)
    assert "no thread to renew leases" in caplog.text and not threads()
    leases.began("b", b"2", 60.0)
    assert len(threads()) == 1
    for record in (b"1", b"2"):
        leases.ended(record)


def test_a_fork_has_neither_the_leases_nor_the_thread(monkeypatch):
    store = Store()
    leases = Leases(store)
    leases.began("a", b"1", 60.0)
    monkeypatch.setattr("os.getpid", lambda: -1)
    leases.began("b", b"2", 60.0)
    assert list(leases._held) == [b"2"] and len(threads()) == 2  # the other one is the parent's, here
    leases.ended(b"2")
