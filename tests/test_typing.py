"""What a type checker in strict mode makes of code that uses the library. Case 56."""

import json
import os
import pathlib
import subprocess
import sys

import needs
import pytest

ROOT = pathlib.Path(__file__).parent.parent

USE = '''
from concurrent.futures import Future
from collections.abc import Callable
from typing import Any

from oompa import Call, Client, Connection, Reply, Request, Schema, Server

client = Client("ws://localhost:1", {"add": {"type": "ADD"}}, no_server=True)
Client(["ws://localhost:1"], no_server=True, subprotocols=["v1"])
Client(lambda: "ws://localhost:1", no_server=True)


@client.on("error")
def listener(error: Exception) -> None: ...


@client.once("reconnected")
def other() -> None: ...


reveal_type(listener)
reveal_type(client.on("error", listener).once("error", listener).off("error"))
reveal_type(client.add(1, 2))
reveal_type(client.add)
client.wait_connected(timeout=1.0)
reveal_type(client.is_connected)
server = Server({})
server.on("reply", print).on("stale", print)


@server.on("reply")
def reply(reply: Reply) -> None: ...


@server.once("stale")
def stale(reply: Reply) -> None: ...


@server.use
def middleware(request: Request, call_next: Callable[[Request], Any]) -> Any: ...


@client.use
def asking(request: Request, call_next: Callable[[Request], "Future[Any]"]) -> "Future[Any]":
    return call_next(request)


@server.use
def unchecked(request: int, call_next: Callable[[Request], Any]) -> Any: ...


reveal_type(reply)
reveal_type(stale)
reveal_type(middleware)
reveal_type(asking)
reveal_type(server.on("reply", reply).once("reply", reply).off("reply"))
client.on(listener)
'''

#: What is told of each ``reveal_type``.
REVEALED = [
    "def (error: Exception)",
    "oompa.client.client.Client",
    "oompa.client.call.Call",
    "def (*Any, **Any) -> oompa.client.call.Call",
    "bool",
    "def (reply: oompa.wire.messages.Reply)",
    "def (reply: oompa.wire.messages.Reply)",
    "def (request: oompa.wire.messages.Request, call_next: def (oompa.wire.messages.Request) -> Any) -> Any",
    "def (request: oompa.wire.messages.Request, call_next: def (oompa.wire.messages.Request) -> "
    "concurrent.futures._base.Future[Any]) -> concurrent.futures._base.Future[Any]",
    "oompa.server.server.Server",
]

#: The two mistakes, and what is told of them.
MISTAKEN = {"def unchecked(": "type variable", "client.on(listener)": "overload"}


def test_a_strict_type_checker_understands_decorators_and_generated_methods(tmp_path):
    """Case 56."""
    mypy = pytest.importorskip("mypy.api")
    file = tmp_path / "use.py"
    file.write_text(USE)
    told, faults, _ = mypy.run(["--strict", "--no-incremental", "--follow-imports=silent", str(file)])
    assert not faults, faults
    lines = told.splitlines()
    notes = [line.partition('Revealed type is "')[2].rstrip('"') for line in lines if "Revealed" in line]
    notes = [note.replace("builtins.", "") for note in notes]  # which a newer mypy leaves out
    assert notes == REVEALED, told
    errors = [line for line in lines if ": error:" in line]
    assert len(errors) == len(MISTAKEN), told
    for error, (code, problem) in zip(errors, MISTAKEN.items()):
        wrong = next(number for number, line in enumerate(USE.splitlines(), 1) if line.startswith(code))
        assert problem in error and int(error.split(":")[1]) in (wrong - 1, wrong)  # of a decorator, or what it decorates


#: A small application as both type checkers are to understand it: no error, and types that are asserted.
APPLICATION = '''
# pyright: strict
from collections.abc import Iterator
from concurrent.futures import Future, as_completed, wait
from typing import Any

import pytest
from typing_extensions import assert_type

from oompa import Call, Client, RemoteError, Request, Schema, Server, TaskError, current_request
from oompa.testing import Delay, Faults, Stub, connect, serve

schema = Schema(validate=True)


@schema.task("ADD")
def add(x: int, y: int = 1) -> int:
    return x + y


@schema.task("LATER", validate=False)
def later(*, name: str) -> "Future[str]":
    if name == "":
        raise TaskError("no name", code="invalid_argument")
    return Future()


assert_type(add(1, y=2), int)
assert_type(later(name="a"), "Future[str]")
server = Server(schema, lambda: True, name="typed", default=str)


@server.use
def middleware(request: Request, call_next: Any) -> Any:
    assert_type(request.remaining(), "float | None")
    return call_next(request)


def run() -> None:
    request = current_request()
    if request is not None:
        request.progress(1, 2)


server.init_app(server.app)


@pytest.fixture
def client() -> Iterator[Client]:
    with connect(server, {"add": {"type": "ADD"}}, identity="ann", faults=Faults(delay=1), timeout=2.0) as client:
        yield client


def test_add(client: Client) -> None:
    assert_type(client, Client)
    assert_type(client.dispatch("ADD", {"x": 1}), Call)
    assert_type(client.add({"x": 1}), Call)
    calls = [client.add({"x": n}) for n in range(3)]
    assert len(wait(calls).done) == sum(1 for _ in as_completed(calls))
    try:
        client.call("ADD", {"x": 1}, timeout=1.0)
    except RemoteError as error:
        assert_type(error.code, "str | None")
    with serve(server) as url, Client(url) as other:
        assert_type(url, str)
        other.ping().result()
    with Stub({"ADD": Delay(0.1, 3)}, all_called=True, faults=Faults(close=1)) as stub:
        assert_type([call.type for call in stub.calls], list[str])
'''

MISTAKES = '''
from oompa import Schema
from oompa.testing import connect

schema = Schema()


@schema.task("ADD")
def add(x: int, y: int) -> int:
    return x + y


add("1", 2)
connect(schema)
'''


def checked_by_mypy(file):
    """The lines in which mypy finds faults, and all that it says."""
    mypy = pytest.importorskip("mypy.api")
    told, faults, _ = mypy.run(["--strict", "--no-incremental", "--follow-imports=silent", str(file)])
    assert not faults, faults
    return [int(line.split(":")[1]) for line in told.splitlines() if ": error:" in line], told


def checked_by_pyright(file):
    """The lines in which pyright finds faults, and all that it says."""
    needs.package("pyright")
    needs.program("node")
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(file)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    told = subprocess.run(command, cwd=file.parent, env=environment, capture_output=True, text=True, timeout=300).stdout
    found = json.loads(told[told.index("{") :])["generalDiagnostics"]
    return [each["range"]["start"]["line"] + 1 for each in found if each["severity"] == "error"], told


@pytest.mark.long
@pytest.mark.parametrize("check", [checked_by_mypy, checked_by_pyright])
def test_type_checkers_see_through_the_library(check, tmp_path):
    file = tmp_path / "application.py"
    file.write_text(APPLICATION)
    lines, told = check(file)
    assert lines == [], told


@pytest.mark.long
@pytest.mark.parametrize("check", [checked_by_mypy, checked_by_pyright])
def test_type_checkers_find_mistakes(check, tmp_path):
    file = tmp_path / "mistakes.py"
    file.write_text(MISTAKES)
    lines, told = check(file)
    assert lines == [13, 14], told
