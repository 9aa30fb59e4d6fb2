"""Which address next, and when, on a plain ``now``. Cases 12 and 14 to 16 of getting there: the order and the clock of it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oompa.client.endpoints import ANSWER_DELAY, CONNECT_DELAY, Endpoints, HomeFirst, Race, interleaved, rotated

NEVER = float("inf")


def family(address):
    """4 of ``"4a"``."""
    return address[0]


# The order.


def test_the_families_of_a_name_take_turns():
    """Case 12: a family that does not work costs one try, not as many as it has addresses."""
    assert interleaved(["6a", "6b", "6c", "4a", "4b"], family) == ["6a", "4a", "6b", "4b", "6c"]
    assert interleaved([], family) == []


def test_each_attempt_begins_with_another_address():
    """Case 12."""
    endpoints, begun = Endpoints(), []
    for _ in range(4):
        endpoints.urls(["ws://a"])
        begun.append(endpoints.addresses(["6a", "6b", "4a"], family)[0])
    assert begun == ["6a", "4a", "6b", "6a"]


def test_a_list_is_begun_at_a_random_one_and_each_comes_once():
    draws = []
    endpoints = Endpoints(lambda count: draws.append(count) or count - 1)
    assert endpoints.urls(["a", "b", "c"]) == ["c", "a", "b"]
    assert endpoints.urls(["a", "b", "c"]) == ["b", "c", "a"], "not at the one that was begun at last"
    assert draws == [3, 2]


def test_many_clients_spread_over_a_list():
    begun = [Endpoints().urls("abcd")[0] for _ in range(400)]
    assert all(begun.count(each) > 40 for each in "abcd"), begun


def test_a_list_may_change_and_name_one_twice():
    endpoints = Endpoints()
    for urls in (["a"], ["a"], ["a", "a"], ["b", "a"], []):
        assert sorted(endpoints.urls(urls)) == sorted(urls)


def test_one_that_has_a_home_begins_there_but_not_right_after_it_was_there():
    home = HomeFirst(lambda: False)
    assert [home.urls("abc") for _ in range(6)] == [list(urls) for urls in ("abc", "bca", "abc", "cab", "abc", "bca")]
    alone = HomeFirst(lambda: False)
    assert [alone.urls("a") for _ in range(3)] == [["a"]] * 3


def test_one_that_is_not_needed_waits_for_its_home():
    free = []
    home = HomeFirst(lambda: bool(free))
    assert home.urls("ab") == ["a", "b"] and not home.is_away
    assert home.elsewhere("b", "process") is None
    assert home.is_away and not home.may_go()
    free.append(True)
    assert home.may_go()
    for _ in range(3):
        assert home.urls("ab") == ["a"] and not home.is_away
    home.elsewhere("a", "process")
    assert not home.is_away


@given(st.lists(st.text("46ab", min_size=1)), st.integers(0, 10**9))
@settings(deadline=None, database=None)
def test_no_order_loses_an_address_or_tries_one_twice(items, start):
    assert sorted(interleaved(items, family)) == sorted(rotated(items, start)) == sorted(items)


# When.


def test_the_first_candidate_starts_at_once_and_the_next_after_a_quarter_of_a_second():
    """Case 12."""
    race = Race("ab")
    assert race.next(now=100.0) == "a"
    assert race.due == 100.0 + CONNECT_DELAY == 100.25
    assert race.next(now=100.2) is None
    assert race.next(now=100.25) == "b"
    assert race.due == NEVER and race.next(now=NEVER) is None


def test_one_that_fails_is_followed_at_once():
    """Case 12."""
    race = Race("ab")
    race.next(now=100.0)
    race.failed(now=100.01)
    assert race.next(now=100.01) == "b"


def test_one_that_has_connected_is_given_time_to_answer():
    """Case 12: each further one would have the server work for nothing."""
    race = Race("abc")
    race.next(now=100.0)
    race.connected([], now=100.1)
    assert race.next(now=100.35) is None
    assert race.next(now=100.1 + ANSWER_DELAY) == "b"


def test_those_that_one_was_quicker_than_come_first_when_it_fails():
    race = Race("abc")
    assert [race.next(now=100.0), race.next(now=100.25)] == ["a", "b"]
    race.connected(["a"], now=100.3)
    race.failed(now=100.4)
    assert [race.next(now=100.4), race.next(now=100.65)] == ["a", "c"]


def test_the_addresses_of_a_name_take_its_place():
    race = Race(["name", "other"])
    assert race.next(now=100.0) == "name"
    race.resolved(["6a", "4a"], now=103.0)
    assert [race.next(now=103.0 + passed) for passed in (0.0, 0.25, 0.5)] == ["6a", "4a", "other"]


@given(st.lists(st.sampled_from(["failed", "connected", "time"]), max_size=40), st.integers(0, 8))
@settings(deadline=None, database=None)
def test_whatever_happens_every_candidate_is_started_once(happenings, count):
    race, now, started = Race(range(count)), 0.0, []
    for happening in [*happenings, *["time"] * (count + 1)]:
        if happening == "failed":
            race.failed(now)
        elif happening == "connected":
            race.connected([], now)
        else:
            now = min(race.due, now + 2.0)
            if (candidate := race.next(now)) is not None:
                started.append(candidate)
    assert started == list(range(count)) and race.due == NEVER


@pytest.mark.parametrize("start, order", [(0, "abc"), (1, "bca"), (2, "cab"), (3, "abc"), (-1, "cab")])
def test_items_are_begun_anywhere(start, order):
    assert rotated("abc", start) == list(order)
    assert rotated("", start) == []
