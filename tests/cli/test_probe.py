"""A ping that imports next to nothing, and leaves whatever is unusual to a client."""

import subprocess
import sys

import pytest

from oompa.cli.probe import probe


def ping(*arguments, statement="import oompa.__main__ as it\nit.main()", **environment):
    command = [sys.executable, "-c", statement, "ping", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment or None)


def test_a_healthy_server_is_asked_without_importing_anything_heavy(serve):
    server = serve({}, lambda: {"disk": "ok"})
    statement = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "import oompa.__main__ as it\nit.main()"
    )
    done = ping(f"ws://127.0.0.1:{server.port}", "--timeout", "30", statement=statement)
    assert (done.returncode, done.stdout) == (0, '{"disk":"ok"}\n')
    loaded = set(done.stderr.split())
    assert "oompa.cli.probe" in loaded
    assert not loaded & {"flask", "click", "ssl", "websocket", "oompa.client", "werkzeug", "json", "concurrent"}


def test_the_environment_has_the_url(serve):
    server = serve({})
    assert ping(OOMPA_URL=f"ws://127.0.0.1:{server.port}/").stdout == "true\n"


def test_what_is_wrong_is_told_by_the_client(serve):
    done = ping(f"ws://127.0.0.1:{serve({}, lambda: 1 / 0).port}")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "oompa: ZeroDivisionError: division by zero\n")


def test_a_long_answer_comes_through_the_client(serve):
    done = ping(f"ws://127.0.0.1:{serve({}, lambda: 'x' * 1000).port}")
    assert (done.returncode, done.stdout) == (0, f'"{"x" * 1000}"\n')


@pytest.mark.parametrize(
    "arguments",
    [
        ["wss://localhost:9000"],
        ["ws://localhost"],
        ["ws://user:password@localhost:9000"],
        ["ws://[::1]:9000"],
        ["ws+unix:/run/app.sock"],
        ["ws://localhost:9000", "--json"],
        ["ws://localhost:9000", "-H", "A: b"],
        ["ws://localhost:9000", "--timeout", "soon"],
        ["ws://localhost:9000", "--timeout", "-1"],
        ["ws://localhost:9000", "--timeout"],
        ["ws://localhost:9000/\r\nX: y"],
        ["ws://localhost:9000000000"],
        ["--help"],
        [],
    ],
)
def test_what_is_unusual_is_left_alone(arguments, monkeypatch):
    monkeypatch.delenv("OOMPA_URL", raising=False)
    monkeypatch.setattr("socket.create_connection", lambda *args: pytest.fail("connected"))
    if arguments == ["ws://localhost:9000000000"]:
        monkeypatch.undo()
    assert probe(arguments) is None
