"""The options of a client, each described once (see ``oompa.options``)."""

from typing import TYPE_CHECKING, Annotated, Any, Iterable, Mapping, Optional, Sequence

from ..callables import checked_with
from ..options import Option, count, flag, seconds, seconds_or_none, table_of
from ..wire.options import ConnectionOptions
from .address import proxy_options
from .headers import Headers, check_headers, is_token

if TYPE_CHECKING:
    from ssl import SSLContext

_TOLERANCE = {"ratio": 0.05, "interval": 10.0}


def _tolerance(name: str, value: Any) -> Optional[Mapping[str, float]]:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping such as {_TOLERANCE}, or None, not {value!r}")
    unknown = set(value) - set(_TOLERANCE)
    if unknown:
        raise TypeError(f"tolerance has unknown keys {sorted(unknown)}; the keys are 'ratio' and 'interval'")
    ratio, interval = (value.get(key, default) for key, default in _TOLERANCE.items())
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)):
        raise TypeError(f"the ratio of tolerance must be a number, not {ratio!r}")
    if not 0 <= ratio <= 1:
        raise ValueError(f"the ratio of tolerance must be from 0 to 1, not {ratio!r}")
    return {"ratio": float(ratio), "interval": seconds("the interval of tolerance", interval)}


def _headers(name: str, value: Any) -> Headers:
    if callable(value):
        return checked_with(name, value)  # type: ignore[no-any-return]
    return None if value is None else check_headers(value)


def _subprotocols(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"subprotocols must be a list of names such as ['v1.example'], not of type {type(value).__name__}")
    names = tuple(value)
    for each in names:  # their values may be tokens, which no error shows
        if not isinstance(each, str):
            raise TypeError(f"each of subprotocols must be a string, not of type {type(each).__name__}")
        if not is_token(each):
            raise ValueError("each of subprotocols must be a token of RFC 9110: letters, digits and !#$%&'*+-.^_`|~")
    if len(set(names)) < len(names):
        raise ValueError("subprotocols must differ from each other")
    return names


def _ssl(name: str, value: Any) -> Any:
    if value is not None:
        from ssl import SSLContext  # late: it would be a tenth of what importing a client takes

        if not isinstance(value, SSLContext):
            raise TypeError(f"ssl must be an ssl.SSLContext, not {value!r}")
    return value


def _proxy(name: str, value: Any) -> Optional[str]:
    proxy_options(value)
    return None if value is None else str(value)


class ClientOptions(ConnectionOptions, total=False):
    """What a client may be told."""

    no_server: Annotated[bool, Option(False, flag, "do not connect yet; `client.start()` does")]
    reconnect_interval: Annotated[float, Option(1.0, seconds, "between the starts of two attempts to connect")]
    max_reconnect_interval: Annotated[
        Optional[float], Option(None, seconds_or_none, "given: exponential backoff with full jitter up to it")
    ]
    timeout: Annotated[float, Option(10.0, seconds, "how long one attempt of a request may take")]
    attempts: Annotated[int, Option(3, count, "attempts of a request, all with the same id; then `RequestTimeout`")]
    tolerance: Annotated[
        Optional[Mapping[str, float]],
        Option(
            _TOLERANCE,
            _tolerance,
            "every `interval`: reconnect if over `ratio` of the requests timed out (a key left out: its default); None: off",
        ),
    ]
    connect_timeout: Annotated[
        float, Option(10.0, seconds, "connecting, TLS and handshake together, whatever the number of addresses")
    ]
    max_pending: Annotated[int, Option(10_000, count, "pending calls beyond which `dispatch` raises `TooManyPending`")]
    headers: Annotated[
        Headers,
        Option(None, _headers, "of the upgrade request: a mapping, or a callable asked at every connect; `Host` replaces ours"),
    ]
    subprotocols: Annotated[
        Sequence[str], Option((), _subprotocols, "offered to the server, which may choose one; `()`: none")
    ]
    ssl: Annotated[
        Optional["SSLContext"], Option(None, _ssl, "an `ssl.SSLContext` for `wss://`; None: the system's CAs")
    ]
    proxy: Annotated[
        Optional[str],
        Option(None, _proxy, '`"http://user:password@proxy.example:3128"`, or `socks5://` with python-socks installed'),
    ]


CLIENT_OPTIONS = table_of(ClientOptions)
