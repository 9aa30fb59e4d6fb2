"""A client of the calculator.

``python -m examples.calculator_client [URL]`` calls the server there; without a URL it starts one of its own.
"""

import sys
from urllib.request import urlopen

from examples.calculator import server
from oompa import Client, RemoteError


def pair(x, y):
    return {"x": x, "y": y}


methods = {
    "add": {"type": "ADD", "factory": pair},
    "sub": {"type": "SUB", "factory": pair},
    "mul": {"type": "MUL", "factory": pair},
    "div": {"type": "DIV", "factory": pair},
    "sleep": {"type": "SLEEP", "factory": lambda seconds: {"seconds": seconds}},
}


def show(url):
    with Client(url, methods) as client:
        print("1 + 6 =", client.dispatch("ADD", {"x": 1, "y": 6}).result())
        print("3 * 5 =", client.mul(3, 5).result())
        sleeping = client.sleep(0.5)  # does not hold up what follows
        print("9 - 4 =", client.sub(9, 4).result())
        try:
            client.div(1, 0).result()
        except RemoteError as error:
            print("1 / 0 :", error.error)
        sleeping.result()
        print("ping  :", client.ping(timeout=1.0).result())
    with urlopen(url.replace("ws", "http", 1) + "/health") as health:
        print("health:", health.status, health.read().decode())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        show(sys.argv[1].rstrip("/"))
    else:
        server.listen(0).result()
        show(f"ws://localhost:{server.port}")
        server.close().result()
