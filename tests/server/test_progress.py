"""What a task tells of how far it is, on a clock of the test's own and with a watcher that is called by hand."""

import json

import pytest

from oompa.server import progress as module
from oompa.server.progress import INTERVAL, Report
from oompa.wire.codec import codec_named
from oompa.wire.messages import Progress, Request


class Peer:
    """A connection that keeps what it is offered, and may be slow."""

    def __init__(self):
        self.told = []
        self.is_slow = False

    def offer(self, text):
        if not self.is_slow:
            message = json.loads(text)
            assert (message["type"], message["id"]) == ("$OOMPA/PROGRESS", "7")
            self.told.append(message["payload"]["done"])
        return not self.is_slow


class ByHand:
    """A watcher whose time is the test's."""

    def __init__(self):
        self.now = 100.0
        self.due = {}

    def began(self, worker, patience):
        assert worker not in self.due
        self.due[worker] = self.now + patience

    def ended(self, worker):
        self.due.pop(worker, None)

    def passes(self, seconds):
        self.now += seconds
        for worker, due in list(self.due.items()):
            if due <= self.now + 1e-9:
                del self.due[worker]
                worker.stuck()


@pytest.fixture
def watcher(monkeypatch):
    watcher = ByHand()
    monkeypatch.setattr(module, "monotonic", lambda: watcher.now)
    return watcher


@pytest.fixture
def peer():
    return Peer()


@pytest.fixture
def report(peer, watcher):
    return Report(Request("COPY", None, "7", peer), codec_named("json"), watcher)


def test_the_first_is_sent_at_once_and_of_a_flood_ten_a_second(report, peer, watcher):
    for number in range(1000):
        report.tell(Progress(number))
        watcher.passes(0.001)
    assert 10 <= len(peer.told) <= 11
    assert peer.told[0] == 0 and peer.told == sorted(peer.told)


def test_the_last_one_wins_and_is_sent_when_its_time_has_come(report, peer, watcher):
    for number in range(3):
        report.tell(Progress(number))
    assert peer.told == [0]
    watcher.passes(INTERVAL)
    assert peer.told == [0, 2]
    watcher.passes(10 * INTERVAL)
    assert peer.told == [0, 2]


def test_what_is_left_is_sent_before_the_reply_and_nothing_after_it(report, peer, watcher):
    for number in range(3):
        report.tell(Progress(number))
    report.finish()
    assert peer.told == [0, 2] and watcher.due == {}
    report.tell(Progress(9))
    watcher.passes(1.0)
    assert peer.told == [0, 2]


def test_a_slow_reader_gets_the_latest_when_it_has_read_what_was_before(report, peer, watcher):
    peer.is_slow = True
    for number in range(100):
        report.tell(Progress(number))
        watcher.passes(INTERVAL)
    assert peer.told == [] and len(watcher.due) == 1
    peer.is_slow = False
    watcher.passes(INTERVAL)
    assert peer.told == [99]


def test_a_slow_reader_is_left_alone_when_the_task_is_over(report, peer, watcher):
    peer.is_slow = True
    report.tell(Progress(1))
    report.finish()
    assert peer.told == [] and watcher.due == {}


def test_progress_goes_to_the_connection_the_request_has_by_then(report, peer, watcher):
    report.tell(Progress(1))
    report.tell(Progress(2))
    report._request.connection = other = Peer()
    watcher.passes(INTERVAL)
    assert (peer.told, other.told) == ([1], [2])
