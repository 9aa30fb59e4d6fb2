"""What a task finds around it: contexts of its own, and nothing of the upgrade's or of another task's (Cases 1 and 21)."""

import contextvars
import decimal
import threading

import flask
import needs
import pytest
from conftest import CEILING
from flask import current_app, g, has_app_context, has_request_context
from raw_peer import health
from werkzeug.serving import make_server

from oompa import RemoteError, Server, TaskError
from oompa.server.embedded import EmbeddedServer

USER = contextvars.ContextVar("USER", default=None)


def build_app(name="site"):
    """An application with a page, and a list of what its contexts ended with."""
    app = flask.Flask(name)
    app.ended = []
    app.teardown_appcontext(app.ended.append)
    app.add_url_rule("/page", "page", lambda: f"page of {current_app.name}")
    return app


@pytest.fixture
def serve_app():
    """Serve a WSGI application on a port of its own: ``serve_app(app)``, as Werkzeug's threaded server does."""
    running = []

    def start(app):
        server = make_server("127.0.0.1", 0, app, threaded=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        running.append((server, thread))
        return server.server_port

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join(CEILING)
        server.server_close()


@pytest.fixture
def mount(serve_app):
    """Put a schema into an application and serve it: ``mount(app, schema, **options)`` returns the port."""
    servers = []

    def start(app, schema, healthcheck=None, middleware=None, **options):
        server = Server(schema, healthcheck, path="/ws", **options)
        if middleware is not None:
            server.use(middleware)
        server.init_app(app)
        servers.append(server)
        return serve_app(app)

    yield start
    for server in servers:
        server.close(timeout=0.5).result(CEILING)


def url(port):
    return f"ws://127.0.0.1:{port}/ws"


# contextvars.


def test_a_variable_that_a_task_sets_is_seen_by_no_other_task(serve, connect):
    """Case 21."""

    def login(payload):
        before = USER.get()
        USER.set(payload)
        return before

    server = serve({"LOGIN": login})
    ann, bob = connect(server), connect(server)
    assert [client.call("LOGIN", "ann") for client in (ann, ann, bob, bob)] == [None] * 4


def test_a_variable_is_fresh_on_every_thread_that_runs_tasks(serve, connect):
    """Case 21: on stand-ins as well as at home, and from the queue."""
    meet = threading.Barrier(4)

    def login(payload):
        before = USER.get()
        USER.set(payload)
        if payload < 4:
            meet.wait(CEILING)
        return before

    client = connect(serve({"LOGIN": login}, concurrency=4))
    assert [call.result(CEILING) for call in [client.dispatch("LOGIN", number) for number in range(12)]] == [None] * 12


def test_a_decimal_context_that_a_task_changes_ends_with_it(serve, connect):
    """Case 21: what the standard library keeps in a context is the same kind."""

    def divide(precision):
        before = decimal.getcontext().prec
        decimal.getcontext().prec = precision
        return before

    client = connect(serve({"DIVIDE": divide}))
    assert [client.call("DIVIDE", 3) for _ in range(3)] == [decimal.DefaultContext.prec] * 3


def test_middleware_and_factory_share_the_context_of_their_task(serve, connect):
    server = serve({"WHO": lambda _: USER.get()})

    @server.use
    def login(request, call_next):
        assert USER.get() is None
        USER.set(request.id)
        return call_next(request)

    client = connect(server)
    calls = [client.dispatch("WHO") for _ in range(20)]
    assert [call.result(CEILING) for call in calls] == [call.id for call in calls]


def test_a_healthcheck_has_a_context_of_its_own_whoever_asks(serve, connect):
    """Case 21: asked by a ping or over HTTP."""
    seen = []

    def healthcheck():
        seen.append((USER.get(), has_request_context(), has_app_context()))
        USER.set("ill")

    server = serve({}, healthcheck)
    client = connect(server)
    assert client.ping().result(CEILING) is None
    assert client.ping().result(CEILING) is None
    assert health(server.port) == health(server.port) == (200, b"ok")
    assert seen == [(None, False, False)] * 4


def test_a_variable_of_the_thread_that_serves_is_not_seen_by_a_task(serve, connect, monkeypatch):
    """Case 1: WSGI middleware sets variables around the upgrade, which is around a connection as long as it lives."""
    plain = EmbeddedServer.finish_request

    def finish_request(self, request, address):
        USER.set("of the web server")
        return plain(self, request, address)

    monkeypatch.setattr(EmbeddedServer, "finish_request", finish_request)
    assert connect(serve({"WHO": lambda _: USER.get()})).call("WHO") is None


# Flask.


def look(payload=None):
    """What a task sees of Flask."""
    return [current_app.name if has_app_context() else None, has_request_context()]


def test_a_task_of_an_application_has_its_context_on_every_thread(mount, connect):
    """Case 1: also when another task has taken over reading."""
    meet = threading.Barrier(4)

    def together(payload):
        meet.wait(CEILING)
        return look()

    client = connect(url(mount(build_app(), {"LOOK": look, "TOGETHER": together})))
    assert client.call("LOOK") == ["site", False]
    for _ in range(2):
        calls = [client.dispatch("TOGETHER") for _ in range(4)]
        assert [call.result(CEILING) for call in calls] == [["site", False]] * 4
    assert client.call("LOOK") == ["site", False]


def test_g_is_empty_when_a_task_begins(mount, connect):
    """Case 1: ``flask.g`` was one for all tasks of a connection."""

    def remember(payload):
        before = sorted(g)
        g.user = payload
        return before

    client = connect(url(mount(build_app(), {"REMEMBER": remember})))
    assert [client.call("REMEMBER", name) for name in ("ann", "bob", "cid")] == [[]] * 3


def test_teardown_functions_run_after_each_task_and_get_what_it_raised(mount, connect):
    """Case 1."""
    app = build_app()
    problem, refusal = LookupError("nothing"), TaskError("no")

    def fail(payload):
        raise problem

    def refuse(payload):
        raise refusal

    client = connect(url(mount(app, {"ONE": lambda _: 1, "FAIL": fail, "REFUSE": refuse})))
    assert client.call("ONE") == 1
    app.ended.clear()  # the upgrade's own is among them
    for type in ("ONE", "FAIL", "REFUSE", "ONE"):
        client.dispatch(type).exception(CEILING)
    assert app.ended == [None, problem, refusal, None]


def test_what_is_before_a_task_is_torn_down_before_its_reply_is_read(mount, connect):
    """Case 1: a caller that has its answer finds the database free."""
    app = build_app()
    client = connect(url(mount(app, {"ONE": lambda _: 1})))
    client.call("ONE")
    for _ in range(20):
        count = len(app.ended)
        client.call("ONE")
        assert len(app.ended) == count + 1


def test_a_teardown_function_that_raises_fails_the_task_and_no_other(mount, connect, caplog):
    """Case 1: a commit at the end of the context may fail, and the caller must not be told that all is well."""
    app = build_app()
    problems = iter([OSError("cannot commit")])

    @app.teardown_appcontext
    def commit(error):
        if g.pop("is_task", False):
            for problem in problems:
                raise problem

    def task(payload):
        g.is_task = True
        return 1

    client = connect(url(mount(app, {"TASK": task})))
    with pytest.raises(RemoteError, match="OSError: cannot commit"):
        client.call("TASK")
    assert client.call("TASK") == 1
    assert "cannot commit" in caplog.text and "'TASK'" in caplog.text


def test_a_healthcheck_and_middleware_are_inside_the_context(mount, connect):
    """Case 1: the healthcheck has one of its own, whoever asks: over HTTP it is not the request's."""
    app, seen = build_app(), []

    def healthcheck():
        seen.append([*look(), sorted(g)])
        g.is_checked = True

    port = mount(app, {"LOOK": look}, healthcheck, middleware=lambda request, call_next: [look(), call_next(request)])
    client = connect(url(port))
    assert client.call("LOOK") == [["site", False]] * 2
    assert client.ping().result(CEILING) is client.ping().result(CEILING) is None
    assert health(port) == (200, b"ok")
    assert seen == [["site", False, []]] * 3


def test_the_upgrade_is_over_for_flask_before_a_connection_begins(mount, connect):
    """Case 1: what ``before_request`` or ``authenticate`` opened was open for as long as the connection."""
    app = build_app()
    is_over = threading.Event()
    app.teardown_request(lambda error: is_over.set())
    seen = []

    def authenticate(request):
        seen.append([has_request_context(), current_app.name])
        return True

    client = connect(url(mount(app, {"LOOK": look}, authenticate=authenticate)))
    assert client.call("LOOK") == ["site", False]
    assert is_over.is_set() and app.ended == [None, None]
    assert seen == [[True, "site"]]


def test_listeners_run_outside_the_upgrades_request(serve, connect):
    server = serve({"ONE": lambda _: 1})
    seen = []
    server.on("connection", lambda connection: seen.append(look()))
    server.on("reply", lambda reply: seen.append(look()))
    assert connect(server).call("ONE") == 1
    assert seen == [[None, False]] * 2


def test_a_server_of_its_own_has_no_context_unless_it_asks(serve, connect):
    assert connect(serve({"LOOK": look})).call("LOOK") == [None, False]
    assert connect(serve({"LOOK": look}, app_context=True)).call("LOOK") == ["oompa.server.server", False]


def test_an_application_that_wants_no_contexts_has_none(mount, connect):
    app = build_app()
    client = connect(url(mount(app, {"LOOK": look}, app_context=False)))
    assert client.call("LOOK") == [None, False]
    ended = len(app.ended)
    assert client.call("LOOK") == [None, False] and len(app.ended) == ended


def test_one_server_in_two_applications_gives_each_connection_its_own(serve_app, connect):
    """Case 1."""
    server = Server({"LOOK": look}, lambda: look()[0] in ("one", "two"), path="/ws")
    apps = [build_app("one"), build_app("two")]
    for app in apps:
        server.init_app(app)
    server.listen(0).result(CEILING)
    try:
        ports = [*map(serve_app, apps), server.port]
        clients = [connect(url(port)) for port in ports]
        expected = [["one", False], ["two", False], [None, False]]
        for _ in range(2):
            assert [client.call("LOOK") for client in clients] == expected
    finally:
        server.close(timeout=0.5).result(CEILING)


def test_a_value_becomes_text_inside_the_context_of_its_task(mount, connect):
    """Case 1: a row of a database may be read only when it is looked at."""

    class Lazy(dict):
        def items(self):
            return [("app", current_app.name)]

        def __len__(self):
            return 1

    client = connect(url(mount(build_app(), {"LAZY": lambda _: Lazy(app=None)}, codec="json")))
    assert client.call("LAZY") == {"app": "site"}


# Flask-SQLAlchemy.


@pytest.fixture
def database(tmp_path):
    """An application with a database whose pool has two connections, which nobody waits long for."""
    sqlalchemy = needs.package("flask_sqlalchemy")
    pool = needs.package("sqlalchemy.pool")
    app = build_app()
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path}/site.db"
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
        **{"poolclass": pool.QueuePool, "pool_size": 2, "max_overflow": 0, "pool_timeout": 5.0},
        "connect_args": {"timeout": 5.0},
    }
    db = sqlalchemy.SQLAlchemy(app)

    class User(db.Model):
        id = db.Column(db.Integer, primary_key=True)
        name = db.Column(db.String(20), unique=True, nullable=False)

    app.User, app.db = User, db
    with app.app_context():
        db.create_all()
        db.session.add(User(name="ann"))
        db.session.commit()
    app.add_url_rule("/count", "count", lambda: str(db.session.query(User).count()))
    yield app
    with app.app_context():
        db.engine.dispose()


def tasks_of(app):
    """Tasks on the database of ``app``."""
    db, User = app.db, app.User

    def count(payload):
        return db.session.query(User).count()

    def add_twice(payload):
        db.session.add_all([User(name="ann"), User(name="ann")])
        db.session.flush()

    def leave_dirty(payload):
        try:
            add_twice(payload)
        except Exception:
            return "left as it is"

    return {"COUNT": count, "ADD_TWICE": add_twice, "LEAVE_DIRTY": leave_dirty}


def authenticated_by(app):
    """Read the database in the upgrade, as a login does."""
    return lambda request: app.db.session.query(app.User).first().name


def test_fifty_connections_share_a_pool_of_two_with_the_pages_of_the_site(database, mount, connect):
    """Case 1: fifteen idle connections, each after one query, held the pool, and the pages answered 500."""
    port = mount(database, tasks_of(database), lambda: database.db.session.query(database.User).count() == 1,
                 authenticate=authenticated_by(database))
    clients = [connect(url(port), timeout=CEILING) for _ in range(50)]
    assert [client.call("COUNT") for client in clients] == [1] * 50
    assert [call.result(CEILING) for call in [client.dispatch("COUNT") for client in clients]] == [1] * 50
    with database.test_client() as visitor:
        assert visitor.get("/count").text == "1"
        assert visitor.get("/health").text == "ok"
    with database.app_context():
        assert database.db.engine.pool.checkedout() == 0


@pytest.mark.parametrize("type", ["ADD_TWICE", "LEAVE_DIRTY"])
def test_a_failed_flush_harms_neither_the_next_task_nor_a_page(database, mount, connect, type):
    """Case 1: every later task of that connection failed."""
    client = connect(url(mount(database, tasks_of(database))), timeout=CEILING)
    assert client.call("COUNT") == 1
    client.dispatch(type).exception(CEILING)
    assert client.call("COUNT") == 1
    with database.test_client() as visitor:
        assert visitor.get("/count").text == "1"
    with database.app_context():
        assert database.db.engine.pool.checkedout() == 0
