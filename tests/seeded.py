"""The seeded test build of the core, beside the ordinary one: ``from tests.seeded import core``.

It takes fixture pre-parameters, replays from a seed, and exports save data. It is built here when its sources changed.
Its Python files are the ordinary package's, so it has that package's types.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

__all__ = ["ARENA", "core", "export_save", "import_save", "plain", "prepared", "secret", "seed"]

ROOT: Final = Path(__file__).resolve().parents[1]
BUILT: Final = ROOT / "build" / "seeded"


def _build() -> None:
    sources = sorted(path for path in (ROOT / "tss_cffi").rglob("*") if path.suffix in {".c", ".h", ".py"})
    digest = hashlib.sha256(b"".join(str(path).encode() + b"\0" + path.read_bytes() for path in sources)).hexdigest()
    BUILT.mkdir(parents=True, exist_ok=True)
    with (BUILT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = BUILT / "digest"
        if stamp.exists() and stamp.read_text(encoding="ascii") == digest:
            return
        subprocess.run(
            [sys.executable, ROOT / "tss_cffi" / "build.py", "--seeded"], check=True, capture_output=True, cwd=ROOT
        )
        stamp.write_text(digest, encoding="ascii")


if TYPE_CHECKING:
    import tss_cffi as core
else:
    _build()
    sys.path.insert(0, str(BUILT))
    core = importlib.import_module("tss_cffi_seeded")

_native: Final[Any] = importlib.import_module(f"{core.__name__}._core")
ARENA: Final = 64 * 1024 * 1024

core.open_arena(ARENA)


def seed(seed32: bytes | None) -> None:
    """From here on all randomness of the core follows from the seed; None: from the system again."""
    _native.lib.tss_seeded_randomness(_native.ffi.NULL if seed32 is None else seed32)


def secret(data: bytes) -> core.SecretBytes:
    """Fixture bytes where the core wants secret ones."""
    held = core.SecretBytes(len(data))
    _native.ffi.memmove(_native.ffi.cast("void *", held.address), data, len(data))
    return held


def plain(held: core.SecretBytes) -> bytes:
    """Secret bytes of a fixture as a test may look at them."""
    return bytes(_native.ffi.buffer(_native.ffi.cast("uint8_t *", held.address), len(held)))


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def prepared(protocol: core.Protocol, pre_parameters: dict[str, Any]) -> core.SecretBytes:
    """Pre-parameters from tss-lib's LocalPreParams."""
    slot = _native.ffi.new("tss_secret **")
    with secret(_compact(pre_parameters)) as foreign:
        status = _native.lib.tss_seeded_prepared(slot, protocol, foreign.handle)
    assert status == 0, _native.ffi.string(_native.lib.tss_last_misuse())
    return core.SecretBytes.adopt(slot[0])


def import_save(protocol: core.Protocol, threshold: int, save: dict[str, Any]) -> core.Share:
    """A share from tss-lib's LocalPartySaveData."""
    with (
        secret(_compact(save)) as foreign,
        core.Share.import_foreign(protocol, threshold, foreign) as ours,
    ):
        return core.Share(ours)


def export_save(share: core.Share) -> dict[str, Any]:
    """A share as tss-lib's LocalPartySaveData."""
    slot = _native.ffi.new("tss_secret **")
    assert _native.lib.tss_seeded_export(slot, share.handle) == 0
    with core.SecretBytes.adopt(slot[0]) as exported:
        saved: dict[str, Any] = json.loads(plain(exported))
    return saved
