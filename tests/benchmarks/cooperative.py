"""How punctual both ends are in a process that gevent has patched: ``python -m tests.benchmarks.cooperative`` (needs gevent).

A timeout of a call, a ping after ``ping_interval`` of silence, and the end of a peer that does not answer it: each asked for
after one second, several times over; what is printed is the earliest and the latest.
"""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

from raw_peer import PING, RawPeer  # noqa: E402

from oompa import Client, RequestTimeout, Server  # noqa: E402

#: Seconds asked for, and how often.
ASKED, ROUNDS = 1.0, 10


def timeout_of(client: Client) -> float:
    """Seconds until a call that is not answered has timed out."""
    begun = time.perf_counter()
    try:
        client.call("WAIT", None)
    except RequestTimeout:
        return time.perf_counter() - begun
    raise AssertionError("it was answered")


def pinged(port: int) -> tuple[float, float]:
    """Seconds of silence until a ping, and from there on until the end."""
    with RawPeer.websocket(port) as peer:
        begun = time.perf_counter()
        got = peer.frame()
        assert got is not None and got.opcode == PING
        ping = time.perf_counter()
        assert peer.ends()
        return ping - begun, time.perf_counter() - ping


def tell(what: str, seconds: list[float]) -> None:
    """Print the earliest and the latest."""
    print(f"{what}: asked for {ASKED:.2f} s, {min(seconds):.3f} to {max(seconds):.3f} s ({len(seconds)} times)")


def main() -> None:
    """Measure and print."""
    server = Server({"WAIT": lambda _: time.sleep(2 * ASKED)}, ping_interval=ASKED)
    server.listen(0).result()
    with Client(f"ws://127.0.0.1:{server.port}", timeout=ASKED, attempts=1) as client:
        client.wait_connected(10.0)
        tell("timeout of a call", [timeout_of(client) for _ in range(ROUNDS)])
    pings = [pinged(server.port) for _ in range(ROUNDS)]
    tell("ping of a silent peer", [ping for ping, _ in pings])
    tell("end of one that does not answer", [end for _, end in pings])
    server.close(0).result()


if __name__ == "__main__":
    main()
