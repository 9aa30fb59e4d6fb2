"""Servers in processes of their own, as they are deployed."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Iterator, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from ports import reserved_port

CEILING = 20.0


class Deployed(NamedTuple):
    """A server process that answers on ``port``."""

    process: "subprocess.Popen[bytes]"
    port: int


def get(port: int, path: str, timeout: float = CEILING) -> tuple[int, str]:
    """The status and the text of an HTTP answer."""
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=timeout) as response:
            return response.status, response.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def answers(port: int) -> bool:
    """Whether HTTP is answered on a port."""
    try:
        get(port, "/health", timeout=1.0)
    except (URLError, ConnectionError, TimeoutError):
        return False
    return True


@contextlib.contextmanager
def deployed(*arguments: str, port: int = 0, **environment: str) -> Iterator[Deployed]:
    """Run ``python arguments...``, with ``{port}`` filled in, until it answers; ended afterwards, with its children."""
    with contextlib.nullcontext(port) if port else reserved_port() as port:
        process = subprocess.Popen(
            [sys.executable, *(argument.replace("{port}", str(port)) for argument in arguments)],
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        errors: list[bytes] = []
        assert process.stderr is not None
        reader = threading.Thread(target=lambda: errors.extend(process.stderr), daemon=True)  # type: ignore[arg-type]
        reader.start()
        try:
            deadline, pause = time.monotonic() + CEILING, threading.Event()
            while not answers(port):
                assert process.poll() is None and time.monotonic() < deadline, b"".join(errors).decode()
                pause.wait(0.05)
            yield Deployed(process, port)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(CEILING)
            reader.join(CEILING)
            process.stderr.close()
