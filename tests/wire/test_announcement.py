"""What each end tells the other in the handshake, and what is made of anything else."""

import pytest

from oompa.wire.announcement import FEATURES, Announcement, client_headers, read_announcement, server_headers


def read(headers):
    return read_announcement(headers.get)


def test_what_a_server_tells_is_read_by_a_client():
    assert read(server_headers(1000)) == Announcement(frozenset(FEATURES), 1000, None)
    assert read(server_headers(1000, "0f3a.12")) == Announcement(frozenset(FEATURES), 1000, None, "0f3a.12")


def test_what_a_client_tells_is_read_by_a_server():
    assert read(client_headers("abcDEF-_0189", 1000)) == Announcement(frozenset(), 1000, "abcDEF-_0189")


def test_who_tells_nothing_has_no_features_no_limit_and_no_name():
    assert read({}) == Announcement(frozenset(), None, None)


@pytest.mark.parametrize("value, features", [("", set()), (" , ,", set()), ("meta", {"meta"}), ("a,b ,  c", {"a", "b", "c"})])
def test_features_are_a_list_of_names_known_or_not(value, features):
    assert read({"Oompa-Features": value}).features == features


@pytest.mark.parametrize("value", ["", "0", "-1", "1.5", "1e3", " 5", "5 ", "+5", "0x10", "٣", "many", "9" * 20])
def test_a_limit_that_is_no_number_of_bytes_is_none(value):
    assert read({"Oompa-Max-Message-Size": value}).max_message_size is None


@pytest.mark.parametrize("value", ["", "a" * 65, "a b", "a/b", "a+b", "a\r\nb", "ä", "="])
def test_a_client_id_that_is_no_base64url_or_too_long_is_none(value):
    assert read({"Oompa-Client": value}).client_id is None


@pytest.mark.parametrize("value", ["a", "a" * 64, "AZaz09-_", "YQ=="])
def test_any_other_client_id_is_taken_as_it_is(value):
    assert read({"Oompa-Client": value}).client_id == value


@pytest.mark.parametrize("value, taken", [("a" * 64, "a" * 64), ("", None), ("a" * 65, None), ("a b", None), ("ä", None)])
def test_a_server_id_that_is_none_is_none(value, taken):
    assert read({"Oompa-Server": value}).server_id == taken
