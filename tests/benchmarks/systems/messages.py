"""oompa's messages in the plainest way, for the peers that bring a connection but no calls."""

from __future__ import annotations

import json
from typing import Any


def request_text(task_type: str, payload: Any, request_id: int) -> str:
    """Return a request as JSON."""
    return json.dumps({"type": task_type, "payload": payload, "id": request_id})


def reply_text(text: str | bytes) -> str:
    """Return the reply to a request, both as JSON."""
    request = json.loads(text)
    payload = request["payload"]
    result = payload["x"] + payload["y"] if request["type"] == "ADD" else payload
    return json.dumps({"type": "OK", "id": request["id"], "payload": result})
