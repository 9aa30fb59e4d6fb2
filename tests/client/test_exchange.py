"""The client's pending requests on a plain ``now``: attempts, timeouts, reconnects, refusals, closing, tolerance."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from oompa.client.exchange import Ask, Exchange, Pending, Reconnect, Send, Settle
from oompa.client.tolerance import Tolerance
from oompa.errors import ClientClosed, ConnectionLost, RemoteError, RequestTimeout, TooManyPending
from oompa.wire.closing import CloseCode
from oompa.wire.codec import codec_named
from oompa.wire.messages import RequestWriter

NEVER = float("inf")


def text_of(id):
    return b'{"type":"ADD","id":"%b","payload":1}' % id.encode()


def pending(id, timeout=10.0, attempts=3):
    return Pending(id, text_of(id), timeout, attempts, future=f"future of {id}")


@pytest.fixture
def exchange():
    """An exchange whose connection is open."""
    exchange = Exchange(max_pending=1000)
    exchange.opened()
    return exchange


def dispatch(exchange, *ids, now=0.0, **options):
    requests = [pending(id, **options) for id in ids]
    for request in requests:
        exchange.dispatched(request, now)
    return requests if len(requests) > 1 else requests[0]


def sent(effects):
    return [effect.pending.id for effect in effects if isinstance(effect, Send)]


def settled(effects):
    return {effect.pending.id: type(effect.error) for effect in effects if isinstance(effect, Settle)}


def reconnects(effects):
    return [effect for effect in effects if isinstance(effect, Reconnect)]


# Requests and replies.


def test_a_request_is_sent_at_once_on_an_open_connection(exchange):
    assert exchange.dispatched(pending("a"), now=0.0) is True
    assert len(exchange) == 1


def test_a_request_waits_while_there_is_no_connection():
    exchange = Exchange(max_pending=10)
    assert exchange.dispatched(pending("a"), now=0.0) is False
    assert len(exchange) == 1


def test_a_request_that_waited_is_sent_when_the_connection_opens():
    exchange = Exchange(max_pending=10)
    requests = dispatch(exchange, "a", "b", "c")
    assert exchange.opened() == requests


def test_a_new_exchange_has_nothing_to_send():
    assert Exchange(max_pending=10).opened() == []


def test_a_reply_is_matched_by_its_id(exchange):
    first, second = dispatch(exchange, "a", "b")
    assert exchange.received("b") is second
    assert exchange.received("a") is first
    assert len(exchange) == 0


def test_the_machine_leaves_text_and_future_alone(exchange):
    request = dispatch(exchange, "a")
    assert exchange.received("a") is request
    assert (request.text, request.future) == (text_of("a"), "future of a")


def test_a_second_reply_to_a_request_is_dropped(exchange):
    dispatch(exchange, "a")
    exchange.received("a")
    assert exchange.received("a") is None
    assert exchange.find("a") is None


@pytest.mark.parametrize("id", ["unknown", None, 7, 1.5, True, [], {}, ["a"], {"a": 1}, ""])
def test_a_reply_that_nobody_waits_for_is_dropped_whatever_its_id(exchange, id):
    dispatch(exchange, "a")
    assert exchange.find(id) is None
    assert len(exchange) == 1


def test_a_reply_after_the_connection_is_lost_counts_still(exchange):
    request = dispatch(exchange, "a")
    exchange.lost(1006)
    assert exchange.received("a") is request
    assert exchange.opened() == []


def test_a_request_that_was_answered_has_no_deadline(exchange):
    dispatch(exchange, "a", attempts=1)
    exchange.received("a")
    assert exchange.due() == NEVER
    assert exchange.tick(now=100.0) == []


@pytest.mark.parametrize("id", ["a", "unknown", None, 7, True, [], {"a": 1}])
def test_looking_for_a_request_ends_nothing(exchange, id):
    request = dispatch(exchange, "a")
    assert exchange.find(id) is (request if id == "a" else None)
    assert exchange.waiting() == [request]


def test_a_request_that_has_settled_is_not_found(exchange):
    dispatch(exchange, "a")
    exchange.received("a")
    assert exchange.find("a") is None
    assert exchange.waiting() == []


# Too many.


def test_more_than_max_pending_requests_are_refused():
    exchange = Exchange(max_pending=2)
    dispatch(exchange, "a", "b")
    with pytest.raises(TooManyPending):
        exchange.dispatched(pending("c"), now=0.0)
    assert len(exchange) == 2


def test_a_request_that_was_refused_is_never_sent():
    exchange = Exchange(max_pending=1)
    request = dispatch(exchange, "a")
    with pytest.raises(TooManyPending):
        exchange.dispatched(pending("b"), now=0.0)
    assert exchange.opened() == [request]
    assert exchange.received("b") is None


@pytest.mark.parametrize(
    "settle",
    [
        lambda exchange: exchange.received("a"),
        lambda exchange: exchange.cancelled("a"),
        lambda exchange: exchange.tick(now=10.0),
    ],
    ids=["answered", "cancelled", "timed out"],
)
def test_a_request_that_settles_makes_room_for_another(settle):
    exchange = Exchange(max_pending=1)
    dispatch(exchange, "a", attempts=1)
    settle(exchange)
    dispatch(exchange, "b", now=10.0)
    assert len(exchange) == 1


# Attempts and timeouts.


def test_nothing_happens_before_a_deadline(exchange):
    dispatch(exchange, "a", timeout=10.0)
    assert exchange.due() == 10.0
    assert exchange.tick(now=9.999) == []


def test_an_attempt_that_times_out_is_followed_by_another_with_the_same_text(exchange):
    request = dispatch(exchange, "a", timeout=10.0)
    assert exchange.tick(now=10.0) == [Send(request)]
    assert (request.id, request.text, request.attempt) == ("a", text_of("a"), 2)


def test_after_the_last_attempt_a_request_fails_with_request_timeout(exchange):
    request = dispatch(exchange, "a", timeout=10.0, attempts=3)
    assert [sent(exchange.tick(now)) for now in (10.0, 20.0)] == [["a"], ["a"]]
    (effect,) = exchange.tick(now=30.0)
    assert effect.pending is request
    assert isinstance(effect.error, RequestTimeout)
    assert len(exchange) == 0
    assert exchange.tick(now=1000.0) == []


def test_the_timeout_error_names_the_request_and_its_attempts(exchange):
    dispatch(exchange, "a", timeout=2.0, attempts=3)
    dispatch(exchange, "b", timeout=6.0, attempts=1)
    for now in (2.0, 4.0):
        exchange.tick(now)
    errors = [str(effect.error) for effect in exchange.tick(now=6.0)]
    assert sorted(errors) == ["no reply to ADD (request a) within 3 × 2.0 s", "no reply to ADD (request b) within 6.0 s"]


def test_a_request_with_one_attempt_is_never_sent_again(exchange):
    dispatch(exchange, "a", timeout=10.0, attempts=1)
    effects = exchange.tick(now=10.0)
    assert sent(effects) == []
    assert settled(effects) == {"a": RequestTimeout}


def test_a_request_times_out_without_a_connection_as_well():
    exchange = Exchange(max_pending=10)
    dispatch(exchange, "a", timeout=10.0, attempts=3)
    assert [exchange.tick(now) for now in (10.0, 20.0)] == [[], []]
    assert settled(exchange.tick(now=30.0)) == {"a": RequestTimeout}
    assert exchange.opened() == []


def test_an_attempt_without_a_connection_counts_as_one():
    exchange = Exchange(max_pending=10)
    request = dispatch(exchange, "a", timeout=10.0, attempts=3)
    exchange.tick(now=10.0)
    assert request.attempt == 2
    exchange.opened()
    assert sent(exchange.tick(now=20.0)) == ["a"]
    assert settled(exchange.tick(now=30.0)) == {"a": RequestTimeout}


def test_attempts_do_not_drift_when_ticks_come_late(exchange):
    dispatch(exchange, "a", timeout=10.0, attempts=3)
    exchange.tick(now=10.9)
    assert exchange.due() == 20.0
    exchange.tick(now=20.9)
    assert exchange.due() == 30.0
    assert settled(exchange.tick(now=30.0)) == {"a": RequestTimeout}


def test_a_tick_that_comes_very_late_fails_the_request(exchange):
    dispatch(exchange, "a", timeout=10.0, attempts=3)
    assert settled(exchange.tick(now=1000.0)) == {"a": RequestTimeout}
    assert len(exchange) == 0


def test_a_reply_between_two_attempts_ends_them(exchange):
    request = dispatch(exchange, "a", timeout=10.0)
    exchange.tick(now=10.0)
    assert exchange.received("a") is request
    assert exchange.tick(now=20.0) == []


def test_a_reply_after_the_last_attempt_is_dropped(exchange):
    dispatch(exchange, "a", timeout=10.0, attempts=1)
    exchange.tick(now=10.0)
    assert exchange.received("a") is None


def test_each_request_has_its_own_timeout_shorter_or_longer(exchange):
    dispatch(exchange, "default", timeout=10.0, attempts=3)
    dispatch(exchange, "short", timeout=0.5, attempts=1)
    dispatch(exchange, "long", timeout=100.0, attempts=1)
    assert exchange.due() == 0.5
    assert settled(exchange.tick(now=0.5)) == {"short": RequestTimeout}
    assert exchange.due() == 10.0
    for now in (10.0, 20.0):
        assert sent(exchange.tick(now)) == ["default"]
    assert settled(exchange.tick(now=30.0)) == {"default": RequestTimeout}
    assert exchange.due() == 100.0
    assert settled(exchange.tick(now=100.0)) == {"long": RequestTimeout}
    assert exchange.due() == NEVER


def test_requests_end_their_attempts_in_the_order_of_their_deadlines(exchange):
    for number in range(5):
        dispatch(exchange, str(number), now=float(number), timeout=10.0)
    assert sent(exchange.tick(now=12.0)) == ["0", "1", "2"]
    assert exchange.due() == 13.0
    assert sent(exchange.tick(now=14.0)) == ["3", "4"]
    assert exchange.due() == 20.0


def test_a_deadline_is_found_among_many_requests_with_timeouts_of_their_own(exchange):
    for number in range(1, 31):
        dispatch(exchange, str(number), timeout=float(number), attempts=1)
    for number in range(1, 31):
        assert exchange.due() == float(number)
        assert settled(exchange.tick(now=float(number))) == {str(number): RequestTimeout}
    assert exchange.due() == NEVER


@pytest.mark.parametrize("attempts", [1, 2])
def test_many_timeouts_that_end_in_one_tick_all_end(exchange, attempts):
    ids = [str(number) for number in range(1, 31)]
    for id in ids:
        dispatch(exchange, id, timeout=float(id), attempts=attempts)
    assert settled(exchange.tick(now=60.0)) == dict.fromkeys(ids, RequestTimeout)
    assert len(exchange) == 0


def test_nothing_of_a_request_stays_when_it_has_settled(exchange):
    for number in range(200):
        dispatch(exchange, "a", now=float(number), timeout=50.0 + number, attempts=1)
        exchange.received("a")
        dispatch(exchange, "b", now=float(number), timeout=0.25 + 1 / (number + 1), attempts=1)
        exchange.cancelled("b")
    assert len(exchange) == 0
    assert sum(len(lane) for lane in exchange._lanes.values()) == 0
    assert len(exchange._lanes) < 20


# Cancelling.


def test_a_cancelled_request_is_forgotten(exchange):
    dispatch(exchange, "a", "b")
    assert exchange.cancelled("a").id == "a"
    assert len(exchange) == 1
    assert exchange.received("a") is None
    assert sent(exchange.tick(now=10.0)) == ["b"]


def test_a_cancelled_request_is_not_sent_again_after_a_reconnect(exchange):
    _, kept = dispatch(exchange, "a", "b")
    exchange.lost(1006)
    exchange.cancelled("a")
    assert exchange.opened() == [kept]


def test_cancelling_what_is_not_pending_is_no_error_and_says_so(exchange):
    assert exchange.cancelled("never there") is None
    dispatch(exchange, "answered", "cancelled")
    dispatch(exchange, "timed out", timeout=1.0, attempts=1)
    exchange.received("answered")
    exchange.cancelled("cancelled")
    exchange.tick(now=1.0)
    assert [exchange.cancelled(id) for id in ("answered", "cancelled", "timed out")] == [None] * 3


# Losing a connection.


def test_reopened_exchange_resends_pending(exchange):
    requests = dispatch(exchange, "a", "b", "c")
    assert exchange.lost(1006) == []
    assert exchange.opened() == requests


def test_after_a_reconnect_the_oldest_request_is_sent_first(exchange):
    first, second = dispatch(exchange, "a", "b", timeout=10.0)
    exchange.tick(now=10.0)
    exchange.received("b")
    third = dispatch(exchange, "c", now=11.0)
    exchange.lost(1006)
    assert exchange.opened() == [first, third]
    assert second not in exchange.opened()


def test_what_has_settled_is_never_sent_again(exchange):
    dispatch(exchange, "answered", "cancelled")
    dispatch(exchange, "timed out", timeout=5.0, attempts=1)
    kept = dispatch(exchange, "kept")
    exchange.received("answered")
    exchange.cancelled("cancelled")
    exchange.tick(now=5.0)
    exchange.lost(1000)
    assert exchange.opened() == [kept]


def test_a_reconnect_starts_no_attempt_and_moves_no_deadline(exchange):
    request = dispatch(exchange, "a", timeout=10.0, attempts=2)
    exchange.lost(1006)
    exchange.opened()
    assert (request.attempt, exchange.due()) == (1, 10.0)
    exchange.tick(now=10.0)
    exchange.lost(1006)
    exchange.opened()
    assert settled(exchange.tick(now=20.0)) == {"a": RequestTimeout}


def test_after_a_loss_nothing_is_sent_until_the_connection_is_back(exchange):
    dispatch(exchange, "a", timeout=10.0)
    exchange.lost(1006)
    assert exchange.tick(now=10.0) == []
    assert exchange.dispatched(pending("b"), now=10.0) is False


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 1010, 1011, 1012, 1013, 3000, 4000, 4999])
def test_a_close_code_that_blames_nobody_fails_nothing(exchange, code):
    request = dispatch(exchange, "a")
    assert exchange.lost(code) == []
    assert exchange.opened() == [request]


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009])
def test_a_close_code_that_blames_what_was_sent_fails_what_was_in_flight(exchange, code):
    requests = dispatch(exchange, "a", "b")
    effects = exchange.lost(code, "no such thing")
    assert [effect.pending for effect in effects] == requests
    assert settled(effects) == {"a": ConnectionLost, "b": ConnectionLost}
    assert {(effect.error.code, effect.error.status) for effect in effects} == {(code, None)}
    assert all(str(code) in str(effect.error) and "no such thing" in str(effect.error) for effect in effects)
    assert len(exchange) == 0
    assert exchange.opened() == []


def test_a_code_given_as_an_enum_reads_as_its_number(exchange):
    dispatch(exchange, "a")
    (effect,) = exchange.lost(CloseCode.MESSAGE_TOO_BIG)
    assert str(effect.error) == "the connection was closed with 1009"


def test_what_the_lost_connection_never_carried_is_not_blamed():
    exchange = Exchange(max_pending=10)
    exchange.opened()
    dispatch(exchange, "in flight")
    exchange.lost(1006)
    waiting = dispatch(exchange, "waiting")
    assert exchange.lost(1009) == []
    assert [request.id for request in exchange.opened()] == ["in flight", "waiting"]
    exchange.received("in flight")
    assert settled(exchange.lost(1009)) == {waiting.id: ConnectionLost}


def test_a_request_whose_attempt_began_without_a_connection_is_not_blamed_for_its_loss(exchange):
    dispatch(exchange, "a", timeout=10.0)
    exchange.lost(1006)
    exchange.tick(now=10.0)
    assert exchange.lost(1002) == []
    assert len(exchange) == 1


def test_what_was_answered_before_the_loss_is_not_blamed(exchange):
    dispatch(exchange, "answered", "in flight")
    exchange.received("answered")
    assert settled(exchange.lost(1009)) == {"in flight": ConnectionLost}


# Refusals and closing.


def test_a_refused_handshake_fails_everything_pending():
    exchange = Exchange(max_pending=10)
    dispatch(exchange, "a", "b")
    error = ConnectionLost("no", status=403)
    effects = exchange.failed(error, is_refusal=True)
    assert [effect.pending.id for effect in effects] == ["a", "b"]
    assert [(str(effect.error), effect.error.status) for effect in effects] == [("no", 403)] * 2
    assert len({id(effect.error) for effect in effects}) == 2, "an error belongs to one call"
    assert len(exchange) == 0


def test_a_refused_exchange_goes_on(exchange):
    exchange.lost(1006)
    exchange.failed(ConnectionLost("no", status=403), is_refusal=True)
    request = dispatch(exchange, "a")
    assert exchange.opened() == [request]


def test_a_call_made_while_a_refusal_stands_fails_at_once_with_it():
    """Case 49."""
    exchange = Exchange(max_pending=10)
    exchange.failed(ConnectionLost("no", status=403), is_refusal=True)
    request = dispatch(exchange, "late")
    effects = exchange.unsent(request)
    assert [(effect.pending.id, str(effect.error), effect.error.status) for effect in effects] == [("late", "no", 403)]
    assert len(exchange) == 0


@pytest.mark.parametrize("after", ["opened", "failed otherwise"])
def test_a_refusal_stands_until_an_attempt_ends_otherwise(after):
    exchange = Exchange(max_pending=10)
    exchange.failed(ConnectionLost("no", status=403), is_refusal=True)
    exchange.began("ws://a:1")
    assert len(exchange.unsent(dispatch(exchange, "early"))) == 1
    exchange.opened() if after == "opened" else exchange.failed(ConnectionLost("nobody there"))
    assert exchange.unsent(dispatch(exchange, "late")) == []
    assert len(exchange) == 1


def test_a_call_that_has_settled_meanwhile_is_not_failed_again():
    exchange = Exchange(max_pending=10)
    request = dispatch(exchange, "a")
    assert len(exchange.failed(ConnectionLost("no", status=403), is_refusal=True)) == 1
    assert exchange.unsent(request) == []


# Why there is no connection: cases 14 and 48.


def timed_out(exchange):
    """What a request fails with that is made now and never answered."""
    dispatch(exchange, "a", timeout=1.0, attempts=1)
    (effect,) = exchange.tick(now=1.0)
    return effect.error


def test_a_request_that_times_out_without_a_connection_says_why_and_chains_it():
    exchange = Exchange(max_pending=10)
    exchange.began("ws://a:1")
    reason = ConnectionLost("nobody there", status=503)
    reason.__cause__ = OSError("the kernel's")
    exchange.failed(reason)
    error = timed_out(exchange)
    assert str(error) == "no reply to ADD (request a) within 1.0 s; there is no connection: nobody there"
    assert (type(error.__cause__), error.__cause__.status) == (ConnectionLost, 503)
    assert error.__cause__ is not reason, "one of its own"
    assert error.__cause__.__cause__ is reason.__cause__


def test_a_request_that_times_out_before_anything_was_tried_says_that():
    exchange = Exchange(max_pending=10)
    assert "has not been started: call client.start()" in str(timed_out(exchange))


def test_a_request_that_times_out_while_connecting_says_where_to():
    exchange = Exchange(max_pending=10)
    exchange.began("ws://a:1")
    error = timed_out(exchange)
    assert "still connecting to ws://a:1" in str(error) and "still connecting" in str(error.__cause__)


def test_what_the_last_attempt_failed_with_is_the_reason_while_the_next_one_runs():
    exchange = Exchange(max_pending=10)
    exchange.failed(ConnectionLost("nobody there"))
    exchange.began("ws://a:1")
    assert "nobody there" in str(timed_out(exchange))


def test_a_request_that_times_out_after_the_connection_was_lost_says_how_it_was(exchange):
    exchange.lost(1006, "gone\nforged line")
    error = timed_out(exchange)
    assert str(error).endswith("there is no connection: the connection was closed with 1006 gone\\nforged line")


def test_a_request_that_times_out_on_an_open_connection_has_no_such_reason(exchange):
    exchange.lost(1006)
    exchange.opened()
    error = timed_out(exchange)
    assert str(error) == "no reply to ADD (request a) within 1.0 s" and error.__cause__ is None


@pytest.mark.parametrize(
    "type, shown",
    [("ADD", "ADD"), ('a "b"', 'a "b"'), ("line\nforged", "line\\nforged"), ("ü", "ü"), ("X" * 5000, "a request")],
)
def test_a_request_is_called_by_its_task_type_and_id(type, shown):
    """Case 51."""
    text = RequestWriter(codec_named("json")).write(type, "id1", 5)
    assert str(Pending("id1", text, 1.0, 1)) == f"{shown} (request id1)"


def test_closing_fails_everything_pending(exchange):
    dispatch(exchange, "a", "b")
    effects = exchange.closed()
    assert settled(effects) == {"a": ClientClosed, "b": ClientClosed}
    assert len(exchange) == 0
    assert exchange.due() == NEVER


def test_a_closed_exchange_sends_nothing_more(exchange):
    exchange.closed()
    assert exchange.dispatched(pending("late"), now=0.0) is False
    assert sent(exchange.tick(now=10.0)) == []


def test_closing_again_fails_nothing_again(exchange):
    dispatch(exchange, "a")
    exchange.closed()
    assert exchange.closed() == []
    assert exchange.lost(1009) == []
    assert exchange.tick(now=1000.0) == []


# Tolerance.


def tolerant(ratio=0.5, interval=10.0):
    exchange = Exchange(max_pending=1000, tolerance=Tolerance(ratio, interval, now=0.0))
    exchange.opened()
    return exchange


def test_too_many_timeouts_in_a_window_ask_for_a_reconnect():
    exchange = tolerant(ratio=0.5)
    dispatch(exchange, "a", "b", timeout=1.0, attempts=1)
    dispatch(exchange, "c")
    exchange.received("c")
    exchange.tick(now=1.0)
    assert reconnects(exchange.tick(now=9.0)) == []
    assert len(reconnects(exchange.tick(now=10.0))) == 1
    assert reconnects(exchange.tick(now=20.0)) == []


def test_as_many_timeouts_as_tolerance_allows_ask_for_nothing():
    exchange = tolerant(ratio=0.5)
    dispatch(exchange, "a", timeout=1.0, attempts=1)
    dispatch(exchange, "b")
    exchange.received("b")
    exchange.tick(now=1.0)
    assert exchange.tick(now=10.0) == []


def test_a_request_counts_once_whatever_its_attempts():
    exchange = tolerant(ratio=0.5, interval=100.0)
    dispatch(exchange, "a", timeout=1.0, attempts=50)
    dispatch(exchange, "b", timeout=60.0)
    for now in range(1, 51):
        exchange.tick(float(now))
    exchange.received("b")
    assert exchange.tick(now=100.0) == []


def test_an_attempt_that_timed_out_is_no_timeout_of_the_request():
    exchange = tolerant(ratio=0.0, interval=10.0)
    dispatch(exchange, "a", timeout=1.0, attempts=50)
    exchange.tick(now=5.0)
    exchange.received("a")
    assert reconnects(exchange.tick(now=10.0)) == []


def test_a_request_counts_in_the_window_in_which_it_settles():
    exchange = tolerant(ratio=0.0, interval=10.0)
    dispatch(exchange, "a", now=9.0, timeout=5.0, attempts=1)
    assert reconnects(exchange.tick(now=10.0)) == []
    assert reconnects(exchange.tick(now=14.0)) == []
    assert len(reconnects(exchange.tick(now=20.0))) == 1


def test_a_timeout_at_the_end_of_a_window_counts_in_it():
    exchange = tolerant(ratio=0.0, interval=10.0)
    dispatch(exchange, "a", timeout=10.0, attempts=1)
    effects = exchange.tick(now=10.0)
    assert settled(effects) == {"a": RequestTimeout}
    assert len(reconnects(effects)) == 1


def test_requests_that_failed_for_another_reason_are_no_timeouts():
    exchange = tolerant(ratio=0.0, interval=10.0)
    dispatch(exchange, "a", "b")
    exchange.lost(1009)
    exchange.opened()
    assert reconnects(exchange.tick(now=10.0)) == []


def test_requests_that_failed_for_another_reason_count_as_requests():
    exchange = tolerant(ratio=0.5, interval=10.0)
    dispatch(exchange, "a", "b")
    exchange.lost(1009)
    exchange.opened()
    dispatch(exchange, "c", "d", timeout=1.0, attempts=1)
    exchange.tick(now=1.0)
    assert reconnects(exchange.tick(now=10.0)) == []


def test_without_a_connection_there_is_nothing_to_leave():
    exchange = tolerant(ratio=0.0, interval=10.0)
    exchange.lost(1006)
    dispatch(exchange, "a", timeout=1.0, attempts=1)
    exchange.tick(now=1.0)
    assert exchange.tick(now=10.0) == []
    exchange.opened()
    assert exchange.tick(now=20.0) == []


def test_without_tolerance_timeouts_ask_for_nothing(exchange):
    dispatch(exchange, "a", "b", timeout=1.0, attempts=1)
    effects = exchange.tick(now=1000.0)
    assert len(settled(effects)) == 2
    assert reconnects(effects) == []


def test_the_end_of_a_window_is_due_like_a_deadline():
    exchange = tolerant(interval=10.0)
    assert exchange.due() == 10.0
    dispatch(exchange, "a", timeout=3.0)
    assert exchange.due() == 3.0
    exchange.tick(now=3.0)
    exchange.received("a")
    exchange.tick(now=10.0)
    assert exchange.due() == 20.0


# Everything at once.


# What is sent again because the server asks for it.


def later(seconds):
    return RemoteError("full", {"code": "unavailable", "retry_after": seconds})


@pytest.fixture
def exact():
    """An open exchange that draws the middle of any range."""
    exchange = Exchange(1000, draw=lambda low, high: (low + high) / 2)
    exchange.opened(0.0)
    return exchange


def test_a_postponed_request_is_sent_again_when_the_server_said_and_no_attempt_is_counted(exact):
    request = dispatch(exact, "a", timeout=10.0, attempts=1)
    assert exact.postponed(request, later(4.0), now=1.0) is True
    assert exact.due() == 5.0
    assert exact.tick(4.9) == []
    assert exact.tick(5.0) == [Send(request)]
    assert request.attempt == 1 and exact.due() == 10.0


def test_the_wait_is_drawn_within_a_fifth_of_what_the_server_said(exact):
    ranges = []
    exchange = Exchange(1000, draw=lambda low, high: ranges.append((low, high)) or high)
    exchange.opened()
    exchange.postponed(dispatch(exchange, "a"), later(5.0), now=0.0)
    assert ranges == [(0.8, 1.2)] and exchange.due() == 6.0


def test_a_request_whose_time_does_not_last_so_long_is_not_postponed(exact):
    request = dispatch(exact, "a", timeout=10.0, attempts=2)
    assert exact.postponed(request, later(20.0), now=0.0) is False
    assert exact.postponed(request, later(19.0), now=0.0) is True


def test_a_postponed_request_is_not_sent_when_an_attempt_ends_nor_when_the_connection_is_back(exact):
    request = dispatch(exact, "a", timeout=10.0, attempts=3)
    exact.postponed(request, later(25.0), now=0.0)
    assert exact.tick(10.0) == []
    exact.lost(1006)
    assert exact.opened(11.0) == []
    assert exact.tick(20.0) == []
    assert exact.tick(25.0) == [Send(request)]


def test_a_request_that_was_postponed_without_a_connection_is_sent_when_there_is_one(exact):
    request = dispatch(exact, "a")
    exact.postponed(request, later(1.0), now=0.0)
    exact.lost(1006)
    assert exact.tick(1.0) == []
    assert exact.opened(2.0) == [request]


def test_a_postponed_request_whose_time_is_over_fails_with_what_the_server_said(exact):
    request, error = dispatch(exact, "a", timeout=10.0, attempts=1), later(5.0)
    exact.postponed(request, error, now=0.0)
    assert exact.tick(100.0) == [Settle(request, error)]  # the process has slept
    assert exact.tick(101.0) == []


def test_a_server_that_says_at_once_is_not_asked_without_end(exact):
    exact.postponed(dispatch(exact, "a"), later(1e-9), now=1.0)
    assert exact.due() == 1.01


@pytest.mark.parametrize("end", ["received", "cancelled"])
def test_a_postponed_request_that_has_settled_is_never_sent(exact, end):
    exact.postponed(dispatch(exact, "a"), later(1.0), now=0.0)
    getattr(exact, end)("a")
    assert exact.tick(1.0) == [] and exact.due() == NEVER


# At most once.


def once_only(exchange, **options):
    request = pending("once", **options)
    request.resend = False
    exchange.dispatched(request, 0.0)
    return request


def test_what_may_not_be_sent_twice_fails_with_the_connection(exchange):
    request = once_only(exchange)
    other = dispatch(exchange, "a")
    assert settled(exchange.lost(1006)) == {"once": ConnectionLost}
    assert exchange.opened() == [other] and request.resend is False


def test_what_may_not_be_sent_twice_fails_when_its_attempt_ends(exchange):
    once_only(exchange, timeout=10.0, attempts=3)
    [effect] = exchange.tick(10.0)
    assert str(effect.error).endswith("within 10.0 s") and isinstance(effect.error, RequestTimeout)


def test_what_may_not_be_sent_twice_waits_for_the_connection_that_sends_it():
    exchange = Exchange(1000)
    request = once_only(exchange, timeout=10.0, attempts=3)
    assert exchange.tick(10.0) == []
    assert exchange.opened() == [request]
    assert settled(exchange.lost(1006)) == {"once": ConnectionLost}


def test_what_may_not_be_sent_twice_is_sent_again_where_nothing_has_run(exact):
    request = once_only(exact)
    exact.postponed(request, later(1.0), now=0.0)
    assert exact.lost(1006) == []
    exact.opened(0.5)
    assert exact.tick(1.0) == [Send(request)]
    assert settled(exact.lost(1006)) == {"once": ConnectionLost}


# Silence.


def test_an_attempt_that_ends_in_silence_asks_whether_the_connection_lives():
    """Case 34."""
    exchange = Exchange(1000, answer_time=2.0)
    exchange.opened()
    request = dispatch(exchange, "a", now=5.0, timeout=20.0)
    assert exchange.tick(25.0, heard_at=5.0) == [Ask(), Send(request)]
    assert exchange.due() == 27.0
    assert exchange.tick(26.9, heard_at=5.0) == []
    assert len(reconnects(exchange.tick(27.0, heard_at=5.0))) == 1
    assert exchange.tick(28.0, heard_at=5.0) == []


def test_a_sign_of_life_keeps_the_connection(exchange):
    dispatch(exchange, "a", timeout=2.0)
    assert Ask() in exchange.tick(2.0, heard_at=0.0)
    assert reconnects(exchange.tick(3.0, heard_at=2.5)) == []


def test_whoever_has_said_something_meanwhile_is_not_asked(exchange):
    dispatch(exchange, "a", now=5.0)
    assert Ask() not in exchange.tick(15.0, heard_at=5.001)


def test_a_connection_is_asked_once_at_a_time_and_not_for_the_silence_of_another(exchange):
    dispatch(exchange, "a", "b", now=5.0)
    assert exchange.tick(15.0, heard_at=5.0).count(Ask()) == 1
    exchange.lost(1006)
    exchange.opened(15.5)
    assert exchange.tick(16.0, heard_at=15.6) == []


def test_the_last_attempt_asks_as_well_and_one_without_a_connection_does_not(exchange):
    dispatch(exchange, "a", timeout=2.0, attempts=1)
    assert exchange.tick(2.0, heard_at=0.0)[0] == Ask()
    exchange.lost(1006)
    dispatch(exchange, "b", now=3.0, timeout=2.0)
    assert exchange.tick(5.0, heard_at=0.0) == []


def test_calls_with_a_timeout_of_their_own_tell_tolerance_nothing():
    """Case 33."""
    exchange = tolerant(ratio=0.05)
    for number in range(10):
        request = pending(f"own {number}", timeout=0.5, attempts=1)
        request.is_tolerated = True
        exchange.dispatched(request, 0.0)
    for number in range(10):
        dispatch(exchange, f"id {number}")
        exchange.received(f"id {number}")
    assert reconnects(exchange.tick(10.0)) == []
    request = pending("counted", timeout=0.5, attempts=1)
    exchange.dispatched(request, 10.0)
    for number in range(100):
        answered = pending(f"answered {number}")
        answered.is_tolerated = True
        exchange.dispatched(answered, 10.0)
        exchange.received(answered.id)
    assert len(reconnects(exchange.tick(20.0))) == 1


class ExchangeMachine(RuleBasedStateMachine):
    """Any history, with a driver that ticks when ``due`` says so and not otherwise."""

    max_pending = 14

    def __init__(self):
        super().__init__()
        self.exchange = Exchange(self.max_pending, Tolerance(0.3, 7.0, now=0.0))
        self.now = 0.0
        self.count = 0
        self.is_open = False
        self.waiting = {}  # every request that has not settled, by id, in the order of dispatch
        self.deadlines = {}
        self.in_flight = set()

    @rule(timeouts=st.lists(st.integers(1, 14), min_size=10, unique=True), attempts=st.integers(1, 2))
    def dispatch_many(self, timeouts, attempts):
        for timeout in timeouts:
            self.dispatch(timeout, attempts)

    @rule(timeout=st.sampled_from([0.25, 0.5, 1, 5, 10]), attempts=st.integers(1, 3))
    def dispatch(self, timeout, attempts):
        self.count += 1
        request = pending(f"id {self.count}", float(timeout), attempts)
        if len(self.waiting) == self.max_pending:
            with pytest.raises(TooManyPending):
                self.exchange.dispatched(request, self.now)
            return
        assert self.exchange.dispatched(request, self.now) is self.is_open
        self.waiting[request.id] = request
        self.deadlines[request.id] = self.now + timeout * attempts
        if self.is_open:
            self.in_flight.add(request.id)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def receive(self, data):
        id = data.draw(st.sampled_from(list(self.waiting)))
        assert self.exchange.received(id) is self.forget(id)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data):
        id = data.draw(st.sampled_from(list(self.waiting)))
        assert self.exchange.cancelled(id)
        self.forget(id)

    @rule(number=st.integers(0, 60))
    def receive_a_late_reply(self, number):
        if f"id {number}" not in self.waiting:
            assert self.exchange.received(f"id {number}") is None
            assert not self.exchange.cancelled(f"id {number}")

    @precondition(lambda self: not self.is_open)
    @rule()
    def open(self):
        self.is_open = True
        assert self.exchange.opened() == list(self.waiting.values())
        self.in_flight = set(self.waiting)

    @precondition(lambda self: self.is_open)
    @rule(code=st.sampled_from([1000, 1001, 1006, 1002, 1008, 1009]))
    def lose(self, code):
        self.is_open = False
        failed = [id for id in self.waiting if id in self.in_flight] if code in (1002, 1008, 1009) else []
        effects = self.exchange.lost(code)
        assert [effect.pending for effect in effects] == [self.forget(id) for id in failed]
        assert all(isinstance(effect.error, ConnectionLost) for effect in effects)
        self.in_flight = set()

    @precondition(lambda self: not self.is_open)
    @rule()
    def refuse(self):
        effects = self.exchange.failed(ConnectionLost("no", status=403), is_refusal=True)
        assert [effect.pending for effect in effects] == [self.forget(id) for id in list(self.waiting)]
        assert all(isinstance(effect, Settle) and effect.error.status == 403 for effect in effects)

    @rule(passed=st.sampled_from([0.25, 0.5, 1.0, 3.0, 8.0]))
    def pass_time(self, passed):
        target = self.now + passed
        while (due := self.exchange.due()) <= target:
            assert due > self.now, "a tick leaves nothing due behind"
            self.now = due
            self.tick()
        self.now = target

    def tick(self):
        for effect in self.exchange.tick(self.now):
            if isinstance(effect, Send):
                assert self.is_open
                assert self.waiting[effect.pending.id] is effect.pending
                assert 1 < effect.pending.attempt <= effect.pending.attempts
                self.in_flight.add(effect.pending.id)
            elif isinstance(effect, Settle):
                assert isinstance(effect.error, RequestTimeout)
                assert effect.pending.attempt == effect.pending.attempts
                assert self.deadlines[effect.pending.id] == self.now
                assert self.forget(effect.pending.id) is effect.pending
            else:
                assert isinstance(effect, Reconnect) and self.is_open

    def forget(self, id):
        self.in_flight.discard(id)
        return self.waiting.pop(id)

    @invariant()
    def nothing_is_lost_or_overdue(self):
        assert len(self.exchange) == len(self.waiting) <= self.max_pending
        assert all(self.deadlines[id] > self.now for id in self.waiting)

    def teardown(self):
        effects = self.exchange.closed()
        assert settled(effects) == dict.fromkeys(self.waiting, ClientClosed)
        assert len(self.exchange) == 0


TestAnyHistory = ExchangeMachine.TestCase
TestAnyHistory.settings = settings(max_examples=100, stateful_step_count=60, deadline=None, database=None)
