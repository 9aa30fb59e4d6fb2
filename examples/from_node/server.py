"""``server.js`` in Python. Run it with ``python -m examples.from_node.server [PORT]``."""

import sys

from oompa import Schema, Server, TaskError

schema = Schema()


@schema.task("ADD")
def add(x, y):  # returns the value where Node returns a promise of it
    return x + y


@schema.task("DIV")
def div(x, y):
    if y == 0:
        raise TaskError("Error: Zero div")  # what the client gets; any other exception is sent as "<class>: <message>"
    return x / y


def healthcheck():
    return True


server = Server(schema, healthcheck)


@server.use
def log(request, call_next):
    print(f"{request.type} #{request.id}")
    return call_next(request)


server.on("error", lambda error: print("unhealthy:", error, file=sys.stderr))

if __name__ == "__main__":
    server.run(int(sys.argv[1]) if len(sys.argv) > 1 else 9000)
