"""The fixtures ``oompa_connect``, ``oompa_serve`` and ``oompa_stub``: ``oompa.testing``, ended with the test. And a look at
what each test leaves: one that leaves a client open has an error, unless it is marked ``oompa_leaves_open``.

Imports nothing of oompa before a test asks for it: what is imported before the coverage of a user begins is missing in it.
"""

import sys
from contextlib import ExitStack
from typing import Any, Callable, Generator, Iterator

import pytest

_MARK = "oompa_leaves_open"


@pytest.fixture
def oompa_connect() -> Iterator[Callable[..., Any]]:
    """``oompa_connect(server, **client_options)``: a client joined to the server, until the test ends."""
    from .testing import connect

    with ExitStack() as stack:
        yield lambda server, *methods, **options: stack.enter_context(connect(server, *methods, **options))


@pytest.fixture
def oompa_serve() -> Iterator[Callable[..., str]]:
    """``oompa_serve(server)``: a URL at which the server is to be reached, until the test ends."""
    from .testing import serve

    with ExitStack() as stack:
        yield lambda server, **options: stack.enter_context(serve(server, **options))


@pytest.fixture
def oompa_stub() -> Iterator[Callable[..., Any]]:
    """``oompa_stub(replies)``: a Stub, whose end fails a test that asked for what is not in the table."""
    from .testing import Stub

    with ExitStack() as stack:
        yield lambda replies, **options: stack.enter_context(Stub(replies, **options))


# Clients that are left open. A fixture of a wider scope than a test may keep its own.


def pytest_configure(config: pytest.Config) -> None:
    """Tell of the mark."""
    config.addinivalue_line("markers", f"{_MARK}: the test may leave clients of oompa open")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup() -> Generator[None, Any, Any]:
    """Look at what is made from here on."""
    _made()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any) -> Generator[None, Any, Any]:
    """Let a fixture of a wider scope keep what it makes."""
    before = len(_made())
    try:
        return (yield)
    finally:
        if fixturedef.scope != "function":
            del _made()[before:]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Where a test has failed already, what it leaves is no news."""
    _made()
    try:
        return (yield)
    except BaseException:
        _made().clear()
        raise


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail a test that leaves a client open when its fixtures have ended."""
    result = yield
    made = _made()
    left = [link.shown for link in made if link.is_left_open]
    made.clear()
    if left and item.get_closest_marker(_MARK) is None:
        clients = ", ".join(f"one to {shown}" for shown in left)
        pytest.fail(
            f"the test left a client open: {clients}. Close it, use it as a context manager, or mark the test {_MARK}",
            pytrace=False,
        )
    return result


def _made() -> Any:
    """The working halves of the clients that were made since it was emptied; none before oompa is imported."""
    module: Any = sys.modules.get("oompa.client.link")
    if module is None:
        return []
    if module.made is None:
        module.made = []
    return module.made
