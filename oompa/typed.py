"""Payloads checked against the annotations of their task, by msgspec (the extra ``typed``).

Strict: ``"1"`` is no int. Annotations may be dataclasses, TypedDicts, ``msgspec.Struct``, ``Annotated`` with bounds, datetime,
UUID, Decimal, Enum; and any class that has pydantic's two methods: ``model_validate(value)``, which raises ValueError, and
``model_dump(mode="json")``.
"""

import inspect
from typing import Any, Callable, Union, get_type_hints

import msgspec

from .errors import ValidationError

#: Results that are JSON as they are.
_PLAIN = frozenset({int, str, bool, float, type(None)})


def validated(type: str, function: Callable[..., Any]) -> Callable[[Any], Any]:
    """A factory that checks the payload, calls ``function`` with its keys, and makes JSON values of the result.

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
            raise ValidationError(str(error)) from None
        arguments = asdict(checked)
        if has_defaults:
            arguments = {name: value for name, value in arguments.items() if value is not unset}
        result = function(**arguments)
        return result if result.__class__ in _PLAIN else msgspec.to_builtins(result, enc_hook=_encoded)

    return run


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


def _decoded(type: Any, value: Any) -> Any:
    if hasattr(type, "model_validate"):
        return type.model_validate(value)
    raise TypeError(f"{type!r} cannot be validated: use a type that msgspec knows, or give it model_validate")


def _encoded(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return value  # the codec has its say, and its default=
