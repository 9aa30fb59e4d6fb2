"""What an upgrade request must look like."""

import base64
import os

import pytest

from oompa.server.handshake import BadHandshake, check_handshake, wants_websocket


def environ(**changes):
    """The environ of a good upgrade request, with changes; a header that is None is left out."""
    good = {
        "REQUEST_METHOD": "GET",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost:9000",
        "HTTP_UPGRADE": "websocket",
        "HTTP_CONNECTION": "Upgrade",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def test_the_example_of_the_rfc_is_a_good_handshake():
    check_handshake(environ())


def test_any_sixteen_bytes_are_a_key():
    for _ in range(100):
        check_handshake(environ(HTTP_SEC_WEBSOCKET_KEY=base64.b64encode(os.urandom(16)).decode()))


@pytest.mark.parametrize(
    "changes",
    [
        {"HTTP_UPGRADE": "WebSocket"},
        {"HTTP_UPGRADE": "h2c, websocket"},
        {"HTTP_CONNECTION": "upgrade"},
        {"HTTP_CONNECTION": "keep-alive, Upgrade"},
        {"HTTP_CONNECTION": "keep-alive ,UPGRADE ,x"},
        {"SERVER_PROTOCOL": None},
        {"HTTP_ORIGIN": "http://elsewhere.example"},
        {"HTTP_SEC_WEBSOCKET_EXTENSIONS": "permessage-deflate"},
    ],
    ids=str,
)
def test_a_good_handshake_may_be_written_in_several_ways(changes):
    check_handshake(environ(**changes))


SHORT, LONG = base64.b64encode(b"x" * 15).decode(), base64.b64encode(b"x" * 17).decode()


@pytest.mark.parametrize(
    "changes, status, fault",
    [
        ({"SERVER_PROTOCOL": "HTTP/1.0"}, 400, "HTTP/1.1"),
        ({"SERVER_PROTOCOL": "HTTP/0.9"}, 400, "HTTP/1.1"),
        ({"HTTP_HOST": None}, 400, "Host"),
        ({"HTTP_HOST": ""}, 400, "Host"),
        ({"HTTP_UPGRADE": None}, 426, "Upgrade"),
        ({"HTTP_UPGRADE": ""}, 426, "Upgrade"),
        ({"HTTP_UPGRADE": "h2c"}, 426, "Upgrade"),
        ({"HTTP_UPGRADE": "websockets"}, 426, "Upgrade"),
        ({"HTTP_CONNECTION": None}, 400, "Connection"),
        ({"HTTP_CONNECTION": "keep-alive"}, 400, "Connection"),
        ({"HTTP_CONNECTION": "upgraded"}, 400, "Connection"),
        ({"HTTP_SEC_WEBSOCKET_VERSION": None}, 400, "Sec-WebSocket-Version"),
        ({"HTTP_SEC_WEBSOCKET_VERSION": ""}, 400, "Sec-WebSocket-Version"),
        ({"HTTP_SEC_WEBSOCKET_VERSION": "8"}, 426, "Sec-WebSocket-Version"),
        ({"HTTP_SEC_WEBSOCKET_VERSION": "13, 13"}, 426, "Sec-WebSocket-Version"),
        ({"HTTP_SEC_WEBSOCKET_VERSION": "013"}, 426, "Sec-WebSocket-Version"),
        ({"HTTP_SEC_WEBSOCKET_KEY": None}, 400, "Sec-WebSocket-Key"),
        ({"HTTP_SEC_WEBSOCKET_KEY": ""}, 400, "Sec-WebSocket-Key"),
        ({"HTTP_SEC_WEBSOCKET_KEY": SHORT}, 400, "Sec-WebSocket-Key"),
        ({"HTTP_SEC_WEBSOCKET_KEY": LONG}, 400, "Sec-WebSocket-Key"),
        ({"HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ"}, 400, "Sec-WebSocket-Key"),
        ({"HTTP_SEC_WEBSOCKET_KEY": "dGhl IHNhbXBsZSBub25jZQ=="}, 400, "Sec-WebSocket-Key"),
        ({"HTTP_SEC_WEBSOCKET_KEY": "!!!!!!!!!!!!!!!!!!!!!!=="}, 400, "Sec-WebSocket-Key"),
        ({"HTTP_SEC_WEBSOCKET_KEY": "éééééééééééééééééééééé=="}, 400, "Sec-WebSocket-Key"),
        ({"HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==,dGhlIHNhbXBsZSBub25jZQ=="}, 400, "Sec-WebSocket-Key"),
    ],
    ids=lambda value: ascii(value) if isinstance(value, dict) else "",
)
def test_a_bad_handshake_is_refused_with_a_status_and_the_name_of_the_fault(changes, status, fault):
    with pytest.raises(BadHandshake, match=fault) as refusal:
        check_handshake(environ(**changes))
    assert refusal.value.status == status


@pytest.mark.parametrize("version", [None, "8", "99"])
def test_a_wrong_version_is_told_the_right_one(version):
    with pytest.raises(BadHandshake) as refusal:
        check_handshake(environ(HTTP_SEC_WEBSOCKET_VERSION=version))
    assert refusal.value.headers == (("Sec-WebSocket-Version", "13"),)


def test_a_missing_upgrade_is_told_what_to_upgrade_to():
    with pytest.raises(BadHandshake) as refusal:
        check_handshake(environ(HTTP_UPGRADE=None))
    assert refusal.value.headers == (("Upgrade", "websocket"),)


def test_other_faults_come_without_headers():
    with pytest.raises(BadHandshake) as refusal:
        check_handshake(environ(HTTP_SEC_WEBSOCKET_KEY=SHORT))
    assert refusal.value.headers == ()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"HTTP_UPGRADE": "WebSocket"},
        {"HTTP_UPGRADE": "h2c, websocket"},
        {"HTTP_UPGRADE": None},
        {"HTTP_SEC_WEBSOCKET_KEY": None, "HTTP_SEC_WEBSOCKET_VERSION": None},
        {"HTTP_UPGRADE": None, "HTTP_SEC_WEBSOCKET_KEY": None},
        {"HTTP_UPGRADE": None, "HTTP_SEC_WEBSOCKET_VERSION": None},
    ],
    ids=str,
)
def test_a_request_with_any_sign_of_a_websocket_wants_one_well_or_badly(changes):
    assert wants_websocket(environ(**changes))


@pytest.mark.parametrize("upgrade", [None, "", "h2c", "websockets"])
def test_a_request_without_a_sign_of_a_websocket_wants_none(upgrade):
    request = {"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1", "HTTP_HOST": "localhost", "HTTP_UPGRADE": upgrade}
    assert not wants_websocket({name: value for name, value in request.items() if value is not None})
