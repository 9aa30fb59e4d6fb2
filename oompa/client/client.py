"""The client: typed tasks out, Futures back, over one connection that mends itself."""

import weakref
from types import MethodType
from typing import TYPE_CHECKING, Any, Callable, Mapping, Optional, TypeVar, cast

from ..callables import checked, checked_middleware, checked_with
from ..emitter import Emitter, Listenable
from ..logs import get_logger
from ..options import Signature, Unpack, complete, flag, seconds
from ..wire.messages import MISSING, PING, Request
from .address import Url
from .call import Call
from .link import Carrier, Link, OnProgress, Wishes
from .middleware import CallNext, Middleware, before, check_meta, own_meta
from .options import CLIENT_OPTIONS, ClientOptions

_logger = get_logger("oompa.client")

if TYPE_CHECKING:
    from concurrent.futures import Future

M = TypeVar("M", bound=Middleware)
Methods = Mapping[str, Mapping[str, Any]]


class Client(Listenable):
    """Dispatches tasks to a server.

    Args:
        url: ``ws://``, ``wss://`` or ``ws+unix:/path/of.sock:/path``; a list of them, of which any will do; or a callable
            that returns one of these, asked at each connect. ``user:password@`` in it is sent as Basic authorization.
        methods: Methods to generate: ``{"add": {"type": "ADD", "factory": lambda x, y: {"x": x, "y": y}}}``. Without a
            factory the method takes the payload itself.
        options: See :class:`~oompa.client.options.ClientOptions`, which describes each.

    Events: ``error(exception)`` for every fault of the socket or the protocol, ``host-closed()``, ``reconnect-failed()``,
    ``reconnected()``, ``OK:<id>(payload)``, ``ERR:<id>(error)``. Listeners and callbacks of Futures run, in order, on one
    thread of the client that does nothing else.

    Any thread may use a client. A context manager closes it.

    Raises:
        ValueError: The URL is no WebSocket URL, a value is out of range, or a method would hide an attribute.
        TypeError: An option, or a key of a method, is unknown or of a wrong type.
    """

    __signature__ = Signature(ClientOptions, CLIENT_OPTIONS)

    def __init__(self, url: Url, methods: Optional[Methods] = None, **options: "Unpack[ClientOptions]") -> None:
        settings = complete("Client", CLIENT_OPTIONS, options)
        self.url = url
        self._emitter = Emitter(
            {"error": ("exception",), "host-closed": (), "reconnect-failed": (), "reconnected": ()},
            _logger,
            families={"OK:": ("payload",), "ERR:": ("error",)},
        )
        self._methods = _checked_methods(methods)
        self._middleware: tuple[Middleware, ...] = ()
        self._link = self._carrier(url, settings)
        # No close at exit: the threads are daemons, and the interpreter shall not wait for a server.
        weakref.finalize(self, self._link.abandon).atexit = False
        if not settings["no_server"]:
            self._link.start()

    def _carrier(self, url: Any, settings: ClientOptions) -> Carrier:
        """What carries the calls: one connection, where a :class:`~oompa.client.pool.Pool` has several."""
        return Link(url, settings, self._emitter, _logger)

    def start(self) -> None:
        """Connect, after ``no_server=True``. Does not wait. Raises ClientClosed on a closed client."""
        self._link.start()

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at the moment."""
        return self._link.is_connected

    def wait_connected(self, timeout: Optional[float] = None) -> None:
        """Return as soon as there is a connection.

        Args:
            timeout: Seconds to wait; None: until there is a connection, or the server refuses this client.

        Raises:
            ConnectionLost: There is none in time, or the server refuses this client; it tells why.
            ClientClosed: The client is closed, or belongs to another process.
        """
        self._link.wait_connected(None if timeout is None else seconds("timeout", timeout))

    def use(self, middleware: M) -> M:
        """Add a middleware, ``middleware(request, call_next) -> Future``; also a decorator.

        Middleware runs on the thread that calls, in the order of ``use``, for everything but pings. ``request`` has ``type``,
        ``payload`` (``MISSING`` where there is none) and ``meta``, which it may change; ``call_next(request)`` sends it and
        returns the Future of its call. What a middleware raises, ``dispatch`` and ``call`` raise.

        Raises:
            TypeError: It cannot be called with these two, is a coroutine function, or never returns anything. Later, from
                ``dispatch``: what it returned is no Future.
        """
        self._middleware = (*self._middleware, checked_middleware(middleware))
        return middleware

    def dispatch(
        self,
        type: str,
        payload: Any = MISSING,
        *,
        timeout: Optional[float] = None,
        meta: Optional[Mapping[str, Any]] = None,
        key: Optional[str] = None,
        resend: bool = True,
        on_progress: Optional[OnProgress] = None,
    ) -> Call:
        """Send a task, at once or as soon as there is a connection.

        A call that returns ran at least once: it may have run up to ``attempts`` times, plus once per reconnect, with the
        same request id each time. After a timeout or a closed error it may or may not have run.

        Args:
            type: The task type.
            payload: Any JSON value; left out, the request has none, which the server takes for None.
            timeout: Seconds this request may take, instead of ``timeout`` times ``attempts``; it then has one attempt.
            meta: What a handler finds in ``request.meta``: a mapping of JSON values. Not sent to a server that does not
                understand it, such as the original.
            key: Says that requests are one and the same, to a server that runs each once: ``meta["key"]``.
            resend: False: it runs at most once. When the connection is lost after it was sent, or its attempt ends, it fails
                and is never sent again.
            on_progress: Called on the callback thread with each :class:`~oompa.wire.messages.Progress` that the task tells.

        Returns:
            A ``concurrent.futures.Future`` with ``id`` and ``type``. It settles exactly once, within ``timeout`` times
            ``attempts``: with the payload of the reply, RemoteError, RequestTimeout, ConnectionLost or ClientClosed; with
            ValueError where it turns out later to be more than the server takes. Where there is middleware, what that
            returns.

        Raises:
            ClientClosed: The client is closed or drains, or belongs to another process.
            TooManyPending: ``max_pending`` calls wait already.
            ValueError, TypeError: The payload or ``meta`` is not JSON, or too large; an argument is none.
        """
        if resend is not True:
            flag("resend", resend)
        if on_progress is not None:
            checked_with("on_progress", on_progress, "progress")
        own = own_meta(key, on_progress is not None)
        if self._middleware:
            request = Request(type, payload, meta={} if meta is None else check_meta(meta))
            return self._dispatch_through_middleware(request, own, Wishes(timeout, None, resend, on_progress))
        if meta is not None:
            own.update(check_meta(meta))
        if timeout is None and resend and not own:
            return self._link.dispatch(type, payload, None, self)
        return self._link.dispatch(type, payload, Wishes(timeout, own, resend, on_progress), self)

    def call(
        self,
        type: str,
        payload: Any = MISSING,
        timeout: Optional[float] = None,
        meta: Optional[Mapping[str, Any]] = None,
        key: Optional[str] = None,
        resend: bool = True,
    ) -> Any:
        """Send a task and wait for its result.

        Args:
            type: The task type.
            payload: Any JSON value.
            timeout: Seconds this request may take, instead of ``timeout`` times ``attempts``; it then has one attempt.
            meta, key, resend: As for ``dispatch``.

        Raises:
            RemoteError, RequestTimeout, ConnectionLost, ClientClosed: As the Future of ``dispatch``.
            TooManyPending, ValueError, TypeError: As ``dispatch``.
        """
        if self._middleware:
            return _result_of(self.dispatch(type, payload, timeout=timeout, meta=meta, key=key, resend=resend))
        if timeout is None and meta is None and key is None and resend is True:
            return self._link.call(type, payload)
        own = {**own_meta(key, False), **({} if meta is None else check_meta(meta))}
        return self._link.call(type, payload, Wishes(timeout, own, flag("resend", resend)))

    def ping(self, timeout: Optional[float] = None) -> Call:
        """Ask for the server's health: a Future of what its healthcheck returned, or RemoteError.

        Args:
            timeout: Seconds the ping may take, as for ``call``.
        """
        return self._link.dispatch(PING, MISSING, None if timeout is None else Wishes(timeout), self)

    def drain(self, timeout: Optional[float] = None) -> bool:
        """Take no new calls, wait until those that are pending have settled, and close.

        Args:
            timeout: Seconds to wait at the most; what is pending then fails with ClientClosed. None: no limit but the calls'
                own, ``timeout`` times ``attempts``.

        Returns:
            Whether all have settled.
        """
        return self._link.drain(None if timeout is None else seconds("timeout", timeout))

    def close(self) -> None:
        """Fail what is pending with ClientClosed, close the connection with 1001 and end the threads.

        A WARNING says how many calls were pending, if any; ``drain`` waits for them first.

        Takes ``close_timeout`` seconds at the most. Any thread may call it, callbacks included, any number of times.
        """
        self._link.close()

    def _dispatch_through_middleware(self, request: Request, own: dict[str, Any], wishes: Wishes) -> Call:
        def send(request: Request) -> Call:
            meta = {**own, **check_meta(request.meta)}
            return self._link.dispatch(request.type, request.payload, wishes._replace(meta=meta), self)

        call_next: CallNext = send
        for middleware in reversed(self._middleware):
            call_next = before(middleware, call_next)
        return cast(Call, call_next(request))

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} to {self._link.shown}, {self._link.state}, {len(self._link)} pending>"

    def __getattr__(self, name: str) -> Callable[..., Call]:
        # Bound at each use: a method kept on the client would keep the client from being collected.
        method = self.__dict__.get("_methods", {}).get(name)
        if method is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return MethodType(method, self)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._methods]


class _Method:
    """A generated method, of the client it is called with."""

    def __init__(self, name: str, task: str, factory: Optional[Callable[..., Any]]) -> None:
        self.__name__ = name
        self.__qualname__ = f"Client.{name}"
        self.__doc__ = factory is not None and factory.__doc__ or f"Dispatch {task}."
        self._task = task
        self._factory = factory

    def __call__(self, client: Client, *args: Any, **kwargs: Any) -> Call:
        if self._factory is None:
            return client.dispatch(self._task, *args, **kwargs)
        return client.dispatch(self._task, self._factory(*args, **kwargs))

    @property
    def __signature__(self) -> Any:
        """What ``help`` shows: the parameters of the factory; made when somebody asks."""
        import inspect

        own = [inspect.Parameter("client", inspect.Parameter.POSITIONAL_ONLY)]
        if self._factory is None:
            shown = inspect.signature(Client.dispatch)
            return shown.replace(parameters=[*own, *list(shown.parameters.values())[2:]])
        return inspect.Signature([*own, *inspect.signature(self._factory).parameters.values()], return_annotation=Call)


def _checked_methods(methods: Optional[Methods]) -> dict[str, _Method]:
    if methods is not None and not isinstance(methods, Mapping):
        raise TypeError(f'methods must be a mapping such as {{"add": {{"type": "ADD"}}}}, not {methods!r}')
    return {name: _method(name, method) for name, method in (methods or {}).items()}


def _result_of(future: "Future[Any]") -> Any:
    """The result of a call; one that is left by an exception of somebody else is cancelled."""
    try:
        return future.result()
    except BaseException:
        if not future.done():
            future.cancel()
        raise


def _method(name: str, method: Mapping[str, Any]) -> _Method:
    """A generated method. Raises ValueError or TypeError for what cannot be one."""
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"{name!r} cannot be the name of a method")
    if hasattr(Client, name) or name.startswith("_") or name == "url":
        raise ValueError(f"the method {name!r} would hide an attribute of Client; choose another name")
    if not isinstance(method, Mapping):
        raise TypeError(f'method {name!r} must be a mapping such as {{"type": "ADD"}}, not {method!r}')
    unknown = set(method) - {"type", "factory"}
    if unknown:
        raise TypeError(f"method {name!r} has unknown keys {sorted(unknown, key=str)}; the keys are 'type' and 'factory'")
    task, factory = method.get("type"), method.get("factory")
    if not isinstance(task, str):
        raise TypeError(f"method {name!r} needs a 'type', the task type as a string, not {task!r}")
    return _Method(name, task, None if factory is None else checked(f"the factory of method {name!r}", factory))
