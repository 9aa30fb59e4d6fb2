"""The AsyncAPI document, and what annotations say of payloads."""

import dataclasses
import datetime
import enum
import json
import pathlib
import uuid
from decimal import Decimal
from typing import Annotated, Any, Dict, List, Literal, Optional, Sequence, TypedDict, Union
from urllib.parse import unquote

import msgspec
import needs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from oompa import Schema, Server
from oompa.server.asyncapi import doc_of, document, schema_of, schemas_of

SPECS = pathlib.Path(__file__).parent.parent / "interop" / "node_modules" / "@asyncapi" / "specs"


class Point(TypedDict, total=False):
    x: float
    label: str


@dataclasses.dataclass
class Order:
    items: List[Point]
    note: str = ""


class Colour(enum.Enum):
    RED = "r"
    TWO = 2


class Bounds:
    """As msgspec's ``Meta`` and the classes of annotated-types look."""

    def __init__(self, **bounds):
        vars(self).update(bounds)


class Place(TypedDict):
    """Where it is.

    Anywhere.
    """

    x: Annotated[int, "To the right."]


class Move(msgspec.Struct, rename="camel"):
    to_place: Place
    by_foot: bool = True
    marks: List[str] = []


class Tree(TypedDict):
    children: "List[Tree]"


@pytest.mark.parametrize(
    "annotation, schema",
    [
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (None, {"type": "null"}),
        (Any, {}),
        (object, {}),
        (Optional[str], {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        (Union[int, "Nowhere"], {"anyOf": [{"type": "integer"}, {}]}),  # noqa: F821
        (list, {"type": "array"}),
        (Sequence[bool], {"type": "array", "items": {"type": "boolean"}}),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (tuple[int, str], {"type": "array"}),
        (Dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (dict, {"type": "object", "additionalProperties": True}),
        (Literal["a", 1], {"enum": ["a", 1]}),
        (Literal[b"a"], {}),
        (Literal["a\ud800"], {}),
        (Point, {"type": "object", "properties": {"x": {"type": "number"}, "label": {"type": "string"}}}),
        (["not hashable"], {}),
        (datetime.datetime, {"type": "string", "format": "date-time"}),
        (uuid.UUID, {"type": "string", "format": "uuid"}),
        (Decimal, {"type": "string", "format": "decimal"}),
        (Colour, {"enum": ["r", 2]}),
        (Annotated[int, "How many."], {"type": "integer", "description": "How many."}),
        (Annotated[float, Bounds(ge=0.5, lt=9)], {"type": "number", "minimum": 0.5, "exclusiveMaximum": 9}),
        (Annotated[str, Bounds(min_length=1, pattern="^a")], {"type": "string", "minLength": 1, "pattern": "^a"}),
        (Annotated[List[int], Bounds(max_length=3)], {"type": "array", "items": {"type": "integer"}, "maxItems": 3}),
        (Annotated[int, Bounds(ge=float("nan")), object, 7], {"type": "integer"}),
    ],
)
def test_annotations(annotation, schema):
    assert schema_of(annotation) == schema


def test_a_dataclass_requires_what_has_no_default():
    assert schema_of(Order) == {
        "type": "object",
        "properties": {"items": {"type": "array", "items": schema_of(Point)}, "note": {"type": "string", "default": ""}},
        "required": ["items"],
    }


def test_records_tell_their_docstrings_their_defaults_and_what_is_annotated():
    place = {
        "type": "object",
        "description": "Where it is.\n\nAnywhere.",
        "properties": {"x": {"type": "integer", "description": "To the right."}},
        "required": ["x"],
    }
    assert schema_of(Move) == {
        "type": "object",
        "properties": {
            "toPlace": place,
            "byFoot": {"type": "boolean", "default": True},
            "marks": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["toPlace"],
    }


def test_a_validated_task_tells_as_much_as_any_other():
    schema = Schema(validate=True)

    @schema.task("GO")
    def go(move: Move, speed: float = 4.5) -> str:
        """Go there."""

    payload, result = schemas_of(schema["GO"])
    assert payload["properties"] == {"move": schema_of(Move), "speed": {"type": "number", "default": 4.5}}
    assert (payload["required"], result, doc_of(schema["GO"])) == (["move"], {"type": "string"}, "Go there.")


def test_a_type_that_contains_itself_is_followed_so_far():
    json.dumps(schema_of(Tree))


def test_arguments_of_a_task_are_keys_of_its_payload():
    schema = Schema()

    @schema.task("MOVE")
    def move(x: int, y: "Optional[float]" = None, *, fast=False) -> str:
        return "moved"

    assert schemas_of(schema["MOVE"]) == (
        {
            "type": "object",
            "properties": {
                "x": {"type": "integer"},
                "y": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None},
                "fast": {"default": False},
            },
            "required": ["x"],
            "additionalProperties": False,
        },
        {"type": "string"},
    )
    schema.add("ANY", lambda **keys: keys)
    assert schemas_of(schema["ANY"])[0] == {"type": "object", "properties": {}}
    schema.add("BUILTIN", dict)
    assert schemas_of(schema["BUILTIN"]) == ({"type": "object"}, {})


def test_what_is_not_json_is_not_told():
    def odd(x="\ud800", y={1}, z=float("nan"), w=1):
        pass

    odd.__doc__ = "\ud800"  # Python 3.14 compiles no such docstring
    schema = Schema()
    schema.add("ODD", odd)
    assert schemas_of(schema["ODD"])[0]["properties"] == {"x": {}, "y": {}, "z": {}, "w": {"default": 1}}
    assert doc_of(schema["ODD"]) == "\\ud800"


def test_a_plain_factory_takes_what_its_argument_says():
    def total(payload: List[int]) -> int:
        return sum(payload)

    assert schemas_of(total) == ({"type": "array", "items": {"type": "integer"}}, {"type": "integer"})
    assert schemas_of(lambda payload: payload) == ({}, {})


def test_names_that_only_a_type_checker_knows_are_left_open():
    def task(payload: "Nowhere") -> "int": ...  # noqa: F821

    assert schemas_of(task) == ({}, {})


# The document.


def everything():
    schema = Schema()

    @schema.task("ADD")
    def add(x: float, y: float = 0) -> float:
        """Add two numbers.

        Of any kind.
        """
        return x + y

    schema["a/b~c %\n\u20ac"] = lambda payload: payload
    schema[""] = lambda payload: payload
    schema["ORDER"] = order
    return schema


def order(payload: Order) -> Optional[Point]:
    """Order it."""


def validator():
    jsonschema = needs.package("jsonschema")
    if not SPECS.exists():
        pytest.skip("npm install --prefix tests/interop")
    return jsonschema.Draft7Validator(json.loads((SPECS / "schemas" / "3.0.0.json").read_text()))


def resolved(found, reference):
    for token in unquote(reference.removeprefix("#/")).split("/"):
        found = found[token.replace("~1", "/").replace("~0", "~")]
    return found


def references(value):
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):  # else it is a task of that name
            yield value["$ref"]
        value = list(value.values())
    for each in value if isinstance(value, list) else ():
        yield from references(each)


def test_the_document_is_valid_by_the_schema_that_asyncapi_publishes():
    valid = validator()
    found = json.loads(json.dumps(Server(everything(), name="calculator", version="1.0").asyncapi()))
    assert [error.message for error in valid.iter_errors(found)] == []
    assert [error.message for error in valid.iter_errors({**found, "operations": 3})], "the schema forbids nothing"


def test_the_document_tells_each_task():
    found = document("calculator", "1.0", "/ws", everything())
    assert found["info"] == {"title": "calculator", "version": "1.0"}
    assert found["channels"]["oompa"]["address"] == "/ws"
    assert list(found["operations"]) == list(everything())
    operation = found["operations"]["ADD"]
    assert (operation["summary"], operation["description"]) == ("Add two numbers.", "Add two numbers.\n\nOf any kind.")
    request = resolved(found, operation["messages"][0]["$ref"])["payload"]
    assert request["properties"]["type"] == {"const": "ADD"}
    assert request["properties"]["payload"]["required"] == ["x"]


@settings(deadline=None)
@example(["$ref"])
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), unique=True, max_size=5))
def test_every_reference_leads_somewhere_whatever_the_names(names):
    found = json.loads(json.dumps(document("x", "", "/", dict.fromkeys(names, len))))
    for name in names:
        request = resolved(found, found["operations"][name]["messages"][0]["$ref"])
        assert request["payload"]["properties"]["type"] == {"const": name}
    assert all(resolved(found, each) for each in references(found))


def test_a_client_gets_the_document(serve, connect):
    server = serve(everything())
    assert connect(server).call("$OOMPA/SCHEMA") == json.loads(json.dumps(server.asyncapi()))
