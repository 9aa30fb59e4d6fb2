"""The id of a message that cannot be read: whoever waits for an answer is told of its fault, and nobody waits for ever.

A payload may hold what is no JSON, or be nested too deep, or the text may end too early; the id beside it is mostly as good as
any. So it is looked for without reading the rest: brackets are counted and strings skipped, in one pass and without recursion.
"""

import json
import re
from itertools import islice
from typing import Any, Union

#: A string, whether it ends or not, or a run of brackets.
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[{]+|[\]}]+', re.DOTALL)
_OBJECT = re.compile(r"\s*\{")
_KEY = re.compile(r'"id"\s*:\s*')
_END = re.compile(r"\s*[,}]")

#: Tokens looked at, about a third of a second.
_LIMIT = 1_000_000

_decoder = json.JSONDecoder(strict=False)


def id_in(text: Union[str, bytes]) -> Any:
    """The id of a message; None where none can be found. It may still be what is no JSON, such as NaN."""
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    found, depth = None, 0
    for token in islice(_TOKEN.finditer(text), _LIMIT if _OBJECT.match(text) else 0):
        first = text[token.start()]
        if first == '"':
            key = _KEY.match(text, token.start()) if depth == 1 else None
            found = found if key is None else _value_at(text, key.end())
        else:
            length = token.end() - token.start()
            depth += length if first in "[{" else -length
    return found


def _value_at(text: str, start: int) -> Any:
    """The value that begins there, None for one that does not end."""
    try:
        value, end = _decoder.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return value if _END.match(text, end) else None
