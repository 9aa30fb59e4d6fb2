"""Headers of the upgrade request that a user gives: what may be sent, what belongs to the handshake. Errors show no value."""

import re
from typing import Any, Callable, Mapping, Union

Headers = Union[None, Mapping[str, str], Callable[[], Mapping[str, str]]]

#: What the handshake itself says, and what to do instead.
_RESERVED = {
    "upgrade": "it belongs to the handshake",
    "connection": "it belongs to the handshake",
    "content-length": "an upgrade request has no body",
    "transfer-encoding": "an upgrade request has no body",
    "sec-websocket-key": "it belongs to the handshake",
    "sec-websocket-version": "it belongs to the handshake",
    "sec-websocket-accept": "it belongs to the handshake",
    "sec-websocket-extensions": "no extensions are used",
    "sec-websocket-protocol": "give subprotocols=[...] instead",
    "oompa-client": "it belongs to the handshake",
    "oompa-max-message-size": "give max_message_size instead",
}

#: :rfc:`9110#section-5.6.2` and :rfc:`9110#section-5.5`.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NO_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|[\ud800-\udfff]")


def check_headers(headers: Any) -> dict[str, str]:
    """A user's headers as a dict of its own.

    Raises:
        TypeError: They are no mapping of strings.
        ValueError: One would be more than a header, is given twice, or belongs to the handshake.
    """
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers must be a mapping or a callable that returns one, not of type {type(headers).__name__}")
    names: set[str] = set()
    for name, value in headers.items():
        _check(name, value)
        if name.lower() in names:
            raise ValueError(f"headers have {name!r} twice")
        names.add(name.lower())
    return dict(headers)


def is_token(text: str) -> bool:
    """Whether it could be the name of a header or a subprotocol."""
    return _TOKEN.fullmatch(text) is not None


def _check(name: Any, value: Any) -> None:
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(f"the header {name!r} and its value must be strings, not of type {type(value).__name__}")
    if not is_token(name):
        raise ValueError(f"{name!r} cannot be the name of a header")
    if _NO_VALUE.search(value):
        raise ValueError(f"the value of the header {name!r} has more than one line, or control characters")
    if name.lower() in _RESERVED:
        raise ValueError(f"headers may not have {name!r}: {_RESERVED[name.lower()]}")
