"""Why a connection did not open, in words that tell what to do about it; and what several such reasons come to. No I/O."""

import errno
import re
import socket
import ssl
from email.utils import parsedate_to_datetime
from enum import IntEnum
from http import HTTPStatus
from typing import Mapping, NamedTuple, Optional, Sequence

from ..errors import ConnectionLost, printable
from .address import Address, without_secrets
from .reconnecting import is_refusal

#: Characters of an answer's body that are shown, and URLs of a list.
_SHOWN_BODY = 200
_SHOWN_SERVERS = 5


class Weight(IntEnum):
    """How much a failure tells: of two addresses of a name the one that answered speaks for the server."""

    UNREACHED = 0
    REFUSED = 1
    ANSWERED = 2


class Failure(NamedTuple):
    """Why one address, one URL or a whole attempt failed.

    Attributes:
        weight: REFUSED: trying again soon is pointless.
        retry_after: Seconds the server asks to be left alone.
    """

    error: ConnectionLost
    weight: Weight = Weight.UNREACHED
    retry_after: float = 0.0


class NotTrusted(ConnectionError):
    """A proxy does not let this client through."""


#: OpenSSL's words for what a server has against the certificate of a client, or the lack of one.
_CERTIFICATE_ALERT = re.compile("ALERT_.*(CERT|UNKNOWN_CA)")

#: OpenSSL's words for an answer that is no TLS at all.
_NO_TLS = re.compile("WRONG_VERSION_NUMBER|HTTP_REQUEST|UNKNOWN_PROTOCOL|PACKET_LENGTH_TOO_LONG|RECORD_LAYER_FAILURE")

#: X.509 verify codes of a chain that ends in no authority that is known.
_UNKNOWN_AUTHORITY = frozenset({18, 19, 20, 21})


def fault(address: Address, error: BaseException, is_connected: bool = False) -> Failure:
    """What an exception says about an address. ``is_connected``: it came once the connection was there."""
    if isinstance(error, ssl.SSLCertVerificationError):
        text, weight = _untrusted(address, error), Weight.REFUSED
    elif isinstance(error, ssl.SSLError) and _CERTIFICATE_ALERT.search(error.reason or ""):
        text, weight = f"{address.shown} does not accept the certificate of this client: {error.reason}", Weight.REFUSED
    else:
        weight = Weight.REFUSED if isinstance(error, NotTrusted) else Weight.UNREACHED
        text = f"{address.shown} cannot be reached: {_problem(address, error, is_connected)}"
    lost = ConnectionLost(text)
    lost.__cause__ = error.with_traceback(None)
    return Failure(lost, weight)


def _untrusted(address: Address, error: ssl.SSLCertVerificationError) -> str:
    text = f"the certificate of {address.host} is not accepted: {printable(error.verify_message)}"
    if error.verify_code in _UNKNOWN_AUTHORITY:
        return f"{text}; to trust an authority of your own, give ssl=ssl.create_default_context(cafile=...)"
    return text


def _problem(address: Address, error: BaseException, is_connected: bool) -> str:
    """What went wrong, and what to look at."""
    known = str(error) or type(error).__name__
    if isinstance(error, socket.gaierror):
        return f"there is no host {address.host!r} ({error.strerror})"
    if isinstance(error, ssl.SSLError) and _NO_TLS.search(error.reason or ""):
        return f"it does not speak TLS; is it ws:// instead of wss://? ({error.reason})"
    if isinstance(error, (ssl.SSLEOFError, ConnectionResetError, EOFError)) and is_connected:
        other = "ws:// instead of wss://" if address.is_secure else "wss:// instead of ws://"
        return f"it ended the connection within the handshake; is it a WebSocket server, and is it {other}? ({known})"
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens there; is the server running? ({known})"
    if isinstance(error, FileNotFoundError):
        return f"there is no such socket; is the server running? ({known})"
    if address.path is not None and getattr(error, "errno", None) == errno.EAGAIN:
        return "more connections wait there than it takes; is the server overloaded?"
    if isinstance(error, TimeoutError) and is_connected:
        return f"it took the connection and said nothing; is it a WebSocket server? ({known})"
    return known


def speaks_tls(address: Address) -> Failure:
    """A TLS server was asked in the clear, and answered with an alert."""
    return Failure(ConnectionLost(f"{address.shown} cannot be reached: it speaks TLS; use wss:// instead of ws://"))


# Answers.


def answer(address: Address, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """What an HTTP answer says that is no 101; ``headers`` by their names in lower case."""
    text = f"{address.shown} answered the handshake with status {_status_name(status)}"
    shown = printable(body.decode(errors="replace").strip()[:_SHOWN_BODY])
    if 300 <= status < 400:
        text += f", which sends to {_location(headers)}; give the client the URL of the WebSocket itself"
    elif shown and not shown.startswith("<"):  # a page for a browser tells nothing here
        text += f": {shown}"
    if hint := _HINTS.get(status):
        text += f" ({hint})"
    weight = Weight.REFUSED if is_refusal(status) else Weight.ANSWERED
    return Failure(ConnectionLost(text, status=status), weight, retry_after(headers))


_HINTS = {
    200: "no WebSocket is served there; is the path right?",
    404: "is the path right?",
    500: "its log tells why",
    502: "whatever stands before the server does not reach it",
    504: "whatever stands before the server does not reach it",
}


def _status_name(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _location(headers: Mapping[str, str]) -> str:
    return printable(without_secrets(headers.get("location", "")).partition("#")[0][:_SHOWN_BODY]) or "nowhere: no Location"


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds the server asks to be left alone (:rfc:`9110#section-10.2.3`); 0 for none, and for what cannot be read.

    A date counts from the answer's own, so no clock of this machine is asked.
    """
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, (parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("date", ""))).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return 0.0


# Several.


def of_addresses(failures: Sequence[Failure]) -> Failure:
    """What the addresses of one name come to: the one that tells most, and of equals the first."""
    return max(failures, key=lambda failure: failure.weight)


def of_urls(failures: Sequence[Failure]) -> Failure:
    """What the URLs of a list come to: a refusal when all have refused."""
    if len(failures) == 1:
        return failures[0]
    shown = "; ".join(str(failure.error) for failure in failures[:_SHOWN_SERVERS])
    more = f"; and {len(failures) - _SHOWN_SERVERS} more" if len(failures) > _SHOWN_SERVERS else ""
    statuses = {failure.error.status for failure in failures}
    error = ConnectionLost(f"none of {len(failures)} servers can be reached: {shown}{more}", status=_only(statuses))
    error.__cause__ = failures[-1].error
    is_refused = all(failure.weight is Weight.REFUSED for failure in failures)
    weight = Weight.REFUSED if is_refused else Weight.ANSWERED
    return Failure(error, weight, min(failure.retry_after for failure in failures))


def _only(statuses: "set[Optional[int]]") -> Optional[int]:
    return statuses.pop() if len(statuses) == 1 else None
