"""The client: typed tasks out, Futures back, over one connection that mends itself."""

import logging
import weakref
from functools import partial
from typing import Any, Callable, Mapping, Optional

from ..emitter import Emitter, Listenable
from ..options import Signature, Unpack, complete
from ..wire.messages import MISSING, PING
from .call import Call
from .link import Link
from .options import CLIENT_OPTIONS, ClientOptions

_logger = logging.getLogger("oompa.client")

Methods = Mapping[str, Mapping[str, Any]]


class Client(Listenable):
    """Dispatches tasks to a server.

    Args:
        url: ``ws://`` or ``wss://``.
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

    def __init__(self, url: str, methods: Optional[Methods] = None, **options: "Unpack[ClientOptions]") -> None:
        checked = complete("Client", CLIENT_OPTIONS, options)
        self.url = url
        self._emitter = Emitter(
            ("error", "host-closed", "reconnect-failed", "reconnected"), _logger, families=("OK:", "ERR:")
        )
        self._methods = {name: _method(name, method) for name, method in (methods or {}).items()}
        self._link = Link(url, checked, self._emitter, _logger)
        # No close at exit: the threads are daemons, and the interpreter shall not wait for a server.
        weakref.finalize(self, self._link.abandon).atexit = False
        if not checked["no_server"]:
            self._link.start()

    def start(self) -> None:
        """Connect, after ``no_server=True``. Does not wait. Raises ClientClosed on a closed client."""
        self._link.start()

    def dispatch(self, type: str, payload: Any = MISSING) -> Call:
        """Send a task, at once or as soon as there is a connection.

        A call that returns ran at least once: it may have run up to ``attempts`` times, plus once per reconnect, with the
        same request id each time. After a timeout or a closed error it may or may not have run.

        Args:
            type: The task type.
            payload: Any JSON value; left out, the request has none, which the server takes for None.

        Returns:
            A ``concurrent.futures.Future`` with ``id`` and ``type``. It settles exactly once, within ``timeout`` times
            ``attempts``: with the payload of the reply, RemoteError, RequestTimeout, ConnectionLost or ClientClosed.

        Raises:
            ClientClosed: The client is closed, or belongs to another process.
            TooManyPending: ``max_pending`` calls wait already.
            ValueError, TypeError: The payload is not JSON, or too large.
        """
        return self._link.dispatch(type, payload, None, self)

    def call(self, type: str, payload: Any = MISSING, timeout: Optional[float] = None) -> Any:
        """Send a task and wait for its result.

        Args:
            type: The task type.
            payload: Any JSON value.
            timeout: Seconds this request may take, instead of ``timeout`` times ``attempts``; it is then not sent again.

        Raises:
            RemoteError, RequestTimeout, ConnectionLost, ClientClosed: As the Future of ``dispatch``.
            TooManyPending, ValueError, TypeError: As ``dispatch``.
        """
        return self._link.call(type, payload, timeout)

    def ping(self, timeout: Optional[float] = None) -> Call:
        """Ask for the server's health: a Future of what its healthcheck returned, or RemoteError.

        Args:
            timeout: Seconds the ping may take, as for ``call``.
        """
        return self._link.dispatch(PING, MISSING, timeout, self)

    def close(self) -> None:
        """Fail what is pending with ClientClosed, close the connection with 1001 and end the threads.

        Takes ``close_timeout`` seconds at the most. Any thread may call it, callbacks included, any number of times.
        """
        self._link.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        # Bound at each use: a method kept on the client would keep the client from being collected.
        method = self.__dict__.get("_methods", {}).get(name)
        if method is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return partial(method, self)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._methods]


def _method(name: str, method: Mapping[str, Any]) -> Callable[..., Call]:
    """A generated method, of the client it is called with."""
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"{name!r} cannot be the name of a method")
    if hasattr(Client, name) or name.startswith("_") or name == "url":
        raise ValueError(f"the method {name!r} would hide an attribute of Client; choose another name")
    unknown = set(method) - {"type", "factory"}
    if unknown:
        raise TypeError(f"method {name!r} has unknown keys {sorted(unknown)}; the keys are 'type' and 'factory'")
    task, factory = method.get("type"), method.get("factory")
    if not isinstance(task, str):
        raise TypeError(f"method {name!r} needs a 'type', the task type as a string, not {task!r}")
    if factory is not None and not callable(factory):
        raise TypeError(f"the factory of method {name!r} must be callable, not {factory!r}")

    def dispatch(client: Client, *args: Any, **kwargs: Any) -> Call:
        return client.dispatch(task, *args, **kwargs) if factory is None else client.dispatch(task, factory(*args, **kwargs))

    return dispatch
