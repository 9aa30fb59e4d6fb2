"""The benchmark's own arithmetic: what is asked of whom, and how a report tells it. Nothing is measured here."""

import re
from pathlib import Path

import pytest

from tests.benchmarks.goals import GOALS, Ratio, needed
from tests.benchmarks.interpreters import Interpreter
from tests.benchmarks.payloads import ROWS, mixed, rows
from tests.benchmarks.report import Results, render
from tests.benchmarks.systems import SYSTEMS, taken_part
from tests.benchmarks.workloads import WORKLOADS

THRIFT = Path(__file__).parent / "benchmarks" / "systems" / "calculator.thrift"


def results(figures, name="CPython"):
    """Results with one sample of each rate."""
    interpreter = Interpreter("python", name, {system: None for system in SYSTEMS}, "oompa 1")
    run = Results(interpreter, list(SYSTEMS), list(WORKLOADS), ["rpyc"])
    for (system, workload), rate in figures.items():
        run.add(system, workload, {"rate": rate})
    return run


def test_every_goal_is_about_systems_that_take_part():
    for system, workload in needed():
        assert SYSTEMS[system].does(workload), (system, workload)


def test_each_line_of_the_goals_has_a_title_of_its_own():
    titles = [goal.title for goal in GOALS]
    assert len(titles) == len(set(titles))
    assert titles[0] == "W1S p50 ÷ rpyc" and titles[-1] == "W9, Pool ÷ Client on two processes"


@pytest.mark.parametrize(
    "ratio, found, is_missed",
    [
        (Ratio("a", "b", 1.6), 1.6, False),
        (Ratio("a", "b", 1.6), 1.596, False),  # 1.60 as it is printed
        (Ratio("a", "b", 1.6), 1.59, True),
        (Ratio("a", "b", None, 0.5), 0.51, True),
        (Ratio("a", "b", None, 0.5), 0.5, False),
        (Ratio("a", "b"), 9.0, False),
    ],
)
def test_a_goal_is_missed_by_what_is_printed(ratio, found, is_missed):
    assert ratio.is_missed_by(found) is is_missed


def test_a_report_has_the_ratios_of_every_interpreter_and_marks_what_is_missed():
    rates = {("oompa-pool", "W9"): 150.0, ("oompa-workers", "W9"): 100.0}
    faster = {**rates, ("oompa-pool", "W9"): 170.0}
    report = render([results(rates, "One"), results(faster, "Other")], "today")
    (line,) = re.findall(r"^\| W9, Pool .*", report, re.MULTILINE)
    assert [cell.strip() for cell in line.split("|")[2:-1]] == ["at least 1.6", "", "**1.50**", "-", "1.70", "-"]
    assert "- Python 1: One\n- Python 2: Other\n" in report
    assert report.count("### W9, calls/s") == 2 and "### W2" not in report


def test_a_workload_for_few_is_left_to_them_without_a_word():
    assert taken_part("W9") == ["oompa-workers", "oompa-pool"]
    assert "rpyc-brine" in taken_part("W8") and "rpyc-brine" not in taken_part("W1S")
    report = render([results({})], "today")
    assert "Pyro5, W2:" in report and "oompa-pool, " not in report


def test_the_structured_payloads_are_what_thrift_knows_them_as():
    fields, row = mixed(), rows()[0]
    assert (len(fields), len(rows())) == (40, ROWS)
    structs = dict(re.findall(r"struct (\w+) \{(.*?)\}", THRIFT.read_text(), re.DOTALL))
    assert re.findall(r"(\w+),\n", structs["Mixed"]) == list(fields)
    assert re.findall(r"(\w+),\n", structs["Row"]) == list(row)
