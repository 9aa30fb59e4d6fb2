"""The command on a real pseudo terminal: what it draws, with rich and without, and Ctrl-C as a terminal sends it."""

import os
import subprocess
import sys
import threading

import needs
import pytest
from conftest import CALCULATOR, CEILING, wait_until

#: Runs a command on a pseudo terminal that it leads, and passes on what is typed and drawn.
ON_TERMINAL = """
import os, pty, sys
sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))
"""


class Terminal:
    """A pseudo terminal on which a command runs.

    Threads: one, which reads what is drawn until the command has ended.
    """

    def __init__(self, *arguments, **environment):
        self._process = subprocess.Popen(
            [sys.executable, "-c", ON_TERMINAL, sys.executable, "-m", "oompa", *arguments],
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30", **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._drawn = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        while drawn := os.read(self._process.stdout.fileno(), 65536):
            self._drawn += drawn

    @property
    def drawn(self):
        return self._drawn.decode()

    def press_ctrl_c(self):
        self._process.stdin.write(b"\x03")
        self._process.stdin.flush()

    def end(self):
        """Wait for the command's end; its exit code."""
        try:
            code = self._process.wait(CEILING)
        finally:
            self._process.kill()
            self._reader.join(CEILING)
            self._process.stdin.close()
            self._process.stdout.close()
        return code


@pytest.fixture
def without_rich(tmp_path):
    """An environment in which rich cannot be imported, as where it is not installed."""
    (tmp_path / "rich.py").write_text("raise ImportError('not installed')")
    return {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


@pytest.fixture
def with_rich():
    needs.package("rich")
    return {}


@pytest.fixture(params=["with_rich", "without_rich"])
def either(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def url(serve):
    return f"ws://127.0.0.1:{serve(CALCULATOR).port}"


def bench(url, environment, *arguments):
    terminal = Terminal("bench", url, "ECHO", "1", "-n", "300", "-c", "2", *arguments, **environment)
    assert terminal.end() == 0, terminal.drawn
    return terminal.drawn


def test_bench_draws_a_bar_and_then_its_report(url, either):
    drawn = bench(url, either)
    bar, _, report = drawn.partition("300 calls in ")
    assert "calling" in bar and "p99.9" in report and "up to" in report


def test_bench_draws_rates_with_rich_and_a_plain_bar_without(url, with_rich, without_rich):
    assert "calls/s" in bench(url, with_rich).partition("300 calls in ")[0]
    assert "100%" in bench(url, without_rich).partition("300 calls in ")[0]


def test_a_dumb_terminal_is_not_drawn_on(url, either):
    drawn = bench(url, {**either, "TERM": "dumb"})
    assert drawn.startswith("300 calls in ") and "\x1b" not in drawn


def test_top_draws_in_place(url, either):
    terminal = Terminal("top", url, "--interval", "0.1", "-n", "3", **either)
    assert terminal.end() == 0
    assert terminal.drawn.count("CALLS/S") >= 3 and "connections: 1" in terminal.drawn
    assert "\x1b[2K" in terminal.drawn if not either else "\x1b[H" in terminal.drawn


@pytest.mark.parametrize(
    "arguments", [("top",), ("bench", "SLEEP", '{"seconds": 0.01}', "--duration", "1000")], ids=["top", "bench"]
)
def test_ctrl_c_on_a_terminal_ends_it_with_a_sentence(serve, either, arguments):
    server = serve(CALCULATOR)
    terminal = Terminal(*arguments, **either, OOMPA_URL=f"ws://127.0.0.1:{server.port}")
    try:
        wait_until(lambda: ("CALLS/S" if arguments == ("top",) else "calling") in terminal.drawn)
        # Of eight callers: by then some have a reply.
        wait_until(lambda: arguments == ("top",) or server.stats()["tasks"]["SLEEP"]["num_requests"] > 20)
    finally:
        terminal.press_ctrl_c()
        code = terminal.end()
    assert code == 130 and "oompa: interrupted" in terminal.drawn and "Traceback" not in terminal.drawn
    assert "calls/s" in terminal.drawn.rpartition("p99.9")[0] or arguments == ("top",), "what was measured is not told"
    assert "\x1b[?25l" not in terminal.drawn.rpartition("\x1b[?25h")[2], "the cursor stays hidden"


def test_ctrl_c_stops_serve_once_its_tasks_are_done(tmp_path, connect):
    (tmp_path / "slow.py").write_text("import time\nschema = {'SLEEP': lambda seconds: time.sleep(seconds)}")
    terminal = Terminal("serve", "slow", "--bind", "127.0.0.1:0", "-v", PYTHONPATH=f"{tmp_path}{os.pathsep}{os.getcwd()}")
    try:
        wait_until(lambda: "Ctrl-C stops" in terminal.drawn)
        client = connect("ws://" + terminal.drawn.partition("ws://")[2].partition(" ")[0])
        call = client.dispatch("SLEEP", 0.5)
        client.wait_connected(CEILING)
        client.ping().result(CEILING)
    finally:
        terminal.press_ctrl_c()
        code = terminal.end()
    assert call.result(CEILING) is None
    assert code == 0 and "SLEEP " in terminal.drawn and "Traceback" not in terminal.drawn
