"""Payloads checked against the annotations of their task, by msgspec (the extra ``typed``).

Strict: ``"1"`` is no int. Annotations may be dataclasses, TypedDicts, ``msgspec.Struct``, ``Annotated`` with bounds, datetime,
UUID, Decimal, Enum. A result may hold values of all these; what has no JSON form even then is the affair of the server's
``default=``.

The hook for models: any class that has pydantic's two methods, as pydantic's own have, checks and dumps itself, wherever in an
annotation it stands. ``model_validate(value)`` returns the model or raises ValueError; where that has pydantic's ``errors()``,
the client is told the place of each. ``model_dump(mode="json")`` returns what becomes JSON.
"""

import inspect
import secrets
from concurrent.futures import Future
from typing import Any, Callable, Union, get_type_hints

import msgspec

from .errors import ValidationError

#: Results that are JSON as they are.
_PLAIN = frozenset({int, str, bool, float, type(None)})


def validated(type: str, function: Callable[..., Any], call: Callable[..., Any]) -> Callable[[Any], Any]:
    """A factory that checks the payload against ``function``, calls ``call`` with its keys, and makes JSON values of the
    result, or of what a Future comes to.

    A parameter without an annotation takes any value. A key that is no parameter is an error.

    Raises:
        TypeError: A parameter cannot be given by name, or an annotation is none that msgspec can check.
    """
    model = _model_of(type, function)
    convert, asdict, unset = msgspec.convert, msgspec.structs.asdict, msgspec.UNSET
    has_defaults = bool(model.__struct_defaults__)

    def run(payload: Any) -> Any:
        try:
            checked = convert({} if payload is None else payload, model, dec_hook=_decoded)
        except msgspec.ValidationError as error:
            raise ValidationError(_told(str(error))) from None
        arguments = asdict(checked)
        if has_defaults:
            arguments = {name: value for name, value in arguments.items() if value is not unset}
        result = call(**arguments)
        return result if result.__class__ in _PLAIN else _plain(result)

    return run


def _plain(result: Any) -> Any:
    """JSON values of a result; of a Future, a Future of them."""
    return _then_plain(result) if isinstance(result, Future) else _builtins_of(result)


def _then_plain(future: "Future[Any]") -> "Future[Any]":
    """A Future of what becomes of ``future``, as JSON values; whoever cancels the one cancels the other."""
    plain: Future[Any] = Future()

    def settle(_: Any) -> None:
        if future.cancelled():
            plain.cancel()
        if not plain.set_running_or_notify_cancel():
            return
        try:
            plain.set_result(_plain(future.result()))
        except BaseException as error:
            plain.set_exception(error)

    def pass_on(_: Any) -> None:
        if plain.cancelled():
            future.cancel()

    plain.add_done_callback(pass_on)
    future.add_done_callback(settle)
    return plain


def _model_of(type: str, function: Callable[..., Any]) -> Any:
    """A Struct whose fields are the parameters of ``function``."""
    hints = get_type_hints(function, include_extras=True)
    fields: list[Any] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"the parameter {parameter} of {type!r} cannot be validated: give each a name of its own")
        hint = hints.get(name, Any)
        if parameter.default is parameter.empty:
            fields.append((name, hint))
        else:  # the function knows its default itself
            fields.append((name, Union[hint, msgspec.UnsetType], msgspec.UNSET))
    return msgspec.defstruct("Payload", fields, kw_only=True, forbid_unknown_fields=True)


#: Between what a model says and the place within it: msgspec appends where the model is.
_WITHIN = "\0"


def _decoded(type: Any, value: Any) -> Any:
    if type is object:  # any value is one
        return value
    if not hasattr(type, "model_validate"):
        raise TypeError(f"{type!r} cannot be validated: use a type that msgspec knows, or give it model_validate")
    try:
        return type.model_validate(value)
    except ValueError as error:
        faults = getattr(error, "errors", None)
        if not callable(faults):
            raise
        (first, *others) = faults()
        more = f" (and {len(others)} more)" if others else ""
        place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
        raise ValueError(f"{first['msg']}{more}{_WITHIN}{place}") from error


def _told(text: str) -> str:
    """What msgspec says, with the place within a model behind that of the model."""
    problem, found, places = text.partition(_WITHIN)
    if not found:
        return text
    within, _, where = places.partition(" - at `")
    return f"{problem} - at `{where.removesuffix('`') or '$'}{within}`"


#: What stands in place of a value that has no JSON form here, while msgspec is at work.
_STAND_IN = secrets.token_hex(8)


def _builtins_of(value: Any) -> Any:
    """``value`` with JSON's own types in place of those that are known; others are left to the codec, and its ``default=``."""
    unknown: dict[str, Any] = {}

    def encoded(value: Any) -> Any:
        if hasattr(value, "model_dump"):
            return value.model_dump(mode="json")
        name = f"{_STAND_IN}{len(unknown)}"
        unknown[name] = value
        return name

    result = msgspec.to_builtins(value, enc_hook=encoded)
    return _put_back(result, unknown) if unknown else result


def _put_back(value: Any, unknown: dict[str, Any]) -> Any:
    if isinstance(value, str):
        return unknown.get(value, value)
    if isinstance(value, dict):
        return {key: _put_back(item, unknown) for key, item in value.items()}
    return [_put_back(item, unknown) for item in value] if isinstance(value, list) else value
