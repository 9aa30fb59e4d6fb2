"""How a client gets there, and what it says when it does not: reasons at once, in words that tell what to do."""

import concurrent.futures
import re
import socket
import threading
import time

import pytest
from conftest import CEILING, url_of, wait_until
from ports import reserved_port
from test_tls import Listener, pki
from upgrades import SOON, Answers, answer

from oompa import Client, ClientClosed, ConnectionLost, RequestTimeout
from oompa.client import keeper, opening
from oompa.client.link import Link

__all__ = ["pki"]  # a fixture


@pytest.fixture
def nowhere():
    """The URL of a port that nobody listens on."""
    with reserved_port() as port:
        yield f"ws://127.0.0.1:{port}"


def reason_of(client):
    """What a call fails with that is given a moment, once the client has tried: a busy machine takes longer over TLS."""
    errors = []

    def has_tried():
        with pytest.raises((RequestTimeout, ConnectionLost)) as caught:
            client.call("ADD", {"x": 1, "y": 1}, timeout=0.4)
        errors.append(caught.value)
        return "still connecting" not in str(caught.value)

    wait_until(has_tried)
    return errors.pop()


# Why: cases 14 and 48.


def test_a_call_to_a_server_that_is_down_says_so_and_chains_the_reason(connect, nowhere):
    """Cases 14 and 48."""
    error = reason_of(connect(nowhere, **SOON))
    assert isinstance(error, RequestTimeout)
    assert re.match(r"no reply to ADD \(request [\w-]+\) within 0.4 s; there is no connection: ", str(error))
    assert f"{nowhere} cannot be reached: nothing listens there; is the server running?" in str(error)
    assert isinstance(error.__cause__, ConnectionLost) and isinstance(error.__cause__.__cause__, ConnectionRefusedError)


def test_a_call_to_a_host_there_is_none_of_says_so(connect):
    """Cases 14 and 48."""
    error = reason_of(connect("ws://no-such-host.invalid:9000", **SOON))
    assert "there is no host 'no-such-host.invalid'" in str(error)


def test_every_attempt_and_kind_of_call_says_why(connect, nowhere):
    """Case 14: not the call with a time limit of its own alone."""
    client = connect(nowhere, timeout=0.1, attempts=2, **SOON)
    for call in (client.dispatch("ADD"), client.ping()):
        error = call.exception(CEILING)
        assert "within 2 × 0.1 s; there is no connection: " in str(error) and isinstance(error.__cause__, ConnectionLost)
    with pytest.raises(RequestTimeout, match=r"\$OOMPA/PING"):
        client.ping().result(CEILING)
    with pytest.raises(RequestTimeout, match="call client.start"):
        connect(nowhere, no_server=True).call("ADD", timeout=0.05)


def test_a_call_to_a_server_that_says_nothing_says_so(connect):
    """Case 14."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = connect(f"ws://127.0.0.1:{silent.getsockname()[1]}", connect_timeout=0.1, **SOON)
        error = reason_of(client)
        client.close()
    assert "it took the connection and said nothing" in str(error) and "connect_timeout, 0.1 s" in str(error)


def test_a_self_signed_certificate_is_told_with_the_remedy_and_at_once(pki, connect):
    """Cases 14, 48 and 49."""
    with Listener(pki.server()) as listener:
        client = connect(f"wss://localhost:{listener.port}", timeout=100.0)
        with pytest.raises(ConnectionLost, match=r"is not accepted: .*ssl=ssl.create_default_context\(cafile=...\)"):
            client.dispatch("ADD").result(CEILING)
        client.close()


def test_ws_to_a_tls_port_is_told(pki, connect):
    """Case 48."""
    with Listener(pki.server()) as listener:
        client = connect(f"ws://localhost:{listener.port}", **SOON)
        assert "wss:// instead of ws://" in str(reason_of(client))
        client.close()


def test_ws_to_a_port_that_answers_with_a_tls_alert_is_told(connect):
    """Case 48: OpenSSL's own servers say in the clear what they think of that."""
    with Answers(b"\x15\x03\x01\x00\x02\x02\x46") as server:
        assert "it speaks TLS; use wss:// instead of ws://" in str(reason_of(connect(server.url, **SOON)))


def test_wss_to_a_plain_port_is_told(serve, connect):
    """Case 48."""
    client = connect(f"wss://127.0.0.1:{serve().port}", **SOON)
    assert "ws:// instead of wss://" in str(reason_of(client))


@pytest.mark.parametrize(
    "status, said",
    [
        ("500 Internal Server Error", "status 500 Internal Server Error: oh (its log tells why)"),
        ("503 Busy", "status 503 Service Unavailable: oh"),
        ("200 OK", "status 200 OK: oh (no WebSocket is served there; is the path right?)"),
        ("299 Odd", "status 299: oh"),
    ],
)
def test_an_answer_that_may_change_is_told_when_the_time_is_over(connect, status, said):
    """Cases 14 and 48."""
    with Answers(answer(status, body="oh")) as server:
        error = reason_of(connect(server.url, **SOON))
        assert isinstance(error, RequestTimeout) and str(error).endswith(f"{server.url} answered the handshake with {said}")
        assert error.__cause__.status == int(status[:3])


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent", "300 Choices"])
def test_a_redirect_fails_calls_at_once_with_its_location(connect, status):
    """Case 13, and 49."""
    location = "wss://ann:s3cret@elsewhere.example/ws?token=s3cret#s3cret"
    with Answers(answer(status, f"Location: {location}")) as server:
        client = connect(server.url, timeout=100.0)
        with pytest.raises(ConnectionLost, match=status[:3]) as caught:
            client.dispatch("ADD").result(CEILING)
        assert "which sends to wss://***@elsewhere.example/ws; give the client" in str(caught.value)
        assert caught.value.status == int(status[:3]) and "s3cret" not in str(caught.value)


def test_a_path_without_its_last_slash_is_told_by_the_server_itself(serve, connect):
    """Case 13: Flask redirects it."""
    server = serve(path="/ws/")
    client = connect(f"ws://127.0.0.1:{server.port}/ws", timeout=100.0)
    error = client.dispatch("ADD").exception(CEILING)
    assert isinstance(error, ConnectionLost) and error.status == 308
    assert f"which sends to ws://127.0.0.1:{server.port}/ws/; give the client" in str(error)


def test_a_server_whose_authenticate_raises_is_told_with_where_to_look(serve, connect):
    """Case 48."""
    client = connect(url_of(serve(authenticate=lambda request: 1 / 0)), **SOON)
    assert "status 500 Internal Server Error (its log tells why)" in str(reason_of(client))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 426, 501])
def test_calls_made_while_a_refusal_stands_fail_at_once_with_it(connect, status):
    """Case 49."""
    with Answers(answer(f"{status} No", body="not you")) as server:
        client = connect(server.url, timeout=100.0, no_server=True)
        early = client.dispatch("ADD")
        client.start()
        assert isinstance(early.exception(CEILING), ConnectionLost)
        for late in (client.dispatch("ADD"), client.ping(), client.dispatch("ADD", timeout=50.0)):
            error = late.exception(CEILING)
            assert isinstance(error, ConnectionLost) and error.status == status and "not you" in str(error)
        with pytest.raises(ConnectionLost, match=str(status)):
            client.call("ADD")
        assert len(server.came) == 1, "ten seconds until the next attempt"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_an_answer_that_may_pass_fails_nobody(connect, status):
    with Answers(answer(f"{status} Later"), answer(f"{status} Later")) as server:
        client = connect(server.url, timeout=100.0, **SOON)
        call = client.dispatch("ADD")
        wait_until(lambda: len(server.came) >= 3)
        assert not call.done()


def test_the_refusal_no_longer_stands_once_there_is_a_connection(serve, connect):
    """Case 49."""
    allowed = threading.Event()
    client = connect(url_of(serve(authenticate=lambda request: allowed.is_set())), **SOON)
    with pytest.raises(ConnectionLost):
        client.call("ECHO", timeout=CEILING)
    allowed.set()
    wait_until(lambda: client.is_connected)
    assert client.call("ECHO", 5) == 5


@pytest.mark.parametrize("max_reconnect_interval", [None, 0.05])
def test_after_a_refusal_the_next_attempt_waits_ten_times_as_long_with_backoff_too(connect, max_reconnect_interval):
    """Case 49."""
    with Answers(answer("302 Found", "Location: /")) as server:
        client = connect(server.url, reconnect_interval=0.05, max_reconnect_interval=max_reconnect_interval)
        wait_until(lambda: len(server.came) >= 3)
        client.close()
        assert all(later - earlier > 0.45 for earlier, later in zip(server.came, server.came[1:])), server.came


@pytest.mark.parametrize(
    "lines", [["Retry-After: 1"], ["Retry-After: Wed, 21 Oct 2026 07:28:01 GMT", "Date: Wed, 21 Oct 2026 07:28:00 GMT"]]
)
@pytest.mark.parametrize("status", ["503 Busy", "429 Many"])
def test_the_retry_after_of_an_upgrade_is_the_least_wait(connect, status, lines):
    with Answers(answer(status, *lines)) as server:
        connect(server.url, **SOON)
        wait_until(lambda: len(server.came) >= 2)
        assert server.came[1] - server.came[0] >= 0.95


# Whether there is a connection: case 48.


def test_a_client_waits_until_it_is_connected(serve, connect):
    """Case 48."""
    server = serve()
    client = connect(server, no_server=True)
    assert not client.is_connected
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.wait_connected)
        client.start()
        assert waiting.result(CEILING) is None
    assert client.is_connected
    client.wait_connected(timeout=0.001)
    client.close()
    assert not client.is_connected


def test_waiting_for_a_connection_in_vain_raises_the_reason(connect, nowhere):
    """Case 48."""
    client = connect(nowhere, **SOON)
    started = time.monotonic()
    with pytest.raises(ConnectionLost, match="nothing listens there") as caught:
        client.wait_connected(timeout=0.3)
    assert 0.3 <= time.monotonic() - started < CEILING and isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert not client.is_connected
    with pytest.raises(ConnectionLost, match="call client.start()"):
        connect(nowhere, no_server=True).wait_connected(timeout=0.01)


def test_waiting_for_a_connection_ends_with_a_refusal_and_with_the_client(connect, nowhere):
    """Case 48."""
    with Answers(answer("403 No")) as server:
        with pytest.raises(ConnectionLost, match="403"):
            connect(server.url).wait_connected()
    client = connect(nowhere)
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.wait_connected)
        wait_until(lambda: client._link._wakers)
        client.close()
        with pytest.raises(ClientClosed):
            waiting.result(CEILING)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "1", True])
def test_a_timeout_that_is_none_is_refused_by_name(connect, nowhere, timeout):
    with pytest.raises((TypeError, ValueError), match="timeout"):
        connect(nowhere).wait_connected(timeout)


def test_a_client_whose_connection_was_lost_is_not_connected(serve, connect):
    server = serve()
    client = connect(server, reconnect_interval=0.02)
    client.wait_connected(CEILING)
    server.close(timeout=0.1).result(CEILING)
    wait_until(lambda: not client.is_connected)
    with pytest.raises(ConnectionLost):
        client.wait_connected(0.1)


# What goes wrong in between: case 19.


def fails_once(monkeypatch, owner, name, error):
    """Let a function raise when it is first called."""
    genuine, left = getattr(owner, name), [error]

    def function(*args, **options):
        if left:
            raise left.pop()
        return genuine(*args, **options)

    monkeypatch.setattr(owner, name, function)
    return left


@pytest.mark.parametrize(
    "owner, name, error",
    [
        (keeper, "stream_of", OSError(22, "Invalid argument")),
        (keeper, "Channel", MemoryError()),
        (Link, "opened", MemoryError()),
        (Link, "_wake_waiting", MemoryError()),
        (opening, "read_announcement", MemoryError()),
        (opening._Visit, "_send", RuntimeError("a defect")),
    ],
)
def test_whatever_goes_wrong_once_a_connection_is_there_ends_it_and_the_next_attempt_follows(
    serve, connect, monkeypatch, owner, name, error
):
    """Case 19: and neither a thread nor a descriptor is left behind, which every test looks at."""
    server = serve()
    left = fails_once(monkeypatch, owner, name, error)
    client = connect(server, **SOON)
    assert client.call("ADD", {"x": 1, "y": 1}, timeout=CEILING) == 2
    assert not left
    wait_until(lambda: len(server.connections) == 1)


# What a client and a call tell of themselves: case 51.


def test_the_repr_of_a_client_tells_where_it_leads_and_how_it_is(serve, connect, nowhere):
    """Case 51."""
    server = serve()
    url = f"ws://ann:s3cret@127.0.0.1:{server.port}/?token=s3cret"
    client = connect(url, no_server=True)
    assert repr(client) == f"<Client to ws://127.0.0.1:{server.port}, not started, 0 pending>"
    client.start()
    client.wait_connected(CEILING)
    assert repr(client) == f"<Client to ws://127.0.0.1:{server.port}, connected, 0 pending>"
    client.close()
    assert repr(client) == f"<Client to ws://127.0.0.1:{server.port}, closed, 0 pending>"
    other = connect(nowhere)
    other.dispatch("ADD")
    assert repr(other) == f"<Client to {nowhere}, connecting, 1 pending>"


def test_the_repr_of_a_call_tells_its_type_id_and_state(serve, connect, nowhere):
    """Case 51."""
    client = connect(serve())
    done, failed, waiting = client.dispatch("ECHO", "s3cret"), client.dispatch("DIV", {}), connect(nowhere).dispatch("ADD")
    assert done.exception(CEILING) is None and failed.exception(CEILING)
    assert repr(done) == f"<Call ECHO (request {done.id}), finished returned str>"
    assert repr(failed) == f"<Call DIV (request {failed.id}), finished raised RemoteError>"
    assert repr(waiting) == f"<Call ADD (request {waiting.id}), pending>"
    waiting.cancel()
    assert repr(waiting) == f"<Call ADD (request {waiting.id}), cancelled>"


def test_a_closed_client_says_which_call_it_failed(connect, nowhere):
    """Case 51."""
    client = connect(nowhere)
    call = client.dispatch("MEOW")
    client.close()
    assert re.search(rf"MEOW \(request {call.id}\)", str(call.exception(CEILING)))
    with pytest.raises(ValueError, match="the request of .* exceeds .*; its type is MEOW"):
        Client(nowhere, no_server=True, max_message_size=10).dispatch("MEOW", "x" * 100)
