"""The tasks of a schema as an AsyncAPI 3 document, and what signatures and annotations say of payloads as JSON Schema.

What an annotation does not tell, or no JSON value is, is left open: the document never forbids what the server would take.
"""

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import inspect
import math
import types
import typing
import uuid
from typing import Any, Callable, Mapping, NamedTuple, Optional
from urllib.parse import quote

from ..schema import Factory, function_of
from ..wire.messages import ERR, OK

Json = dict[str, Any]

_SIMPLE: dict[Any, Json] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    None: {"type": "null"},
    type(None): {"type": "null"},
    datetime.datetime: {"type": "string", "format": "date-time"},
    datetime.date: {"type": "string", "format": "date"},
    datetime.time: {"type": "string", "format": "time"},
    uuid.UUID: {"type": "string", "format": "uuid"},
    decimal.Decimal: {"type": "string", "format": "decimal"},
}

#: What the metadata of ``Annotated`` may tell: the names of msgspec's ``Meta`` and of annotated-types, and JSON Schema's.
_TOLD = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "pattern": "pattern",
    "title": "title",
    "description": "description",
}

_ARRAYS = (list, tuple, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_OBJECTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)

#: How deep annotations are followed; a TypedDict may contain itself.
_DEPTH = 8


def document(name: str, version: str, path: str, schema: Mapping[str, Factory]) -> Json:
    """An AsyncAPI 3 document: one channel, an operation for each task; the key of an operation is its task type."""
    messages = {"error": _message("error", _reply_schema(ERR, {"error": {}}))}
    operations = {}
    for task, factory in schema.items():
        payload, result = schemas_of(factory)
        request, reply = f"{task}.request", f"{task}.reply"
        messages[request] = _message(task, _request_schema(task, payload))
        messages[reply] = _message(f"the reply to {task}", _reply_schema(OK, {"payload": result}))
        operations[task] = _operation(task, doc_of(factory), request, reply)
    return {
        "asyncapi": "3.0.0",
        "info": {"title": name, "version": version},
        "defaultContentType": "application/json",
        "channels": {"oompa": {"address": path, "messages": messages, "bindings": {"ws": {"method": "GET"}}}},
        "operations": operations,
    }


def _operation(task: str, doc: str, request: str, reply: str) -> Json:
    described = {"summary": doc.partition("\n")[0], "description": doc} if doc else {}
    return {
        "action": "receive",
        "title": task,
        **described,
        "channel": {"$ref": "#/channels/oompa"},
        "messages": [_message_at(request)],
        "reply": {"channel": {"$ref": "#/channels/oompa"}, "messages": [_message_at(reply), _message_at("error")]},
    }


def _message_at(name: str) -> Json:
    """A reference (:rfc:`6901#section-6`): a task type may be any text."""
    token = name.replace("~", "~0").replace("/", "~1").encode(errors="replace")
    return {"$ref": f"#/channels/oompa/messages/{quote(token, safe='')}"}


def _message(title: str, payload: Json) -> Json:
    return {"title": title, "payload": payload}


def _request_schema(task: str, payload: Json) -> Json:
    properties = {"type": {"const": task}, "id": {}, "payload": payload, "meta": {"type": "object"}}
    return {"type": "object", "properties": properties, "required": ["type"]}


def _reply_schema(type: str, value: Json) -> Json:
    properties = {"type": {"const": type}, "id": {}, **value}
    return {"type": "object", "properties": properties, "required": ["type", *value]}


# What a factory tells.


def doc_of(factory: Factory) -> str:
    """The docstring of a factory's function, without its indentation; empty where it has none of its own."""
    function, _ = function_of(factory)
    is_described = inspect.isroutine(function) or isinstance(function, type)
    return _cleaned(function.__doc__ or "") if is_described else ""


def _cleaned(doc: str) -> str:
    return inspect.cleandoc(doc).encode(errors="backslashreplace").decode()  # lone surrogates are no JSON


def schemas_of(factory: Factory) -> tuple[Json, Json]:
    """JSON Schemas of the payload that a factory takes and of the result that it gives; ``{}`` for any value."""
    function, is_spread = function_of(factory)
    signature = _signature(function)
    if signature is None:
        return ({"type": "object"} if is_spread else {}), {}
    result = {} if signature.return_annotation is signature.empty else schema_of(signature.return_annotation)
    parameters = list(signature.parameters.values())
    if is_spread:
        return _arguments(parameters), result
    first = parameters[0].annotation if parameters else inspect.Parameter.empty
    return ({} if first is inspect.Parameter.empty else schema_of(first)), result


def _signature(function: Callable[..., Any]) -> Any:
    for eval_str in (True, False):
        try:
            return inspect.signature(function, eval_str=eval_str)
        except Exception:  # of a builtin, or a name that only type checkers import
            continue
    return None


def _arguments(parameters: "list[inspect.Parameter]") -> Json:
    """The object whose keys are the arguments."""
    named = [each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    properties = {each.name: _argument(each) for each in named}
    found: Json = {"type": "object", "properties": properties}
    required = [each.name for each in named if each.default is each.empty]
    if required:
        found["required"] = required
    if not any(each.kind is each.VAR_KEYWORD for each in parameters):
        found["additionalProperties"] = False
    return found


def _argument(parameter: inspect.Parameter) -> Json:
    return _with_default({} if parameter.annotation is parameter.empty else schema_of(parameter.annotation), parameter.default)


def _is_told(value: Any) -> bool:
    """Whether a value is simple, and JSON."""
    if type(value) is str:
        return value.isprintable()
    return value is None or type(value) in (bool, int) or (type(value) is float and math.isfinite(value))


# What an annotation tells.


def schema_of(annotation: Any, depth: int = _DEPTH) -> Json:
    """The JSON Schema of a type annotation; ``{}``, any value, for what is not known."""
    if depth == 0:
        return {}
    try:
        if annotation in _SIMPLE:
            return dict(_SIMPLE[annotation])
    except TypeError:  # not hashable, so none of them
        return {}
    origin, arguments = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if origin is typing.Annotated:
        return _annotated(schema_of(arguments[0], depth), annotation.__metadata__)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [schema_of(each, depth - 1) for each in arguments]}
    if origin is typing.Literal:
        return {"enum": list(arguments)} if all(map(_is_told, arguments)) else {}
    if origin in _ARRAYS:
        return _array(origin, arguments, depth)
    if origin in _OBJECTS:
        return {"type": "object", "additionalProperties": schema_of(arguments[1], depth - 1) if arguments else True}
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        values = [each.value for each in annotation]
        return {"enum": values} if all(map(_is_told, values)) else {}
    return _record(annotation, depth)


def _annotated(schema: Json, metadata: "tuple[Any, ...]") -> Json:
    """What ``Annotated`` adds: a text is a description; objects tell bounds in attributes (see ``_TOLD``)."""
    length = {"string": "Length", "array": "Items"}.get(schema.get("type", ""), "Properties")
    names = {**_TOLD, "min_length": f"min{length}", "max_length": f"max{length}"}
    found = dict(schema)
    for each in metadata:
        if isinstance(each, str):
            found["description"] = _cleaned(each)
            continue
        told = {word: getattr(each, name, None) for name, word in names.items()}
        found.update((word, value) for word, value in told.items() if value is not None and _is_told(value))
    return found


def _array(origin: Any, arguments: "tuple[Any, ...]", depth: int) -> Json:
    is_uniform = len(arguments) == 1 or (len(arguments) == 2 and arguments[1] is Ellipsis)
    return {"type": "array", "items": schema_of(arguments[0], depth - 1)} if is_uniform else {"type": "array"}


class _Field(NamedTuple):
    """A key of a record; what is no JSON is no default."""

    name: str
    hint: Any
    is_required: bool
    default: Any


def _record(annotation: Any, depth: int) -> Json:
    """Of a TypedDict, a dataclass or a ``msgspec.Struct``."""
    try:
        fields = _fields_of(annotation)
    except Exception:  # a name that only type checkers import
        return {"type": "object"}
    if fields is None:
        return {}
    found: Json = {"type": "object"}
    if annotation.__doc__ and not annotation.__doc__.startswith(f"{annotation.__name__}("):  # as dataclass makes it
        found["description"] = _cleaned(annotation.__doc__)
    found["properties"] = {each.name: _with_default(schema_of(_bare(each.hint), depth - 1), each.default) for each in fields}
    required = sorted(each.name for each in fields if each.is_required)
    return {**found, "required": required} if required else found


def _fields_of(annotation: Any) -> "Optional[list[_Field]]":
    """What a record is made of, None for no record. Raises whatever its annotations do when they are looked up."""
    if not isinstance(annotation, type):
        return None
    if hasattr(annotation, "__struct_fields__"):
        import msgspec.structs as structs

        return [_Field(each.encode_name, each.type, each.required, each.default) for each in structs.fields(annotation)]
    if typing.is_typeddict(annotation):
        hints, required = typing.get_type_hints(annotation, include_extras=True), getattr(annotation, "__required_keys__")
        return [_Field(name, hint, name in required, dataclasses.MISSING) for name, hint in hints.items()]
    if not dataclasses.is_dataclass(annotation):
        return None
    hints = typing.get_type_hints(annotation, include_extras=True)
    return [_Field(each.name, hints[each.name], _is_required(each), each.default) for each in dataclasses.fields(annotation)]


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _bare(hint: Any) -> Any:
    """Without ``Required`` and ``NotRequired``."""
    return typing.get_args(hint)[0] if str(typing.get_origin(hint)).endswith("Required") else hint


def _with_default(schema: Json, default: Any) -> Json:
    return {**schema, "default": default} if _is_told(default) else schema
