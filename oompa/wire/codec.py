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
from itertools import accumulate
from json.encoder import encode_basestring
from typing import Any, Callable, Iterable, Optional, Protocol, Union

#: What decoding and encoding raise: ValueError (its subclasses JSONDecodeError and UnicodeError among them) for text and
#: values that are not JSON or nested too deep, TypeError for a type that has no JSON form.
NOT_JSON = (ValueError, TypeError)

#: Levels of a value, in either direction. Beyond, the stack of a thread may be too small.
NESTING_LIMIT = 1000


class TooDeep(ValueError):
    """A value is nested beyond that, or contains itself: there is no place in it where it begins to be."""

    def __init__(self, problem: str = f"nested more than {NESTING_LIMIT} deep") -> None:
        super().__init__(problem)


#: Called for a value that has no JSON form, as ``json.dumps(default=)``: returns one that has.
Default = Callable[[Any], Any]


class Codec(Protocol):
    """Values to JSON text in UTF-8 and back. Both directions raise one of ``NOT_JSON``."""

    def encode(self, value: Any) -> bytes:
        """The JSON text of ``value`` in UTF-8."""

    def decode(self, text: Union[str, bytes]) -> Any:
        """The value of a JSON text."""


def _no_default(value: Any) -> Any:
    raise TypeError(
        f"Object of type {type(value).__name__} is not JSON serializable; convert it, or say how with the option default=, "
        "as of json.dumps"
    )


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


#: From so many characters on, a search for each of those that need an escape, by libc's memchr, is quicker than the stdlib's
#: encoder is (64 KiB: 21 µs against 160). The first three are the likely ones.
_LONG_TEXT = 2048
_ESCAPED = ('"', "\n", "\\", *map(chr, {*range(32)} - {10}))


class JsonCodec:
    """The standard library's json, strict.

    Args:
        default: Called for a value that has no JSON form; None: such a value is a TypeError.
    """

    def __init__(self, default: Optional[Default] = None) -> None:
        self._decoder = json.JSONDecoder(parse_constant=_refuse_constant)
        self._scan: Callable[[str, int], tuple[Any, int]] = self._decoder.scan_once  # type: ignore[attr-defined]
        self._encoder = json.JSONEncoder(
            ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"), default=default or _no_default
        )
        self._chunks = _chunks_of(self._encoder)

    def encode(self, value: Any) -> bytes:
        """The JSON text of ``value`` in UTF-8; encoding is what refuses lone surrogates."""
        kind = type(value)
        if kind is int:
            return repr(value).encode()
        if kind is str:
            if len(value) > _LONG_TEXT and _needs_no_escape(value):
                return b'"%b"' % value.encode()
            return encode_basestring(value).encode()
        try:
            return "".join(self._chunks(value)).encode()
        except RecursionError:
            raise TooDeep(f"nested more than {NESTING_LIMIT} deep, or contains itself") from None

    def decode(self, text: Union[str, bytes]) -> Any:
        """The value of a JSON text."""
        if len(text) > NESTING_LIMIT and is_deep(text):
            raise TooDeep
        if isinstance(text, bytes):
            text = text.decode()
        try:
            value, end = self._scan(text, 0)
            if end != len(text):
                value = self._decoder.decode(text)
        except StopIteration:
            value = self._decoder.decode(text)
        except RecursionError:  # the stack of this thread was deep already
            raise TooDeep from None
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


#: One kind of brackets stands for both.
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_ALL_ELSE = bytes({*range(256)} - {*b'[]{}"'})

_OPENING = ord("[")

#: How often pairs are taken out before what is left is counted one by one.
_PASSES = 20

#: Brackets of one kind that are looked for, by libc's memchr, before all are counted, which takes 20 times as long where there
#: are none: most long texts are long strings.
_FEW = 16


def is_deep(text: Union[str, bytes]) -> bool:
    """Whether a JSON text is nested deeper than ``NESTING_LIMIT``, told without decoding it.

    Most texts have fewer brackets than that. Of the others strings are taken out, which may hold brackets, and then empty
    pairs, level by level, all of it by operations that are written in C.
    """
    is_text = isinstance(text, str)
    if _has_few(text, "[" if is_text else b"[") and _has_few(text, "{" if is_text else b"{"):
        return False
    brackets = _brackets_of(text.encode(errors="replace") if isinstance(text, str) else text)
    for passes in range(_PASSES):
        if brackets.count(b"[") + passes <= NESTING_LIMIT:
            return False
        brackets = brackets.replace(b"[]", b"")
    return max(accumulate(1 if each == _OPENING else -1 for each in brackets)) + _PASSES > NESTING_LIMIT


def _has_few(text: Any, bracket: Any) -> bool:
    place = -1
    for _ in range(_FEW):
        place = text.find(bracket, place + 1)
        if place < 0:
            return True
    return False


def _brackets_of(text: bytes) -> bytes:
    """The brackets outside strings, all of one kind; all there are where that is not more than ``NESTING_LIMIT``."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    quoted = text.translate(_ONE_KIND, _ALL_ELSE)
    if quoted.count(b"[") > NESTING_LIMIT:
        quoted = quoted.replace(b'""', b"")  # two in a row enclose nothing, whichever they are
        if b'"' in quoted:
            return b"".join(quoted.split(b'"')[::2])
    return quoted


#: Characters of a place that are enough.
_LONG_PLACE = 200


def place_of_fault(error: Exception, value: Any, is_json: Callable[[Any], bool]) -> str:
    """Where in ``value`` the first thing is that is not JSON, such as ``.users[3].tags``; empty for the value itself.

    Args:
        error: What encoding it raised.
        is_json: Whether a value within it is JSON.
    """
    if isinstance(error, TooDeep):
        return ""
    place = ""
    while isinstance(value, _CONTAINERS) and len(place) < _LONG_PLACE:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        faulty = next(((key, item) for key, item in items if not is_json(item)), None)
        if faulty is None:
            break  # it is a key, or the container itself
        key, inner = faulty
        place += f".{key}" if isinstance(value, dict) else f"[{key}]"
        value = inner
    return place if len(place) < _LONG_PLACE else ""


def with_place(error: Exception, what: str, value: Any, codec: Codec) -> Exception:
    """An error of encoding ``value``, which ``what`` names, that tells where in it the fault is."""

    def is_json(inner: Any) -> bool:
        try:
            return bool(codec.encode(inner))
        except NOT_JSON:
            return False

    try:
        place = place_of_fault(error, value, is_json)
    except Exception:  # a subclass of dict or list may raise whatever it likes
        place = ""
    kind = TypeError if isinstance(error, TypeError) else ValueError
    return kind(f"{what}{place} is not JSON: {error}")


class MsgspecCodec:
    """msgspec for what is plainly JSON, the stdlib's codec for all else and for every error.

    msgspec alone would send NaN as null, and datetimes, sets and bytes as strings and lists.
    """

    def __init__(self, default: Optional[Default] = None) -> None:
        import msgspec

        self._strict = JsonCodec(default)
        self._encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode
        self._decode: Callable[[Union[str, bytes]], Any] = msgspec.json.Decoder().decode

    def encode(self, value: Any) -> bytes:
        """The JSON text of ``value`` in UTF-8."""
        try:
            if type(value) in _SCALARS or _is_plain(value):
                encode = self._encode
                return encode(value)
        except Exception:  # whatever it was, the authority says it better
            pass
        return self._strict.encode(value)

    def decode(self, text: Union[str, bytes]) -> Any:
        """The value of a JSON text."""
        decode = self._decode
        if len(text) > NESTING_LIMIT and is_deep(text):
            raise TooDeep
        try:
            return decode(text)
        except Exception:
            return self._strict.decode(text)


def codec_named(name: str, default: Optional[Default] = None) -> Codec:
    """The codec an option names: ``"json"``, ``"msgspec"``, or ``"auto"`` for msgspec where it is installed.

    Args:
        default: Called for a value that has no JSON form; None: such a value is a TypeError.

    Raises:
        ValueError: There is no such codec, or msgspec is not installed.
    """
    found: Optional[bool] = None
    if name in ("auto", "msgspec"):
        found = importlib.util.find_spec("msgspec") is not None
    if name == "json" or (name == "auto" and not found):
        return JsonCodec(default)
    if found:
        return MsgspecCodec(default)
    if name == "msgspec":
        raise ValueError("codec='msgspec' needs msgspec: pip install 'oompa[fast]', or use codec='auto' or 'json'")
    raise ValueError(f"unknown codec {name!r}; the codecs are 'json', 'msgspec' and 'auto'")
