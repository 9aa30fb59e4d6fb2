"""A server with a door, for gunicorn: who may come in, who one is, what an error tells. Serves ``tests`` alone."""

import logging
import os

from conftest import CALCULATOR

from oompa import Server

if "OOMPA_LOG" in os.environ:
    logging.basicConfig(filename=os.environ["OOMPA_LOG"], level=logging.DEBUG)

TOKENS = {"Bearer ann-token": "ann", "Bearer bob-token": "bob"}


def authenticate(request):
    """Know ann and bob by their tokens, and keep mallory out."""
    authorization = request.headers.get("Authorization")
    if authorization == "Bearer mallory-token":
        raise PermissionError("mallory is banned")
    return TOKENS.get(authorization)


def fail(payload):
    """Raise with something that a client must not see."""
    raise LookupError("the-inner-life")


#: Asks who comes.
server = Server(
    {**CALCULATOR, "FAIL": fail, "WHO": lambda _: None},
    authenticate=authenticate,
    origins=["https://good.example"],
    expose_errors=False,
)


@server.use
def tell_identity(request, call_next):
    """Answer WHO from the connection, and let the tasks see who asks."""
    identity = request.connection.identity
    return identity if request.type == "WHO" else call_next(request)


#: Asks nobody; pings often.
echo = Server(CALCULATOR, ping_interval=float(os.environ.get("OOMPA_PING_INTERVAL", "25")))
