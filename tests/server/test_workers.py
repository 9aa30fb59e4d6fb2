"""A worker of gunicorn that is followed to its end, without gunicorn."""

import signal
import threading
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from conftest import CEILING, wait_until

from oompa.server import workers


class Worker:
    """What is known of a worker of gunicorn."""

    def __init__(self):
        self.cfg = SimpleNamespace(graceful_timeout=35, is_ssl=False, threads=4)
        self.alive = True
        self.worker_connections = 1000
        self.max_requests = 5

    def set_accept_enabled(self, enabled):
        """Of gunicorn 24 and newer."""

    def handle_exit(self, number=None, frame=None):
        self.alive = False

    handle_quit = handle_exit


class Server:
    """One that is closed when the test says so."""

    drain_timeout, close_timeout, max_connections = 30.0, 2.0, None

    def __init__(self):
        self.limits = []
        self.closed = Future()

    def close(self, timeout=None):
        self.limits.append(timeout)
        return self.closed


@pytest.fixture
def server(monkeypatch):
    """The one server of the process."""
    server = Server()
    monkeypatch.setattr(workers, "_servers", [server])
    monkeypatch.setattr(workers, "_followed", None)
    return server


def end(worker):
    """End it on a thread that is not the main one, as --max-requests does."""
    thread = threading.Thread(target=worker.handle_exit)
    thread.start()
    thread.join(CEILING)


def test_a_worker_lives_until_its_servers_are_closed(server):
    worker = Worker()
    workers.follow(worker)
    assert worker.alive and isinstance(worker, Worker) and type(worker).__name__ == "Worker"
    worker.handle_exit()
    worker.handle_exit()
    wait_until(lambda: server.limits)
    assert worker.alive
    server.closed.set_result(None)
    wait_until(lambda: not worker.alive)
    assert server.limits == [30.0]


def test_one_that_was_told_by_a_signal_accepts_no_more_and_one_that_ends_of_itself_does(server):
    told, ends, asked = Worker(), Worker(), Worker()
    for worker, stop in ((told, told.handle_exit), (ends, lambda: end(ends)), (asked, asked.handle_exit)):
        workers._followed = None
        workers.follow(worker, accepts=lambda: worker is asked)
        stop()
    server.closed.set_result(None)
    wait_until(lambda: not (told.alive or ends.alive or asked.alive))
    assert [worker.worker_connections for worker in (told, ends, asked)] == [0, 1000, 1000]
    assert all(worker.max_requests > 1e9 for worker in (told, ends, asked))  # it says once that it has had enough


def test_draining_that_fails_keeps_no_worker_alive(server, caplog):
    worker = Worker()
    workers.follow(worker)
    server.closed.set_exception(OSError("no"))
    worker.handle_exit()
    wait_until(lambda: not worker.alive)
    assert "draining failed" in caplog.text


def test_a_worker_that_ends_already_is_followed_all_the_same(server):
    worker = Worker()
    worker.handle_exit()
    workers.follow(worker)
    server.closed.set_result(None)
    wait_until(lambda: not worker.alive)
    assert server.limits


def test_the_worker_is_found_by_its_signal_handlers(server):
    worker = Worker()
    assert workers._gunicorn_worker() is None
    before = signal.signal(signal.SIGWINCH, worker.handle_exit)
    try:
        assert workers._gunicorn_worker() is worker
    finally:
        signal.signal(signal.SIGWINCH, before)


def test_without_a_thread_to_follow_it_the_next_connection_tries_again(server, monkeypatch, caplog):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    worker = Worker()
    monkeypatch.setattr(workers, "_hosted", set())
    monkeypatch.setattr(workers, "_gunicorn_worker", lambda: worker)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        workers.hosts(server)
    assert "can't start new thread" in caplog.text
    workers.hosts(server)
    worker.handle_exit()
    server.closed.set_result(None)
    wait_until(lambda: not worker.alive)
    assert server.limits
