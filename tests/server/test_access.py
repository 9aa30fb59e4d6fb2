"""Who may connect, who one is, and what an error tells: embedded and under gunicorn."""

import re
import threading
from pathlib import Path

import guarded
import pytest
from conftest import CEILING, wait_until
from deployed import deployed
from raw_peer import RawPeer, upgrade

from oompa import Client, ConnectionLost, RemoteError, Server

ANN = {"Authorization": "Bearer ann-token"}
GUNICORN = (
    *("-m", "gunicorn", "--threads", "16", "--no-control-socket", "-b", "127.0.0.1:{port}"),
    *("--chdir", str(Path(__file__).parent.parent)),
)


@pytest.fixture(scope="module", autouse=True)
def gunicorn():
    """The port of ``guarded.server`` under gunicorn; there before any test looks at what is open."""
    with deployed(*GUNICORN, "guarded:server") as server:
        yield server.port


@pytest.fixture(params=["embedded", "gunicorn"])
def port(request, gunicorn):
    """The port of a server with a door."""
    if request.param == "gunicorn":
        yield gunicorn
        return
    guarded.server.listen(0).result(CEILING)
    yield guarded.server.port
    guarded.server.close(timeout=0.5).result(CEILING)


def status(port, *lines):
    """The status of the answer to an upgrade request with more header lines."""
    with RawPeer(port) as peer:
        peer.send(upgrade(port, extra="".join(f"{line}\r\n" for line in lines)))
        return peer.response().status


@pytest.mark.parametrize(
    "lines, expected",
    [
        ((), 401),
        (("Authorization: Bearer wrong",), 401),
        (("Authorization: Bearer mallory-token",), 403),
        (("Authorization: Bearer ann-token",), 101),
        (("Authorization: Bearer ann-token", "Origin: https://good.example"), 101),
        (("Authorization: Bearer ann-token", "Origin: https://evil.example"), 403),
        (("Authorization: Bearer ann-token", "Origin: null"), 403),
        (("Origin: https://good.example",), 401),
    ],
)
def test_upgrade_is_answered_by_who_asks(port, lines, expected):
    assert status(port, *lines) == expected


def test_identity_is_read_by_middleware_for_each_connection(port):
    with Client(f"ws://127.0.0.1:{port}", headers=ANN) as ann:
        with Client(f"ws://127.0.0.1:{port}", headers={"Authorization": "Bearer bob-token"}) as bob:
            calls = [client.dispatch("WHO") for client in (ann, bob) * 20]
            assert [call.result(CEILING) for call in calls] == ["ann", "bob"] * 20
            assert ann.call("ADD", {"x": 1, "y": 6}) == 7


@pytest.mark.parametrize("token, expected", [("wrong", 401), ("mallory-token", 403)])
def test_refused_client_is_told_and_its_calls_fail(port, token, expected):
    with Client(
        f"ws://127.0.0.1:{port}", headers={"Authorization": f"Bearer {token}"}, reconnect_interval=0.05, no_server=True
    ) as client:
        call = client.dispatch("WHO")
        client.start()
        with pytest.raises(ConnectionLost) as caught:
            call.result(CEILING)
        assert caught.value.status == expected


def test_client_that_was_refused_comes_in_with_a_new_token(port):
    tokens = iter(["wrong"])
    with Client(
        f"ws://127.0.0.1:{port}",
        headers=lambda: {"Authorization": f"Bearer {next(tokens, 'ann-token')}"},
        reconnect_interval=0.05,
        no_server=True,
    ) as client:
        reconnected = threading.Event()
        client.on("reconnected", reconnected.set)
        client.start()
        assert reconnected.wait(CEILING)
        assert client.call("WHO") == "ann"


def test_error_stays_inside_and_its_id_goes_out(port):
    with Client(f"ws://127.0.0.1:{port}", headers=ANN) as client:
        with pytest.raises(RemoteError) as caught:
            client.call("FAIL", {"password": "x"})
        assert re.fullmatch(r"Internal error, id [0-9a-f]{16}", caught.value.error)
        with pytest.raises(RemoteError, match="Unknown request type"):
            client.call("MEOW")


def test_error_id_is_in_the_log_of_gunicorn(tmp_path):
    log = tmp_path / "log.txt"
    with deployed(*GUNICORN, "guarded:server", OOMPA_LOG=str(log)) as server:
        with Client(f"ws://127.0.0.1:{server.port}", headers=ANN) as client:
            with pytest.raises(RemoteError) as caught:
                client.call("FAIL")
        error_id = caught.value.error.split()[-1]
        wait_until(lambda: error_id in log.read_text())
        assert "the-inner-life" in log.read_text() and "ann-token" not in log.read_text()


def test_health_asks_nobody_who_they_are(port):
    with RawPeer(port) as peer:
        peer.send(f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
        assert peer.response().status == 200


# The rest needs no second web server.


def test_authenticate_that_raises_is_a_500_and_is_logged_and_lets_nobody_in(serve, caplog):
    def authenticate(request):
        raise LookupError("the vault is sealed")

    server = serve(authenticate=authenticate)
    assert status(server.port) == 500
    assert server.connections == []
    assert any(record.exc_info and "vault" in str(record.exc_info[1]) for record in caplog.records)


def test_refusal_takes_no_place(serve):
    server = serve(authenticate=lambda request: "X-User" in request.headers, max_connections=1)
    for _ in range(5):
        assert status(server.port) == 401
    assert status(server.port, "X-User: ann") == 101


def test_authenticate_sees_the_request_before_the_handshake(serve, connect):
    seen = []

    def authenticate(request):
        seen.append((request.path, request.args.get("token"), request.headers.get("X-User"), request.remote_addr))
        return True

    server = serve(authenticate=authenticate)
    client = connect(f"ws://127.0.0.1:{server.port}/?token=t", headers={"X-User": "ann"})
    assert client.call("ADD", {"x": 1, "y": 1}) == 2
    assert seen == [("/", "t", "ann", "127.0.0.1")]


@pytest.mark.parametrize("identity", ["", 0, [], {}])
def test_identity_that_is_empty_is_an_identity_all_the_same(serve, connect, identity):
    """None and False alone mean no."""
    server = serve({"WHO": lambda _: None}, authenticate=lambda request: identity)
    server.use(lambda request, call_next: [request.connection.identity])
    assert connect(server).call("WHO") == [identity]


def test_malformed_handshake_is_refused_before_anybody_is_asked(serve):
    asked = []
    server = serve(authenticate=asked.append)
    with RawPeer(server.port) as peer:
        peer.send(upgrade(server.port, without="Sec-WebSocket-Key"))
        assert peer.response().status == 400
    assert status(server.port, "Origin: http://evil.example") == 403
    assert asked == []


@pytest.mark.parametrize(
    "origin, expected",
    [
        ("http://127.0.0.1:{port}", 101),
        ("http://localhost:{port}", 403),
        ("http://127.0.0.1", 403),
        ("http://127.0.0.1:{port}.evil.example", 403),
        ("http://127.0.0.1:{port}@evil.example", 403),
        ("file://", 403),
        ("", 403),
        ("http://[", 403),
        ("HTTP://127.0.0.1:{port}", 101),
    ],
)
def test_same_host_is_the_same_name_and_port(serve, origin, expected):
    server = serve()
    assert status(server.port, "Origin: " + origin.format(port=server.port)) == expected


def test_expose_errors_off_hides_what_middleware_and_healthcheck_raise(serve, connect, caplog):
    def healthcheck():
        raise OSError("the-inner-life")

    server = serve(healthcheck=healthcheck, expose_errors=False)

    @server.use
    def fail(request, call_next):
        raise LookupError("the-inner-life")

    client = connect(server)
    for call in (client.dispatch("ADD", {"x": 1, "y": 1}), client.ping()):
        error = call.exception(CEILING)
        assert isinstance(error, RemoteError) and "the-inner-life" not in error.error
        assert error.error.split()[-1] in caplog.text


@pytest.mark.parametrize("origins", [b"https://one.example", [b"https://one.example"], [None]])
def test_origins_that_are_no_strings_are_refused(origins):
    with pytest.raises(TypeError, match="origins must be a list of strings"):
        Server({}, origins=origins)


def test_origins_that_are_one_string_are_refused():
    with pytest.raises(TypeError):
        Server({}, origins="https://one.example")
