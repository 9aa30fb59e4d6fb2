"""Payloads that are checked against annotations."""

import enum
import logging
import uuid
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from typing import Annotated, Optional

import needs
import pytest

from oompa import RemoteError, Schema, Server
from oompa.errors import ValidationError
from oompa.testing import connect

msgspec = pytest.importorskip("msgspec")


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


# What msgspec knows, both ways.


class Point(msgspec.Struct, rename="camel", tag="point"):
    """Has another name on the wire, and a tag."""

    x_axis: Annotated[int, msgspec.Meta(ge=0)]
    note: object = None


ALL = {
    "item": {"name": "a", "price": 2},
    "point": {"type": "point", "xAxis": 3, "note": None},
    "at": "2020-01-01T00:00:00Z",
    "id": "00000000-0000-0000-0000-000000000001",
    "sum": "1.50",
    "colour": "red",
}


@pytest.fixture
def everything():
    schema = Schema(validate=True)

    @schema.task("ALL")
    def everything(
        item: Item, point: Point, at: datetime, id: uuid.UUID, sum: Decimal, colour: Colour, more: Optional[Item] = None
    ) -> dict[str, object]:
        assert [type(each) for each in (item, point, at, id, sum)] == [Item, Point, datetime, uuid.UUID, Decimal]
        assert colour is Colour.RED and sum == Decimal("1.50") and more is None
        return {"item": item, "point": point, "at": at, "id": id, "sum": sum, "colour": colour}

    return schema


def test_what_is_sent_comes_back(everything):
    server = Server(everything)
    with connect(server) as client:
        assert client.call("ALL", ALL) == ALL
    server.close().result()


@pytest.mark.parametrize(
    "change, told",
    [
        ({"item": {"name": "a"}}, r"required field `price` - at `\$\.item`"),
        ({"point": {"type": "point", "xAxis": -1}}, r">= 0 - at `\$\.point\.xAxis`"),
        ({"at": "yesterday"}, r"- at `\$\.at`"),
        ({"id": "1"}, r"- at `\$\.id`"),
        ({"sum": "much"}, r"- at `\$\.sum`"),
        ({"colour": "blue"}, r"- at `\$\.colour`"),
        ({"more": {"name": "a", "price": 1.5}}, r"- at `\$\.more\.price`"),
    ],
)
def test_each_fault_has_its_place(everything, change, told):
    with pytest.raises(ValidationError, match=told):
        everything["ALL"]({**ALL, **change})


class Odd:
    """Has no JSON form."""


def test_what_has_no_form_is_left_to_default():
    schema = Schema(validate=True)
    schema.add("ODD", lambda: [Item("a", 1), {"point": Point(1, Odd())}])
    server = Server(schema, default=lambda value: type(value).__name__)
    with connect(server) as client:
        item, inner = {"name": "a", "price": 1}, {"type": "point", "xAxis": 1, "note": "Odd"}
        assert client.call("ODD") == [item, {"point": inner}]
    server.close().result()


def test_without_default_the_place_is_told():
    schema = Schema(validate=True)
    schema.add("ODD", lambda: [Item("a", 1), {"point": Point(1, Odd())}])
    server = Server(schema)
    with connect(server) as client:
        with pytest.raises(RemoteError, match=r"\(at result\[1\]\.point\.note\): TypeError: Object of type Odd .*default="):
            client.call("ODD")
    server.close().result()


def test_a_payload_that_does_not_fit_is_a_warning(caplog):
    schema = Schema(validate=True)
    schema.add("ADD", add)
    server = Server(schema)
    with connect(server) as client, caplog.at_level(logging.INFO, "oompa.server"):
        with pytest.raises(RemoteError):
            client.call("ADD", {"x": 1, "y": "2"})
    server.close().result()
    (record,) = [each for each in caplog.records if each.levelno > logging.INFO]
    assert record.levelno == logging.WARNING and record.exc_info is None
    assert record.getMessage().startswith("task 'ADD' (id '") and "got `str` - at `$.y`" in record.getMessage()


def test_models_of_pydantic_check_and_dump_themselves():
    pydantic = needs.package("pydantic")

    class Line(pydantic.BaseModel):
        name: str
        price: Decimal

    class Order(pydantic.BaseModel):
        lines: list[Line]
        at: datetime

    schema = Schema(validate=True)

    def order(orders: list[Order]) -> list[Order]:
        assert all(type(each) is Order for each in orders)
        return orders

    order.__annotations__ = {"orders": list[Order], "return": list[Order]}
    schema.add("ORDER", order)
    payload = {"orders": [{"lines": [{"name": "a", "price": "1.50"}], "at": "2020-01-01T00:00:00Z"}]}
    server = Server(schema)
    with connect(server) as client:
        assert client.call("ORDER", payload) == payload["orders"]
        payload["orders"][0]["lines"].append({"price": "1"})
        with pytest.raises(RemoteError, match=r"ValidationError: Field required - at `\$\.orders\[0\]\.lines\[1\]\.name`$"):
            client.call("ORDER", payload)
        payload["orders"][0]["at"] = "never"
        with pytest.raises(RemoteError, match=r"Field required \(and 1 more\) - at `"):
            client.call("ORDER", payload)
        with pytest.raises(RemoteError, match=r"dictionary or instance of Order - at `\$\.orders\[0\]`$"):
            client.call("ORDER", {"orders": [1]})
    server.close().result()
