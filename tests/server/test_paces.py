"""Which task types are believed to hold others up."""

import pytest

from oompa.server.paces import PATIENCE, WORTH, Paces


def test_nothing_is_known_of_a_type_at_first():
    paces = Paces()
    assert paces.of("ADD") is None


def test_type_is_measured_before_it_is_believed_to_wait():
    paces = Paces()
    paces.suspect("GET")
    assert paces.of("GET") is False
    paces.measured("GET", elapsed=2 * WORTH, computed=0.1 * WORTH)
    assert paces.of("GET") is True


def test_suspicion_takes_nothing_from_what_is_known():
    paces = Paces()
    paces.took_long("GET")
    paces.suspect("GET")
    assert paces.of("GET") is True


@pytest.mark.parametrize(
    "elapsed, computed, is_slow",
    [
        (0.5 * WORTH, 0.0, None),  # too short to pay for a hand-over
        (2 * WORTH, 0.9 * WORTH, True),
        (2 * WORTH, 1.1 * WORTH, None),  # it computes
        (PATIENCE, PATIENCE, True),  # it computes for too long
    ],
)
def test_what_was_measured_decides(elapsed, computed, is_slow):
    paces = Paces()
    paces.took_long("GET")
    paces.measured("GET", elapsed, computed)
    assert paces.of("GET") is is_slow
