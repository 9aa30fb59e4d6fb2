"""Seeing connections out: in what order, and how many at once."""

import logging
import threading

from conftest import wait_until

from oompa.server.admission import _AT_ONCE, Admission


class Connection:
    """One that leaves when it is let go."""

    is_live = True

    def __init__(self, admission):
        self.is_told = False
        self._admission = admission

    def drain(self):
        self.is_told = True

    def close(self):
        """Too late."""

    def leave(self):
        self._admission.left(self)
        self._admission.dismiss()


def entered(count):
    admission = Admission(None, 1.0, logging.getLogger("oompa.server"))
    connections = [Connection(admission) for _ in range(count)]
    for connection in connections:
        assert admission.admit()
        admission.entered(connection)
    return admission, connections


def test_so_many_drain_at_once_and_the_next_when_one_has_gone(monkeypatch):
    monkeypatch.setattr("oompa.server.admission._NOT_GONE", 60.0)
    admission, connections = entered(3 * _AT_ONCE)
    draining = threading.Thread(target=admission.drain, args=(30.0,))
    draining.start()
    most, seen = 0, 0
    while seen < len(connections):
        wait_until(lambda: any(each.is_told for each in admission.connections))
        told = [each for each in admission.connections if each.is_told]
        most = max(most, len(told))
        for each in told:
            each.leave()
        seen += len(told)
    draining.join()
    assert most < 2 * _AT_ONCE


def test_those_that_take_their_time_hold_up_nobody():
    admission, connections = entered(2 * _AT_ONCE)
    draining = threading.Thread(target=admission.drain, args=(30.0,))
    draining.start()
    wait_until(lambda: all(each.is_told for each in connections))
    for each in connections:
        each.leave()
    draining.join()


def test_all_are_told_in_time_though_none_goes(monkeypatch):
    """Their tasks run, or their peers have gone without a word."""
    monkeypatch.setattr("oompa.server.admission._NOT_GONE", 60.0)
    admission, connections = entered(3 * _AT_ONCE)
    draining = threading.Thread(target=admission.drain, args=(0.2,))
    draining.start()
    wait_until(lambda: all(each.is_told for each in connections))
    for each in connections:
        each.leave()
    draining.join()
