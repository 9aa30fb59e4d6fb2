"""Events and listeners: order, once, off, unknown names, listeners that raise or meddle, threads that emit at once."""

import functools
import logging
import threading

import pytest

from oompa.emitter import Emitter, Listenable

CEILING = 10.0  # seconds until a wait counts as failed

LOGGER = logging.getLogger("oompa.test.emitter")


class Facade(Listenable):
    """What a Server or a Client is to this module."""

    def __init__(self, emitter):
        self._emitter = emitter


@pytest.fixture
def emitter():
    return Emitter({"reply": ("reply",), "stale": ("reply",)}, LOGGER, families={"OK:": ("payload",), "ERR:": ("error",)})


@pytest.fixture
def facade(emitter):
    return Facade(emitter)


@pytest.mark.parametrize("method", ["on", "once"])
def test_a_decorator_without_brackets_is_a_type_error_that_shows_the_right_form(facade, method):
    """Case 42: it did nothing, and said nothing."""
    with pytest.raises(TypeError, match=r'an event must be a string, not .*listener.*: write @....on\("reply"\)'):

        @getattr(facade, method)
        def listener(error):
            pass


@pytest.mark.parametrize("event", [5, None, b"reply", ["reply"]])
def test_an_event_that_is_no_string_is_a_type_error_that_names_it(facade, event):
    """Case 42."""
    for method in (facade.on, facade.once, facade.off):
        with pytest.raises(TypeError, match="an event must be a string, not ") as refused:
            method(event, print)
        assert repr(event) in str(refused.value)


@pytest.mark.parametrize("listen", ["on", "once", "decorator"])
def test_a_coroutine_function_is_no_listener(facade, emitter, listen):
    """Case 42: it would never run."""

    async def listener(*args):
        pass

    class Callable:
        async def __call__(self, *args):
            pass

    for each in (listener, functools.partial(listener, 1), Callable(), Callable().__call__):
        with pytest.raises(TypeError, match="a listener of .* must not be a coroutine function"):
            facade.on("reply")(each) if listen == "decorator" else getattr(facade, listen)("reply", each)
    assert emitter.table == {}


@pytest.fixture
def heard():
    return []


def test_listeners_are_called_with_the_arguments_in_the_order_they_were_added(emitter, heard):
    emitter.add("reply", lambda *args: heard.append(("first", args)))
    emitter.add("reply", lambda *args: heard.append(("second", args)))
    emitter.emit("reply", 1, "two")
    assert heard == [("first", (1, "two")), ("second", (1, "two"))]


def test_a_listener_hears_its_own_event_alone(emitter, heard):
    emitter.add("reply", heard.append)
    emitter.emit("stale", 1)
    emitter.emit("reply", 2)
    assert heard == [2]


def test_an_event_without_listeners_is_no_error(emitter):
    emitter.emit("reply", 1)


def test_a_listener_hears_every_event(emitter, heard):
    emitter.add("reply", heard.append)
    for number in range(3):
        emitter.emit("reply", number)
    assert heard == [0, 1, 2]


def test_a_listener_added_twice_is_called_twice(emitter, heard):
    emitter.add("reply", heard.append)
    emitter.add("reply", heard.append)
    emitter.emit("reply", 1)
    assert heard == [1, 1]


def test_once_is_called_for_the_next_event_only(emitter, heard):
    emitter.add("reply", heard.append, once=True)
    assert emitter.has("reply")
    emitter.emit("reply", 1)
    emitter.emit("reply", 2)
    assert heard == [1]
    assert not emitter.has("reply")


def test_once_leaves_the_other_listeners_alone(emitter, heard):
    emitter.add("reply", lambda number: heard.append(("on", number)))
    emitter.add("reply", lambda number: heard.append(("once", number)), once=True)
    emitter.add("reply", lambda number: heard.append(("last", number)))
    emitter.emit("reply", 1)
    emitter.emit("reply", 2)
    assert heard == [("on", 1), ("once", 1), ("last", 1), ("on", 2), ("last", 2)]


def test_the_same_listener_may_be_there_once_and_always(emitter, heard):
    listener = heard.append
    emitter.add("reply", listener, once=True)
    emitter.add("reply", listener)
    emitter.emit("reply", 1)
    emitter.emit("reply", 2)
    assert heard == [1, 1, 2]


def test_once_is_called_once_when_the_listener_emits_the_event_itself(emitter, heard):
    def listener(number):
        heard.append(number)
        emitter.emit("reply", number + 1)

    emitter.add("reply", listener, once=True)
    emitter.emit("reply", 1)
    assert heard == [1]


def test_once_is_called_once_when_many_threads_emit_at_once(emitter):
    threads, rounds, counts = 8, 50, []
    barrier = threading.Barrier(threads)

    def emit():
        for number in range(rounds):
            barrier.wait(CEILING)
            emitter.emit("reply", number)

    workers = [threading.Thread(target=emit) for _ in range(threads)]
    for number in range(rounds):
        emitter.add("reply", counts.append, once=True)
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(CEILING)
    assert len(counts) == rounds


def test_off_forgets_one_listener(emitter, heard):
    def listener(number):
        heard.append(("gone", number))

    emitter.add("reply", listener)
    emitter.add("reply", heard.append)
    emitter.remove("reply", listener)
    emitter.emit("reply", 1)
    assert heard == [1]


def test_off_forgets_a_listener_that_would_be_called_once(emitter, heard):
    emitter.add("reply", heard.append, once=True)
    emitter.remove("reply", heard.append)
    emitter.emit("reply", 1)
    assert heard == []


def test_off_without_a_listener_forgets_all_of_the_event(emitter, heard):
    emitter.add("reply", heard.append)
    emitter.add("reply", lambda number: heard.append(-number))
    emitter.add("stale", heard.append)
    emitter.remove("reply")
    emitter.emit("reply", 1)
    emitter.emit("stale", 2)
    assert heard == [2]
    assert not emitter.has("reply")


def test_off_knows_a_bound_method_though_it_is_a_new_object_each_time(emitter):
    class Log:
        def __init__(self):
            self.heard = []

        def write(self, number):
            self.heard.append(number)

    log = Log()
    emitter.add("reply", log.write)
    emitter.remove("reply", log.write)
    emitter.emit("reply", 1)
    assert log.heard == []


def test_off_of_what_was_not_there_is_no_error(emitter, heard):
    emitter.remove("reply")
    emitter.remove("reply", print)
    emitter.remove("no such event", print)
    emitter.add("reply", heard.append)
    emitter.remove("reply", print)
    emitter.emit("reply", 1)
    assert heard == [1]


@pytest.mark.parametrize("once", [False, True])
def test_an_unknown_event_is_a_value_error_that_names_the_events(emitter, once):
    with pytest.raises(ValueError, match="unknown event 'replies'; the events are reply, stale, OK:<id>, ERR:<id>"):
        emitter.add("replies", print, once)


def test_without_families_there_are_no_further_events():
    emitter = Emitter({"reply": ("reply",)}, LOGGER)
    for event in ("OK:1", "", "\0", "reply:1"):
        with pytest.raises(ValueError, match="the events are reply$"):
            emitter.add(event, print)


def test_a_family_has_an_event_for_each_id(emitter, heard):
    emitter.add("OK:7", lambda payload: heard.append(("OK", payload)))
    emitter.add("ERR:7", lambda error: heard.append(("ERR", error)))
    emitter.emit("OK:8", 1)
    emitter.emit("OK:7", 2)
    emitter.emit("ERR:7", 3)
    assert heard == [("OK", 2), ("ERR", 3)]


@pytest.mark.parametrize("listener", [5, "print", [print]])
def test_a_listener_that_cannot_be_called_is_a_type_error(emitter, listener):
    with pytest.raises(TypeError, match="a listener of 'reply' must be callable"):
        emitter.add("reply", listener)
    assert not emitter.has("reply")


def test_a_listener_that_raises_is_logged_and_harms_nothing(emitter, heard, caplog):
    def fail(number):
        raise ZeroDivisionError("no way")

    emitter.add("reply", fail)
    emitter.add("reply", heard.append)
    with caplog.at_level(logging.ERROR, LOGGER.name):
        emitter.emit("reply", 1)
        emitter.emit("reply", 2)
    assert heard == [1, 2]
    assert [record.getMessage() for record in caplog.records] == ["a listener of 'reply' raised"] * 2
    assert caplog.records[0].exc_info[0] is ZeroDivisionError


def test_a_listener_with_the_wrong_signature_is_refused(emitter):
    """Case 57."""
    with pytest.raises(TypeError, match=r"a listener of 'reply' must take \(reply\), but .* takes \(\)"):
        emitter.add("reply", lambda: None)
    assert not emitter.has("reply")


def test_a_listener_whose_wrong_signature_is_hidden_is_logged_like_one_that_raises(emitter, heard, caplog):
    emitter.add("reply", lambda *replies: (lambda: None)(*replies))
    emitter.add("reply", heard.append)
    emitter.emit("reply", 1)
    assert heard == [1]
    assert caplog.records[0].exc_info[0] is TypeError


def test_a_listener_added_while_an_event_is_told_hears_the_next_one(emitter, heard):
    emitter.add("reply", lambda number: emitter.add("reply", heard.append), once=True)
    emitter.emit("reply", 1)
    assert heard == []
    emitter.emit("reply", 2)
    assert heard == [2]


def test_a_listener_removed_while_an_event_is_told_hears_this_one_still(emitter, heard):
    emitter.add("reply", lambda number: emitter.remove("reply", heard.append))
    emitter.add("reply", heard.append)
    emitter.emit("reply", 1)
    emitter.emit("reply", 2)
    assert heard == [1]


def test_listeners_are_called_outside_the_lock(emitter, heard):
    """Another thread may change the table while a listener runs, and the listener may wait for it."""

    def listener(number):
        other = threading.Thread(target=emitter.add, args=("stale", heard.append), daemon=True)
        other.start()
        other.join(CEILING)
        heard.append(other.is_alive())

    emitter.add("reply", listener)
    emitter.emit("reply", 1)
    assert heard == [False]
    assert emitter.has("stale")


def test_listeners_run_on_the_thread_that_emits(emitter, heard):
    emitter.add("reply", lambda reply: heard.append(threading.current_thread()))
    emitter.emit("reply", 1)
    assert heard == [threading.current_thread()]


def test_nothing_of_a_call_stays_in_the_table(emitter, heard):
    for number in range(100):
        emitter.add(f"OK:{number}", heard.append, once=True)
        emitter.emit(f"OK:{number}", number)
        emitter.add(f"ERR:{number}", heard.append)
        emitter.remove(f"ERR:{number}", heard.append)
    assert len(heard) == 100
    assert emitter.table == {}


def test_on_once_and_off_return_the_facade_so_they_chain(facade, emitter, heard):
    chained = facade.on("reply", heard.append).once("stale", heard.append).off("stale").on("OK:1", heard.append)
    assert chained is facade
    emitter.emit("reply", 1)
    emitter.emit("stale", 2)
    emitter.emit("OK:1", 3)
    assert heard == [1, 3]


def test_on_without_a_listener_is_a_decorator_that_returns_the_function(facade, emitter, heard):
    @facade.on("reply")
    def log(number):
        heard.append(number)

    emitter.emit("reply", 1)
    emitter.emit("reply", 2)
    log(3)
    assert heard == [1, 2, 3]


def test_once_without_a_listener_is_a_decorator(facade, emitter, heard):
    @facade.once("reply")
    def log(number):
        heard.append(number)

    emitter.emit("reply", 1)
    emitter.emit("reply", 2)
    log(3)
    assert heard == [1, 3]


def test_off_without_a_listener_is_no_decorator(facade, emitter, heard):
    facade.on("reply", heard.append).on("reply", print)
    assert facade.off("reply") is facade
    assert not emitter.has("reply")


def test_an_unknown_event_is_refused_by_on_and_once(facade):
    for listen in (facade.on, facade.once):
        with pytest.raises(ValueError, match="unknown event 'conection'"):
            listen("conection", print)
        with pytest.raises(ValueError, match="unknown event 'conection'"):
            listen("conection")(print)
