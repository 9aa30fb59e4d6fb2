"""What ``import oompa`` brings, and what it leaves out until it is used."""

import ast
import pathlib
import subprocess
import sys

import pytest

import oompa


def loaded_by(statement):
    """The modules that a new interpreter has after a statement."""
    script = f"{statement}\nimport sys\nprint(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, text=True, check=True)
    return set(shown.stdout.split())


def test_a_client_is_imported_without_what_only_a_server_or_a_connection_needs():
    loaded = loaded_by("from oompa import Client, RemoteError")
    assert "oompa.client.client" in loaded
    unwanted = {"flask", "werkzeug", "simple_websocket", "wsproto", "h11", "websocket", "ssl", "websockets", "msgspec"}
    assert not unwanted & loaded
    assert not [name for name in loaded if name.startswith("oompa.server")]


def test_a_client_that_may_connect_has_imported_what_its_threads_need():
    loaded = loaded_by("from oompa import Client\nClient('ws://localhost:1', no_server=True).start()")
    assert {"websocket", "ssl"} <= loaded and "flask" not in loaded


def test_a_server_is_imported_without_a_client():
    loaded = loaded_by("from oompa import Server, Schema, TaskError")
    assert not [name for name in loaded if name.startswith("oompa.client")]


def test_every_name_is_imported_from_where_type_checkers_are_told():
    tree = ast.parse(pathlib.Path(oompa.__file__).read_text())
    (told,) = [node for node in tree.body if isinstance(node, ast.If)]
    assert {each.names[0].name: f".{each.module}" for each in told.body} == oompa._HOMES
    assert sorted(oompa._HOMES) == sorted(oompa.__all__)


def test_every_name_is_there_and_listed():
    for name in oompa.__all__:
        assert getattr(oompa, name).__name__ == name
    assert set(oompa.__all__) <= set(dir(oompa))


def test_modules_of_the_landing_need_no_import_of_their_own():
    loaded_by("import oompa\noompa.errors.RemoteError, oompa.schema.Schema")


@pytest.mark.parametrize("broken", ["ModuleType('websockets')", "None"])
def test_a_client_can_be_imported_beside_something_else_named_websockets(broken):
    loaded_by(f"import sys\nfrom types import ModuleType\nsys.modules['websockets'] = {broken}\nfrom oompa import Client")


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'oompa' has no attribute 'Clint'"):
        oompa.Clint
    with pytest.raises(ImportError):
        exec("from oompa import Clint")
