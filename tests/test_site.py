"""A site with what sites have around them, under the real gunicorn with four threads: Sentry, a pooled database, middleware."""

import contextlib
import json
import os

import needs
import pytest
from conftest import CEILING, wait_until
from deployed import deployed, get
from raw_peer import RawPeer, upgrade

from oompa import Client

GUNICORN = ("-m", "gunicorn", "--threads", "4", "-b", "127.0.0.1:{port}")

#: Appends what Sentry would send, each on a line of a file.
WATCHED = """
import json, os
import flask, sentry_sdk
from oompa import Server

def note(kind):
    def append(event, hint):
        told = {"kind": kind, "name": event.get("transaction"), "values": repr(event.get("exception"))}
        with open(os.environ["TOLD"], "a") as file:
            file.write(json.dumps(told) + "\\n")
    return append

sentry_sdk.init(
    dsn="http://key@127.0.0.1:9/1",
    before_send=note("error"),
    before_send_transaction=note("transaction"),
    traces_sample_rate=1.0,
)
app = flask.Flask("watched")
app.add_url_rule("/fails", view_func=lambda: 1 / 0)
server = Server({"ONE": lambda _: 1, "FAIL": lambda _: 1 / 0}, path="/ws", expose_errors=False)
server.init_app(app)

def outer(environ, start_response):
    found = []
    def started(status, headers, exc_info=None):
        found.append(status)
        return start_response(status, headers, exc_info)
    for chunk in app(environ, started):
        yield chunk
    with open(os.environ["TOLD"], "a") as file:
        file.write(json.dumps({"kind": "middleware", "name": environ["PATH_INFO"], "values": found[0]}) + "\\n")
"""

#: Two connections to the database, one of which each page and each upgrade takes until it is over.
POOLED = """
import os
import flask
from flask_sqlalchemy import SQLAlchemy
from oompa import Server

app = flask.Flask("pooled")
app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///" + os.environ["DATABASE"]
app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"pool_size": 2, "max_overflow": 0, "pool_timeout": 5.0}
db = SQLAlchemy(app)

class User(db.Model):
    id = db.mapped_column(db.Integer, primary_key=True)

@app.before_request
def count():
    flask.g.count = db.session.query(User).count()

with app.app_context():
    db.create_all()
app.add_url_rule("/count", view_func=lambda: str(db.session.query(User).count()))
server = Server({"COUNT": lambda _: db.session.query(User).count()}, path="/ws")
server.init_app(app)
"""


def told(path):
    """What was written to a file, by kind and name."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [(line["kind"], line["name"], line["values"]) for line in lines]


@pytest.mark.parametrize("application", ["watched:app", "watched:outer"])
def test_sentry_and_middleware_see_an_ordinary_response_when_a_websocket_begins_and_nothing_when_it_ends(tmp_path, application):
    needs.package("sentry_sdk")
    file = tmp_path / "told"
    (tmp_path / "watched.py").write_text(WATCHED)
    with deployed(*GUNICORN, "--pythonpath", str(tmp_path), application, TOLD=str(file)) as server:
        with Client(f"ws://127.0.0.1:{server.port}/ws") as client:
            assert client.call("ONE", timeout=CEILING) == 1
            begun = [("transaction", "oompa.websocket")]
            begun += [("middleware", "/ws")] if application.endswith("outer") else []
            wait_until(lambda: set(begun) <= {(kind, name) for kind, name, _ in told(file)}, CEILING)  # it is still open
            assert all("101" in values for kind, name, values in told(file) if (kind, name) == ("middleware", "/ws"))
        with RawPeer(server.port) as peer:
            peer.send(upgrade(server.port, path="/ws"))
            assert peer.response().status == 101  # and it goes without a word
        assert get(server.port, "/fails")[0] == 500
        wait_until(lambda: any(kind == "error" for kind, _, _ in told(file)), CEILING)
        assert {name for kind, name, _ in told(file) if kind == "error"} == {"<lambda>"}


def test_connections_and_pages_share_a_small_pool_of_the_database(tmp_path):
    """What the upgrade has taken is given back when it is over, and not when the connection is."""
    needs.package("flask_sqlalchemy")
    (tmp_path / "pooled.py").write_text(POOLED)
    database = os.path.join(tmp_path, "database")
    with deployed(*GUNICORN, "--pythonpath", str(tmp_path), "pooled:app", DATABASE=database) as server:
        with contextlib.ExitStack() as stack:
            url = f"ws://127.0.0.1:{server.port}/ws"
            clients = [stack.enter_context(Client(url, timeout=CEILING)) for _ in range(20)]
            assert [client.call("COUNT") for client in clients] == [0] * 20
            assert [get(server.port, "/count") for _ in range(4)] == [(200, "0")] * 4
