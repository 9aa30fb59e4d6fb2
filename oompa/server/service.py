"""What a connection is given: what all those of a server share, and who asks for it."""

import logging
from typing import Any, NamedTuple, Optional

from flask import Flask
from werkzeug.datastructures import Headers

from ..emitter import Emitter
from ..wire.announcement import Announcement
from ..wire.codec import Codec
from .options import ServerOptions
from .paces import Paces
from .pipeline import Pipeline
from .resume import Resume
from .stand_ins import StandIns
from .watcher import Watcher


class Visitor(NamedTuple):
    """Who asks for an upgrade.

    Attributes:
        app: The Flask application in whose contexts the tasks are to run; None: in none.
        came_at: When it asked, on the monotonic clock.
    """

    remote_address: tuple[str, int]
    headers: Headers
    identity: Any
    announced: Announcement
    app: Optional[Flask] = None
    came_at: float = 0.0


class Service(NamedTuple):
    """What the connections of a server share."""

    pipeline: Pipeline
    codec: Codec
    watcher: Watcher
    stand_ins: StandIns
    paces: Paces
    emitter: Emitter
    logger: logging.Logger
    options: ServerOptions
    resume: Optional[Resume]
