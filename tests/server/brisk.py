"""The calculator of the examples with limits that a test can wait for.

Run it with ``python -m tests.server.brisk PORT``, or with ``gunicorn --threads 64 tests.server.brisk:server``.
"""

import sys

from examples.calculator import healthcheck, schema
from oompa import Server
from oompa.server.stand_ins import StandIns

#: Seconds a peer may take to send its handshake, and a write may stand still.
LIMIT = 3.0

server = Server(schema, healthcheck, handshake_timeout=LIMIT, write_timeout=LIMIT)
# On a machine that stands still for a moment every task takes long, and threads stand in for it: not to be kept for a minute.
server._service = server._service._replace(stand_ins=StandIns(keep=0.5))

if __name__ == "__main__":
    server.run(int(sys.argv[1]))
