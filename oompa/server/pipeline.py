"""What happens to a request: middleware, factory or healthcheck, and the reply that comes of it. No sockets.

Everything runs on the thread that calls. The middleware chain is one callable, replaced whole by ``use``, so running it
needs no lock.
"""

import logging
import secrets
from concurrent.futures import BrokenExecutor, CancelledError, Future
from time import monotonic
from typing import Any, Callable, Mapping, Optional, Union

from flask import Flask

from ..callables import checked_middleware, checked_with
from ..errors import RemoteError, TaskError, ValidationError, printable
from ..executors import Submitting
from ..schema import Factory, call_of, is_misfit
from ..wire.codec import NESTING_LIMIT, NOT_JSON, Codec, TooDeep, is_deep, place_of_fault
from ..wire.messages import ERR, MISSING, OK, PING, Reply, Request, describe, titled, write_reply
from ..wire.sizes import NUMBERS, is_longer
from .contexts import Worker, run_apart
from .verdicts import health_of, mistake_in

Healthcheck = Callable[[], Any]
CallNext = Callable[[Request], Any]
Middleware = Callable[[Request, CallNext], Any]

#: A reply and its text.
Answer = tuple[Reply, bytes]

#: What went wrong, and what more there is to tell of it.
Told = tuple[Any, Optional[dict[str, Any]]]

#: Details that say no more than a code.
INVALID_ARGUMENT = {"code": "invalid_argument"}
_CANCELLED = {"code": "cancelled"}
_INTERNAL = {"code": "internal"}
_TOO_LARGE = {"code": "resource_exhausted"}
_UNAVAILABLE = {"code": "unavailable"}
_UNIMPLEMENTED = {"code": "unimplemented"}

#: What a request gets that its caller had no more time for before it began. As nothing has run, a caller that asks again
#: meanwhile, in another attempt, is told to go on asking.
_EXPIRED = {"code": "deadline_exceeded", "retry_after": 0.01}
_EXPIRED_ERROR = "the deadline passed before the task began"

#: Characters of a problem that the wire tells; an exception's own text may be of any length.
_PROBLEM_LIMIT = 1000


def _always_healthy() -> bool:
    return True


class UnknownType(Exception):
    """No factory for a type; its message goes out without a class name, as Node's."""


class Pipeline:
    """Turns requests into replies, and replies into texts.

    Args:
        schema: Task types to factories; looked up at each request.
        healthcheck: Healthy unless it raises or returns False; None: always healthy.
        codec: How replies become texts.
        max_reply_size: Bytes of text a reply may have; a larger one becomes an ERR.
        expose_errors: False: an exception's text stays in the log, and the reply carries an id to find it by.
        on_unhealthy: Called with what the healthcheck raised.
        logger: Where exceptions of handlers go, with their tracebacks.
        own: What the server itself answers, by request type.
        count: Called with each reply that is on its way.
    """

    def __init__(
        self,
        schema: Mapping[str, Factory],
        healthcheck: Optional[Healthcheck],
        *,
        codec: Codec,
        max_reply_size: int,
        expose_errors: bool,
        on_unhealthy: Callable[[BaseException], None],
        logger: logging.Logger,
        own: Mapping[str, Callable[[], Any]] = {},
        count: Callable[[Reply], None] = lambda reply: None,
    ) -> None:
        _check_schema(schema)
        if healthcheck is not None:
            checked_with("the healthcheck", healthcheck)
        self._schema = schema
        self._healthcheck = healthcheck or _always_healthy
        self._codec = codec
        self._max_reply_size = max_reply_size
        self._expose_errors = expose_errors
        self._on_unhealthy = on_unhealthy
        self._logger = logger
        self._own = own
        self._count = count
        self._middleware: tuple[Middleware, ...] = ()
        self._run: CallNext = self._call_factory

    def use(self, middleware: Middleware) -> None:
        """Add a middleware behind those there are."""
        self._middleware = (*self._middleware, checked_middleware(middleware))
        run: CallNext = self._run_factory
        for each in reversed(self._middleware):
            run = _before(each, run)
        self._run = run

    def knows(self, type: str) -> bool:
        """Whether the schema has a factory for ``type``."""
        return type in self._schema

    def answer(self, worker: Worker, request: Request) -> Answer:
        """Run a request; the reply that comes of it, and its text. Never raises.

        Args:
            worker: Told when the task is over.

        Returns:
            No text where the task has returned a Future that is not settled: ``request.awaits``, see ``conclude``.
        """
        reply = self.handle(request)
        if reply is None:
            return _later(request)
        worker.is_replying = True
        if request.report is not None:
            request.report.finish()
        answer = self.write(reply, request.connection)
        self._count(answer[0])
        return answer

    def answer_within(self, app: Flask, worker: Worker, request: Request) -> Answer:
        """Like ``answer``, in an application context of its own: the text is made in it, too, for a value may read a database
        as it becomes text. Functions that end the context get what the task raised; what they raise themselves is the answer.
        """
        id, task = request.id, request.type
        try:
            answer = self._answer_in(app.app_context(), worker, request)
        except BaseException as error:
            worker.is_replying = True
            told, details = self._report(task, id, request.connection, error)
            answer = self.write(Reply(ERR, id, None, told, task=task, details=details), request.connection)
        if answer[1]:
            self._count(answer[0])
        return answer

    def _answer_in(self, context: Any, worker: Worker, request: Request) -> Answer:
        raised: list[Optional[BaseException]] = [None]
        context.push()
        try:
            reply = self.handle(request, raised.append)
            if reply is None:
                return _later(request)
            worker.is_replying = True
            if request.report is not None:
                request.report.finish()
            return self.write(reply, request.connection)
        finally:
            context.pop(raised.pop())

    def conclude(self, app: Optional[Flask], request: Request, task: str, id: Any, elapsed: float) -> Answer:
        """The reply, and its text, to a request whose Future is settled. Never raises.

        Args:
            app: In an application context of which, of its own, the text is made; None: in none.
            task: The request's type, as it came.
            id: Its id, as it came.
            elapsed: Seconds until the Future was settled.
        """
        try:
            reply = Reply(OK, id, request.awaits.result(), None, elapsed, task)
        except BaseException as error:
            told, details = self._told(task, id, request.connection, error, request)
            reply = Reply(ERR, id, None, told, elapsed, task, details=details)
        if request.report is not None:
            request.report.finish()
        try:
            answer = run_apart(app, self.write, reply, request.connection)
        except BaseException as error:  # of a function of the application's that begins or ends a context
            told, details = self._report(task, id, request.connection, error)
            answer = self.write(Reply(ERR, id, None, told, elapsed, task, details=details), request.connection)
        self._count(answer[0])
        return answer

    def expire(self, request: Request) -> Answer:
        """What a request gets whose deadline has passed before it began."""
        reply = Reply(ERR, request.id, None, _EXPIRED_ERROR, task=request.type, details=dict(_EXPIRED))
        answer = self.write(reply, request.connection)
        self._count(answer[0])
        return answer

    def handle(self, request: Request, failed: Optional[Callable[[BaseException], None]] = None) -> Optional[Reply]:
        """Run a request; never raises. ``failed`` is called with what the task raised, if it did.

        Returns:
            None where the task has returned a Future that is not settled: ``request.awaits``.
        """
        started = monotonic()
        id, task = request.id, request.type
        try:
            if task in self._schema:
                run = self._run
                result = run(request)
                if isinstance(result, Future):
                    if not result.done():
                        request.awaits, request.began = result, started
                        return None
                    result = result.result()
            elif task == PING:
                result = self.check_health()
            elif task in self._own:
                result = self._own[task]()
            else:
                raise _unknown(task)
            return Reply(OK, id, result, None, monotonic() - started, task)
        except BaseException as error:  # sys.exit() in a handler must not end the connection either
            if failed is not None:
                failed(error)
            told, details = self._told(task, id, request.connection, error, request)
        return Reply(ERR, id, None, told, monotonic() - started, task, details=details)

    def check_health(self) -> Any:
        """What the healthcheck returned.

        Raises:
            HealthcheckFailed: It returned False, or what cannot be meant; or an executor is broken.
            Exception: Whatever it raised.
        """
        try:
            for submitting in _submitting_in(self._schema):
                submitting.check_executor()
            return health_of(self._healthcheck())
        except BaseException as error:
            self._on_unhealthy(error)
            raise

    def write(self, reply: Reply, connection: Any = None) -> Answer:
        """The text of a reply; of an ERR in its stead when the reply is not JSON, or larger than either end takes."""
        limit = self._max_reply_size
        taken = None if connection is None else connection.announced.max_message_size
        if taken is not None and taken < limit:
            limit = taken
        value = reply.payload if reply.error is None else reply.error
        try:
            if type(value) not in NUMBERS and is_longer(value, limit):
                return self._write_failure(reply, self._too_large(reply, connection, "", limit), _TOO_LARGE, limit)
            text = write_reply(self._codec, reply)
            if len(text) > NESTING_LIMIT and type(value) is not str and is_deep(text):
                raise TooDeep  # no client would read it
        except Exception as error:  # a subclass of dict or list may raise whatever it likes
            return self._write_failure(reply, self._not_json(reply, connection, error), _INTERNAL, limit)
        if len(text) > limit:
            problem = self._too_large(reply, connection, f" of {len(text)} bytes", limit)
            return self._write_failure(reply, problem, _TOO_LARGE, limit)
        return reply, text

    def _too_large(self, reply: Reply, connection: Any, size: str, limit: int) -> str:
        whose = "" if limit == self._max_reply_size else " of the client"
        problem = f"the reply{size} exceeds max_message_size{whose} of {limit} bytes"
        self._logger.error("%s: %s", titled(reply.task, reply.id, connection), problem)
        return problem

    def _not_json(self, reply: Reply, connection: Any, error: Exception) -> str:
        """Log why a result, or the error of a TaskError, has no text; what the wire says of it."""
        what, value = ("result", reply.payload) if reply.type == OK else ("error", reply.error)
        if reply.details is not None and self._is_json(value):
            what, value = "details", reply.details
        mistake = mistake_in(value)
        what_it_says = str(error) if isinstance(error, TooDeep) else describe(error)
        problem = what_it_says if mistake is None else f"it is {mistake}"
        place = self._place_of_fault(error, value)
        where = f" (at {what}{place})" if place else ""
        error_id, mark = self._error_id()
        title = titled(reply.task, reply.id, connection)
        cause = None if _is_own(error) else error
        text = printable(problem)
        self._logger.error("the %s of task %s is not JSON%s%s: %s", what, title, where, mark, text, exc_info=cause)
        return f"the result is not JSON{where}: {problem}" if error_id is None else _hidden(error_id)

    def _place_of_fault(self, error: Exception, value: Any) -> str:
        try:
            return printable(place_of_fault(error, value, self._is_json))
        except Exception:  # of a subclass of dict or list
            return ""

    def _is_json(self, value: Any) -> bool:
        try:
            return not is_longer(value, self._max_reply_size) and bool(self._codec.encode(value))
        except Exception:
            return False

    def _write_failure(self, reply: Reply, problem: str, details: dict[str, Any], limit: int) -> Answer:
        failure = Reply(
            ERR, reply.id, None, problem[:_PROBLEM_LIMIT], reply.elapsed, reply.task, reply.waited, dict(details)
        )
        try:
            text = write_reply(self._codec, failure)
            if len(text) <= limit:
                return failure, text
        except NOT_JSON:
            pass
        failure.id = None  # it is the id that is too large, or nested too deep
        return failure, write_reply(self._codec, failure)

    def _call_factory(self, request: Request) -> Any:
        try:
            factory = self._schema[request.type]
        except KeyError:  # a middleware changed the type
            raise _unknown(request.type) from None
        return factory(request.payload)

    def _run_factory(self, request: Request) -> Any:
        """For a middleware, which is to get the value."""
        return _awaited(request, self._call_factory(request))

    def _told(self, task: str, id: Any, connection: Any, error: BaseException, request: Request) -> Told:
        """What the wire says of what was raised."""
        if isinstance(error, CancelledError) and (request.cancelled or request.remaining() == 0.0):
            self._logger.debug("task %s was given up by its caller", titled(task, id, connection))
            return (describe(error), dict(_CANCELLED)) if request.cancelled else (_EXPIRED_ERROR, dict(_EXPIRED))
        if isinstance(error, (TaskError, RemoteError)):  # of a server that the task has called, and whose word is passed on
            if self._is_health(task):
                self._logger.warning("the healthcheck failed: %s", printable(describe(error)))
            elif isinstance(error, RemoteError):
                self._logger.debug("task %s passes on: %s", titled(task, id, connection), printable(describe(error)))
            return error.error, self._details_of(task, error)
        if isinstance(error, UnknownType):
            complain = getattr(connection, "complain", self._logger.warning)
            complain("unknown task type: %s", titled(task, id))  # the connection names its peer itself
            return str(error), dict(_UNIMPLEMENTED)
        return self._report(task, id, connection, error)

    def _details_of(self, task: str, error: Union[TaskError, RemoteError]) -> Optional[dict[str, Any]]:
        """What a handler, or the server behind a gateway, tells beside the error; a ping that failed has a code in any case."""
        return {**_UNAVAILABLE, **(error.details or {})} if self._is_health(task) else error.details

    def _report(self, task: str, id: Any, connection: Any, error: BaseException) -> Told:
        error_id, mark = self._error_id()
        if self._is_health(task):  # a state rather than a fault: no traceback at each ping
            details = _UNAVAILABLE
            self._logger.warning("the healthcheck failed%s: %s", mark, printable(describe(error)))
        else:
            if isinstance(error, ValidationError):  # told as what cannot be read is: nothing of ours has gone wrong
                complain = getattr(connection, "complain", self._logger.warning)
                complain("task %s was not run%s: %s", titled(task, id), mark, printable(str(error)))
                return describe(error) if error_id is None else _hidden(error_id), dict(INVALID_ARGUMENT)
            is_broken = isinstance(error, BrokenExecutor)
            details = INVALID_ARGUMENT if is_misfit(error) else _UNAVAILABLE if is_broken else _INTERNAL
            self._logger.error("task %s raised%s", titled(task, id, connection), mark, exc_info=error)
        return describe(error) if error_id is None else _hidden(error_id), dict(details)

    def _is_health(self, task: str) -> bool:
        return task == PING and PING not in self._schema

    def _error_id(self) -> tuple[Optional[str], str]:
        """An id by which an error that is hidden can be found, and what the log says of it; None and nothing where errors are
        exposed."""
        if self._expose_errors:
            return None, ""
        error_id = secrets.token_hex(8)
        return error_id, f" (error id {error_id})"


def _is_own(error: BaseException) -> bool:
    """Whether an error was raised here or in ``json``, so that its traceback tells nothing of the task."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(("oompa.", "json."))


def _later(request: Request) -> Answer:
    """There is nothing to send yet; a reply that tells how long the task has held its thread."""
    return Reply(OK, MISSING, elapsed=monotonic() - request.began), b""


def _hidden(error_id: str) -> str:
    return f"Internal error, id {error_id}"


def _check_schema(schema: Mapping[str, Factory]) -> None:
    if not isinstance(schema, Mapping):
        raise TypeError(f"the schema must map task types to factories, not {schema!r}")
    for type, factory in schema.items():
        if not isinstance(type, str):
            raise TypeError(f"a task type must be a string, not {type!r}")
        checked_with(f"the factory of {type!r}", factory, "payload")
    for submitting in _submitting_in(schema):
        submitting.check_function()


def _submitting_in(schema: Mapping[str, Factory]) -> list[Submitting]:
    """What submits the tasks of a schema that are bound to an executor."""
    calls = map(call_of, tuple(schema.values()))
    return [call for call in calls if isinstance(call, Submitting)]


def _unknown(type: str) -> UnknownType:
    return UnknownType(f'Unknown request type: "{type}"')


def _before(middleware: Middleware, call_next: CallNext) -> CallNext:
    return lambda request: _awaited(request, middleware(request, call_next))


def _awaited(request: Request, result: Any) -> Any:
    """The result itself, or what a Future for it comes to; a caller that gives its request up cancels the Future."""
    if not isinstance(result, Future):
        return result
    request.awaits = result
    if request.cancelled:
        result.cancel()
    return result.result()
