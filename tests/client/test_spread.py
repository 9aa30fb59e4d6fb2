"""Which of several links carries a call, and what holds for all of them: with links that only note what they are asked."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oompa.client.spread import Spread
from oompa.errors import ConnectionLost


class Noted:
    """Stands for a link."""

    def __init__(self, name, pending=0, is_connected=True, is_refused=False, is_ready=None, notes=None):
        self.name = name
        self.pending = pending
        self.is_connected = is_connected
        self.is_ready = is_connected if is_ready is None else is_ready
        self.is_refused = is_refused
        self.notes = [] if notes is None else notes

    def __len__(self):
        return self.pending

    def note(self, *what):
        self.notes.append((*what, self.name))

    def refuse_more(self):
        self.note("refuse more")

    def wait_settled(self, deadline):
        self.note("wait")
        return self.name != "slow"

    def begin_closing(self):
        self.note("begin")
        return f"farewell of {self.name}"

    def finish_closing(self, farewell):
        assert farewell == f"farewell of {self.name}"
        self.note("finish")


def drawn(*numbers):
    """A draw that gives these numbers, and no more."""
    return iter(numbers).__next__


def test_the_less_loaded_of_two_is_chosen_and_the_first_of_two_alike():
    a, b, c = Noted("a", 2), Noted("b", 1), Noted("c", 1)
    assert Spread([a, b, c], "", drawn(0.0, 0.0)).chosen() is b, "of a and b"
    assert Spread([a, b, c], "", drawn(0.0, 0.9)).chosen() is c, "of a and c"
    assert Spread([a, b, c], "", drawn(0.9, 0.9)).chosen() is c, "of c and b"
    assert Spread([a, b, c], "", drawn(0.4, 0.0)).chosen() is b, "of b and c"


@given(st.integers(1, 9), st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
@settings(deadline=None, database=None)
def test_the_two_differ_where_there_are_two(count, first, second):
    least = Noted("least")
    others = [Noted(str(number), 1) for number in range(count)]
    for place in range(count + 1):
        chosen = Spread([*others[:place], least, *others[place:]], "", drawn(first, second)).chosen()
        assert chosen is least or count > 1
    assert Spread([least], "", drawn(first, second)).chosen() is least


def test_every_two_are_drawn():
    links = [Noted(name) for name in "abc"]
    spread = Spread(links, "")
    chosen = [spread.chosen().name for _ in range(600)]
    assert all(chosen.count(name) > 100 for name in "abc")


@pytest.mark.parametrize("pending", [0, 5])
def test_one_that_is_connected_goes_before_any_that_is_not(pending):
    links = [Noted("a", is_connected=False), Noted("b", pending), Noted("c", is_connected=False)]
    assert {Spread(links, "").chosen().name for _ in range(50)} == {"b"}


def test_one_that_is_away_from_home_is_chosen_only_where_all_are_that_are_connected():
    away, home = Noted("away", is_ready=False), Noted("home", 5)
    unconnected = Noted("unconnected", is_connected=False)
    assert {Spread([away, home, unconnected], "").chosen().name for _ in range(50)} == {"home"}
    assert {Spread([away, unconnected], "").chosen().name for _ in range(50)} == {"away"}


def test_where_none_is_connected_one_that_was_refused_comes_last():
    links = [Noted("a", is_connected=False, is_refused=True), Noted("b", 3, is_connected=False)]
    assert {Spread(links, "").chosen().name for _ in range(50)} == {"b"}
    assert Spread(links[:1], "").chosen().name == "a", "so that the call tells why"


def test_all_say_goodbye_before_anybody_is_waited_for():
    notes = []
    Spread([Noted(name, notes=notes) for name in "abc"], "").close()
    assert [what for what, _ in notes] == ["begin"] * 3 + ["finish"] * 3


def test_all_refuse_more_before_anybody_is_waited_for_and_every_one_is():
    notes = []
    assert Spread([Noted(name, notes=notes) for name in ("slow", "quick")], "").drain(None) is False
    assert [what for what, _ in notes] == ["refuse more"] * 2 + ["wait"] * 2 + ["begin"] * 2 + ["finish"] * 2
    assert Spread([Noted("quick")], "").drain(None) is True


def test_a_connection_that_is_there_counts_whatever_the_others_say():
    class Failing(Noted):
        def meets_connection(self, deadline):
            raise ConnectionLost(f"no {self.name}")

    class Meeting(Noted):
        def meets_connection(self, deadline):
            return True

    for links in ([Failing("a"), Meeting("b")], [Meeting("a"), Failing("b")]):
        assert Spread(links, "")._meets_connection(0.0) is True
    with pytest.raises(ConnectionLost, match="no a"):
        Spread([Failing("a"), Failing("b")], "")._meets_connection(0.0)
