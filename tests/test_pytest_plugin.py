"""The pytest plugin, in a pytest of its own."""

import os
import subprocess
import sys

TESTS = """
import sys

from_oompa = sorted(name for name in sys.modules if name.split(".")[0] == "oompa")


def test_nothing_is_imported_before_it_is_asked_for():
    assert set(from_oompa) <= {"oompa", "oompa.version", "oompa.pytest_plugin"}


def test_connect(oompa_connect, oompa_serve, oompa_stub):
    from oompa import Client, Server

    server = Server({"ADD": sum})
    assert oompa_connect(server).call("ADD", [1, 2]) == 3
    with Client(oompa_serve(server)) as client:
        assert client.call("ADD", [3, 4]) == 7
    stub = oompa_stub({"ADD": 5})
    assert oompa_connect(stub).call("ADD", [1, 2]) == 5
    assert stub.calls == [("ADD", [1, 2])]
    server.close().result()


def test_unexpected(oompa_connect, oompa_stub):
    future = oompa_connect(oompa_stub({"ADD": 5})).dispatch("MUL", 2)
    assert future.exception(10) is not None
"""


def run_pytest(tmp_path, *arguments, write=True):
    if write:
        (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "oompa.pytest_plugin", *arguments, "test_it.py"]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100).stdout


def test_the_fixtures_end_with_the_test_and_a_stub_fails_the_one_that_was_not_as_scripted(tmp_path):
    output = run_pytest(tmp_path)
    assert "3 passed, 1 error" in output, output
    assert "unexpected: MUL 2" in output


def test_the_fixtures_work_on_several_workers(tmp_path):
    output = run_pytest(tmp_path, "-p", "xdist", "-n", "2")
    assert "3 passed, 1 error" in output, output


LEAVING = """
import pytest

from oompa import Client, Server
from oompa.testing import connect

server = Server({"ADD": sum})
kept = []


@pytest.fixture(scope="module")
def shared():
    with connect(server) as client:
        yield client


@pytest.fixture
def forgotten():
    return connect(server)


def test_forgets_it():
    client = connect(server)
    assert client.call("ADD", [1, 2]) == 3


def test_keeps_it():
    kept.append(Client("ws://127.0.0.1:1"))


def test_has_it_of_a_fixture_that_forgets_it(forgotten):
    pass


def test_shares_it(shared):
    assert shared.call("ADD", [1, 2]) == 3


def test_closes_it():
    client = connect(server)
    client.close()


def test_has_it_closed(oompa_connect):
    assert oompa_connect(server).is_connected


def test_never_started_it():
    Client("ws://127.0.0.1:1", no_server=True)


@pytest.mark.oompa_leaves_open
def test_may():
    kept.append(connect(server))


def test_fails_anyhow():
    client = connect(server)
    assert not client
"""


def test_a_test_that_leaves_a_client_open_has_an_error(tmp_path):
    (tmp_path / "test_it.py").write_text(LEAVING)
    output = run_pytest(tmp_path, "-rE", write=False)
    assert "1 failed, 8 passed, 3 errors" in output, output
    for name in ("forgets_it", "keeps_it", "has_it_of_a_fixture_that_forgets_it"):
        assert f"ERROR test_it.py::test_{name} - Failed: the test" in output, output
    assert "one to ws://127.0.0.1:1. Close it, use it as a context manager, or mark" in output, output


def test_the_coverage_of_a_user_is_whole(tmp_path):
    (tmp_path / "calculator.py").write_text(
        "from oompa import Schema, Server\n\nschema = Schema()\n\n\n@schema.task('ADD')\n"
        "def add(x, y):\n    return x + y\n\n\nserver = Server(schema)\n"
    )
    (tmp_path / "test_it.py").write_text(
        "from calculator import server\n\n\ndef test_add(oompa_connect):\n"
        "    assert oompa_connect(server).call('ADD', {'x': 1, 'y': 2}) == 3\n    server.close().result()\n"
    )
    output = run_pytest(tmp_path, "-p", "pytest_cov", "--cov=calculator", "--cov-report=term", write=False)
    assert "100%" in output and "1 passed" in output, output
