"""Calls over HTTP as most would write them: Flask under gunicorn's threads, and a requests.Session per thread."""

from __future__ import annotations

from typing import Any

import requests
from flask import Flask, Response, jsonify, request

from tests.benchmarks.systems import Plain
from tests.benchmarks.systems.gunicorn_server import run_gunicorn

application = Flask(__name__)

THREADS = "16"
KEEP_ALIVE = "60"


@application.post("/add")
def _add() -> Response:
    payload = request.get_json()
    return jsonify(payload["x"] + payload["y"])


@application.post("/echo")
def _echo() -> Response:
    return jsonify(request.get_json())


def serve(port: int) -> None:
    """Serve requests with the threads of one worker process, and keep connections open."""
    run_gunicorn(f"{__name__}:application", port, "--threads", THREADS, "--keep-alive", KEEP_ALIVE)


class Client(Plain):
    """A session for one thread."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._session = requests.Session()
        self._session.trust_env = False  # spares it a look at proxies and .netrc with every request
        self.close = self._session.close

    def call_add(self, x: int, y: int) -> int:
        """Return x + y."""
        result: int = self._session.post(f"{self._url}/add", json={"x": x, "y": y}).json()
        return result

    def echo(self, text: str) -> str:
        """Return the text."""
        result: str = self.send_back(text)
        return result

    def send_back(self, payload: Any) -> Any:
        """Return the payload."""
        return self._session.post(f"{self._url}/echo", json=payload).json()
