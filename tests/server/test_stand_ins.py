"""Threads that are kept and used again."""

import sys
import threading
import time
import weakref

import pytest
from conftest import CEILING, wait_until

from oompa.server.stand_ins import StandIns


@pytest.fixture
def stand_ins():
    made = StandIns()
    yield made
    made.close()


def stand_ins_alive():
    return sum(thread.name == "oompa-stand-in" for thread in threading.enumerate())


def run(stand_ins):
    """Run something, wait until its thread is idle again, and tell which it was."""
    ran = []
    stand_ins.run(lambda: ran.append(threading.get_ident()))
    wait_until(lambda: ran and len(stand_ins._idle) == stand_ins_alive())
    return ran[0]


def test_thread_that_is_free_is_used_again(stand_ins):
    assert len({run(stand_ins) for _ in range(50)}) == 1


def test_the_one_that_was_free_last_is_used_first(stand_ins):
    together = threading.Barrier(3)
    for _ in range(2):
        stand_ins.run(lambda: together.wait(CEILING))
    together.wait(CEILING)
    wait_until(lambda: len(stand_ins._idle) == 2)
    last = stand_ins._idle[-1].thread.ident
    assert [run(stand_ins) for _ in range(3)] == [last] * 3


def test_thread_that_is_idle_too_long_ends():
    stand_ins = StandIns(keep=0.01)
    stand_ins.run(lambda: None)
    wait_until(lambda: stand_ins_alive() == 0)
    assert run_once(stand_ins)
    stand_ins.close()


def run_once(stand_ins):
    done = threading.Event()
    stand_ins.run(done.set)
    return done.wait(CEILING)


def test_nothing_is_lost_to_threads_whose_time_is_just_up():
    """Work and the end of a thread's time meet again and again."""
    stand_ins = StandIns(keep=0.0001)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(2000):
            assert run_once(stand_ins)
            time.sleep(0.0001)
    finally:
        sys.setswitchinterval(interval)
        stand_ins.close()
    wait_until(lambda: stand_ins_alive() == 0)


def test_close_ends_idle_threads_now_and_busy_ones_when_they_are_done():
    stand_ins, release = StandIns(), threading.Event()
    stand_ins.run(lambda: release.wait(CEILING))
    run_idle = threading.Event()
    stand_ins.run(run_idle.set)
    assert run_idle.wait(CEILING)
    wait_until(lambda: len(stand_ins._idle) == 1)
    stand_ins.close()
    assert stand_ins_alive() == 1
    release.set()
    wait_until(lambda: stand_ins_alive() == 0)


def test_work_that_was_done_is_not_kept_alive(stand_ins):
    class Work:
        def __call__(self):
            pass

    work = Work()
    alive = weakref.ref(work)
    stand_ins.run(work)
    del work
    wait_until(lambda: alive() is None)
