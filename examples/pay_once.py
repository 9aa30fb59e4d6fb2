"""A payment that is sent twice is made once, whichever process gets it, also after a restart.

Run it with ``python -m examples.pay_once``, or for a server of two processes with
``SHOP_DB=/tmp/shop.db gunicorn -w 2 --threads 8 'examples.pay_once:make_server()'``.
"""

import os
import tempfile

from oompa import Client, Once, RemoteError, Schema, Server, TaskError
from oompa.once import SqliteStore

schema = Schema()
paid = []


@schema.task("PAY")
def pay(amount):
    if amount > 100:
        raise TaskError("not enough money", code="failed_precondition")
    paid.append(amount)
    return {"receipt": len(paid)}


def make_server():
    """For several machines, ``RedisStore(redis.Redis("redis.example"))`` in place of the file."""
    server = Server(schema)
    server.use(Once({"PAY"}, ttl=86400.0, store=SqliteStore(os.environ["SHOP_DB"])))
    return server


def main(server):
    url = f"ws://localhost:{server.port}"
    with Client(url) as client:
        print("the first time:", client.dispatch("PAY", {"amount": 30}, key="order-7").result())
    with Client(url) as client:  # the page was loaded again: another client, the same order
        print("once more     :", client.dispatch("PAY", {"amount": 30}, key="order-7").result())
        print("another order :", client.dispatch("PAY", {"amount": 30}, key="order-8").result())
        for amount, key in ((31, "order-8"), (1000, "order-9"), (1000, "order-9")):
            try:
                client.dispatch("PAY", {"amount": amount}, key=key).result()
            except RemoteError as error:
                print(f"{amount} for {key}:", error.error)
    print("paid          :", paid)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        os.environ["SHOP_DB"] = f"{directory}/shop.db"
        server = make_server()
        server.listen(0).result()
        main(server)
        server.close().result()
