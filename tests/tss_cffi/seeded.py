"""The seeded test build of the core: fixtures in, save data out, randomness that replays.

`core` is the package `tss_cffi` once more, around a core of its own. It is built here when a source is newer than it.
TSSD_TEST_CORE=portable, sanitize or coverage in the environment takes that build of it (tss_cffi/build.py) for all
tests.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from tests.interop import vectors
from tests.tss_cffi.builds import build

BUILD: Final = os.environ.get("TSSD_TEST_CORE", "seeded")
FOLDER: Final = build(BUILD)
ARENA: Final = 64 * 1024 * 1024


if TYPE_CHECKING:
    import tss_cffi as core
    from tss_cffi._core import ffi, lib
else:
    sys.path.insert(0, str(FOLDER))
    core = importlib.import_module("tss_cffi_seeded")
    _compiled = importlib.import_module("tss_cffi_seeded._core")
    sys.path.remove(str(FOLDER))
    ffi, lib = _compiled.ffi, _compiled.lib

__all__ = ["core", "ffi", "lib"]

PROTOCOLS: Final = tuple(core.Protocol)


def take_its_place() -> None:
    """From here on this build is what `tss_cffi` means, for a program around it that has not imported that yet."""
    sys.modules["tss_cffi"] = core
    for part in ("_core", "channel", "errors", "party", "prepare", "secret", "share"):
        sys.modules[f"tss_cffi.{part}"] = importlib.import_module(f"{core.__name__}.{part}")


def check(status: int) -> None:
    """Raise what the package itself would."""
    errors = importlib.import_module(f"{core.__name__}.errors")
    assert errors.check(status) == errors.Status.OK


def randomness(seed: bytes | None) -> None:
    """From here on all randomness comes from 32 bytes of seed; None: from the system again."""
    lib.tss_seeded_randomness(ffi.NULL if seed is None else ffi.from_buffer(seed))


def secret(data: bytes) -> core.SecretBytes:
    """The bytes, in the arena."""
    held = core.SecretBytes(len(data))
    ffi.buffer(ffi.cast("char *", held.address), len(data))[:] = data
    return held


def reveal(held: core.SecretBytes) -> bytes:
    """A copy of secret bytes, for tests to look at."""
    return bytes(ffi.buffer(ffi.cast("char *", held.address), len(held)))


def prepared_from(parameters: dict[str, Any], protocol: core.Protocol = PROTOCOLS[0]) -> core.SecretBytes:
    """Pre-parameters out of tss-lib's LocalPreParams."""
    slot = ffi.new("tss_secret **")
    with secret(vectors.compact(parameters).encode()) as text:
        check(lib.tss_seeded_prepared(slot, protocol, text.handle))
    return core.SecretBytes.adopt(slot[0])


def prepared(seat: int) -> core.SecretBytes:
    """The fixture that belongs to a seat of 1 to 5."""
    return prepared_from(vectors.pre_parameters()[seat - 1])


def export(share: core.Share) -> dict[str, Any]:
    """A share as tss-lib's LocalPartySaveData."""
    slot = ffi.new("tss_secret **")
    check(lib.tss_seeded_export(slot, share.handle))
    with core.SecretBytes.adopt(slot[0]) as text:
        value: dict[str, Any] = json.loads(reveal(text))
    return value


def import_save(protocol: core.Protocol, threshold: int, save: dict[str, Any]) -> core.SecretBytes:
    """A tss-lib save as our bytes."""
    with secret(vectors.compact(save).encode()) as text:
        return core.Share.import_foreign(protocol, threshold, text)


def shares(protocol: core.Protocol, threshold: int, parties: int) -> dict[int, core.Share]:
    """The recorded key of that shape, by seat."""
    held = {}
    for save in vectors.saves(protocol.label, threshold, parties):
        with import_save(protocol, threshold, save) as data:
            held[save["ShareID"]] = core.Share(data)
    return held
