"""How tables and durations look."""

from oompa.cli.output import duration, table


def test_numbers_stand_to_the_right():
    assert table(("TASK", "CALLS"), [("ADD", 5), ("DIVIDE", 1000)]) == ["TASK    CALLS", "ADD         5", "DIVIDE   1000"]
    assert table(("TASK", "DOC"), []) == ["TASK  DOC"]
    assert table(("TASK", "DOC"), [("A", "x"), ("B", "")]) == ["TASK  DOC", "A     x", "B"]


def test_durations_have_their_unit():
    assert [duration(each) for each in (0, 0.000015, 0.0123, 2.5)] == ["0 us", "15 us", "12.3 ms", "2.50 s"]
