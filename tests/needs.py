"""What a test needs beyond the extra ``test``: without it the test is skipped, and says what is missing.

Nothing here asks whether this is CI: `conftest` makes a failure of every skip there.
"""

import importlib
import os
import shutil
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
        pytest.skip(f"{error}: pip install -e '.[test-all]'")
