"""What every test gets: a check that it leaves no thread and no descriptor behind, servers and clients that are closed."""

import gc
import os
import signal
import threading
import time

import chaos_options
import pytest

from oompa import Client, Server, testing
from oompa.client.options import CLIENT_OPTIONS
from oompa.server.options import SERVER_OPTIONS

#: Seconds to wait for what must happen; a healthy run never waits so long.
CEILING = 10.0

#: The options of either side as they are described, whatever ``--codec`` makes of them.
DESCRIBED = {"server": dict(SERVER_OPTIONS), "client": dict(CLIENT_OPTIONS)}


def pytest_addoption(parser):
    """Let what takes long be asked for."""
    parser.addoption("--long", action="store_true", help="with what takes long: the leak tests, and every seed of the chaos")
    chaos_options.pytest_addoption(parser)
    parser.addoption("--codec", default="json", help="the codec of servers and clients that name none (default: %(default)s)")


def pytest_configure(config):
    """Let every test run with either codec; hear Ctrl-C, which a shell without job control keeps from what it runs beside."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for table in (CLIENT_OPTIONS, SERVER_OPTIONS):
        table["codec"] = table["codec"]._replace(default=config.getoption("--codec"))


def pytest_runtest_setup(item):
    """Leave out what takes long, unless it was asked for."""
    if item.get_closest_marker("long") and not item.config.getoption("--long"):
        pytest.skip("runs with --long")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Fail a test that was skipped in CI, where everything is that a test may need."""
    return never_skipped_in_ci((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    """Fail a file that was skipped in CI."""
    return never_skipped_in_ci((yield))


def never_skipped_in_ci(report):
    """The report, which in CI is one of a failure if it was one of a skip; expected failures stay."""
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        path, line, reason = report.longrepr
        report.outcome, report.longrepr = "failed", f"{path}:{line}: in CI nothing is skipped, but this was: {reason}"
    return report


def wait_until(condition, ceiling=CEILING):
    """Wait for a condition that nothing announces; fails when the ceiling is reached."""
    deadline = time.monotonic() + ceiling
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        pause.wait(0.005)


def open_descriptors():
    """What this process has open, by descriptor."""
    found = {}
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []:
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass  # the listing's own
    return {name: target for name, target in found.items() if not target.startswith("/proc/")}


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """After each test the same threads and descriptors are there as before it."""
    threads, descriptors = set(threading.enumerate()), set(open_descriptors())
    gc.freeze()  # the collection below looks at this test's objects alone, which is much quicker
    yield
    gc.collect()

    def is_clean():
        return set(threading.enumerate()) <= threads and set(open_descriptors()) <= descriptors

    try:
        wait_until(is_clean, ceiling=5.0)
    except AssertionError:
        left = [thread.name for thread in set(threading.enumerate()) - threads]
        opened = {name: target for name, target in open_descriptors().items() if name not in descriptors}
        pytest.fail(f"left behind: threads {left}, descriptors {opened}")


@pytest.fixture
def serve():
    """Start servers: ``serve(schema, healthcheck, **options)``; closed after the test."""
    servers = []

    def start(schema=None, healthcheck=None, *, port=0, **options):
        server = Server(CALCULATOR if schema is None else schema, healthcheck, **options)
        servers.append(server)
        server.listen(port).result(CEILING)
        return server

    yield start
    for closing in [server.close(timeout=0.5) for server in servers]:
        closing.result(CEILING)


def url_of(server):
    """Where a server listens, for what concerns its port, or a client that is not let in at once."""
    return f"ws://127.0.0.1:{server.port}"


@pytest.fixture
def connect():
    """Make clients: ``connect(server_or_urls, methods, **options)``; closed after the test. To a server they are joined by a
    pair of sockets, to a URL as it says."""
    clients = []

    def make(server, methods=None, **options):
        join = testing.connect if isinstance(server, Server) else Client
        client = join(server, methods, **options)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


def _divide(payload):
    return payload["x"] / payload["y"]


CALCULATOR = {
    "ADD": lambda payload: payload["x"] + payload["y"],
    "SUB": lambda payload: payload["x"] - payload["y"],
    "MUL": lambda payload: payload["x"] * payload["y"],
    "DIV": _divide,
    "ECHO": lambda payload: payload,
    "SLEEP": lambda payload: time.sleep((payload or {}).get("seconds", 0.8)),
}
