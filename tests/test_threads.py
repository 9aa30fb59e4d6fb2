"""Threads that are started once, whatever happens meanwhile."""

import threading
import time

import pytest
from conftest import CEILING

from oompa.threads import OwnedThread


@pytest.fixture
def running():
    """A thread that runs until its event is set, and how often it was started."""
    over, starts = threading.Event(), []

    def run():
        starts.append(threading.current_thread())
        over.wait(CEILING)

    thread = OwnedThread("test-owned", run)
    yield thread, starts
    over.set()
    for each in starts:
        each.join(CEILING)


def test_it_is_started_once(running):
    thread, starts = running
    for _ in range(3):
        thread.start()
    assert thread.is_started and [each.name for each in starts] == ["test-owned"] and starts[0].daemon


@pytest.mark.parametrize("method", ["__init__", "start"])
@pytest.mark.parametrize("error", [RuntimeError, MemoryError, KeyboardInterrupt])
def test_where_no_thread_was_started_the_next_call_tries_again(running, monkeypatch, method, error):
    thread, starts = running

    def refuse(self, *args, **options):
        raise error("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, method, refuse)
        with pytest.raises(error):
            thread.start()
    assert not thread.is_started
    thread.start()
    assert thread.is_started


def test_an_interrupted_start_starts_no_second_one(running, monkeypatch):
    thread, starts = running
    start = threading.Thread.start

    def interrupted(self):
        start(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            thread.start()
    thread.start()
    assert len(starts) == 1


def test_a_thread_that_runs_though_its_start_was_interrupted_is_the_one(running, monkeypatch):
    thread, starts = running
    start = threading.Thread.start

    def interrupted(self):
        start(self)
        deadline = time.monotonic() + CEILING
        while not starts:
            assert time.monotonic() < deadline
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            thread.start()
    assert thread.is_started
    thread.start()
    assert len(starts) == 1


def test_it_is_joined_until_the_deadline_and_never_from_within():
    over, joined = threading.Event(), threading.Event()

    def run():
        thread.join(time.monotonic() + CEILING)  # which would never end
        joined.set()
        over.wait(CEILING)

    thread = OwnedThread("test-owned", run)
    thread.join(time.monotonic() + CEILING)  # not started: nothing to wait for
    thread.start()
    assert joined.wait(CEILING)
    thread.join(time.monotonic())
    over.set()
    thread.join(time.monotonic() + CEILING)
