"""What a test needs beyond the extra ``test``: without it the test is skipped, and says what is missing.

Nothing here asks whether this is CI: `conftest` makes a failure of every skip there.
"""

import importlib
import os
import random
import shutil
import signal
import threading
from types import ModuleType

import pytest


def program(name: str) -> str:
    """The path of a program; skips the test where it is not installed."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def package(name: str) -> ModuleType:
    """A module that the extra ``test-all`` brings; skips the test where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"{error}: pip install -e '.[test-all]'", allow_module_level=True)


def locks_that_signals_leave_alone() -> None:
    """Ends the test as an expected failure on an interpreter that leaves a lock taken when a signal handler raises just as a
    ``with`` begins (CPython 3.14, https://github.com/python/cpython/issues/148874): nothing that is written in Python helps.
    """
    lock = threading.RLock()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def take_until_interrupted() -> None:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.001))
        for _ in range(100_000):  # an exception of a handler is lost now and then
            with lock:
                pass

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(50):
            try:
                take_until_interrupted()
            except KeyboardInterrupt:
                pass
            if lock._is_owned():  # type: ignore[attr-defined]
                pytest.xfail("a signal leaves locks taken on this interpreter (gh-148874)")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
