"""A request runs once between the workers of gunicorn, whose stores are in a file and in Redis."""

import concurrent.futures
import contextlib
import os
import signal
from typing import NamedTuple

import pytest
from conftest import CEILING, wait_until
from deployed import Deployed, deployed
from redis_server import redis_running

from oompa import Client, RemoteError

#: Seconds for a call that waits for the lease of a process that was killed.
PATIENT = 30.0


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def store(request, tmp_path_factory):
    """Where the workers keep what came of requests."""
    if request.param == "redis":
        with redis_running() as path:
            yield f"redis:{path}"
    else:
        yield f"sqlite:{tmp_path_factory.mktemp('once') / 'once.db'}"


class Workers(NamedTuple):
    """Two workers of one server, and what they note."""

    server: Deployed
    log: str

    @contextlib.contextmanager
    def clients(self):
        """A client of either, by the pid."""
        with contextlib.ExitStack() as stack:
            found = {}

            def reach_another():
                client = stack.enter_context(Client(f"ws://127.0.0.1:{self.server.port}"))
                found.setdefault(client.call("PID", timeout=CEILING), client)
                return len(found) == 2

            wait_until(reach_another)
            yield found

    def runs(self):
        """Who has run, in order."""
        with contextlib.suppress(FileNotFoundError), open(self.log) as log:
            return [int(line) for line in log]
        return []


@pytest.fixture
def workers(store, tmp_path):
    """Two workers of gunicorn upon the store."""
    log = str(tmp_path / "runs")
    arguments = ("-m", "gunicorn", "-w", "2", "--threads", "16", "--no-control-socket", "-b", "127.0.0.1:{port}")
    settings = {"ONCE_STORE": store, "ONCE_LOG": log, "ONCE_LEASE": "1.2", "PYTHONPATH": f".{os.pathsep}tests"}
    with deployed(*arguments, "once_app:server", **settings) as server:
        yield Workers(server, log)


def test_two_workers_run_a_request_once(workers, tmp_path):
    until = str(tmp_path / "go on")
    with workers.clients() as clients:
        calls = [client.dispatch("RUN", {"until": until}, key="a", timeout=PATIENT) for client in clients.values()]
        wait_until(workers.runs)
        with pytest.raises(RemoteError, match="another payload") as refused:
            for client in clients.values():
                client.dispatch("RUN", {"seconds": 1}, key="a").result(CEILING)
        assert refused.value.code == "invalid_argument"
        open(until, "w").close()
        results = [call.result(PATIENT) for call in calls]
        again = [client.dispatch("RUN", {"until": until}, key="a").result(CEILING) for client in clients.values()]
    (runner,) = workers.runs()
    assert results == again == [{"by": runner}] * 2


def test_errors_reach_the_other_worker(workers, tmp_path):
    with workers.clients() as clients:
        first, second = clients.values()
        for number, (error, code) in enumerate([("task", "aborted"), ("disk full", "internal")], 1):
            until = tmp_path / error
            payload = {"error": error, "until": str(until)}
            calls = [first.dispatch("RUN", payload, key=error, timeout=PATIENT)]
            wait_until(lambda: len(workers.runs()) == number)
            calls += [second.dispatch("RUN", payload, key=error, timeout=PATIENT)]
            wait_until(lambda: second.call("$OOMPA/STATS")["running"] == 1)
            until.touch()
            told = [call.exception(PATIENT) for call in calls]
            assert told[0].error == told[1].error and told[0].code == told[1].code == code
            again = second.dispatch("RUN", payload, key=error).exception(CEILING)
            runs = workers.runs()
            assert len(runs) == number + (error == "disk full"), "a TaskError is kept, another error is not"
            assert again.error == ({"by": runs[0]} if error == "task" else "OSError: disk full")


def test_a_lease_is_renewed_while_its_owner_runs_and_runs_out_when_it_is_killed(workers, tmp_path):
    until = str(tmp_path / "go on")
    with workers.clients() as clients:
        (owner, first), (other, second) = clients.items()
        running = first.dispatch("RUN", {"until": until}, key="b", resend=False, timeout=PATIENT)
        wait_until(workers.runs)
        waiting = second.dispatch("RUN", {"until": until}, key="b", timeout=PATIENT)
        with pytest.raises(concurrent.futures.TimeoutError):
            waiting.result(2.0)  # longer than a lease
        assert workers.runs() == [owner]
        os.kill(owner, signal.SIGKILL)
        wait_until(lambda: workers.runs() == [owner, other])
        open(until, "w").close()
        assert waiting.result(PATIENT) == {"by": other}
        assert running.exception(PATIENT) is not None
        assert second.dispatch("RUN", {"until": until}, key="b").result(CEILING) == {"by": other}
    assert workers.runs() == [owner, other]
