"""What both ends speak, and neither end's affairs: from a value to bytes on a socket and back.

The wire, for whoever writes another end of it: one WebSocket (:rfc:`6455`, without extensions), JSON (:rfc:`8259`) in text
frames, one message each. A binary frame that holds JSON is read as well.

=========  ==========================================================================================================
request    ``{"type": str, "payload": any, "id": any, "meta": object}``, to the server. ``payload`` may be left out (the
           task gets None), ``id``, too (no call waits); ``meta`` is for a server that announces it.
success    ``{"type": "OK", "id": same, "payload": any}``
failure    ``{"type": "ERR", "id": same, "error": any, "details": object}``. ``error`` is ``"<ClassName>: <message>"`` of an
           exception, or any value a task has sent; ``details`` has ``code`` (gRPC's names in lower case), ``data`` and
           ``retry_after`` (seconds; nothing has run), each only where known, and may be left out.
ping       a request of type ``"$OOMPA/PING"`` runs the healthcheck: OK with what it returned, ERR with what it raised
others     requests of types ``"$OOMPA/INFO"``, ``"$OOMPA/STATS"`` and ``"$OOMPA/SCHEMA"``: the server tells of itself
cancel     ``{"type": "$OOMPA/CANCEL", "payload": {"id": id}}``, to a server that announces ``cancel``: nobody waits for
           that request any more. It has no id of its own and no answer.
progress   ``{"type": "$OOMPA/PROGRESS", "id": id, "payload": {"done": number, "total": number or null, "message": string or
           null}}``, to a client whose request has ``"progress": true`` in ``meta``
=========  ==========================================================================================================

- The id is any JSON value and comes back as it went; replies come in any order. A request that is sent again has the same id,
  and is not run twice while its first copy is queued or running on the same connection.
- JSON is strict: NaN, Infinity and lone surrogates are none, and values are nested 1,000 deep at the most. What cannot be read
  is answered with an ERR, with ``"id": null`` where none is to be found, and the connection lives on.
- ``meta`` has ``timeout`` (seconds the client waits for this attempt), ``key`` (equal for requests that are one and the same),
  ``progress``, and whatever a client adds.
- Keys that are not known are ignored, and by clients messages whose type begins with ``"$OOMPA/"``.
- The 101 of a server has ``Oompa-Features`` (what it understands beyond the original, such as ``meta``) and
  ``Oompa-Max-Message-Size`` (bytes); a client's request has that and ``Oompa-Client``, an id that stays the same while the
  client lives. Either may be left out.
- A message of more bytes than the other end has announced is refused where it is made: by the client's call, or with an ERR
  instead of the reply. Where nothing was announced it ends the connection with 1009. A server that stops closes with 1000, upon
  which clients connect again, as they do after a connection that just ended (1006).
- A task may run more than once: a client sends again what has no reply, after a timeout or on its next connection.

In here, from the top:

``channel`` is a WebSocket after its handshake, whole messages in and out, and how it ends; ``outbox`` is its writing half.
Below them ``frames`` (RFC 6455, pure), ``streams`` (a socket, plain or TLS), ``heartbeat`` (whether a silent peer lives,
pure), ``messages`` (requests and replies) on ``codec`` (values and JSON), ``sizes`` (of values), ``closing`` (close codes),
``announcement`` (what a handshake tells), ``lenient`` (the id of what cannot be read) and ``options`` (what both ends may be
told).

Threads: the wire has none of its own, but for a writer while a peer is slow (``outbox``). One thread at a time receives on a
channel; any thread sends on it, closes or aborts it.
"""
