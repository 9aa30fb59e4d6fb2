"""Several connections behind the methods of a client: to several servers, or to the processes of one."""

from functools import partial
from typing import Any, Callable, Optional, Sequence, Union

from ..logs import get_logger
from ..options import Unpack, count
from .address import Url, Urls, parse_urls
from .client import Client, Methods
from .endpoints import HomeFirst, rotated
from .link import Link, shown_of
from .options import ClientOptions
from .shares import Seat, Shares
from .spread import Spread

_logger = get_logger("oompa.client")


class Pool(Client):
    """A client that spreads its calls over several connections: what one process of a server cannot carry, several can.

    Each call goes to the connection with fewer calls pending of two that are drawn at random among those that are open, and
    stays with it. A connection that is lost is opened again; where calls are pending on it, to the next of several URLs at
    once, and they are sent again there, as after any reconnect: a server that goes away costs no call, though a task may run
    twice. With its calls settled the connection waits for its own server again, and the others carry what comes.

    Which of several processes that listen on one port a connection comes to, the system draws. Where one has more than its
    share, the pool tries again, ten times in some seconds, since it cannot know how many there are; the connections that are
    there carry the calls meanwhile. A server with ``introspection=False`` does not tell its processes apart. Connections that
    came together all the same part again when the server ends them, for which it has ``max_connection_age``.

    Everything else is as of a :class:`~oompa.client.client.Client`, with these differences: it is connected when one of its
    connections is; ``max_pending`` and ``tolerance`` hold for each of them; listeners hear of all, and as each has a callback
    thread of its own, may run at the same time as others.

    Args:
        urls: A list of URLs, for a connection to each. Or one URL, or a callable that returns one, for ``size`` connections.
        methods: Methods to generate, as for ``Client``.
        size: How many connections there are to one URL.
        options: Those of ``Client``, for each connection.

    Any thread may use a pool. A context manager closes it.

    Raises:
        ValueError: ``size`` is missing, or given beside several URLs; or as ``Client``.
        TypeError: As ``Client``.
    """

    def __init__(
        self,
        urls: Url,
        methods: Optional[Methods] = None,
        *,
        size: Optional[int] = None,
        **options: "Unpack[ClientOptions]",
    ) -> None:
        self._places = _places_of(urls, size)
        super().__init__(urls, methods, **options)

    def _carrier(self, url: Url, settings: ClientOptions) -> Spread:
        links: list[Link] = []
        shares = Shares(len(self._places))
        for number, place in enumerate(self._places):
            endpoints = HomeFirst(partial(_is_free, links, number)) if isinstance(place, list) else Seat(shares)
            links.append(Link(place, settings, self._emitter, _logger, endpoints))
        return Spread(links, shown_of(url))


Place = Union[str, Callable[[], Urls], list[str]]


def _is_free(links: Sequence[Link], number: int) -> bool:
    """Whether one of them has nothing pending, and others carry what may come."""
    return not len(links[number]) and any(link.is_ready for link in (*links[:number], *links[number + 1 :]))


def _places_of(urls: Any, size: Optional[int]) -> Sequence[Place]:
    """Where each connection is to lead. With several URLs: to its own one, and the others when it must."""
    if isinstance(urls, str) or callable(urls):
        if size is None:
            raise ValueError("one URL needs size=, the number of connections to it")
        return [urls] * count("size", size)
    parse_urls(urls)
    if size is None:
        return [rotated(urls, start) for start in range(len(urls))]
    if len(urls) > 1:
        raise ValueError("several URLs get a connection each: leave out size=, or name one URL")
    return [urls[0]] * count("size", size)
