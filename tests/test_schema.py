"""The application schema: a mapping, and a decorator whose functions take the payload's keys as arguments."""

import pytest

from oompa import Schema


@pytest.fixture
def schema():
    return Schema()


def test_a_schema_is_a_mapping_of_types_to_factories(schema):
    schema["ADD"] = sum
    assert schema["ADD"]([1, 6]) == 7
    assert dict(Schema({"ADD": sum})) == {"ADD": sum}


def test_the_keys_of_a_payload_become_keyword_arguments(schema):
    @schema.task("SUB")
    def subtract(x, y):
        return x - y

    assert schema["SUB"]({"y": 1, "x": 6}) == 5


def test_a_request_without_a_payload_calls_the_function_without_arguments(schema):
    @schema.task("NOW")
    def now(zone="UTC"):
        return zone

    assert schema["NOW"](None) == "UTC"
    assert schema["NOW"]({}) == "UTC"


def test_the_decorated_function_stays_itself(schema):
    def add(x, y):
        return x + y

    assert schema.task("ADD")(add) is add
    assert add(1, 6) == 7


def test_one_function_may_run_several_types(schema):
    @schema.task("ADD")
    @schema.task("PLUS")
    def add(x, y):
        return x + y

    assert schema["ADD"]({"x": 1, "y": 6}) == schema["PLUS"]({"x": 1, "y": 6}) == 7


@pytest.mark.parametrize("payload", [[1, 2], "xy", 5, 0, False, True, "", []])
def test_a_payload_that_is_no_object_is_a_type_error(schema, payload):
    schema.task("ADD")(lambda **arguments: arguments)
    with pytest.raises(TypeError, match="^the payload of ADD must be an object"):
        schema["ADD"](payload)


@pytest.mark.parametrize("payload", [{"x": 1}, {"x": 1, "y": 2, "z": 3}, None])
def test_arguments_that_do_not_fit_are_a_type_error(schema, payload):
    schema.task("ADD")(lambda x, y: x + y)
    with pytest.raises(TypeError):
        schema["ADD"](payload)


def test_a_key_named_like_a_variable_of_oompa_is_an_argument_like_any_other(schema):
    schema.task("ECHO")(lambda **arguments: arguments)
    payload = {"self": 1, "type": 2, "function": 3, "payload": 4}
    assert schema["ECHO"](payload) == payload


def test_a_second_factory_for_a_type_is_a_value_error(schema):
    schema.task("ADD")(max)
    with pytest.raises(ValueError, match="'ADD' has a factory already"):
        schema.task("ADD")
    assert "ADD" in schema


def test_a_type_set_as_an_item_counts_as_taken(schema):
    schema["ADD"] = max
    with pytest.raises(ValueError, match="'ADD' has a factory already"):
        schema.task("ADD")
    assert schema["ADD"] is max
