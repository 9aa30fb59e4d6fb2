"""README.md's code blocks run, in order, as a reader would run them; its commands are those CI runs."""

import logging
import pathlib
import re

import pytest
from conftest import CEILING, DESCRIBED
from ports import reserved_port

README = pathlib.Path(__file__).parent.parent.joinpath("README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_python_blocks_run_in_order(capsys, caplog):
    caplog.set_level(logging.DEBUG)
    namespace = {"__name__": "readme"}
    with reserved_port() as port:
        try:
            for block in blocks("python"):
                exec(block.replace("9000", str(port)), namespace)
            with namespace["Client"](f"ws://localhost:{port}") as client:
                assert [client.call("ADD", {"x": 2, "y": 3}) for _ in range(2)] == [5, 5]
            assert namespace["cache"] == {("ADD", 1, 6): 7, ("ADD", 2, 3): 5}
        finally:
            namespace["server"].close().result(CEILING)
    assert capsys.readouterr().out == "ZeroDivisionError: division by zero\n9900\n"


def test_commands_set_up_everything_themselves():
    run, test = blocks("sh")[:2]
    for command in (run, test):
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install")
    assert "examples.calculator_client" in run and "-m pytest" in test


@pytest.mark.parametrize("side", DESCRIBED)
def test_tables_show_every_option_as_it_is_described(side):
    for name, option in DESCRIBED[side].items():
        assert f"| `{name}` | {shown(option)} | {option.meaning} |" in README.splitlines()


def shown(option):
    """A default as the tables show it."""
    if option.shown:
        return option.shown
    text = repr(option.default).replace("'", '"')
    return f"`{text}`" if isinstance(option.default, (str, dict)) else text
