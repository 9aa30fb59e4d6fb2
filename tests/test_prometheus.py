"""Metrics: what is counted and under which labels, the page that tells them, gunicorn's workers, and Grafana's queries."""

import os
import re
import signal
import subprocess
import sys
import threading

import pytest
from conftest import CALCULATOR, CEILING, wait_until
from deployed import deployed, get
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from oompa import Client, RemoteError, Server, TaskError
from oompa.prometheus import instrument

SERVER, CLIENT = "rpc_server_call_duration_seconds", "rpc_client_call_duration_seconds"


def fail(payload):
    raise TaskError("sold out", **payload)


SCHEMA = {**CALCULATOR, "FAIL": fail}


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def pair(serve, connect, registry):
    """A server and its client, both instrumented."""
    server = serve(SCHEMA)
    client = connect(server)
    instrument(server, registry)
    instrument(client, registry)
    return server, client


def counts(registry, name):
    """How many calls, by task type and status."""
    found = {}
    for metric in registry.collect():
        for sample in metric.samples:
            if sample.name == f"{name}_count":
                found[sample.labels["rpc_method"], sample.labels["rpc_response_status_code"]] = sample.value
    return found


def test_calls_count_on_both_sides_by_type_and_status(pair, registry):
    server, client = pair
    client.call("ADD", {"x": 1, "y": 6})
    client.call("ADD", {"x": 1, "y": 6})
    for type, payload in (("DIV", {"x": 1, "y": 0}), ("FAIL", {"code": "not_found"}), ("FAIL", {}), ("X1", None), ("X2", None)):
        with pytest.raises(RemoteError):
            client.call(type, payload)
    client.ping().result(CEILING)
    client.call("$OOMPA/STATS")
    told = {
        ("ADD", "ok"): 2,
        ("DIV", "internal"): 1,
        ("FAIL", "not_found"): 1,
        ("FAIL", "unknown"): 1,
        ("_OTHER", "unimplemented"): 2,
    }
    assert counts(registry, SERVER) == told
    wait_until(lambda: counts(registry, CLIENT) == {**told, ("$OOMPA/STATS", "ok"): 1})


def test_a_code_that_a_peer_makes_up_is_no_label(serve, connect, registry):
    def pass_on(payload):
        raise RemoteError("x", {"code": "made up"})

    server = serve({"PASS": pass_on})
    instrument(server, registry)
    with pytest.raises(RemoteError):
        connect(server).call("PASS")
    assert counts(registry, SERVER) == {("PASS", "unknown"): 1}


def test_durations_are_in_seconds_and_have_the_time_in_the_queue(serve, connect, registry):
    go_on = threading.Event()
    server = serve({"WAIT": lambda payload: go_on.wait(CEILING)}, concurrency=1)
    instrument(server, registry)
    waited = []
    server.on("reply", lambda reply: waited.append(reply.waited + reply.elapsed))
    client = connect(server)
    calls = [client.dispatch("WAIT") for _ in range(2)]
    wait_until(lambda: registry.get_sample_value("oompa_server_queued") == 1)
    go_on.set()
    for each in calls:
        each.result(CEILING)
    labels = {"rpc_method": "WAIT", "rpc_response_status_code": "ok"}
    assert registry.get_sample_value(f"{SERVER}_sum", labels) == pytest.approx(sum(waited))


def test_gauges_tell_what_is_in_hand(serve, connect, registry):
    go_on = threading.Event()
    server = serve({"WAIT": lambda payload: go_on.wait(CEILING)}, concurrency=2)
    client = connect(server)
    instrument(server, registry)
    instrument(client, registry)
    names = [f"oompa_{name}" for name in ("server_connections", "server_running", "server_queued", "client_pending")]

    def gauges():
        return [registry.get_sample_value(name) for name in names]

    assert gauges()[1:] == [0, 0, 0]
    calls = [client.dispatch("WAIT") for _ in range(5)]
    wait_until(lambda: gauges() == [1, 2, 3, 5])
    go_on.set()
    for each in calls:
        each.result(CEILING)
    wait_until(lambda: gauges() == [1, 0, 0, 0])
    client.close()
    wait_until(lambda: gauges() == [0, 0, 0, 0])


def test_what_was_refused_or_cancelled_is_not_pending(connect, registry):
    client = connect("ws://127.0.0.1:1")
    instrument(client, registry)
    with pytest.raises(TypeError):
        client.dispatch("ADD", {1})
    assert registry.get_sample_value("oompa_client_pending") == 0
    call = client.dispatch("ADD")
    assert registry.get_sample_value("oompa_client_pending") == 1
    call.cancel()
    wait_until(lambda: counts(registry, CLIENT) == {("ADD", "cancelled"): 1})
    assert registry.get_sample_value("oompa_client_pending") == 0


def test_reconnects_count(serve, connect, registry):
    server = serve(SCHEMA)
    client = connect(server, reconnect_interval=0.01)
    instrument(client, registry)
    client.call("ECHO")
    assert registry.get_sample_value("oompa_client_reconnects_total") == 0
    server.disconnect()
    wait_until(lambda: registry.get_sample_value("oompa_client_reconnects_total") == 1)


def test_servers_in_one_registry_add_up_and_those_that_have_gone_do_not(serve, connect, registry):
    first, second = serve(SCHEMA), serve(SCHEMA)
    for server in (first, second):
        instrument(server, registry)
        connect(server).call("ECHO")
    assert registry.get_sample_value("oompa_server_connections") == 2
    assert counts(registry, SERVER) == {("ECHO", "ok"): 2}
    instrument(Server({}), registry)
    assert registry.get_sample_value("oompa_server_running") == 0


def test_a_registry_of_its_own_counts_for_itself(pair, registry):
    server, client = pair
    other = CollectorRegistry()
    instrument(server, other)
    client.call("ECHO")
    assert counts(registry, SERVER) == counts(other, SERVER) == {("ECHO", "ok"): 1}


# The page.


def test_a_page_tells_the_metrics(serve, connect, registry):
    server = serve(SCHEMA)
    instrument(server, registry, path="/metrics")
    connect(server).call("ECHO")
    status, text = get(server.port, "/metrics")
    assert status == 200 and text == generate_latest(registry).decode()
    assert f'{SERVER}_count{{rpc_method="ECHO",rpc_response_status_code="ok"}} 1.0' in text
    response = server.app.test_client().get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert response.content_type.startswith("application/openmetrics-text; version=1.0.0") and response.text.endswith("# EOF\n")


def test_what_cannot_be_instrumented_is_refused(registry):
    server = Server({})
    instrument(server, registry)
    with pytest.raises(ValueError, match="is instrumented already: once is enough, for each registry"):
        instrument(server, registry)
    with pytest.raises(TypeError, match="must be a Server, a Client or a Pool, not 3"):
        instrument(3, registry)
    other = CollectorRegistry()
    with pytest.raises(ValueError, match="a slash"):
        instrument(server, other, "metrics")
    with pytest.raises(ValueError, match="path='/health': the server has a page there already; choose another one"):
        instrument(server, other, "/health")
    with Client("ws://127.0.0.1:1", no_server=True) as client, pytest.raises(ValueError, match="a client serves no pages"):
        instrument(client, other, "/metrics")
    assert list(other.collect()) == []


def test_the_usual_registry_is_the_default():
    server = Server({})
    instrument(server)
    assert REGISTRY.get_sample_value("oompa_server_connections") == 0


def test_a_client_is_instrumented_without_flask():
    script = (
        "import sys; from oompa import Client; from oompa.prometheus import instrument\n"
        "with Client('ws://127.0.0.1:1', no_server=True) as client: instrument(client)\n"
        "assert 'flask' not in sys.modules and 'oompa.server' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


# Gunicorn's workers.

APPLICATION = """
import os
from oompa import Server
from oompa.prometheus import instrument

server = Server({"PID": lambda payload: os.getpid(), "ECHO": lambda payload: payload})
instrument(server, path="/metrics")
"""


def metric(port, name):
    """The value of a metric as a worker tells it; None where it tells none."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", get(port, "/metrics")[1], re.MULTILINE)
    return None if found is None else float(found[1])


@pytest.mark.long
def test_workers_add_up_and_those_that_have_ended_are_forgotten(tmp_path):
    (tmp_path / "application.py").write_text(APPLICATION)
    (tmp_path / "files").mkdir()
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "files"), "PYTHONPATH": f"{tmp_path}:{os.getcwd()}"}
    command = ("-m", "gunicorn", "-c", "python:oompa.gunicorn", "-w", "2", "-b", "127.0.0.1:{port}", "application:server")
    count = 'rpc_server_call_duration_seconds_count{rpc_method="PID",rpc_response_status_code="ok"}'
    clients = []
    with deployed(*command, **environment) as server:
        try:
            pids = set()

            def is_on_both():
                clients.append(Client(f"ws://127.0.0.1:{server.port}", reconnect_interval=0.05))
                pids.add(clients[-1].call("PID", timeout=CEILING))
                return len(pids) == 2

            wait_until(is_on_both, ceiling=30.0)
            wait_until(lambda: metric(server.port, "oompa_server_connections") == len(clients))
            assert metric(server.port, count) == len(clients)
            dead = pids.pop()
            os.kill(dead, signal.SIGKILL)
            wait_until(lambda: not (tmp_path / "files" / f"gauge_livesum_{dead}.db").exists(), ceiling=30.0)
            wait_until(lambda: all(client.is_connected for client in clients), ceiling=30.0)
            wait_until(lambda: metric(server.port, "oompa_server_connections") == len(clients), ceiling=30.0)
            assert metric(server.port, count) == len(clients)
        finally:
            for each in clients:
                each.close()
