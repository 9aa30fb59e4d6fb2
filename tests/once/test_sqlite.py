"""The store in a file, beyond what every store does."""

import multiprocessing
import sqlite3
import sys
import threading

import pytest
from conftest import CEILING

from oompa.once import SqliteStore

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # a fork beside threads is what is tried


@pytest.fixture
def store(tmp_path):
    """A store in a new file."""
    store = SqliteStore(tmp_path / "once.db")
    yield store
    store.close()


def test_values_outlive_the_process(store, tmp_path):
    store.swap("a", None, b"1", 60.0)
    store.close()
    store.close()
    again = SqliteStore(str(tmp_path / "once.db"))
    assert again.get("a") == b"1"
    again.close()
    assert store.get("a") == b"1", "a store that was closed is opened by its next use"


def test_what_is_over_is_removed_from_the_file(store, monkeypatch, tmp_path):
    monkeypatch.setattr("oompa.once.sqlite._SWEEP", 4)
    now = [100.0]
    monkeypatch.setattr("oompa.once.sqlite.time", lambda: now[0])
    for key in "abc":
        store.swap(key, None, b"1", 60.0)
    now[0] = 200.0
    store.swap("d", None, b"1", 60.0)
    with sqlite3.connect(tmp_path / "once.db") as connection:
        assert connection.execute("SELECT key FROM oompa_once").fetchall() == [("d",)]
    connection.close()


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_fork_opens_the_file_for_itself(store):
    store.swap("a", None, b"1", 60.0)
    inherited = store._connection
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe()

    def child():
        sender.send((store.get("a"), store.swap("a", b"1", b"2", 60.0), store._connection is inherited))

    process = context.Process(target=child)
    process.start()
    assert receiver.poll(CEILING) and receiver.recv() == (b"1", True, False)
    process.join(CEILING)
    receiver.close(), sender.close(), process.close()
    assert store.get("a") == b"2" and store._connection is inherited


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_fork_does_not_wait_for_a_thread_that_only_its_parent_has(store):
    store.swap("a", None, b"1", 60.0)
    held, release = threading.Event(), threading.Event()

    def hold():
        with store._lock:
            held.set()
            release.wait(2 * CEILING)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(CEILING)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe()
    process = context.Process(target=lambda: sender.send(store.get("a")))
    process.start()
    try:
        assert receiver.poll(CEILING) and receiver.recv() == b"1"
    finally:
        process.kill(), process.join(CEILING), process.close()
        receiver.close(), sender.close()
        release.set()
        thread.join(CEILING)


def test_what_is_no_database_is_refused(tmp_path):
    (tmp_path / "text").write_text("no database at all, but long enough to be looked at" * 100)
    with pytest.raises(sqlite3.DatabaseError, match="not a database: '.*text', a file that"):
        SqliteStore(tmp_path / "text")


def test_a_file_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(sqlite3.OperationalError, match="unable to open database file: '.*once.db', a file that"):
        SqliteStore(tmp_path / "none" / "once.db")


@pytest.mark.parametrize("path", ["", ":memory:"])
def test_what_no_other_process_could_see_is_refused(path):
    with pytest.raises(ValueError, match=r"path must be that of a file, .* MemoryStore\(\)"):
        SqliteStore(path)


def test_it_names_its_file(store, tmp_path):
    assert repr(store) == f"<SqliteStore '{tmp_path / 'once.db'}'>"
