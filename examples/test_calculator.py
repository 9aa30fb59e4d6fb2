"""How handlers are tested: as the functions they are, through a client, and what calls them without a server.

Run it with ``python -m pytest examples/test_calculator.py``; the fixtures come with oompa.
"""

import pytest

from examples.calculator import add, server
from oompa import RemoteError


def test_a_handler_is_a_function():
    assert add(1, 2) == 3


def test_a_handler_is_called(oompa_connect):
    client = oompa_connect(server)
    assert client.call("MUL", {"x": 3, "y": 5}) == 15
    with pytest.raises(RemoteError, match="ZeroDivisionError"):
        client.call("DIV", {"x": 1, "y": 0})


def total(client, prices):
    """What calls a server; it is tested without one."""
    return client.call("SUM", prices)


def test_a_caller_is_tested_against_a_stub(oompa_connect, oompa_stub):
    stub = oompa_stub({"SUM": 6})
    assert total(oompa_connect(stub), [1, 2, 3]) == 6
    assert stub.calls == [("SUM", [1, 2, 3])]
