"""``oompa serve``: what it finds in a module, and servers in processes of their own."""

import json
import logging
import re
import signal

import pytest
from conftest import CEILING, url_of
from deployed import deployed

from oompa import Client, Server
from oompa.cli.main import run
from oompa.cli.serving import load

MODULE = """
from oompa import Schema, Server

schema = Schema()

@schema.task("ADD")
def add(x, y):
    return x + y

tasks = {"ECHO": lambda payload: payload}
wrong = {"ECHO": 3}
server = Server(schema, name="mine")
number = 3
"""


@pytest.fixture(autouse=True)
def logs():
    """What the command shows of the logs it shows in this test alone."""
    root, ours = logging.getLogger(), logging.getLogger("oompa")
    handlers, level = list(root.handlers), ours.level
    yield
    root.handlers[:] = handlers
    ours.setLevel(level)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module into the current folder: ``module(text)`` gives its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(text=MODULE, name=f"served_{tmp_path.name}".replace("-", "_").replace("[", "_").replace("]", "_")):
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


@pytest.mark.parametrize("target, tasks", [("", ["ADD"]), (":server", ["ADD"]), (":schema", ["ADD"]), (":tasks", ["ECHO"])])
def test_servers_schemas_and_mappings_are_served(module, target, tasks):
    server = load(f"{module()}{target}")
    assert isinstance(server, Server)
    assert [each["type"] for each in server.info()["tasks"]] == tasks
    assert (server.info()["name"] == "mine") == (target in ("", ":server"))


@pytest.mark.parametrize(
    "text, target, said",
    [
        (MODULE, "{}:nothing", "has no 'nothing'; it has schema, tasks, wrong, server"),
        (MODULE, "{}:number", "must be a Server, a Schema or a mapping of types to functions, not a int"),
        (MODULE, "{}:wrong", "cannot be served: the factory of 'ECHO' must be callable, not 3"),
        (MODULE, "./{}.py:server", "is a file; write it as a module: "),
        (MODULE, ":server", "':server' names no module: write MODULE or MODULE:SERVER, such as calculator:server"),
        (MODULE, "no_such_module", "there is no module 'no_such_module', neither here nor installed; is this its folder?"),
        ("x = 1", "{}", "has neither 'server' nor 'schema'; name what to serve"),
        ("import no_such_module", "{}", "py:1: No module named 'no_such_module'"),
        ("\n1 / 0", "{}", "py:2: ZeroDivisionError: division by zero"),
        ("def", "{}", "cannot be imported: SyntaxError: invalid syntax"),
        ("raise SystemExit('no')", "{}", "cannot be imported: "),
        ("import flask\napp = flask.Flask('x')", "{}:app", "not a Flask; gunicorn serves an application that has a Server"),
    ],
)
def test_what_cannot_be_served_exits_with_2_and_a_sentence(module, capsys, text, target, said):
    assert run(["serve", target.format(module(text))]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and said in shown.err and shown.err.count("\n") == 1


@pytest.mark.parametrize("bind", ["9000", ":9000", "localhost", "localhost:http", "localhost:70000"])
def test_a_place_that_is_none_is_refused(module, capsys, bind, monkeypatch):
    monkeypatch.setattr(Server, "run", lambda *args, **options: pytest.fail("served"))
    assert run(["serve", module(), "--bind", bind]) == 2
    assert "--bind must be HOST:PORT" in capsys.readouterr().err


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_that_is_taken_is_told(module, capsys, serve, workers):
    assert run(["serve", module(), "--bind", f"127.0.0.1:{serve().port}", "--workers", workers]) == 2
    shown = capsys.readouterr()
    assert "another program listens there; --bind takes another place" in shown.err and shown.err.count("\n") == 1


def test_a_place_that_is_not_here_is_told(module, capsys, tmp_path):
    assert run(["serve", module(), "--bind", f"unix:{tmp_path}/nowhere/x.sock"]) == 2
    shown = capsys.readouterr()
    assert "No such file or directory; --bind takes another place" in shown.err and shown.err.count("\n") == 1


def test_the_port_that_was_free_is_told(module, capsys, monkeypatch):
    served = []

    def stop_when_ready(server, *args, on_ready, **options):
        server.listen(*args, **options).result(CEILING)
        served.append(server.port)
        on_ready()
        server.close().result(CEILING)

    monkeypatch.setattr(Server, "run", stop_when_ready)
    assert run(["serve", f"{module()}:server", "--bind", "127.0.0.1:0"]) == 0
    assert f":server on ws://127.0.0.1:{served[0]} (Ctrl-C stops)\n" in capsys.readouterr().err


def test_an_explorer_is_not_opened_to_the_world(module, capsys):
    name = module(MODULE.replace('name="mine"', 'explorer="/explore"'))
    assert run(["serve", name, "--bind", "0.0.0.0:0"]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert "listen on loopback" in told and "Server(authenticate=...)" in told


def served(name, *arguments):
    return deployed("-m", "oompa", "serve", f"{name}:server", "--bind", "127.0.0.1:{port}", *arguments)


def test_a_served_module_answers_and_drains(module):
    with served(module(), "-v") as server:
        with Client(f"ws://127.0.0.1:{server.port}") as client:
            assert client.call("ADD", {"x": 1, "y": 6}) == 7
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(CEILING) == 0


def test_workers_are_gunicorns(module):
    with served(module(), "--workers", "2", "-v") as server:
        with Client(f"ws://127.0.0.1:{server.port}") as client:
            assert client.call("ADD", {"x": 1, "y": 6}) == 7
            assert client.call("$OOMPA/INFO")["name"] == "mine"


def test_an_object_a_call_is_shown_to_programs(module, capsys, connect):
    server = load(module(), verbose=True, as_json=True)
    server.listen(0).result(CEILING)
    try:
        client = connect(url_of(server))
        call = client.dispatch("ADD", {"x": 1, "y": 6})
        call.result(CEILING)
        client.dispatch("ADD", {"x": 1}).exception(CEILING)
    finally:
        server.close(0).result(CEILING)
    first, second = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    assert (first["type"], first["id"], first["error"]) == ("ADD", call.id, None)
    assert first["elapsed"] >= 0 and first["waited"] == 0 and first["peer"].startswith("127.0.0.1:")
    assert second["error"].startswith("TypeError: ")


def test_errors_of_serve_are_objects_for_programs(capsys):
    assert run(["serve", "no_such_module", "--json"]) == 2
    assert json.loads(capsys.readouterr().err)["kind"] == "usage"


def test_a_line_a_call_is_shown(module, capsys, connect):
    server = load(module(), verbose=True)
    server.listen(0).result(CEILING)
    try:
        client = connect(url_of(server))
        call = client.dispatch("ADD", {"x": 1, "y": 6})
        call.result(CEILING)
        client.dispatch("ADD", {"x": 1}).exception(CEILING)
    finally:
        server.close(0).result(CEILING)
    first, second = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ADD ")]
    assert re.fullmatch(rf"ADD {call.id} ok in [\d.]+ (us|ms|s) from 127\.0\.0\.1:\d+", first)
    assert " error TypeError: " in second
