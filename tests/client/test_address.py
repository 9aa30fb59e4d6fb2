"""URLs of servers and proxies."""

import base64

import pytest
from websocket._url import get_proxy_info

from oompa.client.address import parse_url, parse_urls, proxy_options

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


# User and password. Case 10.


@pytest.mark.parametrize(
    "url, plain, credentials",
    [
        ("ws://ann:s3cret@host:81/p?q=1", "ws://host:81/p?q=1", "ann:s3cret"),
        ("wss://a%40b:p%3a%2F%25@[::1]/", "wss://[::1]/", "a@b:p:/%"),
        ("ws://ann@host", "ws://host", "ann:"),
        ("ws://p@ss:w@rd@host", "ws://host", "p@ss:w@rd"),
        ("ws://ann:@host", "ws://host", "ann:"),
    ],
)
def test_user_and_password_become_basic_authorization_and_leave_the_url(url, plain, credentials):
    """Case 10."""
    address = parse_url(url)
    assert address.url == plain
    assert address.authorization == f"Basic {base64.b64encode(credentials.encode()).decode()}"
    assert "ann" not in address.shown and "@" not in address.shown


def test_without_a_user_there_is_no_authorization():
    assert parse_url("ws://host").authorization is None and parse_url("ws://@host").authorization is None


@pytest.mark.parametrize("url", ["ws://a%3Ab:s3cret@host", "ws://a%3ab@host"])
def test_a_user_name_that_basic_authorization_cannot_carry_is_refused(url):
    """Case 10: :rfc:`7617` has no colon in a name."""
    with pytest.raises(ValueError, match="may not have a colon") as refused:
        parse_url(url)
    assert "s3cret" not in str(refused.value)


# Names that are not ASCII, Unix sockets, lists.


def test_a_name_is_resolved_and_checked_in_ascii():
    """Case 53: ``getaddrinfo`` would import a codec for it on the thread that connects."""
    address = parse_url("wss://bücher.example:444/ü?ß=1")
    assert (address.host, address.shown) == ("xn--bcher-kva.example", "wss://xn--bcher-kva.example:444")
    assert address.url == "wss://xn--bcher-kva.example:444/%C3%BC?%C3%9F=1"
    assert parse_url("ws://ann:ü@bücher.example").url == "ws://xn--bcher-kva.example"


@pytest.mark.parametrize("url", ["ws://ü..example", f"ws://{'ü' * 80}", "ws://host/\ud800", "ws://\ud800:x@host"])
def test_a_name_or_path_that_cannot_be_sent_is_a_value_error(url):
    with pytest.raises(ValueError, match="WebSocket URL|must be text"):
        parse_url(url)


@pytest.mark.parametrize(
    "url, path, resource",
    [
        ("ws+unix:/run/x.sock", "/run/x.sock", "/"),
        ("ws+unix:/run/x.sock:", "/run/x.sock", "/"),
        ("ws+unix:/run/x.sock:/path?q=1:2", "/run/x.sock", "/path?q=1:2"),
        ("ws+unix:///run/x.sock:/path", "/run/x.sock", "/path"),
        ("WS+UNIX:/run/a%3Ab%20c.sock:/", "/run/a:b c.sock", "/"),
    ],
)
def test_the_url_of_a_unix_socket_is_taken_apart(url, path, resource):
    address = parse_url(url)
    assert (address.path, address.resource, address.host_header) == (path, resource, "localhost")
    assert address.shown == f"ws+unix:{path}" and not address.is_secure


@pytest.mark.parametrize(
    "url",
    [
        "ws+unix:",
        "ws+unix:x.sock",
        "ws+unix://host/x.sock",
        "ws+unix:/a%00b",
        "ws+unix:/a%0Ab",
        "ws+unix:/a#b",
        "ws+unix:/a:b",
        f"ws+unix:/{'x' * 107}",
        "ws+unix:/x y",
    ],
)
def test_what_is_no_url_of_a_unix_socket_is_refused(url):
    with pytest.raises(ValueError, match="is no (URL of a Unix socket|WebSocket URL)"):
        parse_url(url)


@pytest.mark.parametrize(
    "url, host",
    [("ws://h", "h"), ("ws://h:81", "h:81"), ("wss://h", "h"), ("wss://h:80", "h:80"), ("ws://[::1]:9", "[::1]:9")],
)
def test_the_host_header_has_the_port_unless_it_is_the_schemes_own(url, host):
    assert parse_url(url).host_header == host


def test_a_list_of_urls_is_taken_apart_one_by_one():
    assert [address.port for address in parse_urls(["ws://a:1", "ws://b:2"])] == [1, 2]
    assert parse_urls(("ws://a:1",)) == parse_urls("ws://a:1") == [parse_url("ws://a:1")]
    for urls in ([], ["ws://a", "http://b"], {"ws://a"}, [["ws://a"]]):
        with pytest.raises(ValueError, match="URL"):
            parse_urls(urls)


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
    "url",
    [
        "ftp://ann:s3cret@host/?key=s3cret",
        "http://ann:s3cret@:3128",
        "wss://ann:s3cret@host:x/",
        "ws://a:s3cret@h/#x",
        "ws://ann:x/s3cret@host",
        "ws://ann:x?s3cret@host:x",
        "ws://ann:s3cret?1@host:x",
        "ws://ann:1#s3cret@host:x",
        "http://ann:s3cret/1@:3128",
        "ann:s3cret@host:9000",
        "ws:ann:s3cret@host",
        "//ann:s3cret@host",
        "ws://host:x/?mail=s3cret@s3cret",
    ],
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
