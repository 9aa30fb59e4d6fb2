"""Which connections of a pool stay where they have come to."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from oompa.client.shares import PAUSES, Seat, Shares


def come(shares, size, processes):
    """So many connections, each trying until it is taken; returns where they are, and how many were given up."""
    places, given_up = [], 0
    for seat in [Seat(shares) for _ in range(size)]:
        while True:
            seat.urls(["ws://h"])
            process = next(processes)
            if seat.elsewhere("ws://h", process) is None:
                break
            given_up += 1
        places.append(process)
    return places, given_up


def test_one_process_alone_is_asked_a_few_times_for_another_and_then_has_them_all():
    for size, tries in ((1, 0), (2, 10), (4, 10), (30, 10)):
        assert come(Shares(size), size, iter("a" * 100)) == (["a"] * size, tries)


def test_connections_try_again_until_they_are_on_both():
    assert come(Shares(4), 4, iter("aaaabaab")) == (list("aabb"), 4)
    assert come(Shares(4), 4, iter("abab")) == (list("abab"), 0)
    assert come(Shares(2), 2, iter("aaaaaaab")) == (list("ab"), 6)


def test_each_process_that_is_found_is_followed_by_the_search_for_another():
    places, given_up = come(Shares(4), 4, iter("aaa" + "b" + "aaaaaaa" + "c" + "aaaaaaa" + "d"))
    assert (places, given_up) == (["a", "a", "b", "c"], 8)


def test_the_pauses_grow_with_what_was_in_vain_and_with_how_many_look_around():
    for size, pauses in ((2, list(PAUSES)), (4, [0.0, 0.0, 0.0, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0])):
        shares = Shares(size)
        for _ in range(size // 2):
            assert Seat(shares).elsewhere("ws://h", "a") is None
        seats = itertools.cycle([Seat(shares) for _ in range(size // 2)])
        assert [next(seats).elsewhere("ws://h", "a") for _ in PAUSES] == pauses
        assert next(seats).elsewhere("ws://h", "a") is None


def test_what_was_lost_counts_no_more():
    shares = Shares(2)
    one, other = Seat(shares), Seat(shares)
    assert one.elsewhere("ws://h", "a") is None and other.elsewhere("ws://h", "a") == 0.0
    one.urls(["ws://h"])
    assert other.elsewhere("ws://h", "a") is None
    assert one.elsewhere("ws://h", "a") == 0.0 and one.elsewhere("ws://h", "b") is None


def test_a_server_that_does_not_tell_is_taken_as_it_is():
    shares = Shares(2)
    assert Seat(shares).elsewhere("ws://h", None) is Seat(shares).elsewhere("ws://h", None) is None


@given(st.integers(1, 6), st.integers(1, 12), st.randoms(use_true_random=False))
@settings(deadline=None, database=None)
def test_all_are_placed_whatever_is_drawn(processes, size, draw):
    shares = Shares(size)
    places, given_up = come(shares, size, iter(lambda: draw.randrange(processes), None))
    assert len(places) == size and given_up <= 10 * (len(set(places)) + 1)
