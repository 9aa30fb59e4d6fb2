"""The Node original on the other side of the wire: its server under our client, its client on our server.

It is the release that tests/interop/package.json pins. `npm install --prefix tests/interop` brings it, or
OOMPA_NODE_MODULES names the node_modules folder that has it. Without it, or without node, these tests are skipped.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import needs
import pytest
from conftest import wait_until
from ports import reserved_port

from oompa import Client, RemoteError, RequestTimeout, Server, TaskError, current_request

CEILING = 10.0
INTEROP = Path(__file__).parent
ROOT = INTEROP.parent.parent
PINNED = json.loads((INTEROP / "package.json").read_text())["dependencies"]["oompa"]

JSON_VALUES = [
    *[0, -1.5, 1e21, True, False, None, "", "text", [], {}],
    *[[1, [2, [None]]], {"": {"a": [True, "b"]}, "id": 1, "type": "x"}],
]
UNICODE = (
    "za\u017c\u00f3\u0142\u0107 \u05d0\u05d5\u05de\u05e4\u05d4 \u65e5\u672c\u8a9e \U0001f469\u200d\U0001f680 "
    "\u2028\u2029 \x00\x1f\x7f \\ \" / \ufffd \uffff \U0010ffff"
)
MIB = "\u00e9" * (1 << 19)


class NodeError(Exception):
    """A command failed in Node; `error` is what its promise was rejected with, an Error as its string."""

    def __init__(self, error: Any) -> None:
        super().__init__(error)
        self.error = error


class Node:
    """A Node script led by JSON lines.

    Threads: one more, which reads what the script says and ends with it. The condition guards what was said.
    """

    def __init__(self, script: str) -> None:
        command = ["node", "--no-deprecation", str(INTEROP / script)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")
        self._said = threading.Condition()
        self._outcomes: dict[int, "Future[Any]"] = {}
        self._events: list[tuple[str, list[Any]]] = []
        self._waited_for = 0
        self._reader = threading.Thread(target=self._read, name=f"node {script}", daemon=True)
        self._reader.start()

    def begin(self, command: str, **arguments: Any) -> "Future[Any]":
        """Send a command; the Future settles with its outcome, None standing for undefined too."""
        outcome: "Future[Any]" = Future()
        with self._said:
            key = len(self._outcomes)
            self._outcomes[key] = outcome
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"key": key, "do": command, **arguments}) + "\n")
        self._process.stdin.flush()
        return outcome

    def do(self, command: str, **arguments: Any) -> Any:
        """Send a command and wait for its outcome."""
        return self.begin(command, **arguments).result(CEILING)

    def event(self, name: str) -> list[Any]:
        """Wait for the next event of that name after the last one waited for; returns its arguments."""
        def found() -> bool:
            return any(event == name for event, _ in self._events[self._waited_for:])

        with self._said:
            assert self._said.wait_for(found, CEILING), f"no event {name!r} but {self._events[self._waited_for:][:10]}"
            while True:
                event, arguments = self._events[self._waited_for]
                self._waited_for += 1
                if event == name:
                    return arguments

    def events(self) -> list[tuple[str, list[Any]]]:
        """Return every event so far."""
        with self._said:
            return list(self._events)

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        self._process.kill()
        self._process.wait(CEILING)

    def close(self) -> None:
        """End the process and the thread that reads it; more than once is fine."""
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self._process.wait(CEILING)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        finally:
            self._reader.join(CEILING)
            self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            message = json.loads(line)
            with self._said:
                if "event" in message:
                    self._events.append((message["event"], message["args"]))
                    self._said.notify_all()
                    continue
                outcome = self._outcomes[message["key"]]
            if "error" in message:
                outcome.set_exception(NodeError(message["error"]))
            else:
                outcome.set_result(message.get("value"))


@pytest.fixture(scope="module", autouse=True)
def original() -> None:
    """Skip when Node or the pinned release is missing."""
    needs.program("node")
    modules = Path(os.environ.get("OOMPA_NODE_MODULES") or INTEROP / "node_modules")
    package = modules / "oompa" / "package.json"
    if not package.is_file():
        pytest.skip("the npm package oompa is missing: npm install --prefix tests/interop, or set OOMPA_NODE_MODULES")
    if json.loads(package.read_text())["version"] != PINNED:
        pytest.skip(f"the npm package oompa is not the pinned {PINNED}")


@pytest.fixture
def node() -> Iterator[Callable[[str], Node]]:
    """Start Node scripts and end them with the test."""
    started: list[Node] = []

    def start(script: str) -> Node:
        started.append(Node(script))
        started[-1].event("ready")
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            process.close()


@pytest.fixture
def port() -> Iterator[int]:
    """A port nobody listens on yet, for a server that comes later, or comes back."""
    with reserved_port() as port:
        yield port


class TestOurClientOnTheNodeServer:
    """Our client, the original's server."""

    @pytest.fixture
    def node_server(self, node: Callable[[str], Node]) -> Node:
        return node("server.js")

    @pytest.fixture
    def port(self, node_server: Node) -> int:
        port: int = node_server.do("listen", port=0)
        return port

    @pytest.fixture
    def client(self, port: int) -> Iterator[Client]:
        methods = {"add": {"type": "ADD", "factory": lambda x, y: {"x": x, "y": y}}}
        with Client(f"ws://127.0.0.1:{port}", methods, reconnect_interval=0.1) as client:
            yield client

    def test_results(self, client: Client) -> None:
        assert client.dispatch("ADD", {"x": 1, "y": 6}).result(CEILING) == 7
        assert client.call("DIV", {"x": 1, "y": 8}) == 0.125
        assert client.add(1, 2).result(CEILING) == 3

    @pytest.mark.parametrize("value", JSON_VALUES, ids=json.dumps)
    def test_any_json_value_there_and_back(self, client: Client, value: Any) -> None:
        assert client.call("ECHO", value) == value

    def test_a_gateway_passes_on_what_the_node_server_said(self, client: Client) -> None:
        """Case 40: an exception of the server behind it, and a value."""
        gateway = Server(
            {"DIV": lambda payload: client.dispatch("DIV", payload), "REJECT": lambda payload: client.call("REJECT", payload)}
        )
        gateway.listen(0).result(CEILING)
        try:
            with Client(f"ws://127.0.0.1:{gateway.port}") as caller:
                expected = (("DIV", {"x": 1, "y": 0}, "Error: Zero div"), ("REJECT", {"code": 42}, {"code": 42}))
                for type, payload, error in expected:
                    with pytest.raises(RemoteError) as caught:
                        caller.call(type, payload)
                    assert caught.value.error == error
        finally:
            gateway.close().result(CEILING)

    def test_an_error_is_its_string(self, client: Client) -> None:
        with pytest.raises(RemoteError) as caught:
            client.call("DIV", {"x": 1, "y": 0})
        assert caught.value.error == "Error: Zero div"

    @pytest.mark.parametrize("value", JSON_VALUES, ids=json.dumps)
    def test_a_rejected_value_is_itself(self, client: Client, value: Any) -> None:
        with pytest.raises(RemoteError) as caught:
            client.call("REJECT", value)
        assert caught.value.error == value

    def test_a_rejection_without_a_value_is_an_error_all_the_same(self, client: Client) -> None:
        with pytest.raises(RemoteError) as caught:
            client.dispatch("REJECT").result(CEILING)
        assert caught.value.error is None

    def test_unknown_type(self, client: Client) -> None:
        with pytest.raises(RemoteError) as caught:
            client.call("MEOW", {})
        assert caught.value.error == 'Unknown request type: "MEOW"'

    def test_a_missing_payload_is_undefined_and_none_is_null(self, client: Client) -> None:
        assert client.dispatch("KIND").result(CEILING) == "undefined"
        assert client.dispatch("KIND", None).result(CEILING) == "null"

    def test_an_undefined_result_is_none(self, client: Client) -> None:
        assert client.dispatch("NOTHING").result(CEILING) is None

    def test_unicode(self, client: Client) -> None:
        assert client.call("ECHO", {UNICODE: UNICODE}) == {UNICODE: UNICODE}

    def test_a_payload_of_1_mib(self, client: Client) -> None:
        assert client.call("ECHO", MIB) == MIB

    def test_200_calls_at_once(self, client: Client) -> None:
        calls = [client.add(n, 1) for n in range(200)]
        assert [call.result(CEILING) for call in calls] == list(range(1, 201))

    @pytest.mark.parametrize("value", [True, {"load": 0.5}], ids=json.dumps)
    def test_ping_of_a_healthy_server(self, client: Client, node_server: Node, value: Any) -> None:
        node_server.do("health", value=value)
        assert client.ping(timeout=CEILING).result(CEILING) == value

    def test_ping_of_a_sick_server(self, client: Client, node_server: Node) -> None:
        node_server.do("health", error="sick")
        with pytest.raises(RemoteError) as caught:
            client.ping(timeout=CEILING).result(CEILING)
        assert caught.value.error == "Error: sick"

    def test_a_server_closed_and_back_answers_what_was_pending(
        self, client: Client, node_server: Node, port: int
    ) -> None:
        closed, back = threading.Event(), threading.Event()
        client.on("host-closed", closed.set)
        client.on("reconnected", back.set)
        node_server.do("hold", value=True)
        calls = [client.dispatch("HOLD", n) for n in range(20)]
        assert [node_server.event("held") for _ in calls] == [[n] for n in range(20)]

        node_server.do("close")
        assert closed.wait(CEILING)
        assert not any(call.done() for call in calls)
        meanwhile = client.dispatch("ADD", {"x": 1, "y": 1})
        node_server.do("hold", value=False)
        node_server.do("listen", port=port)

        assert back.wait(CEILING)
        assert [call.result(CEILING) for call in calls] == list(range(20))
        assert meanwhile.result(CEILING) == 2

    def test_a_server_killed_and_started_anew_answers_what_was_pending(
        self, client: Client, node: Callable[[str], Node], node_server: Node, port: int
    ) -> None:
        node_server.do("hold", value=True)
        calls = [client.dispatch("HOLD", n) for n in range(20)]
        assert [node_server.event("held") for _ in calls] == [[n] for n in range(20)]

        node_server.kill()
        node("server.js").do("listen", port=port)

        assert [call.result(CEILING) for call in calls] == list(range(20))

    def test_node_answers_our_pings(self, port: int) -> None:
        closed = threading.Event()
        with Client(f"ws://127.0.0.1:{port}", ping_interval=0.1) as client:
            client.on("host-closed", closed.set)
            assert client.call("ADD", {"x": 1, "y": 1}) == 2
            assert not closed.wait(0.5)
            assert client.call("ADD", {"x": 1, "y": 2}) == 3

    def test_node_is_told_nothing_of_deadlines_progress_meta_and_cancels(
        self, client: Client, node_server: Node, port: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        told: list[Any] = []
        back = threading.Event()
        client.on("reconnected", back.set)
        node_server.do("hold", value=True)
        kept = client.dispatch("HOLD", "kept", timeout=CEILING, meta={"tenant": 7}, key="k", on_progress=told.append)
        given_up = client.dispatch("HOLD", "given up", timeout=CEILING)
        late = client.dispatch("HOLD", "late", timeout=0.3)
        assert [node_server.event("held") for _ in range(3)] == [["kept"], ["given up"], ["late"]]
        assert given_up.cancel()
        with pytest.raises(RequestTimeout):
            late.result(CEILING)

        # Nor on the next connection, on which it is asked once more for what is pending, and for nothing else.
        with caplog.at_level("WARNING", "oompa.client"):
            assert client.call("ECHO", 1) == 1
        assert caplog.records == []
        node_server.do("close")
        node_server.do("hold", value=False)
        node_server.do("listen", port=port)
        assert back.wait(CEILING) and kept.result(CEILING) == "kept"
        assert client.call("ECHO", 2) == 2
        assert node_server.event("held") == ["kept"]
        wait_until(lambda: len(named(node_server, "asked")) >= 6)
        plain = ["type", "id", "payload"]
        assert named(node_server, "asked") == [
            *[["HOLD", plain]] * 3,
            ["ECHO", plain],
            ["HOLD", plain],
            ["ECHO", plain],
        ]
        assert told == []

    def test_close_says_going_away(self, client: Client, node_server: Node) -> None:
        client.call("ADD", {"x": 1, "y": 1})
        client.close()
        assert node_server.event("terminated") == [1001]


def divide(payload: dict[str, float]) -> float:
    """Divide as the original's example does."""
    if not payload["y"]:
        raise Error("Zero div")
    return payload["x"] / payload["y"]


class Error(Exception):
    """An error that reads as Node's does."""


class TestTheNodeClientOnOurServer:
    """The original's client, our server."""

    @pytest.fixture
    def health(self) -> dict[str, Any]:
        """What the healthcheck returns, or raises."""
        return {"value": True}

    @pytest.fixture
    def server(self, health: dict[str, Any]) -> Iterator[Server]:
        def healthcheck() -> Any:
            if "error" in health:
                raise health["error"]
            return health["value"]

        schema = {
            "ADD": lambda payload: payload["x"] + payload["y"],
            "DIV": divide,
            "ECHO": lambda payload: payload,
            "REJECT": reject,
            "NONE": lambda payload: payload is None,
            "TELL": tell,
        }
        server = Server(schema, healthcheck, ping_interval=0.1)
        server.listen(0).result(CEILING)
        try:
            yield server
        finally:
            server.close().result(CEILING)

    @pytest.fixture
    def client(self, node: Callable[[str], Node], server: Server) -> Node:
        client = node("client.js")
        client.do("connect", url=f"ws://127.0.0.1:{server.port}", interval=50)
        return client

    def test_results(self, client: Node) -> None:
        assert client.do("dispatch", type="ADD", payload={"x": 1, "y": 6}) == 7
        assert client.do("dispatch", type="DIV", payload={"x": 1, "y": 8}) == 0.125
        assert client.do("call", method="add", args=[1, 2]) == 3

    @pytest.mark.parametrize("value", JSON_VALUES, ids=json.dumps)
    def test_any_json_value_there_and_back(self, client: Node, value: Any) -> None:
        assert client.do("dispatch", type="ECHO", payload=value) == value

    def test_an_error_is_its_string(self, client: Node) -> None:
        with pytest.raises(NodeError) as caught:
            client.do("dispatch", type="DIV", payload={"x": 1, "y": 0})
        assert caught.value.error == "Error: Zero div"

    @pytest.mark.parametrize("value", JSON_VALUES, ids=json.dumps)
    def test_a_task_error_is_its_value(self, client: Node, value: Any) -> None:
        with pytest.raises(NodeError) as caught:
            client.do("dispatch", type="REJECT", payload=value)
        assert caught.value.error == value

    @pytest.mark.parametrize("text", ["caf\ud83c", "\udc00"], ids=ascii)
    def test_half_a_character_is_an_error_and_no_silence(self, client: Node, text: str) -> None:
        """Case 31: a text that was cut in JavaScript."""
        with pytest.raises(NodeError) as caught:
            client.do("dispatch", type="ECHO", payload=[text])
        assert "a lone surrogate is not JSON" in caught.value.error
        assert client.do("call", method="add", args=[1, 2]) == 3

    @pytest.mark.parametrize("task_type", ["MEOW", "toString", "__proto__", "constructor"])
    def test_unknown_type(self, client: Node, task_type: str) -> None:
        with pytest.raises(NodeError) as caught:
            client.do("dispatch", type=task_type, payload={})
        assert caught.value.error == f'Unknown request type: "{task_type}"'

    def test_a_missing_payload_and_null_are_both_none(self, client: Node) -> None:
        assert client.do("dispatch", type="NONE") is True
        assert client.do("dispatch", type="NONE", payload=None) is True
        assert client.do("dispatch", type="NONE", payload=0) is False

    def test_unicode(self, client: Node) -> None:
        assert client.do("dispatch", type="ECHO", payload={UNICODE: UNICODE}) == {UNICODE: UNICODE}

    def test_a_payload_of_1_mib(self, client: Node) -> None:
        assert client.do("dispatch", type="ECHO", payload=MIB) == MIB

    def test_200_calls_at_once(self, client: Node) -> None:
        payloads = [{"x": n, "y": 1} for n in range(200)]
        assert client.do("burst", type="ADD", payloads=payloads) == list(range(1, 201))

    def test_the_event_of_a_reply_carries_the_whole_message(self, client: Node) -> None:
        client.do("dispatch", type="ADD", payload={"x": 1, "y": 6})
        with pytest.raises(NodeError):
            client.do("dispatch", type="MEOW")
        replies = [arguments for name, arguments in client.events() if name.startswith(("OK:", "ERR:"))]
        [ok], [err] = replies
        assert ok == {"type": "OK", "id": ok["id"], "payload": 7}
        told = {"error": 'Unknown request type: "MEOW"', "details": {"code": "unimplemented"}}
        assert err == {"type": "ERR", "id": err["id"], **told}
        names = [name for name, _ in client.events()]
        assert f"OK:{ok['id']}" in names and f"ERR:{err['id']}" in names

    @pytest.mark.parametrize("value", [True, None, {"load": 0.5}], ids=json.dumps)
    def test_ping_of_a_healthy_server(self, client: Node, health: dict[str, Any], value: Any) -> None:
        health["value"] = value
        assert client.do("ping", timeout=CEILING * 1000) == value

    def test_ping_of_a_sick_server(self, client: Node, health: dict[str, Any]) -> None:
        health["error"] = Error("sick")
        with pytest.raises(NodeError) as caught:
            client.do("ping", timeout=CEILING * 1000)
        assert caught.value.error == "Error: sick"

    def test_ping_of_a_server_whose_healthcheck_returns_false(self, client: Node, health: dict[str, Any]) -> None:
        health["value"] = False
        with pytest.raises(NodeError) as caught:
            client.do("ping", timeout=CEILING * 1000)
        assert caught.value.error.startswith("HealthcheckFailed")

    def test_node_is_told_no_progress_and_nothing_it_has_not_asked_for(self, client: Node) -> None:
        assert client.do("dispatch", type="TELL", payload=5) == [None, {}]
        replies = [arguments[0] for name, arguments in client.events() if name.startswith(("OK:", "ERR:"))]
        assert [sorted(reply) for reply in replies] == [["id", "payload", "type"]]
        assert not [name for name, _ in client.events() if name.startswith("$OOMPA/")]

    def test_calls_of_a_node_client_that_was_cut_off_are_answered_on_the_next(self, node: Callable[[str], Node]) -> None:
        """It does not say who it is, so its calls run again; no reply is kept for it, none goes astray."""
        release, runs = threading.Event(), []

        def hold(payload: Any) -> Any:
            runs.append(payload)
            assert release.wait(CEILING)
            return payload

        server = Server({"HOLD": hold, "ECHO": lambda payload: payload})
        server.listen(0).result(CEILING)
        try:
            client = node("client.js")
            client.do("connect", url=f"ws://127.0.0.1:{server.port}", interval=50)
            calls = [client.begin("dispatch", type="HOLD", payload=n) for n in range(4)]
            assert client.do("dispatch", type="ECHO", payload="asked") == "asked"
            for connection in server.connections:
                connection.abort("the test breaks it off")
            client.event("host-closed")
            client.event("reconnected")
            assert client.do("dispatch", type="ECHO", payload="back") == "back"
            release.set()
            assert [call.result(CEILING) for call in calls] == [0, 1, 2, 3]
            assert sorted(runs) == [0, 0, 1, 1, 2, 2, 3, 3]
            replies = [name for name, _ in client.events() if name.startswith("OK:")]
            assert len(replies) == len(set(replies)) == 6
        finally:
            release.set()
            server.close().result(CEILING)

    def test_node_answers_our_pings(self, client: Node, server: Server) -> None:
        terminated = threading.Event()
        server.on("terminated", lambda connection: terminated.set())
        assert client.do("dispatch", type="ECHO", payload=1) == 1
        assert not terminated.wait(0.5)
        assert client.do("dispatch", type="ECHO", payload=2) == 2

    def test_a_client_that_closes_is_terminated_and_stays_away(self, client: Node, server: Server) -> None:
        terminated = threading.Event()
        server.on("terminated", lambda connection: terminated.set())
        client.do("dispatch", type="ECHO")
        client.do("close")
        assert terminated.wait(CEILING)
        assert client.event("socket-closed") == [1000]
        assert not named(client, "host-closed")

    def test_a_server_that_closes_says_so_and_is_not_called_again(self, client: Node, server: Server) -> None:
        """This release takes 1000 for a farewell; only later ones come back after it."""
        client.do("dispatch", type="ECHO")
        server.close().result(CEILING)
        assert client.event("socket-closed") == [1000]
        client.do("nothing")
        assert not named(client, "host-closed")

    def test_a_client_that_was_there_first_connects(self, node: Callable[[str], Node], port: int) -> None:
        client = node("client.js")
        client.do("connect", url=f"ws://127.0.0.1:{port}", interval=50)
        client.event("reconnect-failed")
        server = Server({"ECHO": lambda payload: payload})
        server.listen(port).result(CEILING)
        try:
            client.event("reconnected")
            assert client.do("dispatch", type="ECHO", payload="at last") == "at last"
        finally:
            server.close().result(CEILING)

    def test_a_server_killed_and_started_anew_answers_what_was_pending(self, node: Callable[[str], Node], port: int) -> None:
        client = node("client.js")
        client.do("connect", url=f"ws://127.0.0.1:{port}", interval=50)
        with calculator(port) as killed:
            client.event("reconnected")
            assert client.do("dispatch", type="ADD", payload={"x": 1, "y": 1}) == 2
            calls = [client.begin("dispatch", type="SLEEP", payload={"seconds": 60 + n}) for n in range(8)]
            # The SLEEPs are on their way before this one is answered, as they share one socket.
            assert client.do("dispatch", type="ADD", payload={"x": 1, "y": 2}) == 3
            killed.kill()
        client.event("host-closed")
        assert client.event("socket-closed") == [1006]
        assert not any(call.done() for call in calls)

        server = Server({"SLEEP": lambda payload: payload["seconds"]})
        server.listen(port).result(CEILING)
        try:
            client.event("reconnected")
            assert [call.result(CEILING) for call in calls] == list(range(60, 68))
        finally:
            server.close().result(CEILING)


def reject(payload: Any) -> None:
    """Fail with the payload itself, as a promise rejected with it would."""
    raise TaskError(payload)


def tell(count: int) -> Any:
    """Tell how far it is, and return what is known of the caller's patience and of its meta."""
    request = current_request()
    assert request is not None
    for done in range(count):
        request.progress(done, count, "on it")
    return [request.remaining(), request.meta]


def named(node: Node, name: str) -> list[list[Any]]:
    """Return the arguments of every event of that name so far."""
    return [arguments for event, arguments in node.events() if event == name]


@contextmanager
def calculator(port: int) -> "Iterator[subprocess.Popen[bytes]]":
    """Run examples/calculator.py in a process of its own."""
    process = subprocess.Popen([sys.executable, "-m", "examples.calculator", str(port)], cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.wait(CEILING)


class TestTraces:
    """A trace goes by both, though the original knows nothing of it."""

    @pytest.fixture
    def exporter(self) -> Any:
        needs.package("opentelemetry.sdk")
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        return InMemorySpanExporter()

    @pytest.fixture
    def provider(self, exporter: Any) -> Any:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor

        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        return provider

    def test_a_parent_goes_by_a_node_server_unharmed(self, node: Callable[[str], Node], provider: Any, exporter: Any) -> None:
        """A task asks a Node server and then one of ours: all of it is the trace of whoever called the task."""
        from oompa.opentelemetry import instrument

        original = node("server.js")
        url = f"ws://127.0.0.1:{original.do('listen', port=0)}"
        inner, outer = Server({"ADD": lambda p: p["x"] + p["y"]}), Server({"SUM": lambda p: add(to_node) + add(to_inner)})
        inner.listen(0).result(CEILING)
        outer.listen(0).result(CEILING)
        to_node, to_inner, client = Client(url), *(Client(f"ws://127.0.0.1:{each.port}") for each in (inner, outer))
        instrumented = (inner, outer, to_node, to_inner, client)
        for each in instrumented:
            instrument(each, provider)

        def add(through: Client) -> Any:
            return through.call("ADD", {"x": 1, "y": 6})

        try:
            with provider.get_tracer("test").start_as_current_span("ROOT") as root:
                assert client.call("SUM") == 14
        finally:
            for through in (client, to_inner, to_node):
                through.close()
            for server in (outer, inner):
                server.close().result(CEILING)
        spans = exporter.get_finished_spans()
        assert sorted((span.name, span.kind.name) for span in spans) == [
            *[("ADD", "CLIENT")] * 2,
            ("ADD", "SERVER"),
            ("ROOT", "INTERNAL"),
            ("SUM", "CLIENT"),
            ("SUM", "SERVER"),
        ]
        assert {span.context.trace_id for span in spans} == {root.get_span_context().trace_id}
        (task,) = [span for span in spans if (span.name, span.kind.name) == ("SUM", "SERVER")]
        calls = [span for span in spans if (span.name, span.kind.name) == ("ADD", "CLIENT")]
        assert {span.parent.span_id for span in calls} == {task.context.span_id}
        assert {span.attributes["rpc.response.status_code"] for span in calls} == {"ok"}

    def test_a_node_server_ignores_a_parent_that_comes_all_the_same(self, node: Callable[[str], Node]) -> None:
        from websocket import create_connection

        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        request = {"type": "ADD", "id": "1", "payload": {"x": 1, "y": 6}, "meta": {"traceparent": parent}}
        connection = create_connection(f"ws://127.0.0.1:{node('server.js').do('listen', port=0)}", timeout=CEILING)
        try:
            connection.send(json.dumps(request))
            assert json.loads(connection.recv()) == {"type": "OK", "id": "1", "payload": 7}
        finally:
            connection.close()

    def test_a_call_of_the_node_client_begins_a_trace(self, node: Callable[[str], Node], provider: Any, exporter: Any) -> None:
        from oompa.opentelemetry import instrument

        server = Server({"ADD": lambda payload: payload["x"] + payload["y"]})
        instrument(server, provider)
        server.listen(0).result(CEILING)
        try:
            client = node("client.js")
            client.do("connect", url=f"ws://127.0.0.1:{server.port}", interval=50)
            assert client.do("call", method="add", args=[1, 2]) == 3
            client.do("close")
        finally:
            server.close().result(CEILING)
        (span,) = exporter.get_finished_spans()
        assert (span.name, span.parent, span.status.status_code.name) == ("ADD", None, "UNSET")
