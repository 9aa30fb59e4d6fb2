"""The command ``oompa``: ``python -m oompa``. A ping, which probes run every few seconds, is spared what the others import."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command with the arguments of the process, and exit."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["ping"]:
        from .cli.probe import probe

        code = probe(arguments[1:])
        if code is not None:
            sys.exit(code)
    from .cli.main import run

    sys.exit(run(arguments))


if __name__ == "__main__":
    main()
