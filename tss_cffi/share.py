"""Protocols, and key shares loaded into locked memory."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple, NoReturn, Self

from ._core import ffi, lib
from .errors import ENUM_MAX, U16_MAX, check, in_range
from .prepare import split_fingerprints
from .secret import SecretBytes

_FINGERPRINTS_MAX = 128


class Protocol(IntEnum):
    """A protocol in one wire format."""

    GG18_V2 = 1
    GG18_V3 = 2

    @property
    def label(self) -> str:
        """The name in configuration, rows and hellos, such as "gg18-v2"."""
        return self.name.lower().replace("_", "-")

    @classmethod
    def of(cls, label: str) -> Protocol:
        """The protocol of that name. Raises ValueError."""
        for protocol in cls:
            if protocol.label == label:
                return protocol
        known = ", ".join(protocol.label for protocol in cls)
        raise ValueError(f"unknown protocol {label!r}; known are {known}")


class ShareInfo(NamedTuple):
    """The public side of a share.

    threshold: t, that many sign. parties: n. seats: all n, ascending. public_key: 33 bytes SEC1 compressed.
    digest: 32 bytes over everything that all parties must agree on.
    """

    protocol: Protocol
    threshold: int
    parties: int
    seat: int
    seats: tuple[int, ...]
    public_key: bytes
    digest: bytes


class Share:
    """One key share, checked, ready to sign."""

    def __init__(self, data: SecretBytes, *, prove: bool = True) -> None:
        """Check and load what `KeygenParty.result` gave; `data` may be closed afterwards.

        Args:
            data: The share's bytes.
            prove: Check every relation in it, which takes milliseconds. False only for bytes that were proven before
                and have been under a seal of our own since: then the primes, h1's order, h2, common factors and the
                polynomial are taken as they are.

        Raises:
            KeyMaterialRefused: field names what is wrong.
        """
        self._handle = None
        slot = ffi.new("tss_share **")
        load = lib.tss_share_load if prove else lib.tss_share_load_proven
        check(load(slot, data.handle))
        self._handle = slot[0]
        info = ffi.new("tss_share_info *")
        lib.tss_share_describe(self._handle, info)
        self.info = ShareInfo(
            protocol=Protocol(info.protocol),
            threshold=info.threshold,
            parties=info.parties,
            seat=info.seat,
            seats=tuple(info.seats[0 : info.parties]),
            public_key=bytes(ffi.buffer(info.public33)),
            digest=bytes(ffi.buffer(info.digest32)),
        )

    @property
    def handle(self) -> object:
        """The C object; ValueError once closed."""
        if self._handle is None:
            raise ValueError("this share was wiped already")
        return self._handle

    def fingerprints(self) -> list[bytes]:
        """SHA-256 of each value of all parties' that no other share or set may use."""
        out = ffi.new("uint8_t[]", 32 * _FINGERPRINTS_MAX)
        count = ffi.new("size_t *", _FINGERPRINTS_MAX)
        check(lib.tss_share_fingerprints(out, count, self.handle))
        return split_fingerprints(bytes(ffi.buffer(out, 32 * count[0])))

    @staticmethod
    def import_foreign(protocol: Protocol, threshold: int, foreign: SecretBytes) -> SecretBytes:
        """Turn another implementation's save data into ours, without leaving the arena.

        Args:
            protocol: Which one it was made by; for GG18 the file is tss-lib's LocalPartySaveData as JSON.
            threshold: t, that many sign: such files do not state it.
            foreign: The file's bytes.

        Raises:
            KeyMaterialRefused: field names the first field that is missing, odd or contradicts another.
        """
        slot = ffi.new("tss_secret **")
        in_range(protocol, "protocol", ENUM_MAX)
        in_range(threshold, "threshold", U16_MAX)
        check(lib.tss_share_import(slot, protocol, threshold, foreign.handle))
        return SecretBytes.adopt(slot[0])

    def close(self) -> None:
        """Wipe and release; harmless when done already."""
        handle, self._handle = self._handle, None
        if handle is not None:
            lib.tss_share_free(handle)

    def __reduce__(self) -> NoReturn:
        raise TypeError("secrets do not leave the process")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()
