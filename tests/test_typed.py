"""Payloads that are checked against annotations."""

import enum
import uuid
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal

import pytest

from oompa import RemoteError, Schema, Server
from oompa.errors import ValidationError
from oompa.testing import connect

pytest.importorskip("msgspec")


@dataclass
class Item:
    """What is bought."""

    name: str
    price: int


class Colour(enum.Enum):
    """What may be chosen."""

    RED = "red"


def test_the_error_tells_the_place():
    schema = Schema()

    @schema.task("BUY", validate=True)
    def buy(items: list[Item]) -> int:
        return sum(item.price for item in items)

    assert schema["BUY"]({"items": [{"name": "a", "price": 2}, {"name": "b", "price": 3}]}) == 5
    with pytest.raises(ValidationError, match=r"Expected `int`, got `str` - at `\$\.items\[1\]\.price`"):
        schema["BUY"]({"items": [{"name": "a", "price": 2}, {"name": "b", "price": "3"}]})


@pytest.mark.parametrize("payload", [None, [], {}, {"x": 1}, {"x": 1, "y": "2"}, {"x": 1, "y": 2, "z": 3}])
def test_what_is_not_as_annotated_is_refused(payload):
    schema = Schema(validate=True)
    schema.add("ADD", add)
    with pytest.raises(ValidationError):
        schema["ADD"](payload)


def add(x: int, y: int) -> int:
    """The sum."""
    return x + y


def test_a_default_stays_the_functions_own():
    schema = Schema(validate=True)
    default = [1]

    @schema.task("SAME")
    def same(x: list[int] = default) -> bool:
        return x is default

    assert schema["SAME"](None) is True
    assert schema["SAME"]({"x": [1]}) is False


def test_a_task_may_stand_apart_from_its_schema():
    schema = Schema(validate=True)
    schema.task("FREE", validate=False)(add)
    assert schema["FREE"]({"x": "a", "y": "b"}) == "ab"


def test_results_become_json():
    schema = Schema(validate=True)
    now = datetime(2020, 1, 1, tzinfo=timezone.utc)
    schema.add("ALL", lambda: [Item("a", 1), Decimal("1.5"), Colour.RED, now, uuid.UUID(int=1)])
    assert schema["ALL"](None) == [
        {"name": "a", "price": 1},
        "1.5",
        "red",
        "2020-01-01T00:00:00Z",
        "00000000-0000-0000-0000-000000000001",
    ]


def test_what_has_no_name_cannot_be_validated():
    with pytest.raises(TypeError, match=r"\*args"):
        Schema(validate=True).add("ANY", lambda *args: 1)


def test_the_client_is_told():
    schema = Schema(validate=True)
    schema.add("ADD", add)
    server = Server(schema)
    with connect(server) as client:
        assert client.call("ADD", {"x": 1, "y": 2}) == 3
        with pytest.raises(RemoteError, match=r"ValidationError: Expected `int`, got `str` - at `\$\.y`") as refused:
            client.call("ADD", {"x": 1, "y": "2"})
        assert refused.value.code == "invalid_argument"
    server.close().result()


class Model:
    """Has the two methods of a pydantic model, as far as they are used."""

    def __init__(self, name):
        self.name = name

    @classmethod
    def model_validate(cls, value):
        if not isinstance(value, str):
            raise ValueError("a name is a string")
        return cls(value)

    def model_dump(self, mode):
        assert mode == "json"
        return self.name


def test_models_check_and_dump_themselves():
    schema = Schema(validate=True)

    @schema.task("GREET")
    def greet(who: list[Model]) -> list[Model]:
        return who[:1]

    assert schema["GREET"]({"who": ["a", "b"]}) == ["a"]
    with pytest.raises(ValidationError, match=r"a name is a string - at `\$\.who\[1\]`"):
        schema["GREET"]({"who": ["a", 2]})
