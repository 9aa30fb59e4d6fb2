"""What :class:`~oompa.once.Once` asks of a store."""

from typing import Optional, Protocol


class Store(Protocol):
    """Values under keys, each until its time is over.

    All processes that are to run a request once between them share one. A key is at most 64 letters and digits;
    a value is ASCII or UTF-8 of any length. Either method may be called by any thread, and by many at once. Either may raise
    whatever it likes where the store cannot be reached: a request is then refused with the code ``unavailable``, for nobody
    knows whether it has run.

    ``oompa.once.check_store`` tries whether a class of your own does what is said here.
    """

    def get(self, key: str) -> Optional[bytes]:
        """The value under ``key``; None for none, and for one whose time is over."""

    def swap(self, key: str, old: Optional[bytes], new: Optional[bytes], ttl: float) -> bool:
        """Put ``new`` in place of ``old``, if that is what ``get`` would give, and tell whether it was: in a single step, of
        which no other one sees the middle.

        Args:
            old: What must be there; None: nothing.
            new: What is there from now on; None: nothing.
            ttl: Seconds until ``new`` is gone.
        """
