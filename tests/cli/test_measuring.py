"""Percentiles, histograms and reports: pure."""

from oompa.cli.measuring import Measured, histogram, percentile, report, summary


def test_a_percentile_is_a_value_that_was_measured():
    values = [float(number) for number in range(1, 101)]
    assert [percentile(values, percent) for percent in (50, 90, 99, 99.9, 100, 0)] == [50, 90, 99, 100, 100, 1]
    assert percentile([3.0], 50) == percentile([3.0], 99.9) == 3.0


def test_a_histogram_has_every_step_between_and_loses_none():
    assert histogram([0.001, 0.0011, 0.002, 0.02]) == [(0.001, 1), (0.002, 2), (0.005, 0), (0.01, 0), (0.02, 1)]
    assert histogram([0.0]) == [(1e-9, 1)]
    latencies = [number * 1e-5 for number in range(1, 2000)]
    assert sum(count for _, count in histogram(latencies)) == len(latencies)


def test_a_summary_keeps_errors_apart():
    calls = [Measured(1.0, 0.1), Measured(2.0, 0.3), Measured(2.0, 9.0, "RequestTimeout"), Measured(2.0, 9.0, "RequestTimeout")]
    told = summary(calls, 2.0)
    assert (told["calls"], told["rate"], told["errors"]) == (4, 2.0, {"RequestTimeout": 2})
    assert (told["latency"]["min"], told["latency"]["mean"], told["latency"]["max"]) == (0.1, 0.2, 0.3)
    lines = report(told)
    assert lines[0] == "4 calls in 2.00 s: 2 calls/s"
    assert lines[-2:] == ["2 errors:", "          2 RequestTimeout"]
    assert "  p50     100.0 ms" in lines


def test_a_summary_of_nothing_but_errors_has_no_latency():
    told = summary([Measured(1.0, 1.0, "X")], 1.0)
    assert "latency" not in told and report(told)[-1].split() == ["1", "X"]
    assert summary([], 0.0)["rate"] == 0.0
