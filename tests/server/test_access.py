"""Who may connect, who one is, and what an error tells: embedded and under gunicorn."""

import contextlib
import errno
import functools
import re
import threading
from concurrent.futures import Future
from contextvars import ContextVar
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple
from unittest.mock import AsyncMock

import flask
import guarded
import pytest
import werkzeug
from conftest import CEILING, wait_until
from deployed import deployed
from raw_peer import RawPeer, health, upgrade
from werkzeug.exceptions import Unauthorized
from werkzeug.local import LocalProxy

from oompa import Client, ConnectionLost, RemoteError, Schema, Server

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


def future_of(answer=None, error=None):
    """A Future that is done."""
    future = Future()
    future.set_result(answer) if error is None else future.set_exception(error)
    return future


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


@pytest.mark.parametrize("answer", [None, False, "", 0, [], {}, 0.0, b"", set(), frozenset(), range(0)], ids=repr)
@pytest.mark.parametrize("is_future", [False, True])
def test_an_answer_that_is_false_lets_nobody_in(serve, answer, is_future):
    """Case 6."""
    server = serve(authenticate=lambda request: future_of(answer) if is_future else answer)
    assert status(server.port) == 401
    assert server.connections == []


@pytest.mark.parametrize("answer, identity", [(True, None), ("ann", "ann"), (1, 1), ([0], [0]), ({"": 0}, {"": 0})])
@pytest.mark.parametrize("is_future", [False, True])
def test_an_answer_that_is_true_lets_in_and_is_the_identity(serve, connect, answer, identity, is_future):
    """Case 6."""
    server = serve({"WHO": lambda _: None}, authenticate=lambda request: future_of(answer) if is_future else answer)
    server.use(lambda request, call_next: [request.connection.identity])
    assert connect(server).call("WHO") == [identity]


class User(NamedTuple):
    name: str


def test_a_named_tuple_is_an_identity_like_any_other_object(serve, connect):
    """Case 6: a plain tuple is what a Flask view returns; nobody means a class of users by it."""
    server = serve({"WHO": lambda _: None}, authenticate=lambda request: User("ann"))
    server.use(lambda request, call_next: request.connection.identity.name)
    assert connect(server).call("WHO") == "ann"


def test_a_proxy_is_asked_while_the_request_lasts(serve, connect):
    """Case 6: Flask-Login's ``current_user`` stands for nobody in a task."""
    users = ContextVar("users")

    def authenticate(request):
        users.set(request.headers["X-User"])
        return LocalProxy(users)

    server = serve({"WHO": lambda _: None}, authenticate=authenticate)
    server.use(lambda request, call_next: request.connection.identity)
    assert connect(server, headers={"X-User": "ann"}).call("WHO") == "ann"
    assert status(server.port, "X-User: ") == 401


async def coroutine(request=None):
    """Let everybody in, if anybody awaited it."""
    return True


async def asynchronous_generator(request=None):
    """Let everybody in, if anybody iterated it."""
    yield True


class Awaited:
    """Something for an event loop."""

    def __await__(self):
        yield


MISTAKES = {
    "a function without its brackets": lambda request=None: future_of,
    "a builtin": lambda request=None: len,
    "a method": lambda request=None: User("ann").count,
    "a partial": lambda request=None: functools.partial(future_of, True),
    "a class": lambda request=None: User,
    "NotImplemented": lambda request=None: NotImplemented,
    "an ellipsis": lambda request=None: ...,
    "a coroutine": lambda request=None: coroutine(),
    "an asynchronous generator": lambda request=None: asynchronous_generator(),
    "an awaitable": lambda request=None: Awaited(),
    "a generator": lambda request=None: (each for each in [True]),
    "an iterator": lambda request=None: map(bool, [True]),
    "a Future of a Future": lambda request=None: future_of(future_of(True)),
    "a tuple": lambda request=None: ("Unauthorized", 401),
    "an empty tuple": lambda request=None: (),
    "a response": lambda request=None: flask.Response("no", 401),
    "a response of Werkzeug": lambda request=None: werkzeug.Response("no", 401),
    "an exception": lambda request=None: PermissionError("no"),
    "an exception of HTTP": lambda request=None: Unauthorized(),
    "the class of an exception": lambda request=None: PermissionError,
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("is_future", [False, True])
def test_an_answer_that_cannot_be_meant_lets_nobody_in_and_is_told_to_the_developer(serve, caplog, mistake, is_future):
    """Case 6."""
    answer = MISTAKES[mistake]
    server = serve(authenticate=lambda request: future_of(answer()) if is_future else answer())
    with RawPeer(server.port) as peer:
        peer.send(upgrade(server.port))
        told = peer.response()
    assert told.status == 500 and b"authenticate" not in told.body
    assert server.connections == []
    (error,) = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert isinstance(error, TypeError) and str(error).startswith("authenticate returned ")


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("is_future", [False, True])
def test_a_healthcheck_that_says_what_cannot_be_meant_is_unhealthy(serve, connect, mistake, is_future):
    """Case 41, and its siblings of Case 6: over HTTP and to a ping."""
    answer = MISTAKES[mistake]
    server = serve({}, lambda: future_of(answer()) if is_future else answer())
    assert health(server.port) == (500, b"error")
    with pytest.raises(RemoteError, match="^HealthcheckFailed: the healthcheck returned "):
        connect(server).ping().result(CEILING)


@pytest.mark.parametrize("is_future", [False, True])
def test_permission_that_the_operating_system_refuses_is_no_verdict_and_stays_in_the_log(serve, caplog, is_future):
    """Case 6: a key file that cannot be read answered 403 with its path in the body."""
    error = PermissionError(errno.EACCES, "Permission denied", "/etc/keys/signing.pem")

    def authenticate(request):
        if is_future:
            return future_of(error=error)
        raise error

    server = serve(authenticate=authenticate)
    with RawPeer(server.port) as peer:
        peer.send(upgrade(server.port))
        told = peer.response()
    assert told.status == 500 and b"signing" not in told.body
    assert any(record.exc_info and "signing" in str(record.exc_info[1]) for record in caplog.records)


def test_a_text_of_a_refusal_cannot_write_lines_of_its_own(serve, caplog):
    def authenticate(request):
        raise PermissionError("banned\nWARNING forged")

    assert status(serve(authenticate=authenticate).port) == 403
    assert all(record.getMessage().isprintable() for record in caplog.records)


@pytest.mark.parametrize("code", [400, 401, 403, 404, 429, 503])
def test_abort_answers_what_it_says_and_leaves_a_line(serve, caplog, code):
    """Case 6."""
    server = serve(authenticate=lambda request: flask.abort(code))
    assert status(server.port) == code
    assert f"authenticate answered {code}" in caplog.text


def test_abort_answers_with_the_response_it_is_given(serve):
    server = serve(authenticate=lambda request: flask.abort(flask.Response("slowly", 429, {"Retry-After": "7"})))
    with RawPeer(server.port) as peer:
        peer.send(upgrade(server.port))
        told = peer.response()
    assert (told.status, told.body, told.headers["retry-after"]) == (429, b"slowly", "7")


class Asynchronous:
    """Something that can be called and comes to nothing here."""

    async def __call__(self, *args):
        return True

    async def method(self, *args):
        return True


@pytest.mark.parametrize(
    "function",
    [
        coroutine,
        asynchronous_generator,
        functools.partial(coroutine),
        functools.partial(functools.partial(coroutine), 1),
        Asynchronous(),
        Asynchronous().method,
        functools.partial(Asynchronous()),
        functools.partial(Asynchronous().method),
        AsyncMock(),
    ],
    ids=range(9),
)
def test_a_coroutine_function_is_refused_where_it_is_written(function):
    """Case 41: as factory, middleware, healthcheck, authenticate and listener."""
    schema, server, client = Schema(), Server({}), Client("ws://127.0.0.1:9", no_server=True)
    for write in (
        lambda: Server({"X": function}),
        lambda: Server({}, function),
        lambda: Server({}, authenticate=function),
        lambda: server.use(function),
        lambda: server.on("reply", function),
        lambda: server.once("reply")(function),
        lambda: client.on("reconnected", function),
        lambda: schema.task("X")(function),
        lambda: schema.add("X", function),
        lambda: schema.__setitem__("X", function),
    ):
        with pytest.raises(TypeError, match="must not be a coroutine function"):
            write()
    client.close()


@pytest.mark.parametrize("value", [5, "check", ["check"]])
def test_what_cannot_be_called_is_refused_where_it_is_written(value):
    """Case 57."""
    for write in (lambda: Server({"X": value}), lambda: Server({}, value), lambda: Server({}, authenticate=value)):
        with pytest.raises(TypeError, match=f"must be callable, not {re.escape(repr(value))}"):
            write()


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


# Origins and hosts.


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example/",
        "https://App.Example",
        "HTTPS://app.example",
        "https://app.example:443",
        "http://app.example:80",
        "http://app.example:080",
        "app.example",
        "//app.example",
        "https://",
        "https://app.example/path",
        "https://app.example?x",
        "https://*.example",
        "https://ann@app.example",
        "https://bücher.example",
        "wss://app.example",
        "https://app.example:65536",
        " https://app.example",
        "https://app.example\n",
        "",
    ],
)
def test_an_origin_that_no_browser_sends_is_refused_with_the_form_it_has(origin):
    """Case 8."""
    with pytest.raises(ValueError, match="origins has .* which no browser sends: an origin is scheme://host"):
        Server({}, origins=["https://good.example", origin])


@pytest.mark.parametrize(
    "origin",
    ["https://app.example", "http://app.example:8080", "http://localhost:3000", "http://[::1]:3000", "http://10.0.0.1",
     "https://app.example:80", "chrome-extension://abcdef", "capacitor://localhost", "null", "file://"],
)
def test_an_origin_that_is_listed_may_connect_and_no_other(serve, origin):
    """Case 8."""
    server = serve(origins=[origin])
    assert status(server.port, f"Origin: {origin}") == 101
    assert status(server.port, "Origin: https://evil.example") == 403
    assert status(server.port) == 101  # not a browser


def test_an_asterisk_stands_for_every_origin(serve):
    server = serve(origins=["*"])
    assert status(server.port, "Origin: https://any.example") == 101


def test_a_refused_origin_is_told_the_host_and_the_option(serve, caplog):
    """Case 8."""
    server = serve()
    with RawPeer(server.port) as peer:
        peer.send(upgrade(server.port, extra="Origin: https://app.example\r\n"))
        told = peer.response()
    assert told.status == 403
    for text in (told.body.decode(), caplog.text):
        assert '"https://app.example"' in text and f'"127.0.0.1:{server.port}"' in text
        assert "Server(origins=['https://app.example'])" in text


def named(port, host, *lines, path="/"):
    """The answer to an upgrade request for a host."""
    with RawPeer(port) as peer:
        extra = "".join(f"{line}\r\n" for line in (f"Host: {host}", *lines))
        peer.send(upgrade(port, path=path, without="Host", extra=extra))
        return peer.response()


@pytest.mark.parametrize(
    "host, expected",
    [
        ("evil.example", 403),
        ("evil.example:{port}", 403),
        ("127.0.0.1.evil.example", 403),
        ("127.0.0.1@evil.example", 403),
        ("localhost.evil.example", 403),
        ("notlocalhost", 403),
        ("10.0.0.1", 403),
        ("[::2]", 403),
        ("127.0.0.1:{port}", 101),
        ("127.0.0.2", 101),
        ("localhost:{port}", 101),
        ("LOCALHOST", 101),
        ("app.localhost", 101),
        ("[::1]:{port}", 101),
    ],
)
def test_a_browser_must_call_a_server_on_loopback_by_a_name_of_loopback(serve, host, expected):
    """Case 7: a rebound name makes Host and Origin agree."""
    server = serve()
    host = host.format(port=server.port)
    assert named(server.port, host, f"Origin: http://{host}").status == expected
    assert named(server.port, host).status == 101  # not a browser: a proxy on this machine, say


def test_the_rule_of_loopback_holds_whatever_origins_allow(serve):
    """Case 7."""
    server = serve(origins=["*"])
    assert named(server.port, "evil.example", "Origin: http://evil.example").status == 403


def test_a_server_that_listens_everywhere_may_be_called_by_any_name():
    """Case 7: there the name of the machine is not known."""
    server = Server({})
    server.listen(0, "0.0.0.0").result(CEILING)
    try:
        assert named(server.port, "app.example", "Origin: http://app.example").status == 101
    finally:
        server.close(timeout=0.5).result(CEILING)


@pytest.mark.parametrize(
    "host, expected",
    [
        ("app.example", 101),
        ("APP.example:1234", 101),
        ("example.org", 101),
        ("sub.example.org", 101),
        ("a.sub.example.org:9000", 101),
        ("127.0.0.1:{port}", 403),
        ("evil.example", 403),
        ("sub.app.example", 403),
        ("evilexample.org", 403),
        ("app.example.evil", 403),
        ("app.example@evil", 403),
        ("[", 403),
    ],
)
@pytest.mark.parametrize("lines", [(), ("Origin: http://app.example",)])
def test_hosts_are_the_names_a_server_answers_to(serve, host, expected, lines):
    """Case 7: with hosts, whether a browser asks or not."""
    server = serve(hosts=["app.example", ".example.org"], origins=["*"])
    answer = named(server.port, host.format(port=server.port), *lines)
    assert answer.status == expected
    if expected == 403:
        assert host.format(port=server.port).encode() in answer.body and b"hosts" in answer.body


@pytest.mark.parametrize("host", ["App.example", "app.example:9000", "http://app.example", "*", "*.example", "", ".", "a b"])
def test_a_host_that_no_request_names_is_refused_with_the_form_it_has(host):
    """Case 7."""
    with pytest.raises(ValueError, match="hosts has .* which no request can name"):
        Server({}, hosts=["app.example", host])


@pytest.mark.parametrize("hosts", ["app.example", b"app.example", [5], 5, None.__class__])
def test_hosts_that_are_no_list_of_strings_are_refused(hosts):
    with pytest.raises(TypeError, match="hosts must be a list of strings"):
        Server({}, hosts=hosts)


def test_hosts_that_let_nobody_in_are_refused():
    with pytest.raises(ValueError, match="hosts must not be empty"):
        Server({}, hosts=[])


def test_trusted_hosts_of_flask_hold_for_upgrades(serve):
    """Case 7: they guarded every route but this one."""
    server = serve()
    server.app.config["TRUSTED_HOSTS"] = ["good.example", "127.0.0.1"]
    assert named(server.port, "evil.example").status == 400
    assert named(server.port, "good.example").status == 101


def test_trusted_hosts_hold_for_upgrades_in_an_application_that_was_given(serve):
    """Case 7."""
    app = flask.Flask("site")
    app.config["TRUSTED_HOSTS"] = ["good.example"]
    server = serve(path="/ws")
    server.init_app(app)
    server.app.wsgi_app = app
    assert named(server.port, "evil.example", path="/ws").status == 400
    assert named(server.port, "good.example", path="/ws").status == 101


def test_a_website_reached_by_any_road_is_asked_for_its_host(serve):
    """Case 7: through an application that was given, too."""
    app = flask.Flask("site")
    server = serve(path="/ws", hosts=["good.example"])
    server.init_app(app)
    server.app.wsgi_app = app
    assert named(server.port, "evil.example", path="/ws").status == 403
    assert named(server.port, "good.example", path="/ws").status == 101


@pytest.mark.parametrize("method", ["HEAD", "POST", "OPTIONS"])
def test_an_upgrade_with_another_method_than_get_is_refused(serve, method):
    """Flask takes HEAD wherever it takes GET."""
    server = serve()
    lines = upgrade(server.port).decode().split("\r\n")[1:-2]
    with contextlib.closing(HTTPConnection("127.0.0.1", server.port, timeout=CEILING)) as visitor:
        visitor.request(method, "/", headers=dict(line.split(": ", 1) for line in lines))
        with visitor.getresponse() as answer:
            assert answer.status == (200 if method == "OPTIONS" else 405)
    assert server.connections == []
