"""``oompa top``: the difference of two STATS."""

import json

from oompa.cli.main import run
from oompa.cli.watching import difference

LOAD = {"name": "calculator", "id": "a.1", "connections": 2, "running": 1, "queued": 3}


def stats(requests, errors, seconds, durations, **more):
    counts = {"num_requests": requests, "num_errors": errors, "processing_time": seconds, "durations": durations}
    return {**LOAD, "tasks": {"ADD": counts}, **more}


BEFORE = stats(10, 1, 5.0, [[0.5, 10]])
AFTER = stats(110, 21, 25.0, [[0.1, 60], [0.5, 49], [2.0, 1]])


def test_what_happened_between_two_looks_counts():
    told = difference(BEFORE, AFTER, 10.0)
    assert (told["connections"], told["running"], told["queued"]) == (2, 1, 3)
    assert told["tasks"]["ADD"] == {"rate": 10.0, "error_rate": 2.0, "average": 0.2, "p50": 0.1, "p99": 0.5}


def test_nothing_has_no_average():
    task = difference(BEFORE, BEFORE, 1.0)["tasks"]["ADD"]
    assert task == {"rate": 0.0, "error_rate": 0.0, "average": None, "p50": None, "p99": None}


def test_another_process_counts_from_its_start():
    restarted = stats(4, 0, 1.0, [[0.5, 4]], id="b.2")
    assert difference(BEFORE, restarted, 2.0)["tasks"]["ADD"]["rate"] == 2.0


def test_a_task_that_is_new_counts_from_none():
    assert difference({**BEFORE, "tasks": {}}, BEFORE, 1.0)["tasks"]["ADD"]["rate"] == 10.0


def test_looks_are_printed(serve, capsys):
    url = f"ws://127.0.0.1:{serve().port}"
    assert run(["top", url, "--interval", "0.1", "-n", "2"]) == 0
    shown = capsys.readouterr()
    assert shown.out.count("CALLS/S") == 2 and "\x1b" not in shown.out and shown.err == ""
    assert run(["top", url, "--interval", "0.1", "-n", "2", "--json"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["tasks"]["ADD"]["p99"] is None and second["connections"] == 1
