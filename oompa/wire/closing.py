"""How a connection ends: close codes and what they mean for what was sent (:rfc:`6455#section-7.4`)."""

import enum
from typing import Any

from ..errors import printable


class CloseCode(enum.IntEnum):
    """The close codes of :rfc:`6455#section-7.4.1` that oompa sends, receives or stands in for."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS_RECEIVED = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_PAYLOAD_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014


#: Codes that blame what was sent: sending the same again would end the same way.
BLAMING_CODES = frozenset(
    {
        CloseCode.PROTOCOL_ERROR,
        CloseCode.UNSUPPORTED_DATA,
        CloseCode.INVALID_PAYLOAD_DATA,
        CloseCode.POLICY_VIOLATION,
        CloseCode.MESSAGE_TOO_BIG,
    }
)

#: Codes of a peer that is done: there is nothing to look into.
ORDERLY_CODES = frozenset({CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY, CloseCode.NO_STATUS_RECEIVED})

_RECEIVED_CODES = frozenset(CloseCode) - {CloseCode.NO_STATUS_RECEIVED, CloseCode.ABNORMAL_CLOSURE}


def may_be_received(code: int) -> bool:
    """Whether a close frame may carry ``code``: one of the registry's, or of those left to libraries and applications."""
    return code in _RECEIVED_CODES or 3000 <= code <= 4999


def check_close(code: Any, reason: Any) -> None:
    """Raise TypeError or ValueError for what no close frame carries (:rfc:`6455#section-5.5.1`)."""
    if isinstance(code, bool) or not isinstance(code, int) or not isinstance(reason, str):
        raise TypeError(f"a connection is closed with a code and a string as the reason, not with {code!r} and {reason!r}")
    if not may_be_received(code):
        raise ValueError(f"no close frame carries the code {code}: use 1000, or one from 3000 to 4999 of your own")


class ChannelClosed(Exception):
    """The channel has ended. ``code`` and ``reason`` are those of the close frame, 1006 where there was none."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.code} {printable(self.reason)}".rstrip()
