"""The explorer: who may open it, where its files are, and, in a real Chromium, what a person can do on it."""

import json
import os
import pathlib
import re
import socket
import ssl
import subprocess
import tempfile
import threading
from importlib.resources import files
from typing import List, Literal, Optional, TypedDict
from urllib.parse import quote

import flask
import needs
import pytest
import trustme
from browser import chromium
from conftest import CEILING, wait_until
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from oompa import Schema, Server, TaskError, current_request
from oompa.server import introspection
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
    with pytest.raises(ValueError, match=r"everybody who reaches .*: listen on loopback.*; or Server\(authenticate=\.\.\.\)"):
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


NGINX = """
daemon off; worker_processes 1; error_log stderr; pid {folder}/pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen unix:{folder}/plain;
        location / {{ proxy_pass http://127.0.0.1:{port}; }}
    }}
    server {{
        listen unix:{folder}/old;
        location / {{ proxy_pass http://127.0.0.1:{port}; proxy_http_version 1.0; }}
    }}
    server {{
        listen unix:{folder}/upgrading;
        location / {{
            proxy_pass http://127.0.0.1:{port};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
        }}
    }}
}}
"""


@pytest.fixture
def nginx(serve):
    """An nginx that says nothing of itself before an explorer: ``nginx(place, path, **headers)`` gives an answer's status."""
    program = needs.program("nginx")
    port = serve(explorer="/explore").port
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "conf").write_text(NGINX.format(folder=folder, port=port))
        process = subprocess.Popen([program, "-p", folder, "-c", f"{folder}/conf", "-e", "stderr"], stderr=subprocess.DEVNULL)

        def ask(place, path, **headers):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(CEILING)
                sock.connect(f"{folder}/{place}")
                lines = {"Host": "public.example", "Connection": "close", **headers}
                head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
                sock.sendall(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
                return int(sock.makefile("rb").readline().split()[1])

        try:
            wait_until(lambda: os.path.exists(f"{folder}/upgrading"))
            yield ask
        finally:
            process.terminate()
            process.wait(CEILING)


def test_a_proxy_that_says_nothing_of_itself_opens_it_to_nobody(nginx):
    """Of one that speaks HTTP/1.1, as nginx does by itself from 1.29.7 on, the page may be seen, which holds nothing; but no
    call comes through."""
    assert nginx("old", "/health") == 200
    assert nginx("old", "/explore") == 403
    websocket = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    assert nginx("plain", "/health") == 200
    assert nginx("plain", "/", **websocket) != 101
    assert nginx("upgrading", "/", **websocket, Origin="http://public.example") == 403
    assert nginx("upgrading", "/", **websocket) == 101, "it does come through from what is no browser"


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
        assert {each.headers["X-Content-Type-Options"] for each in (nobody, somebody, thief)} == {"nosniff"}
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


# In a browser.


class Item(TypedDict):
    article: str
    count: int


def shop():
    """Tasks of every kind, and the payloads that they have got."""
    schema, got = Schema(), []

    @schema.task("ADD")
    def add(x: int, y: float = 0.5):
        """Add two numbers.

        The second may be left out.
        """
        return x + y

    @schema.task("FAIL")
    def fail():
        """Never works."""
        raise TaskError("out of paper", code="unavailable", data={"tray": [2, 3]})

    @schema.task("ORDER")
    def order(
        items: List[Item],
        size: Literal["S", "M"],
        gift: bool,
        note: Optional[str] = None,
        billing: Optional[Item] = None,
        extra: dict = {},
    ):
        got.append({"items": items, "size": size, "gift": gift, "note": note, "billing": billing, "extra": extra})
        return len(items)

    @schema.task("SLOW")
    def slow():
        """Tells how far it is."""
        request = current_request()
        for step in (1, 2, 3):
            request.progress(step, 4, f"step {step}")
            gates[step].wait(CEILING)
        return "done"

    gates = {step: threading.Event() for step in (1, 2, 3)}
    schema["ECHO"] = lambda payload: payload
    return schema, got, gates


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture
def tab(browser, request):
    """A tab, whose test fails when the browser has anything to complain of.

    With $SCREENSHOTS, a folder, what each test has come to is to be seen there.
    """
    with browser.tab() as found:
        yield found
        if "SCREENSHOTS" in os.environ:
            found.screenshot(f"{os.environ['SCREENSHOTS']}/{re.sub(r'[^a-z0-9_]+', '-', request.node.name)}.png")
        assert found.complaints == []


@pytest.fixture
def explore(serve, tab):
    """Show the explorer of a server: ``explore(schema, task, **options)`` opens a task of it."""

    def start(schema, task="", *, width=1280, scheme="light", healthcheck=None, **options):
        server = serve(schema, healthcheck, explorer="/explore", **options)
        tab.open(f"http://127.0.0.1:{server.port}/explore#/{quote(task, safe='')}", width=width, scheme=scheme)
        tab.wait("document.querySelectorAll('#tasks li').length")
        return server

    return start


SUBMIT = ".task > form button[type=submit]"
ENDED = "document.querySelector('.call:is([data-state=ok], [data-state=error])')"


def test_a_task_is_described_called_and_timed(explore, tab):
    server = explore(shop()[0], "ADD", name="shop", version="2.0")
    assert tab.text("h1") == "shop 2.0"
    assert tab.text(".about").split("\n") == ["ADD", "", "Add two numbers.", "", "The second may be left out."]
    assert [each.strip() for each in tab.text(".fields").split("\n") if each] == ["x integer", "y number · default 0.5"]
    tab.fill(".fields input", "41")
    tab.click(SUBMIT)
    tab.wait(ENDED)
    assert tab.text(".call pre") == "41.5"
    assert tab.text(".badge") == "OK" and tab.text(".sent") == '{"x":41}'
    tab.click(".call button")
    tab.wait("['Copied', 'Not allowed'].includes(document.querySelector('.call button').textContent)")
    assert re.fullmatch(r"[\d.]+\s(µs|ms|s)", tab.text(".elapsed"))
    tab.wait("document.querySelectorAll('circle').length === 1 && document.querySelectorAll('rect').length === 1")
    assert tab.text("figure:nth-of-type(2) .hint").startswith("1 request, 0 failed · mean ")
    labels = tab.run("[...document.querySelectorAll('svg text')].map((each) => each.textContent)")
    assert {"round trip", "call", "time a task ran", "requests"} <= set(labels)
    assert sum(each.endswith(("s",)) and "\xa0" in each for each in labels) >= 4, "durations have their unit"
    assert tab.run("[...document.querySelectorAll('.count')].map((each) => each.textContent)") == ["1", "", "", "", ""]
    assert server.stats()["tasks"]["ADD"]["num_requests"] == 1


def test_a_failure_shows_error_code_and_details(explore, tab):
    explore(shop()[0], "FAIL")
    assert "Takes no arguments." in tab.text(".task > form")
    tab.click(SUBMIT)
    tab.wait(ENDED)
    assert tab.text(".error") == "out of paper"
    assert tab.text(".details").split("\n") == ["code", "unavailable"]
    assert json.loads(tab.text(".call pre")) == {"tray": [2, 3]}
    tab.wait("document.querySelector('circle.bad')")
    tab.wait("document.querySelector('.last-error').innerText === 'Last error: out of paper'")


def test_a_long_task_tells_how_far_it_is(explore, tab):
    schema, _, gates = shop()
    explore(schema, "SLOW")
    tab.click(SUBMIT)
    for step in (1, 2, 3):
        tab.wait(f"document.querySelector('.progress')?.innerText === '{step} of 4 · step {step}'")
        assert tab.run("document.querySelector('progress').position") == step / 4
        assert tab.text(".badge") == "running"
        gates[step].set()
    tab.wait(ENDED)
    assert tab.text(".call pre") == '"done"'


@pytest.mark.parametrize("features", [("meta", "progress"), ("meta", "progress", "cancel")])
def test_a_call_can_be_cancelled_where_the_server_says_so(explore, tab, monkeypatch, features):
    monkeypatch.setattr(introspection, "features", lambda resumes: features)
    schema, _, gates = shop()
    explore(schema, "SLOW")
    tab.click(SUBMIT)
    tab.wait("document.querySelector('progress')")
    buttons = tab.run("[...document.querySelectorAll('.call button')].map((each) => each.innerText)")
    assert buttons == ["Cancel"] * ("cancel" in features)
    if buttons:
        tab.click(".call button")
        tab.wait(ENDED)
        assert tab.text(".badge") == "cancelled"
    for gate in gates.values():
        gate.set()
    tab.wait(ENDED)


def test_a_form_is_made_from_the_schema(explore, tab):
    schema, got, _ = shop()
    explore(schema, "ORDER")
    press = "[...document.querySelectorAll('.task > form button')].find((each) => each.innerText === {}).click()".format
    tab.run(press("'Add to items'"))
    tab.run(press("'Add to items'"))
    inputs = tab.run("document.querySelectorAll('.row input').length")
    assert inputs == 4
    tab.run("document.querySelector('.row > button').click()")
    assert tab.text(".row legend") == "items 1 object"
    tab.run(press("'Add to items'"))
    for place, text in enumerate(["tea", "2", "cup \"blue\"", "12345678901234567890"]):
        tab.run(f"document.querySelectorAll('.row input')[{place}].focus()")
        tab.type(text)
    assert tab.run("[...document.querySelectorAll('select')].map((each) => [...each.options].map((one) => one.text))") == [
        ["choose one", "S", "M"],
        ["choose one", "true", "false"],
    ]
    tab.click(SUBMIT)
    assert tab.run("document.activeElement.labels[0].innerText") == "size", "nothing is chosen for a person"
    tab.run("document.querySelectorAll('select')[0].value = '\"M\"'")
    tab.run("document.querySelectorAll('select')[1].value = 'false'")
    tab.fill("textarea", '{"a": [1, null]}')
    tab.click(SUBMIT)
    tab.wait(ENDED)
    items = [{"article": "tea", "count": 2}, {"article": 'cup "blue"', "count": 12345678901234567890}]
    expected = {"items": items, "size": "M", "gift": False, "note": None, "billing": None, "extra": {"a": [1, None]}}
    assert (tab.text(".call pre"), got) == ("2", [expected])
    # What is there goes over into JSON, and back.
    tab.run(press("'Edit as JSON'"))
    shown = json.loads(tab.run("document.querySelector('textarea').value"))
    assert shown == {key: value for key, value in expected.items() if key not in ("note", "billing")}
    tab.fill("textarea", json.dumps({**expected, "note": "now", "billing": items[0]}))
    tab.run(press("'Edit as a form'"))
    tab.click(SUBMIT)
    tab.wait("document.querySelectorAll('.call[data-state=ok]').length === 2")
    assert got[1] == {**expected, "note": "now", "billing": items[0]}


@pytest.mark.parametrize("text, is_sent", [("", True), ('"a"', True), ("[1,", False), ("NaN", False)])
def test_what_is_no_json_is_not_sent(explore, tab, text, is_sent):
    explore(shop()[0], "ECHO")
    tab.fill("textarea", text)
    tab.click(SUBMIT)
    assert tab.run("document.querySelector('textarea').checkValidity()") is is_sent
    if is_sent:
        tab.wait(ENDED)
        assert tab.text(".call pre") == (text or "null")
    else:
        assert tab.run("document.querySelector('textarea').validationMessage").startswith("This is not JSON: ")
        assert tab.run("document.querySelectorAll('.call').length") == 0


def test_an_argument_of_any_kind_takes_json_on_one_line(explore, tab):
    schema = Schema()
    schema.add("ADD", lambda x, y: x + y)
    explore(schema, "ADD")
    tab.fill(".field:nth-child(1) input", "1e2")
    tab.fill(".field:nth-child(2) input", "two")
    tab.press("Enter")
    assert tab.run("document.activeElement.validationMessage").endswith('A text needs quotes: "abc"')
    tab.fill(".field:nth-child(2) input", "2")
    tab.press("Enter")
    tab.wait(ENDED)
    assert tab.text(".call pre") == "102"


def test_a_form_is_not_sent_without_what_it_needs(explore, tab):
    explore(shop()[0], "ADD")
    tab.click(SUBMIT)
    assert tab.run("document.activeElement.validity.valueMissing")
    assert tab.run("document.querySelectorAll('.call').length") == 0


HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>{{7*7}}</pre>\n\0\u202e"


def test_whatever_a_peer_says_is_text(explore, tab):
    def task(payload):
        current_request().progress(1, None, HOSTILE)
        if payload == "fail":
            raise TaskError({HOSTILE: HOSTILE}, code="aborted", data=HOSTILE)
        return {HOSTILE: [HOSTILE], "__proto__": 1, "constructor": 2}

    task.__doc__ = HOSTILE

    def arguments(constructor: int = 1, **others):
        return constructor

    schema = Schema({HOSTILE: task, "__proto__": lambda payload: payload, "constructor": lambda payload: payload})
    schema.add("toString", arguments)
    explore(schema, HOSTILE, name=HOSTILE, version=HOSTILE)
    plain = HOSTILE.replace("\0", "")
    assert plain[:60] in tab.text("h2") and plain[:60] in tab.text(".doc") and plain[:60] in tab.text("#tasks")
    for payload in ('"work"', '"fail"'):
        tab.fill("textarea", payload)
        tab.click(SUBMIT)
        tab.wait("document.querySelectorAll('.call:not([data-state=running])').length === " + str(1 + ("fail" in payload)))
        assert json.dumps(HOSTILE)[1:60] in tab.text(".call")
    for other in ("__proto__", "constructor", "toString"):
        tab.run(f"location.hash = '#/{other}'")
        tab.wait(f"document.querySelector('h2')?.textContent === '{other}'")
        tab.click(SUBMIT)
        tab.wait(ENDED)
        assert tab.text(".call pre") == ("1" if other == "toString" else "null")
    assert tab.run("document.querySelectorAll('img, script:not([src])').length") == 0
    assert tab.run("document.title") != "owned"


def test_the_browser_would_refuse_and_tell_whatever_is_not_allowed(explore, browser, serve):
    server = serve(explorer="/explore")
    with browser.tab() as tab:
        tab.open(f"http://127.0.0.1:{server.port}/explore")
        refused = "(() => { try { %s; return 'done' } catch (error) { return error.name } })()"
        assert tab.run(refused % "document.body.innerHTML = '<b>bold</b>'") == "TypeError"
        assert tab.run("fetch('http://localhost:1/').then(() => 'done', () => 'refused')") == "refused"
        tab.run("document.body.append(Object.assign(document.createElement('style'), {textContent: 'a {}'}))")
        policy = [each for each in tab.complaints if "Content Security Policy" in each]
        assert any("localhost:1" in each for each in policy) and any("style" in each for each in policy)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_all_without_scrolling_aside_and_every_text_can_be_read(explore, tab, scheme):
    schema, _, gates = shop()
    long = "x" * 300
    schema[long] = lambda payload: {long: [long]}
    explore(schema, width=360, scheme=scheme)
    assert tab.run("document.querySelector('.task')") is None, "the list comes first"
    assert tab.run(WIDTH) == 360 and tab.run(UNREADABLE) == []
    tab.click("#tasks li:last-child a")
    tab.wait("document.querySelector('h2')")
    tab.click(SUBMIT)
    tab.wait(ENDED)
    assert tab.run(WIDTH) == 360 and tab.run(UNREADABLE) == []
    for task in ("ORDER", "FAIL", "SLOW"):
        tab.click(".back")
        tab.wait("!document.querySelector('h2')")
        tab.run(f"location.hash = '#/{task}'")
        tab.wait(f"document.querySelector('h2')?.textContent === '{task}'")
        tab.run("document.querySelector('.fields button')?.click(), document.querySelector('.addable button')?.click()")
        if task != "ORDER":
            tab.click(SUBMIT)
            tab.wait("document.querySelector('.error, progress')")
        assert tab.run(WIDTH) == 360 and tab.run(UNREADABLE) == []
    for gate in gates.values():
        gate.set()
    tab.wait(ENDED)
    tab.run("document.querySelector('h2').style.color = getComputedStyle(document.body).backgroundColor")
    assert len(tab.run(UNREADABLE)) == 1


WIDTH = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"

#: The texts whose contrast to their background is below 4.5, what WCAG 2 calls AA.
UNREADABLE = """(() => {
  const canvas = Object.assign(document.createElement("canvas"), {width: 1, height: 1});
  const context = canvas.getContext("2d", {willReadFrequently: true});
  const channels = (colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const light = (colour) => channels(colour).slice(0, 3)
    .map((each) => each / 255).map((each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4))
    .reduce((sum, each, place) => sum + each * [0.2126, 0.7152, 0.0722][place], 0);
  const ground = (node) => {
    for (let each = node; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      if (channels(colour)[3] === 255) return colour;
    }
    return "white";
  };
  const hasText = (node) => [...node.childNodes].some((each) => each.nodeType === 3 && each.data.trim());
  return [...document.querySelectorAll("body *")].filter((node) => node.checkVisibility() && hasText(node)).flatMap((node) => {
    const style = getComputedStyle(node);
    const [a, b] = [light(node instanceof SVGElement ? style.fill : style.color), light(ground(node))].sort((a, b) => b - a);
    const contrast = (a + 0.05) / (b + 0.05);
    return contrast < 4.5 ? [`${node.tagName} ${node.className} ${contrast} ${node.textContent.slice(0, 40)}`] : [];
  });
})()"""


def test_no_mouse_is_needed(explore, tab):
    explore(shop()[0], "ECHO")
    focused = "document.activeElement.textContent || document.activeElement.id"
    tab.press("Tab")
    assert tab.run(focused) == "Skip to the task"
    tab.press("Tab")
    assert tab.run(focused) == "filter"
    tab.type("numbers")
    assert tab.run("[...document.querySelectorAll('#tasks li:not([hidden]) .type')].map((each) => each.innerText)") == ["ADD"]
    tab.press("Enter")
    tab.wait("document.activeElement.innerText === 'ADD'")
    tab.press("Tab")
    tab.type("40")
    tab.press("Tab")
    tab.type("2")
    assert tab.run("document.activeElement.labels[0].innerText") == "y number · default 0.5"
    tab.press("Enter")
    tab.wait(ENDED)
    assert tab.text(".call pre") == "42"
    assert tab.run("document.activeElement.value") == "2", "the next call is an Enter away"
    tab.wait("document.getElementById('announcer').textContent.startsWith('ADD answered in ')")
    for expected in ("Call", "Edit as JSON"):
        tab.press("Tab")
        assert tab.run(focused) == expected
    tab.press(" ")
    assert tab.run("document.activeElement.tagName") == "TEXTAREA"
    assert json.loads(tab.run("document.activeElement.value")) == {"x": 40, "y": 2}
    names = tab.run("[...document.querySelectorAll('input, select, textarea')].filter((each) => !each.labels.length).length")
    assert names == 0, "each field has its label"


def test_many_tasks_and_a_long_reply_leave_the_page_usable(explore, tab):
    schema = {f"task.{number}": lambda payload: "x" * 2**20 for number in range(200)}
    explore(schema)
    assert tab.run("document.querySelectorAll('#tasks li').length") == 200
    tab.fill("#filter", "199")
    tab.press("Enter")
    tab.wait("document.querySelector('h2')?.innerText === 'task.199'")
    tab.click(SUBMIT)
    tab.wait(ENDED)
    assert tab.run("document.querySelector('.call pre').textContent.length") == 50000
    assert "50,000 of 1,048,578 characters" in tab.text(".call")
    tab.click(".call button")
    assert tab.run("document.querySelector('.call pre').textContent.length") == 2**20 + 2


def test_the_line_at_the_top_tells_of_health_and_of_the_connection(explore, tab):
    sick = threading.Event()
    schema, _, gates = shop()
    server = explore(schema, "SLOW", healthcheck=lambda: not sick.is_set())
    tab.wait("document.getElementById('state').textContent === 'healthy'")
    assert tab.text("#figures").replace("\n", " ").startswith("connections 1 running 0 queued 0 up ")
    tab.click(SUBMIT)
    tab.wait("document.querySelector('progress')")
    sick.set()
    server.disconnect()
    tab.wait(ENDED)
    assert "The connection was lost (1000). The task may have run or not." in tab.text(".error")
    tab.wait("document.getElementById('state').textContent.startsWith('unhealthy: ')")
    for gate in gates.values():
        gate.set()


def test_it_works_behind_a_prefix_in_an_application_and_at_another_path(serve, tab):
    app = flask.Flask("site")
    server = serve({"ONE": lambda _: 1}, path="/ws/tasks", explorer="/admin/explore", health_path="/ws/health")
    server.init_app(app)
    server.app.wsgi_app = DispatcherMiddleware(flask.Flask("outer"), {"/some/prefix": app})
    tab.open(f"http://localhost:{server.port}/some/prefix/admin/explore")
    tab.click(SUBMIT)
    tab.wait(ENDED)
    assert tab.text(".call pre") == "1"


def test_over_tls_the_page_speaks_wss(tab, tmp_path):
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server = Server({"ONE": lambda _: 1}, explorer="/explore")
    server.listen(0, ssl=context).result(CEILING)
    try:
        tab.tell("Security.setIgnoreCertificateErrors", ignore=True)
        tab.open(f"https://localhost:{server.port}/explore")
        tab.click(SUBMIT)
        tab.wait(ENDED)
        assert tab.text(".call pre") == "1"
    finally:
        server.close(0.5).result(CEILING)


def test_who_has_logged_in_may_call(serve, tab):
    def authenticate(request):
        given = request.authorization
        return given is not None and given.password == "secret" and given.username

    server = serve(
        {"WHO": lambda _: current_request().connection.identity}, explorer="/explore", authenticate=authenticate
    )
    tab.open(f"http://ann:secret@127.0.0.1:{server.port}/explore")
    tab.click(SUBMIT)
    tab.wait(ENDED)
    assert tab.text(".call pre") == '"ann"'


def test_what_is_not_there_is_said(serve, tab):
    server = serve({}, explorer="/explore", name="bare")
    tab.open(f"http://127.0.0.1:{server.port}/explore")
    tab.wait("document.querySelector('h1').textContent === 'bare'")
    assert tab.text("#no-tasks") == "This server has no tasks."
    assert tab.text("#task") == "Choose a task to see what it takes, and to call it."
