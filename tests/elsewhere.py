"""Tasks that tests run in other processes, which import this and little else."""

import os
import time
from typing import NamedTuple


class Point(NamedTuple):
    """Where something is."""

    x: int
    y: int


def add(x, y=6):
    """The sum."""
    return x + y


def move(point: dict[str, int], by: int) -> dict[str, int]:
    """What is annotated for a check."""
    return {name: value + by for name, value in point.items()}


def pid():
    """Who runs this."""
    return os.getpid()


def divide(x, y):
    """May raise."""
    return x / y


def die():
    """End the process as the kernel does when memory is short."""
    os.kill(os.getpid(), 9)


def sleep(seconds, path=None):
    """Take a while; write to a file that it has begun."""
    if path is not None:
        with open(path, "a") as file:
            file.write("begun\n")
    time.sleep(seconds)
    return seconds
