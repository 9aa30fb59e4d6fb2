"""The callback thread: in order, on one thread, started when needed, ended by ``close``."""

import logging
import threading

import pytest

from oompa.client.callbacks import Callbacks

CEILING = 10.0  # seconds until a wait counts as failed

LOGGER = logging.getLogger("oompa.test.callbacks")


@pytest.fixture
def callbacks():
    callbacks = Callbacks(LOGGER)
    yield callbacks
    callbacks.close()
    callbacks.join(CEILING)


def finish(callbacks):
    """Wait until everything posted so far has run."""
    done = threading.Event()
    callbacks.post(done.set)
    assert done.wait(CEILING)


def threads_named(name):
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_functions_run_in_order_with_their_arguments(callbacks):
    seen = []
    for number in range(100):
        callbacks.post(lambda *args: seen.append(args), number, "x")
    finish(callbacks)
    assert seen == [(number, "x") for number in range(100)]


def test_functions_run_on_one_thread_that_is_not_the_callers(callbacks):
    seen = set()
    for _ in range(20):
        callbacks.post(lambda: seen.add(threading.current_thread()))
    finish(callbacks)
    assert len(seen) == 1
    assert threading.current_thread() not in seen


def test_the_order_of_each_thread_that_posts_is_kept(callbacks):
    seen = []

    def post(name):
        for number in range(100):
            callbacks.post(seen.append, (name, number))

    posters = [threading.Thread(target=post, args=(name,)) for name in range(4)]
    for poster in posters:
        poster.start()
    for poster in posters:
        poster.join(CEILING)
    finish(callbacks)
    for name in range(4):
        assert [number for poster, number in seen if poster == name] == list(range(100))
    assert len(threads_named("oompa-callbacks")) == 1


def test_there_is_no_thread_before_the_first_function(callbacks):
    assert threads_named("oompa-callbacks") == []
    finish(callbacks)
    assert [thread.daemon for thread in threads_named("oompa-callbacks")] == [True]


@pytest.mark.parametrize("kind", [ZeroDivisionError, SystemExit, KeyboardInterrupt])
def test_a_function_that_raises_is_logged_and_the_next_ones_run(callbacks, caplog, kind):
    def fail():
        raise kind("no way")

    callbacks.post(fail)
    finish(callbacks)
    assert [record.getMessage() for record in caplog.records] == ["a callback raised"]
    assert caplog.records[0].exc_info[0] is kind


def test_a_function_may_post_another(callbacks):
    done = threading.Event()
    callbacks.post(callbacks.post, done.set)
    assert done.wait(CEILING)


def test_a_chain_of_a_thousand_posts_needs_no_recursion(callbacks):
    done = threading.Event()

    def step(left):
        if left:
            callbacks.post(step, left - 1)
        else:
            done.set()

    callbacks.post(step, 5000)
    assert done.wait(CEILING)


def test_posting_does_not_wait_for_a_function_that_runs(callbacks):
    free = threading.Event()
    seen = []
    callbacks.post(free.wait, CEILING)
    callbacks.post(seen.append, 1)
    assert seen == []
    free.set()
    finish(callbacks)
    assert seen == [1]


def test_close_runs_what_was_posted_before_and_ends_the_thread(callbacks):
    free, seen = threading.Event(), []
    callbacks.post(free.wait, CEILING)
    for number in range(10):
        callbacks.post(seen.append, number)
    (thread,) = threads_named("oompa-callbacks")
    callbacks.close()
    free.set()
    callbacks.join(CEILING)
    assert seen == list(range(10))
    assert not thread.is_alive()


def test_close_does_not_wait(callbacks):
    free = threading.Event()
    callbacks.post(free.wait, CEILING)
    callbacks.close()
    assert len(threads_named("oompa-callbacks")) == 1
    free.set()


def test_close_without_a_thread_starts_none(callbacks):
    callbacks.close()
    callbacks.join(CEILING)
    assert threads_named("oompa-callbacks") == []


def test_close_may_be_called_again(callbacks):
    finish(callbacks)
    callbacks.close()
    callbacks.close()
    callbacks.join(CEILING)
    callbacks.join(CEILING)


def test_after_close_a_function_runs_on_the_thread_that_posts_it(callbacks):
    seen = []
    finish(callbacks)
    callbacks.close()
    callbacks.post(lambda: seen.append(threading.current_thread()))
    assert seen == [threading.current_thread()]


def test_after_close_a_function_that_raises_is_logged_too(callbacks, caplog):
    callbacks.close()
    callbacks.post(int, "x")
    assert caplog.records[0].exc_info[0] is ValueError


def test_a_callback_may_close_and_join_its_own_thread(callbacks):
    done = threading.Event()

    def close():
        callbacks.close()
        callbacks.join(CEILING)
        done.set()

    callbacks.post(close)
    assert done.wait(CEILING)


def test_join_gives_up_after_its_timeout(callbacks):
    free = threading.Event()
    callbacks.post(free.wait, CEILING)
    callbacks.close()
    callbacks.join(0.01)
    assert len(threads_named("oompa-callbacks")) == 1
    free.set()


class NoThreads:
    """Lets no thread start while it is in force."""

    def __init__(self, monkeypatch):
        self._monkeypatch = monkeypatch

    def __enter__(self):
        def start(thread):
            raise RuntimeError("can't start new thread")

        self._monkeypatch.setattr(threading.Thread, "start", start)

    def __exit__(self, *exc_info):
        self._monkeypatch.undo()


def test_without_a_thread_to_be_had_functions_wait_for_the_next_post(callbacks, monkeypatch, caplog):
    seen = []
    with NoThreads(monkeypatch):
        callbacks.post(seen.append, 1)
        callbacks.post(seen.append, 2)
    assert seen == []
    assert caplog.records[0].getMessage() == "no thread to run callbacks on; they wait"
    callbacks.post(seen.append, 3)
    finish(callbacks)
    assert seen == [1, 2, 3]


def test_close_runs_what_has_waited_for_a_thread_in_vain(callbacks, monkeypatch):
    seen = []
    with NoThreads(monkeypatch):
        callbacks.post(seen.append, 1)
        callbacks.close()
        callbacks.join(CEILING)
    callbacks.join(CEILING)
    assert seen == [1]
