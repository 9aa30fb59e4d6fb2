"""Whether a store does what :class:`~oompa.once.Once` needs: for the tests of one that you have written.

::

    def test_my_store():
        check_store(lambda: MyStore(url))
"""

import secrets
import threading
from time import monotonic, sleep
from typing import Callable, Iterator, Optional

from .store import Store

#: Seconds in which what must happen does.
_CEILING = 10.0

#: Seconds: long for a value that is to stay, short for one that is to go.
_LONG, _SHORT = 60.0, 0.1

#: Threads that come at once, and how often they do.
_THREADS, _ROUNDS = 8, 20

#: Neither text, nor short, nor without what some store takes for an end.
_VALUES = (b"1", b"", b"\x00\r\n'\"\\", "ü€😀".encode(), bytes(range(256)) * 4096)


def check_store(make_store: Callable[[], Store], *, shared: bool = True) -> None:
    """Try a store, in about a second; it may hold other values meanwhile, and keys are drawn at random.

    Args:
        make_store: Called twice; each time it gives a store of the same values, as two processes would have.
        shared: False where two stores have nothing in common: then it serves one process.

    Raises:
        AssertionError: It does not what :class:`~oompa.once.Store` says.
    """
    store = make_store()
    _check_swap(store)
    _check_values(store)
    _check_time(store)
    _check_threads([store])
    if shared:
        other = make_store()
        key = _new_key()
        _expect(store.swap(key, None, b"1", _LONG), "a value is not taken")
        _expect(other.get(key) == b"1", "a second store does not see what the first has written: pass shared=False if so it is")
        _check_threads([store, other])


def _check_swap(store: Store) -> None:
    key, other = _new_key(), _new_key()
    _expect(store.get(key) is None, "get finds something under a new key, instead of None")
    for old, new, is_swapped in _steps():
        before = store.get(key)
        _expect(
            store.swap(key, old, new, _LONG) is is_swapped,
            f"swap from {old!r} to {new!r} must be {is_swapped} where there is {before!r}",
        )
        there = new if is_swapped else before
        _expect(store.get(key) == there, f"there must be {there!r} after a swap from {old!r} to {new!r} over {before!r}")
    _expect(store.get(other) is None, "what is put under one key stands under another")


def _steps() -> Iterator[tuple[Optional[bytes], Optional[bytes], bool]]:
    """Swaps in a row, and whether each finds what it takes to be there."""
    yield b"1", b"2", False
    yield b"1", None, False
    yield None, None, True
    yield None, b"1", True
    yield None, b"2", False
    yield None, None, False
    yield b"2", b"3", False
    yield b"2", None, False
    yield b"1", b"1", True
    yield b"1", b"2", True
    yield b"1", b"3", False
    yield b"2", None, True
    yield b"2", None, False
    yield None, b"3", True


def _check_values(store: Store) -> None:
    for value in _VALUES:
        key = _new_key()
        _expect(store.swap(key, None, value, _LONG), "a value is not taken")
        _expect(store.get(key) == value, f"a value does not come back as it was: {value[:20]!r}")
        _expect(store.swap(key, value, b"next", _LONG), f"a value is not known again: {value[:20]!r}")


def _check_time(store: Store) -> None:
    short, long, renewed = _new_key(), _new_key(), _new_key()
    for key, ttl in ((short, _SHORT), (long, _LONG), (renewed, _SHORT)):
        _expect(store.swap(key, None, b"1", ttl), "a value is not taken")
    _expect(store.swap(renewed, b"1", b"1", _LONG) or store.get(renewed) is None, "a value cannot be put in its own place")
    is_renewed = store.get(renewed) is not None  # else this machine has slept in between
    deadline = monotonic() + _CEILING
    while store.get(short) is not None:
        _expect(monotonic() < deadline, f"a value for {_SHORT} s is still there after {_CEILING:g} s")
        sleep(_SHORT / 10)
    _expect(not store.swap(short, b"1", b"2", _LONG), "a value whose time is over can be swapped")
    _expect(not store.swap(short, b"1", None, _LONG), "a value whose time is over can be swapped")
    _expect(store.swap(short, None, b"2", _LONG), "a value whose time is over is in the way of the next")
    _expect(store.get(short) == b"2", "a value goes when the one before it would have gone")
    _expect(store.get(long) == b"1", f"a value for {_LONG:g} s is gone before its time")
    _expect(not is_renewed or store.get(renewed) == b"1", "a value put in its own place goes when it would have before")


def _check_threads(stores: list[Store]) -> None:
    """Of those who come at once, one swaps."""
    for _ in range(_ROUNDS):
        key = _new_key()
        for old in (None, b"again"):
            won: list[bytes] = []
            start = threading.Barrier(_THREADS)

            def swap(number: int) -> None:
                value = b"%d" % number
                start.wait(_CEILING)
                if stores[number % len(stores)].swap(key, old, value, _LONG):
                    won.append(value)

            threads = [threading.Thread(target=swap, args=(number,), daemon=True) for number in range(_THREADS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(_CEILING)
            _expect(len(won) == 1, f"{_THREADS} threads have swapped at once, and {len(won)} were told that they had")
            _expect(stores[0].get(key) == won[0], "the value there is not that of the thread that has swapped")
            stores[0].swap(key, won[0], b"again", _LONG)


def _new_key() -> str:
    return secrets.token_hex(32)


def _expect(is_so: bool, problem: str) -> None:
    if not is_so:
        raise AssertionError(problem)
