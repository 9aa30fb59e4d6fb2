"""Tasks that run on a Dask cluster: a scheduler and two workers, as on three machines."""

import threading

import elsewhere
import needs
import pytest
from conftest import wait_until
from dask_cluster import dask_running
from deployed import get

from oompa import RemoteError, Schema
from oompa.errors import RequestTimeout

pytestmark = pytest.mark.long

#: Seconds for what a cluster does on a machine that is busy.
PATIENT = 20.0


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """Dask's client keeps connections to workers, and threads that pickle, until it is closed: the usual look finds those."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A client of a cluster, with four threads in two workers."""
    distributed = needs.package("distributed")
    with dask_running(tmp_path_factory.mktemp("dask")) as address:
        with distributed.Client(address, set_as_default=False) as client:
            yield client


def known_to(cluster):
    """How many tasks the scheduler has in hand, or results of. Dask lets go of what failed when the collector comes."""
    return cluster.run_on_scheduler(
        lambda dask_scheduler: sum(each.state != "erred" for each in dask_scheduler.tasks.values())
    )


@pytest.fixture
def schema(cluster):
    """Tasks for the cluster."""
    schema, executor = Schema(), cluster.get_executor()
    schema.add("ADD", elsewhere.add, executor=executor)
    schema.add("PID", elsewhere.pid, executor=executor)
    schema.add("DIV", elsewhere.divide, executor=executor)
    schema.add("WAIT", elsewhere.wait_for, executor=executor)
    schema["HERE"] = lambda payload: "here"
    return schema


def test_two_workers_run_tasks_each_call_for_itself(schema, serve, connect):
    """Dask would run calls with equal arguments once."""
    with connect(serve(schema), timeout=PATIENT, attempts=1) as client:
        assert client.call("ADD", {"x": 1}) == 7
        calls = [client.dispatch("PID") for _ in range(100)]
        assert len({call.result(PATIENT) for call in calls}) == 2
        with pytest.raises(RemoteError, match="^ZeroDivisionError: division by zero$"):
            client.call("DIV", {"x": 1, "y": 0})


def test_200_tasks_of_one_connection_are_in_flight_at_a_concurrency_of_4(cluster, schema, serve, connect, tmp_path):
    server, go_on = serve(schema, concurrency=4), tmp_path / "go on"
    with connect(server, timeout=PATIENT, attempts=1) as client:
        client.call("ADD", {"x": 1})
        threads = threading.active_count()
        calls = [client.dispatch("WAIT", {"path": str(go_on), "result": number}) for number in range(200)]
        wait_until(lambda: known_to(cluster) == 200)
        assert server.stats()["running"] == 200
        assert client.call("HERE") == "here", "and what runs here does not wait behind them"
        assert threading.active_count() < threads + 8
        go_on.touch()
        assert [call.result(PATIENT) for call in calls] == [*range(200)]
    wait_until(lambda: known_to(cluster) == 0)


def test_a_cancel_reaches_the_cluster(cluster, schema, serve, connect, tmp_path):
    go_on = tmp_path / "go on"
    with connect(serve(schema), timeout=PATIENT, attempts=1) as client:
        calls = [client.dispatch("WAIT", {"path": str(go_on)}) for _ in range(20)]
        wait_until(lambda: known_to(cluster) == 20)
        assert all(call.cancel() for call in calls[1:])
        wait_until(lambda: known_to(cluster) == 1)
        go_on.touch()
        assert calls[0].result(PATIENT) is None, "a call with the same arguments is another one"


def test_a_deadline_reaches_the_cluster(cluster, schema, serve, connect, tmp_path):
    go_on = tmp_path / "go on"
    with connect(serve(schema), timeout=PATIENT, attempts=1) as client:
        client.call("ADD", {"x": 1})
        calls = [client.dispatch("WAIT", {"path": str(go_on)}, timeout=1.0) for _ in range(20)]
        wait_until(lambda: known_to(cluster) == 20)
        for call in calls:
            with pytest.raises((RequestTimeout, RemoteError)) as ended:
                call.result(PATIENT)
            assert getattr(ended.value, "code", None) in (None, "deadline_exceeded")
        wait_until(lambda: known_to(cluster) == 0)
    go_on.touch()


def test_a_cluster_that_is_lost_is_unavailable_and_unhealthy(serve, connect, tmp_path):
    distributed = needs.package("distributed")
    schema = Schema()
    with dask_running(tmp_path, workers=1) as address:
        with distributed.Client(address, set_as_default=False) as cluster:
            schema.add("ADD", elsewhere.add, executor=cluster.get_executor())
            server = serve(schema)
            client = connect(server, timeout=PATIENT, attempts=1)
            assert client.call("ADD", {"x": 1}) == 7 and get(server.port, "/health")[0] == 200
        with pytest.raises(RemoteError, match="the executor takes no tasks") as failed:
            client.call("ADD", {"x": 1})
        assert failed.value.code == "unavailable" and get(server.port, "/health")[0] == 500


def test_what_the_cluster_cannot_be_sent_is_refused(cluster):
    lock = threading.Lock()
    with pytest.raises(TypeError, match="'RUN' cannot run in .*cannot be pickled"):
        Schema().add("RUN", lambda: lock, executor=cluster.get_executor())
    with pytest.raises(TypeError, match=r"such as client.get_executor\(\)"):
        Schema().add("RUN", elsewhere.add, executor=cluster)
