"""A server that is scripted, and remembers what it was asked."""

import threading
from typing import Any, Mapping, NamedTuple, Optional

from ..errors import RemoteError
from ..server.server import Server
from ..wire.messages import PING
from .faults import Faults


class StubCall(NamedTuple):
    """A call that a :class:`Stub` got; compares equal to the tuple ``(type, payload)``."""

    type: str
    payload: Any


class Delay(NamedTuple):
    """A reply of a :class:`Stub` that takes ``seconds``, or until the stub closes."""

    seconds: float
    reply: Any = None


class _Script(dict[str, Any]):
    """The schema of a stub: it has a factory for every type but pings, so what was not expected is noticed."""

    def __init__(self, stub: "Stub") -> None:
        super().__init__()
        self._stub = stub

    def __contains__(self, type: object) -> bool:
        return type != PING or type in self._stub.replies

    def __getitem__(self, type: str) -> Any:
        return lambda payload: self._stub.answer(type, payload)

    def get(self, type: str, default: Any = None) -> Any:
        """As of a dict; nothing is missing."""
        return self[type]


class Stub(Server):
    """A server that answers from a table, and knows what it was asked.

    ::

        with Stub({"ADD": 3, "DIV": RemoteError("x"), "SLOW": Delay(2, 3), "ECHO": lambda p: p}) as stub:
            with connect(stub) as client:
                assert client.call("ADD", [1, 2]) == 3
        assert stub.calls == [("ADD", [1, 2])]

    A reply is a value, a RemoteError for the client to get, another exception for the task to raise, a callable
    that is given the payload, or a :class:`Delay` of one of these.

    Args:
        replies: Task types to replies.
        all_called: Whether a type that was never asked for is a failure, too.
        faults: What happens to its replies on the way to those who reach it by ``connect`` or ``serve``.
        options: As of :class:`oompa.Server`.

    Leaving the block raises AssertionError when a type was asked for that is not in the table.
    """

    def __init__(
        self, replies: Mapping[str, Any], *, all_called: bool = False, faults: Optional[Faults] = None, **options: Any
    ) -> None:
        super().__init__(_Script(self), **options)
        #: What it answers; may be changed at any time.
        self.replies = dict(replies)
        #: What happens to its replies on the way.
        self.faults = faults
        self._all_called = all_called
        self._closing = threading.Event()
        self._calls: list[StubCall] = []  # appended to and copied whole, either of which is atomic

    @property
    def calls(self) -> list[StubCall]:
        """What was asked so far, in the order it came."""
        return list(self._calls)

    def answer(self, type: str, payload: Any) -> Any:
        """Note a call, and do what the table says."""
        self._calls.append(StubCall(type, payload))
        if type not in self.replies:
            raise LookupError(f"the stub knows no {type!r}, only {sorted(self.replies)}")
        reply = self.replies[type]
        if isinstance(reply, Delay):
            self._closing.wait(reply.seconds)
            reply = reply.reply
        if isinstance(reply, RemoteError):
            raise RemoteError(reply.error, reply.details)  # one of its own for each call, as for a gateway
        if isinstance(reply, BaseException):
            raise reply
        return reply(payload) if callable(reply) else reply

    def check(self) -> None:
        """Raise AssertionError, which names what was unexpected and what never came."""
        calls = self.calls
        unexpected = [call for call in calls if call.type not in self.replies]
        missed = sorted(set(self.replies) - {call.type for call in calls})
        if not unexpected and not (missed and self._all_called):
            return
        lines = [f"unexpected: {call.type} {call.payload!r}" for call in unexpected]
        lines += [f"never came: {type}" for type in missed]
        raise AssertionError("\n".join(["the stub was not used as it is scripted:", *lines]))

    def __enter__(self) -> "Stub":
        return self

    def __exit__(self, kind: Any, *exc_info: object) -> None:
        self._closing.set()
        self.close(0).result()
        if kind is None:  # an error of the test tells more
            self.check()
