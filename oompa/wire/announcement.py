"""What each end tells the other in the opening handshake: what it understands, what it can take, and which client it is.

The original sends and reads none of it. Whoever announces nothing gets nothing that is not in the original's wire, and a value
that cannot be read counts as none: a header is no reason to refuse a peer.
"""

import re
from typing import Callable, NamedTuple, Optional

FEATURES_HEADER = "Oompa-Features"
LIMIT_HEADER = "Oompa-Max-Message-Size"
CLIENT_HEADER = "Oompa-Client"
SERVER_HEADER = "Oompa-Server"

#: Requests may have ``meta``.
META = "meta"

#: A request that nobody waits for any more may be cancelled.
CANCEL = "cancel"

#: A long task may tell how far it is.
PROGRESS = "progress"

#: What runs, or has just run, is not run again for a client that comes back.
RESUME = "resume"

#: What this server understands beyond the original's wire.
FEATURES = (META, CANCEL, PROGRESS, RESUME)

#: base64url (:rfc:`4648#section-5`), and no longer than anybody needs to be unique.
_CLIENT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}=?=?")

_SERVER_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")

#: As many digits as a size may have; what is longer is no size.
_SIZE = re.compile("[0-9]{1,19}")


class Announcement(NamedTuple):
    """What the other end has told.

    Attributes:
        features: What a server understands.
        max_message_size: Bytes of a message that the other end takes; None: not told.
        client_id: 72 random bits that stay the same while a client lives, whatever its connections; None: not told.
        server_id: The same for each process of a server, and what INFO tells as its id; None: not told.
    """

    features: frozenset[str] = frozenset()
    max_message_size: Optional[int] = None
    client_id: Optional[str] = None
    server_id: Optional[str] = None


def features(resumes: bool = True) -> tuple[str, ...]:
    """What a server understands; ``resumes``: whether it keeps replies for who comes back."""
    return FEATURES if resumes else tuple(each for each in FEATURES if each != RESUME)


def server_headers(max_message_size: int, server_id: Optional[str] = None, resumes: bool = True) -> dict[str, str]:
    """What a server tells in its answer; with ``server_id`` which process it is."""
    told = {} if server_id is None else {SERVER_HEADER: server_id}
    return {FEATURES_HEADER: ", ".join(features(resumes)), LIMIT_HEADER: str(max_message_size), **told}


def client_headers(client_id: str, max_message_size: int) -> dict[str, str]:
    """What a client tells in its request."""
    return {CLIENT_HEADER: client_id, LIMIT_HEADER: str(max_message_size)}


def read_announcement(header: Callable[[str], Optional[str]]) -> Announcement:
    """What the headers of the other end tell; ``header(name)`` is the value of one, None where it is missing."""
    size, client_id, server_id = (header(name) or "" for name in (LIMIT_HEADER, CLIENT_HEADER, SERVER_HEADER))
    return Announcement(
        frozenset(filter(None, (feature.strip() for feature in (header(FEATURES_HEADER) or "").split(",")))),
        int(size) if _SIZE.fullmatch(size) and int(size) > 0 else None,
        client_id if len(client_id) <= 64 and _CLIENT_ID.fullmatch(client_id) else None,
        server_id if _SERVER_ID.fullmatch(server_id) else None,
    )
