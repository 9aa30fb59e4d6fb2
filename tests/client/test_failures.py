"""What a failure to connect says, and what several come to: pure. Cases 13, 14, 48 and 49."""

import errno
import socket
import ssl

import pytest

from oompa.client.address import parse_url
from oompa.client.failures import Failure, NotTrusted, Weight, answer, fault, of_addresses, of_urls, retry_after
from oompa.errors import ConnectionLost

PLAIN = parse_url("ws://ann:s3cret@host.example:81/path?token=s3cret")
SECURE = parse_url("wss://ann:s3cret@host.example/path?token=s3cret")
SOCKET = parse_url("ws+unix:/run/x.sock:/path?token=s3cret")


def ssl_error(reason, kind=ssl.SSLError):
    error = kind(1, f"[SSL: {reason}] words (_ssl.c:1)")
    error.reason = reason
    return error


def untrusted(code, message):
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message, error.reason = code, message, "CERTIFICATE_VERIFY_FAILED"
    return error


@pytest.mark.parametrize(
    "address, error, is_connected, weight, said",
    [
        (PLAIN, ConnectionRefusedError(111, "Connection refused"), False, 0, "nothing listens there; is the server running?"),
        (SOCKET, FileNotFoundError(2, "No such file"), False, 0, "there is no such socket; is the server running?"),
        (SOCKET, BlockingIOError(errno.EAGAIN, "Try again"), False, 0, "is the server overloaded?"),
        (PLAIN, socket.gaierror(-2, "Name unknown"), False, 0, "there is no host 'host.example' (Name unknown)"),
        (PLAIN, OSError(101, "Network is unreachable"), False, 0, "Network is unreachable"),
        (PLAIN, TimeoutError("too long"), False, 0, "ws://host.example:81 cannot be reached: too long"),
        (PLAIN, TimeoutError("too long"), True, 0, "it took the connection and said nothing; is it a WebSocket server?"),
        (PLAIN, EOFError("the end"), True, 0, "is it wss:// instead of ws://? (the end)"),
        (SECURE, ConnectionResetError(104, "reset"), True, 0, "is it ws:// instead of wss://?"),
        (SECURE, ssl_error("UNEXPECTED_EOF_WHILE_READING", ssl.SSLEOFError), True, 0, "is it ws:// instead of wss://?"),
        (SECURE, ssl_error("WRONG_VERSION_NUMBER"), True, 0, "it does not speak TLS; is it ws:// instead of wss://?"),
        (SECURE, ssl_error("HTTP_REQUEST"), True, 0, "it does not speak TLS"),
        (SECURE, ssl_error("TLSV13_ALERT_CERTIFICATE_REQUIRED"), True, 1, "does not accept the certificate of this client"),
        (SECURE, ssl_error("TLSV1_ALERT_UNKNOWN_CA"), True, 1, "does not accept the certificate of this client"),
        (SECURE, untrusted(18, "self-signed certificate"), True, 1, "self-signed certificate; to trust an authority"),
        (SECURE, untrusted(20, "unable to get local issuer"), True, 1, "ssl=ssl.create_default_context(cafile=...)"),
        (SECURE, NotTrusted("the proxy answered 407"), True, 1, "the proxy answered 407"),
        (PLAIN, OSError(), False, 0, "ws://host.example:81 cannot be reached: OSError"),
    ],
)
def test_a_fault_says_what_to_look_at_and_no_secret(address, error, is_connected, weight, said):
    """Cases 14 and 48."""
    failure = fault(address, error, is_connected)
    assert said in str(failure.error) and failure.weight == weight
    assert failure.error.__cause__ is error and "s3cret" not in str(failure.error)


def test_the_remedy_for_an_unknown_authority_is_not_given_for_another_fault():
    for code, message in ((10, "certificate has expired"), (62, "Hostname mismatch")):
        text = str(fault(SECURE, untrusted(code, message), True).error)
        assert text == f"the certificate of host.example is not accepted: {message}"


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
def test_a_redirect_tells_its_location_without_secrets_and_is_a_refusal(status):
    """Case 13."""
    failure = answer(PLAIN, status, {"location": "https://ann:s3cret@b.example/x?s3cret\r\x1b"}, b"<html>moved")
    assert failure.weight is Weight.REFUSED and failure.error.status == status
    assert "which sends to https://***@b.example/x; give" in str(failure.error) and "s3cret" not in str(failure.error)
    assert "nowhere: no Location" in str(answer(PLAIN, status, {}, b"").error)


def test_an_answer_shows_what_it_says_on_one_line_and_no_page():
    text = str(answer(PLAIN, 503, {}, b"busy\nWARNING forged" + b"x" * 5000).error)
    assert r"busy\nWARNING forged" in text and len(text) < 400
    assert "<html>" not in str(answer(PLAIN, 500, {}, b"<html>a page").error)


@pytest.mark.parametrize(
    "headers, seconds",
    [
        ({}, 0.0),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 120 "}, 120.0),
        ({"retry-after": "9" * 400}, 999999999.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "soon"}, 0.0),
        ({"retry-after": "1.5"}, 0.0),
        ({"retry-after": "²"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:27:00 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0.0),
    ],
)
def test_retry_after_is_read_or_counts_as_none(headers, seconds):
    assert retry_after(headers) == seconds


# Several.

UNREACHED = Failure(ConnectionLost("nobody"))
REFUSED = Failure(ConnectionLost("no", status=403), Weight.REFUSED)
FULL = Failure(ConnectionLost("full", status=503), Weight.ANSWERED, 7.0)


@pytest.mark.parametrize(
    "failures, verdict",
    [
        ([UNREACHED, REFUSED], REFUSED),
        ([REFUSED, UNREACHED], REFUSED),
        ([REFUSED, FULL], FULL),
        ([UNREACHED, FULL], FULL),
        ([UNREACHED], UNREACHED),
    ],
)
def test_the_address_that_answered_speaks_for_the_server(failures, verdict):
    """Case 49: ``localhost`` is two addresses on most machines, and a server listens on one of them."""
    assert of_addresses(failures) is verdict


def test_a_list_has_refused_when_all_have():
    assert of_urls([REFUSED, REFUSED]).weight is Weight.REFUSED and of_urls([REFUSED, REFUSED]).error.status == 403
    for failures in ([REFUSED, UNREACHED], [FULL, REFUSED], [UNREACHED, UNREACHED]):
        assert of_urls(failures).weight is not Weight.REFUSED
    assert of_urls([REFUSED]) is REFUSED


def test_a_list_tells_what_each_has_said_and_waits_as_the_least_asks():
    verdict = of_urls([FULL, Failure(ConnectionLost("too full", status=503), Weight.ANSWERED, 3.0)])
    assert str(verdict.error) == "none of 2 servers can be reached: full; too full"
    assert verdict.retry_after == 3.0 and verdict.error.status == 503
    assert of_urls([FULL, UNREACHED]).retry_after == 0.0
    assert str(of_urls([UNREACHED] * 9).error).endswith("; and 4 more")
