"""What a type checker in strict mode makes of code that uses the library. Case 56."""

import pytest

USE = '''
from concurrent.futures import Future
from typing import Any

from oompa import Call, Client, Connection, Reply, Schema, Server

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


client.on(listener)
'''

#: What is told of each ``reveal_type``, and the one mistake.
REVEALED = [
    "def (error: Exception)",
    "oompa.client.client.Client",
    "oompa.client.call.Call",
    "def (*Any, **Any) -> oompa.client.call.Call",
    "bool",
]


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
    line = USE.splitlines().index("client.on(listener)") + 1
    assert len(errors) == 1 and "overload" in errors[0] and f":{line}:" in errors[0]
