"""How long a call takes: until it settles, whatever the callback thread is busy with."""

import threading
from concurrent.futures import Future

from conftest import CALCULATOR, CEILING, wait_until

from oompa.client.stopwatch import Stopwatch


def test_a_call_is_timed_while_the_callbacks_of_others_run(serve, connect):
    client = connect(serve(CALCULATOR))
    is_busy, go_on, told = threading.Event(), threading.Event(), threading.Event()

    def keep_busy(call):
        is_busy.set()
        go_on.wait(CEILING)

    client.ping().add_done_callback(keep_busy)
    try:
        assert is_busy.wait(CEILING)
        watch, call = Stopwatch(), client.dispatch("ECHO", 1)
        watch.time(call, lambda call: told.set())
        assert call.result(CEILING) == 1
        wait_until(lambda: watch.seconds > 0)
        assert not told.is_set()
    finally:
        go_on.set()
    assert told.wait(CEILING)


def test_any_future_is_timed():
    future, told, watch = Future(), [], Stopwatch()
    watch.time(future, told.append)
    assert watch.seconds == 0 and told == []
    future.set_result(1)
    assert watch.seconds > 0 and told == [future]
