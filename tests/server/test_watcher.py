"""The watcher: tells what takes long, once; parks when idle; ends at ``close``. The clock is the test's.

Each test is run with what says that it begins and ends, and with a worker, which says so only where it is not looked at.
"""

import queue
import threading
import time

import pytest

from oompa.server import watcher as module
from oompa.server.paces import PATIENCE
from oompa.server.watcher import NEVER, Watcher

CEILING = 10.0  # seconds until a wait counts as failed
LONG = 1.01 * PATIENCE  # past the patience whatever the rounding


class Clock:
    """The time that the watcher sees."""

    def __init__(self):
        self.now = 1000.0
        self.looks = threading.Semaphore(0)

    def __call__(self):
        if threading.current_thread().name == "oompa-watcher":
            self.looks.release()
        return self.now

    def pass_looks(self, count=3):
        """Return when the watcher has looked so many times more."""
        while self.looks.acquire(blocking=False):
            pass
        for _ in range(count):
            assert self.looks.acquire(timeout=CEILING)


class Slow:
    """Says when it is told that it is stuck, and on which thread."""

    def __init__(self):
        self.told = queue.Queue()

    def begin(self, watcher):
        watcher.began(self, PATIENCE)

    def end(self, watcher):
        watcher.ended(self)

    def stuck(self):
        self.told.put(threading.current_thread())

    def await_stuck(self):
        return self.told.get(timeout=CEILING)


class Worker(Slow):
    """Does one thing after the other, as a thread of a connection does."""

    def __init__(self):
        super().__init__()
        self.due = NEVER
        self.is_looked_at = False

    def begin(self, watcher):
        self.due = module.monotonic() + PATIENCE
        if not self.is_looked_at:
            watcher.look_at(self)

    def end(self, watcher):
        self.due = NEVER


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


@pytest.fixture
def watcher(clock):
    watcher = Watcher()
    yield watcher
    watcher.close()


@pytest.fixture(params=[Slow, Worker])
def kind(request):
    return request.param


@pytest.fixture
def worker(kind):
    return kind()


def watchers():
    return [thread for thread in threading.enumerate() if thread.name == "oompa-watcher"]


def wait_until(condition):
    deadline, pause = time.monotonic() + CEILING, threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.001)


def test_a_task_that_takes_long_is_told_on_the_watchers_thread(watcher, clock, worker):
    worker.begin(watcher)
    clock.now += LONG
    assert worker.await_stuck() in watchers()


def test_a_task_is_not_told_before_its_time(watcher, clock, worker):
    worker.begin(watcher)
    clock.now += PATIENCE * 0.99
    clock.pass_looks()
    assert worker.told.empty()
    clock.now += PATIENCE * 0.02
    worker.await_stuck()


def test_a_task_is_told_once_however_long_it_takes(watcher, clock, worker):
    worker.begin(watcher)
    for _ in range(3):
        clock.now += LONG
        clock.pass_looks()
    worker.await_stuck()
    assert worker.told.empty()


def test_a_task_that_has_ended_is_not_told(watcher, clock, worker):
    worker.begin(watcher)
    worker.end(watcher)
    clock.now += LONG
    clock.pass_looks()
    assert worker.told.empty()


def test_each_task_of_a_worker_has_its_own_time(watcher, clock, worker):
    worker.begin(watcher)
    clock.now += PATIENCE * 0.6
    worker.end(watcher)
    worker.begin(watcher)
    clock.now += PATIENCE * 0.6
    clock.pass_looks()
    assert worker.told.empty()
    clock.now += PATIENCE * 0.6
    worker.await_stuck()


def test_a_worker_is_told_again_for_its_next_long_task(watcher, clock, worker):
    for _ in range(3):
        worker.begin(watcher)
        clock.now += LONG
        worker.await_stuck()
        worker.end(watcher)


def test_the_end_of_a_task_that_was_told_is_no_error(watcher, clock, worker):
    worker.begin(watcher)
    clock.now += LONG
    worker.await_stuck()
    worker.end(watcher)
    worker.end(watcher)


def test_many_workers_are_each_told(watcher, clock, kind):
    slow, fast = [kind() for _ in range(50)], [kind() for _ in range(50)]
    for worker in slow + fast:
        worker.begin(watcher)
    for worker in fast:
        worker.end(watcher)
    clock.now += LONG
    for worker in slow:
        worker.await_stuck()
    clock.pass_looks()
    assert all(worker.told.empty() for worker in slow + fast)


def test_there_is_one_thread_and_none_before_the_first_task(watcher, clock, kind):
    assert watchers() == []
    starts = [threading.Thread(target=kind().begin, args=(watcher,)) for _ in range(8)]
    for start in starts:
        start.start()
    for start in starts:
        start.join(CEILING)
    assert [thread.daemon for thread in watchers()] == [True]


def test_an_idle_watcher_parks_and_the_next_task_wakes_it(watcher, clock, worker, monkeypatch):
    monkeypatch.setattr(module, "_IDLE_LOOKS", 0)
    for _ in range(10):
        worker.begin(watcher)
        clock.now += LONG
        worker.await_stuck()
        worker.end(watcher)
        wait_until(lambda: watcher._parked)
    assert len(watchers()) == 1


def test_a_watcher_does_not_park_while_a_task_runs(watcher, clock, worker, monkeypatch):
    monkeypatch.setattr(module, "_IDLE_LOOKS", 0)
    worker.begin(watcher)
    clock.pass_looks(5)
    clock.now += LONG
    worker.await_stuck()


class WakeWithACompanion(threading.Event):
    """An event in whose clearing something else happens: just before the watcher sleeps, and just too late to wake it."""

    def __init__(self, meanwhile):
        super().__init__()
        self.meanwhile = meanwhile

    def clear(self):
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        super().clear()


def test_a_task_that_begins_while_the_watcher_is_about_to_park_is_told(watcher, clock, worker, monkeypatch):
    monkeypatch.setattr(module, "_IDLE_LOOKS", 0)
    begun = threading.Event()

    def begin():
        worker.begin(watcher)
        begun.set()

    watcher._wake = WakeWithACompanion(begin)
    other = type(worker)()
    other.begin(watcher)
    clock.now += LONG
    other.await_stuck()
    assert begun.wait(CEILING)
    clock.now += LONG
    worker.await_stuck()


def test_a_watcher_that_is_closed_while_it_is_about_to_park_ends(watcher, clock, worker, monkeypatch):
    monkeypatch.setattr(module, "_IDLE_LOOKS", 0)
    closing = threading.Thread(target=watcher.close, daemon=True)

    def close():
        closing.start()
        assert watcher._wake.wait(CEILING)

    watcher._wake = WakeWithACompanion(close)
    worker.begin(watcher)
    (thread,) = watchers()
    clock.now += LONG
    worker.await_stuck()
    thread.join(CEILING)
    assert not thread.is_alive()
    closing.join(CEILING)


def test_close_ends_the_thread_and_may_be_called_again(watcher, clock, worker):
    worker.begin(watcher)
    (thread,) = watchers()
    watcher.close()
    assert not thread.is_alive()
    watcher.close()


def test_close_ends_a_parked_thread(watcher, clock, worker, monkeypatch):
    monkeypatch.setattr(module, "_IDLE_LOOKS", 0)
    worker.begin(watcher)
    worker.end(watcher)
    wait_until(lambda: watcher._parked)
    watcher.close()
    assert watchers() == []


def test_close_before_the_first_task_is_no_error(watcher):
    watcher.close()


def test_after_close_a_task_starts_no_thread(watcher, clock, worker):
    watcher.close()
    worker.begin(watcher)
    worker.end(watcher)
    assert watchers() == []


def test_a_worker_may_close_the_watcher_that_tells_it(watcher, clock, kind):
    closed = threading.Event()

    class Closing(kind):
        def stuck(self):
            watcher.close()
            closed.set()

    Closing().begin(watcher)
    clock.now += LONG
    assert closed.wait(CEILING)


def test_without_a_thread_to_be_had_the_next_task_tries_again(watcher, clock, worker, monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        worker.begin(watcher)
        worker.end(watcher)
    assert watchers() == []
    worker.begin(watcher)
    clock.now += LONG
    worker.await_stuck()


def test_a_worker_that_is_looked_at_says_so_no_more_until_it_was_idle(watcher, clock):
    worker = Worker()
    told = []
    watcher.look_at = lambda each, look_at=watcher.look_at: (told.append(each), look_at(each))
    for _ in range(3):
        worker.begin(watcher)  # one thing right after the other, as far as a look can tell
        clock.pass_looks()
    assert told == [worker]
    worker.end(watcher)
    wait_until(lambda: not worker.is_looked_at)
    worker.begin(watcher)
    assert told == [worker, worker]


class Hasty(Worker):
    """Begins anew as soon as the watcher has seen that it is idle, or late."""

    def __init__(self, watcher, clock):
        self.watcher, self.clock, self.is_calm = watcher, clock, False
        super().__init__()

    @property
    def due(self):
        due, is_watched = self._due, threading.current_thread().name == "oompa-watcher"
        if is_watched and not self.is_calm and not self.clock.now < due < NEVER:
            self.is_calm = True
            self.end(self.watcher)
            self.begin(self.watcher)
        return due

    @due.setter
    def due(self, due):
        self._due = due


@pytest.mark.parametrize("first", ["is idle", "is late"])
def test_a_worker_that_begins_as_the_watcher_looks_away_is_looked_at(watcher, clock, first):
    worker = Hasty(watcher, clock)
    worker.begin(watcher)
    if first == "is idle":
        worker.end(watcher)
    else:
        clock.now += LONG
    wait_until(lambda: worker.is_calm)
    clock.pass_looks()
    assert worker.told.empty() and worker.is_looked_at
    clock.now += LONG
    worker.await_stuck()
