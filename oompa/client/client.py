"""The client: typed tasks out, Futures back, over one connection that mends itself."""

import logging
import ssl
import weakref
from functools import partial
from typing import Any, Callable, Mapping, Optional

from .. import options
from ..emitter import Emitter, Listenable
from ..wire.codec import codec_named
from ..wire.messages import MISSING, PING
from .address import parse_url, proxy_options
from .call import Call
from .link import Headers, Link, LinkOptions

_logger = logging.getLogger("oompa.client")

_TOLERANCE = {"ratio": 0.05, "interval": 10.0}

Methods = Mapping[str, Mapping[str, Any]]


class Client(Listenable):
    """Dispatches tasks to a server.

    Args:
        url: ``ws://`` or ``wss://``.
        methods: Methods to generate: ``{"add": {"type": "ADD", "factory": lambda x, y: {"x": x, "y": y}}}``. Without a
            factory the method takes the payload itself.
        no_server: Do not connect yet; ``start`` does.
        reconnect_interval: Seconds between the starts of two attempts to connect.
        max_reconnect_interval: Given, attempts back off exponentially with full jitter, up to so many seconds.
        timeout: Seconds one attempt of a request may take.
        attempts: Attempts a request has, all with the same id; then it fails with RequestTimeout.
        tolerance: ``{"ratio": 0.05, "interval": 10.0}``: every ``interval`` seconds, reconnect if timeouts / requests
            exceeds ``ratio``. A key left out keeps its default; None: off.
        connect_timeout: Seconds that connecting, TLS and the handshake may take together.
        ping_interval: Seconds of silence before a ping; as many again without a sign of life: reconnect. None: off.
        write_timeout: Seconds a write may stand still before the connection is given up.
        close_timeout: Seconds ``close`` may take, the closing handshake included.
        max_message_size: Bytes of a message, in and out.
        max_pending: Pending calls beyond which ``dispatch`` raises TooManyPending.
        headers: Headers of the upgrade request: a mapping, or a callable that is asked for one at every connect.
        ssl: An ``ssl.SSLContext`` for ``wss://``, with a CA or a client certificate of your own; None: the system's CAs.
        proxy: A proxy URL: ``http://``, or ``socks5://`` with python-socks installed.
        codec: ``"json"``, ``"msgspec"``, or ``"auto"`` for msgspec where it is installed.

    Events: ``error(exception)`` for every fault of the socket or the protocol, ``host-closed()``, ``reconnect-failed()``,
    ``reconnected()``, ``OK:<id>(payload)``, ``ERR:<id>(error)``. Listeners and callbacks of Futures run, in order, on one
    thread of the client that does nothing else.

    Any thread may use a client. A context manager closes it.

    Raises:
        ValueError: The URL is no WebSocket URL, a value is out of range, or a method would hide an attribute.
        TypeError: An option, or a key of a method, is unknown or of a wrong type.
    """

    def __init__(
        self,
        url: str,
        methods: Optional[Methods] = None,
        *,
        no_server: bool = False,
        reconnect_interval: float = 1.0,
        max_reconnect_interval: Optional[float] = None,
        timeout: float = 10.0,
        attempts: int = 3,
        tolerance: Optional[Mapping[str, float]] = _TOLERANCE,
        connect_timeout: float = 10.0,
        ping_interval: Optional[float] = 25.0,
        write_timeout: float = 10.0,
        close_timeout: float = 2.0,
        max_message_size: int = 16 * 1024 * 1024,
        max_pending: int = 10_000,
        headers: Headers = None,
        ssl: Optional[ssl.SSLContext] = None,
        proxy: Optional[str] = None,
        codec: str = "json",
    ) -> None:
        self.url = url
        self._emitter = Emitter(
            ("error", "host-closed", "reconnect-failed", "reconnected"), _logger, families=("OK:", "ERR:")
        )
        self._methods = {name: _method(name, method) for name, method in (methods or {}).items()}
        link_options = LinkOptions(
            reconnect_interval=options.seconds("reconnect_interval", reconnect_interval),
            max_reconnect_interval=options.seconds_or_none("max_reconnect_interval", max_reconnect_interval),
            timeout=options.seconds("timeout", timeout),
            attempts=options.count("attempts", attempts),
            tolerance=_tolerance(tolerance),
            connect_timeout=options.seconds("connect_timeout", connect_timeout),
            ping_interval=options.seconds_or_none("ping_interval", ping_interval),
            write_timeout=options.seconds("write_timeout", write_timeout),
            close_timeout=options.seconds("close_timeout", close_timeout),
            max_message_size=options.count("max_message_size", max_message_size),
            max_pending=options.count("max_pending", max_pending),
            headers=_headers(headers),
            ssl_context=_ssl_context(ssl),
            proxy=proxy_options(proxy),
        )
        self._link = Link(parse_url(url), link_options, codec_named(codec), self._emitter, _logger)
        # No close at exit: the threads are daemons, and the interpreter shall not wait for a server.
        weakref.finalize(self, self._link.abandon).atexit = False
        if not no_server:
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


def _tolerance(tolerance: Optional[Mapping[str, float]]) -> Optional[tuple[float, float]]:
    if tolerance is None:
        return None
    unknown = set(tolerance) - set(_TOLERANCE)
    if unknown:
        raise TypeError(f"tolerance has unknown keys {sorted(unknown)}; the keys are 'ratio' and 'interval'")
    ratio, interval = (tolerance.get(key, default) for key, default in _TOLERANCE.items())
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)):
        raise TypeError(f"the ratio of tolerance must be a number, not {ratio!r}")
    if not 0 <= ratio <= 1:
        raise ValueError(f"the ratio of tolerance must be from 0 to 1, not {ratio!r}")
    return float(ratio), options.seconds("the interval of tolerance", interval)


def _headers(headers: Headers) -> Headers:
    if headers is not None and not callable(headers) and not isinstance(headers, Mapping):
        raise TypeError(f"headers must be a mapping or a callable that returns one, not {headers!r}")
    return headers


def _ssl_context(context: Optional[ssl.SSLContext]) -> Optional[ssl.SSLContext]:
    if context is not None and not isinstance(context, ssl.SSLContext):
        raise TypeError(f"ssl must be an ssl.SSLContext, not {context!r}")
    return context
