"""Who reads: callers that wait, one at a time, and the keeper when none does. The channel is a queue that the test fills.

A message is a tuple of a call's id and its payload, and applying it settles the call. The channel fails the test when two
threads read it at once.
"""

import concurrent.futures
import queue
import signal
import threading
import time

import pytest

from oompa.client import turns as module
from oompa.client.call import AwaitedCall, Call
from oompa.client.turns import TICK, Turns
from oompa.wire.closing import ChannelClosed

CEILING = 10.0  # seconds until a wait counts as failed


class FakeChannel:
    """A channel in memory.

    Attributes:
        readers: The threads that have read, in order, as names.
        reading: Told of each thread that starts to read.
    """

    def __init__(self):
        self.is_idle = True
        self.tick = None
        self.abort_reason = None
        self.timeouts = []
        self.reading = queue.Queue()
        self._inbox = queue.Queue()
        self._exclusive = threading.Lock()

    def set_tick(self, tick):
        self.tick = tick

    def hurry(self):
        pass

    def receive(self, timeout=None):
        assert self._exclusive.acquire(blocking=False), "two threads read at once"
        try:
            self.is_idle = True
            self.timeouts.append(timeout)
            self.reading.put(threading.current_thread().name)
            item = self._inbox.get(timeout=min(CEILING, self.tick if timeout is None else timeout))
            self.is_idle = isinstance(item, BaseException)
            if isinstance(item, BaseException):
                raise item
            return item
        except queue.Empty:
            return []
        finally:
            self._exclusive.release()

    def abort(self, reason):
        self.abort_reason = reason
        self.ends(1006, reason)

    # The server.

    def replies(self, *messages):
        """Messages that come in one read."""
        self._inbox.put(list(messages))

    def ends(self, code=1006, reason=""):
        self._inbox.put(ChannelClosed(code, reason))

    def interrupts(self):
        """Ctrl-C in whoever reads."""
        self._inbox.put(KeyboardInterrupt())

    def await_reader(self, name):
        """Return when a thread of that name starts to read."""
        deadline = time.monotonic() + CEILING
        while self.reading.get(timeout=CEILING) != name:
            assert time.monotonic() < deadline, f"{name} does not read"


class Client:
    """What a link is to this module: calls by id, and the keeper's thread."""

    def __init__(self):
        self.unanswered = 0  # beyond the calls that somebody waits for
        self.turns = Turns(self.apply, lambda: self.unanswered)
        self.applied = []  # tuples of a call's id and the name of the thread that applied its message
        self.closed = queue.Queue()
        self.on_apply = None
        self._calls = {}
        self._keepers = []
        self._channels = []

    def dispatch(self, id):
        call = self._calls[id] = Call(self, id, "ADD")
        return call

    def connect(self):
        """A new channel, which the keeper minds from now on."""
        channel = FakeChannel()
        self._channels.append(channel)
        keeper = threading.Thread(target=lambda: self.closed.put(self.turns.keep(channel)), name="keeper", daemon=True)
        self._keepers.append(keeper)
        keeper.start()
        return channel

    def keep(self):
        """A new channel, which the keeper reads."""
        channel = self.connect()
        channel.await_reader("keeper")
        return channel

    def apply(self, messages):
        for id, payload in messages:
            self.applied.append((id, threading.current_thread().name))
            if self.on_apply is not None:
                self.on_apply(id)
            self._calls[id].settle(payload)

    def close(self):
        for call in self._calls.values():
            if not call.is_settled:
                call.settle(error=AssertionError("still waiting at the end of the test"))
        for channel in self._channels:
            channel.ends(1000)
        module.release(self.turns._keeper_waker)
        for keeper in self._keepers:
            keeper.join(CEILING)
            assert not keeper.is_alive()

    # The driver of a call.

    def wait_for(self, call, timeout):
        self.turns.wait_for(call, timeout)

    def forget(self, call):
        pass

    def run_later(self, function, *args):
        function(*args)

    def run_undisturbed(self, function):
        function()

    def check_owned(self):
        pass


class Caller:
    """A thread that waits for a call."""

    def __init__(self, call, timeout=None):
        self._outcome = queue.Queue()
        self._timeout = timeout
        self._call = call
        threading.Thread(target=self._wait, name=f"caller of {call.id}", daemon=True).start()

    def _wait(self):
        try:
            self._outcome.put(self._call.result(self._timeout))
        except BaseException as error:
            self._outcome.put(error)

    def outcome(self):
        """The payload, or the error."""
        return self._outcome.get(timeout=CEILING)

    def waits(self):
        return self._outcome.empty()


@pytest.fixture
def client():
    client = Client()
    yield client
    client.close()


@pytest.fixture
def line(client):
    """Callers that stand in line behind the keeper, in this order: ``line("a", "b")``."""

    def line(*ids, timeout=None):
        callers = []
        for id in ids:
            before = len(client.turns._line)
            callers.append(Caller(client.dispatch(id), timeout))
            wait_until(lambda: len(client.turns._line) > before)
        return callers

    return line


@pytest.fixture
def shy(monkeypatch):
    """A keeper that does not take the lead back."""
    monkeypatch.setattr(module, "STALE", CEILING)


def wait_until(condition):
    deadline, pause = time.monotonic() + CEILING, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        pause.wait(0.001)


def is_timeout(outcome):
    return isinstance(outcome, concurrent.futures.TimeoutError)


def settled(call):
    """Return when a call is done that nobody waits for."""
    done = threading.Event()
    call.add_done_callback(lambda call: done.set())
    assert done.wait(CEILING)
    return call.result(0)


# The keeper.


def test_the_keeper_reads_what_nobody_waits_for(client):
    call = client.dispatch("a")
    channel = client.keep()
    channel.replies(("a", 7))
    assert settled(call) == 7
    assert client.applied == [("a", "keeper")]


def test_the_keeper_lets_readers_look_around_after_a_tick(client):
    assert client.keep().tick == TICK


def test_the_keeper_tells_how_the_channel_ended(client):
    channel = client.keep()
    channel.ends(1001, "going away")
    closed = client.closed.get(timeout=CEILING)
    assert (closed.code, closed.reason) == (1001, "going away")


def test_the_keeper_takes_the_lead_when_nobody_has_it(client, line):
    channel = client.keep()
    first, second = line("a", "b")
    channel.replies(("a", 1))
    channel.await_reader("caller of b")
    channel.replies(("b", 2))
    assert (first.outcome(), second.outcome()) == (1, 2)
    channel.await_reader("keeper")
    call = client.dispatch("c")
    channel.replies(("c", 3))
    assert settled(call) == 3


# Callers.


def test_a_caller_behind_the_keeper_gets_its_reply(client, line):
    channel = client.keep()
    (caller,) = line("a")
    channel.replies(("a", 7))
    assert caller.outcome() == 7
    assert client.applied == [("a", "keeper")]


def test_the_keeper_steps_down_when_a_caller_waits_and_the_caller_reads_itself(client, line, shy):
    channel = client.keep()
    first, second = line("a", "b")
    channel.replies(("a", 1))
    assert first.outcome() == 1
    channel.await_reader("caller of b")
    channel.replies(("b", 2))
    assert second.outcome() == 2
    assert client.applied == [("a", "keeper"), ("b", "caller of b")]


def test_a_caller_that_finds_the_lead_free_reads_at_once(client, line, shy):
    channel = client.keep()
    first, second = line("a", "b")
    channel.replies(("a", 1))
    channel.await_reader("caller of b")
    channel.replies(("b", 2))
    assert (first.outcome(), second.outcome()) == (1, 2)
    wait_until(lambda: client.turns._leader is None)
    third = Caller(client.dispatch("c"))
    channel.await_reader("caller of c")
    channel.replies(("c", 3))
    assert third.outcome() == 3
    assert client.applied[-1] == ("c", "caller of c")


def test_the_keeper_sleeps_while_one_caller_reads_for_long_and_wakes_when_the_lead_is_free(client, line, monkeypatch):
    monkeypatch.setattr(module, "_LOOK", 10 * CEILING)
    channel = client.keep()
    line("a", "b")
    channel.replies(("a", 1))
    channel.await_reader("caller of b")
    wait_until(lambda: client.turns._keeper_sleeps)
    channel.replies(("b", 2))
    channel.await_reader("keeper")


def call_until(condition, client, channel):
    """Callers that lead, one after the other, until the condition is true."""
    deadline = time.monotonic() + CEILING
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        caller = Caller(client.dispatch("a"))
        channel.replies(("a", 1))
        assert caller.outcome() == 1


@pytest.fixture
def drowsy(monkeypatch):
    """A keeper that dozes soon, and for ever."""
    monkeypatch.setattr(module, "STALE", 0.02)
    monkeypatch.setattr(module, "_QUIET_LOOKS", 2)
    monkeypatch.setattr(module, "_DOZE", 10 * CEILING)


def test_a_keeper_that_dozes_is_roused_for_a_reply_that_nobody_waits_for(client, drowsy):
    channel = client.keep()
    call_until(lambda: client.turns.is_dozing, client, channel)
    call = client.dispatch("b")
    client.unanswered = 1
    client.turns.rouse()
    channel.replies(("b", 2))
    assert settled(call) == 2
    assert not client.turns.is_dozing  # it reads


def test_a_caller_that_gives_up_rouses_the_keeper(client, drowsy):
    channel = client.keep()
    call_until(lambda: client.turns.is_dozing, client, channel)
    call = client.dispatch("b")
    client.unanswered = 1
    assert is_timeout(Caller(call, timeout=0.01).outcome())
    channel.replies(("b", 2))
    assert settled(call) == 2


def test_the_keeper_does_not_doze_while_a_reply_is_to_come_that_nobody_waits_for(client, drowsy):
    channel = client.keep()
    client.unanswered = 2  # one more than there are callers
    ends = time.monotonic() + 0.3
    call_until(lambda: time.monotonic() > ends, client, channel)
    call = client.dispatch("b")
    channel.replies(("b", 2))
    assert settled(call) == 2


def test_a_leader_passes_the_lead_to_the_next_in_line(client, line, shy):
    channel = client.keep()
    callers = line("a", "b", "c", "d")
    channel.replies(("a", "A"))
    for id in ("b", "c", "d"):
        channel.await_reader(f"caller of {id}")
        channel.replies((id, id.upper()))
    assert [caller.outcome() for caller in callers] == ["A", "B", "C", "D"]
    assert client.applied == [("a", "keeper"), ("b", "caller of b"), ("c", "caller of c"), ("d", "caller of d")]


def test_a_leader_deals_with_the_replies_of_others(client, line, shy):
    channel = client.keep()
    callers = line("a", "b", "c", "d")
    channel.replies(("a", 1))
    channel.await_reader("caller of b")
    channel.replies(("d", 4), ("c", 3))
    assert [caller.outcome() for caller in (callers[2], callers[3])] == [3, 4]
    assert callers[1].waits()
    channel.replies(("b", 2))
    assert callers[1].outcome() == 2
    assert client.applied[1:] == [("d", "caller of b"), ("c", "caller of b"), ("b", "caller of b")]


def test_the_lead_skips_callers_that_have_their_reply(client, line, shy):
    channel = client.keep()
    callers = line("a", "b", "c")
    channel.replies(("a", 1), ("b", 2))
    assert [caller.outcome() for caller in callers[:2]] == [1, 2]
    channel.await_reader("caller of c")
    channel.replies(("c", 3))
    assert callers[2].outcome() == 3


def test_a_call_that_is_settled_is_not_waited_for(client):
    call = client.dispatch("a")
    call.settle(7)
    assert Caller(call).outcome() == 7


def test_two_callers_may_wait_for_one_call(client, shy):
    channel = client.keep()
    call = client.dispatch("a")
    callers = [Caller(call), Caller(call)]
    wait_until(lambda: len(client.turns._line) == 2)
    channel.replies(("a", 7))
    assert [caller.outcome() for caller in callers] == [7, 7]


# Timeouts.


def test_a_caller_in_line_gives_up_after_its_timeout(client, line):
    client.keep()
    (caller,) = line("a", timeout=0.05)
    assert is_timeout(caller.outcome())
    assert len(client.turns._line) == 0


def test_a_caller_without_a_channel_gives_up_after_its_timeout(client):
    assert is_timeout(Caller(client.dispatch("a"), 0.01).outcome())
    assert len(client.turns._line) == 0


def test_a_timeout_that_is_over_is_not_waited_for(client):
    channel = client.keep()
    for timeout in (0, -1):
        assert is_timeout(Caller(client.dispatch("a"), timeout).outcome())
    assert len(channel.timeouts) == 1


def test_a_leader_gives_up_after_its_timeout_and_passes_the_lead_on(client, line, shy):
    channel = client.keep()
    (first,) = line("a")
    (second,) = line("b", timeout=1.0)
    (third,) = line("c")
    channel.replies(("a", 1))
    channel.await_reader("caller of b")
    assert is_timeout(second.outcome())
    channel.await_reader("caller of c")
    channel.replies(("b", "too late"), ("c", 3))
    assert (first.outcome(), third.outcome()) == (1, 3)


def test_a_leader_does_not_read_beyond_its_timeout(client, line, shy, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    channel = client.keep()
    line("a")
    (second,) = line("b", timeout=30.0)
    channel.replies(("a", 1))
    channel.await_reader("caller of b")
    assert channel.timeouts[-1] is None
    now[0] = 130.0 - TICK / 2
    wait_until(lambda: channel.timeouts[-1] == pytest.approx(TICK / 2))
    assert second.waits()
    now[0] = 130.0
    assert is_timeout(second.outcome())


def test_a_caller_that_looks_around_keeps_its_one_place_in_line(client, line, monkeypatch):
    monkeypatch.setattr(module, "_LOOK", 0.001)
    looks, join = [], client.turns._line.join
    monkeypatch.setattr(client.turns._line, "join", lambda me: looks.append(me) or join(me))
    channel = client.keep()
    (caller,) = line("a")
    wait_until(lambda: len(looks) > 5)
    assert len(client.turns._line) == 1
    channel.replies(("a", 7))
    assert caller.outcome() == 7


def test_the_lead_does_not_come_to_a_caller_that_an_interruption_kept_from_leaving(client):
    channel = client.keep()
    gone = module._Waiter(client.dispatch("never answered"))
    gone.is_gone = True
    client.turns._line.append(gone)
    channel.replies()  # the keeper looks around
    wait_until(lambda: not client.turns._line)
    call = client.dispatch("a")
    channel.replies(("a", 1))
    assert settled(call) == 1


def test_the_lead_does_not_stay_with_a_caller_that_an_interruption_kept_from_leaving():
    turns = Turns(apply=None, expected=int)
    turns._leader = gone = module._Waiter(call=None)
    gone.is_gone = True
    assert turns._park() is None
    assert turns._leader is turns
    turns._step_down(gone, None)
    assert turns._leader is turns


def test_the_main_thread_waits_for_bytes_before_it_reads_and_others_just_read(client, line, shy):
    """A read that a signal interrupts begins anew with all its time; a wait does not."""
    channel = client.keep()
    first, second = line("a", "b")
    channel.replies(("a", 1))
    channel.await_reader("caller of b")
    assert channel.timeouts[-1] is None
    channel.replies(("b", 2))
    assert (first.outcome(), second.outcome()) == (1, 2)
    mine = client.dispatch("c")
    channel.replies(("c", 3))
    assert mine.result(CEILING) == 3
    assert channel.timeouts[-1] == TICK


def test_an_heir_is_the_first_in_line_that_still_waits():
    waiters = [module._Waiter(AwaitedCall()) for _ in range(4)]
    waiters[0].is_gone = True
    waiters[1].call.settle(1)
    line = module._Line()
    for waiter in (*waiters, waiters[3]):
        line.join(waiter)
    assert list(line) == waiters
    assert line.pop_heir() is waiters[2]
    assert list(line) == [waiters[3]]
    line.discard(waiters[2])
    line.discard(waiters[3])
    assert line.pop_heir() is None


@pytest.mark.parametrize(
    ("leader", "lost", "looks", "claims"),
    [
        ("nobody", False, 2, ["MOVING", "MINE"]),
        ("caller", False, 3, ["MOVING", "STILL", "STILL"]),
        ("gone", False, 2, ["MOVING", "MINE"]),
        ("nobody", True, 1, ["LOST"]),
        ("gone", True, 1, ["LOST"]),
        ("caller", True, 1, ["MOVING"]),
    ],
)
def test_the_parked_keeper_claims_the_lead_that_is_free_and_stale(leader, lost, looks, claims):
    turns = Turns(apply=None, expected=int)
    turns._lost = ChannelClosed(1000, "") if lost else None
    turns._leader = None if leader == "nobody" else module._Waiter(AwaitedCall())
    if leader == "gone":
        turns._leader.is_gone = True
    assert [turns._claim().name for _ in range(looks)] == claims


def test_the_parked_keeper_sees_each_change_of_the_lead():
    turns = Turns(apply=None, expected=int)
    turns._leader = first = module._Waiter(AwaitedCall())
    assert [turns._claim().name for _ in range(2)] == ["MOVING", "STILL"]
    turns._step_down(first, None)
    assert [turns._claim().name for _ in range(2)] == ["MOVING", "MINE"]


@pytest.mark.parametrize(
    ("claim", "is_dozing", "seconds"),
    [
        ("MOVING", False, module.STALE),
        ("MOVING", True, module._DOZE),
        ("STILL", False, module._LOOK),
        ("STILL", True, module._LOOK),
    ],
)
def test_the_parked_keeper_naps_the_longer_the_less_can_be_to_do(claim, is_dozing, seconds):
    assert module._nap(module._Claim[claim], is_dozing) == seconds


def test_the_lead_is_not_lost_with_an_heir_whose_time_ends_while_it_is_passed_on(monkeypatch):
    turns = Turns(apply=None, expected=int)
    turns._channel, turns._leader = FakeChannel(), "another"
    waiting = threading.Thread(target=turns.wait_for, args=(AwaitedCall(), 0.05), daemon=True)
    waiting.start()
    wait_until(lambda: turns._line)
    pop_heir = turns._line.pop_heir

    def slowly():
        heir = pop_heir()
        wait_until(lambda: heir.is_gone)
        waiting.join(0.2)  # long enough to see that nothing is in line and that it does not lead
        return heir

    monkeypatch.setattr(turns._line, "pop_heir", slowly)
    turns._step_down("another", None)
    waiting.join(CEILING)
    assert turns._leader is None


# Calls that are settled by somebody who does not read.


def test_a_leader_whose_call_is_settled_elsewhere_returns(client, line, shy):
    channel = client.keep()
    first, second = line("a", "b")
    channel.replies(("a", 1))
    channel.await_reader("caller of b")
    second._call.settle("timed out")
    assert second.outcome() == "timed out"
    assert first.outcome() == 1


def test_a_caller_in_line_whose_call_is_settled_elsewhere_returns(client, line):
    client.keep()
    (caller,) = line("a")
    caller._call.settle("timed out")
    assert caller.outcome() == "timed out"
    wait_until(lambda: len(client.turns._line) == 0)


def test_a_caller_without_a_channel_whose_call_is_settled_elsewhere_returns(client, line):
    (caller,) = line("a")
    caller._call.settle("timed out")
    assert caller.outcome() == "timed out"


def test_a_lead_that_comes_to_a_caller_whose_call_is_settled_meanwhile_goes_on_to_the_next(client, line, shy, monkeypatch):
    channel = client.keep()
    first, second, third = line("a", "b", "c")
    release = module.release

    def settle_and_release(waker):
        client._calls["b"].settle("timed out")
        release(waker)

    monkeypatch.setattr(module, "release", settle_and_release)
    channel.replies(("a", 1))
    assert (first.outcome(), second.outcome()) == (1, "timed out")
    channel.await_reader("caller of c")
    channel.replies(("c", 3))
    assert third.outcome() == 3


# One channel after the other.


def test_a_caller_waits_for_a_channel(client, line):
    (caller,) = line("a")
    channel = client.connect()
    channel.await_reader("caller of a")
    channel.replies(("a", 7))
    assert caller.outcome() == 7


@pytest.mark.parametrize("leader", ["keeper", "caller of b"])
def test_when_the_channel_ends_callers_wait_for_the_next_one(client, line, shy, leader):
    first_channel = client.keep()
    first, second, third = line("a", "b", "c")
    if leader != "keeper":
        first_channel.replies(("a", 1))
        first_channel.await_reader("caller of b")
    first_channel.ends(1012, "restart")
    closed = client.closed.get(timeout=CEILING)
    assert (closed.code, closed.reason) == (1012, "restart")
    assert second.waits() and third.waits()
    wait_until(lambda: len(client.turns._line) == (3 if leader == "keeper" else 2))
    client.connect().replies(("a", 1), ("b", 2), ("c", 3))
    assert (first.outcome(), second.outcome(), third.outcome()) == (1, 2, 3)
    assert first_channel.abort_reason is None


def test_the_keeper_minds_the_next_channel_whatever_ended_the_last_one(client, line):
    client.keep().ends(1012)
    assert client.closed.get(timeout=CEILING).code == 1012
    channel = client.keep()
    callers = line("a", "b")
    channel.replies(("a", 1), ("b", 2))
    assert [caller.outcome() for caller in callers] == [1, 2]
    call = client.dispatch("c")
    channel.replies(("c", 3))
    assert settled(call) == 3
    assert client.closed.empty()
    channel.ends(4000)
    assert client.closed.get(timeout=CEILING).code == 4000


def test_a_caller_that_leads_when_the_channel_ends_wakes_the_keeper_at_once(client, line, shy):
    channel = client.keep()
    line("a", "b")
    channel.replies(("a", 1))
    channel.await_reader("caller of b")
    channel.ends(1006)
    assert client.closed.get(timeout=CEILING / 2).code == 1006
    client._calls["b"].settle(2)


# Interruptions.


def test_an_interrupted_leader_passes_the_lead_on(client, line, shy):
    channel = client.keep()
    first, second, third = line("a", "b", "c")
    channel.replies(("a", 1))
    channel.await_reader("caller of b")
    channel.interrupts()
    assert isinstance(second.outcome(), KeyboardInterrupt)
    channel.await_reader("caller of c")
    channel.replies(("b", "late"), ("c", 3))
    assert (first.outcome(), third.outcome()) == (1, 3)
    assert channel.abort_reason is None


def test_an_interrupted_leader_leaves_the_lead_to_the_keeper(client, line):
    channel = client.keep()
    first, second = line("a", "b")
    channel.replies(("a", 1))
    channel.await_reader("caller of b")
    channel.interrupts()
    assert isinstance(second.outcome(), KeyboardInterrupt)
    channel.await_reader("keeper")
    call = client.dispatch("c")
    channel.replies(("c", 3))
    assert settled(call) == 3


def test_a_leader_that_is_interrupted_with_messages_in_hand_aborts_the_channel_for_they_are_lost(client, line, shy):
    channel = client.keep()
    first, second, third = line("a", "b", "c")
    channel.replies(("a", 1))
    channel.await_reader("caller of b")

    def interrupt(id):
        client.on_apply = None
        raise KeyboardInterrupt

    client.on_apply = interrupt
    channel.replies(("c", 3))
    assert isinstance(second.outcome(), KeyboardInterrupt)
    assert client.closed.get(timeout=CEILING).reason == channel.abort_reason == "interrupted while reading"
    assert third.waits()
    client._calls["c"].settle("sent again and answered")
    assert third.outcome() == "sent again and answered"


@pytest.mark.parametrize("is_leading", [False, True], ids=["in line", "leading"])
def test_ctrl_c_arrives_at_once_and_harms_nobody_else(client, line, shy, is_leading):
    channel = client.keep()
    if is_leading:
        (before,) = line("before")
    mine = client.dispatch("mine")

    def strike():
        wait_until(lambda: len(client.turns._line) == (2 if is_leading else 1))
        if is_leading:
            channel.replies(("before", 0))
            channel.await_reader("MainThread")
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    striker = threading.Thread(target=strike, daemon=True)
    striker.start()
    with pytest.raises(KeyboardInterrupt):
        mine.result(CEILING)
        pytest.fail("not interrupted")
    striker.join(CEILING)
    if is_leading:
        assert before.outcome() == 0
    assert len(client.turns._line) == 0
    other = Caller(client.dispatch("other"))
    channel.replies(("other", 7))
    assert other.outcome() == 7
    assert channel.abort_reason is None


# Everything at once.


def test_many_callers_over_many_channels_each_get_their_reply(client):
    callers, calls, channels = 8, 60, 6
    wrong, lock = [], threading.Lock()
    pending, current = {}, [client.keep()]

    def send(id):
        with lock:
            pending[id] = True
            channel = current[0]
        channel.replies((id, f"reply to {id}"))

    def work(name):
        for number in range(calls):
            id = f"{name}/{number}"
            call = client.dispatch(id)
            send(id)
            if call.result(CEILING) != f"reply to {id}":
                wrong.append(id)
            with lock:
                del pending[id]

    threads = [threading.Thread(target=work, args=(name,), daemon=True) for name in range(callers)]
    for thread in threads:
        thread.start()
    for _ in range(channels):
        with lock:
            old = current[0]
        old.ends(1006)
        client.closed.get(timeout=CEILING)
        new = client.connect()
        with lock:
            current[0] = new
            again = list(pending)
        for id in again:
            new.replies((id, f"reply to {id}"))
    for thread in threads:
        thread.join(CEILING)
        assert not thread.is_alive()
    assert wrong == []
    wait_until(lambda: len(client.turns._line) == 0)


def test_a_thousand_calls_one_after_the_other_leave_nothing_behind(client):
    channel = client.keep()
    for number in range(1000):
        call = client.dispatch(str(number))
        channel.replies((str(number), number))
        assert call.result(CEILING) == number
    wait_until(lambda: len(client.turns._line) == 0)
