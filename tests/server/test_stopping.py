"""How ``run`` is told to stop, by whichever thread a signal is taken."""

import os
import signal
import threading

import pytest
from conftest import CEILING

from oompa.server.stopping import Stop


def taken_by_another_thread(number):
    """Send a signal to this process, for another thread to take: this one, which must be the main one, blocks it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    threading.Timer(0.05, lambda: os.kill(os.getpid(), number)).start()


@pytest.fixture(autouse=True)
def signals_as_they_were():
    """Handlers, mask and wakeup descriptor are put back, and the stop gives up at the ceiling."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    signal.pthread_sigmask(signal.SIG_UNBLOCK, handlers)
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    assert signal.set_wakeup_fd(-1) == -1


@pytest.fixture
def stop():
    """A stop that gives up at the ceiling, and says so."""
    with Stop() as stop:
        limit = threading.Timer(CEILING, stop.request)
        limit.start()
        yield stop
        assert limit.is_alive(), "nothing but the ceiling stopped it"
        limit.cancel()
        limit.join()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it(stop, number):
    threading.Timer(0.05, lambda: os.kill(os.getpid(), number)).start()
    stop.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_another_thread_takes_stops_it(stop, number):
    taken_by_another_thread(number)
    stop.wait()


def test_a_request_of_another_thread_stops_it(stop):
    threading.Timer(0.05, stop.request).start()
    stop.wait()


def test_a_request_from_before_stops_it(stop):
    for _ in range(100_000):  # more than a socket holds
        stop.request()
    stop.wait()


def test_another_signal_runs_its_handler_and_stops_nothing(stop):
    came = []
    previous = signal.signal(signal.SIGUSR1, lambda *_: came.append(stop._is_requested))
    try:
        threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGUSR1)).start()
        threading.Timer(0.15, stop.request).start()
        stop.wait()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert came == [False]


def test_on_another_thread_signals_are_left_alone():
    def run():
        with Stop() as stop:
            handlers.append(signal.getsignal(signal.SIGTERM))
            threading.Timer(0.05, stop.request).start()
            stop.wait()

    handlers = []
    thread = threading.Thread(target=run)
    thread.start()
    thread.join(CEILING)
    assert handlers == [signal.getsignal(signal.SIGTERM)] and not thread.is_alive()


def test_a_request_after_the_end_is_no_error():
    with Stop() as stop:
        pass
    stop.request()
