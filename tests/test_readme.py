"""README.md's code blocks run, in order, as a reader would run them; its commands are those CI runs."""

import logging
import os
import pathlib
import re
import shlex
import subprocess
import sys

import needs
import pytest
from conftest import CEILING, DESCRIBED, wait_until
from deployed import answers, deployed
from ports import reserved_port

from oompa import Client, wire

README = pathlib.Path(__file__).parent.parent.joinpath("README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_python_blocks_run_in_order(capsys, caplog):
    caplog.set_level(logging.DEBUG)
    namespace = {"__name__": "readme"}
    with reserved_port() as port:
        try:
            for block in blocks("python"):
                exec(block.replace("9000", str(port)), namespace)
                if namespace["server"].port is None:
                    namespace["server"].listen(port).result(CEILING)
            with namespace["Client"](f"ws://localhost:{port}") as client:
                assert [client.call("ADD", {"x": 2, "y": 3}) for _ in range(2)] == [5, 5]
            assert namespace["cache"] == {("ADD", 2, 3): 5}
        finally:
            namespace["server"].close().result(CEILING)
    assert capsys.readouterr().out == "ZeroDivisionError: division by zero\n9900\n"


def test_the_first_server_runs_when_it_is_copied_into_a_file(tmp_path):
    """Case 16: it exited at once."""
    file = tmp_path / "server.py"
    file.write_text(blocks("python")[0].replace("9000", "int(__import__('sys').argv[1])"))
    with deployed(str(file), "{port}") as server:
        with Client(f"ws://127.0.0.1:{server.port}") as client:
            assert client.call("ADD", {"x": 1, "y": 6}) == 7


def test_the_first_server_is_served_and_called_from_a_shell(tmp_path):
    (tmp_path / "calculator.py").write_text(blocks("python")[0])
    (serve, call) = next(block for block in blocks("sh") if "oompa serve" in block).splitlines()
    serve, said = serve.partition(" #")[0], call.rpartition("# in another terminal: ")[2]
    with reserved_port() as port:
        path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
        shell = {"cwd": tmp_path, "env": {**os.environ, "PATH": path}, "text": True}
        server = subprocess.Popen([*shlex.split(serve), "--bind", f"127.0.0.1:{port}"], stderr=subprocess.PIPE, **shell)
        try:
            wait_until(lambda: answers(port))
            done = subprocess.run(["sh", "-c", call.replace("9000", str(port))], capture_output=True, **shell)
            assert (done.stdout.strip(), done.stderr) == (said, "")
        finally:
            server.terminate()
            told = server.communicate(timeout=CEILING)[1]
    assert "serving calculator:server" in told
    assert any(line.startswith("ADD ") and " ok in " in line for line in told.splitlines())
    assert server.returncode == 0


def test_the_snippet_in_javascript_says_what_it_promises(serve):
    """Case 58."""
    node = needs.program("node")
    interop = pathlib.Path(__file__).parent / "interop"
    if not (interop / "node_modules" / "oompa").exists():
        pytest.skip("npm install --prefix tests/interop")
    server = serve(origins=["*"])
    (snippet,) = blocks("js")
    snippet = snippet.replace("9000", str(server.port)).replace("localhost", "127.0.0.1")
    script = f"globalThis.WebSocket = require('ws'); {snippet}"
    with subprocess.Popen([node, "-e", script], cwd=interop, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline().strip() == '{"type":"OK","id":"1","payload":7}'
        finally:
            process.kill()


def test_the_wire_is_told_where_a_user_looks():
    """Case 58."""
    for form in ('"payload": any', '"error": any', "$OOMPA/PING", "Oompa-Features", "Oompa-Max-Message-Size", "Oompa-Client"):
        assert form in wire.__doc__


def test_commands_set_up_everything_themselves():
    run, test = blocks("sh")[0], next(block for block in blocks("sh") if "-m pytest" in block)
    for command in (run, test):
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install")
    assert "examples.calculator_client" in run and "-m pytest" in test


@pytest.mark.parametrize("side", DESCRIBED)
def test_tables_show_every_option_as_it_is_described(side):
    for name, option in DESCRIBED[side].items():
        assert f"| `{name}` | {shown(option)} | {option.meaning} |" in README.splitlines()


def shown(option):
    """A default as the tables show it."""
    if option.shown:
        return option.shown
    text = repr(option.default).replace("'", '"')
    return f"`{text}`" if isinstance(option.default, (str, dict)) else text


def test_it_is_no_longer_than_anybody_reads():
    assert len(README.splitlines()) < 250
