"""The id of a message that cannot be read (Case 31)."""

import time

import pytest

from oompa.wire.lenient import id_in


@pytest.mark.parametrize(
    "payload",
    [
        r'"caf\ud83c"',
        "NaN",
        "-Infinity",
        "1" * 5000,
        "[" * 20_000 + "]" * 20_000,
        '{"a":' * 5000 + "1" + "}" * 5000,
        '{"id": "another", "x": NaN}',
        '[{"id": "another"}, NaN]',
        r'"\", \"id\": \"another\" \ud800"',
        '"\x01"',
        "{,}",
        "tru",
    ],
    ids=range(12),
)
@pytest.mark.parametrize("form", ['{"id":"7","type":"T","payload":%s}', '{"type":"T","payload":%s , "id" : "7" }'])
@pytest.mark.parametrize("kind", [str, str.encode])
def test_an_id_beside_what_cannot_be_read_is_found(payload, form, kind):
    assert id_in(kind(form % payload)) == "7"


@pytest.mark.parametrize(
    "text, id",
    [
        ('{"id": 7, "payload": NaN}', 7),
        ('{"x": NaN, "id": [1, {"a": null}]}', [1, {"a": None}]),
        ('{"id": null, "x": NaN}', None),
        ('{"id": true, "x": NaN}', True),
    ],
)
def test_an_id_may_be_any_value(text, id):
    assert id_in(text) == id


@pytest.mark.parametrize("text", ['{"id": "7", "type": "T", "payl', '{"id":"7"', '{"type": "T", "id": 7, "payload": "abc'])
def test_an_id_is_found_in_a_text_that_ends_too_early(text):
    assert id_in(text + ",") in ("7", 7)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", "id", '["id", 7]', '{"x": {"id": 7}, NaN}', '{"id": 12', '{"id": "half', '{"id": [1, ']
    + ['{"id" 7, NaN}', '{"idea": 7, NaN}', '["a", {"id": 7}', '"id": 7,', '{"x": "\\"id\\": 7,"'],
)
def test_where_there_is_no_id_none_is_found(text):
    assert id_in(text) is None


def test_the_last_of_two_ids_counts_as_it_does_for_json():
    assert id_in('{"id": 1, "x": NaN, "id": 2}') == 2


@pytest.mark.parametrize(
    "text",
    ['{"a":' + '"\\"' * 300_000, "{" + '"' * 600_000, "{" * 2_000_000, '{"a": ' + "[]" * 2_000_000]
    + ["{" + "\\\\" * 500_000 + '"', "{" + " " * 2_000_000, '{"id"' + " " * 2_000_000],
    ids=range(7),
)
def test_looking_for_an_id_takes_no_longer_for_a_hostile_text(text):
    started = time.thread_time()
    assert id_in(text) is None
    assert time.thread_time() - started < 5.0
