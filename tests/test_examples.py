"""Each file of examples/ runs, as its first lines say it does."""

import json
import os
import pathlib
import re
import subprocess
import sys
from urllib.parse import urlencode
from urllib.request import urlopen

import needs
import pytest
from conftest import CEILING, wait_until
from deployed import deployed, get
from ports import reserved_port

from oompa import Client

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
INTEROP = pathlib.Path(__file__).parent / "interop"

GUNICORN = ("-m", "gunicorn", "--threads", "64", "--no-control-socket", "-b", "127.0.0.1:{port}")


def run(*arguments):
    environment = {**os.environ, "PYTEST_ADDOPTS": ""}  # which is for this run alone
    command = [sys.executable, "-W", "error", "-m", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, timeout=30, text=True)


def test_calculator_client_starts_a_server_of_its_own():
    shown = run("examples.calculator_client")
    assert shown.returncode == 0 and shown.stderr.count("task 'DIV'") == shown.stderr.count("Traceback") == 1
    assert shown.stdout.splitlines() == [
        "1 + 6 = 7",
        "3 * 5 = 15",
        "9 - 4 = 5",
        "1 / 0 : ZeroDivisionError: division by zero",
        "ping  : True",
        "health: 200 ok",
    ]


@pytest.mark.parametrize("module", ["calculator", "cache_middleware"])
def test_server_of_an_example_serves_the_calculator_client(module):
    with deployed("-m", f"examples.{module}", "{port}") as server:
        shown = run("examples.calculator_client", f"ws://127.0.0.1:{server.port}")
        assert (shown.returncode, shown.stderr) == (0, "")
        assert "1 + 6 = 7" in shown.stdout


@pytest.mark.parametrize("module", ["calculator:server", "cache_middleware:server"])
def test_gunicorn_serves_an_example(module):
    with deployed(*GUNICORN, f"examples.{module}") as server:
        assert get(server.port, "/health") == (200, "ok")
        with Client(f"ws://127.0.0.1:{server.port}") as client:
            assert client.call("ADD", {"x": 1, "y": 6}, timeout=CEILING) == 7


def test_observability_shows_logs_spans_and_metrics_of_one_trace():
    for each in ("opentelemetry.sdk", "prometheus_client"):
        needs.package(each)
    shown = run("examples.observability")
    assert (shown.returncode, shown.stderr) == (0, "")
    (raised,) = [json.loads(line) for line in shown.stdout.splitlines() if "raised" in line]
    assert raised["level"] == "ERROR" and raised["exception"].endswith("ZeroDivisionError: division by zero")
    for kind in ("CLIENT", "SERVER"):
        assert f"{kind} span DIV: trace {raised['trace_id']}, ERROR" in shown.stdout
    assert 'seconds_count{rpc_method="DIV",rpc_response_status_code="internal"} 1.0' in shown.stdout
    assert "oompa_server_connections 1.0" in shown.stdout


@pytest.mark.long
def test_gunicorn_serves_observability():
    for each in ("opentelemetry.sdk", "prometheus_client"):
        needs.package(each)
    with deployed(*GUNICORN, "examples.observability:server") as server:
        with Client(f"ws://127.0.0.1:{server.port}") as client:
            assert client.call("ADD", {"x": 1, "y": 6}, timeout=CEILING) == 7
        status, text = get(server.port, "/metrics")
        assert status == 200 and 'rpc_method="ADD"' in text


@pytest.mark.parametrize("command", [("-m", "examples.explorer", "{port}"), (*GUNICORN, "examples.explorer:server")])
def test_the_explorer_is_shown_and_its_shop_answers(command):
    with deployed(*command) as server:
        status, page = get(server.port, "/explore")
        assert status == 200 and 'src="explore/page.js"' in page
        with Client(f"ws://127.0.0.1:{server.port}") as client:
            assert client.call("PRICE", {"net": 100}) == 119
            steps = []
            assert client.dispatch("STOCKTAKING", {"shelves": 2}, on_progress=steps.append).result(CEILING) == 24
            wait_until(lambda: [step.message for step in steps] == ["shelf 1", "shelf 2"])


def test_existing_flask_app_serves_pages_and_tasks():
    with deployed(*GUNICORN, "examples.existing_flask_app:app") as server:
        assert get(server.port, "/") == (200, "an ordinary page")
        assert get(server.port, "/health") == (200, "ok")
        with Client(f"ws://127.0.0.1:{server.port}/tasks") as client:
            assert client.call("ADD", {"x": 1, "y": 6}, timeout=CEILING) == 7


def test_existing_flask_app_runs_under_the_development_server():
    with deployed("-m", "flask", "--app", "examples.existing_flask_app", "run", "--port", "{port}") as server:
        assert get(server.port, "/") == (200, "an ordinary page")
        with Client(f"ws://127.0.0.1:{server.port}/tasks") as client:
            assert client.call("ADD", {"x": 1, "y": 6}, timeout=CEILING) == 7


def test_the_tests_of_the_calculator_pass():
    shown = run("pytest", "-q", "-p", "no:cacheprovider", "examples/test_calculator.py")
    assert "3 passed" in shown.stdout, shown.stdout


def test_progress_bar_shows_each_call():
    needs.package("tqdm")
    shown = run("examples.progress_bar")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout == "495 results, 5 errors, such as ZeroDivisionError: division by zero\n"
    assert "500/500" in shown.stderr


def test_flask_site_leaves_its_sums_to_the_worker(tmp_path):
    needs.package("flask_sqlalchemy")
    database = f"sqlite:///{tmp_path}/invoices.db"
    with reserved_port() as port:
        places = {"DATABASE": database, "WORKER": f"ws://127.0.0.1:{port}/tasks"}
        with deployed(*GUNICORN, "examples.flask_site:create_worker()", port=port, **places):
            with deployed("-m", "flask", "--app", "examples.flask_site", "run", "--port", "{port}", **places) as site:
                assert "EventSource" in get(site.port, "/static/flask_site.html")[1]
                for amount, total in ((3, 3), (4, 7)):
                    data = urlencode({"amount": amount}).encode()
                    with urlopen(f"http://127.0.0.1:{site.port}/invoices", data, timeout=CEILING) as answer:
                        assert answer.read().decode().replace(" ", "").strip() == f'{{"sum":{total}}}'
                steps = get(site.port, "/sum")[1].split("\n\n")
                assert steps[0] == "data: 0 of 2" and steps[-2:] == ["data: 7", ""]


@pytest.mark.parametrize("server", ["js", "py"])
@pytest.mark.parametrize("client", ["js", "py"])
def test_a_migration_from_node_may_begin_at_either_end(server, client):
    needs.program("node")
    if not (INTEROP / "node_modules" / "oompa").exists():
        pytest.skip("npm install --prefix tests/interop")
    with reserved_port() as port, started(f"server.{server}", port) as process:
        wait_until(lambda: is_listening(port))
        shown = subprocess.run(command(f"client.{client}", f"ws://127.0.0.1:{port}"), **NODE, timeout=30)
        process.terminate()
        told = process.communicate(timeout=CEILING)[0]
    assert shown.stdout.splitlines() == ["1 + 6 = 7", "1 / 0 : Error: Zero div", "healthy"], shown
    assert [line.split()[0] for line in told.splitlines() if "#" in line] == ["ADD", "DIV"]


NODE = {
    "env": {**os.environ, "NODE_PATH": str(INTEROP / "node_modules"), "NODE_NO_WARNINGS": "1", "PYTHONUNBUFFERED": "1"},
    "text": True,
    "stdout": subprocess.PIPE,
    "stderr": subprocess.PIPE,
}


def command(file, argument):
    """Run a file of ``examples/from_node``."""
    name, _, kind = file.partition(".")
    program = ["node", EXAMPLES / "from_node" / file] if kind == "js" else [sys.executable, "-m", f"examples.from_node.{name}"]
    return [*program, str(argument)]


def started(file, port):
    return subprocess.Popen(command(file, port), **NODE)


def is_listening(port):
    try:
        return get(port, "/health", 1.0)[0] == 200
    except OSError:
        return False


PAID_ONCE = """\
the first time: {'receipt': 1}
once more     : {'receipt': 1}
another order : {'receipt': 2}
31 for order-8: another payload was sent under the same key
1000 for order-9: not enough money
1000 for order-9: not enough money
paid          : [30, 30]
"""


def test_a_payment_that_is_sent_twice_is_made_once():
    shown = run("examples.pay_once")
    assert (shown.returncode, shown.stderr, shown.stdout) == (0, "", PAID_ONCE)


def test_a_payment_is_made_once_by_two_processes(tmp_path):
    workers = ("-m", "gunicorn", "-w", "2", *GUNICORN[2:], "examples.pay_once:make_server()")
    with deployed(*workers, SHOP_DB=str(tmp_path / "shop.db")) as server:
        for _ in range(8):  # either process would give its own numbers
            with Client(f"ws://127.0.0.1:{server.port}") as client:
                paid = client.dispatch("PAY", {"amount": 30}, key="order-7").result(CEILING)
                assert paid == {"receipt": 1}
                client.dispatch("PAY", {"amount": 30}).result(CEILING)


@pytest.mark.long
def test_dask_runs_the_tasks_of_an_example():
    needs.package("distributed")
    shown = run("examples.on_dask")
    assert shown.stdout.splitlines() == ["9592 primes below 100000", "counted by 2 processes"], shown.stderr


def test_each_example_is_short_and_has_a_place_in_the_manual():
    manual = (EXAMPLES / "README.md").read_text()
    files = [each for each in EXAMPLES.rglob("*") if each.suffix in (".py", ".js") and "deploy" not in each.parts]
    for file in files:
        assert len(file.read_text().splitlines()) < 60, file
        assert f"]({file.relative_to(EXAMPLES)})" in manual, file
    for link in re.findall(r"\]\(([^)#]+)\)", manual):
        assert (EXAMPLES / link).exists(), link
