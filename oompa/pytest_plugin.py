"""The fixtures ``oompa_connect``, ``oompa_serve`` and ``oompa_stub``: ``oompa.testing``, ended with the test.

Imports nothing of oompa before a test asks for it.
"""

from contextlib import ExitStack
from typing import Any, Callable, Iterator

import pytest


@pytest.fixture
def oompa_connect() -> Iterator[Callable[..., Any]]:
    """``oompa_connect(server, **client_options)``: a client joined to the server, until the test ends."""
    from .testing import connect

    with ExitStack() as stack:
        yield lambda server, **options: stack.enter_context(connect(server, **options))


@pytest.fixture
def oompa_serve() -> Iterator[Callable[..., str]]:
    """``oompa_serve(server)``: a URL at which the server is to be reached, until the test ends."""
    from .testing import serve

    with ExitStack() as stack:
        yield lambda server: stack.enter_context(serve(server))


@pytest.fixture
def oompa_stub() -> Iterator[Callable[..., Any]]:
    """``oompa_stub(replies)``: a Stub, whose end fails a test that asked for what is not in the table."""
    from .testing import Stub

    with ExitStack() as stack:
        yield lambda replies, **options: stack.enter_context(Stub(replies, **options))
