"""Requests and replies, and their texts on the wire.

One JSON object each: a request has ``type``, ``payload``, ``id`` and ``meta``; a success ``type`` OK, ``id`` and ``payload``;
a failure ``type`` ERR, ``id``, ``error`` and ``details``. The id is any JSON value and comes back as it went. ``meta`` and
``details`` are objects, left out where there is nothing to say.
"""

import math
from json.encoder import encode_basestring
from time import monotonic
from typing import Any, Mapping, NamedTuple, Optional, Union

from ..errors import ProtocolError, RemoteError, printable
from ..options import LONGEST
from .codec import NESTING_LIMIT, NOT_JSON, Codec, is_deep, with_place
from .lenient import id_in

OK = "OK"
ERR = "ERR"

#: How the types begin that are the library's own. A client ignores those that it does not know.
OWN_TYPES = "$OOMPA/"

#: The request type that runs the healthcheck.
PING = "$OOMPA/PING"

#: The request types by which a server tells who it is, what it has done and what it can be asked for.
INFO, STATS, SCHEMA = "$OOMPA/INFO", "$OOMPA/STATS", "$OOMPA/SCHEMA"

#: The type of a message that says that nobody waits for a reply any more; it has no id of its own.
CANCEL_TYPE = "$OOMPA/CANCEL"

#: The type of a message that says how far a task is; its id is the request's.
PROGRESS_TYPE = "$OOMPA/PROGRESS"

#: Heads a writer remembers; types made up at run time must not fill the memory.
_HEADS_LIMIT = 1000

#: Makes an object without calling its ``__init__``.
_new = object.__new__

#: Stands for a key that is absent, where None is a value.
MISSING: Any = type("Missing", (), {"__repr__": lambda self: "MISSING"})()


class Progress(NamedTuple):
    """How far a task is.

    Attributes:
        done: What is done, in whatever unit the task counts.
        total: What there is to do, in the same; None where the task does not know.
        message: What it does at the moment; None for nothing to say.
    """

    done: float
    total: Optional[float] = None
    message: Optional[str] = None


class Request:
    """A task to run: what a middleware sees and may change.

    Attributes:
        type: The task type.
        payload: What the factory gets; None where the request had none.
        id: The request's id as it came, ``MISSING`` where it had none. The reply carries it whatever happens to this
            attribute. A request that is sent again has the same id, so a handler can tell.
        connection: The server connection it came on; None in a client's middleware.
        deadline: When its caller stops waiting, on the monotonic clock; None where that is not known. A copy that comes
            meanwhile extends it.
        cancelled: Whether its caller has given it up: a task that takes long may look, and end.
    """

    __slots__ = ("type", "payload", "id", "connection", "deadline", "cancelled", "report", "awaits", "began", "_meta")

    def __init__(
        self,
        type: str,
        payload: Any = None,
        id: Any = MISSING,
        connection: Any = None,
        meta: Optional[dict[str, Any]] = None,
    ) -> None:
        self.type = type
        self.payload = payload
        self.id = id
        self.connection = connection
        self.deadline: Optional[float] = None
        self.cancelled = False
        self.report: Any = None  # of the server's: how far the task is
        self.awaits: Any = None  # of the server's, too: a Future that the task has returned
        self.began: float  # when the task did; set with that Future
        self._meta = meta

    def remaining(self) -> Optional[float]:
        """Seconds its caller still waits, 0 when that is over; None where there is no deadline."""
        return None if self.deadline is None else max(0.0, self.deadline - monotonic())

    def progress(self, done: float, total: Optional[float] = None, message: Optional[str] = None) -> None:
        """Tell the caller how far the task is, if it asked to be told: else, and when nobody is there, it does nothing.

        At most ten a second are sent, the last one wins, and a caller that reads slowly misses some: it never waits. Any
        thread of the task may call it.

        Raises:
            TypeError, ValueError: ``done`` or ``total`` is no finite number, or ``message`` no text that can be sent.
        """
        tell = getattr(self.connection, "tell_progress", None)
        if tell is not None and self._meta is not None and self._meta.get("progress") is True:
            tell(self, checked_progress(done, total, message))

    @property
    def meta(self) -> dict[str, Any]:
        """What the caller tells beside the payload."""
        if self._meta is None:
            self._meta = {}
        return self._meta

    @meta.setter
    def meta(self, meta: dict[str, Any]) -> None:
        self._meta = meta

    def __repr__(self) -> str:
        peer = "" if self.connection is None else f" from {peer_of(self.connection)}"
        return f"<Request {self.type!r} id={_brief(repr(self.id))}{peer}>"


class Reply:
    """The answer to one request.

    Attributes:
        type: ``"OK"`` or ``"ERR"``.
        id: The request's id; ``MISSING`` where it had none.
        payload: The result of an OK.
        error: The error of an ERR.
        elapsed: Seconds from the start of the task to its end.
        task: The type of the request; None where it had none.
        waited: Seconds the request was queued.
        details: What an ERR tells beside the error, a dict; None for nothing.
    """

    __slots__ = ("type", "id", "payload", "error", "elapsed", "task", "waited", "details")

    def __init__(
        self,
        type: str,
        id: Any,
        payload: Any = None,
        error: Any = None,
        elapsed: float = 0.0,
        task: Optional[str] = None,
        waited: float = 0.0,
        details: Optional[dict[str, Any]] = None,
    ) -> None:
        self.type = type
        self.id = id
        self.payload = payload
        self.error = error
        self.elapsed = elapsed
        self.task = task
        self.waited = waited
        self.details = details

    def __repr__(self) -> str:
        task = "" if self.task is None else f" to {_brief(self.task)!r}"
        return f"<Reply {self.type}{task} id={_brief(repr(self.id))}>"


class UnreadableRequest(ProtocolError):
    """A text that is no request. ``id`` is the id to answer with, None where none could be read."""


def read_request(codec: Codec, text: Union[str, bytes], connection: Any = None) -> Request:
    """The request a message holds.

    Raises:
        UnreadableRequest: Not JSON, not an object, without a string type, or with an id that cannot be sent back.
    """
    try:
        fields = codec.decode(text)
    except NOT_JSON as error:
        raise UnreadableRequest(f"a request must be JSON: {_brief(error)}", _id_in(codec, text)) from None
    if type(fields) is not dict:
        raise UnreadableRequest(f"a request must be a JSON object, not {_json_name(fields)}")
    id = fields.get("id", MISSING)
    if type(id) is not str and id is not MISSING and not _can_return(codec, id):
        raise UnreadableRequest("the id of a request must be JSON that can be sent back")
    task = fields.get("type")
    if type(task) is not str:
        problem = f'the "type" of a request must be a string, not {_json_name(task)}'
        raise UnreadableRequest(problem, None if id is MISSING else id)
    # Not by its ``__init__``, and ``_meta`` not by its property: either costs as much as all of this.
    request: Request = _new(Request)
    request.type = task
    request.payload = fields.get("payload")
    request.id = id
    request.connection = connection
    request.cancelled = False
    request.deadline = request.report = request.awaits = request._meta = None
    meta = fields.get("meta")
    if type(meta) is dict:
        request._meta = meta
        timeout: Any = meta.get("timeout")
        if (type(timeout) is float or type(timeout) is int) and 0 < timeout <= LONGEST:
            request.deadline = monotonic() + timeout
    return request


class RequestWriter:
    """Writes the requests of one client: their types are few, and their ids need no escaping.

    Any thread may write: ``_heads``, the text up to the id for each type, sees single dict operations only.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._encode = codec.encode
        self._heads: dict[str, bytes] = {}

    def write(self, type: str, id: str, payload: Any = MISSING) -> bytes:
        """The text of a request; ``id`` must be letters, digits, ``-`` and ``_``.

        Raises one of ``NOT_JSON`` for a payload, or a type, that is not JSON.
        """
        head: Optional[bytes] = None
        try:
            head = self._heads[type]
        except (KeyError, TypeError):  # a new one, or none that can be
            pass
        if head is None:
            head = self._make_head(type)
        if payload is MISSING:
            return b'%b%b"}' % (head, id.encode())
        encode = self._encode
        try:
            value = encode(payload)
        except NOT_JSON as error:
            raise with_place(error, "payload", payload, self._codec) from error
        if len(value) > NESTING_LIMIT and not isinstance(payload, str) and is_deep(value):
            raise ValueError(f"the payload of {type!r} is nested more than {NESTING_LIMIT} deep")
        return b'%b%b","payload":%b}' % (head, id.encode(), value)

    def write_meta(self, timeout: float, meta: Optional[Mapping[str, Any]] = None) -> bytes:
        """What to put behind a request, in place of its last brace, for a server that understands ``meta``.

        Args:
            timeout: Seconds the client waits for one attempt.
            meta: What there is to tell beside it.
        """
        told = b',"meta":{"timeout":%b' % repr(timeout).encode()
        if not meta:
            return told + b"}}"
        try:
            return b"%b,%b}" % (told, self._encode(dict(meta))[1:])
        except NOT_JSON as error:
            raise with_place(error, "meta", dict(meta), self._codec) from error

    def _make_head(self, type: str) -> bytes:
        if not isinstance(type, str):
            raise TypeError(f"a task type must be a string, not {type!r}")
        head = b'{"type":%b,"id":"' % self._encode(type)
        if len(self._heads) < _HEADS_LIMIT:
            self._heads[type] = head
        return head


def read_reply(codec: Codec, text: Union[str, bytes]) -> tuple[str, Any, Any]:
    """The type of a reply, its id, and the payload or, of an ERR, the :class:`RemoteError`; likewise of a message of another
    type of the library's own.

    Raises:
        ProtocolError: The text is no reply.
    """
    try:
        fields = codec.decode(text)
    except NOT_JSON as error:
        raise ProtocolError(f"a reply must be JSON: {_brief(error)}", id_in(text)) from None
    if type(fields) is not dict:
        raise ProtocolError(f"a reply must be a JSON object, not {_json_name(fields)}")
    kind = fields.get("type")
    if kind == OK:
        return OK, fields.get("id"), fields.get("payload")
    if kind == ERR:
        details = fields.get("details")
        return ERR, fields.get("id"), RemoteError(fields.get("error"), details if type(details) is dict else None)
    if type(kind) is str and kind.startswith(OWN_TYPES):
        return kind, fields.get("id"), fields.get("payload")
    raise ProtocolError(f"a reply must have type OK or ERR, not {_brief(kind)}")


def cancelled_id(payload: Any) -> Any:
    """The id of the request that the payload of a cancel gives up; None for what cannot be read."""
    return payload.get("id") if type(payload) is dict else None


def write_cancel(id: str) -> bytes:
    """The text that gives a request up; ``id`` must be letters, digits, ``-`` and ``_``."""
    return b'{"type":"%b","payload":{"id":"%b"}}' % (CANCEL_TYPE.encode(), id.encode())


def checked_progress(done: float, total: Optional[float], message: Optional[str]) -> Progress:
    """What a task tells of how far it is. Raises TypeError or ValueError for what cannot be sent."""
    for name, value in (("done", done), ("total", total)):
        if not _is_number(value) and not (value is None and name == "total"):
            raise TypeError(f"{name} must be a number, not {value!r}")
        if type(value) is float and not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, not {value!r}")
    if message is not None and not isinstance(message, str):
        raise TypeError(f"message must be a string, not {message!r}")
    if message is not None:
        message.encode()  # raises UnicodeEncodeError, a ValueError, for a lone surrogate
    return Progress(done, total, message)


def read_progress(payload: Any) -> Optional[Progress]:
    """What the payload of a message about progress tells, None for what cannot be read."""
    if type(payload) is not dict:
        return None
    done: Any = payload.get("done")
    total, message = payload.get("total"), payload.get("message")
    is_readable = _is_number(done) and (total is None or _is_number(total)) and (message is None or type(message) is str)
    return Progress(done, total, message) if is_readable else None


def write_progress(codec: Codec, id: Any, progress: Progress) -> bytes:
    """The text that tells how far the request of ``id`` is. Raises one of ``NOT_JSON`` for what is not JSON."""
    return codec.encode({"type": PROGRESS_TYPE, "id": id, "payload": progress._asdict()})


def write_reply(codec: Codec, reply: Reply) -> bytes:
    """The text of a reply. Raises one of ``NOT_JSON`` for a payload or an error that is not JSON."""
    id = reply.id
    if type(id) is str and reply.type == OK:
        return b'{"type":"OK","id":%b,"payload":%b}' % (encode_basestring(id).encode(), codec.encode(reply.payload))
    head: Optional[bytes] = None
    if type(id) is str:
        head = encode_basestring(id).encode()
    elif id is not MISSING:
        head = codec.encode(id)
    if reply.type == OK:
        value = codec.encode(reply.payload)
        return b'{"type":"OK","payload":%b}' % value if head is None else b'{"type":"OK","id":%b,"payload":%b}' % (head, value)
    value = codec.encode(reply.error)
    if reply.details is not None:
        value += b',"details":' + codec.encode(reply.details)
    return b'{"type":"ERR","error":%b}' % value if head is None else b'{"type":"ERR","id":%b,"error":%b}' % (head, value)


def describe(error: BaseException) -> str:
    """What the wire says of an exception: ``"<ClassName>: <message>"``, as Node's ``Error.toString``."""
    try:
        message = str(error)
    except Exception:
        message = ""
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return text.encode(errors="backslashreplace").decode()  # a message may hold lone surrogates


def _id_in(codec: Codec, text: Union[str, bytes]) -> Any:
    """The id of a request that is not JSON, None where none is found that can be sent back."""
    id = id_in(text)
    return id if _can_return(codec, id) else None


def _can_return(codec: Codec, id: Any) -> bool:
    if type(id) is int:
        return True
    if type(id) is float:
        return math.isfinite(id)  # 1e999 reads as infinity
    try:
        codec.encode(id)
    except NOT_JSON:
        return False
    return True


def peer_of(connection: Any) -> str:
    """Who is at the other end, as a log names it."""
    address = getattr(connection, "remote_address", None)
    return "nobody known" if address is None else f"{address[0]}:{address[1]}"


def titled(task: Optional[str], id: Any, connection: Any = None) -> str:
    """A request as a log names it: its type, its id and who sent it, on one line."""
    type = printable(repr(_brief(task or "")))
    number = "without id" if id is MISSING else f"id {printable(_brief(repr(id)))}"
    return f"{type} ({number})" if connection is None else f"{type} ({number}, from {peer_of(connection)})"


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _json_name(value: Any) -> str:
    names: dict[Any, str] = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _brief(value: Optional[object]) -> str:
    text = value if isinstance(value, str) else str(value) if isinstance(value, BaseException) else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
