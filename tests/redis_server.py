"""A Redis of the test's own, on a Unix socket."""

import contextlib
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator

import needs

CEILING = 20.0


@contextlib.contextmanager
def redis_running() -> Iterator[str]:
    """The path of its socket; it keeps nothing on disk and ends with the block."""
    redis = needs.package("redis")
    program = needs.program("redis-server")
    with tempfile.TemporaryDirectory(prefix="oompa-redis-") as directory:
        path = f"{directory}/s"
        command = [program, "--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no", "--dir", directory]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline, pause = time.monotonic() + CEILING, threading.Event()
            with redis.Redis(unix_socket_path=path) as client:
                while True:
                    try:
                        client.ping()
                        break
                    except redis.ConnectionError:
                        assert process.poll() is None and time.monotonic() < deadline, "redis-server does not start"
                        pause.wait(0.02)
            yield path
        finally:
            process.kill()
            process.wait(CEILING)
