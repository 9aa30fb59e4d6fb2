"""A shop whose tasks can be seen and called in a browser: ``python -m examples.explorer [PORT]``, and open /explore.

On loopback it needs no more; elsewhere the explorer asks for ``authenticate``, and whoever that lets in sees it.
"""

import sys
import time
from typing import Annotated, List, Literal, Optional, TypedDict

from oompa import Schema, Server, TaskError, current_request


class Item(TypedDict):
    """One line of an order."""

    article: str
    count: int


schema = Schema()


@schema.task("PRICE")
def price(net: float, rate: Literal["full", "reduced", "none"] = "full") -> float:
    """What a customer pays: the net price and its tax, in euros."""
    return round(net * {"full": 1.19, "reduced": 1.07, "none": 1.0}[rate], 2)


@schema.task("ORDER")
def order(items: List[Item], express: bool = False, note: Annotated[Optional[str], "Printed on the parcel."] = None) -> str:
    """Order some items.

    Nothing is kept: it says what would be sent.
    """
    if not items:
        raise TaskError("an order needs items", code="invalid_argument", data={"items": items})
    return f"{sum(each['count'] for each in items)} items{' by express' if express else ''}{f', {note!r}' if note else ''}"


@schema.task("STOCKTAKING")
def stocktaking(shelves: int = 20) -> int:
    """Count what is on the shelves, a fifth of a second each, and tell how far it is."""
    request = current_request()
    for shelf in range(1, shelves + 1):
        time.sleep(0.2)
        request.progress(shelf, shelves, f"shelf {shelf}")
    return shelves * 12


server = Server(schema, name="shop", version="1.0", explorer="/explore")

if __name__ == "__main__":
    server.run(int(sys.argv[1]) if len(sys.argv) > 1 else 9000)
