"""Each file of examples/ runs, as its first lines say it does."""

import json
import os
import subprocess
import sys

import needs
import pytest
from conftest import CEILING, wait_until
from deployed import deployed, get

from oompa import Client

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
