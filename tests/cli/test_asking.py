"""``oompa call`` and its siblings: what they print where, and how they exit."""

import io
import json
import sys
import threading

import pytest
from conftest import CALCULATOR, CEILING
from ports import reserved_port

from oompa import Schema, Server, TaskError
from oompa.cli.main import run


def refuse(payload):
    """Refuse.

    Always.
    """
    raise TaskError(payload)


TASKS = {**CALCULATOR, "REFUSE": refuse}


@pytest.fixture
def oompa(capsys):
    """Run the command: ``oompa(*arguments)`` gives exit code, stdout and stderr."""

    def command(*arguments):
        code = run(arguments)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return command


@pytest.fixture
def url(serve, monkeypatch):
    """A server, whose URL the environment has, too."""
    found = f"ws://127.0.0.1:{serve(TASKS, name='calculator', version='1.2', metadata={'zone': 'eu'}).port}"
    monkeypatch.setenv("OOMPA_URL", found)
    return found


def test_a_result_goes_to_stdout(oompa, url):
    assert oompa("call", url, "ADD", '{"x": 1, "y": 6}') == (0, "7\n", "")
    assert oompa("call", "ADD", '{"x": 1, "y": 6}') == (0, "7\n", "")
    assert oompa("call", "ECHO") == (0, "null\n", "")
    assert oompa("call", "ECHO", '"caf\\u00e9"')[1] in ('"caf\u00e9"\n', '"caf\\u00e9"\n')


@pytest.mark.parametrize("arguments", [("--json", "call", "ECHO", "[1]"), ("call", "--json", "ECHO", "[1]")])
def test_json_is_one_object_a_line(oompa, url, arguments):
    code, out, err = oompa(*arguments)
    told = json.loads(out)
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert told["payload"] == [1] and told["elapsed"] >= 0


def test_payloads_come_from_files_and_stdin(oompa, url, tmp_path, monkeypatch):
    file = tmp_path / "payload.json"
    file.write_text('\ufeff{"x": 1, "y": 2}', encoding="utf-8")
    assert oompa("call", "ADD", f"@{file}") == (0, "3\n", "")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"[1, 2]")))
    assert oompa("call", "ECHO", "-") == (0, "[1, 2]\n", "")


def test_an_error_of_a_task_is_one_line_and_exits_with_1(oompa, url):
    code, out, err = oompa("call", "DIV", '{"x": 1, "y": 0}')
    assert (code, out, err) == (1, "", "oompa: ZeroDivisionError: division by zero\n")
    code, out, err = oompa("call", "REFUSE", '{"why": "no"}', "--json")
    assert (code, out) == (1, "")
    assert json.loads(err) == {"error": '{"why": "no"}', "kind": "task", "exit": 1, "value": {"why": "no"}}


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["call"], "no task type was given; 'oompa info' lists those of a server"),
        (["call", "ECHO", "{x: 1}"], "the payload is not JSON: "),
        (["call", "ECHO", "word"], "a text needs quotes of its own"),
        (["call", "ECHO", "NaN"], "it has NaN, which is no JSON value"),
        (["call", "ECHO", "1", "2"], "1 arguments too many: put the payload in quotes"),
        (["call", "ECHO", "@/nowhere"], "/nowhere cannot be read: No such file"),
        (["call", "http://localhost", "ECHO"], "it must look like 'ws://localhost:9000'"),
        (["call", "ECHO", "-H", "nothing"], "a header must look like 'Authorization: Bearer TOKEN'"),
        (["call", "ECHO", "-H", "Upgrade: x"], "it belongs to the handshake"),
        (["call", "ECHO", "--key", "x"], "--key belongs to a certificate"),
        (["call", "ECHO", "--cacert", "/nowhere"], "the certificates cannot be read"),
        (["call", "ECHO", "--timeout", "0"], "0.0 is not in the range x>0"),
        (["call", "ECHO", "--tmeout", "1"], "Did you mean"),
        (["pong"], "there is no command 'pong'; did you mean 'ping'?"),
        (["dance"], "there is no command 'dance'; the commands are serve, call"),
    ],
)
def test_what_cannot_be_meant_exits_with_2(oompa, url, arguments, said):
    code, out, err = oompa(*arguments)
    assert (code, out) == (2, "")
    assert said in err and err.count("\n") == 1


def test_without_arguments_the_manual_is_shown(oompa):
    code, out, err = oompa()
    assert (code, out) == (2, "") and err.startswith("Usage: oompa ") and "Exit codes" in err


def test_without_a_url_the_remedy_is_told(oompa, monkeypatch):
    monkeypatch.delenv("OOMPA_URL", raising=False)
    code, _, err = oompa("call", "ADD")
    assert code == 2 and "put one first, such as ws://localhost:9000, or set OOMPA_URL" in err
    assert oompa("info")[0] == 2


def test_where_nobody_listens_it_exits_with_3_at_once(oompa):
    with reserved_port() as port:
        code, out, err = oompa("call", f"ws://127.0.0.1:{port}", "ADD", "--timeout", "1000")
        assert (code, out) == (3, "") and "is the server running?" in err and err.count("\n") == 1


def test_who_is_refused_exits_with_3(oompa, serve):
    server = serve(authenticate=lambda request: request.headers.get("Authorization") == "Bearer secret")
    url = f"ws://127.0.0.1:{server.port}"
    code, _, err = oompa("call", url, "ECHO")
    assert code == 3 and "401" in err
    assert oompa("call", url, "ECHO", "1", "-H", "Authorization: Bearer secret") == (0, "1\n", "")


def test_what_takes_too_long_exits_with_4(oompa, serve):
    go_on = threading.Event()
    server = serve({"WAIT": lambda payload: go_on.wait(CEILING)})
    try:
        code, out, err = oompa("call", f"ws://127.0.0.1:{server.port}", "WAIT", "--timeout", "0.1")
    finally:
        go_on.set()
    assert (code, out) == (4, "") and "--timeout gives it longer" in err


def test_an_interrupt_exits_with_130(oompa, url, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("oompa.cli.asking.connected", interrupt)
    code, out, err = oompa("call", "ECHO")
    assert (code, out, err.strip()) == (130, "", "oompa: interrupted")


def test_a_defect_is_a_sentence_too(oompa, url, monkeypatch):
    monkeypatch.setattr("oompa.cli.asking.connected", lambda *args: 1 / 0)
    code, out, err = oompa("call", "ECHO")
    assert (code, out) == (1, "") and err == "oompa: ZeroDivisionError: division by zero (OOMPA_TRACEBACK=1 shows where)\n"


def test_ping_tells_the_health(oompa, url, serve):
    assert oompa("ping") == (0, "true\n", "")
    unhealthy = serve({}, lambda: False)
    code, out, err = oompa("ping", f"ws://127.0.0.1:{unhealthy.port}")
    assert (code, out) == (1, "") and "the healthcheck returned False" in err


def test_info_is_for_people_and_programs(oompa, url):
    code, out, _ = oompa("info")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["name:", "calculator"] in lines and ["zone:", "eu"] in lines and ["REFUSE", "Refuse."] in lines
    assert json.loads(oompa("info", "--json")[1])["version"] == "1.2"


def test_stats_are_for_people_and_programs(oompa, url):
    oompa("call", "DIV", '{"x": 1, "y": 0}')
    oompa("call", "MEOW")
    out = oompa("stats")[1]
    assert [line.split()[:3] for line in out.splitlines() if line.startswith(("DIV", "(unknown)"))] == [
        ["DIV", "1", "1"],
        ["(unknown)", "1", "1"],
    ]
    assert json.loads(oompa("stats", "--json")[1])["tasks"]["DIV"]["num_errors"] == 1


def test_schema_is_the_document(oompa, url):
    assert json.loads(oompa("schema")[1])["asyncapi"] == "3.0.0"


def test_stub_is_a_module(oompa, url):
    compile(oompa("stub")[1], "stub", "exec")


def test_a_server_that_does_not_tell_is_explained(oompa, serve):
    url = f"ws://127.0.0.1:{serve(introspection=False).port}"
    for command in ("info", "stats", "schema", "stub"):
        code, out, err = oompa(command, url)
        assert (code, out) == (1, "") and "introspection=False" in err


@pytest.mark.parametrize("command", ["serve", "call", "ping", "info", "stats", "schema", "stub", "top", "bench"])
def test_each_command_has_a_manual(oompa, command):
    code, out, err = oompa(command, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: oompa {command} ") and "Example" in out
    short = next(line for line in oompa("--help")[1].splitlines() if line.split()[:1] == [command])
    assert len(short.split()) > 3


def test_over_tls_the_certificate_counts(oompa):
    import ssl

    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server = Server(Schema(CALCULATOR))
    server.listen(0, ssl=context).result(CEILING)
    url = f"wss://localhost:{server.port}"
    try:
        code, _, err = oompa("call", url, "ECHO", "1")
        assert code == 3 and "certificate" in err
        with authority.cert_pem.tempfile() as path:
            assert oompa("call", url, "ECHO", "1", "--cacert", path) == (0, "1\n", "")
        assert oompa("call", url, "ECHO", "1", "--insecure") == (0, "1\n", "")
    finally:
        server.close(0).result(CEILING)
