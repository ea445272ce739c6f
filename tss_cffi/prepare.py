"""Pre-parameters: what a protocol wants to have computed before a keygen starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, Self

from ._core import ffi, lib
from .errors import ENUM_MAX, NotNeeded, Status, check, in_range
from .secret import SecretBytes

if TYPE_CHECKING:
    from .share import Protocol

_FINGERPRINT = 32
_FINGERPRINTS_MAX = 128


class PreParameterSearch:
    """The search for one set, a few milliseconds at a time. Stop calling and close to cancel it."""

    def __init__(self, protocol: Protocol) -> None:
        """Begin. Raises NotNeeded where the protocol wants none."""
        self._handle = None
        slot = ffi.new("tss_prepare **")
        if check(lib.tss_prepare_begin(slot, in_range(protocol, "protocol", ENUM_MAX))) is Status.NOTHING:
            raise NotNeeded(f"{protocol.label} wants no pre-parameters")
        self._handle = slot[0]
        self.permille = 0
        """Estimated progress, 0 to 1000; never goes back."""

    def step(self) -> SecretBytes | None:
        """Work for a few milliseconds.

        Returns:
            None: there is more to do. Otherwise the set, for one keygen, which the caller owns.
        """
        if self._handle is None:
            raise ValueError("this search was closed or has found its set")
        slot = ffi.new("tss_secret **")
        permille = ffi.new("uint16_t *")
        if check(lib.tss_prepare_step(self._handle, slot, permille)) is Status.MORE:
            self.permille = permille[0]
            return None
        self.permille = 1000
        self.close()
        return SecretBytes.adopt(slot[0])

    def close(self) -> None:
        """Wipe and release; harmless when done already."""
        handle, self._handle = self._handle, None
        if handle is not None:
            lib.tss_prepare_free(handle)

    def __reduce__(self) -> NoReturn:
        raise TypeError("secrets do not leave the process")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()


def prepared_fingerprints(prepared: SecretBytes) -> list[bytes]:
    """SHA-256 of each value in a set that nothing else may ever use. Raises KeyMaterialRefused."""
    out = ffi.new("uint8_t[]", _FINGERPRINT * _FINGERPRINTS_MAX)
    count = ffi.new("size_t *", _FINGERPRINTS_MAX)
    check(lib.tss_prepared_fingerprints(out, count, prepared.handle))
    return split_fingerprints(bytes(ffi.buffer(out, _FINGERPRINT * count[0])))


def split_fingerprints(joined: bytes) -> list[bytes]:
    """Cut fingerprints that stand behind each other."""
    return [joined[start : start + _FINGERPRINT] for start in range(0, len(joined), _FINGERPRINT)]
