"""What both ends speak, and neither end's affairs: from a value to bytes on a socket and back.

From the top: ``channel`` is a WebSocket after its handshake, whole messages in and out, and how it ends; ``outbox`` is its
writing half. Below them ``frames`` (RFC 6455, pure), ``streams`` (a socket, plain or TLS), ``heartbeat`` (whether a silent peer
lives, pure), ``messages`` (requests and replies) on ``codec`` (values and JSON), ``closing`` (close codes), ``announcement``
(what a handshake tells) and ``options`` (what both ends may be told).

Threads: the wire has none of its own, but for a writer while a peer is slow (``outbox``). One thread at a time receives on a
channel; any thread sends on it, closes or aborts it.
"""
