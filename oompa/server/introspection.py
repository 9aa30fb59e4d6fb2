"""What a server tells of itself: INFO, who it is; STATS, what it has done; SCHEMA, what it can be asked for.

Clients ask with requests of these types, as ``oompa info``, ``stats`` and ``schema`` do; ``server.info()`` and its siblings say
the same. Each speaks for one process, and its id says for which.

A thread that has answered a request appends how long it took to a list, a single step that needs no lock. What has gathered
there is added up now and then, and when somebody asks. ``Tally._lock`` guards the sums; a finalizer may ask for them on a
thread that holds it.
"""

import json
import os
import pathlib
import secrets
import sys
import threading
from bisect import bisect_left, bisect_right
from datetime import datetime, timezone
from typing import Any, Callable, Iterable, Mapping, NamedTuple, Optional

from ..errors import printable
from ..options import LONGEST
from ..schema import Factory, function_of
from ..version import __version__
from ..wire.announcement import features
from ..wire.messages import ERR, INFO, PING, SCHEMA, STATS, Reply
from .asyncapi import doc_of, document
from .options import ServerOptions

#: Characters of an error that STATS tells.
_SHOWN_ERROR = 500

#: What is asked of the server itself.
OWN = frozenset({PING, INFO, STATS, SCHEMA})

#: How many durations gather before they are added up.
_GATHERED = 256

#: What requests count under whose type is not in the schema: made up by peers, they must not fill the memory.
_UNKNOWN = ""


#: Seconds, from 2 microseconds to an hour, each a fifth more than the one before: so much a percentile of STATS may be off.
_BOUNDS = [2e-6 * 1.2**step for step in range(118)]


class Load(NamedTuple):
    """What a server has in hand at the moment: connections, tasks that run or wait for a Future, requests in queues."""

    connections: int
    running: int
    queued: int


class _Counts:
    """Of one task type."""

    __slots__ = ("recent", "requests", "errors", "seconds", "last_error", "spread")

    def __init__(self) -> None:
        #: Seconds of those that are not in the sums yet.
        self.recent: list[float] = []
        self.requests = self.errors = 0
        self.seconds = 0.0
        self.last_error: Any = None
        #: How many took up to each of ``_BOUNDS``, and longer than the one before.
        self.spread = [0] * (len(_BOUNDS) + 1)

    def add_up(self) -> None:
        """Move what is recent into the sums. One thread at a time; others may append meanwhile."""
        count = len(self.recent)
        batch = sorted(self.recent[:count])
        del self.recent[:count]
        self.requests += count
        self.seconds += sum(batch)
        done = 0
        while done < count:
            place = bisect_left(_BOUNDS, batch[done])
            end = bisect_right(batch, _BOUNDS[place], done) if place < len(_BOUNDS) else count
            self.spread[place] += end - done
            done = end


class Tally:
    """Counts the requests of each task type. Any thread may count and ask."""

    def __init__(self, schema: Mapping[str, Factory]) -> None:
        self._schema = schema
        self._lock = threading.RLock()
        self._counts: dict[Optional[str], _Counts] = {}

    def count(self, reply: Reply) -> None:
        """One more request was answered. Pings, and what is asked of the server itself, are no tasks and do not count."""
        counts = self._counts.get(reply.task)
        if counts is None:
            if reply.task in OWN and reply.task not in self._schema:
                return
            counts = self._counts_of(reply.task)
        recent = counts.recent
        recent.append(reply.elapsed)
        if reply.type == ERR or len(recent) >= _GATHERED:
            self._add_up(counts, reply)

    def _add_up(self, counts: _Counts, reply: Reply) -> None:
        with self._lock:
            counts.add_up()
            if reply.type == ERR:
                counts.errors += 1
                counts.last_error = reply.error

    def _counts_of(self, task: Any) -> _Counts:
        """The counts of a type that may be new."""
        with self._lock:
            return self._counts.setdefault(task if task in self._schema else _UNKNOWN, _Counts())

    def told(self, with_errors: bool) -> dict[str, dict[str, Any]]:
        """The counts by task type, in the words of NATS' services; types that nobody has asked for have zeros."""
        tasks = {task: _Counts() for task in self._schema}
        with self._lock:
            for counts in tuple(self._counts.values()):
                counts.add_up()
            seen = {str(task): _copied(counts) for task, counts in self._counts.items()}
        return {task: _told(counts, with_errors) for task, counts in {**tasks, **seen}.items()}


def _copied(counts: _Counts) -> _Counts:
    copy = _Counts()
    for name in _Counts.__slots__:
        setattr(copy, name, getattr(counts, name))
    copy.spread, copy.recent = list(counts.spread), []
    return copy


def _told(counts: _Counts, with_errors: bool) -> dict[str, Any]:
    return {
        "num_requests": counts.requests,
        "num_errors": counts.errors,
        "processing_time": counts.seconds,
        "average_processing_time": counts.seconds / counts.requests if counts.requests else 0.0,
        "last_error": _shown(counts.last_error) if with_errors else None,
        "durations": [[bound, count] for bound, count in zip((*_BOUNDS, LONGEST), counts.spread) if count],
    }


def _shown(error: Any) -> Optional[str]:
    """An error as one line of text: it may be any JSON value, and of any length."""
    if error is None or isinstance(error, str):
        return None if error is None else printable(error)[:_SHOWN_ERROR]
    try:
        return json.dumps(error)[:_SHOWN_ERROR]
    except Exception:  # of a codec that writes more than JSON's own
        return printable(repr(error))[:_SHOWN_ERROR]


class Introspection:
    """Answers INFO, STATS and SCHEMA.

    Args:
        load: Asked for what the server has in hand.
    """

    def __init__(self, schema: Mapping[str, Factory], options: ServerOptions, load: Callable[[], Load]) -> None:
        self._schema = schema
        self._options = options
        self._load = load
        self._id = secrets.token_hex(8)
        self._started = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        self._tally = Tally(schema)
        #: Called with each reply.
        self.count = self._tally.count

    @property
    def id(self) -> str:
        """Which server, in which process: servers of forked workers have drawn theirs in common."""
        return f"{self._id}.{os.getpid()}"

    @property
    def answers(self) -> Mapping[str, Callable[[], Any]]:
        """What the server itself answers, by request type: nothing where it was told not to."""
        return {INFO: self.info, STATS: self.stats, SCHEMA: self.asyncapi} if self._options["introspection"] else {}

    def info(self) -> dict[str, Any]:
        """Who the server is, and its tasks."""
        return {
            **self._identity(),
            "version": self._options["version"],
            "library": f"oompa-python/{__version__}",
            "features": list(features(self._options["resume_timeout"] is not None)),
            "metadata": dict(self._options["metadata"]),
            "tasks": [{"type": task, "doc": doc_of(factory)} for task, factory in dict(self._schema).items()],
        }

    def stats(self) -> dict[str, Any]:
        """What it has done since it started, and has in hand."""
        tasks = self._tally.told(with_errors=self._options["expose_errors"])
        return {**self._identity(), **self._load()._asdict(), "tasks": tasks}

    def asyncapi(self) -> dict[str, Any]:
        """What it can be asked for, as an AsyncAPI 3 document."""
        return document(self._name(), self._options["version"], self._options["path"], dict(self._schema))

    def _identity(self) -> dict[str, Any]:
        return {"name": self._name(), "id": self.id, "started": self._started}

    def _name(self) -> str:
        return self._options["name"] or module_of(self._schema.values())


def module_of(factories: Iterable[Factory]) -> str:
    """The module that the first factory is from; of a script, its file's name."""
    for factory in factories:
        module = getattr(function_of(factory)[0], "__module__", None)
        if module == "__main__":
            return pathlib.PurePath(getattr(sys.modules[module], "__file__", None) or "oompa").stem
        if isinstance(module, str):
            return module
    return "oompa"
