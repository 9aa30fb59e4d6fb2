"""What is raised on a thread of ours ends one connection at the most: by a logger, by the system, by anything we call.

The faults are injected at every line that calls out of our code, one at a time; a first run without a fault finds them.
"""

import gc
import logging
import sys
import threading
from pathlib import Path

import pytest
from conftest import CALCULATOR, CEILING, wait_until

import oompa
from oompa import Client, Server
from oompa.server import watcher

PACKAGE = str(Path(oompa.__file__).parent)

#: Of the places found, one in so many is tried where ``--long`` does not ask for each.
SAMPLE = 9

#: To take or free a lock, or to take something out of a collection, allocates nothing and asks nobody.
NEVER_FAIL = {"release", "__enter__", "__exit__", "discard", "pop", "popleft", "clear"}


class Raising(logging.Handler):
    """A handler, or a filter, that raises at every record."""

    def emit(self, record):
        raise OSError("the log shipper is down")

    filter = emit


@pytest.fixture(params=["handler", "filter"])
def raising_logs(request):
    """Every logger of ours has a handler or a filter that raises."""
    loggers, raising = [logging.getLogger(name) for name in ("oompa.client", "oompa.server")], Raising()
    for logger in loggers:
        logger.addHandler(raising) if request.param == "handler" else logger.addFilter(raising)
        logger._has_told = False
    yield
    for logger in loggers:
        logger.removeHandler(raising)
        logger.removeFilter(raising)


def test_a_logger_that_raises_costs_no_reply_no_connection_and_no_thread(raising_logs, serve, connect, capfd):
    """Case 19."""
    server, connections = serve(), []
    server.on("connection", connections.append)
    client = connect(server, reconnect_interval=0.01)
    assert client.call("ADD", {"x": 1, "y": 6}, timeout=CEILING) == 7
    for count in range(1, 4):
        wait_until(lambda: len(connections) == count)
        assert client.dispatch("DIV", {"x": 1, "y": 0}).exception(CEILING).error.startswith("ZeroDivisionError")
        server.disconnect()
    assert client.call("ADD", {"x": 1, "y": 6}, timeout=CEILING) == 7
    shown = capfd.readouterr().err
    assert shown.count("shown once") == 2  # one for each logger


def test_a_watcher_whose_worker_raises_looks_on(serve, connect):
    told, late = threading.Event(), watcher.Watcher()

    class Broken:
        def stuck(self):
            raise LookupError("x")

    class Good:
        def stuck(self):
            told.set()

    try:
        late.began(Broken(), 0.0)
        late.began(Good(), 0.02)
        assert told.wait(CEILING)
    finally:
        late.close()


class Injector:
    """Notes the places where our code calls out on threads of ours, and raises the first time that it comes to one of them.

    Threads that existed before are left alone, and so are those of the test.
    """

    def __init__(self, place=None, error=MemoryError):
        self.place, self.error = place, error
        self.places = {}  # in the order in which they are come to
        self.lock = threading.Lock()

    def __call__(self, frame, event, argument):
        code = frame.f_code
        if event != "c_call" or not code.co_filename.startswith(PACKAGE) or argument.__name__ in NEVER_FAIL:
            return
        place = f"{code.co_filename[len(PACKAGE):]}:{frame.f_lineno} {code.co_name} -> {argument.__name__}"
        with self.lock:
            is_new = place not in self.places
            self.places[place] = None
        if is_new and place == self.place:
            raise self.error("injected")

    def __enter__(self):
        threading.setprofile(self)
        return self

    def __exit__(self, *exc_info):
        threading.setprofile(None)


def scenario(port):
    """A connection's life: calls with and without a waiting caller, a failing task, a slow one, a ping, its loss, another."""
    options = {"reconnect_interval": 0.01, "timeout": 0.5, "attempts": 3, "ping_interval": 0.1}
    with Client(f"ws://127.0.0.1:{port}", **options) as client:
        futures = [client.dispatch("ADD", {"x": number, "y": 1}) for number in range(3)]
        futures += [client.dispatch("SLEEP", {"seconds": 0.02}), client.dispatch("DIV", {"x": 1, "y": 0}), client.ping()]
        for future in futures:
            future.add_done_callback(lambda _: None)
            future.exception(CEILING)
        yield client
        # A fault may have cost a connection, and a call its attempts.
        wait_until(lambda: client.dispatch("ADD", {"x": 1, "y": 6}).exception(CEILING) is None)


def live(port, server):
    """Run the scenario, with a loss in the middle."""
    for _ in scenario(port):
        server.disconnect()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("error", [MemoryError, OSError, SystemExit], ids=lambda error: error.__name__)
def test_a_fault_at_any_call_that_leaves_our_code_ends_one_connection_at_the_most(error, request, caplog):
    server = Server(CALCULATOR, ping_interval=0.1, max_connections=5)
    server.listen(0).result(CEILING)
    server.disconnect()
    hooks = threading.excepthook
    threading.excepthook = lambda arguments: None  # of threads that are not ours, such as the web server's
    sys.unraisablehook, unraisable = lambda arguments: None, sys.unraisablehook
    try:
        caplog.set_level(logging.CRITICAL + 1)
        with Injector() as finder:
            live(server.port, server)
        places = list(finder.places)[::1 if request.config.getoption("--long") else SAMPLE]
        assert len(places) > 20
        struck = 0
        for place in places:
            with Injector(place, error) as injector:
                try:
                    live(server.port, server)
                    wait_until(lambda: not server.connections and server._admission._places == 0)
                except BaseException as failure:
                    raise AssertionError(f"after a fault at {place}") from failure
            struck += place in injector.places
        assert struck > len(places) // 2  # some are come to in some runs only
        with Client(f"ws://127.0.0.1:{server.port}") as client:
            assert client.call("ADD", {"x": 1, "y": 6}, timeout=CEILING) == 7
    finally:
        server.close(0).result(CEILING)
        gc.collect()  # a socket that a fault kept from its owner is closed here, and says so
        threading.excepthook, sys.unraisablehook = hooks, unraisable
