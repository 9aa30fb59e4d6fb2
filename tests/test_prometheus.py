"""Metrics: what is counted and under which labels, the page that tells them, gunicorn's workers, and Grafana's queries."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from urllib.parse import urlencode

import needs
import pytest
from conftest import CALCULATOR, CEILING, wait_until
from deployed import deployed, get
from ports import reserved_port
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from oompa import Client, Pool, RemoteError, Server, TaskError
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


def test_a_pool_counts_as_a_client(serve, registry):
    server = serve(SCHEMA, introspection=False)  # or the pool goes on looking for another process, which counts as well
    with Pool(f"ws://127.0.0.1:{server.port}", size=2, reconnect_interval=0.01) as pool:
        instrument(pool, registry)
        pool.call("ECHO")
        wait_until(lambda: counts(registry, CLIENT) == {("ECHO", "ok"): 1})
        wait_until(lambda: len(server.connections) == 2)
        server.disconnect()
        wait_until(lambda: registry.get_sample_value("oompa_client_reconnects_total") == 2)


def test_a_task_that_is_a_future_counts_when_it_is_settled(serve, connect, registry):
    future = Future()
    server = serve({"WAIT": lambda payload: future})
    instrument(server, registry)
    call = connect(server).dispatch("WAIT")
    wait_until(lambda: registry.get_sample_value("oompa_server_running") == 1)
    assert counts(registry, SERVER) == {}
    future.set_result(1)
    assert call.result(CEILING) == 1
    assert counts(registry, SERVER) == {("WAIT", "ok"): 1}


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
@pytest.mark.parametrize("more", [(), ("--preload",)], ids=["", "preloaded"])
def test_workers_add_up_and_those_that_have_ended_are_forgotten(tmp_path, more):
    (tmp_path / "application.py").write_text(APPLICATION)
    (tmp_path / "files").mkdir()
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "files"), "PYTHONPATH": f"{tmp_path}:{os.getcwd()}"}
    place = ("-b", "127.0.0.1:{port}")
    command = ("-m", "gunicorn", "-c", "python:oompa.gunicorn", "-w", "2", *place, *more, "application:server")
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


# The dashboard.

DASHBOARD = json.loads((Path(__file__).parent.parent / "examples" / "deploy" / "grafana.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
VARIABLES = [each["query"]["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]

CONFIGURATION = """
global: {scrape_interval: 200ms, scrape_timeout: 200ms}
scrape_configs:
  - job_name: calculator
    static_configs: [{targets: ["127.0.0.1:%s"]}]
"""


@contextlib.contextmanager
def prometheus_of(server, folder):
    """Run Prometheus on a server's page: ``ask(path, **parameters)`` gives what its API answers."""
    (folder / "prometheus.yml").write_text(CONFIGURATION % server.port)
    with reserved_port() as port:
        options = {"config.file": folder / "prometheus.yml", "storage.tsdb.path": folder / "data", "log.level": "error"}
        arguments = [f"--{name}={value}" for name, value in options.items()]
        process = subprocess.Popen([needs.program("prometheus"), *arguments, f"--web.listen-address=127.0.0.1:{port}"])

        def is_ready():
            assert process.poll() is None
            with contextlib.suppress(OSError):
                return get(port, "/-/ready")[0] == 200

        def ask(path, **parameters):
            status, text = get(port, f"/api/v1/{path}?{urlencode(parameters)}")
            assert status == 200, text
            return json.loads(text)["data"]

        try:
            wait_until(is_ready, ceiling=30.0)
            yield ask
        finally:
            process.kill()
            process.wait()


def filled_in(text):
    """A query as Grafana asks it, of all jobs and instances."""
    return text.replace("$job", ".*").replace("$instance", ".*").replace("$__rate_interval", "5s")


@pytest.mark.long
def test_each_query_of_the_dashboard_has_an_answer(serve, connect, registry, tmp_path):
    go_on = threading.Event()
    server = serve({**SCHEMA, "WAIT": lambda payload: go_on.wait(60.0)}, concurrency=2)
    instrument(server, registry, path="/metrics")
    caller, waiter = connect(server, reconnect_interval=0.01), connect(server)
    for client in (caller, waiter):
        instrument(client, registry)
    try:
        calls = [waiter.dispatch("WAIT", timeout=60.0) for _ in range(3)]
        with prometheus_of(server, tmp_path) as ask:
            unanswered = set(QUERIES)

            def are_answered():
                caller.call("ADD", {"x": 1, "y": 6})
                caller.dispatch("DIV", {"x": 1, "y": 0}).exception(CEILING)
                for each in server.connections:
                    if not each.load()[0]:  # the caller's, which it makes anew
                        each.close()
                for query in tuple(unanswered):
                    found = ask("query", query=filled_in(query))["result"]
                    if found and all(float(each["value"][1]) > 0 for each in found):
                        unanswered.discard(query)
                return not unanswered

            try:
                wait_until(are_answered, ceiling=60.0)
            except AssertionError:
                pytest.fail(f"no answer above 0 to {unanswered}")
            for variable in VARIABLES:
                selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", filled_in(variable)).groups()
                values = ask(f"label/{label}/values", **{"match[]": selector})
                assert values == ["calculator" if label == "job" else f"127.0.0.1:{server.port}"]
    finally:
        go_on.set()
    for each in calls:
        each.result(CEILING)


def test_the_dashboard_asks_for_all_that_is_counted_and_nothing_else(pair, registry):
    pair[1].call("ECHO")
    wait_until(lambda: counts(registry, CLIENT))
    told = {sample.name for metric in registry.collect() for sample in metric.samples}
    asked = set(re.findall(r"\b(?:oompa|rpc)_\w+_(?:bucket|count|total|connections|running|queued|pending)\b", str(QUERIES)))
    assert asked <= told
    assert told - asked == {f"{name}_{part}" for name in (SERVER, CLIENT) for part in ("sum", "created")} | {
        "oompa_client_reconnects_created"
    }
