"""The explorer: who may open it, where its files are, and, in a real Chromium, what a person can do on it."""

import re
from importlib.resources import files

import flask
import pytest

from oompa import Server
from oompa.server.explorer import check_reach

HERE = {"REMOTE_ADDR": "127.0.0.1", "SERVER_PROTOCOL": "HTTP/1.1"}


def visit(server, path="/explore", **environ):
    """The answer to a browser that opens a page."""
    visitor = getattr(server, "app", server).test_client()
    return visitor.get(path, base_url="http://localhost:9000", environ_overrides={**HERE, **environ})


# Options.


@pytest.mark.parametrize("value", ["explore", "", 5, True, b"/explore"])
def test_what_is_no_path_is_refused(value):
    with pytest.raises(ValueError, match="^explorer must be a path that starts with '/', not "):
        Server({}, explorer=value)


@pytest.mark.parametrize(
    "options, taken",
    [
        ({"explorer": "/"}, "'/', which is that of path"),
        ({"explorer": "/health"}, "'/health', which is that of health_path"),
        ({"explorer": "/a", "path": "/a/page.js"}, "'/a/page.js', which is that of path"),
        ({"explorer": "/a/", "health_path": "/a/page.css"}, "'/a/page.css', which is that of health_path"),
    ],
)
def test_a_path_that_the_server_has_already_is_refused(options, taken):
    with pytest.raises(ValueError, match=f"^explorer='{options['explorer']}' needs the path {taken}$"):
        Server({}, **options)


def test_a_route_of_the_application_is_not_hidden():
    app = flask.Flask("site")
    app.add_url_rule("/explore/page.js", "script", lambda: "mine")
    with pytest.raises(ValueError, match="explorer='/explore/page.js': the application has a route of this path already"):
        Server({}, path="/ws", explorer="/explore").init_app(app)


def test_without_introspection_there_is_nothing_to_explore():
    with pytest.raises(ValueError, match="^explorer needs introspection=True"):
        Server({}, explorer="/explore", introspection=False)


def test_there_is_none_unless_it_is_asked_for():
    assert visit(Server({})).status_code == visit(Server({}), "/explore/page.js").status_code == 404


# Who may open it.


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1"])
def test_a_server_that_would_be_open_to_the_world_does_not_listen(host):
    server = Server({}, explorer="/explore")
    with pytest.raises(ValueError, match=r"would let everybody who reaches .*listen on loopback.*Server\(authenticate=\.\.\.\)"):
        server.listen(0, host)
    assert server.port is None
    check_reach(Server({}, explorer="/explore", authenticate=lambda _: True)._options, host)
    check_reach(Server({})._options, host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_is_no_world(host):
    check_reach(Server({}, explorer="/explore")._options, host)


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"])
def test_who_sits_at_this_machine_sees_it(peer):
    assert visit(Server({}, explorer="/explore"), REMOTE_ADDR=peer).status_code == 200


@pytest.mark.parametrize(
    "environ, why",
    [
        ({"REMOTE_ADDR": "192.0.2.7"}, "answers loopback alone, not 192.0.2.7;"),
        ({"REMOTE_ADDR": "::ffff:192.0.2.7"}, "answers loopback alone, not ::ffff:192.0.2.7;"),
        ({"REMOTE_ADDR": "<local>"}, "answers loopback alone, not <local>;"),
        ({"REMOTE_ADDR": ""}, "answers loopback alone, not a Unix socket;"),
        ({"HTTP_X_FORWARDED_FOR": "127.0.0.1"}, "behind a proxy (there is a header X-Forwarded-For);"),
        ({"HTTP_X_FORWARDED_PROTO": "https"}, "behind a proxy (there is a header X-Forwarded-Proto);"),
        ({"HTTP_FORWARDED": "for=127.0.0.1"}, "behind a proxy (there is a header Forwarded);"),
        ({"HTTP_VIA": "1.1 vegur"}, "behind a proxy (there is a header Via);"),
        ({"HTTP_X_REAL_IP": "127.0.0.1"}, "behind a proxy (there is a header X-Real-Ip);"),
        ({"SERVER_PROTOCOL": "HTTP/1.0"}, "answers no HTTP/1.0"),
        ({"HTTP_HOST": "rebound.example:9000"}, 'the Host "rebound.example:9000" may not be called here;'),
    ],
)
@pytest.mark.parametrize("path", ["/explore", "/explore/page.js", "/explore/page.css"])
def test_nobody_else_does_without_authenticate(path, environ, why):
    answer = visit(Server({}, explorer="/explore"), path, **environ)
    assert (answer.status_code, answer.mimetype) == (403, "text/plain")
    assert why in answer.text


def test_with_authenticate_it_is_the_same_door_as_that_of_the_websocket():
    def authenticate(request):
        if request.headers.get("Key") == "stolen":
            raise PermissionError("not you")
        return request.headers.get("Key")

    server = Server({}, explorer="/explore", authenticate=authenticate)
    far = {"REMOTE_ADDR": "192.0.2.7", "HTTP_X_FORWARDED_FOR": "192.0.2.8", "HTTP_HOST": "example.com"}
    for path in ("/explore", "/explore/page.js", "/explore/page.css"):
        nobody, somebody, thief = (visit(server, path, **far, HTTP_KEY=key) for key in ("", "mine", "stolen"))
        assert (nobody.status_code, somebody.status_code, thief.status_code) == (401, 200, 403)
        assert nobody.headers["WWW-Authenticate"].startswith("Basic realm=")
        assert "WWW-Authenticate" not in thief.headers


def test_hosts_hold_for_the_page_as_well():
    server = Server({}, explorer="/explore", authenticate=lambda _: True, hosts=["example.com"])
    assert visit(server, HTTP_HOST="example.com:9000").status_code == 200
    assert visit(server, HTTP_HOST="other.example").status_code == 403


# What is answered.


@pytest.mark.parametrize(
    "explorer, path, script, endpoint",
    [
        ("/explore", "/", "explore/page.js", "./"),
        ("/explore", "/ws", "explore/page.js", "ws"),
        ("/explore/", "/ws/", "page.js", "../ws/"),
        ("/a/b", "/c/d", "b/page.js", "../c/d"),
        ("/", "/ws", "page.js", "ws"),
    ],
)
def test_the_page_names_its_files_and_the_websocket_relative_to_itself(explorer, path, script, endpoint):
    page = visit(Server({}, explorer=explorer, path=path), explorer).text
    assert re.search('src="(.*?)"', page)[1] == script
    assert re.search('data-endpoint="(.*?)"', page)[1] == endpoint


def test_a_path_of_any_letters_stays_a_path():
    server = Server({}, explorer='/"x y"', path="/a:b")
    page = visit(server, "/%22x%20y%22").text
    assert 'src="%22x%20y%22/page.js"' in page and 'data-endpoint="a%3Ab"' in page


def test_nothing_is_allowed_but_its_own_files_and_its_websocket():
    server = Server({}, explorer="/explore")
    for path, mimetype in [("", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")]:
        answer = visit(server, f"/explore{path}")
        assert (answer.status_code, answer.mimetype) == (200, mimetype)
        policy = dict(each.split(" ", 1) for each in answer.headers["Content-Security-Policy"].split("; "))
        assert policy == {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": "'self'",
            "connect-src": "'self' ws://localhost:9000 wss://localhost:9000",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
            "require-trusted-types-for": "'script'",
            "trusted-types": "'none'",
        }
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("host", ["a; script-src *", "a b", "a,b", ""])
def test_a_host_header_adds_nothing_to_the_policy(host):
    server = Server({}, explorer="/explore", authenticate=lambda _: True)
    assert "connect-src 'self'; base-uri" in visit(server, HTTP_HOST=host).headers["Content-Security-Policy"]


def test_the_files_come_with_the_package_and_have_nothing_inline():
    folder = files("oompa") / "explorer"
    assert {each.name for each in folder.iterdir()} == {"page.html", "page.js", "page.css"}
    page = (folder / "page.html").read_text()
    assert not re.search(r"<style|<script(?![^>]*\bsrc=)|\sstyle=|\son\w+=|https?:", page)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|\beval\b|new Function", (folder / "page.js").read_text())
