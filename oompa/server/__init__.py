"""The server's end: a schema of tasks behind a WebSocket, and its health behind HTTP.

``server`` is what users hold. A request arrives in ``web``, the Flask side: health, upgrade, disconnect; ``handshake``, the
only file that knows simple-websocket, makes it a WebSocket if the ``gates`` let it in and ``admission`` has a place. From then
on it is a ``connection``, with what a ``service`` shares: who reads it, what runs and what is queued, and what of its
``complaints`` is logged. ``futures`` sees to what a task has returned and nobody has settled, which is ``awaited``. ``resume``
knows what clients have left behind that lost their connection, ``returning`` is a connection's part in that. ``pipeline`` turns
each request into a reply, in one of the ``contexts``; ``verdicts`` are what healthchecks and ``authenticate`` say.
``last_resort`` is where the log goes that nobody has configured. ``watcher`` finds what takes long, ``paces`` remembers which
types of task do, and ``stand_ins`` lends the threads that read on meanwhile. ``introspection`` counts what was answered and
tells what the server is, ``asyncapi`` what it can be asked for; on ``explorer``, a page, a person asks. ``progress`` is what a
task tells of how far it is. ``embedded`` is the web server that ``listen`` starts, ``options`` describes what may be told.
``takeover`` takes a socket off a web server of others, and ``workers`` knows how a process of gunicorn ends. ``health`` is the
healthcheck as it is asked, ``ages`` ends connections that are too old, ``pulse`` pings those that are silent.

Threads: each connection has a thread (*home*) for as long as it lives: the web server's, or one of its own
(``oompa-connection``) where it was taken off. The thread that *leads* reads the connection and runs tasks itself, in order;
when one takes long the lead passes to a *stand-in* (``oompa-stand-in``), a thread made for it, and home takes it back when it
is free. One watcher (``oompa-watcher``) and one thread that pings (``oompa-pulse``) serve all connections. ``listen`` adds the
accepting thread (``oompa-http``), ``close`` one that closes (``oompa-closing``). Listeners run on the thread that emits.
"""
