"""The gunicorn configuration: what it sets, how it bounds connections, and how workers end."""

import concurrent.futures
import contextlib
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
from types import SimpleNamespace
from urllib.request import urlopen

import deployed as deploying
import pytest
import trustme
from conftest import CEILING, wait_until
from deployed import deployed, get
from gunicorn.config import Config
from raw_peer import RawPeer, health, request_frame, upgrade

from oompa import Client, Server
from oompa import gunicorn as configuration
from oompa.server import web, workers

#: Seconds in which an idle server ends, even on a busy machine: half of what any timeout would take that it might wait for.
IDLE_EXIT = 10.0

#: Seconds the closing handshake may take where nobody needs them.
LONG_CLOSE = 2 * IDLE_EXIT

#: Seconds in which health is told, whatever the load.
HEALTH_LIMIT = 2.0

CONFIGURATION = ("-c", "python:oompa.gunicorn")

#: gunicorn before 25.1 has none.
NO_CONTROL_SOCKET = ("--no-control-socket",) if "control_socket_disable" in Config().settings else ()

#: A test runs with our configuration, and without any.
either = pytest.mark.parametrize("kind", [(), CONFIGURATION], ids=["bare", "configured"])

APPLICATION = """
import os, threading
from oompa import Server

def wait(path):
    with open(path + ".running", "w"):
        pause = threading.Event()
        while not os.path.exists(path):
            pause.wait(0.01)
    return "done"

server = Server({"PID": lambda payload: os.getpid(), "WAIT": wait}, drain_timeout=DRAIN, close_timeout=CLOSE)

def wrapped(environ, start_response):
    yield from server(environ, start_response)
"""


@pytest.fixture
def served(tmp_path):
    """Run gunicorn with 4 threads: ``served(*CONFIGURATION)``; tasks PID, and WAIT, which lasts until a file exists."""

    def serve(*arguments, application="application:server", drain_timeout=30.0, close_timeout=2.0, port=0, **environment):
        text = APPLICATION.replace("DRAIN", str(drain_timeout)).replace("CLOSE", str(close_timeout))
        (tmp_path / "application.py").write_text(text)
        path = ("--pythonpath", str(tmp_path))
        fixed = ("-b", "127.0.0.1:{port}", "--threads", "4", *NO_CONTROL_SOCKET)
        return deployed("-m", "gunicorn", *fixed, *path, *arguments, application, port=port, **environment)

    return serve


@pytest.fixture
def held(tmp_path):
    """Make a peer whose task runs until ``release``: ``peer, release = held(port)``."""
    peers = []

    def hold(port):
        path = tmp_path / f"release-{len(peers)}"
        peer = RawPeer.websocket(port)
        peers.append(peer)
        peer.send(request_frame("WAIT", str(path)))
        wait_until(lambda: os.path.exists(f"{path}.running"))
        return peer, path.touch

    yield hold
    for peer in peers:
        peer.close()


@pytest.fixture
def secured(served, tmp_path, monkeypatch):
    """Like ``served``, over gunicorn's own TLS: the context manager, and a context for clients."""
    ca = trustme.CA()
    certificate, context = ca.issue_cert("127.0.0.1"), ssl.create_default_context()
    ca.configure_trust(context)
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")

    def serve(*arguments, **options):
        monkeypatch.setattr(deploying, "answers", lambda port: secure_health(port, context) is not None)
        files = ("--certfile", str(tmp_path / "certificate.pem"), "--keyfile", str(tmp_path / "key.pem"))
        return served(*files, *arguments, **options)

    return serve, context


def secure_health(port, context):
    """What ``/health`` answers over TLS; None for nothing in time."""
    try:
        with urlopen(f"https://127.0.0.1:{port}/health", timeout=HEALTH_LIMIT, context=context) as response:
            return response.status
    except OSError:
        return None


def attempt(peer):
    """Ask for an upgrade; the status and the headers of the answer."""
    peer.send(upgrade(peer.port))
    answer = peer.response()
    return answer.status, answer.headers


def pid(port):
    """Who answers on a new connection; None when it is refused, or dropped by a worker that ends."""
    with RawPeer(port) as peer:
        try:
            if attempt(peer)[0] != 101:
                return None
        except EOFError:
            return None
        return peer.call("PID")["payload"]


def configured(**changes):
    """The settings as gunicorn has them when the configuration and the command line are read."""
    cfg = Config()
    for name, value in {**vars(configuration), **changes}.items():
        if name in cfg.settings:
            cfg.set(name, value)
    return cfg


def started(**changes):
    cfg = configured(**changes)
    configuration.on_starting(SimpleNamespace(cfg=cfg))
    return cfg


# What it sets.


def test_settings():
    cfg = started()
    assert (cfg.worker_class, cfg.workers, cfg.threads, cfg.keepalive) == (configuration.Worker, 1, 16, 0)
    if "control_socket_disable" in cfg.settings:
        assert cfg.control_socket_disable is True


@pytest.mark.parametrize("changes", [{"worker_class": "sync"}, {"threads": 1, "certfile": "/c", "keyfile": "/k"}])
def test_settings_that_cannot_work_are_refused(changes):
    with pytest.raises(RuntimeError, match="oompa needs"):
        started(**changes)


def test_timeouts_leave_room_for_a_drain_of_the_default_length():
    server = Server({})
    assert configured().graceful_timeout == server.drain_timeout + server.close_timeout + workers.STOPPING


@pytest.mark.parametrize(
    "drain_timeout, graceful_timeout, expected", [(30.0, 35, 30.0), (5.0, 35, 5.0), (60.0, 35, 30.0), (30.0, 3, 0.0)]
)
def test_a_drain_ends_before_gunicorn_kills_the_worker(drain_timeout, graceful_timeout, expected):
    assert workers.limit_of(Server({}, drain_timeout=drain_timeout), graceful_timeout) == expected


# How it bounds connections.


def test_max_connections_may_be_set_later():
    server = Server({})
    assert server.max_connections is None
    server.max_connections = 3
    assert server.max_connections == 3
    with pytest.raises(ValueError, match="max_connections must be 1 or more"):
        server.max_connections = 0


@either
def test_a_websocket_holds_no_thread_of_the_pool(served, kind):
    with served(*kind) as server:
        peers = [RawPeer.websocket(server.port) for _ in range(50)]
        try:
            assert all(peer.call("PID")["type"] == "OK" for peer in peers)
            assert health(server.port, timeout=HEALTH_LIMIT) == (200, b"ok")
        finally:
            for peer in peers:
                peer.close()


def test_peers_that_drip_their_request_keep_nobody_from_the_site(served):
    """A hundred against four threads."""
    with served(*CONFIGURATION) as server, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(RawPeer(server.port)) for _ in range(100)]
        for peer, number in zip(slow, range(100)):
            peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "[: number % 40])
        for _ in range(5):
            assert health(server.port, timeout=HEALTH_LIMIT) == (200, b"ok")
            for peer in slow:
                peer.send(b"x")
        late = slow[-1]
        late.send(b": 1\r\nHost: localhost\r\n")
        assert health(server.port, timeout=HEALTH_LIMIT) == (200, b"ok")
        late.send(b"\r\n")
        assert late.response().status == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(IDLE_EXIT) == 0


@pytest.mark.long
def test_a_peer_that_never_sends_its_request_is_sent_away(served):
    with served(*CONFIGURATION) as server, RawPeer(server.port) as peer:
        peer.send(b"GET / HTTP/1.1\r\n")
        assert peer.ends(configuration._HEAD_TIMEOUT + CEILING)


def test_frames_that_come_with_the_upgrade_are_read(served):
    """gunicorn has read them along with it: the stream would be read from the middle of a frame."""
    with served() as server, RawPeer(server.port) as peer:
        request = upgrade(server.port)
        peer.send(request + request_frame("PID", request_id="first") + request_frame("PID", request_id="second")[:9])
        peer.upgraded(request)
        assert peer.reply()["id"] == "first"
        peer.send(request_frame("PID", request_id="second")[9:])
        assert peer.reply()["id"] == "second"


@either
def test_over_its_own_tls_connections_leave_threads_for_health(secured, kind):
    """Four threads: two connections, and who is too many is sent away."""
    serve, context = secured
    with serve(*kind) as server, contextlib.ExitStack() as stack:
        url = f"wss://127.0.0.1:{server.port}"
        clients = [stack.enter_context(Client(url, ssl=context, reconnect_interval=0.1)) for _ in range(2)]
        closed = []
        for client in clients:
            assert isinstance(client.call("PID", timeout=CEILING), int)
            client.on("host-closed", lambda: closed.append(True))
        errors = []
        late = stack.enter_context(Client(url, ssl=context, no_server=True, reconnect_interval=0.1))
        late.on("error", errors.append)
        late.start()
        wait_until(lambda: any("503" in str(error) for error in errors))
        assert secure_health(server.port, context) == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(IDLE_EXIT) == 0
        wait_until(lambda: len(closed) >= 2)


@pytest.mark.parametrize(
    "threads, limits, expected",
    [
        (64, [None], [56]),
        (64, [None, None], [28, 28]),
        (64, [10, None], [10, 46]),
        (64, [10], [10]),
        (8, [None], [6]),
        (3, [None], [1]),
        (2, [None], [1]),
    ],
)
def test_over_tls_connections_share_the_threads(threads, limits, expected):
    servers = [Server({}, max_connections=limit) for limit in limits]
    workers.bound(servers, threads)
    assert [server.max_connections for server in servers] == expected


@pytest.mark.parametrize("threads, limits", [(64, [64]), (64, [56, None]), (2, [None, None])])
def test_too_many_connections_over_tls_are_warned_of(threads, limits, caplog):
    workers.bound([Server({}, max_connections=limit) for limit in limits], threads)
    assert len(caplog.records) == 1


def test_existing_flask_app_serves_and_is_drained(served):
    with served(application="examples.existing_flask_app:app") as server:
        with Client(f"ws://127.0.0.1:{server.port}/tasks", no_server=True) as client:
            closed = []
            client.on("host-closed", lambda: closed.append(True))
            client.start()
            assert client.call("ADD", {"x": 1, "y": 6}, timeout=CEILING) == 7
            assert get(server.port, "/") == (200, "an ordinary page")
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(CEILING) == 0
            wait_until(lambda: closed)


# How workers end.


@pytest.mark.parametrize("arguments", [(), ("--workers", "2"), ("--preload",)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
@either
def test_idle_server_ends_at_once_and_cleanly(served, number, arguments, kind):
    with served(*kind, *arguments, "--graceful-timeout", "60", close_timeout=LONG_CLOSE) as server:
        peers = [RawPeer.websocket(server.port) for _ in range(10)]
        try:
            for peer in peers:
                assert peer.call("PID")["type"] == "OK"
            server.process.send_signal(number)
            for peer in peers:
                ending = peer.ending(IDLE_EXIT)
                assert (ending.messages, ending.close_code, ending.reset) == ([], 1000, False)
            assert server.process.wait(IDLE_EXIT) == 0
        finally:
            for peer in peers:
                peer.close()


def test_server_without_connections_ends_at_once(served):
    with served(*CONFIGURATION, "--graceful-timeout", "60", close_timeout=LONG_CLOSE) as server:
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(IDLE_EXIT) == 0


def test_running_task_finishes_while_everyone_else_is_sent_away(served, held):
    with served(*CONFIGURATION) as server, RawPeer.websocket(server.port) as idle, RawPeer(server.port) as late:
        peer, release = held(server.port)
        server.process.send_signal(signal.SIGTERM)
        assert idle.ending().close_code == 1000
        assert health(server.port) == (503, b"draining")
        status, headers = attempt(late)
        assert (status, headers["retry-after"]) == (503, "1")
        server.process.send_signal(signal.SIGTERM)  # a second one changes nothing
        release()
        assert peer.reply() == {"type": "OK", "id": "call", "payload": "done"}
        ending = peer.ending()
        assert (ending.messages, ending.close_code, ending.reset) == ([], 1000, False)
        assert server.process.wait(CEILING) == 0


@either
def test_task_that_takes_too_long_is_left_behind(served, held, kind):
    with served(*kind, "--graceful-timeout", "4", drain_timeout=0.5) as server:
        peer, _ = held(server.port)
        server.process.send_signal(signal.SIGTERM)
        ending = peer.ending()
        assert (ending.messages, ending.close_code, ending.reset) == ([], 1000, False)
        assert server.process.wait(CEILING) == 0


@either
def test_peer_that_does_not_answer_the_close_is_cut(served, kind):
    with served(*kind) as server, RawPeer.websocket(server.port) as silent:
        assert silent.call("PID")["type"] == "OK"
        server.process.send_signal(signal.SIGTERM)
        assert silent.message().close_code == 1000
        assert silent.ends(Server({}).close_timeout + IDLE_EXIT)
        assert server.process.wait(CEILING) == 0


def test_a_drain_waits_for_a_handshake_that_is_being_answered(serve, monkeypatch):
    """Else nobody cuts the peer, if it is silent, and a worker stays until gunicorn kills it."""
    entered, go_on, accept = threading.Event(), threading.Event(), web.accept

    def late(*arguments):
        entered.set()
        assert go_on.wait(CEILING)
        return accept(*arguments)

    monkeypatch.setattr(web, "accept", late)
    server = serve()
    with RawPeer(server.port) as peer:
        request = upgrade(server.port)
        peer.send(request)
        assert entered.wait(CEILING)
        closed = server.close()
        try:
            with pytest.raises(concurrent.futures.TimeoutError):
                closed.result(0.3)
        finally:
            go_on.set()
        peer.upgraded(request)
        assert peer.ending().close_code == 1000
        closed.result(CEILING)


@either
def test_reload_replaces_the_workers_without_a_bad_answer(served, held, kind):
    """The old worker is still at a task, but accepts no more: health stays good."""
    with served(*kind) as server, RawPeer.websocket(server.port) as idle:
        old = idle.call("PID")["payload"]
        peer, release = held(server.port)
        server.process.send_signal(signal.SIGHUP)
        assert idle.ending().close_code == 1000
        wait_until(lambda: all(pid(server.port) not in (old, None) for _ in range(10)))
        for _ in range(20):
            assert health(server.port, timeout=HEALTH_LIMIT) == (200, b"ok")
            assert pid(server.port) not in (old, None)
        release()
        assert peer.reply()["payload"] == "done"
        assert peer.ending().close_code == 1000
        wait_until(lambda: not os.path.exists(f"/proc/{old}"))
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(CEILING) == 0


@either
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_worker_that_is_told_to_quit_waits_for_no_task(served, held, number, kind):
    with served(*kind, "--graceful-timeout", "60", drain_timeout=60.0) as server:
        with RawPeer.websocket(server.port) as idle:
            peer, _ = held(server.port)
            server.process.send_signal(number)
            for each in (idle, peer):
                ending = each.ending(IDLE_EXIT)
                assert (ending.messages, ending.close_code, ending.reset) == ([], 1000, False)
            assert server.process.wait(IDLE_EXIT) == 0


def test_a_running_task_finishes_without_any_configuration(served, held):
    with served() as server, RawPeer.websocket(server.port) as idle:
        peer, release = held(server.port)
        server.process.send_signal(signal.SIGTERM)
        assert idle.ending().close_code == 1000
        release()
        assert peer.reply() == {"type": "OK", "id": "call", "payload": "done"}
        ending = peer.ending()
        assert (ending.messages, ending.close_code, ending.reset) == ([], 1000, False)
        assert server.process.wait(CEILING) == 0


@either
def test_a_worker_that_has_had_its_requests_drains(served, held, kind):
    """It goes on with HTTP meanwhile, and is followed by another."""
    with served(*kind, "--max-requests", "10") as server, RawPeer.websocket(server.port) as idle:
        old = idle.call("PID")["payload"]
        peer, release = held(server.port)
        for _ in range(10):
            get(server.port, "/health")
        assert idle.ending().close_code == 1000
        assert get(server.port, "/health") == (503, "draining")
        release()
        assert peer.reply()["payload"] == "done"
        assert peer.ending().close_code == 1000
        wait_until(lambda: pid(server.port) not in (old, None), CEILING)


@either
def test_a_worker_whose_files_change_drains(served, held, tmp_path, kind):
    with served(*kind, "--reload", "--reload-engine", "poll") as server, RawPeer.websocket(server.port) as idle:
        old = idle.call("PID")["payload"]
        peer, release = held(server.port)
        os.utime(tmp_path / "application.py", (1e9, 2e9))
        assert idle.ending(CEILING).close_code == 1000
        release()
        assert peer.reply()["payload"] == "done"
        assert peer.ending().close_code == 1000
        wait_until(lambda: pid(server.port) not in (old, None), CEILING)


def test_whatever_wraps_the_server_it_drains(served):
    """Case 28: nothing is looked for in the application."""
    with served(application="application:wrapped") as server, RawPeer.websocket(server.port) as peer:
        assert peer.call("PID")["type"] == "OK"
        server.process.send_signal(signal.SIGTERM)
        assert peer.ending().close_code == 1000
        assert server.process.wait(CEILING) == 0


@either
def test_reload_loses_no_call(served, kind):
    with served(*kind, "--workers", "2") as server, Client(f"ws://127.0.0.1:{server.port}", reconnect_interval=0.1) as client:
        old = client.call("PID", timeout=CEILING)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: client.dispatch("PID").result(CEILING) != old)


def test_two_workers_both_serve(served):
    with served("--workers", "2") as server:
        answers = set()

        def both_answer():
            answers.add(pid(server.port))
            return len(answers - {None}) == 2

        wait_until(both_answer)
        assert health(server.port) == (200, b"ok")


@pytest.mark.parametrize("arguments", [("-k", "sync"), ("-k", "sync", "--threads", "1")])
def test_gunicorn_refuses_what_cannot_work(arguments):
    gunicorn = [sys.executable, "-m", "gunicorn", "-c", "python:oompa.gunicorn", "-b", "127.0.0.1:0"]
    shown = subprocess.run([*gunicorn, *arguments, "examples.calculator:server"], capture_output=True, timeout=30, text=True)
    assert shown.returncode == 1
    assert re.search(r"^Error: oompa needs .*--worker-class", shown.stderr, re.MULTILINE)
    assert "Traceback" not in shown.stderr


def test_the_sync_worker_refuses_and_names_the_remedy(tmp_path):
    log = tmp_path / "error.log"
    fixed = ("-b", "127.0.0.1:{port}", "-k", "sync", "--error-logfile", str(log), *NO_CONTROL_SOCKET)
    with deployed("-m", "gunicorn", *fixed, "examples.calculator:server") as server, RawPeer(server.port) as peer:
        peer.send(upgrade(server.port))
        answer = peer.response()
        assert (answer.status, answer.body) == (501, web.NO_THREADS.encode())
        assert "gunicorn --threads 4" in web.NO_THREADS and web.NO_THREADS in log.read_text()


# The log.

CONFIGURED = ("-m", "gunicorn", "-c", "python:oompa.gunicorn", "-b", "127.0.0.1:{port}")

RAISING = """
import logging
from oompa import Server

CONFIGURATION
server = Server({"FAIL": lambda payload: 1 / 0}, drain_timeout=5.0)
"""


@pytest.mark.parametrize("arguments", [(), ("-c", "python:oompa.gunicorn")], ids=["bare", "configured"])
def test_a_task_that_raises_is_in_gunicorns_error_log(tmp_path, arguments):
    """Case 50: without any configuration of logging, and with only ours of gunicorn."""
    log = tmp_path / "error.log"
    (tmp_path / "application.py").write_text(RAISING.replace("CONFIGURATION", ""))
    fixed = ("--threads", "4", "--pythonpath", str(tmp_path), "--error-logfile", str(log), *NO_CONTROL_SOCKET)
    with deployed("-m", "gunicorn", *arguments, "-b", "127.0.0.1:{port}", *fixed, "application:server") as server:
        with Client(f"ws://127.0.0.1:{server.port}") as client:
            assert "ZeroDivisionError" in str(client.dispatch("FAIL").exception(CEILING))
        wait_until(lambda: "ZeroDivisionError" in log.read_text())
        assert log.read_text().count("task 'FAIL' (id ") == 1 and "Error handling request" not in log.read_text()
        if arguments:
            os.kill(server.process.pid, signal.SIGTERM)
            server.process.wait(CEILING)
            assert re.search(r"\[INFO\] draining: \d connections", log.read_text()) and "[INFO] closed" in log.read_text()


def test_an_application_that_has_configured_logging_is_left_alone(tmp_path):
    """Case 50."""
    log, own = tmp_path / "error.log", tmp_path / "own.log"
    text = RAISING.replace("CONFIGURATION", f"logging.basicConfig(filename={str(own)!r}, level='WARNING')")
    (tmp_path / "application.py").write_text(text)
    fixed = ("--pythonpath", str(tmp_path), "--error-logfile", str(log))
    with deployed(*CONFIGURED, *fixed, "application:server") as one:
        with Client(f"ws://127.0.0.1:{one.port}") as client:
            client.dispatch("FAIL").exception(CEILING)
        wait_until(lambda: own.exists() and "ZeroDivisionError" in own.read_text())
        os.kill(one.process.pid, signal.SIGTERM)
        one.process.wait(CEILING)
    assert "FAIL" not in log.read_text() and "draining" not in log.read_text() + own.read_text()


def test_a_websocket_is_a_101_in_the_access_log_and_no_error_in_the_other(tmp_path):
    """Case 50: it was logged as a GET that was answered 200, or not at all."""
    access, log = tmp_path / "access.log", tmp_path / "error.log"
    (tmp_path / "application.py").write_text(RAISING.replace("CONFIGURATION", ""))
    fixed = ("--pythonpath", str(tmp_path), "--error-logfile", str(log), "--access-logfile", str(access))
    with deployed(*CONFIGURED, *fixed, "--log-level", "debug", "application:server") as one:
        with Client(f"ws://127.0.0.1:{one.port}") as client:
            client.dispatch("FAIL").exception(CEILING)
        wait_until(lambda: '"GET / HTTP/1.1" 101' in access.read_text())
    assert not re.search(r"\[ERROR\] (?!task 'FAIL')", log.read_text()), log.read_text()
