"""Starting gunicorn in this process as its command line would."""

from __future__ import annotations

import sys

from gunicorn.app.wsgiapp import run


def run_gunicorn(application: str, port: int, *arguments: str) -> None:
    """Serve a WSGI application with one worker process and threads, on a port of the loopback interface."""
    sys.argv = ["gunicorn", "--bind", f"127.0.0.1:{port}", "--log-level", "error", "--no-control-socket"]
    sys.argv += [*arguments, application]
    run()
