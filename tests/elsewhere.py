"""Tasks that tests run in other processes, which import this and little else."""

import os
import time


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


def wait_for(path, result=None):
    """Take until a file is there."""
    while not os.path.exists(path):
        time.sleep(0.02)
    return result
