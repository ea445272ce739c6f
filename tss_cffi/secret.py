"""Secret bytes in C-owned, locked memory, and the arena that holds them."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, NoReturn, Self

from ._core import ffi, lib
from .errors import SIZE_MAX, ArenaUnavailable, Status, check, in_range

WIPED: Final = "these secret bytes were wiped already"


class Usage(NamedTuple):
    """The arena: bytes in all, in use now, in use at most so far."""

    capacity: int
    used: int
    peak: int


def open_arena(size: int) -> None:
    """Make and lock the process's arena: once, before anything else.

    Args:
        size: Bytes, 1 MiB to 1 GiB. One signing takes at most 512 KiB.

    Raises:
        Misuse: There is an arena already, or the size is out of range.
        ArenaUnavailable: The memory cannot be had or cannot be locked.
    """
    status = lib.tss_open(in_range(size, "arena_len", SIZE_MAX))
    if status == Status.MEMORY:
        raise ArenaUnavailable(
            f"{size} bytes cannot be locked in memory; raise the limit (LimitMEMLOCK= in the unit, or ulimit -l) "
            "or make the arena smaller"
        )
    check(status)


def close_arena() -> None:
    """Wipe and release the arena. Raises Misuse while a secret, share, search or party is left."""
    check(lib.tss_close())


def arena_usage() -> Usage:
    """How full the arena is."""
    usage = ffi.new("tss_usage *")
    lib.tss_arena_usage(usage)
    return Usage(usage.capacity, usage.used, usage.peak)


class SecretBytes:
    """Key material in C-owned, locked memory; wiped on close. Never printed or pickled."""

    _handle: Any
    _length: int

    def __init__(self, length: int) -> None:
        """Make `length` zero bytes, 1 to 1 MiB. Raises Misuse or ArenaFull."""
        slot = ffi.new("tss_secret **")
        check(lib.tss_secret_new(slot, in_range(length, "len", SIZE_MAX)))
        self._handle = slot[0]
        self._length = length

    @classmethod
    def adopt(cls, handle: Any) -> Self:  # noqa: ANN401 - cffi pointers have no type
        """Own a tss_secret that a C call handed over."""
        secret = cls.__new__(cls)
        secret._handle = handle  # noqa: SLF001 - its own class's constructor
        secret._length = int(lib.tss_secret_len(handle))  # noqa: SLF001 - likewise
        return secret

    @property
    def handle(self) -> Any:  # noqa: ANN401 - cffi pointers have no type
        """The C object; ValueError once closed."""
        if self._handle is None:
            raise ValueError(WIPED)
        return self._handle

    @property
    def address(self) -> int:
        """Where the bytes start, for C code that reads or writes them in place."""
        return int(ffi.cast("uintptr_t", lib.tss_secret_data(self.handle)))

    def __len__(self) -> int:
        if self._handle is None:
            raise ValueError(WIPED)
        return self._length

    def close(self) -> None:
        """Wipe and release; harmless when done already."""
        handle, self._handle = self._handle, None
        if handle is not None:
            lib.tss_secret_free(handle)

    def __repr__(self) -> str:
        return "<SecretBytes, wiped>" if self._handle is None else f"<SecretBytes, {len(self)} bytes>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("secrets do not leave the process")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()
