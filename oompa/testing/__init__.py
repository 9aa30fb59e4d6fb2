"""For tests of what calls and of what is called: a client joined to a server without a port, and a server that is scripted.

::

    def test_add():
        with connect(server) as client:
            assert client.call("ADD", {"x": 1, "y": 2}) == 3

Everything is real: the handshake, the frames, the threads, the reconnecting. Only the network is not: the two are joined by a
pair of sockets, so no port is taken, no file is made, and tests may run beside each other.

- ``joining``: ``connect``, a client; ``serve``, a URL, for what makes its clients itself.
- ``stubbing``: ``Stub``, a server that answers from a table and knows what it was asked; ``Delay``, a reply that takes long.
- ``faults``: ``Faults``, what a network does to replies: it loses, delays, doubles or garbles them, or ends the connection.
"""

from .faults import Faults as Faults
from .joining import connect as connect
from .joining import serve as serve
from .stubbing import Delay as Delay
from .stubbing import Stub as Stub
from .stubbing import StubCall as StubCall

__all__ = ["Delay", "Faults", "Stub", "StubCall", "connect", "serve"]
