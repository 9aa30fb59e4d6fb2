"""The calculator: a schema, its healthcheck and a server.

Run it with ``python -m examples.calculator [PORT]``, or with ``gunicorn --threads 8 examples.calculator:server``.
"""

import sys
import time

from oompa import Schema, Server

schema = Schema()


@schema.task("ADD")
def add(x, y):
    return x + y


@schema.task("SUB")
def sub(x, y):
    return x - y


@schema.task("MUL")
def mul(x, y):
    return x * y


@schema.task("DIV")
def div(x, y):
    return x / y


@schema.task("SLEEP")
def sleep(seconds=0.8):
    time.sleep(seconds)


schema["ECHO"] = lambda payload: payload


def healthcheck():
    return True  # let's assume sunshine and rainbows


server = Server(schema, healthcheck)

if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9000
    print(f"listening on ws://localhost:{port}, health on http://localhost:{port}/health")
    server.run(port)
