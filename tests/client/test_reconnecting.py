"""Decisions on a plain ``now``: refusals, backoff, tolerance and silence."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oompa.policy import BLAMING_CODES, Backoff, CloseCode, Heartbeat, Silence, Tolerance, is_refusal

NAMED_CODES = {
    "NORMAL_CLOSURE": 1000,
    "GOING_AWAY": 1001,
    "PROTOCOL_ERROR": 1002,
    "UNSUPPORTED_DATA": 1003,
    "NO_STATUS_RECEIVED": 1005,
    "ABNORMAL_CLOSURE": 1006,
    "INVALID_PAYLOAD_DATA": 1007,
    "POLICY_VIOLATION": 1008,
    "MESSAGE_TOO_BIG": 1009,
    "INTERNAL_ERROR": 1011,
    "SERVICE_RESTART": 1012,
    "TRY_AGAIN_LATER": 1013,
}


# Close codes and statuses.


@pytest.mark.parametrize("name, code", NAMED_CODES.items())
def test_close_codes_have_the_numbers_of_the_registry(name, code):
    assert CloseCode[name] == code


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009])
def test_a_code_that_names_a_fault_of_what_was_sent_blames_it(code):
    assert code in BLAMING_CODES


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 1010, 1011, 1012, 1013, 3000, 4000, 4999])
def test_no_other_code_blames_what_was_sent(code):
    assert code not in BLAMING_CODES


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 418, 426, 451, 499])
def test_a_client_error_is_a_refusal(status):
    assert is_refusal(status)


@pytest.mark.parametrize("status", [408, 425, 429])
def test_a_status_that_may_pass_on_its_own_is_no_refusal(status):
    assert not is_refusal(status)


@pytest.mark.parametrize("status", [None, 101, 200, 301, 302, 399, 500, 501, 502, 503, 504])
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


# Silence.


def test_a_peer_is_pinged_after_an_interval_of_silence():
    heartbeat = Heartbeat(25.0)
    assert heartbeat.check(now=124.9, heard_at=100.0) is Silence.WAIT
    assert heartbeat.check(now=125.0, heard_at=100.0) is Silence.PING


def test_a_peer_without_a_sign_of_life_by_the_next_ping_is_dead():
    heartbeat = Heartbeat(25.0)
    assert heartbeat.check(now=125.0, heard_at=100.0) is Silence.PING
    assert heartbeat.check(now=149.9, heard_at=100.0) is Silence.WAIT
    assert heartbeat.check(now=150.0, heard_at=100.0) is Silence.DEAD


def test_any_byte_after_the_ping_is_a_sign_of_life():
    heartbeat = Heartbeat(25.0)
    heartbeat.check(now=125.0, heard_at=100.0)
    assert heartbeat.check(now=150.0, heard_at=125.1) is Silence.WAIT
    assert heartbeat.check(now=150.1, heard_at=125.1) is Silence.PING


def test_a_byte_at_the_instant_of_the_ping_is_a_sign_of_life():
    heartbeat = Heartbeat(25.0)
    heartbeat.check(now=125.0, heard_at=100.0)
    assert heartbeat.check(now=150.0, heard_at=125.0) is Silence.PING


def test_a_peer_is_pinged_again_after_each_interval_of_silence():
    heartbeat, heard_at, pings = Heartbeat(10.0), 0.0, 0
    for now in range(0, 100, 10):
        verdict = heartbeat.check(float(now), heard_at)
        assert verdict is not Silence.DEAD
        if verdict is Silence.PING:
            pings, heard_at = pings + 1, now + 0.5
    assert pings == 5


def test_a_busy_peer_is_never_pinged():
    heartbeat = Heartbeat(25.0)
    assert all(heartbeat.check(float(now), heard_at=now - 24.9) is Silence.WAIT for now in range(100, 1000))


def test_a_late_check_still_leaves_the_peer_an_interval_to_answer_the_ping():
    heartbeat = Heartbeat(25.0)
    assert heartbeat.check(now=1000.0, heard_at=100.0) is Silence.PING
    assert heartbeat.check(now=1024.9, heard_at=100.0) is Silence.WAIT
    assert heartbeat.check(now=1025.0, heard_at=100.0) is Silence.DEAD


def test_without_an_interval_nobody_is_pinged_or_dead():
    heartbeat = Heartbeat(None)
    assert heartbeat.check(now=1e9, heard_at=0.0) is Silence.WAIT
    assert heartbeat.due(heard_at=0.0) == float("inf")


def test_the_next_check_is_due_when_its_verdict_can_change():
    heartbeat = Heartbeat(25.0)
    assert heartbeat.due(heard_at=100.0) == 125.0
    heartbeat.check(now=126.0, heard_at=100.0)
    assert heartbeat.due(heard_at=100.0) == 151.0
    assert heartbeat.due(heard_at=130.0) == 155.0


@given(st.lists(st.tuples(st.booleans(), st.floats(0.01, 30.0)), max_size=60))
@settings(deadline=None, database=None)
def test_a_dead_peer_was_silent_for_an_interval_before_and_after_a_ping(steps):
    heartbeat, now, heard_at, pinged_at = Heartbeat(10.0), 0.0, 0.0, None
    for speaks, passed in steps:
        now += passed
        if speaks:
            heard_at = now
        verdict = heartbeat.check(now, heard_at)
        if verdict is Silence.PING:
            assert now - heard_at >= 10.0
            pinged_at = now
        elif verdict is Silence.DEAD:
            assert pinged_at is not None
            assert heard_at < pinged_at <= now - 10.0 + 1e-9
            return
        else:
            assert now < heartbeat.due(heard_at)
