"""``client.js`` in Python. Run it with ``python -m examples.from_node.client [URL]``."""

import sys

from oompa import Client, RemoteError

methods = {
    "add": {"type": "ADD", "factory": lambda x, y: {"x": x, "y": y}},
    "div": {"type": "DIV", "factory": lambda x, y: {"x": x, "y": y}},
}

url = sys.argv[1] if len(sys.argv) > 1 else "ws://localhost:9000"
client = Client(url, methods, timeout=2.0, attempts=2)  # seconds where Node has milliseconds
client.on("host-closed", lambda: print("the server is gone", file=sys.stderr))

print(f"1 + 6 = {client.add(1, 6).result()}")  # a Future where Node has a promise
try:
    client.div(1, 0).result()
except RemoteError as error:
    print(f"1 / 0 : {error.error}")
client.ping(1.0).result()
print("healthy")
client.close()
