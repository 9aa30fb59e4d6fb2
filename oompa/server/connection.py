"""One client as the server sees it: read, run, reply.

One thread *leads*: it reads the channel and runs each task itself, in order. The thread that the web server gave is *home*;
others are *stand-ins*, lent by ``stand_ins``. A thread of a connection is in one of four states:

- **leads**: reads, admits, and runs what it admits. One thread at a time, ``_leader``; none but the leader admits or reads.
- **works**: runs a task, or one after the other from the queue, and does not lead. It comes of a leader whose task takes long:
  the watcher finds that after a few milliseconds, or the task's type is known for it (``paces``) and it passes the lead on
  before it starts. When nothing is queued any more, home waits and a stand-in goes.
- **waits** (home alone, ``_home_is_free``): without a task and without the lead. A stand-in that leads gives it back as soon as
  it sees that, so an idle connection has one thread.
- **gone**: the connection has ended, ``_ended``, and no task holds the thread.

A task that returns a Future holds no thread from then on (``awaited``). Whoever settles it, an executor's thread maybe, only
leaves word: a stand-in makes the replies, emits and sends them, one after the other for each connection.

Up to ``concurrency`` tasks run at once. Beyond that the leader queues what it reads; where ``max_queued`` requests wait, or
those that wait and run hold more than ``max_message_size`` bytes, it stops reading, which the peer feels as back-pressure, and
says twice a second that this end lives.

A connection that is lost starts nothing more. What it has in hand, and the replies it wrote last, are for its client's next
connection to ask for (``resume``): the reply of a task that ends on the one is sent on the other. So it is for a while after a
connection was full: a copy that lay unread meanwhile is answered with the reply that was written.

``_state`` guards who leads, what runs, what is queued and what is awaited. A leader that finds nothing of that (``_is_plain``)
starts a task without it: nobody else can start one then, and it stores what runs before it looks whether the connection drains,
as whoever drains does in the opposite order. The inbox, what was read and not yet looked at, last first, belongs to the leader.
Tasks, replies, reading and listeners run outside the lock. No thread here is the main one, so no signal handler comes in
between; a finalizer may, and the lock is re-entrant for it.
"""

import logging
import threading
from collections import deque
from functools import partial
from time import monotonic, thread_time
from typing import Any, Callable, NamedTuple, Optional

from ..errors import printable
from ..wire.channel import Channel
from ..wire.closing import ORDERLY_CODES, ChannelClosed, CloseCode, check_close
from ..wire.codec import Codec
from ..wire.frames import Message
from ..wire.messages import (
    CANCEL_TYPE,
    ERR,
    MISSING,
    PING,
    Progress,
    Reply,
    Request,
    UnreadableRequest,
    cancelled_id,
    peer_of,
    read_request,
)
from .awaited import Awaiting, Key
from .complaints import Complaints
from .contexts import NOTHING_SET, work_as
from .futures import Futures, give_up
from .paces import PATIENCE, WORTH
from .pipeline import INVALID_ARGUMENT, Answer
from .progress import Report
from .resume import SMALL, Running, Written
from .returning import Past, past_of
from .service import Service, Visitor
from .watcher import NEVER

#: How often a thread that stands in for home looks whether home is free again, in seconds.
_STAND_IN_LOOK = 0.05

#: How often a peer whose requests are not read for want of room is told that this end lives, in seconds.
_SIGN_OF_LIFE = 0.5

#: The queue is empty.
_NOTHING: tuple[None, float] = (None, 0.0)


class _Worker:
    """A thread's part in a connection.

    Attributes:
        size: Bytes of the message whose request it runs.
        due, is_looked_at: See ``watcher.Worker``.
    """

    def __init__(self, stuck: Callable[["_Worker"], None]) -> None:
        self.due = NEVER
        self.is_looked_at = False
        self.is_replying = False
        self.size = 0
        self.request: Optional[Request] = None
        self._stuck = stuck

    def stuck(self) -> None:
        """Called by the watcher: the task of this worker takes long."""
        self._stuck(self)


class _Queued(NamedTuple):
    """A request that waits for its turn."""

    request: Request
    size: int
    since: float


class _ClosingHandshake:
    """A closing handshake as the watcher knows it: something that may take long."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection

    def stuck(self) -> None:
        """Called by the watcher: the peer does not complete it."""
        if self._connection.is_live:
            self._connection.abort("the peer did not complete the closing handshake within close_timeout")


class Connection:
    """A client's connection, as events, requests and ``server.connections`` show it.

    Attributes:
        remote_address: Host and port of the peer, as the web server tells them.
        headers: The headers of the upgrade request, as ``flask.Request.headers``.
        identity: What ``authenticate`` returned.
        announced: What the client told in its handshake.
    """

    def __init__(self, channel: Channel, service: Service, visitor: Visitor) -> None:
        # Fewer than thirty attributes: CPython finds those of objects that have more much slower.
        self.remote_address, self.headers, self.identity, _, app, _ = visitor
        self.announced = channel.announced
        self._channel = channel
        self._service = service
        pipeline, self._codec, self._watcher, _, self._paces, self._emitter, _, options, _ = service
        self._answer = pipeline.answer if app is None else partial(pipeline.answer_within, app)
        self._state = threading.RLock()
        self._changed = threading.Condition(self._state)
        self._home = self._leader = _Worker(self._stuck)
        self._home_is_free = False
        self._running: dict[_Worker, Key] = {}
        self._queue: deque[_Queued] = deque()
        self._queued_size = 0
        self._past: Optional[Past] = None
        self._written: deque[Written] = deque(maxlen=0)  # where there is no line: nobody will ask for it
        self._futures = Futures(self, self._state, service, app)
        self._waits_for_room = False
        self._inbox: list[Message] = []
        self._is_plain = True
        self._draining = False
        self._closing: Optional[_ClosingHandshake] = None
        self._ended = False
        self._complaints: Optional[Complaints] = None

    def __repr__(self) -> str:
        return f"<Connection {self.remote_address[0]}:{self.remote_address[1]}{'' if self.is_open else ' closed'}>"

    @property
    def is_open(self) -> bool:
        """Whether a reply can still be sent."""
        return self._channel.is_open

    @property
    def codec(self) -> Codec:
        """How values of this connection become text and back: for a middleware that keeps them."""
        return self._codec

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Start the closing handshake, from any thread, without waiting; after ``close_timeout`` the connection is cut.

        Raises:
            TypeError, ValueError: No close frame carries the code, or the reason is no string.
        """
        check_close(code, reason)
        self._channel.close(code, reason)
        with self._changed:
            if self._closing is not None or self._ended:
                return
            self._closing = _ClosingHandshake(self)
            self._is_plain = False
            self._changed.notify_all()  # the leader may be waiting for room in the queue
        self._watcher.began(self._closing, self._service.options["close_timeout"])

    def complain(self, problem: str, *args: Any) -> None:
        """Log a warning of what this peer sends: five a second, and then their number. Any thread."""
        if self._complaints is None:
            self._complaints = Complaints()
        left_out = self._complaints.one_more(monotonic())
        if left_out is not None:
            self._tell_left_out(left_out)
            self._service.logger.warning(f"{problem} (connection to %s)", *args, peer_of(self))

    def tell_progress(self, request: Request, progress: Progress) -> None:
        """Tell the client how far a task is. Any thread; never waits."""
        with self._state:
            if request.report is None:
                request.report = Report(request, self._codec, self._watcher)
        request.report.tell(progress)

    def offer(self, text: bytes) -> bool:
        """Send what may be lost, unless the peer is slow; returns whether it need not be offered again. Any thread."""
        if self._channel.is_stalled:
            return False
        try:
            self._channel.post(text)
        except ChannelClosed:
            pass
        return True

    def _tell_left_out(self, count: int) -> None:
        if count:
            self._service.logger.warning("%d more warnings of the connection to %s were left out", count, peer_of(self))

    def abort(self, reason: str) -> None:
        """End the connection without a handshake, from any thread."""
        self._channel.abort(reason)
        with self._changed:
            self._changed.notify_all()  # the leader may be waiting for room in the queue

    def drain(self) -> None:
        """Take no more requests, and close with 1000 when those that run have replied. Does not wait."""
        with self._state:
            self._draining = True
            self._is_plain = False
            is_idle = not self._running and not self._queue and not self._futures.awaited
        if is_idle:
            self.close()

    def beat(self, now: float) -> float:
        """Ping the peer if it is silent, or give it up; returns when to do so next. Called by the pulse alone."""
        self._channel.look_after(now)
        return self._channel.check_due()

    @property
    def is_live(self) -> bool:
        """Whether the connection has not ended; a task of it may still run when it has."""
        return not self._ended

    def load(self) -> tuple[int, int]:
        """How many tasks run, and how many requests are queued."""
        with self._state:
            running = tuple(self._running.items())  # a single step: the leader adds to it without the lock
            queued, awaited = len(self._queue), [each.key for each in self._futures.awaited]
        knows, is_elsewhere = self._service.pipeline.knows, self._is_elsewhere
        keys = [key for worker, key in running if knows(key[0]) and not worker.is_replying] + awaited
        return sum(not is_elsewhere(key) for key in keys), queued

    def _is_elsewhere(self, key: Key) -> bool:
        """Whether a newer connection has adopted what runs for this one, and counts it."""
        return self._past is not None and self._past.is_elsewhere(key)

    def serve(self, came_at: float = 0.0) -> None:
        """Read, run and reply until the connection has ended and the calling thread's own task is over.

        Args:
            came_at: When it was asked for: threads do not begin in the order in which a client's connections came.
        """
        try:
            self._resume(came_at)
            self._emitter.emit("connection", self)
            while self._await_lead():
                self._lead(self._home)
        finally:
            self._leave()

    def _resume(self, came_at: float) -> None:
        """Find what the client has left behind, if it can be known again; where it has a newer connection, retire."""
        resume, client_id = self._service.resume, self.announced.client_id
        if resume is None or client_id is None:
            return
        self._past, before = past_of(resume, client_id, self.identity, self, came_at)
        self._written = self._past.line.written
        if before is not None:
            before.retire()
        with self._state:
            self._look_locked()

    def retire(self) -> None:
        """The client has come on a newer connection: close this one, which has most likely been lost. Does not wait."""
        self.close(CloseCode.NORMAL_CLOSURE, "the client has a newer connection")
        self._lose()

    def _lose(self) -> None:
        """Nothing can be sent any more: start nothing, either, and leave what is in hand to the client's next connection."""
        with self._changed:
            self._draining = True
            self._is_plain = False
            self._queue.clear()
            self._queued_size = 0
            self._changed.notify_all()
        if self._past is not None:
            self._past.lost(self._begun)

    def _begun(self) -> list[tuple[Key, Optional[Request], bool]]:
        """What is in hand, and whether its task is over. Takes no lock: nothing begins any more, and single steps tell."""
        running = [(key, worker.request, worker.is_replying) for worker, key in tuple(self._running.items())]
        awaited = [each for each in tuple(self._futures.awaited) if not each.is_adopted]
        return running + [(each.key, each.request, each.is_replying) for each in awaited]

    def _leave(self) -> None:
        """Home goes, and the web server closes the descriptor: nobody may be using it any more."""
        work_as(None)  # the thread may be one of a pool, and live on
        self.abort("the connection was closed")
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._leader is self._home, self._service.options["close_timeout"])
        self._end()
        self._channel.detach()

    def _await_lead(self) -> bool:
        """Wait until home leads again, True, or the connection has ended, False."""
        with self._changed:
            self._home_is_free = True
            while not self._ended and self._leader is not self._home:
                self._changed.wait()  # notified by whoever leads
            self._home_is_free = False
            return not self._ended

    def _lead(self, me: _Worker) -> None:
        """Read and run for as long as this worker leads; returns when it has nothing left to run, either.

        Whatever is raised ends this connection and nothing else; it is told when everything is put in order.
        """
        work_as(me)
        try:
            return self._read_and_run(me)
        except ChannelClosed as ended:
            closed, defect = ended, None
        except BaseException as error:
            closed, defect = ChannelClosed(CloseCode.INTERNAL_ERROR, "internal error"), error
        self._fail(me, closed)
        if defect is not None:
            self._service.logger.error("a defect of oompa: the connection to %s failed", self.remote_address, exc_info=defect)
        else:
            level = logging.DEBUG if closed.code in ORDERLY_CODES else logging.INFO
            self._service.logger.log(level, "connection to %s ended: %s", self.remote_address, str(closed))

    def _read_and_run(self, me: _Worker) -> None:
        stands_in = me is not self._home
        while self._leader is me:
            if stands_in and self._home_is_free and self._pass_lead_home():
                return
            if self._running or not self._is_plain:
                self._wait_for_room()
            inbox = self._inbox
            if not inbox:
                inbox = self._inbox = self._channel.receive(_STAND_IN_LOOK if stands_in else None)
                if not inbox:
                    continue
                inbox.reverse()
            self._accept(me, inbox.pop())

    def _fail(self, me: _Worker, closed: ChannelClosed) -> None:
        """This worker is done for, and the connection with it. Whoever leads instead of it sees the end of the channel."""
        me.due = NEVER
        with self._state:
            self._running.pop(me, None)
        try:
            self._channel.close(closed.code, closed.reason)
        finally:
            self.abort(closed.reason)
            if self._leader is me:
                self._end()

    def _accept(self, me: _Worker, message: Message) -> None:
        """Run what a message asks for, or queue it; then what waits in the queue, if anything."""
        request: Optional[Request] = None
        try:
            request = read_request(self._codec, message, self)
        except UnreadableRequest as error:
            unreadable = Reply(ERR, error.id, error=str(error), details=dict(INVALID_ARGUMENT))
        if request is None:  # answered out here: what a listener raises is not to be chained to the fault of a peer
            self.complain("unreadable request: %s", printable(str(unreadable.error)))
            return self._send(*self._service.pipeline.write(unreadable, self))
        if request.type == CANCEL_TYPE:
            return self._cancel(cancelled_id(request.payload))
        if not self._admit(me, request, len(message)):
            return
        waited = 0.0
        while request is not None:
            pace = self._paces.of(request.type)
            me.due = monotonic() + PATIENCE
            if not me.is_looked_at:
                self._watcher.look_at(me)
            if waited and request.remaining() == 0.0:
                reply, text = self._service.pipeline.expire(request)
            elif pace is None:
                reply, text = NOTHING_SET.copy().run(self._answer, me, request)
                if reply.elapsed > WORTH:
                    self._suspect(request.type)
            else:
                reply, text = self._run_measured(me, request, pace)
            if text:
                if waited:
                    reply.waited = waited
                self._send(reply, text)
            else:
                self._await(me, request, waited)
            me.due = NEVER
            request, waited = self._next(me)
        me.request = None

    def _run_measured(self, me: _Worker, request: Request, is_slow: bool) -> Answer:
        """Run a task of a type that may hold the others up; where it is known to, the lead is passed on first."""
        if is_slow:
            self._pass_lead(me)
        begun = thread_time()
        reply, text = NOTHING_SET.copy().run(self._answer, me, request)
        self._paces.measured(request.type, reply.elapsed, thread_time() - begun)
        return reply, text

    def _await(self, me: _Worker, request: Request, waited: float) -> None:
        """The task of this worker has returned a Future, and is over as far as the worker is concerned."""
        with self._state:
            awaiting = Awaiting(self._running[me], request, me.size, waited)
            self._futures.awaited.add_locked(awaiting)
            self._is_plain = False
            me.size = 0
        self._futures.began(awaiting)

    def make_worker(self) -> _Worker:
        """Another thread's part: one that replies for Futures."""
        return _Worker(self._stuck)

    def send_settled(self, awaiting: Awaiting, reply: Reply, text: bytes) -> None:
        """Send the reply of a Future."""
        awaiting.is_replying = True  # before it counts as written: whoever takes stock meanwhile is to find it there
        self._send(reply, text)
        self._told(awaiting)

    def _told(self, awaiting: Awaiting) -> None:
        """The reply of a Future was sent."""
        with self._changed:
            self._futures.awaited.told_locked(awaiting)
            self._look_locked()
            self._changed.notify_all()  # the leader may be waiting for room
            is_drained = self._is_drained_locked()
        if is_drained:
            self.close()

    def _look_locked(self) -> None:
        """See whether there is nothing to look at but what runs and what is queued."""
        has_past = self._past is not None and self._past.line.has_past
        self._is_plain = not (self._draining or self._closing is not None or self._futures.awaited or has_past)

    def _is_drained_locked(self) -> bool:
        return self._draining and not self._running and not self._futures.awaited

    def _cancel(self, id: Any) -> None:
        """The client has given a request up: one that is queued never begins, the others may look, and stop."""
        if id is None:
            return
        with self._changed:
            queue = self._queue
            for each in [each for each in queue if self._is_same(id, each.request.id)]:
                queue.remove(each)
                self._queued_size -= each.size
            running = [worker.request for worker, key in self._running.items() if self._is_same(id, key[1])]
            running += [each.request for each in self._futures.awaited if self._is_same(id, each.key[1])]
            self._changed.notify_all()  # the leader may be waiting for room
        for request in running:
            if request is not None:
                request.cancelled = True
                give_up(request)

    def _suspect(self, type: str) -> None:
        """A task took its time: one to look at, if it held others up."""
        if (self._inbox or self._queue) and self._service.pipeline.knows(type):
            self._paces.suspect(type)

    def _admit(self, me: _Worker, request: Request, size: int) -> bool:
        """Whether to run a request now. Otherwise it is queued, or dropped: as a copy, or because this end closes, and the
        client sends it again on its next connection."""
        key = (request.type, request.id)
        me.is_replying = False  # before its key is there: a copy of a request that runs is told by both
        is_plain = self._is_plain
        if is_plain and not self._queue and not self._running:  # in this order: what leaves the queue is running already
            me.request, me.size = request, size
            self._running[me] = key
            if self._is_plain:
                return True
            return self._begins_late(me, key)
        # Otherwise it has no past; and where nothing else is to be looked at, it may have lost it meanwhile.
        if not is_plain and self._past is not None and (self._past.line.has_past or not self._futures.awaited):
            if self._finds(self._past, key, request):
                return False
        with self._state:
            if self._draining or self._closing is not None:
                return False
            original = self._original_locked(key)
            if original is not None:
                _extend(original, request.deadline)
                return False
            if (not self._queue and len(self._running) < self._service.options["concurrency"]) or self._is_ping(request):
                me.request, me.size = request, size
                self._running[me] = key
                return True
            self._queue.append(_Queued(request, size, monotonic()))
            self._queued_size += size
            return False

    def _begins_late(self, me: _Worker, key: Key) -> bool:
        """Whether to run what was about to begin as the connection stopped: if whoever took stock has seen it."""
        if self._past is None:
            self._running.pop(me)
        elif self._past.counts(key, lambda: self._running.pop(me)):
            return True
        with self._state:
            is_drained = self._is_drained_locked()
        if is_drained:
            self.close()
        return False

    def _finds(self, past: Past, key: Key, request: Request) -> bool:
        """Whether a request has begun already: its reply is sent now, or when it is there."""
        found = past.find(key, self._is_replying)
        if isinstance(found, Running):
            self._adopt(past, key, found.request or request, request.deadline)
        elif found:
            self._send_again(found)
        with self._state:
            self._look_locked()
        return found is not None

    def _is_replying(self, key: Key) -> bool:
        """Whether the reply to a request of this key is about to be written."""
        return any(worker.is_replying and self._is_copy(key, other) for worker, other in tuple(self._running.items()))

    def _adopt(self, past: Past, key: Key, request: Request, deadline: Optional[float]) -> None:
        """Await what runs for an earlier connection."""
        with self._state:
            is_new = self._original_locked(key) is None
            awaiting = Awaiting(key, request, 0, is_adopted=True)
            if is_new:
                self._futures.awaited.add_locked(awaiting)
        _extend(request, deadline)
        request.connection = self
        if is_new and not past.owes(key):
            self._told(awaiting)  # it has ended meanwhile
        elif request.awaits is not None and request.deadline is not None:
            self._futures.watch_deadlines()

    def _send_again(self, text: bytes) -> None:
        """Send a reply that was kept."""
        try:
            self._channel.send(text)
        except ChannelClosed:
            self._lose()

    def _is_ping(self, request: Request) -> bool:
        """Whether it asks if the server is well, not if it is busy: it stands in no queue."""
        return request.type == PING and not self._service.pipeline.knows(PING)

    def _wait_for_room(self) -> None:
        """Wait while the connection holds as much as it may, and tell the peer meanwhile that this end lives."""
        while self._is_full():
            with self._changed:
                self._waits_for_room = True
                # Notified by a worker that takes from the queue or is done, by close and by abort.
                has_room = self._changed.wait_for(lambda: not self._is_full(), _SIGN_OF_LIFE)
                self._waits_for_room = False
            if not has_room:
                self._channel.show_life()
            if self._past is not None:
                self._past.line.fell_behind(monotonic())
                self._is_plain = False

    def _is_full(self) -> bool:
        with self._state:
            limits = self._service.options
            held = self._queued_size + self._futures.awaited.size + sum(worker.size for worker in tuple(self._running))
            waiting = len(self._queue) + len(self._futures.awaited)
            return self._channel.is_open and (waiting >= limits["max_queued"] or held > limits["max_message_size"])

    def _original_locked(self, key: Key) -> Optional[Request]:
        """The request in hand of which one of this key is a copy; None: of none."""
        if key[1] is MISSING or key[1] is None:
            return None
        for each in self._queue:
            if self._is_copy(key, (each.request.type, each.request.id)):
                return each.request
        # Whoever has a reply may use its id again, before the worker is done with it.
        for worker, other in self._running.items():
            if not worker.is_replying and self._is_copy(key, other):
                return worker.request
        for awaiting in self._futures.awaited:
            if self._is_copy(key, awaiting.key):
                return awaiting.request
        return None

    def _is_copy(self, key: Key, other: Key) -> bool:
        return key[0] == other[0] and self._is_same(key[1], other[1])

    def _is_same(self, id: Any, other: Any) -> bool:
        """Whether ids are equal in JSON, where 1 is not true, nor in lists and objects."""
        if type(id) is not type(other) or id != other:
            return False
        return type(id) in (str, int) or self._codec.encode(id) == self._codec.encode(other)

    def _next(self, me: _Worker) -> tuple[Optional[Request], float]:
        """This worker's task is over: the next from the queue, and how long it has waited there."""
        if self._is_plain and self._leader is me:
            del self._running[me]
            if self._is_plain and self._leader is me:
                return _NOTHING  # whoever leads or drains from here on finds nothing running, and nobody has before
        self._state.acquire()  # not ``with``, which costs twice as much; no signal handler comes to this thread
        try:
            if self._waits_for_room:
                self._changed.notify_all()
            running, queue = self._running, self._queue
            if queue and len(running) - (me in running) < self._service.options["concurrency"]:  # a ping has run beyond it
                request, size, since = queue[0]
                self._queued_size -= size
                me.is_replying, me.size = False, size
                me.request = request
                running[me] = (request.type, request.id)  # before it leaves the queue: the connection never looks idle
                queue.popleft()
                return request, monotonic() - since
            running.pop(me, None)
            is_drained = self._draining and self._is_drained_locked()
        finally:
            self._state.release()
        if is_drained:
            self.close()
        return _NOTHING

    def _send(self, reply: Reply, text: bytes) -> None:
        if self._emitter.table:
            self._emitter.emit("reply", reply)
        if reply.details is None and len(text) <= SMALL:
            self._written.append((reply.task, reply.id, text))
        elif self._past is not None:
            self._past.line.note(reply, text)
        send = self._channel.send
        try:
            send(text)
        except ChannelClosed:
            self._send_elsewhere(reply, text)

    def _send_elsewhere(self, reply: Reply, text: bytes) -> None:
        """This connection is lost: send a reply on the one on which the client has asked for it since, or keep it."""
        self._lose()
        adopter = None if self._past is None else self._past.finished(reply, text)
        if adopter is None or not adopter.send_adopted(reply, text):
            self._emitter.emit("stale", reply)

    def send_adopted(self, reply: Reply, text: bytes) -> bool:
        """Send the reply to what ran for an earlier connection of the client; whether that was possible."""
        try:
            self._channel.send(text)
            return True
        except ChannelClosed:
            self._lose()
            return False
        finally:
            with self._state:
                key = (reply.task or "", reply.id)
                awaiting = [each for each in self._futures.awaited if each.is_adopted and self._is_copy(key, each.key)]
            for each in awaiting:
                self._told(each)

    def _stuck(self, worker: _Worker) -> None:
        """The task of ``worker`` takes long: let the others go on, and remember its type for the next time."""
        with self._state:
            key = self._running.get(worker)
        if key is not None and not worker.is_replying and self._service.pipeline.knows(key[0]):
            self._paces.took_long(key[0])
        self._pass_lead(worker)

    def _pass_lead(self, worker: _Worker) -> None:
        """Pass the lead on while ``worker`` is in a long task: home, if it is free, or a thread of its own."""
        with self._changed:
            if self._leader is not worker or self._ended or worker not in self._running:
                return
            if self._home_is_free:
                self._leader = self._home
                self._changed.notify_all()
                return
            self._leader = stand_in = _Worker(self._stuck)
        try:
            self._service.stand_ins.run(partial(self._stand_in, stand_in))
        except Exception:  # no thread to be had, no memory: the task holds the others up after all
            self._service.logger.warning("no thread to read on while a task takes long")
            self._take_back(stand_in)

    def _stand_in(self, me: _Worker) -> None:
        try:
            self._lead(me)
        finally:
            work_as(None)  # the thread lives on, and stands in for others

    def _take_back(self, stand_in: _Worker) -> None:
        """Home leads again, now or when its task is over."""
        with self._changed:
            if self._leader is stand_in:
                self._leader = self._home
                self._changed.notify_all()

    def _pass_lead_home(self) -> bool:
        with self._changed:
            if self._home_is_free:
                self._leader = self._home
                self._changed.notify_all()
            return self._home_is_free

    def _end(self) -> None:
        """The connection is over; told once. What is queued is not run: its sender sends it again when it reconnects."""
        self._lose()
        with self._changed:
            if self._ended:
                return
            self._ended = True
            self._changed.notify_all()
        if self._closing is not None:
            self._watcher.ended(self._closing)
        self._futures.close()
        if self._complaints is not None:
            self._tell_left_out(self._complaints.left_out())
        self._emitter.emit("terminated", self)


def _extend(request: Request, deadline: Optional[float]) -> None:
    """A copy of a request has come: its caller waits longer."""
    if deadline is None or request.deadline is None:
        request.deadline = None
    else:
        request.deadline = max(request.deadline, deadline)
