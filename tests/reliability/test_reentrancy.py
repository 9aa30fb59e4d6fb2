"""Any public method may be called from a finalizer or a signal handler, at any line: nothing freezes and nothing is lost."""

import gc
import signal
import threading
import time

import pytest
from conftest import CEILING

from oompa import Client

#: Seconds of each run, and with ``--long``.
SECONDS, LONG = 1.0, 10.0


@pytest.fixture
def seconds(request):
    return LONG if request.config.getoption("--long") else SECONDS


class Calls:
    """Threads that call without a pause, and what became of it."""

    def __init__(self, client, seconds, each=lambda: None):
        self.made = 0
        self.wrong = []
        self._client = client
        self._each = each
        self._ends = time.monotonic() + seconds
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(3)]
        for thread in self._threads:
            thread.start()

    def _run(self):
        while time.monotonic() < self._ends:
            self._each()
            self.call()

    def call(self):
        try:
            if self._client.dispatch("ECHO", 7).result(CEILING) != 7 or self._client.call("ECHO", 8) != 8:
                self.wrong.append("another result")
        except Exception as error:
            self.wrong.append(repr(error))
        self.made += 1

    def finish(self):
        for thread in self._threads:
            thread.join(max(0.0, self._ends + CEILING - time.monotonic()))
        assert not any(thread.is_alive() for thread in self._threads), "frozen"
        assert self.wrong == [] and self.made > 10


def use(client, server, kept):
    """Call what there is to call, blocking methods excepted."""
    client.dispatch("ECHO", 1).cancel()
    client.dispatch("ECHO", 2).add_done_callback(kept.append)
    client.on("error", kept.append).off("error", kept.append)
    kept[:] = [len(server.connections), client.ping(timeout=CEILING), repr(client)]


class Finalized:
    """An object in a cycle, which the collector finds at any moment."""

    def __init__(self, finalizer):
        self.me, self.finalizer = self, finalizer

    def __del__(self):
        self.finalizer()


def test_methods_may_be_called_from_finalizers(serve, connect, seconds):
    server = serve()
    client, kept, ran = connect(server.port, max_pending=100_000), [], []
    nested = threading.local()

    def finalize():
        if not getattr(nested, "busy", False):  # a finalizer that allocates runs finalizers
            nested.busy = True
            try:
                use(client, server, kept)
                ran.append(1)
            finally:
                nested.busy = False

    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        Calls(client, seconds, lambda: Finalized(finalize)).finish()
    finally:
        gc.set_threshold(*thresholds)
    assert len(ran) > 10


def test_methods_may_be_called_from_signal_handlers(serve, connect, seconds):
    assert threading.current_thread() is threading.main_thread()
    server = serve()
    client, kept, ran = connect(server.port, max_pending=100_000), [], []
    busy = []

    def handle(*_):
        if not busy:  # the next signal may come before this one is done
            busy.append(1)
            use(client, server, kept)
            ran.append(1)
            busy.clear()

    calls = Calls(client, seconds)
    previous = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            calls.call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    calls.finish()
    assert len(ran) > 10


@pytest.mark.parametrize("method", ["close", "start"])
def test_a_client_may_be_closed_from_a_finalizer_of_another(serve, connect, method):
    server = serve()
    others = [connect(server.port, no_server=True) for _ in range(20)]
    client = connect(server.port)
    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        Calls(client, 0.3, lambda: others and Finalized(getattr(others.pop(), method))).finish()
    finally:
        gc.set_threshold(*thresholds)
    with Client(f"ws://127.0.0.1:{server.port}") as other:
        assert other.call("ECHO", 1, timeout=CEILING) == 1
