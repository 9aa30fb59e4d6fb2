"""Decisions on a plain ``now``: refusals and backoff."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oompa.client.reconnecting import Backoff, is_refusal

# Statuses.


@pytest.mark.parametrize("status", [300, 301, 302, 307, 308, 400, 401, 403, 404, 405, 410, 418, 426, 451, 499, 501])
def test_a_redirect_a_client_error_and_not_implemented_are_refusals(status):
    assert is_refusal(status)


@pytest.mark.parametrize("status", [408, 425, 429])
def test_a_status_that_may_pass_on_its_own_is_no_refusal(status):
    assert not is_refusal(status)


@pytest.mark.parametrize("status", [None, 101, 200, 500, 502, 503, 504])
def test_any_other_answer_is_no_refusal(status):
    assert not is_refusal(status)


# Backoff.


def test_the_first_attempt_comes_at_once():
    assert Backoff(1.0).delay(now=100.0) == 0.0


def test_attempts_start_an_interval_apart():
    backoff = Backoff(1.0)
    backoff.attempted(now=100.0)
    backoff.failed()
    assert backoff.delay(now=100.25) == 0.75
    assert backoff.delay(now=101.0) == 0.0


def test_a_connection_that_lived_longer_than_the_interval_is_replaced_at_once():
    backoff = Backoff(1.0)
    backoff.attempted(now=100.0)
    backoff.succeeded()
    assert backoff.delay(now=160.0) == 0.0


def test_a_connection_that_flaps_is_replaced_once_in_an_interval():
    backoff = Backoff(1.0)
    backoff.attempted(now=100.0)
    backoff.succeeded()
    assert backoff.delay(now=100.1) == pytest.approx(0.9)


def test_a_connection_lost_soon_is_replaced_at_once_while_there_are_places_that_were_not_tried():
    backoff = Backoff(1.0)
    for now in (100.0, 100.1, 100.2):
        assert backoff.delay(now) == 0.0
        backoff.attempted(now)
        backoff.succeeded(places=3)
    assert backoff.delay(now=100.3) == pytest.approx(0.9), "all three were"
    backoff.attempted(now=101.2)
    backoff.succeeded(places=3)
    assert backoff.delay(now=101.3) == 0.0


def test_places_of_which_none_is_open_are_tried_once_in_an_interval():
    backoff = Backoff(1.0)
    backoff.attempted(now=100.0)
    backoff.succeeded(places=3)
    backoff.attempted(now=100.1)
    backoff.failed()
    assert backoff.delay(now=100.2) == pytest.approx(0.9)


def test_a_refusal_delays_the_next_attempt_wherever_it_goes():
    backoff = Backoff(1.0)
    backoff.attempted(now=100.0)
    backoff.succeeded(places=2)
    backoff.refused(now=100.1)
    assert backoff.delay(now=100.2) == pytest.approx(9.9)


def test_without_a_maximum_interval_failures_do_not_lengthen_the_wait():
    backoff = Backoff(2.0)
    for attempt in range(10):
        backoff.attempted(now=100.0 + 2.0 * attempt)
        backoff.failed()
        assert backoff.delay(now=100.0 + 2.0 * attempt) == 2.0


def test_a_refused_client_waits_ten_times_the_interval():
    backoff = Backoff(1.5)
    backoff.attempted(now=100.0)
    backoff.refused(now=100.0)
    assert backoff.delay(now=100.0) == 15.0
    assert backoff.delay(now=110.0) == 5.0
    assert backoff.delay(now=115.0) == 0.0


def test_a_refusal_delays_the_next_attempt_alone():
    backoff = Backoff(1.0)
    backoff.refused(now=100.0)
    backoff.attempted(now=110.0)
    backoff.failed()
    assert backoff.delay(now=110.5) == 0.5


class Draws:
    """Stands for ``random.uniform``: remembers what it was asked and answers a share of the way up."""

    def __init__(self, share=1.0):
        self.asked = []
        self._share = share

    def __call__(self, low, high):
        self.asked.append((low, high))
        return low + self._share * (high - low)


def test_with_a_maximum_interval_the_first_attempt_comes_at_once():
    assert Backoff(1.0, 30.0, Draws()).delay(now=100.0) == 0.0


def test_with_a_maximum_interval_waits_double_with_each_failure_up_to_it():
    draws = Draws()
    backoff = Backoff(1.0, 30.0, draws)
    backoff.attempted(now=0.0)
    waits = []
    for _ in range(8):
        waits.append(backoff.delay(now=0.0))
        backoff.failed()
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_with_a_maximum_interval_the_jitter_is_full():
    draws = Draws(share=0.0)
    backoff = Backoff(1.0, 30.0, draws)
    backoff.attempted(now=0.0)
    backoff.failed()
    backoff.failed()
    assert backoff.delay(now=0.0) == 0.0
    assert draws.asked == [(0.0, 4.0)]


def test_a_connection_that_opened_starts_the_backoff_anew():
    backoff = Backoff(1.0, 30.0, Draws())
    backoff.attempted(now=0.0)
    for _ in range(5):
        backoff.failed()
    backoff.succeeded()
    assert backoff.delay(now=0.0) == 1.0


def test_a_refusal_holds_whatever_the_jitter_says():
    backoff = Backoff(1.0, 30.0, Draws(share=0.0))
    backoff.attempted(now=100.0)
    backoff.refused(now=100.0)
    assert backoff.delay(now=100.0) == 10.0


def test_a_maximum_below_the_interval_bounds_the_first_wait_as_well():
    backoff = Backoff(10.0, 2.0, Draws())
    backoff.attempted(now=0.0)
    assert backoff.delay(now=0.0) == 2.0


def test_a_year_of_failures_overflows_nothing():
    backoff = Backoff(1.0, 30.0, Draws())
    backoff.attempted(now=0.0)
    for _ in range(20_000):
        backoff.failed()
    assert backoff.delay(now=0.0) == 30.0


def test_real_jitter_stays_within_its_bounds():
    backoff = Backoff(1.0, 4.0)
    backoff.attempted(now=0.0)
    for _ in range(4):
        backoff.failed()
    assert all(0.0 <= backoff.delay(now=0.0) <= 4.0 for _ in range(200))


def test_what_the_server_asks_for_is_the_least_wait_whatever_the_jitter_says():
    for backoff in (Backoff(1.0), Backoff(1.0, 30.0, Draws(share=0.0))):
        backoff.attempted(now=100.0)
        backoff.asked(now=100.0, seconds=7.0)
        assert backoff.delay(now=100.0) == 7.0
        assert backoff.delay(now=106.0) == 1.0


def test_of_what_the_server_asks_for_a_minute_is_heeded():
    backoff = Backoff(1.0)
    backoff.attempted(now=100.0)
    backoff.asked(now=100.0, seconds=86400.0)
    assert backoff.delay(now=100.0) == 60.0


def test_what_the_server_asks_for_shortens_no_longer_wait():
    backoff = Backoff(5.0)
    backoff.refused(now=100.0)
    backoff.asked(now=100.0, seconds=0.0)
    backoff.asked(now=100.0, seconds=3.0)
    assert backoff.delay(now=100.0) == 50.0


@given(
    st.lists(st.tuples(st.sampled_from(["attempted", "succeeded", "failed", "refused"]), st.floats(0, 100))),
    st.none() | st.floats(0.01, 100),
)
@settings(deadline=None, database=None)
def test_a_delay_is_never_negative(steps, max_interval):
    backoff, now = Backoff(1.0, max_interval), 0.0
    for name, passed in steps:
        now += passed
        getattr(backoff, name)(*([now] if name in ("attempted", "refused") else []))
        assert backoff.delay(now) >= 0.0


# Tolerance.
