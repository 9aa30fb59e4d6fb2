"""How values become JSON text and back: the stdlib's codec, and a C-speed one for what is plainly JSON.

Both are strict in both directions: NaN, Infinity and lone surrogates neither leave nor enter, and what is not JSON is
an error. The fast codec hands everything it is not sure of to the stdlib's, which stays the authority, so the two give
the same values and the same errors.

Codecs hold no state that changes; any thread may use one.
"""

import importlib.util
import json
import json.encoder
import math
from typing import Any, Callable, Iterable, Optional, Protocol, Union

#: What decoding and encoding raise: ValueError (its subclasses JSONDecodeError and UnicodeError among them) for text and
#: values that are not JSON, TypeError for a type that has no JSON form, RecursionError for what is nested too deep.
NOT_JSON = (ValueError, TypeError, RecursionError)


class Codec(Protocol):
    """Values to JSON text in UTF-8 and back. Both directions raise one of ``NOT_JSON``."""

    def encode(self, value: Any) -> bytes:
        """The JSON text of ``value`` in UTF-8."""

    def decode(self, text: Union[str, bytes]) -> Any:
        """The value of a JSON text."""


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


#: From so many characters on, a search for each of those that need an escape, by libc's memchr, is quicker than the stdlib's
#: encoder is (64 KiB: 21 µs against 160). The first three are the likely ones.
_LONG_TEXT = 2048
_ESCAPED = ('"', "\n", "\\", *map(chr, {*range(32)} - {10}))


class JsonCodec:
    """The standard library's json, strict."""

    def __init__(self) -> None:
        self._decoder = json.JSONDecoder(parse_constant=_refuse_constant)
        self._scan: Callable[[str, int], tuple[Any, int]] = self._decoder.scan_once  # type: ignore[attr-defined]
        self._encoder = json.JSONEncoder(
            ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
        )
        self._chunks = _chunks_of(self._encoder)

    def encode(self, value: Any) -> bytes:
        """The JSON text of ``value`` in UTF-8; encoding is what refuses lone surrogates."""
        if type(value) is str and len(value) > _LONG_TEXT and _needs_no_escape(value):
            return b'"%b"' % value.encode()
        return "".join(self._chunks(value)).encode()

    def decode(self, text: Union[str, bytes]) -> Any:
        """The value of a JSON text."""
        if isinstance(text, bytes):
            text = text.decode()
        try:
            value, end = self._scan(text, 0)
            if end != len(text):
                value = self._decoder.decode(text)
        except StopIteration:
            value = self._decoder.decode(text)
        if "\\" in text and "\\u" in text and not _is_encodable(value):
            raise ValueError("a lone surrogate is not JSON")
        return value


def _chunks_of(encoder: json.JSONEncoder) -> Callable[[Any], Iterable[str]]:
    """What ``encoder.encode`` joins, without its making a new C encoder for each call (1.8 to 0.6 µs for {"x":1,"y":6})."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return encoder.iterencode
    encode = make(
        None, encoder.default, json.encoder.encode_basestring, None, ":", ",", False, False, False
    )  # markers None: no table shared between threads; a circular value ends in RecursionError
    return lambda value: encode(value, 0)


def _needs_no_escape(text: str) -> bool:
    """Whether ``text`` is JSON as it stands, between quotes (:rfc:`8259#section-7`); False where that takes long to tell."""
    return text.isascii() and not any(map(text.__contains__, _ESCAPED))


def _is_encodable(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


_SCALARS = frozenset({str, int, bool, type(None)})
_CONTAINERS = (dict, list, tuple)


def _is_plain(value: Any) -> bool:
    """Whether ``value`` consists of JSON's own types alone, exactly: no subclasses, no NaN, no keys but strings."""
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str or not (type(item) in _SCALARS or _is_plain(item)):
                return False
        return True
    if kind in _SCALARS:
        return True
    if kind is float:
        return math.isfinite(value)
    if kind is not list and kind is not tuple:
        return False
    return _SCALARS.issuperset(map(type, value)) or all(map(_is_plain, value))


def is_longer(value: Any, limit: int) -> bool:
    """Whether the JSON text of ``value`` is surely longer than ``limit`` bytes, told without making it.

    A list that holds one string a thousand times takes little memory itself, but its text may take a gigabyte, and encoding
    it stops every thread meanwhile.
    """
    kind = type(value)
    if kind is int or kind is str:
        return kind is str and len(value) > limit
    if not isinstance(value, _CONTAINERS):
        return False
    size, containers = 0, [value]
    while containers:
        container = containers.pop()
        size += 2 * len(container)  # each item has a separator and at least one byte
        for item in container.values() if isinstance(container, dict) else container:
            if type(item) is str:
                size += len(item)
            elif isinstance(item, _CONTAINERS):
                containers.append(item)
            if size > limit:
                return True
    return False


class MsgspecCodec:
    """msgspec for what is plainly JSON, the stdlib's codec for all else and for every error.

    msgspec alone would send NaN as null, and datetimes, sets and bytes as strings and lists.
    """

    def __init__(self) -> None:
        import msgspec

        self._strict = JsonCodec()
        self._encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode
        self._decode: Callable[[Union[str, bytes]], Any] = msgspec.json.Decoder().decode

    def encode(self, value: Any) -> bytes:
        """The JSON text of ``value`` in UTF-8."""
        try:
            if _is_plain(value):
                encode = self._encode
                return encode(value)
        except Exception:  # whatever it was, the authority says it better
            pass
        return self._strict.encode(value)

    def decode(self, text: Union[str, bytes]) -> Any:
        """The value of a JSON text."""
        decode = self._decode
        try:
            return decode(text)
        except Exception:
            return self._strict.decode(text)


def codec_named(name: str) -> Codec:
    """The codec an option names: ``"json"``, ``"msgspec"``, or ``"auto"`` for msgspec where it is installed.

    Raises:
        ValueError: There is no such codec, or msgspec is not installed.
    """
    found: Optional[bool] = None
    if name in ("auto", "msgspec"):
        found = importlib.util.find_spec("msgspec") is not None
    if name == "json" or (name == "auto" and not found):
        return JsonCodec()
    if found:
        return MsgspecCodec()
    if name == "msgspec":
        raise ValueError("codec='msgspec' needs msgspec: pip install 'oompa[fast]', or use codec='auto' or 'json'")
    raise ValueError(f"unknown codec {name!r}; the codecs are 'json', 'msgspec' and 'auto'")
