"""The command as a process: what a shell sees of it."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from conftest import CEILING

OOMPA = [sys.executable, "-m", "oompa"]


@pytest.mark.parametrize(
    "arguments", [("call", "WAIT"), ("bench", "WAIT", "-c", "2"), ("top", "--interval", "1000")], ids=lambda each: each[0]
)
def test_ctrl_c_exits_with_130_and_a_sentence(serve, arguments):
    started, go_on = threading.Semaphore(0), threading.Event()

    def wait(payload):
        started.release()
        go_on.wait(CEILING)

    server = serve({"WAIT": wait})
    server.on("reply", lambda reply: started.release())  # of STATS, which top has asked for
    environment = {**os.environ, "OOMPA_URL": f"ws://127.0.0.1:{server.port}"}
    process = subprocess.Popen([*OOMPA, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert started.acquire(timeout=CEILING)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=CEILING)
    finally:
        go_on.set()
        process.kill()
        process.wait()
    assert (process.returncode, out, err.strip()) == (130, "", "oompa: interrupted")


def test_whoever_reads_may_have_enough(serve):
    server = serve()
    command = f"{sys.executable} -m oompa top ws://127.0.0.1:{server.port} --interval 0.1 | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stderr == "" and done.stdout.count("\n") == 1


def test_the_command_is_installed(serve):
    server = serve()
    script = os.path.join(os.path.dirname(sys.executable), "oompa")
    done = subprocess.run([script, "ping", f"ws://127.0.0.1:{server.port}"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "true\n", "")
