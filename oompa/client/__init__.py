"""The client's end: calls out, Futures back, over one connection that mends itself.

``client`` is what users hold; ``link`` does the work: it puts requests into ``exchange`` (what is pending, pure), sends them
and settles each ``call``. ``keeper`` connects and reconnects, when ``reconnecting`` (pure) says, through ``opening``, the
only file that knows websocket-client, with the user's ``headers``, to the ``address`` that ``endpoints`` (pure) says is next;
``failures`` (pure) puts into words why that failed. ``turns`` decides who reads. ``timer`` keeps the deadlines,
``callbacks`` runs what belongs to the user, ``tolerance`` (pure) gives up a connection on which too much times out,
``middleware`` stands before all of it, ``options`` describes what may be told.

Threads: callers send on their own threads, and while they wait for a reply one of them *leads*: it reads the connection for
all. The *keeper* (``oompa-keeper``) connects, and reads while no caller does. The timer (``oompa-timer``) ends attempts and
watches for silence; it never blocks on the network. Callbacks and listeners run, in order, on ``oompa-callbacks``. All are
daemons, started when first needed, that hold the link and never the client, so an unreferenced client can end.

Words: to *lead* is to be the one thread that reads; the lead is *stale* when nobody has had it for a few milliseconds, and
the keeper takes it; the keeper is *parked* while callers lead, and *dozes*, looking less often, while each reply that is to
come has a caller waiting for it. A call *settles* once: with a result, an error, or cancelled.
"""
