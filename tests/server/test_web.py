"""Routes beside those of an application, and what an application does around them."""

import contextlib
import functools
import io
import socket

import flask
import pytest
from conftest import CEILING, wait_until
from raw_peer import RawPeer, health, upgrade
from werkzeug.test import create_environ

from oompa import Server
from oompa.server.takeover import SOCKET

#: The headers of a request that opens a WebSocket.
_UPGRADE = """\
Upgrade: websocket
Connection: Upgrade
Sec-WebSocket-Version: 13
Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="""


@pytest.fixture
def serve_app(serve):
    """Serve an application: ``serve_app(app, schema, path="/ws", **options)`` returns the server and the port."""

    def start(app, schema=None, **options):
        server = serve({"ONE": lambda _: 1} if schema is None else schema, **{"path": "/ws", **options})
        server.init_app(app)
        server.app.wsgi_app = app
        return server

    return start


def status(port, path="/ws", extra=""):
    """The status of the answer to an upgrade request."""
    with RawPeer(port) as peer:
        peer.send(upgrade(port, path=path, extra=extra))
        return peer.response().status


@contextlib.contextmanager
def upgrading(**more):
    """What gunicorn's threads hand over for a good upgrade request, its socket within, and the socket of the peer."""
    headers = dict(line.split(": ", 1) for line in _UPGRADE.splitlines())
    environ = create_environ("/", headers=headers, multithread=True)
    ours, peer = socket.socketpair()
    with ours, peer:
        peer.settimeout(CEILING)
        yield {**environ, SOCKET: ours, **more}, peer


def test_an_upgrade_that_fails_halfway_gives_its_place_back():
    class Unreadable(io.BytesIO):
        """What is left of a request, for a middleware that has spoilt it."""

        @property
        def reader(self):
            raise ValueError("I/O operation on closed file")

    server = Server({}, max_connections=1)
    with upgrading(**{"wsgi.input": Unreadable()}) as (environ, peer):
        with pytest.raises(ValueError, match="closed file"):
            server(environ, None)
        assert server.is_ready()
        environ[SOCKET].sendall(b"an answer")
        assert peer.recv(100) == b"an answer"


def test_a_connection_that_fails_on_a_thread_of_its_own_is_logged_and_gives_its_place_back(caplog):
    class Defective(Server):
        """Cannot serve."""

        def serve(self, accepted, visitor):
            raise ZeroDivisionError

    server = Defective({}, max_connections=1)
    with upgrading() as (environ, peer):
        server(environ, lambda status, headers: None)
        assert peer.recv(1000).startswith(b"HTTP/1.1 101 ")
        assert peer.recv(100) == b""
    wait_until(server.is_ready)
    assert "failed" in caplog.text and "ZeroDivisionError" in caplog.text


# Paths.


@pytest.mark.parametrize("path", ["/ws/<tenant>", "/ws?v=1", "/ws#top", "/ws>", "/a%20b", "//ws", "/a//b"])
@pytest.mark.parametrize("option", ["path", "health_path"])
def test_a_path_that_no_request_matches_is_refused(option, path):
    """Case 4."""
    with pytest.raises(ValueError, match=f"{option} must be a plain path such as '/ws', not "):
        Server({}, **{option: path})


def test_a_path_is_matched_as_it_reads_when_it_is_decoded(serve):
    """Case 4."""
    assert status(serve(path="/caf\xe9 one").port, "/caf%C3%A9%20one") == 101


@pytest.mark.parametrize("options", [{}, {"path": "/other"}, {"health_path": "/other"}])
def test_two_servers_of_one_application_may_not_share_a_path(options):
    """Case 3: the second one's health told of the first."""
    app = flask.Flask("site")
    Server({}, path="/ws").init_app(app)
    second = Server({}, **{"path": "/ws", **options})
    with pytest.raises(ValueError, match="the application has a route of this path already, the endpoint 'oompa[.]"):
        second.init_app(app)
    assert len(app.extensions["oompa"]) == 1
    third = Server({}, lambda: False, path="/two", health_path="/two/health")
    third.init_app(app)
    with app.test_client() as visitor:
        assert [visitor.get(path).status_code for path in ("/health", "/two/health")] == [200, 500]


def test_servers_of_one_application_tell_together_whether_they_are_ready():
    app = flask.Flask("site")
    first, second = Server({}, path="/one"), Server({}, path="/two", health_path="/two/health", max_connections=1)
    first.init_app(app)
    second.init_app(app)
    with app.test_client() as visitor:
        assert (visitor.get("/ready").status_code, visitor.get("/ready").data) == (200, b"ok")
        assert second.admit()
        answer = visitor.get("/ready")
        assert (answer.status_code, answer.data, answer.headers["Retry-After"]) == (503, b"full", "1")
        second.dismiss()
        assert visitor.get("/ready").status_code == 200
        first.close().result(CEILING)
        assert (visitor.get("/ready").status_code, visitor.get("/ready").data) == (503, b"draining")


def test_an_applications_own_ready_is_not_shadowed():
    app = flask.Flask("site")
    app.add_url_rule("/ready", view_func=lambda: "mine")
    with pytest.raises(ValueError, match="ready_path='/ready': the application has a route of this path already"):
        Server({}).init_app(app)


@pytest.mark.parametrize("options", [{"ready_path": "/"}, {"ready_path": "/health"}])
def test_readiness_has_a_path_of_its_own(options):
    with pytest.raises(ValueError, match="ready_path='/.*' must differ from path and health_path"):
        Server({}, **options)


def test_a_server_is_put_into_an_application_once():
    """Case 3."""
    app, server = flask.Flask("site"), Server({}, path="/ws")
    server.init_app(app)
    with pytest.raises(ValueError, match="path='/ws'"):
        server.init_app(app)


@pytest.mark.parametrize("path", ["/", "/health"])
def test_a_path_that_the_application_serves_already_is_refused(path):
    """Case 54: its own health shadowed oompa's."""
    app = flask.Flask("site")
    app.add_url_rule(path, "page", lambda: "page")
    problem = f"path='{path}': the application has a route of this path already, the endpoint 'page'"
    with pytest.raises(ValueError, match=problem):
        Server({}).init_app(app)
    assert "oompa" not in app.extensions and "oompa" not in app.blueprints


@pytest.mark.parametrize("path, option", [("/", "path"), ("/health", "health_path"), ("/ready", "ready_path")])
def test_a_route_that_is_added_later_with_a_path_of_ours_is_refused_by_listen(path, option):
    """Case 54: to its own application."""
    server = Server({})
    server.app.add_url_rule(path, "page", lambda: "page")
    with pytest.raises(ValueError, match=f"{option}='{path}': the application has a route of this path already"):
        server.listen(0)
    assert server.port is None


@pytest.mark.parametrize("asked", ["/ws", "/health", "/ready"])
def test_a_route_that_is_added_later_with_a_path_of_ours_is_told_once_to_the_log(asked, caplog):
    """Case 54: an application of somebody else's cannot be refused any more, and ours comes first."""
    app, server = flask.Flask("site"), Server({}, path="/ws")
    server.init_app(app)
    app.add_url_rule("/health", "page", lambda: "page")
    app.add_url_rule("/elsewhere", "elsewhere", lambda: "page")
    with app.test_client() as visitor:
        assert [visitor.get(asked).text for _ in range(2)] == ["ok", "ok"]
    told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(told) == 1
    assert told[0].startswith("health_path='/health': the application has a route of this path already, the endpoint 'page'")


def test_two_servers_of_one_application_tell_nothing_of_each_others_routes(caplog):
    """Case 54."""
    app = flask.Flask("site")
    for number in range(2):
        Server({}, path=f"/ws{number}", health_path=f"/health{number}").init_app(app)
    with app.test_client() as visitor:
        for path in ("/ws0", "/health0", "/ready", "/ws1", "/health1"):
            assert visitor.get(path).text == "ok"
    assert not caplog.records


def test_a_path_that_the_application_serves_by_another_method_is_free():
    """Case 54."""
    app = flask.Flask("site")
    app.add_url_rule("/ws", "post", lambda: "posted", methods=["POST"])
    Server({}, path="/ws").init_app(app)
    with app.test_client() as visitor:
        assert visitor.post("/ws").text == "posted" and visitor.get("/ws").text == "ok"


def test_a_path_that_would_be_disconnects_is_refused_with_the_token_only():
    """Case 54: /disconnect is a path like the others."""
    app = flask.Flask("site")
    app.add_url_rule("/disconnect", "page", lambda: "page", methods=["POST"])
    with pytest.raises(ValueError, match="'/disconnect'"):
        Server({}, path="/ws", disconnect_token="secret").init_app(app)
    Server({}, path="/ws").init_app(app)


@pytest.mark.parametrize("token, error", [("", TypeError), (True, TypeError), (b"secret", TypeError), (5, TypeError),
                                          ("two words", ValueError), ("line\n", ValueError), ("g\xe9heim", ValueError)])
def test_a_token_that_no_header_brings_is_refused_without_showing_it(token, error):
    with pytest.raises(error, match="disconnect_token must be ") as caught:
        Server({}, disconnect_token=token)
    assert "secret" not in str(caught.value) and "words" not in str(caught.value)


# What an application does around its views.


def another(response):
    return flask.Response("another", 418)


def changed(response):
    response.status_code = 403
    response.data = b"no"
    return response


@pytest.mark.parametrize("function, expected", [(another, 418), (changed, 403), (lambda response: 1 / 0, 500)],
                         ids=["another", "changed", "raises"])
def test_an_after_request_that_answers_something_else_is_what_the_visitor_gets(serve_app, function, expected):
    """Case 2: the upgrade happens or gives its status, and never half happens."""
    app = flask.Flask("site")
    app.after_request(function)
    server = serve_app(app)
    assert status(server.port) == expected
    assert server.connections == [] and server._admission._places == 0


def test_an_after_request_that_adds_headers_does_not_disturb_an_upgrade(serve_app, connect):
    """Case 2: as Talisman and Flask-CORS do; it sees a 101."""
    app, seen = flask.Flask("site"), []

    @app.after_request
    def add(response):
        seen.append(response.status_code)
        response.headers["X-Frame-Options"] = "DENY"
        response.set_cookie("session", "1")
        return response

    server = serve_app(app)
    assert connect(f"ws://127.0.0.1:{server.port}/ws").call("ONE") == 1
    assert seen == [101]


@pytest.mark.parametrize(
    "function, expected",
    [(lambda: flask.redirect("https://site.example/"), 302), (lambda: ("who?", 401), 401), (lambda: flask.abort(429), 429),
     (lambda: 1 / 0, 500), (lambda: None, 101)],
    ids=["redirect", "tuple", "abort", "raises", "nothing"],
)
def test_a_before_request_that_answers_is_what_the_visitor_gets(serve_app, function, expected):
    """Case 2: as Talisman, CSRFProtect and logins do."""
    app = flask.Flask("site")
    app.before_request(function)
    server = serve_app(app)
    assert status(server.port) == expected
    assert health(server.port)[0] == (200 if expected == 101 else expected)


def test_a_teardown_that_raises_leaves_no_half_of_a_connection(serve_app):
    """Case 2."""
    app = flask.Flask("site")
    app.teardown_request(lambda error: 1 / 0)
    server = serve_app(app)
    assert status(server.port) == 500
    assert server.connections == [] and server._admission._places == 0


def test_a_guard_may_let_the_endpoints_of_a_server_pass_by_name(serve_app, connect):
    """Cases 2 and 58: a login for the whole site, but for the server's own door."""
    app = flask.Flask("site")

    @app.before_request
    def login():
        if flask.request.endpoint not in ("oompa.websocket", "oompa.health", "oompa.disconnect"):
            flask.abort(401)

    server = serve_app(app, disconnect_token="secret")
    client = connect(f"ws://127.0.0.1:{server.port}/ws")
    assert client.call("ONE") == 1 and health(server.port) == (200, b"ok")
    with app.test_client() as visitor:
        answer = visitor.post("/disconnect", headers={"Authorization": "Bearer secret"})
        assert answer.text == "1 connections closed" and visitor.get("/page").status_code == 401


def test_a_request_hook_of_the_servers_own_application_holds_for_upgrades(serve):
    """Case 7: there is one road to the upgrade."""
    server = serve()
    server.app.before_request(lambda: flask.abort(403))
    assert status(server.port, "/") == 403


# Decorators without brackets, and functions that take something else.


def test_a_decorator_without_brackets_is_told_the_right_form(serve):
    """Case 42: it did nothing, silently."""
    from oompa import Client, Schema

    with Client("ws://127.0.0.1:9", no_server=True) as client:
        for decorate in (Server({}).on, Server({}).once, client.on, client.once):
            with pytest.raises(TypeError, match=r'an event must be a string, not <function .*: write @\.\.\.\.on\("'):
                decorate(lambda: None)
            with pytest.raises(ValueError, match="unknown event 'replies'"):
                decorate("replies")
    with pytest.raises(TypeError, match=r'a task type must be a string, not <function .*: write @schema.task\("ADD"\)'):

        @Schema().task
        def add(x, y):
            return x + y


@pytest.mark.parametrize("function", [lambda: 1, lambda request: 1, lambda request, call_next, third: 1, lambda *, request: 1])
def test_a_middleware_that_takes_something_else_is_refused(function):
    """Case 57."""
    with pytest.raises(TypeError, match=r"a middleware must take \(request, call_next\), but "):
        Server({}).use(function)


def test_a_middleware_that_forgets_to_return_is_refused():
    """Case 57: every reply was null."""

    def plain(request, call_next):
        call_next(request)

    def guarded(request, call_next):
        if request.type == "NO":
            return
        call_next(request)

    class Middleware:
        def run(self, request, call_next):
            result = call_next(request)
            print(result)

    for function in (plain, guarded, Middleware().run, functools.partial(Middleware.run, None)):
        with pytest.raises(TypeError, match=r"a middleware must return a result, and .* never does: return call_next"):
            Server({}).use(function)


def test_a_middleware_that_returns_now_and_then_or_raises_is_taken():
    """Case 57."""

    def raises(request, call_next):
        raise LookupError(call_next)

    def denies(request, call_next):
        if request.meta:
            return call_next(request)

    def answers_nothing(request, call_next):
        return None

    def passes(request, call_next):
        try:
            return call_next(request)
        finally:
            print(request)

    for function in (raises, denies, answers_nothing, passes, print, lambda request, call_next: None):
        Server({}).use(function)


def test_a_factory_and_authenticate_that_take_something_else_are_refused():
    """Case 57."""
    with pytest.raises(TypeError, match=r"the factory of 'ADD' must take \(payload\), but .* takes \(x, y\)"):
        Server({"ADD": lambda x, y: x + y})
    with pytest.raises(TypeError, match=r"authenticate must take \(request\), but "):
        Server({}, authenticate=lambda: True)


def test_functions_that_take_anything_are_taken():
    """Case 57."""
    schema = {"ANY": lambda *args: 1, "MORE": lambda payload, more=1: 1, "BUILTIN": len, "TYPE": dict}
    server = Server(schema, authenticate=bool)
    assert server.use(lambda *args, **kwargs: 1) is not None
