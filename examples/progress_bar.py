"""Five hundred calls, and a bar that shows how many are back.

Run it with ``python -m examples.progress_bar [URL]``; without a URL it starts a server of its own. Needs tqdm.
"""

import sys
from concurrent.futures import as_completed

from tqdm import tqdm

from examples.calculator import schema
from oompa import Client, RemoteError, Server


def quotients(client, count):
    """``100 / (n % 100)`` of each n: results by n, and errors by n."""
    futures = {client.dispatch("DIV", {"x": 100, "y": n % 100}): n for n in range(count)}
    results, errors = {}, {}
    for future in tqdm(as_completed(futures), total=count, unit="call"):
        n = futures[future]
        try:
            results[n] = future.result()
        except RemoteError as error:
            errors[n] = error.error
    return results, errors


def main(url):
    with Client(url) as client:
        results, errors = quotients(client, 500)
    print(f"{len(results)} results, {len(errors)} errors, such as {next(iter(errors.values()))}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        server = Server(schema)
        server.listen(0).result()
        main(f"ws://localhost:{server.port}")
        server.close().result()
