"""What stands in a store: that somebody runs a request, or how the run ended.

A record is a line, and the JSON text of a value behind it::

    <digest of the payload> lease <who runs it>
    <digest of the payload> ok
    <result>
    <digest of the payload> task
    [<error>, <details or null>]

Two more kinds are told to those who wait for the run, and not kept for those who come later: ``remote``, of a server that the
task has called, which reads as ``task`` does, and ``raised``, ``[<class>, <message>, <whether the payload was at fault>]``.
"""

from typing import Any, NamedTuple, Union

from ..errors import RemoteError, TaskError, ValidationError
from ..schema import is_misfit
from ..wire.codec import Codec
from ..wire.messages import describe

_LEASE, _OK, _TASK, _REMOTE, _RAISED = b"lease", b"ok", b"task", b"remote", b"raised"


class Lease(NamedTuple):
    """Somebody runs the request.

    Attributes:
        payload: The digest of its payload.
        token: Whose lease it is; drawn for each.
    """

    payload: str
    token: str

    def to_bytes(self) -> bytes:
        """The record."""
        return b"%b lease %b" % (self.payload.encode(), self.token.encode())


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
        payload: The digest of the request's payload.
        is_kept: Whether it is for those as well who come later.
        kind: What ``text`` is.
        text: A JSON text.
    """

    payload: str
    is_kept: bool
    kind: bytes
    text: bytes

    def to_bytes(self) -> bytes:
        """The record."""
        return b"%b %b\n%b" % (self.payload.encode(), self.kind, self.text)

    def give(self, codec: Codec) -> Any:
        """Return the result, a value of its own for whoever asks, or raise as the run did."""
        value = codec.decode(self.text)
        if self.kind == _OK:
            return value
        if self.kind == _RAISED:
            raise _like(*value)
        error, details = value
        if self.kind == _REMOTE:
            raise RemoteError(error, details)
        raise TaskError(error, **(details or {}))


def read_record(record: bytes) -> Union[Lease, Outcome]:
    """What a record tells.

    Raises:
        ValueError: It is none: another program writes to this store.
    """
    head, _, text = record.partition(b"\n")
    payload, kind, *rest = head.split(b" ")
    if kind == _LEASE:
        return Lease(payload.decode(), rest[0].decode())
    return Outcome(payload.decode(), kind in (_OK, _TASK), kind, text)


def succeeded(payload: str, result: Any, codec: Codec) -> Outcome:
    """The outcome of a run that returned; of one whose result is not JSON, that nobody can be told."""
    try:
        return Outcome(payload, True, _OK, codec.encode(result))
    except Exception as error:  # a subclass of dict or list may raise whatever it likes
        return _untold(payload, "result", error, codec)


def failed(payload: str, error: BaseException, codec: Codec) -> Outcome:
    """The outcome of a run that raised. What says that nothing has run, by ``retry_after``, is not kept."""
    if not isinstance(error, (TaskError, RemoteError)):
        is_theirs = isinstance(error, ValidationError) or is_misfit(error)
        return _raised(payload, type(error).__name__, _text_of(error), is_theirs, codec)
    is_own = isinstance(error, TaskError)
    try:
        text = codec.encode([error.error, error.details])
    except Exception as fault:
        return _untold(payload, "error", fault, codec)
    return Outcome(payload, is_own and error.retry_after is None, _TASK if is_own else _REMOTE, text)


def _untold(payload: str, what: str, fault: Exception, codec: Codec) -> Outcome:
    return _raised(payload, "TypeError", f"the {what} is not JSON: {_text_of(fault)}", False, codec)


def _raised(payload: str, name: str, text: str, is_theirs: bool, codec: Codec) -> Outcome:
    return Outcome(payload, False, _RAISED, codec.encode([name, text, is_theirs]))


def _text_of(error: BaseException) -> str:
    """What ``describe`` shows behind the class."""
    name = type(error).__name__
    return describe(error)[len(name) :].removeprefix(": ")


def _like(name: str, text: str, is_theirs: bool) -> Exception:
    """An exception that reads on the wire and in the log as the one that was raised in another place."""
    return type(name, (ValidationError if is_theirs else Exception,), {})(text)  # type: ignore[no-any-return]
