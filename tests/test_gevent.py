"""gevent at either end: a patched process that serves and calls, and gunicorn's worker of that name."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading

import needs
import pytest
from conftest import CEILING, wait_until
from deployed import deployed, get
from raw_peer import PING, RawPeer

from oompa import Client

#: Run in a patched process: each line is something that did not work when reads waited in the kernel.
BOTH_ENDS = """
from gevent import monkey
monkey.patch_all()
import threading
from oompa import Client, RequestTimeout, Server

release = threading.Event()
server = Server({"ADD": lambda p: p["x"] + p["y"], "WAIT": lambda _: release.wait(20)}, ping_interval=0.1)
server.listen(0).result(10)
with Client(f"ws://127.0.0.1:{server.port}", ping_interval=0.1) as client:
    assert client.call("ADD", {"x": 1, "y": 2}, timeout=10) == 3
    try:
        client.call("WAIT", timeout=0.3)
    except RequestTimeout:
        assert not release.is_set()
    else:
        raise AssertionError("it does not time out")
    calls = [client.dispatch("WAIT") for _ in range(4)]
    assert client.call("ADD", {"x": 1, "y": 2}, timeout=10) == 3
    release.set()
    assert [call.result(10) for call in calls] == [True] * 4
    reconnected = threading.Event()
    client.on("reconnected", reconnected.set)
    server.disconnect()
    assert reconnected.wait(10)
server.close().result(10)
print("done")
"""

APPLICATION = """
import os, threading
from oompa import Server

def wait(path):
    with open(path + ".running", "w"):
        pause = threading.Event()
        while not os.path.exists(path):
            pause.wait(0.01)
    return "done"

server = Server({"PID": lambda _: os.getpid(), "WAIT": wait}, ping_interval=INTERVAL)
"""


@pytest.fixture
def served(tmp_path):
    """Run gunicorn with its worker of gevent: ``served(*arguments)``; tasks PID, and WAIT, which lasts until a file exists."""
    needs.package("gevent")

    def serve(*arguments, ping_interval=25.0):
        (tmp_path / "application.py").write_text(APPLICATION.replace("INTERVAL", str(ping_interval)))
        fixed = ("-k", "gevent", "-b", "127.0.0.1:{port}", "--pythonpath", str(tmp_path))
        return deployed("-m", "gunicorn", *fixed, *arguments, "application:server")

    return serve


either = pytest.mark.parametrize("kind", [(), ("-c", "python:oompa.gunicorn")], ids=["bare", "configured"])


def test_a_patched_process_serves_and_calls():
    needs.package("gevent")
    shown = subprocess.run([sys.executable, "-c", BOTH_ENDS], capture_output=True, timeout=60, text=True)
    assert (shown.returncode, shown.stdout.strip()) == (0, "done"), shown.stderr


def test_a_silent_peer_is_pinged_and_given_up(served):
    """Case 25: the tick of a read was the kernel's, which a patched socket never sees."""
    with served(ping_interval=0.2) as server, RawPeer.websocket(server.port) as peer:
        assert peer.frame(CEILING).opcode == PING
        assert peer.ends(CEILING)


@either
def test_a_task_finishes_while_the_worker_drains(served, tmp_path, kind):
    with served(*kind) as server, Client(f"ws://127.0.0.1:{server.port}") as client:
        path = tmp_path / "release"
        call = client.dispatch("WAIT", str(path))
        wait_until(lambda: os.path.exists(f"{path}.running"))
        with RawPeer.websocket(server.port) as idle:
            server.process.send_signal(signal.SIGTERM)
            assert idle.ending(CEILING).close_code == 1000
        path.touch()
        assert call.result(CEILING) == "done"
        assert server.process.wait(CEILING) == 0


@either
@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.long)])
def test_many_connections_are_served_and_drained(served, kind, count):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 500:
        pytest.skip(f"{count} connections need more than {hard} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 500), hard))
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        server = stack.enter_context(served(*kind, "--worker-connections", str(count + 100)))
        peers = [stack.enter_context(RawPeer.websocket(server.port)) for _ in range(count)]
        assert {peer.call("PID")["type"] for peer in peers} == {"OK"}
        assert get(server.port, "/health") == (200, "ok")
        server.process.send_signal(signal.SIGTERM)
        codes = []

        def end(some):
            codes.extend(peer.ending(CEILING).close_code for peer in some)

        threads = [threading.Thread(target=end, args=(peers[part::8],)) for part in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(3 * CEILING)
        assert codes == [1000] * count
        assert server.process.wait(3 * CEILING) == 0
