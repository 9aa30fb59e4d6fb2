"""Tolerance, on a plain ``now``."""

import pytest

from oompa.client.tolerance import Tolerance


def settle(tolerance, answered=0, timed_out=0):
    for _ in range(answered):
        tolerance.settled(timed_out=False)
    for _ in range(timed_out):
        tolerance.settled(timed_out=True)


def test_tolerance_is_exceeded_when_more_than_the_ratio_timed_out():
    tolerance = Tolerance(0.05, 10.0, now=0.0)
    settle(tolerance, answered=94, timed_out=6)
    assert tolerance.exceeded(now=10.0)


def test_tolerance_is_not_exceeded_by_the_ratio_itself():
    tolerance = Tolerance(0.05, 10.0, now=0.0)
    settle(tolerance, answered=95, timed_out=5)
    assert not tolerance.exceeded(now=10.0)


def test_tolerance_decides_at_the_end_of_a_window_only():
    tolerance = Tolerance(0.05, 10.0, now=0.0)
    settle(tolerance, timed_out=5)
    assert not tolerance.exceeded(now=9.999)
    assert tolerance.exceeded(now=10.0)


def test_a_window_without_requests_exceeds_no_tolerance():
    assert not Tolerance(0.0, 10.0, now=0.0).exceeded(now=10.0)


def test_one_timeout_exceeds_a_ratio_of_zero():
    tolerance = Tolerance(0.0, 10.0, now=0.0)
    settle(tolerance, answered=1000, timed_out=1)
    assert tolerance.exceeded(now=10.0)


def test_nothing_exceeds_a_ratio_of_one():
    tolerance = Tolerance(1.0, 10.0, now=0.0)
    settle(tolerance, timed_out=1000)
    assert not tolerance.exceeded(now=10.0)


@pytest.mark.parametrize("first", [{"timed_out": 5}, {"answered": 5}])
def test_each_window_counts_anew(first):
    tolerance = Tolerance(0.5, 10.0, now=0.0)
    settle(tolerance, **first)
    tolerance.exceeded(now=10.0)
    settle(tolerance, answered=2, timed_out=1)
    assert not tolerance.exceeded(now=20.0)
    settle(tolerance, answered=1, timed_out=2)
    assert tolerance.exceeded(now=30.0)


def test_the_next_window_is_an_interval_long():
    tolerance = Tolerance(0.5, 10.0, now=5.0)
    assert tolerance.due == 15.0
    tolerance.exceeded(now=14.0)
    assert tolerance.due == 15.0
    tolerance.exceeded(now=16.0)
    assert tolerance.due == 26.0
