"""URLs of servers and proxies."""

import pytest
from websocket._url import get_proxy_info

from oompa.client.address import parse_url, proxy_options

# URLs.


@pytest.mark.parametrize(
    "url, host, port, is_secure",
    [
        ("ws://localhost:9000", "localhost", 9000, False),
        ("ws://localhost", "localhost", 80, False),
        ("wss://localhost", "localhost", 443, True),
        ("wss://example.com/path/to?x=1&y=2", "example.com", 443, True),
        ("ws://example.com:8080/", "example.com", 8080, False),
        ("ws://127.0.0.1:1", "127.0.0.1", 1, False),
        ("ws://[::1]:65535/x", "::1", 65535, False),
        ("ws://[fe80::1]", "fe80::1", 80, False),
        ("ws://localhost:", "localhost", 80, False),
        ("ws://EXAMPLE.com", "example.com", 80, False),
    ],
)
def test_a_websocket_url_is_taken_apart(url, host, port, is_secure):
    assert parse_url(url)[:4] == (url, host, port, is_secure)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:9000",
        "//localhost:9000",
        "http://localhost:9000",
        "https://localhost",
        "tcp://localhost",
        "ws:",
        "ws://",
        "ws:///path",
        "ws://:9000",
        "ws:localhost:9000",
        "ws://localhost:port",
        "ws://localhost:-1",
        "ws://localhost:65536",
        "ws://[::1",
        "ws://localhost/#fragment",
        "ws://local host",
        "ws://localhost/a b",
        " ws://localhost",
        "ws://localhost\n",
        "ws://localhost/\r\nX-Evil: 1",
        "ws://localhost/\t",
        "ws://localhost/\x7f",
        "ws://localhost/\x00",
    ],
    ids=ascii,
)
def test_anything_else_is_a_value_error_that_shows_the_url(url):
    with pytest.raises(ValueError) as refusal:
        parse_url(url)
    assert repr(url) in str(refusal.value)
    assert "is no WebSocket URL" in str(refusal.value)


@pytest.mark.parametrize("url", [None, 9000, b"ws://localhost", ("localhost", 9000)])
def test_a_url_that_is_no_string_is_a_value_error(url):
    with pytest.raises(ValueError, match="the URL must be a string such as 'ws://localhost:9000', not "):
        parse_url(url)


def test_port_zero_is_no_port():
    """It must not mean the default port: nobody wrote that."""
    with pytest.raises(ValueError, match="is no WebSocket URL"):
        parse_url("ws://localhost:0")


@pytest.mark.parametrize("url", ["WS://localhost", "Wss://localhost"])
def test_a_url_that_is_accepted_can_be_opened_whatever_the_case_of_its_scheme(url):
    """websocket-client knows ``ws`` and ``wss`` in small letters alone: accepted as it is, every connect would fail."""
    try:
        address = parse_url(url)
    except ValueError:
        return
    assert address.url.startswith(("ws://", "wss://"))


# Proxies.


def test_without_a_proxy_there_are_no_options():
    assert proxy_options(None) == {}


def test_a_proxy_url_is_taken_apart():
    assert proxy_options("http://proxy.example:3128") == {
        "http_proxy_host": "proxy.example",
        "http_proxy_port": 3128,
        "proxy_type": "http",
        "http_no_proxy": ["\0"],
    }


@pytest.mark.parametrize("scheme", ["http", "socks4", "socks4a", "socks5", "socks5h"])
def test_a_proxy_may_be_of_any_kind_that_websocket_client_knows(scheme):
    assert proxy_options(f"{scheme}://[::1]:1080")["proxy_type"] == scheme


@pytest.mark.parametrize(
    "user, credentials",
    [("user:password", ("user", "password")), ("user", ("user", "")), ("us%40er:pass%3Aword", ("us@er", "pass:word"))],
)
def test_a_proxy_url_may_have_credentials(user, credentials):
    assert proxy_options(f"http://{user}@proxy.example:3128")["http_proxy_auth"] == credentials


def test_a_proxy_that_was_asked_for_has_no_exceptions_from_the_environment(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    options = proxy_options("http://proxy.example:3128")
    host, port, _ = get_proxy_info(
        "localhost",
        False,
        proxy_host=options["http_proxy_host"],
        proxy_port=options["http_proxy_port"],
        no_proxy=options["http_no_proxy"],
        proxy_type=options["proxy_type"],
    )
    assert (host, port) == ("proxy.example", 3128)


@pytest.mark.parametrize(
    "proxy",
    [
        "",
        "proxy.example:3128",
        "http://proxy.example",
        "http://:3128",
        "https://proxy.example:3128",
        "ftp://proxy.example:21",
        "http://proxy.example:port",
        "http://proxy.example:0",
        "http://proxy.example:99999",
        "http://[::1:3128",
    ],
    ids=repr,
)
def test_anything_else_is_a_value_error_that_shows_the_proxy(proxy):
    with pytest.raises(ValueError) as refusal:
        proxy_options(proxy)
    assert f"{proxy!r} is no proxy URL" in str(refusal.value)


@pytest.mark.parametrize(
    "url", ["ftp://ann:s3cret@host/?key=s3cret", "http://ann:s3cret@:3128", "wss://ann:s3cret@host:x/", "ws://a:s3cret@h/#x"]
)
@pytest.mark.parametrize("parse", [parse_url, proxy_options])
def test_errors_about_urls_show_no_secrets(parse, url):
    with pytest.raises(ValueError, match=r"is no (WebSocket|proxy) URL") as refusal:
        parse(url)
    assert "s3cret" not in str(refusal.value)


@pytest.mark.parametrize("proxy", [3128, b"http://proxy.example:3128", ("proxy.example", 3128)])
def test_proxy_that_is_no_string_is_a_type_error(proxy):
    with pytest.raises(TypeError, match="proxy must be a URL"):
        proxy_options(proxy)
