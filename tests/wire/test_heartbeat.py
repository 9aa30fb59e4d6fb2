"""Silence, on a plain ``now``."""

from hypothesis import given, settings
from hypothesis import strategies as st

from oompa.wire.heartbeat import Heartbeat, Silence


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


seconds = st.integers(1, 30 * 64).map(lambda count: count / 64)  # sums and differences of such floats are exact


@given(st.lists(st.tuples(st.booleans(), seconds), max_size=60))
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
            assert heard_at < pinged_at <= now - 10.0
            return
        else:
            assert now < heartbeat.due(heard_at)
