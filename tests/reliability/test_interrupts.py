"""Signals on the main thread: whatever they interrupt there, others are told what they wait for, and time limits are kept."""

import concurrent.futures
import random
import signal
import threading

import needs
import pytest
from conftest import CEILING

from oompa import Client, OompaError

#: Interrupts of each run, and with ``--long``.
INTERRUPTS, LONG = 500, 10_000

#: Seconds between two signals of the tests of time limits, and the limit.
BEAT, LIMIT = 0.002, 0.05


@pytest.fixture
def interrupts(request):
    return LONG if request.config.getoption("--long") else INTERRUPTS


def wait(client):
    call = client.dispatch("ECHO", 7)
    return call in concurrent.futures.wait([call], CEILING).done


def wait_for_several(client):
    calls = [client.dispatch("ECHO", number) for number in range(3)]
    return concurrent.futures.wait(calls, CEILING).not_done == set()


def as_completed(client):
    call = client.dispatch("ECHO", 7)
    return list(concurrent.futures.as_completed([call], CEILING)) == [call]


def call_back(client):
    ran = threading.Semaphore(0)
    client.dispatch("ECHO", 7).add_done_callback(lambda call: ran.release())
    return ran.acquire(timeout=CEILING) and not ran.acquire(timeout=0.001)


class Others:
    """Threads that wait for calls of their own without a pause, each in one way."""

    def __init__(self, client, *ways):
        self.told, self.forgotten = 0, []
        self._client, self._over = client, False
        self._threads = [threading.Thread(target=self._run, args=(way,), daemon=True) for way in ways]
        for thread in self._threads:
            thread.start()

    def _run(self, way):
        while not self._over:
            try:
                is_told = way(self._client)
            except concurrent.futures.TimeoutError:
                is_told = False
            self.told += 1
            if not is_told:
                self.forgotten.append(way.__name__)

    def finish(self):
        self._over = True
        for thread in self._threads:
            thread.join(2 * CEILING)
            assert not thread.is_alive()


@pytest.fixture
def on_alarm():
    """Set what SIGALRM does in this test."""
    previous = signal.getsignal(signal.SIGALRM)
    yield lambda handler: signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


def interrupted(use, on_alarm):
    """Repeat ``use`` until a signal handler has raised, at a random moment. It raises once, and sometimes unheard."""
    armed = [True]

    def interrupt(*_):
        armed.clear()
        raise KeyboardInterrupt

    on_alarm(interrupt)
    try:
        _repeat(use, armed)
    except KeyboardInterrupt:
        pass


def _repeat(use, armed):
    """In a frame of its own: some versions of Python raise in a loop as if beside the ``try`` around it."""
    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0002, 0.004))
    while armed:
        use()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # an interrupt in a weak reference's callback
def test_others_are_told_whatever_interrupts_the_thread_that_settles_their_calls(serve, connect, on_alarm, interrupts):
    needs.locks_that_signals_leave_alone()
    client = connect(serve().port, timeout=1.0, attempts=1, tolerance=None, reconnect_interval=0.002)
    others = Others(client, wait, wait_for_several, as_completed, call_back)

    def call():
        try:
            client.call("ECHO", 8)
        except OompaError:  # the connection was given up, with what was being read
            pass

    for _ in range(interrupts):
        interrupted(call, on_alarm)
        if others.forgotten:
            break
    others.finish()
    assert others.forgotten == []
    assert others.told > 10
    assert client.call("ECHO", 9) == 9


# Time limits while a periodic signal runs, as samplers and event loops have one. Python begins a read that a signal interrupts
# anew, with all its time.


@pytest.fixture
def beat(on_alarm):
    """A periodic signal, whose handler does nothing but count."""
    beats = []
    on_alarm(lambda *_: beats.append(1))
    signal.setitimer(signal.ITIMER_REAL, BEAT, BEAT)
    yield beats
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert beats


def call_in_vain(client):
    with pytest.raises(OompaError):
        client.call("HANG", timeout=LIMIT)


def result(client):
    with pytest.raises(concurrent.futures.TimeoutError):
        client.dispatch("HANG").result(LIMIT)


def exception(client):
    with pytest.raises(concurrent.futures.TimeoutError):
        client.dispatch("HANG").exception(LIMIT)


def wait_in_vain(client):
    assert concurrent.futures.wait([client.dispatch("HANG")], LIMIT).done == set()


def close(client):
    client.dispatch("HANG")
    client.close()


def cancelled_elsewhere(client):
    future = client.dispatch("HANG")
    canceller = threading.Timer(LIMIT, future.cancel)
    canceller.start()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()
    canceller.join()


@pytest.mark.parametrize("limited", [call_in_vain, result, exception, wait_in_vain, close, cancelled_elsewhere])
def test_time_limits_hold_on_the_main_thread_while_a_signal_beats(serve, connect, beat, limited):
    hang = threading.Event()
    server = serve({"ECHO": lambda payload: payload, "HANG": lambda payload: hang.wait(CEILING)}, ping_interval=None)
    client = connect(server.port, ping_interval=None, tolerance=None, close_timeout=LIMIT)
    for _ in range(3):
        client.call("ECHO", 1)  # the next caller leads
    before = len(beat)
    try:
        limited(client)
        beats = len(beat) - before
    finally:
        hang.set()
    assert beats * BEAT < LIMIT + 0.1  # by a clock that stands still where this process gets no time


def test_waiting_for_a_connection_ends_in_time_while_a_signal_beats(beat, fake):
    fake.close()
    with Client(f"ws://127.0.0.1:{fake.port}") as client, pytest.raises(OompaError):
        client.wait_connected(LIMIT)
