"""The kit for tests: clients joined to servers without a port, and stubs."""

import pytest

from oompa import RemoteError, Server
from oompa.testing import Delay, Stub, connect, serve


def test_a_client_is_joined_to_a_server_again_and_again():
    server = Server({"ADD": sum})
    for _ in range(3):
        with connect(server) as client:
            assert client.call("ADD", [1, 2]) == 3
    assert server.port is None
    server.close().result()


def test_a_joined_client_connects_anew():
    server = Server({"ADD": sum})
    with connect(server) as client:
        assert client.call("ADD", [1, 2]) == 3
        assert server.disconnect() == 1
        assert client.call("ADD", [3, 4]) == 7
    server.close().result()


def test_headers_reach_the_server():
    server = Server({"ADD": sum}, authenticate=lambda request: request.headers.get("X-Key") == "secret")
    with connect(server, headers={"X-Key": "secret"}) as client:
        assert client.call("ADD", [1, 2]) == 3
    server.close().result()


def test_a_stub_answers_from_its_table_and_remembers():
    table = {"ADD": 3, "DIV": ZeroDivisionError("x"), "SLOW": Delay(0.001, 4), "ECHO": lambda payload: payload}
    with Stub(table, all_called=True) as stub, connect(stub) as client:
        assert client.call("ADD", [1, 2]) == 3
        with pytest.raises(RemoteError, match="x"):
            client.call("DIV")
        assert client.call("SLOW") == 4
        assert client.call("ECHO", {"a": 1}) == {"a": 1}
    assert stub.calls == [("ADD", [1, 2]), ("DIV", None), ("SLOW", None), ("ECHO", {"a": 1})]


def test_a_stub_names_what_was_unexpected_and_what_never_came():
    with pytest.raises(AssertionError, match=r"unexpected: MUL \[2\]\nnever came: ADD"):
        with Stub({"ADD": 3}) as stub, connect(stub) as client:
            with pytest.raises(RemoteError, match="the stub knows no 'MUL'"):
                client.call("MUL", [2])


def test_a_remote_error_of_the_table_is_what_the_client_gets():
    zero = RemoteError({"reason": "zero"}, {"code": "out_of_range"})
    with Stub({"DIV": zero}) as stub, connect(stub) as client:
        with pytest.raises(RemoteError) as caught:
            client.call("DIV")
    assert (caught.value.error, caught.value.code) == ({"reason": "zero"}, "out_of_range")


def test_a_ping_is_not_a_call():
    with Stub({}) as stub, connect(stub) as client:
        client.ping().result()
    assert stub.calls == []


def test_what_never_came_counts_only_where_it_is_asked_to():
    with Stub({"ADD": 3}):
        pass
    with pytest.raises(AssertionError, match="never came: ADD"):
        with Stub({"ADD": 3}, all_called=True):
            pass


def test_an_error_of_the_test_is_not_hidden():
    with pytest.raises(KeyError):
        with Stub({"ADD": 3}, all_called=True):
            raise KeyError


def test_serve_gives_a_url_until_the_block_ends():
    server = Server({})
    with serve(server) as url:
        assert url.startswith("ws+unix:")
    server.close().result()
