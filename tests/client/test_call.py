"""The Future of a dispatch: settling once, waiting, cancelling, callbacks, and its use by concurrent.futures and asyncio."""

import asyncio
import concurrent.futures
import gc
import threading
import time
import weakref
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION, InvalidStateError, as_completed, wait

import pytest

from oompa.client import call as module
from oompa.client.call import AwaitedCall, Call, release
from oompa.errors import ClientClosed, RemoteError, RequestTimeout

CEILING = 10.0  # seconds until a wait counts as failed


class Driver:
    """A client as a call sees it: its exchange, its callback thread, and how it waits."""

    def __init__(self):
        self.forgotten = []
        self.waited = []
        self.later = []
        self.on_wait = None
        self.is_forked = False

    def wait_for(self, call, timeout):
        self.waited.append(timeout)
        if self.on_wait is not None:
            self.on_wait(call)

    def forget(self, call):
        self.forgotten.append(call)

    def run_later(self, function, *args):
        self.later.append((function, args))

    def run_undisturbed(self, function):
        function()

    def check_owned(self):
        if self.is_forked:
            raise ClientClosed("this client belongs to the process that made it")

    def run(self):
        """Do what a callback thread does."""
        while self.later:
            function, args = self.later.pop(0)
            function(*args)


def wait_until(condition):
    deadline, pause = time.monotonic() + CEILING, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        pause.wait(0.001)


@pytest.fixture
def driver():
    return Driver()


def asleep():
    waker = threading.Lock()
    waker.acquire()
    return waker


@pytest.fixture
def call(driver):
    return Call(driver, "id-1", "ADD")


# Settling.


def test_a_call_has_the_id_and_the_type_of_its_request(call):
    assert (call.id, call.type) == ("id-1", "ADD")


def test_a_call_is_a_future(call):
    assert isinstance(call, concurrent.futures.Future)
    assert not call.done()
    assert not call.is_settled
    assert not call.cancelled()


@pytest.mark.parametrize("payload", [7, None, False, {"x": [1]}])
def test_a_settled_call_returns_the_payload(call, driver, payload):
    call.settle(payload)
    assert call.result() is payload
    assert call.result(0) is payload
    assert call.exception() is None
    assert call.done()
    assert call.is_settled
    assert not call.running()
    assert not call.cancelled()
    assert driver.waited == []


def test_a_settled_call_raises_its_error(call):
    error = RemoteError("Error: Zero div")
    call.settle(error=error)
    with pytest.raises(RemoteError) as raised:
        call.result()
    assert raised.value is error
    assert call.exception() is error
    assert call.done()


def test_a_call_shows_its_state(call):
    assert "pending" in repr(call)
    call.settle(7)
    assert "finished returned int" in repr(call)


def test_a_call_settles_once(call):
    assert call.settle(7)
    assert not call.settle(8)
    assert not call.settle(error=RequestTimeout("too late"))
    assert call.result() == 7
    assert call.exception() is None


def test_a_call_that_many_threads_settle_at_once_settles_in_one_way(driver):
    ways = {
        "payload": lambda call: call.settle(7),
        "other": lambda call: call.settle(8),
        "error": lambda call: call.settle(error=RequestTimeout("too late")),
        "cancelled": lambda call: call.cancel(),
    }
    for round in range(100):
        call, seen = Call(driver, "id", "ADD"), []
        if round % 2:
            call.add_done_callback(seen.append)
        barrier, won = threading.Barrier(4), []

        def finish(how, name):
            barrier.wait(CEILING)
            if how(call):
                won.append(name)

        threads = [threading.Thread(target=finish, args=(how, name)) for name, how in ways.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(CEILING)
        driver.run()
        (winner,) = won
        assert call.cancelled() == (winner == "cancelled")
        if winner == "error":
            assert isinstance(call.exception(0), RequestTimeout)
        elif winner != "cancelled":
            assert call.result(0) == {"payload": 7, "other": 8}[winner]
        assert seen == ([call] if round % 2 else [])


def test_settling_again_tells_those_whom_an_interruption_has_kept_in_the_dark(call, driver):
    """A signal handler may raise on any line of the main thread: the next one to settle goes on."""
    seen, waker, run_later = [], asleep(), driver.run_later
    call.add_waker(waker)
    for name in ("first", "second"):
        call.add_done_callback(lambda done, name=name: seen.append(name))

    def interrupt(function, *args):
        driver.run_later = run_later
        raise KeyboardInterrupt

    driver.run_later = interrupt
    with pytest.raises(KeyboardInterrupt):
        call.settle(7)
    assert not call.settle(8)
    driver.run()
    assert call.result(0) == 7
    assert seen == ["first", "second"]
    assert waker.acquire(blocking=False)


def test_what_comes_after_settling_is_run_where_no_signal_interrupts(call, driver):
    seen, left = [], []
    driver.run_undisturbed = left.append
    waiting = threading.Thread(target=lambda: seen.append(wait([call], CEILING).done), daemon=True)
    waiting.start()
    wait_until(lambda: call._waiters)
    call.add_done_callback(lambda done: seen.append("callback"))
    assert call.settle(7)
    assert not call.settle(8)
    driver.run()
    assert (seen, len(left)) == ([], 2)
    for each in left:  # the second finds nothing left to do
        each()
    waiting.join(CEILING)
    driver.run()
    assert seen in ([{call}, "callback"], ["callback", {call}])


def test_a_thread_that_settles_goes_on_without_a_lock_that_an_interrupt_has_left_taken(call, driver, monkeypatch):
    """Ctrl-C in ``wait`` of concurrent.futures may keep the conditions it has acquired, for ever."""
    monkeypatch.setattr(module, "_PATIENCE", 0.01)
    seen = []
    call.add_done_callback(seen.append)
    with call._condition:
        settling = threading.Thread(target=call.settle, args=(7,), daemon=True)
        settling.start()
        settling.join(CEILING)
        assert call.is_settled
    driver.run()
    assert seen == [call]


@pytest.mark.parametrize("is_done", [False, True])
def test_nobody_but_the_client_sets_the_outcome_of_a_call(call, is_done):
    if is_done:
        call.settle(7)
    for use in (lambda: call.set_result(3), lambda: call.set_exception(ValueError()), call.set_running_or_notify_cancel):
        with pytest.raises(InvalidStateError, match="ADD"):
            use()
    assert call.done() is is_done
    assert call.running() is False


@pytest.mark.parametrize(("timeout", "error"), [(float("nan"), ValueError), ("1", TypeError)])
@pytest.mark.parametrize("ask", [Call.result, Call.exception])
def test_a_timeout_that_is_no_number_is_refused(call, driver, ask, timeout, error):
    with pytest.raises(error, match="timeout must be a number of seconds or None"):
        ask(call, timeout)
    assert driver.waited == []


@pytest.mark.parametrize("is_waited_for", [True, False])
def test_a_signal_handler_may_settle_a_call_that_its_thread_is_about_to_settle(call, is_waited_for):
    """It interrupts a thread that holds a lock of the call, and needs the lock itself."""
    if is_waited_for:
        call.add_done_callback(print)

    def settle():
        with call._condition if is_waited_for else module._making:
            call.settle(7)

    interrupted = threading.Thread(target=settle, daemon=True)
    interrupted.start()
    interrupted.join(CEILING)
    assert call.result(0) == 7


# Waiting.


@pytest.mark.parametrize("ask", [Call.result, Call.exception])
def test_a_call_that_is_not_done_lets_its_driver_wait(call, driver, ask):
    driver.on_wait = lambda call: call.settle(7)
    assert ask(call, 2.5) == (7 if ask is Call.result else None)
    assert driver.waited == [2.5]


@pytest.mark.parametrize("ask", [Call.result, Call.exception])
def test_without_a_timeout_the_driver_waits_until_the_call_is_done(call, driver, ask):
    driver.on_wait = lambda call: call.settle(7)
    ask(call)
    assert driver.waited == [None]


@pytest.mark.parametrize("ask", [Call.result, Call.exception])
def test_the_timeout_of_asking_is_a_timeout_error_and_the_request_goes_on(call, driver, ask):
    with pytest.raises(concurrent.futures.TimeoutError) as raised:
        ask(call, 0.01)
    assert not isinstance(raised.value, RequestTimeout)
    assert not call.done()
    assert driver.forgotten == []
    call.settle(7)
    assert call.result() == 7


def test_an_error_that_comes_while_waiting_is_raised(call, driver):
    driver.on_wait = lambda call: call.settle(error=RequestTimeout("too late"))
    with pytest.raises(RequestTimeout):
        call.result(1.0)


def test_a_call_that_is_cancelled_while_somebody_waits_raises_cancelled_error(call, driver):
    driver.on_wait = lambda call: call.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        call.result(1.0)


# Cancelling.


def test_cancelling_forgets_the_request(call, driver):
    assert call.cancel()
    assert call.cancelled()
    assert call.done()
    assert driver.forgotten == [call]
    for ask in (call.result, call.exception):
        with pytest.raises(concurrent.futures.CancelledError):
            ask()


def test_cancelling_again_says_yes_and_forgets_once(call, driver):
    assert call.cancel()
    assert call.cancel()
    assert driver.forgotten == [call]


def test_a_settled_call_cannot_be_cancelled(call, driver):
    call.settle(7)
    assert not call.cancel()
    assert not call.cancelled()
    assert driver.forgotten == []
    assert call.result() == 7


# Callbacks.


@pytest.mark.parametrize(
    "finish",
    [lambda call: call.settle(7), lambda call: call.settle(error=RequestTimeout("x")), lambda call: call.cancel()],
    ids=["settled", "failed", "cancelled"],
)
def test_callbacks_run_later_in_order_with_the_call(call, driver, finish):
    seen = []
    call.add_done_callback(lambda done: seen.append(("first", done, done.done())))
    call.add_done_callback(lambda done: seen.append(("second", done, done.done())))
    assert driver.later == []
    finish(call)
    assert seen == []
    driver.run()
    assert seen == [("first", call, True), ("second", call, True)]


def test_a_callback_of_a_call_that_is_done_runs_later_as_well(call, driver):
    seen = []
    call.settle(7)
    call.add_done_callback(lambda done: seen.append(done.result()))
    assert seen == []
    driver.run()
    assert seen == [7]


def test_each_callback_runs_once(call, driver):
    seen = []
    call.add_done_callback(seen.append)
    call.settle(7)
    call.cancel()
    driver.run()
    assert seen == [call]


def test_a_callback_added_while_another_thread_settles_runs_once(driver):
    for _ in range(100):
        call, seen = Call(driver, "id", "ADD"), []
        barrier = threading.Barrier(2)

        def settle():
            barrier.wait(CEILING)
            call.settle(7)

        settling = threading.Thread(target=settle)
        settling.start()
        barrier.wait(CEILING)
        call.add_done_callback(seen.append)
        settling.join(CEILING)
        driver.run()
        assert seen == [call]


def test_no_lock_is_held_while_callbacks_are_handed_over(call, driver):
    """A callback thread that has ended makes ``run_later`` run the callback itself, which may do anything."""
    driver.run_later = lambda function, *args: function(*args)
    seen = []

    def callback(done):
        other = threading.Thread(target=lambda: seen.append(done.cancelled()), daemon=True)
        other.start()
        other.join(1.0)
        seen.append("callback")

    call.add_done_callback(callback)
    call.settle(7)
    call.add_done_callback(callback)
    assert seen == [False, "callback", False, "callback"]


# concurrent.futures and asyncio.


def settle_later(*steps):
    """Settle calls on another thread."""
    thread = threading.Thread(target=lambda: [step() for step in steps], daemon=True)
    thread.start()
    return thread


def test_wait_returns_when_all_are_done(driver):
    calls = [Call(driver, str(number), "ADD") for number in range(4)]
    calls[0].settle(0)
    thread = settle_later(
        lambda: calls[1].settle(1), lambda: calls[2].settle(error=RequestTimeout("x")), lambda: calls[3].cancel()
    )
    done, left = wait(calls, CEILING, ALL_COMPLETED)
    thread.join(CEILING)
    assert (done, left) == (set(calls), set())


def test_wait_for_the_first_returns_when_one_is_done(driver):
    calls = [Call(driver, str(number), "ADD") for number in range(3)]
    thread = settle_later(lambda: calls[1].settle(1))
    done, left = wait(calls, CEILING, FIRST_COMPLETED)
    thread.join(CEILING)
    assert (done, left) == ({calls[1]}, {calls[0], calls[2]})


def test_wait_for_the_first_error_returns_at_the_error(driver):
    calls = [Call(driver, str(number), "ADD") for number in range(3)]
    thread = settle_later(lambda: calls[0].settle(0), lambda: calls[1].settle(error=RequestTimeout("x")))
    done, left = wait(calls, CEILING, FIRST_EXCEPTION)
    thread.join(CEILING)
    assert (done, left) == ({calls[0], calls[1]}, {calls[2]})


def test_as_completed_yields_in_the_order_of_completion(driver):
    calls = [Call(driver, str(number), "ADD") for number in range(4)]
    calls[3].settle(3)
    ends = {
        calls[3]: lambda: calls[1].settle(1),
        calls[1]: lambda: calls[0].settle(error=RequestTimeout("x")),
        calls[0]: lambda: calls[2].cancel(),
        calls[2]: lambda: None,
    }
    seen = []
    for call in as_completed(calls, CEILING):
        seen.append(call)
        settle_later(ends[call]).join(CEILING)
    assert seen == [calls[3], calls[1], calls[0], calls[2]]


def test_as_completed_yields_a_call_once_that_was_settled_again(driver):
    first, second, third = (Call(driver, str(number), "ADD") for number in range(3))
    completed = as_completed([first, second, third], CEILING)
    first.settle(1)
    seen = [next(completed)]
    second.settle(2)
    second.settle(2)
    third.settle(3)
    seen += completed
    assert seen == [first, second, third]


def test_a_plain_future_and_a_call_can_be_waited_for_together(driver, call):
    plain = concurrent.futures.Future()
    thread = settle_later(lambda: plain.set_result(1), lambda: call.settle(2))
    done, _ = wait([plain, call], CEILING)
    thread.join(CEILING)
    assert done == {plain, call}


@pytest.mark.parametrize("is_done_before", [True, False])
def test_asyncio_can_await_a_call(call, driver, is_done_before):
    driver.run_later = lambda function, *args: function(*args)

    async def main():
        if is_done_before:
            call.settle(7)
        wrapped = asyncio.wrap_future(call)
        thread = settle_later(lambda: call.settle(7))
        result = await asyncio.wait_for(wrapped, CEILING)
        thread.join(CEILING)
        return result

    assert asyncio.run(main()) == 7


def test_asyncio_gets_the_error_of_a_call(call, driver):
    driver.run_later = lambda function, *args: function(*args)

    async def main():
        wrapped = asyncio.wrap_future(call)
        settle_later(lambda: call.settle(error=RemoteError("no"))).join(CEILING)
        with pytest.raises(RemoteError):
            await asyncio.wait_for(wrapped, CEILING)

    asyncio.run(main())


def test_cancelling_in_asyncio_cancels_the_call(call, driver):
    driver.run_later = lambda function, *args: function(*args)

    async def main():
        wrapped = asyncio.wrap_future(call)
        wrapped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wrapped

    asyncio.run(main())
    assert call.cancelled()
    assert driver.forgotten == [call]


def test_a_fork_frees_the_lock_that_another_thread_of_the_parent_held(call):
    held, release_it = threading.Event(), threading.Event()

    def hold(lock):
        with lock:
            held.set()
            release_it.wait(CEILING)

    holder = threading.Thread(target=hold, args=(module._making,), daemon=True)
    holder.start()
    assert held.wait(CEILING)
    try:
        module._forked()  # what os.fork calls in the child, where the holder does not exist
        settling = threading.Thread(target=call.settle, args=(7,), daemon=True)
        settling.start()
        settling.join(CEILING)
        assert call.result(0) == 7
    finally:
        release_it.set()
        holder.join(CEILING)


def test_in_a_fork_a_pending_call_takes_no_callback_and_cannot_be_waited_for(call, driver):
    call.add_done_callback(print)
    driver.is_forked = True
    call.disown()
    for use in (lambda: call.add_done_callback(print), lambda: wait([call], 0), lambda: list(as_completed([call], 0))):
        with pytest.raises(ClientClosed, match="the process that made it"):
            use()
    assert call.cancel()
    assert driver.later == []


def test_in_a_fork_a_call_that_is_done_is_as_any_other(call, driver):
    seen = []
    call.settle(7)
    driver.is_forked = True
    call.add_done_callback(seen.append)
    driver.run()
    assert seen == [call]
    assert wait([call], 0).done == {call}
    assert not call.cancelled()


# Owners and wakers.


class Owner:
    """Stands for a client that nobody holds but its calls."""


@pytest.mark.parametrize(
    "finish",
    [lambda call: call.settle(7), lambda call: call.settle(error=RequestTimeout("x")), lambda call: call.cancel()],
    ids=["settled", "failed", "cancelled"],
)
def test_a_call_keeps_its_owner_until_it_is_done(driver, finish):
    owner = Owner()
    reference = weakref.ref(owner)
    call = Call(driver, "id", "ADD", owner)
    del owner
    gc.collect()
    assert reference() is not None
    finish(call)
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize(
    "finish",
    [lambda call: call.settle(7), lambda call: call.settle(error=RequestTimeout("x")), lambda call: call.cancel()],
    ids=["settled", "failed", "cancelled"],
)
def test_every_waker_is_released_when_the_call_is_done(call, finish):
    wakers = [asleep(), asleep()]
    for waker in wakers:
        call.add_waker(waker)
    assert not any(waker.acquire(blocking=False) for waker in wakers)
    finish(call)
    assert all(waker.acquire(blocking=False) for waker in wakers)


@pytest.mark.parametrize("is_future", [True, False])
def test_a_waker_finds_the_call_done(driver, is_future):
    """Whoever wakes looks at ``is_settled`` next: woken before it is true, it would sleep for ever."""
    call, seen = Call(driver, "id-1", "ADD") if is_future else AwaitedCall(), []

    class Waker:
        def release(self):
            seen.append(call.is_settled)

    call.add_waker(Waker())
    call.settle(7)
    assert seen == [True]


def test_a_waker_that_was_removed_is_left_asleep(call):
    kept, removed = asleep(), asleep()
    call.add_waker(kept)
    call.add_waker(removed)
    call.remove_waker(removed)
    call.settle(7)
    assert kept.acquire(blocking=False)
    assert not removed.acquire(blocking=False)


def test_removing_a_waker_that_is_not_there_is_no_error(call):
    call.remove_waker(threading.Lock())


def test_releasing_a_waker_twice_is_as_good_as_once():
    waker = asleep()
    release(waker)
    release(waker)
    assert waker.acquire(blocking=False)
    assert not waker.acquire(blocking=False)


# A call that only the thread that makes it waits for.


def test_an_awaited_call_has_the_result_it_was_settled_with():
    call = AwaitedCall()
    assert not call.is_settled
    call.settle({"a": 1})
    assert call.is_settled
    assert call.outcome() == {"a": 1}


def test_an_awaited_call_raises_the_error_it_was_settled_with_and_keeps_no_cycle():
    error = RemoteError("no")
    call, gone = AwaitedCall(), weakref.ref(error)
    call.settle(error=error)
    with pytest.raises(RemoteError) as caught:
        call.outcome()
    assert caught.value is error
    gc.collect()
    gc.disable()
    try:
        del error, caught
        assert gone() is None
    finally:
        gc.enable()


def test_a_waker_that_was_removed_from_an_awaited_call_is_left_asleep():
    call, waker = AwaitedCall(), asleep()
    call.add_waker(waker)
    call.remove_waker(waker)
    call.settle(7)
    assert not waker.acquire(blocking=False)


def test_an_awaited_call_keeps_its_first_outcome_and_wakes_again():
    call, waker = AwaitedCall(), asleep()
    call.settle(7)
    call.add_waker(waker)
    call.settle(error=RequestTimeout("too late"))
    assert waker.acquire(blocking=False)
    assert call.outcome() == 7
