"""Which requests are the same, and which payloads."""

import json
import re
from hashlib import sha256
from typing import Any, Optional

from ..errors import TaskError
from ..wire.messages import MISSING, Request

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, check_circular=False).encode

#: In a JSON text, strings, which stay as they are, and numbers with a fraction or an exponent.
_STRING_OR_FLOAT = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:e[+-]?\d+)?')


def canonical(value: Any) -> str:
    """The JSON text of ``value`` that all values have that are equal in JSON: keys are sorted, and 1.0 is 1.

    Raises:
        TypeError, ValueError: It is not JSON, or nested too deep.
    """
    try:
        text = _encode(value)
    except RecursionError:
        raise ValueError("nested too deep") from None
    return _STRING_OR_FLOAT.sub(_whole, text) if ".0" in text or "e+" in text else text


def _whole(match: "re.Match[str]") -> str:
    """A number without a fraction as a whole one."""
    text = match.group()
    if text[0] == '"' or not ("." in text or "e" in text):
        return text
    number = float(text)
    return str(int(number)) if number.is_integer() else text


def digest(what: str, value: Any) -> str:
    """64 letters and digits that stand for ``value``, the same for all that are equal in JSON.

    Raises:
        TaskError: It is not JSON; ``what`` names it.
    """
    try:
        return sha256(canonical(value).encode()).hexdigest()
    except (TypeError, ValueError) as error:
        raise TaskError(f"{what} cannot be compared: {error}", code="invalid_argument") from error


def key_of(request: Request) -> Optional[str]:
    """Under what a store knows a request; None where nothing tells it from others.

    Raises:
        TaskError: ``meta.key`` is no string.
        TypeError: Nothing tells the identity of its caller from others.
    """
    key = request.meta.get("key")
    if key is not None and not isinstance(key, str):
        raise TaskError(f"meta.key must be a string, not {key!r}", code="invalid_argument")
    client = None if key is not None else _client_of(request)
    if key is None and (client is None or request.id is MISSING or request.id is None):
        return None
    told = ["key", key] if key is not None else ["id", client, request.id]
    identity = getattr(request.connection, "identity", None)
    return digest("the id of a request", [_name_of(identity), request.type, *told])


def _client_of(request: Request) -> Optional[str]:
    """The ``Oompa-Client`` of whoever sent a request."""
    announced = getattr(request.connection, "announced", None)
    return None if announced is None else announced.client_id


def _name_of(identity: Any) -> Any:
    """What says in every process who it is: the identity itself, or what Flask-Login's ``get_id`` gives."""
    get_id = getattr(identity, "get_id", None)
    name = identity if get_id is None else [type(identity).__qualname__, get_id()]
    try:
        canonical(name)
    except (TypeError, ValueError):
        raise TypeError(
            f"Once cannot tell the identity {identity!r} from others: have authenticate return a JSON value, such as the "
            "user's name or number, or an object with get_id()"
        ) from None
    return name
