"""``oompa.stub``: a client in Python out of a document, whatever the names in it."""

import ast
import keyword
import os
import pathlib
import subprocess
import sys
from typing import Dict, List, Literal, Optional, get_args

import needs
import pytest
from conftest import CEILING
from hypothesis import given, settings
from hypothesis import strategies as st

from oompa import Client, Schema, Server
from oompa.server.asyncapi import document
from oompa.stub import annotation_of, class_name, module_text, snake_case


def tasks():
    schema = Schema()

    @schema.task("ADD")
    def add(x: float, y: float = 1.5) -> float:
        """Add two numbers.

        The second may be left out.
        """
        return x + y

    @schema.task("get-User")
    def get(id: int, *, tags: Optional[List[str]] = None, kind: Literal["a", '"'] = "a") -> Dict[str, int]:
        return {"id": id, "tags": len(tags or [])}

    @schema.task("NOTHING")
    def nothing() -> None:
        """Do nothing, "well"."""

    schema["ECHO"] = lambda payload: payload
    schema["call"] = lambda payload: "call"
    schema["class"] = lambda payload: "class"
    schema["Get User"] = lambda payload: "other"
    return schema


def made(schema, title="calculator"):
    """The namespace of the module for a schema, and its text."""
    text = module_text(document(title, "", "/", schema))
    namespace = {"__name__": "stub"}
    exec(compile(text, "stub", "exec"), namespace)
    return namespace, text


def test_methods_call_the_tasks(serve):
    server = serve(tasks(), name="my calculator")
    namespace, _ = made(tasks(), "my calculator")
    with namespace["MyCalculator"](f"ws://127.0.0.1:{server.port}") as client:
        assert isinstance(client, Client)
        assert client.add(1, 2).result(CEILING) == 3
        assert client.add(x=1).result(CEILING) == 2.5
        assert client.get_user(5).result(CEILING) == {"id": 5, "tags": 0}
        assert client.get_user(5, tags=["a"]).result(CEILING) == {"id": 5, "tags": 1}
        assert client.nothing().result(CEILING) is None
        assert client.echo([1]).result(CEILING) == [1]
        assert client.call_().result(CEILING) == "call"
        assert client.class_().result(CEILING) == "class"
        assert client.get_user_2().result(CEILING) == "other"


def test_methods_have_the_docstrings_of_the_tasks():
    namespace, _ = made(tasks())
    methods = namespace["Calculator"]
    assert ast.get_docstring(ast.parse(made(tasks())[1])).startswith("A client of calculator.")
    assert methods.add.__doc__.split() == "Add two numbers. The second may be left out.".split()
    assert methods.nothing.__doc__ == 'Do nothing, "well".'
    assert methods.echo.__doc__ == "Dispatch ECHO."


def test_what_is_written_is_strictly_typed(tmp_path):
    needs.package("mypy")
    schema = tasks()
    schema['"""'] = lambda payload: payload
    schema["\\N{x}"] = lambda payload: payload
    (tmp_path / "stub.py").write_text(module_text(document("calculator", "", "/", schema)))
    (tmp_path / "used.py").write_text(
        "from stub import Calculator\n"
        "client = Calculator('ws://localhost:9000', no_server=True)\n"
        "good: float = client.add(1.0).result()\n"
        "wrong: str = client.add(1.0).result()\n"
        "client.add('x')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--cache-dir", os.devnull, "stub.py", "used.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(pathlib.Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    errors = [line.partition(": error: ")[::2] for line in done.stdout.splitlines() if line.startswith(("stub.py", "used.py"))]
    assert [place for place, told in errors if told] == ["used.py:4", "used.py:5"], done.stdout + done.stderr


@pytest.mark.parametrize(
    "task, name",
    [
        ("ADD", "add"),
        ("getUser", "get_user"),
        ("GET USER", "get_user"),
        ("a.b/c", "a_b_c"),
        ("7days", "_7days"),
        ("", "task"),
        ("\u20ac", "task"),
        ("__init__", "init"),
    ],
)
def test_task_types_become_snake_case(task, name):
    assert snake_case(task) == name


def test_titles_become_names_of_classes():
    assert [class_name(each) for each in ("calculator", "my.app", "", "3d", "any", "client")] == [
        "Calculator",
        "MyApp",
        "Server",
        "Server3d",
        "AnyClient",
        "ClientClient",
    ]


@pytest.mark.parametrize(
    "schema, annotation",
    [
        ({}, "Any"),
        (None, "Any"),
        ({"type": "integer"}, "int"),
        ({"type": ["integer", "null"]}, "Any"),
        ({"type": "array"}, "list[Any]"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "dict[str, str]"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "Union[int, None]"),
        ({"anyOf": [{"type": "integer"}, {}]}, "Any"),
        ({"anyOf": [{"type": "integer"}, {"type": "integer"}]}, "int"),
        ({"enum": [1, None]}, "Literal[1, None]"),
        ({"enum": [1.5]}, "Any"),
    ],
)
def test_json_schemas_become_annotations(schema, annotation):
    assert annotation_of(schema) == annotation


hostile = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from([*keyword.kwlist, *dir(Client)]),
    st.sampled_from(['"""', "'", "\\", "self", "Any", "_given", "__x", "a\n    b", '\\"""', "x\\"]),
)


@settings(deadline=None)
@given(st.lists(hostile, unique=True, max_size=6), hostile, hostile, st.lists(hostile, unique=True, max_size=4))
def test_hostile_names_give_legal_code_that_sends_them(types, title, doc, keys):
    def factory(payload):
        raise NotImplementedError

    factory.__doc__ = doc
    told = document(title, "", "/", dict.fromkeys(types, factory))
    for task in types:
        request = told["channels"]["oompa"]["messages"][f"{task}.request"]["payload"]["properties"]
        properties = {key: {"enum": [doc, key]} for key in keys}
        request["payload"] = {"properties": properties, "required": keys[::2], "additionalProperties": False}
    namespace = {"__name__": "stub"}
    text = module_text(told)
    exec(compile(text, "stub", "exec"), namespace)
    (cls,) = [each for each in namespace.values() if isinstance(each, type) and issubclass(each, Client) and each is not Client]
    methods = [name for name, value in vars(cls).items() if callable(value)]
    assert len(methods) == len(types)
    assert not set(methods) & set(dir(Client))
    for name in methods if keys else ():
        hints = [eval(hint, namespace) for hint in getattr(cls, name).__annotations__.values()][:-1]
        assert {get_args(each) for each in hints} == {get_args(Literal[doc, key]) for key in keys}
    sent = []
    fake = type("Fake", (), {"dispatch": lambda self, *args: sent.append(args)})()
    for name in methods:
        getattr(cls, name)(fake, *range(len(keys)))
    ordered = [*keys[::2], *(each for each in keys if each not in keys[::2])]
    payload = [{key: number for number, key in enumerate(ordered)}] if keys else []
    assert sent == [(task, *payload) for task in types]


@pytest.mark.parametrize("other", [{}, {"info": {"title": "x"}, "operations": {"A": {}}}, {"info": {"title": "x"}}])
def test_a_document_of_another_kind_is_refused(other):
    with pytest.raises(ValueError, match="no AsyncAPI document of an oompa server"):
        module_text(other)


def test_the_document_of_a_real_server_is_one():
    compile(module_text(Server(tasks()).asyncapi()), "stub", "exec")
