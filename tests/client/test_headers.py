"""Headers a user gives: what may be sent, and what belongs to the handshake. Case 15."""

import pytest

from oompa import Client
from oompa.client.headers import check_headers, is_token


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer t"}, {"Host": "a.example"}, {"Cookie": "a=b"}, {"X": ""}, {"X": "tab\there ü"}]
)
def test_what_may_be_sent_is_left_as_it_is(headers):
    checked = check_headers(headers)
    assert checked == headers and checked is not headers


@pytest.mark.parametrize(
    "name",
    [
        "Upgrade", "connection", "Sec-WebSocket-Key", "SEC-WEBSOCKET-VERSION", "Sec-WebSocket-Accept",
        "Sec-WebSocket-Extensions", "Content-Length", "Transfer-Encoding", "Oompa-Client",
    ],  # fmt: skip
)
def test_what_belongs_to_the_handshake_is_refused_by_name_where_it_is_written(name):
    """Case 15."""
    with pytest.raises(ValueError, match=f"headers may not have '{name}'") as refused:
        Client("ws://localhost:1", no_server=True, headers={"X-Good": "1", name: "s3cret"})
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "name, remedy", [("Sec-WebSocket-Protocol", "subprotocols="), ("Oompa-Max-Message-Size", "max_message_size")]
)
def test_what_an_option_says_is_refused_with_its_name(name, remedy):
    """Case 15."""
    with pytest.raises(ValueError, match=f"'{name}': give {remedy}"):
        check_headers({name: "5"})


def test_a_header_that_is_given_twice_is_refused():
    """Case 15: one of the two would be sent, or both."""
    with pytest.raises(ValueError, match="headers have 'host' twice"):
        check_headers({"Host": "a", "host": "b"})


@pytest.mark.parametrize("value", ["a\r\nEvil: s3cret", "s3cret\n", "s3cret\0", "s3cret\x7f", "s3cret\x1b[0m", "s3cret\ud800"])
def test_a_value_that_is_more_than_a_value_is_refused_and_not_shown(value):
    with pytest.raises(ValueError, match="the value of the header 'X'") as refused:
        check_headers({"X": value})
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("name", ["", "A B", "A:", "A\r\nEvil", "ü", "A\0", "(A)"])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match="cannot be the name of a header"):
        check_headers({name: "x"})
    assert not is_token(name)


@pytest.mark.parametrize("headers", [{"X": None}, {"X": 5}, {"X": b"s3cret"}, {5: "s3cret"}, {"X": ["s3cret"]}])
def test_names_and_values_must_be_strings(headers):
    with pytest.raises(TypeError, match="must be strings, not of type") as refused:
        check_headers(headers)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("headers", [[("X", "s3cret")], "X: s3cret", 5, b"X: s3cret"])
def test_headers_must_be_a_mapping_and_errors_show_none_of_them(headers):
    for check in (check_headers, lambda headers: Client("ws://localhost:1", no_server=True, headers=headers)):
        with pytest.raises(TypeError, match="headers must be a mapping") as refused:
            check(headers)
        assert "s3cret" not in str(refused.value)
