"""The structured payloads of W8: what services send each other, rather than one text or two integers.

They are plain JSON, the same in every process and every run.
"""

from __future__ import annotations

from typing import Any

Payload = dict[str, Any]

ROWS = 1000


def mixed() -> Payload:
    """Return a dict of 40 fields: integers, floats, texts, flags, nulls, lists and dicts."""
    fields: Payload = {}
    for number in range(8):
        fields[f"count_{number}"] = 7 + 1000**number % 9_999_991
        fields[f"ratio_{number}"] = (number + 1) / 7
        fields[f"name_{number}"] = f"text {number} of some length, as names and addresses have it"
        fields[f"flag_{number}"] = number % 2 == 0
    for number in range(4):
        fields[f"note_{number}"] = None if number else "Zürich – naïve façade"
    for number in range(2):
        fields[f"series_{number}"] = [number + step * step for step in range(10)]
        fields[f"place_{number}"] = {"x": 0.5 + number, "y": -1.25, "label": f"place {number}"}
    return fields


def rows() -> list[Payload]:
    """Return a list of dicts, as a query of a database gives them."""
    return [
        {"id": 100_000 + number, "name": f"item {number}", "price": number / 100, "in_stock": number % 3 > 0, "owner": None}
        for number in range(ROWS)
    ]


#: By the names that figures go by.
STRUCTURED = {"dict": mixed, "list": rows}
