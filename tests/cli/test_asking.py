"""``oompa call`` and its siblings: what they print where, and how they exit."""

import io
import json
import ssl
import sys
import threading

import pytest
import trustme
from conftest import CALCULATOR, CEILING
from cryptography.hazmat.primitives import serialization
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
        (["call", "ECHO", "x=1"], "an argument is written as '{\"x\": 1}'"),
        (["call", "ECHO", "NaN"], "it has NaN, which is no JSON value"),
        (["call", "ECHO", "1", "2"], "1 arguments too many: put the payload in quotes"),
        (["call", "ECHO", "@/nowhere"], "/nowhere cannot be read: No such file"),
        (["call", "http://localhost", "ECHO"], "it must look like 'ws://localhost:9000'"),
        (["call", "ECHO", "-H", "nothing"], "a header must look like 'Authorization: Bearer TOKEN'"),
        (["call", "ECHO", "-H", "Upgrade: x"], "it belongs to the handshake"),
        (["call", "ECHO", "--key", "x"], "--key belongs to a certificate"),
        (["call", "ECHO", "--cacert", "/nowhere"], "/nowhere cannot be read: No such file or directory"),
        (["call", "ECHO", "--cacert", __file__], "test_asking.py has no certificate, or is no PEM file"),
        (["call", "ECHO", "--cert", __file__], "test_asking.py cannot be used: a certificate and its key are needed, as PEM"),
        (["call", "ECHO", "1e999"], "it has 1e999, which is no JSON value"),
        (["call", "ECHO", "1", "--timeout", "nan"], "timeout must be a finite number of seconds above 0, not nan"),
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
    assert (code, out) == (2, "") and err.startswith("Usage: oompa ") and "Exit codes" in err and "-h, --help" in err


def test_without_a_url_the_remedy_is_told(oompa, monkeypatch):
    monkeypatch.delenv("OOMPA_URL", raising=False)
    for arguments in (("call", "ADD"), ("info",), ("bench", "ADD")):
        code, _, err = oompa(*arguments)
        assert code == 2 and "put one first, such as ws://localhost:9000, or set OOMPA_URL" in err
    for place in ("localhost:9000", "example.com", "10.0.0.1:80/tasks"):
        code, _, err = oompa("call", place, "ADD")
        assert code == 2 and f"{place!r} is no URL; did you mean ws://{place}?" in err


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


def test_a_type_that_is_not_there_is_told_with_what_lists_them(oompa, url):
    assert oompa("call", "MEOW") == (1, "", "oompa: Unknown request type: \"MEOW\"; 'oompa info' lists those it has\n")


def test_a_request_that_is_too_large_is_a_sentence(oompa, serve):
    code, out, err = oompa("call", f"ws://127.0.0.1:{serve(max_message_size=1000).port}", "ECHO", json.dumps("x" * 1000))
    assert (code, out) == (2, "") and "exceeds the max_message_size of 1000 of the server" in err and err.count("\n") == 1


def test_an_authority_that_is_not_trusted_is_told_with_the_option_that_trusts_it(oompa, tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    server = Server({})
    server.listen(0, ssl=context).result(CEILING)
    try:
        url = f"wss://localhost:{server.port}"
        code, out, err = oompa("ping", url)
        assert (code, out) == (3, "") and "give --cacert FILE" in err and "ssl=" not in err
        assert oompa("ping", url, "--cacert", str(tmp_path / "ca.pem"))[:2] == (0, "true\n")
    finally:
        server.close().result(CEILING)


def test_a_key_with_a_password_is_not_asked_for(oompa, tmp_path):
    issued = trustme.CA().issue_cert("localhost")
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    (tmp_path / "cert").write_bytes(issued.cert_chain_pems[0].bytes())
    (tmp_path / "key").write_bytes(locked)
    files = ("--cert", str(tmp_path / "cert"), "--key", str(tmp_path / "key"))
    code, _, err = oompa("call", "wss://localhost:1", "ECHO", *files)
    assert code == 2 and "the key has a password, which the command does not ask for" in err and err.count("\n") == 1


def test_what_a_server_tells_reaches_no_terminal_as_a_command(oompa, serve):
    wicked = "\x1b[2J"
    schema = Schema()
    schema.task(f"A{wicked}")(lambda: None)
    server = serve(schema, name=f"n{wicked}", version=f"v{wicked}", metadata={f"k{wicked}": f"m{wicked}"})
    for command in ("info", "stats"):
        code, out, err = oompa(command, f"ws://127.0.0.1:{server.port}")
        assert code == 0 and "\\x1b[2J" in out and "\x1b" not in out + err


def test_help_has_the_options_of_the_connection_apart(oompa):
    code, out, err = oompa("bench", "--help")
    own, _, connecting = out.partition("\nConnection:\n")
    assert code == 0 and "--rate N" in own and "--insecure" not in own
    assert "--timeout SECONDS" in connecting and "--rate" not in connecting


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
