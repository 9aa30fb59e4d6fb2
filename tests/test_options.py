"""Options: their descriptions, and checks of their values, whose refusals name the option and the value."""

import inspect
import math
import threading
from typing import Annotated, Optional, TypedDict

import pytest

from oompa import Client, Server, options
from oompa.client.options import CLIENT_OPTIONS
from oompa.options import Option, Signature, complete, table_of
from oompa.server.options import SERVER_OPTIONS


class Base(TypedDict, total=False):
    timeout: Annotated[float, Option(10.0, options.seconds, "how long it may take")]


class Described(Base, total=False):
    limit: Annotated[Optional[int], Option(None, options.count_or_none, "how many there may be", "any")]


TABLE = table_of(Described)

# Descriptions.


def test_an_option_is_described_once_where_it_is_declared():
    assert list(TABLE) == ["timeout", "limit"]
    assert TABLE["limit"] == (None, options.count_or_none, "how many there may be", "any")


def test_what_is_left_out_has_its_default_and_what_is_given_is_checked():
    assert complete("It", TABLE, {}) == {"timeout": 10.0, "limit": None}
    checked = complete("It", TABLE, {"timeout": 3, "limit": 5})
    assert checked == {"timeout": 3.0, "limit": 5} and type(checked["timeout"]) is float
    with pytest.raises(ValueError, match="^limit must be 1 or more, not 0$"):
        complete("It", TABLE, {"limit": 0})


def test_an_unknown_option_is_a_type_error_that_names_the_likely_one():
    with pytest.raises(TypeError, match="^It has no option 'timeOut'; did you mean 'timeout'\\?$"):
        complete("It", TABLE, {"timeOut": 3})
    with pytest.raises(TypeError, match="^It has no option 'colour'; the options are limit, timeout$"):
        complete("It", TABLE, {"colour": "red"})


def test_a_constructor_shows_its_options_in_its_signature():
    class It:
        __signature__ = Signature(Described, TABLE)

        def __init__(self, url, **options):
            pass

    class Its(It):
        def __init__(self):
            super().__init__("")

    class Other(It):
        def __init__(self, url, timeout=5.0, **options):
            super().__init__(url, timeout=timeout, **options)

    limit = "limit: " + inspect.formatannotation(Optional[int])  # 'int | None' from Python 3.14 on
    assert str(inspect.signature(Other)) == f"(url, timeout=5.0, *, {limit} = None)"
    assert str(inspect.signature(It)) == f"(url, *, timeout: float = 10.0, {limit} = None)"
    assert str(inspect.signature(Its)) == "()"
    with pytest.raises(AttributeError):
        It("").__signature__


@pytest.mark.parametrize("facade, table", [(Client, CLIENT_OPTIONS), (Server, SERVER_OPTIONS)])
def test_help_shows_every_option_with_its_default(facade, table):
    shown = inspect.signature(facade).parameters
    assert {name: shown[name].default for name in table} == {name: each.default for name, each in table.items()}
    for name, each in table.items():
        each.check(name, each.default)


# Checks.


@pytest.mark.parametrize("value, expected", [(1, 1.0), (0.001, 0.001), (25.0, 25.0), (86400, 86400.0)])
def test_a_duration_is_a_number_above_zero_and_becomes_a_float(value, expected):
    checked = options.seconds("timeout", value)
    assert (checked, type(checked)) == (expected, float)


@pytest.mark.parametrize("value", [0, 0.0, -1, -0.5, math.inf, -math.inf, math.nan])
def test_a_duration_that_is_not_finite_or_not_above_zero_is_a_value_error(value):
    with pytest.raises(ValueError, match="^timeout must be a finite number of seconds above 0, not "):
        options.seconds("timeout", value)


@pytest.mark.parametrize("value", ["1", None, True, False, [1], 1j])
def test_a_duration_that_is_no_number_is_a_type_error(value):
    with pytest.raises(TypeError, match="^timeout must be a number of seconds, not "):
        options.seconds("timeout", value)


def test_a_whole_number_too_large_for_a_float_is_a_value_error():
    with pytest.raises(ValueError, match="^timeout must be "):
        options.seconds("timeout", 10**400)


def test_a_refusal_shows_the_value():
    with pytest.raises(ValueError, match="not -3$"):
        options.seconds("timeout", -3)
    with pytest.raises(TypeError, match="not 'soon'$"):
        options.seconds("timeout", "soon")
    with pytest.raises(TypeError, match="not 1.5$"):
        options.count("attempts", 1.5)


def test_none_is_a_duration_only_where_it_means_off():
    assert options.seconds_or_none("ping_interval", None) is None
    assert options.seconds_or_none("ping_interval", 3) == 3.0
    with pytest.raises(ValueError, match="^ping_interval "):
        options.seconds_or_none("ping_interval", 0)
    with pytest.raises(TypeError, match="^ping_interval "):
        options.seconds_or_none("ping_interval", False)


@pytest.mark.parametrize("value", [1, 16, 10**9])
def test_a_count_is_a_whole_number_from_one(value):
    assert options.count("attempts", value) == value


@pytest.mark.parametrize("value", [0, -1])
def test_a_count_below_one_is_a_value_error(value):
    with pytest.raises(ValueError, match="^attempts must be 1 or more, not "):
        options.count("attempts", value)


@pytest.mark.parametrize("value", [1.0, "3", None, True, [3]])
def test_a_count_that_is_no_whole_number_is_a_type_error(value):
    with pytest.raises(TypeError, match="^attempts must be a whole number, not "):
        options.count("attempts", value)


def test_none_is_a_count_only_where_it_means_no_limit():
    assert options.count_or_none("max_connections", None) is None
    assert options.count_or_none("max_connections", 5) == 5
    with pytest.raises(ValueError, match="^max_connections "):
        options.count_or_none("max_connections", 0)


@pytest.mark.parametrize("value", ["/", "/health", "/a/b"])
def test_a_route_starts_with_a_slash(value):
    assert options.route("path", value) == value


@pytest.mark.parametrize("value", ["", "health", " /", None, 5, b"/"])
def test_anything_else_is_no_route(value):
    with pytest.raises(ValueError, match="^path must be a path that starts with '/', not "):
        options.route("path", value)


def test_every_duration_that_passes_can_be_waited_for():
    """A lock refuses to wait longer than TIMEOUT_MAX with an OverflowError, in whatever thread waits then."""
    assert options.seconds("timeout", options.LONGEST) == options.LONGEST < threading.TIMEOUT_MAX
    for too_long in (options.LONGEST * 1.001, threading.TIMEOUT_MAX * 2, 1e300):
        with pytest.raises(ValueError, match="^timeout must be at most "):
            options.seconds("timeout", too_long)


@pytest.mark.parametrize("value", ["false", 1, 0, None])
def test_only_true_and_false_are_flags(value):
    assert options.flag("expose_errors", False) is False
    with pytest.raises(TypeError, match="^expose_errors must be True or False, not "):
        options.flag("expose_errors", value)
