"""What is logged: by default a server's warnings and errors, one line per lost connection or refused handshake, tracebacks of
handlers, no secrets."""

import base64
import contextlib
import hashlib
import logging
import re
import socket
import subprocess
import sys
import threading

import pytest
from conftest import CALCULATOR, CEILING, url_of, wait_until
from ports import reserved_port
from raw_peer import TEXT, RawPeer, close_frame, frame, upgrade

from oompa import RemoteError, TaskError

SECRET = "hunter2-the-secret"
KNOCK = 'print("it ran", flush=True)'


@pytest.fixture
def records(caplog):
    """What is logged from now on, of every level: ``records("oompa.server")``."""
    caplog.set_level(logging.DEBUG, "oompa")

    def of(name="oompa", level=logging.DEBUG):
        return [record for record in caplog.records if record.name.startswith(name) and record.levelno >= level]

    return of


def text_of(records):
    """All that a handler would write of them, tracebacks included."""
    formatter = logging.Formatter("%(levelname)s %(name)s %(message)s")
    return "\n".join(map(formatter.format, records))


# Where nobody has configured anything.


NOISY = """
import socket
import sys
import threading

sys.path.insert(0, "tests")
from ports import reserved_port
from raw_peer import RawPeer, close_frame, frame, upgrade
from oompa import Client, Server

def fail(payload):
    raise LookupError("nothing")

def healthcheck():
    raise OSError("ill")

server = Server({"FAIL": fail, "ONE": lambda _: 1}, healthcheck, authenticate=lambda request: "X-No" not in request.headers)
server.on("reply", fail).on("error", fail)
server.use(lambda request, call_next: call_next(request))
server.listen(0).result(10)
url = f"ws://127.0.0.1:{server.port}"
with Client(url, reconnect_interval=0.02) as client, Client(url, headers={"X-No": "1"}, reconnect_interval=0.02):
    client.on("host-closed", lambda: fail(None))
    assert isinstance(client.dispatch("FAIL").exception(10), Exception)
    assert isinstance(client.ping().exception(10), Exception)
    closed = threading.Event()
    client.on("host-closed", closed.set)
    server.disconnect()
    assert closed.wait(10) and client.call("ONE") == 1
    with RawPeer(server.port) as peer:
        peer.send(upgrade(server.port, without="Sec-WebSocket-Version"))
        assert peer.response().status == 400
    with RawPeer.websocket(server.port) as peer:
        peer.send(frame(3, b"no such opcode"))
        assert peer.ending().close_code == 1002
    with RawPeer.websocket(server.port) as peer:
        peer.send(frame(1, b"not JSON"))
        assert "ERR" in str(peer.reply())
        peer.reset()
refused = threading.Event()
with reserved_port() as port, Client(f"ws://127.0.0.1:{port}", reconnect_interval=0.02, no_server=True) as client:
    client.on("error", lambda error: refused.set())
    client.start()
    assert refused.wait(10)
server.close(timeout=0.5).result(10)
"""


def test_a_server_tells_of_warnings_and_errors_and_a_client_is_quiet():
    """Cases 5, 45 and 50: as with Flask, what nobody has configured still shows."""
    done = subprocess.run([sys.executable, "-c", f"{NOISY}\n{KNOCK}"], capture_output=True, timeout=60, text=True)
    assert (done.returncode, done.stdout) == (0, "it ran\n")
    heads = re.findall(r"^\[[^]]+\] (\w+) in ([\w.]+): ", done.stderr, re.MULTILINE)
    assert {name for _, name in heads} == {"oompa.server"} and {level for level, _ in heads} == {"WARNING", "ERROR"}
    assert "task 'FAIL' (id " in done.stderr and "LookupError: nothing" in done.stderr
    assert "unreadable request: a request must be JSON" in done.stderr


BESIDE_A_VIEW = """
import logging, sys
import flask
from oompa import Client, Server

app = flask.Flask("site")
server = Server({"FAIL": lambda _: 1 / 0}, path="/ws")
server.init_app(app)
{configuration}
host = Server({})
host.app.wsgi_app = app
host.listen(0).result(10)
with Client(f"ws://127.0.0.1:{host.port}/ws") as client:
    client.dispatch("FAIL").exception(10)
server.close(timeout=1).result(10)
host.close(timeout=1).result(10)
"""


@pytest.mark.parametrize(
    "configuration, count",
    [
        ("", 1),
        ("logging.basicConfig(format='mine %(message)s')", 1),
        ("logging.getLogger('oompa').addHandler(logging.StreamHandler())", 1),
        ("logging.getLogger('oompa.server').addHandler(logging.StreamHandler())", 1),
        ("logging.getLogger('oompa').setLevel('CRITICAL')", 0),
        ("logging.getLogger('oompa.server').propagate = False", 1),
        ("app.logger.warning('hello')", 1),
    ],
)
def test_a_task_that_raises_in_an_application_is_told_once_whoever_has_configured_logging(configuration, count):
    """Case 5: ``init_app`` hands oompa's logger a place to write, and takes it back as soon as there is another."""
    source = BESIDE_A_VIEW.replace("{configuration}", configuration)
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, timeout=60, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("task 'FAIL'") == count and done.stderr.count("ZeroDivisionError") == count, done.stderr


class Failing(logging.Handler):
    """A handler whose other end is gone, or a filter that reads what is not there."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def handle(self, record):
        self.asked += 1
        raise RuntimeError("Working outside of request context.")

    filter = handle


@pytest.mark.parametrize("part", ["handler", "filter"])
def test_a_log_that_raises_costs_no_reply_and_no_connection(serve, connect, monkeypatch, part):
    """Case 19, on the server: the log is asked, raises, and all goes on."""
    failing, logger = Failing(), logging.getLogger("oompa.server")

    def healthcheck():
        raise OSError("ill")

    server = serve({"FAIL": lambda _: 1 / 0, "ODD": lambda _: {1}, "ONE": lambda _: 1}, healthcheck)
    client = connect(server)
    assert client.call("ONE") == 1
    monkeypatch.setattr(logger, part + "s", [failing])
    for type in ("FAIL", "ODD", "MEOW"):
        assert isinstance(client.dispatch(type).exception(CEILING), RemoteError)
    assert isinstance(client.ping().exception(CEILING), RemoteError)
    with RawPeer(server.port) as peer:
        peer.send(upgrade(server.port, without="Sec-WebSocket-Key"))
        assert peer.response().status == 400
    assert client.call("ONE") == 1 and failing.asked >= 5
    monkeypatch.undo()


@pytest.mark.parametrize("text", [b"{", b'{"type": "MEOW"}'], ids=["unreadable", "unknown"])
def test_of_many_faults_of_a_peer_a_few_leave_a_line_and_then_their_number(serve, records, text):
    """Case 45: five a second for each connection."""
    server = serve()
    with RawPeer.websocket(server.port) as peer:
        for _ in range(500):
            peer.send(frame(TEXT, text))
        for _ in range(500):
            assert peer.reply()["type"] == "ERR"
    wait_until(lambda: not server.connections)
    lines = [record.getMessage() for record in records("oompa.server", logging.WARNING)]
    told = [line for line in lines if "left out" not in line]
    left_out = [int(line.split()[0]) for line in lines if "left out" in line]
    assert len(told) + sum(left_out) == 500 and 5 <= len(told) <= 100 and left_out
    assert all("127.0.0.1:" in line for line in lines)


def test_everything_can_be_had_from_two_loggers():
    configured = "import logging\nlogging.basicConfig(level=logging.WARNING, format='%(name)s %(message)s')\n"
    done = subprocess.run([sys.executable, "-c", configured + NOISY], capture_output=True, timeout=60, text=True)
    assert done.returncode == 0, done.stderr
    names = {line.split()[0] for line in done.stderr.splitlines() if re.match(r"(oompa|werkzeug|websocket)[\w.]* ", line)}
    assert names == {"oompa.server", "oompa.client"}
    assert "LookupError: nothing" in done.stderr


# The client.


def test_client_logs_a_line_for_each_lost_connection(serve, connect, records):
    server = serve()
    client = connect(url_of(server), reconnect_interval=0.02)
    for count in (1, 2, 3):
        assert client.call("ADD", {"x": 1, "y": count}) == 1 + count
        server.disconnect()
        wait_until(lambda: len(records("oompa.client", logging.WARNING)) == count)
        wait_until(lambda: len(server.connections) == 1 and server.connections[0].is_open)
    for record in records("oompa.client", logging.WARNING):
        assert record.levelno == logging.WARNING and not record.exc_info
        assert str(server.port) in record.getMessage() and "1000" in record.getMessage()


def test_closing_a_client_logs_nothing(serve, connect, records):
    client = connect(serve())
    assert client.call("ADD", {"x": 1, "y": 1}) == 2
    client.close()
    assert records("oompa.client", logging.WARNING) == []


def test_client_logs_a_line_at_info_for_each_connection_made(serve, connect, records):
    """Case 48."""
    server = serve()
    client = connect(url_of(server), reconnect_interval=0.02)
    assert client.call("ADD", {"x": 1, "y": 1}) == 2
    server.disconnect()
    wait_until(lambda: len([record for record in records("oompa.client") if record.levelno == logging.INFO]) == 2)
    for record in records("oompa.client"):
        if record.levelno == logging.INFO:
            assert record.getMessage() == f"connected to ws://127.0.0.1:{server.port}"


class HttpAnswer:
    """Answers every connection with the same bytes."""

    def __init__(self, answer):
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.count = 0
        self._answer = answer
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._socket.accept()
                with peer:
                    self.count += 1
                    peer.settimeout(CEILING)
                    while (data := peer.recv(4096)) and not data.endswith(b"\r\n\r\n"):
                        pass
                    with contextlib.suppress(ConnectionError):
                        peer.sendall(self._answer)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(CEILING)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy",
        b"HTTP/1.1 401 Who\r\nContent-Length: 40\r\n\r\nno entry\nWARNING forged\r\n\x1b[31mline\x1b[0m......",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: wrong\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"",
    ],
)
def test_client_logs_a_line_for_each_refused_handshake(connect, records, answer):
    with HttpAnswer(answer) as server:
        client = connect(f"ws://127.0.0.1:{server.port}", reconnect_interval=0.02)
        wait_until(lambda: server.count >= 3 or len(records("oompa.client")) >= 3)
        client.close()
    lines = [record.getMessage() for record in records("oompa.client")]
    assert server.count - 1 <= len(lines) <= server.count
    for line in lines:
        assert str(server.port) in line
        assert line.isprintable(), repr(line)


def test_client_logs_a_line_for_each_attempt_without_a_server(connect, records):
    errors = []
    with reserved_port() as port:
        client = connect(f"ws://127.0.0.1:{port}", reconnect_interval=0.02, no_server=True)
        client.on("error", errors.append)
        client.start()
        wait_until(lambda: len(errors) >= 3)
        client.close()
    lines = [record.getMessage() for record in records("oompa.client")]
    assert len(errors) <= len(lines) <= len(errors) + 1
    assert all(str(port) in line and "refused" in line for line in lines)


# The server.


def test_server_logs_a_line_for_each_refused_handshake(serve, records):
    def authenticate(request):
        if request.headers.get("X-User") == "banned":
            raise PermissionError("banned")
        return request.headers.get("X-User") is not None

    server = serve(authenticate=authenticate, max_connections=1)
    faults = [
        ({"without": "Sec-WebSocket-Version"}, 400),
        ({"without": "Sec-WebSocket-Key"}, 400),
        ({"extra": "Origin: http://evil.example\r\n"}, 403),
        ({}, 401),
        ({"extra": "X-User: banned\r\n"}, 403),
    ]
    with contextlib.ExitStack() as place:
        for count, (options, status) in enumerate(faults, 1):
            with RawPeer(server.port) as peer:
                peer.send(upgrade(server.port, **options))
                assert peer.response().status == status
            assert len(records("oompa.server", logging.WARNING)) == count
        taken = place.enter_context(RawPeer(server.port))
        taken.send(upgrade(server.port, extra="X-User: ann\r\n"))
        assert taken.response().status == 101
        with RawPeer(server.port) as peer:
            peer.send(upgrade(server.port, extra="X-User: bob\r\n"))
            assert peer.response().status == 503
    refused = records("oompa.server", logging.WARNING)
    assert len(refused) == len(faults) + 1
    for record in refused:
        assert "127.0.0.1" in record.getMessage() and "refused" in record.getMessage()
        assert record.getMessage().isprintable() and not record.exc_info


def test_header_of_a_stranger_cannot_write_lines_of_its_own(serve, records):
    server = serve()
    with RawPeer(server.port) as peer:
        peer.send(upgrade(server.port, extra="Origin: http://evil\x1b[31m.example\x85forged\r\n"))
        assert peer.response().status in (400, 403)
    assert all(record.getMessage().isprintable() for record in records()), [record.getMessage() for record in records()]


@pytest.mark.parametrize(
    "leave",
    [
        lambda peer: peer.send(close_frame(1000)),
        lambda peer: peer.send(close_frame(4000, b"bye\nWARNING forged")),
        lambda peer: peer.send(frame(3, b"no such opcode")),
        lambda peer: peer.half_close(),
        lambda peer: peer.reset(),
    ],
    ids=["close", "close with a reason", "protocol error", "half close", "reset"],
)
def test_server_logs_a_line_for_each_lost_connection(serve, records, leave):
    server = serve()
    with RawPeer.websocket(server.port) as peer:
        wait_until(lambda: server.connections)
        leave(peer)
        wait_until(lambda: not server.connections)
    lost = [record for record in records("oompa.server") if "connection" in record.getMessage()]
    assert len(lost) == 1, text_of(records())
    assert "127.0.0.1" in lost[0].getMessage() and not lost[0].exc_info
    assert lost[0].getMessage().isprintable(), repr(lost[0].getMessage())


def test_close_reason_of_a_server_cannot_write_lines_of_its_own(serve, connect, records):
    server = serve()
    client = connect(server, reconnect_interval=0.02)
    assert client.call("ADD", {"x": 1, "y": 1}) == 2
    server.connections[0].close(4000, "bye\nWARNING forged")
    wait_until(lambda: records("oompa.client", logging.WARNING))
    assert records("oompa.client", logging.WARNING)[0].getMessage().isprintable()


def test_handler_that_raises_leaves_one_traceback(serve, connect, records):
    def fail(payload):
        raise LookupError("nothing there")

    client = connect(url_of(serve({"FAIL": fail})))
    with pytest.raises(RemoteError):
        client.call("FAIL")
    (record,) = records("oompa.server", logging.WARNING)
    assert record.levelno == logging.ERROR and "'FAIL'" in record.getMessage()
    assert "(id '" in record.getMessage() and "from 127.0.0.1:" in record.getMessage()  # Case 51
    assert "LookupError: nothing there" in text_of([record]) and "in fail" in text_of([record])
    assert records("oompa.client", logging.WARNING) == []  # the caller has the error


@pytest.mark.parametrize("expose_errors", [True, False])
def test_failing_healthcheck_leaves_a_line_each_time_it_is_asked(serve, connect, records, expose_errors):
    def healthcheck():
        raise LookupError("no database\nWARNING forged")

    server = serve({}, healthcheck, expose_errors=expose_errors)
    with pytest.raises(RemoteError) as answer:
        connect(server).ping().result(CEILING)
    with RawPeer(server.port) as peer:
        peer.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert peer.response().status == 500
    lines = records("oompa.server", logging.WARNING)
    assert [record.levelno for record in lines] == [logging.WARNING] * 2
    for record in lines:
        assert "the healthcheck failed" in record.getMessage() and "LookupError: no database" in record.getMessage()
        assert record.getMessage().isprintable() and not record.exc_info
    assert expose_errors or answer.value.error.rpartition(" ")[2] in lines[0].getMessage()


def test_what_a_client_did_wrong_and_what_a_task_says_leave_no_traceback(serve, connect, records):
    def refuse(payload):
        raise TaskError({"code": 12})

    server = serve({"REFUSE": refuse})
    client = connect(server)
    for type in ("REFUSE", "MEOW"):
        with pytest.raises(RemoteError):
            client.call(type)
    with RawPeer.websocket(server.port) as peer:
        peer.send(frame(TEXT, b"{"))
        assert peer.reply()["type"] == "ERR"
    unknown, unreadable = records(level=logging.WARNING)
    assert {record.levelno for record in (unknown, unreadable)} == {logging.WARNING}
    assert not unknown.exc_info and "unknown task type: 'MEOW' (id " in unknown.getMessage()
    assert not unreadable.exc_info and "unreadable request" in unreadable.getMessage()


# Nothing secret.


def test_no_log_tells_a_secret(serve, connect, records):
    def fail(payload):
        raise LookupError("nothing there")

    def refuse(payload):
        raise TaskError(payload)

    def authenticate(request):
        return "ann" if request.headers.get("Authorization") == f"Bearer {SECRET}" else None

    server = serve({**CALCULATOR, "FAIL": fail, "REFUSE": refuse}, authenticate=authenticate, disconnect_token=SECRET)
    errors = []
    url = f"ws://127.0.0.1:{server.port}/?token={SECRET}"
    client = connect(url, headers={"Authorization": f"Bearer {SECRET}", "Cookie": f"id={SECRET}"}, reconnect_interval=0.02)
    client.on("error", errors.append)
    assert client.call("ECHO", SECRET) == SECRET
    for type in ("FAIL", "REFUSE", "MEOW"):
        with pytest.raises(RemoteError):
            client.call(type, {"password": SECRET})
    with pytest.raises(ValueError):
        client.dispatch("ECHO", [SECRET, float("nan")])
    for connection in server.connections:
        connection.abort("for the test")
    wait_until(lambda: errors)
    assert client.call("ADD", {"x": 1, "y": 1}) == 2

    for options in ({"headers": {"Authorization": f"Basic {SECRET}"}}, {"proxy": f"http://ann:{SECRET}@127.0.0.1:9"}):
        stranger = connect(url, reconnect_interval=0.02, no_server=True, **options)
        told = []
        stranger.on("error", told.append)
        stranger.start()
        wait_until(lambda: told)
        errors += told
        stranger.close()

    with RawPeer(server.port) as peer:
        authorization = f"Authorization: Bearer {SECRET}\r\n"
        peer.send(upgrade(server.port, path=f"/?token={SECRET}", extra=authorization))
        assert peer.response().status == 101
        peer.send(frame(TEXT, f'{{"type": "{SECRET}'.encode()))
        assert peer.reply()["type"] == "ERR"
        peer.send(frame(TEXT, f'["{SECRET}"]'.encode()))
        assert peer.reply()["type"] == "ERR"
    with RawPeer(server.port) as peer:
        peer.send(upgrade(server.port, path=f"/?token={SECRET}", extra=authorization, without="Sec-WebSocket-Version"))
        assert peer.response().status == 400
    with RawPeer(server.port) as peer:
        peer.send(f"POST /disconnect?token={SECRET} HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer x{SECRET}\r\n\r\n".encode())
        assert peer.response().status == 401
    client.close()
    server.close(timeout=0.5).result(CEILING)
    assert len(records()) > 5
    assert SECRET not in text_of(records()), [line for line in text_of(records()).splitlines() if SECRET in line]
    assert not [error for error in errors if SECRET in str(error)]


def test_reply_that_cannot_be_read_is_told_without_its_content(connect, records):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = connect(f"ws://127.0.0.1:{listening.getsockname()[1]}")
        errors = []
        client.on("error", errors.append)
        peer, _ = listening.accept()
        with peer:
            peer.settimeout(CEILING)
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                request += peer.recv(4096)
            peer.sendall(accepted(request))
            for text in (SECRET, f'{{"type": "OK", "payload": "{SECRET}', f'["{SECRET}"]'):
                peer.sendall(frame(TEXT, text.encode(), mask=None))
            wait_until(lambda: len(errors) == 3)
            client.close()
    assert len(records("oompa.client")) >= 3
    assert SECRET not in text_of(records())


def accepted(request):
    """The answer of a server to an upgrade request."""
    key = request.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
    proof = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    return head + b"Sec-WebSocket-Accept: " + proof + b"\r\n\r\n"
