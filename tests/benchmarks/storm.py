"""All clients of a server that restarts come back: ``python -m tests.benchmarks.storm [CLIENTS] [PROCESSES]``.

Each client has a call pending while there is no server. Told is how long after the new server listens they have been answered,
half of them, 99 of 100, and the last, how many were answered in the busiest tenth of a second, and that none was lost: with a
fixed pause between attempts, and with full jitter.
"""

import collections
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

from ports import reserved_port  # noqa: E402
from raw_peer import health  # noqa: E402

from oompa import Client  # noqa: E402

#: Seconds without a server.
AWAY = 3.0

PAUSES: dict[str, dict[str, Any]] = {
    "a pause of 1 s": {},
    "full jitter up to 10 s": {"max_reconnect_interval": 10.0},
}


def start(port: int) -> "subprocess.Popen[bytes]":
    """A server that answers."""
    command = [sys.executable, "-m", "examples.calculator", str(port)]
    process = subprocess.Popen(command, cwd=TESTS.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        try:
            health(port)
            return process
        except OSError:
            time.sleep(0.02)


def be_clients(port: int, count: int, options: dict[str, Any]) -> None:
    """Connect and say so; on a line of input dispatch a call each, and say when it was answered, by every process's clock."""
    clients = [Client(f"ws://127.0.0.1:{port}", timeout=120.0, connect_timeout=60.0, **options) for _ in range(count)]
    for client in clients:
        client.wait_connected(120.0)
    print("connected", flush=True)
    sys.stdin.readline()
    answered: list[float] = []
    calls = [client.dispatch("ADD", {"x": 1, "y": 6}) for client in clients]
    for call in calls:
        call.add_done_callback(lambda call: answered.append(time.monotonic()))
    results = [call.result(120.0) for call in calls]
    print(*answered, flush=True)
    print(results.count(7), flush=True)
    for client in clients:
        client.close()


def measure(name: str, count: int, processes: int) -> None:
    """One restart."""
    with reserved_port() as port:
        server = start(port)
        command = [sys.executable, "-m", "tests.benchmarks.storm", "clients", str(port), str(count // processes), name]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        peers = [subprocess.Popen(command, cwd=TESTS.parent, **pipes) for _ in range(processes)]
        for peer in peers:
            assert peer.stdout.readline() == "connected\n"
        server.kill()
        server.wait()
        for peer in peers:
            peer.stdin.write("\n")
            peer.stdin.flush()
        time.sleep(AWAY)
        server = start(port)
        back = time.monotonic()
        answered = sorted(float(each) - back for peer in peers for each in peer.stdout.readline().split())
        right = sum(int(peer.stdout.readline()) for peer in peers)
        busiest = max(collections.Counter(int(each * 10) for each in answered).values())
        median, late = statistics.median(answered), answered[int(len(answered) * 0.99)]
        print(f"{name}: {right} of {count} calls were answered, half of them within {median:.1f} s, 99 of 100 within "
              f"{late:.1f} s, the last after {answered[-1]:.1f} s; at most {busiest} in a tenth of a second")
        server.terminate()
        for peer in peers:
            peer.wait(60.0)
        server.wait(60.0)


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if sys.argv[1:2] == ["clients"]:
        be_clients(int(sys.argv[2]), int(sys.argv[3]), PAUSES[sys.argv[4]])
    else:
        wanted = [int(each) for each in sys.argv[1:3]] + [2_000, 2][len(sys.argv[1:3]):]
        for pauses in PAUSES:
            measure(pauses, *wanted)
