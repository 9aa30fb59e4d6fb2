"""The options that both ends of a connection take."""

from typing import Annotated, Any, Callable, Optional, TypedDict

from ..callables import checked_with
from ..options import Option, count, seconds, seconds_or_none
from .codec import codec_named


def _codec(name: str, value: Any) -> str:
    codec_named(value)
    return str(value)


def _default(name: str, value: Any) -> Optional[Callable[[Any], Any]]:
    return None if value is None else checked_with(name, value, "value")


class ConnectionOptions(TypedDict, total=False):
    """How a connection behaves, at either end."""

    max_message_size: Annotated[
        int,
        Option(
            16 * 1024 * 1024,
            count,
            "bytes of a message, in and out; beyond, close code 1009, or an error in place of the message",
            "16 MiB",
        ),
    ]
    ping_interval: Annotated[
        Optional[float],
        Option(25.0, seconds_or_none, "silence before a ping, and again before the connection is given up; None: off"),
    ]
    write_timeout: Annotated[float, Option(10.0, seconds, "how long a write may stand still")]
    close_timeout: Annotated[float, Option(2.0, seconds, "how long the closing handshake may take")]
    default: Annotated[
        Optional[Callable[[Any], Any]],
        Option(
            None,
            _default,
            "called for a value that has no JSON form, as `json.dumps(default=)`; returns one that has",
        ),
    ]
    codec: Annotated[str, Option("json", _codec, '`"msgspec"` (with `oompa[fast]`), `"auto"` for it where it is installed')]
