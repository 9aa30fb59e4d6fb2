"""Ten thousand connections on threads: ``python -m tests.benchmarks.connections [COUNT] [embedded|gunicorn]``.

What it costs to have them: the time to set them up, memory for each, a call on one of them while one in a hundred calls, CPU
while nobody does but pings, and the time to drain. The peers are raw sockets of this process, so that what is measured is the
server's.
"""

import os
import resource
import selectors
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

from ports import reserved_port  # noqa: E402
from raw_peer import PING, PONG, RawPeer, close_frame, frame, health, request_frame  # noqa: E402

#: Seconds the server is left alone, and seconds calls are made.
IDLE, BUSY = 60.0, 20.0

COMMANDS = {
    "embedded": ["-m", "examples.calculator", "{port}"],
    "gunicorn": ["-m", "gunicorn", "--threads", "4", "-b", "127.0.0.1:{port}", "examples.calculator:server"],
}


def serving(process: int) -> int:
    """The process that serves: of gunicorn the worker."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return int(children[0]) if children else process


def resident(process: int) -> int:
    """Bytes of memory a process holds."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu(process: int) -> float:
    """Seconds of CPU a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Crowd:
    """Peers that answer pings and closing handshakes, as they come: left alone for a while they would answer all together, and
    that would be measured instead."""

    def __init__(self) -> None:
        self.peers: list[RawPeer] = []
        self._selector = selectors.DefaultSelector()
        self._closed = 0

    def join(self, peer: RawPeer) -> None:
        """One more peer."""
        self.peers.append(peer)
        self._selector.register(peer._socket, selectors.EVENT_READ, peer)

    def answer(self, timeout: float = 0.0) -> None:
        """Answer what is there, or comes first within so many seconds."""
        for key, _ in self._selector.select(timeout):
            got = key.data.frame()
            if got is not None and got.opcode == PING:
                key.data.send(frame(PONG, got.payload))
                continue
            self._selector.unregister(key.fileobj)
            self._closed += got is not None and got.close_code == 1000
            key.data.send(close_frame(1000))

    def attend(self, seconds: float) -> int:
        """Answer for so long, or until all have ended; returns how many have ended with 1000."""
        deadline = time.monotonic() + seconds
        while self._selector.get_map() and (left := deadline - time.monotonic()) > 0:
            self.answer(left)
        return self._closed

    def call(self, seconds: float) -> list[float]:
        """Call on one of a hundred peers after the other; seconds each call took."""
        taken, deadline = [], time.monotonic() + seconds
        while time.monotonic() < deadline:
            for peer in self.peers[::100]:
                begun = time.perf_counter()
                peer.send(request_frame("ADD", {"x": 1, "y": 6}))
                peer.reply()
                taken.append(time.perf_counter() - begun)
                self.answer()
        return sorted(taken)

    def close(self) -> None:
        """Close what is left."""
        self._selector.close()
        for peer in self.peers:
            peer.close()


def measure(kind: str, count: int) -> None:
    """Measure one kind of server and print what was found."""
    crowd = Crowd()
    with reserved_port() as port:
        command = [sys.executable, *(each.replace("{port}", str(port)) for each in COMMANDS[kind])]
        process = subprocess.Popen(command, cwd=TESTS.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while True:
                try:
                    health(port)
                    break
                except OSError:
                    time.sleep(0.1)
            server = serving(process.pid)
            before, begun = resident(server), time.monotonic()
            while len(crowd.peers) < count:
                crowd.join(RawPeer.websocket(port))
                crowd.answer()
            setup = time.monotonic() - begun
            size = (resident(server) - before) / count
            used = cpu(server)
            crowd.attend(IDLE)
            idle = (cpu(server) - used) / IDLE
            calls = crowd.call(BUSY)
            p50, p99 = statistics.median(calls), calls[int(len(calls) * 0.99)]
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            codes = crowd.attend(60.0)
            process.wait(60.0)
            ended = time.monotonic() - begun
            print(f"{kind}: {count} connections set up in {setup:.1f} s, {size / 1024:.1f} KiB each; a call {p50 * 1e6:.0f} us "
                  f"(p99 {p99 * 1e6:.0f}); idle {idle:.2%} of a core; drained and ended in {ended:.1f} s, {codes} with 1000")
        finally:
            crowd.close()
            process.kill()
            process.wait()


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for each in sys.argv[2:] or COMMANDS:
        measure(each, wanted)
