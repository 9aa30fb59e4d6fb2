"""The thread that keeps a client connected: it connects, reads while no caller does (see ``turns``), and reconnects.

What to do after a failure is decided in ``reconnecting`` and ``exchange``; here it is done. The keeper holds no lock of its
own; what callers see of it, the link keeps.
"""

import logging
import threading
from time import monotonic
from typing import Any, Optional, Protocol

from ..errors import ConnectionLost
from ..threads import OwnedThread
from ..wire.announcement import client_headers
from ..wire.channel import Channel
from ..wire.closing import BLAMING_CODES, ChannelClosed, CloseCode
from ..wire.streams import stream_of
from .address import Address, Url, parse_urls, proxy_options
from .endpoints import Endpoints
from .failures import Failure, Weight
from .headers import check_headers
from .opening import ClientOpening, NotOpened, Opened
from .options import ClientOptions
from .reconnecting import Backoff
from .turns import Turns


class Owner(Protocol):
    """What a keeper tells the link it works for. Each returns False when the link is closed and the keeper is to end."""

    #: Set when the link is closed.
    closing: threading.Event

    #: Says to servers that connections are one client's.
    client_id: str

    def began(self, opening: ClientOpening) -> bool:
        """An attempt to connect begins; closing the link aborts it."""

    def opened(self, channel: Channel) -> bool:
        """There is a connection: send on it what is pending."""

    def failed(self, error: ConnectionLost, is_refused: bool) -> bool:
        """An attempt has failed; a refusal fails everything that is pending."""

    def lost(self, closed: ChannelClosed) -> bool:
        """The connection has ended, and nobody reads it any more."""

    def tell(self, event: str, *args: Any) -> None:
        """Emit an event."""


class Keeper(OwnedThread):
    """Keeps one link connected until it is closed."""

    def __init__(
        self,
        owner: Owner,
        url: Url,
        options: ClientOptions,
        endpoints: Endpoints,
        turns: Turns,
        logger: logging.Logger,
    ) -> None:
        super().__init__("oompa-keeper", self._keep)
        self._owner = owner
        self._url = url
        self._endpoints = endpoints
        self._shown = ""  # of the server it is connected to
        self._places = 1  # how many URLs the last attempt could choose from
        self._options = options
        self._proxy = proxy_options(options["proxy"])
        self._turns = turns
        self._logger = logger
        self._announcement = client_headers(owner.client_id, options["max_message_size"])
        self._backoff = Backoff(options["reconnect_interval"], options["max_reconnect_interval"])

    def _keep(self) -> None:
        was_lost = False
        while True:
            try:
                if self._owner.closing.wait(self._backoff.delay(monotonic())):
                    return
                self._keep_one(was_lost)
            except BaseException:  # it ends that connection, and the next attempt follows
                self._logger.exception("a defect of oompa: the keeper goes on")
            was_lost = True

    def _keep_one(self, was_lost: bool) -> None:
        """Connect, and read until the connection has ended."""
        channel = self._open(was_lost)
        if channel is None:
            return
        closed = ChannelClosed(CloseCode.ABNORMAL_CLOSURE, "an exception on the thread that keeps it")
        try:
            if self._owner.opened(channel):
                self._tell_opened(was_lost)
                closed = self._turns.keep(channel)
        finally:
            channel.abort("the connection is over")
            self._lost(channel, closed)

    def _open(self, was_lost: bool) -> Optional[Channel]:
        """Try once to connect; None when it failed."""
        self._backoff.attempted(monotonic())
        try:
            channel = self._connect()
        except NotOpened as failed:
            self._failed(failed.failure, was_lost)
            return None
        except BaseException as error:  # a callable for the URL or headers that raises or exits, no memory
            self._failed(_unexpected(error), was_lost)
            return None
        self._backoff.succeeded(self._places)
        return channel

    def _tell_opened(self, was_lost: bool) -> None:
        self._logger.info("connected to %s", self._shown)
        if was_lost:
            self._owner.tell("reconnected")

    def _connect(self) -> Channel:
        """A connection to a server that is to be stayed with."""
        while True:
            address, channel = self._connect_once()
            pause = self._endpoints.elsewhere(address, channel.announced.server_id)
            if pause is None:
                return channel
            channel.close(CloseCode.GOING_AWAY)
            channel.release()
            self._owner.closing.wait(pause)

    def _connect_once(self) -> tuple[Address, Channel]:
        options, headers, url = self._options, self._options["headers"], self._url
        given = headers() if callable(headers) else headers
        checked = check_headers({} if given is None else given)
        addresses: list[Address] = parse_urls(url() if callable(url) else url)
        self._places = len(addresses)
        opening = ClientOpening(
            self._endpoints.urls(addresses),
            headers={**checked, **self._announcement},
            ssl_context=options["ssl"],
            proxy=self._proxy,
            timeout=options["connect_timeout"],
            subprotocols=options["subprotocols"],
            endpoints=self._endpoints,
        )
        if not self._owner.began(opening):
            opening.abort()
        opened = opening.open()
        try:
            return opened.address, self._channel(opened)
        except BaseException:  # a socket that was just reset takes no options everywhere; no memory
            opened.sock.close()
            raise

    def _channel(self, opened: Opened) -> Channel:
        options = self._options
        self._shown = opened.address.shown
        return Channel(
            stream_of(opened.sock),
            is_client=True,
            max_message_size=options["max_message_size"],
            ping_interval=options["ping_interval"],
            write_timeout=options["write_timeout"],
            close_timeout=options["close_timeout"],
            received=opened.received,
            announced=opened.announced,
        )

    def _failed(self, failure: Failure, was_lost: bool) -> None:
        """An attempt to connect has failed."""
        self._backoff.failed()
        is_refusal = failure.weight is Weight.REFUSED
        if is_refusal:
            self._backoff.refused(monotonic())
        self._backoff.asked(monotonic(), failure.retry_after)
        if self._owner.failed(failure.error, is_refusal):
            self._logger.warning("%s", str(failure.error))
            self._owner.tell("error", failure.error)
            self._owner.tell("reconnect-failed" if was_lost else "host-closed")

    def _lost(self, channel: Channel, closed: ChannelClosed) -> None:
        """The connection has ended; nobody reads it any more."""
        if closed.code in BLAMING_CODES:
            self._backoff.refused(monotonic())
        is_open = self._owner.lost(closed)
        channel.release()
        if is_open:
            self._logger.warning("connection to %s lost: %s", self._shown, str(closed))
            if closed.code != CloseCode.NORMAL_CLOSURE:
                self._owner.tell("error", ConnectionLost(f"the connection was lost: {closed}", closed.code))
            self._owner.tell("host-closed")


def _unexpected(error: BaseException) -> Failure:
    """What an exception comes to that is no failure to connect."""
    lost = ConnectionLost(f"connecting failed: {type(error).__name__}: {error}")
    lost.__cause__ = error.with_traceback(None)
    return Failure(lost)
