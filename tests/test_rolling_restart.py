"""Two servers behind a real nginx and a real HAProxy, with the files of examples/deploy: restarting both loses no call."""

import contextlib
import os
import pathlib
import pwd
import signal
import subprocess
import tempfile
import threading

import needs
import pytest
from conftest import wait_until
from deployed import CEILING, deployed, get
from ports import reserved_port

from oompa import Client

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples" / "deploy"

GUNICORN = ("-m", "gunicorn", "-b", "127.0.0.1:{port}", "--threads", "4")

SERVERS = {
    "gunicorn": (*GUNICORN, "-c", "python:oompa.gunicorn", "examples.calculator:server"),
    "run": ("-m", "examples.calculator", "{port}"),
}

#: The files, and where they say that the proxy listens: before and after the address.
PROXIES = {"nginx": ("nginx.conf", "listen ", "8000", ";"), "haproxy": ("haproxy.cfg", "bind ", ":8000", "\n")}

#: Seconds between two calls of a thread: a steady load, not all that the machine can do.
PAUSE = 0.005


def configuration(proxy, port, servers, directory):
    """The file of examples/deploy with other ports, and for nginx without what only root may write."""
    name, before, address, after = PROXIES[proxy]
    text = (EXAMPLES / name).read_text()
    changes = {before + address + after: f"{before}127.0.0.1:{port}{after}"}
    changes.update({f"127.0.0.1:{8001 + number}": f"127.0.0.1:{server}" for number, server in enumerate(servers)})
    if proxy == "nginx":
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        own = "".join(f"    {kind}_temp_path {directory}/{kind};\n" for kind in kinds)
        changes["http {\n"] = f"http {{\n    access_log off;\n{own}"
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@contextlib.contextmanager
def proxied(proxy, servers):
    """Run a proxy in front of servers, in the foreground and without privileges; yields its port."""
    path = needs.program(proxy)
    with reserved_port() as port, tempfile.TemporaryDirectory() as directory:
        file = pathlib.Path(directory) / "configuration"
        file.write_text(configuration(proxy, port, servers, directory))
        if proxy == "nginx":
            alone = f"daemon off; worker_processes 1; error_log stderr; pid {directory}/pid;"
            command = [path, "-p", directory, "-c", str(file), "-e", "stderr", "-g", alone]
        else:
            command = [path, "-db", "-f", str(file)]
        user = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(directory, nobody.pw_uid, nobody.pw_gid)
            user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        with open(os.path.join(directory, "log"), "wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, **user)
            try:

                def answers():
                    assert process.poll() is None, pathlib.Path(log.name).read_text()
                    with contextlib.suppress(OSError):
                        return get(port, "/health", timeout=1.0) == (200, "ok")

                wait_until(answers)
                yield port
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(CEILING)


class Load:
    """Threads that call until they are stopped, and what came of it."""

    def __init__(self):
        self.calls = 0
        self.wrong = []
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._threads = []

    def add(self, client, type, payload, expected):
        """Call in a thread; ``payload`` and ``expected`` are made from the number of the call."""
        thread = threading.Thread(target=self._call, args=(client, type, payload, expected))
        self._threads.append(thread)
        thread.start()

    def _call(self, client, type, payload, expected):
        number = 0
        while not self._stopped.wait(PAUSE):
            number += 1
            try:
                result = client.dispatch(type, payload(number)).result(CEILING * 2)
            except Exception as error:
                result = error
            with self._lock:
                self.calls += 1
                if result != expected(number):
                    self.wrong.append((type, number, result))

    def goes_on(self, calls=200):
        """Wait for some calls more."""
        calls += self.calls
        wait_until(lambda: self.calls >= calls, CEILING)

    def stop(self):
        self._stopped.set()
        for thread in self._threads:
            thread.join(CEILING * 2)
            assert not thread.is_alive()


@contextlib.contextmanager
def loaded(url):
    """Two clients under steady load: four threads with short calls and one with longer ones on the first, two on the second."""
    load = Load()
    with Client(url, reconnect_interval=0.2) as first, Client(url, reconnect_interval=0.2) as second:
        reconnected = {first: 0, second: 0}
        for client in reconnected:
            client.on("reconnected", lambda client=client: reconnected.update({client: reconnected[client] + 1}))
        try:
            for client in (first, first, first, first, second, second):
                load.add(client, "ADD", lambda number: {"x": number, "y": 1}, lambda number: number + 1)
            load.add(first, "SLEEP", lambda number: {"seconds": 0.2}, lambda number: None)
            yield load, reconnected
        finally:
            load.stop()


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("proxy", PROXIES)
def test_rolling_restart_loses_no_call(proxy, kind):
    needs.program(proxy)
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(deployed(*SERVERS[kind])) for _ in range(2)]
        port = stack.enter_context(proxied(proxy, [server.port for server in running]))
        load, reconnected = stack.enter_context(loaded(f"ws://127.0.0.1:{port}"))
        load.goes_on()
        for server in running:
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(CEILING) == 0
            load.goes_on()  # on the other one
            stack.enter_context(deployed(*SERVERS[kind], port=server.port))
            wait_until(lambda: get(port, "/health") == (200, "ok"))
            load.goes_on()
        load.stop()
        assert load.wrong == []
        assert all(times >= 1 for times in reconnected.values()), "a client was never restarted under"


RECYCLED = (*GUNICORN, "--workers", "2", "--max-requests", "40")


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((), id="bare"),
        pytest.param(("-c", "python:oompa.gunicorn"), id="configured", marks=pytest.mark.long),
    ],
)
def test_workers_that_are_recycled_under_load_lose_no_call(arguments):
    """Pages count as requests, so the workers are replaced one after the other while clients call."""
    with deployed(*RECYCLED, *arguments, "examples.calculator:server") as server:
        with loaded(f"ws://127.0.0.1:{server.port}") as (load, reconnected):

            def recycled():
                with contextlib.suppress(OSError):  # a worker that ends may drop a page that it has accepted
                    get(server.port, "/health")
                return all(times >= 2 for times in reconnected.values())

            wait_until(recycled, 3 * CEILING)
            load.goes_on()
            load.stop()
        assert load.wrong == []
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(CEILING) == 0
