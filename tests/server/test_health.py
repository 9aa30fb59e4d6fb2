"""The healthcheck as it is asked: one run at a time, shared, and not for ever."""

import gc
import threading
import traceback
import weakref
from contextlib import suppress
from time import monotonic

import flask
import pytest
from conftest import CEILING, wait_until
from deployed import get

from oompa import RemoteError
from oompa.errors import HealthcheckFailed
from oompa.server.health import SharedCheck, _Run


def asked(check, count):
    """Ask from some threads at once; what each got, once ``begin`` has let them go."""
    answers = []

    def ask():
        try:
            answers.append(check())
        except Exception as error:
            answers.append(error)

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, answers


def test_what_the_check_returns_or_raises_is_told():
    assert SharedCheck(lambda: {"disk": 0.5}, CEILING)() == {"disk": 0.5}
    with pytest.raises(ZeroDivisionError):
        SharedCheck(lambda: 1 / 0, CEILING)()


@pytest.mark.parametrize("is_well", [True, False])
def test_whoever_asks_while_a_check_runs_shares_what_comes_of_it(is_well):
    runs, release, waiting = [], threading.Event(), threading.Event()

    def healthcheck():
        runs.append(True)
        waiting.set()
        assert release.wait(CEILING)
        return "well" if is_well else 1 / 0

    check = SharedCheck(healthcheck, CEILING)
    first, answers = asked(check, 1)
    assert waiting.wait(CEILING)
    others, shared = asked(check, 10)
    release.set()
    for thread in first + others:
        thread.join(CEILING)
    assert [type(each) for each in answers + shared] == [str if is_well else ZeroDivisionError] * 11
    assert len(runs) <= 2  # one of the others may have come to its question only when the first was answered


def test_an_error_that_many_share_is_for_each_as_it_was():
    check = SharedCheck(lambda: 1 / 0, CEILING)
    run = _Run(monotonic() + CEILING)
    check._answer(run, None)
    frames = []
    for _ in range(5):
        check._run = run
        with pytest.raises(ZeroDivisionError) as failed:
            check()
        frames.append(len(list(traceback.walk_tb(failed.value.__traceback__))))
    assert len(set(frames)) == 1


def test_what_a_failed_check_has_held_goes_with_its_error_and_not_with_the_collector():
    held = []

    def healthcheck():
        session = threading.local()
        held.append(weakref.ref(session))
        raise OSError("no database")

    check = SharedCheck(healthcheck, CEILING)
    gc.disable()
    try:
        for _ in range(3):
            with suppress(OSError):
                check()
        wait_until(lambda: [ref() for ref in held] == [None] * 3)
    finally:
        gc.enable()


def test_a_check_that_hangs_is_a_failure_for_all_and_runs_once():
    release, runs = threading.Event(), []

    def healthcheck():
        runs.append(True)
        release.wait(CEILING)

    check = SharedCheck(healthcheck, 0.05)
    try:
        for _ in range(3):
            with pytest.raises(HealthcheckFailed, match="takes longer than healthcheck_timeout of 0.05 s"):
                check()
        assert len(runs) == 1
    finally:
        release.set()


def test_a_check_that_has_recovered_runs_anew():
    release = threading.Event()
    check = SharedCheck(lambda: release.wait(CEILING), 0.05)
    with pytest.raises(HealthcheckFailed):
        check()
    release.set()

    def is_well():
        try:
            return check()
        except HealthcheckFailed:  # of the run that has just ended
            return False

    wait_until(is_well)


def test_no_thread_to_be_had_is_a_failure_and_not_for_ever(monkeypatch):
    check = SharedCheck(lambda: "well", CEILING)

    def fail(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            check()
    assert check() == "well"


def test_it_runs_in_the_application_context_of_whoever_asks():
    app = flask.Flask("asking")
    check = SharedCheck(lambda: flask.current_app.name if flask.has_app_context() else None, CEILING)
    with app.app_context():
        assert check() == "asking"
    assert check() is None


def test_health_answers_while_a_check_hangs(serve, connect):
    release = threading.Event()
    server = serve(healthcheck=lambda: release.wait(CEILING), healthcheck_timeout=0.1)
    try:
        assert get(server.port, "/health") == (500, "error")
        with pytest.raises(RemoteError, match="healthcheck_timeout"):
            connect(server).ping().result(CEILING)
        assert get(server.port, "/ready") == (200, "ok")
    finally:
        release.set()
