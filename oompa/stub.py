"""Writes a client in Python out of the AsyncAPI document of a server: one class, one typed method a task.

``oompa stub ws://localhost:9000 > calculator.py`` prints what :func:`module_text` makes. The module stands on ``oompa.Client``
alone, and type checkers see what each task takes and gives. Task types, argument names and docstrings may be any text: whatever
they are, what comes out is Python.
"""

import builtins
import keyword
import re
from typing import Any, Iterable, Mapping
from urllib.parse import unquote

from .client.client import Client

_SIMPLE = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}

#: Names of the module itself, and of what its annotations say.
_OWN = frozenset({"self", "Any", "Client", "Future", "Literal", "Union", "_given", "_OMITTED"})
_TAKEN = frozenset({*dir(builtins), *keyword.kwlist, *keyword.softkwlist, *_OWN})

_HEAD = '''"""{doc}

Written by ``oompa stub``; write it anew when the tasks change.
"""

from concurrent.futures import Future
from typing import {imports}

from oompa import Client

_OMITTED: Any = object()


def _given(arguments: "dict[str, Any]") -> "dict[str, Any]":
    return {{name: value for name, value in arguments.items() if value is not _OMITTED}}


class {name}(Client):
    {class_doc}
'''

_DEPTH = 8


def module_text(document: Mapping[str, Any]) -> str:
    """The text of a Python module for an AsyncAPI document as ``server.asyncapi()`` gives it.

    Raises:
        ValueError: The document is of another kind.
    """
    try:
        return _module_text(document)
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"this is no AsyncAPI document of an oompa server: {type(error).__name__} at {error}") from None


def _module_text(document: Mapping[str, Any]) -> str:
    title = document["info"]["title"]
    methods, taken = [], {*_TAKEN, *dir(Client), *_own_attributes()}
    for task, operation in document["operations"].items():
        name = _unused(snake_case(task), taken)
        request = _resolved(document, operation["messages"][0]["$ref"])["payload"]["properties"].get("payload", {})
        reply = _resolved(document, operation["reply"]["messages"][0]["$ref"])["payload"]["properties"].get("payload", {})
        methods.append(_method(name, task, operation.get("description", ""), request, annotation_of(reply)))
    shown = _plain(title)
    class_doc = _docstring(f"Calls the tasks of {shown}.", 4)
    body = "".join(methods)
    imports = ", ".join(["Any", *(each for each in ("Literal", "Union") if f"{each}[" in body)])
    head = _HEAD.format(doc=f"A client of {shown}.", name=class_name(title), class_doc=class_doc, imports=imports)
    return head + body


def _own_attributes() -> "set[str]":
    """What a client has beside what its class tells."""
    client = Client("ws://localhost:1", no_server=True)
    client.close()
    return set(vars(client))


def _resolved(document: Any, reference: str) -> Any:
    for token in unquote(reference.removeprefix("#/")).split("/"):
        document = document[token.replace("~1", "/").replace("~0", "~")]
    return document


# A method.


def _method(name: str, task: str, doc: str, payload: Mapping[str, Any], result: str) -> str:
    parameters, value = _arguments(payload) if _is_spread(payload) else _whole(payload)
    signature = ", ".join(["self", *parameters])
    text = f"\n    def {name}({signature}) -> \"Future[{result}]\":\n"
    text += f"        {_docstring(doc or f'Dispatch {_plain(task)}.', 8)}\n"
    return text + f"        return self.dispatch({ascii(task)}{value})\n"


def _is_spread(payload: Mapping[str, Any]) -> bool:
    """Whether the keys of a payload are known, and so are arguments."""
    return payload.get("additionalProperties") is False and isinstance(payload.get("properties"), dict)


def _arguments(payload: Mapping[str, Any]) -> "tuple[list[str], str]":
    """Parameters, those that are required first, and the payload that is made of them."""
    properties = payload["properties"]
    required = [name for name in properties if name in payload.get("required", ())]
    optional = [name for name in properties if name not in required]
    taken = {*keyword.kwlist, *_OWN}
    names = {name: _unused(_identifier(name), taken) for name in (*required, *optional)}
    parameters = [f"{names[each]}: {_quoted(annotation_of(properties[each]))}" for each in required]
    parameters += [f"{names[each]}: {_quoted(annotation_of(properties[each]))} = _OMITTED" for each in optional]
    if not properties:
        return [], ""
    items = ", ".join(f"{ascii(name)}: {names[name]}" for name in names)
    return parameters, f", _given({{{items}}})" if optional else f", {{{items}}}"


def _whole(payload: Mapping[str, Any]) -> "tuple[list[str], str]":
    annotation = annotation_of(payload)
    return [f"payload: {_quoted(annotation)}{' = None' if annotation == 'Any' else ''}"], ", payload"


def _quoted(annotation: str) -> str:
    return annotation if annotation.isidentifier() else f'"{annotation}"'


def annotation_of(schema: Any, depth: int = _DEPTH) -> str:
    """A Python annotation of what a JSON Schema tells; ``Any`` where it tells nothing that Python can say."""
    if not isinstance(schema, Mapping) or depth == 0:
        return "Any"
    if isinstance(schema.get("anyOf"), list) and schema["anyOf"]:
        return _union(annotation_of(each, depth - 1) for each in schema["anyOf"])
    enum = schema.get("enum")
    if isinstance(enum, list) and enum and all(type(each) in (str, int, bool, type(None)) for each in enum):
        return f"Literal[{', '.join(_literal(each) for each in enum)}]"
    kind = schema.get("type")
    if kind == "array":
        return f"list[{annotation_of(schema.get('items'), depth - 1)}]"
    if kind == "object":
        return f"dict[str, {annotation_of(schema.get('additionalProperties'), depth - 1)}]"
    return _SIMPLE.get(kind, "Any") if isinstance(kind, str) else "Any"


def _literal(value: Any) -> str:
    """In an annotation, which stands between double quotes."""
    return ascii(value).replace("\\", "\\\\").replace('"', '\\"') if isinstance(value, str) else repr(value)


def _union(annotations: Iterable[str]) -> str:
    found = list(dict.fromkeys(annotations))
    if "Any" in found:
        return "Any"
    return found[0] if len(found) == 1 else f"Union[{', '.join(found)}]"


# Names and texts.


def snake_case(task: str) -> str:
    """A task type as the name of a method: ``getUser`` and ``GET USER`` are ``get_user``."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", task)
    return _identifier(re.sub(r"[^A-Za-z0-9]+", "_", words).strip("_").lower() or "task")


def class_name(title: str) -> str:
    """The title of a server as the name of a class."""
    words = re.findall(r"[A-Za-z0-9]+", title)
    name = "".join(word[0].upper() + word[1:] for word in words)
    if not name or name[0].isdigit():
        name = f"Server{name}"
    return f"{name}Client" if name in _TAKEN else name


def _identifier(name: str) -> str:
    """``name``, or what comes close to it and is the name of an argument or a method."""
    found = name if name.isidentifier() and name.isascii() else re.sub(r"[^A-Za-z0-9_]", "_", name) or "_"
    found = f"_{found}" if found[0].isdigit() else found
    return f"x{found}" if found.startswith("__") else found  # a class would mangle it


def _unused(name: str, taken: "set[str]") -> str:
    """``name``; with ``_`` behind it where it means something else already, and a number where it is there twice."""
    found = f"{name}_" if name in taken and name in {*_TAKEN, *dir(Client)} else name
    number = 2
    while found in taken:
        found = f"{name}_{number}"
        number += 1
    taken.add(found)
    return found


def _plain(text: str) -> str:
    """Text that can stand in a docstring: one line, no quotes, no backslashes."""
    return re.sub(r"[^ !#-\[\]-~]", "?", text)


def _docstring(text: str, indent: int) -> str:
    """A docstring: as it was written, or escaped where it could end itself."""
    is_plain = text.replace("\n", "").isprintable() and "\\" not in text and '"""' not in text and text.isascii()
    if not is_plain or text.endswith('"'):
        return ascii(text)
    lines = text.split("\n")
    if len(lines) == 1:
        return f'"""{text}"""'
    margin = " " * indent
    body = "\n".join(f"{margin}{line}".rstrip() for line in lines[1:])
    return f'"""{lines[0]}\n{body}\n{margin}"""'
