"""The kit for tests: clients joined to servers without a port, and stubs."""

import math

import pytest
from conftest import wait_until

from oompa import Client, ConnectionLost, ProtocolError, RemoteError, RequestTimeout, Server
from oompa.testing import Delay, Faults, Stub, connect, serve


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


def test_a_joined_client_is_a_client(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.mkdtemp", lambda *args, **kwargs: pytest.fail("it makes no file"))
    server = Server({"ADD": sum})
    client = connect(server, {"add": {"type": "ADD"}}, timeout=5.0)
    assert type(client) is Client and client.is_connected
    assert client.add([1, 2]).result() == 3
    assert "a server of this process" in repr(client)
    wait_until(lambda: server.connections)
    (connection,) = server.connections
    assert connection.headers["Host"] == "localhost"
    client.close()
    wait_until(lambda: not server.connections)
    server.close().result()


def test_a_server_whose_authenticate_raises_is_not_asked_again():
    asked = []

    def authenticate(request):
        asked.append(request)
        return 1 / 0

    with pytest.raises(ConnectionLost, match="500.*its log tells why"):
        connect(Server({}, authenticate=authenticate))
    assert len(asked) == 1


def test_what_a_refused_client_is_told():
    server = Server({}, authenticate=lambda request: False)
    with pytest.raises(ConnectionLost, match="401"):
        connect(server)
    server.close().result()


@pytest.mark.parametrize("identity, found", [("ann", "ann"), (True, None)])
def test_an_identity_stands_for_what_authenticate_would_say(identity, found):
    server = Server({"ADD": sum}, authenticate=lambda request: pytest.fail("it is not asked"))
    with connect(server, identity=identity):
        wait_until(lambda: server.connections)
        assert server.connections[0].identity == found
    with pytest.raises(ConnectionLost, match="401"):
        connect(server, identity=False)
    server.close().result()


def test_a_client_may_be_joined_later():
    server = Server({"ADD": sum})
    with connect(server, no_server=True) as client:
        assert not client.is_connected
        client.start()
        assert client.call("ADD", [1, 2]) == 3
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


# Faults.


@pytest.fixture
def adder():
    server = Server({"ADD": sum})
    yield server
    server.close(0).result()


@pytest.mark.parametrize("share", [-1, 1.5, True, "1", None, math.nan, -0.1])
def test_a_share_is_a_probability_or_a_count(share):
    with pytest.raises(ValueError, match="close must be a probability below 1, or a count of replies"):
        Faults(close=share)


def test_there_are_no_other_faults():
    with pytest.raises(TypeError, match="there is no fault 'explode'; the faults are close, delay, drop_reply"):
        Faults().set(explode=1)
    with pytest.raises(ValueError, match="seconds"):
        Faults(seconds=-1)


def test_a_count_is_the_next_so_many():
    faults = Faults(drop_reply=1, delay=2)
    assert [faults.draw() for _ in range(4)] == ["drop_reply", "delay", "delay", None]
    faults.set(close=math.inf)
    assert [faults.draw() for _ in range(3)] == ["close"] * 3
    assert faults.made == ["drop_reply", "delay", "delay", "close", "close", "close"]


def test_a_part_is_a_probability_and_a_seed_repeats_it():
    drawn = [[faults.draw() for _ in range(1000)] for faults in (Faults(garble=0.3, seed=1), Faults(garble=0.3, seed=1))]
    assert drawn[0] == drawn[1]
    assert 200 < drawn[0].count("garble") < 400 and set(drawn[0]) == {"garble", None}


def test_a_reply_that_is_dropped_comes_at_the_next_attempt(adder):
    faults = Faults(drop_reply=1)
    with connect(adder, faults=faults, timeout=0.2) as client:
        assert client.call("ADD", [1, 2]) == 3
    assert faults.made == ["drop_reply"]


def test_replies_that_are_all_dropped_are_a_timeout(adder):
    with connect(adder, faults=Faults(drop_reply=math.inf), timeout=0.05, attempts=2, tolerance=None) as client:
        with pytest.raises(RequestTimeout):
            client.call("ADD", [1, 2])


def test_a_connection_that_ends_instead_of_a_reply_is_made_anew(adder):
    faults = Faults(close=1)
    with connect(adder, faults=faults, reconnect_interval=0.001) as client:
        assert client.call("ADD", [1, 2]) == 3
        assert client.call("ADD", [3, 4]) == 7
    assert faults.made == ["close"]


def test_a_reply_that_is_garbled_is_a_protocol_error(adder):
    with connect(adder, faults=Faults(garble=1)) as client:
        with pytest.raises(ProtocolError):
            client.call("ADD", [1, 2])
        assert client.call("ADD", [3, 4]) == 7


def test_a_reply_that_comes_twice_settles_its_call_once(adder):
    faults = Faults(duplicate=math.inf)
    with connect(adder, faults=faults) as client:
        assert [client.call("ADD", [n, n]) for n in range(5)] == [0, 2, 4, 6, 8]
    assert faults.made == ["duplicate"] * 5


def test_a_reply_that_is_late_is_overtaken(adder):
    order = []
    with connect(adder, faults=Faults(delay=1, seconds=0.1)) as client:
        futures = [client.dispatch("ADD", [n, n]) for n in range(2)]
        for future in futures:
            future.add_done_callback(lambda future: order.append(future.result()))
        assert [future.result(10) for future in futures] == [0, 2]
        wait_until(lambda: len(order) == 2)
    assert order == [2, 0]


def test_faults_hold_through_a_url_and_for_a_stub():
    faults = Faults(garble=2)
    with Stub({"ADD": "x" * 70_000}, faults=faults) as stub, serve(stub) as url:
        with Client(url) as client, pytest.raises(ProtocolError):
            client.call("ADD")
        with connect(stub) as client:
            with pytest.raises(ProtocolError):
                client.call("ADD")
            assert client.call("ADD") == "x" * 70_000
    assert faults.made == ["garble", "garble"]
