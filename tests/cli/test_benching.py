"""``oompa bench``: when calls are due, from when they are measured, and what is printed."""

import itertools
import json

import pytest
from conftest import CEILING

from oompa import RemoteError, RequestTimeout
from oompa.cli.benching import Turn, kind_of, run_caller
from oompa.cli.main import run


class Clock:
    """A clock that stands until somebody waits or works."""

    def __init__(self):
        self.time = 0.0

    def now(self):
        return self.time

    def wait(self, seconds):
        self.time += seconds


def called(turn, *durations):
    """What one caller measures whose calls take so long, by a clock of their own."""
    clock, found, left = Clock(), [], list(durations)
    run_caller(turn, lambda: clock.wait(left.pop(0) if left else 0.0), found, clock.now, clock.wait)
    return found


def test_without_a_rate_a_call_is_due_when_a_caller_is_free():
    found = called(Turn(3, None, None), 1.0, 2.0, 3.0)
    assert [each.latency for each in found] == [1.0, 2.0, 3.0]
    assert [each.ended for each in found] == [1.0, 3.0, 6.0]


def test_with_a_rate_a_stall_is_charged_to_the_calls_behind_it():
    found = called(Turn(5, None, 1.0), 3.5, 0.5, 0.5, 0.5, 0.25)
    assert [each.latency for each in found] == [3.5, 3.0, 2.5, 2.0, 1.25]


def test_with_a_rate_callers_wait_until_a_call_is_due():
    found = called(Turn(3, None, 0.5), 0.5, 0.5, 0.5)
    assert [each.ended for each in found] == [0.5, 2.5, 4.5]
    assert [each.latency for each in found] == [0.5, 0.5, 0.5]


def test_a_duration_ends_what_is_due_and_not_what_runs():
    assert len(called(Turn(None, 2.0, None), 1.5, 1.0, 1.0)) == 2
    assert len(called(Turn(None, 2.0, 4.0))) == 8
    assert len(called(Turn(3, 2.0, 4.0))) == 3


def test_turns_that_are_stopped_end():
    turn = Turn(None, None, None)
    assert turn.next(0.0) == 0.0
    turn.stop()
    assert turn.next(1.0) is None


def test_progress_is_what_is_nearer_to_the_end():
    turn = Turn(10, 100.0, None)
    turn.next(0.0)
    assert turn.done(1.0) == 0.1 and turn.done(50.0) == 0.5 and turn.done(500.0) == 1.0


def test_errors_are_counted_by_kind():
    assert kind_of(RequestTimeout("no reply to request 17")) == "RequestTimeout"
    assert kind_of(RemoteError("ValueError: 17 is wrong")) == "RemoteError: ValueError"
    assert kind_of(RemoteError({"code": 17})) == "RemoteError: {'code': 17}"


def test_a_bench_reports(serve, capsys):
    server = serve()
    url = f"ws://127.0.0.1:{server.port}"
    assert run(["bench", url, "ADD", '{"x": 1, "y": 2}', "-n", "50", "-c", "3"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("50 calls in ") and "p99.9" in shown.out and "#" in shown.out and shown.err == ""
    assert server.stats()["tasks"]["ADD"]["num_requests"] == 50


def test_a_bench_for_scripts_counts_errors_and_exits_with_1(serve, capsys):
    url = f"ws://127.0.0.1:{serve().port}"
    assert run(["--json", "bench", url, "DIV", '{"x": 1, "y": 0}', "-n", "20", "--rate", "10000"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["calls"] == 20 and told["errors"] == {"RemoteError: ZeroDivisionError": 20}


def test_a_bench_whose_server_has_gone_reports_and_ends(serve, capsys):
    calls = itertools.count()

    def end_the_server(payload):
        if next(calls) == 20:
            closing.append(server.close(0))

    closing, server = [], serve({"END": end_the_server})
    code = run(["bench", f"ws://127.0.0.1:{server.port}", "END", "-c", "2", "--timeout", "0.5"])
    shown = capsys.readouterr()
    assert closing[0].result(CEILING) is None
    assert code == 4 and " calls in " in shown.out and "RequestTimeout" in shown.out
    assert "there is no connection" in shown.err and shown.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["-n", "0"], ["-c", "0"], ["--rate", "0"], ["--duration", "-1"], ["ADD", "1", "2"]])
def test_numbers_that_cannot_be_meant_are_refused(capsys, arguments):
    assert run(["bench", "ws://127.0.0.1:1", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1
