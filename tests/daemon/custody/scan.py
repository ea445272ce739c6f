"""Another process's memory, and what to look for in it.

``python scan.py PID`` prints it pickled: what a custodian gave up is for root to read, which a test need not be.
"""

import base64
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

ROOT = Path(__file__).parents[3]
REVEAL = Path(__file__).with_name("reveal.py")
PIECE = 16
"""Bytes of a secret that are looked for: enough that no chance finds them."""
PAGE = 4096
STRIP = 4 * PAGE
ZEROS = bytes(PAGE)


def _as_root() -> list[str] | None:
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo is None or subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode:
        return None
    return [sudo, "-n"]


AS_ROOT = _as_root()
"""What runs a command as root: nothing, where we are root; sudo, where it does not ask; None, where neither helps."""
needs_root = pytest.mark.skipif(
    AS_ROOT is None and os.environ.get("CI") != "true",
    reason="only root looks into a custodian, which is not dumpable: neither root nor sudo without asking",
)


@dataclass
class Region:
    """A mapping and its content. locked: it cannot be swapped, as the arena."""

    name: str
    locked: bool
    content: bytes


def touched(content: bytes) -> bytes:
    """Without pages of zeros, which are most of it: stacks and arenas that were never used."""
    pages = (content[start : start + PAGE] for start in range(0, len(content), PAGE))
    return b"".join(page for page in pages if page != ZEROS)


def memory(pid: int) -> list[Region]:
    """All that a process has mapped, can read and may have changed."""
    regions: list[Region] = []
    with Path(f"/proc/{pid}/smaps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", buffering=0) as content:
        for line in maps:
            words = line.split()
            if "-" in words[0] and not words[0].endswith(":"):
                start, end = (int(part, 16) for part in words[0].split("-"))
                name = words[5] if len(words) > 5 else ""
                read = b""
                # What cannot be written and comes from a file holds what the file holds.
                changes = words[1].startswith("rw") or (words[1].startswith("r") and not name)
                if changes and not name.startswith(("[vvar", "[vsyscall")):
                    content.seek(start)
                    read = touched(content.read(end - start))
                regions.append(Region(name, False, read))  # noqa: FBT003
            elif words[0] == "VmFlags:":
                regions[-1].locked = "lo" in words[1:]
    return regions


def memory_of_custodian(pid: int) -> list[Region]:
    """The same of a process that its own user cannot read; nothing where we cannot be root."""
    if AS_ROOT is None:
        return []
    if not AS_ROOT:
        return memory(pid)
    command = [*AS_ROOT, sys.executable, "-B", __file__, str(pid)]
    read = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return [Region(*region) for region in pickle.loads(read)]  # noqa: S301  (our own)


@dataclass
class Snapshot:
    """Memory of the network side and of one custodian, at one moment; the custodian's where we may read it."""

    network: list[Region]
    custodian: list[Region]


@dataclass
class Seen:
    """All snapshots, and what must not be in them."""

    stages: dict[str, Snapshot] = field(default_factory=dict)
    secrets: dict[str, bytes] = field(default_factory=dict)


def forms(secret: bytes) -> dict[str, bytes]:
    """The ways in which a number may stand in memory; pieces from both ends, for what was overwritten in part."""
    number = int.from_bytes(secret, "big")
    shapes = {
        "big-endian": secret,
        "little-endian": secret[::-1],
        "hex": secret.hex().encode(),
        "HEX": secret.hex().upper().encode(),
        "decimal": str(number).encode(),
        "base64": base64.b64encode(secret),
    }
    return {
        f"{name}, {end}": piece
        for name, shape in shapes.items()
        for end, piece in (("front", shape[:PIECE]), ("back", shape[-PIECE:]))
    }


@cache
def forms_in(content: bytes, pieces: tuple[tuple[str, str, bytes], ...]) -> frozenset[tuple[str, str]]:
    """(secret, form) of each piece."""
    return frozenset((name, form) for name, form, piece in pieces if piece in content)


def found(regions: list[Region], secrets: dict[str, bytes]) -> set[tuple[str, str, bool]]:
    """(secret, form, whether in locked memory) of each hit."""
    pieces = tuple((name, form, piece) for name, secret in secrets.items() for form, piece in forms(secret).items())
    # Strip by strip: most are the same at every stage, and searched once.
    return {
        (name, form, region.locked)
        for region in regions
        for start in range(0, len(region.content), STRIP)
        for name, form in forms_in(region.content[start : start + STRIP + PIECE], pieces)
    }


def revealed(row: bytes, token: Path, directory: Path) -> dict[str, bytes]:
    """What a row of that token's hides, a share row in MessagePack, by name; directory: where the recovery key lies."""
    told = subprocess.run(
        [sys.executable, REVEAL, token / "softhsm2.conf", token / "pin", directory / "recovery-private.pem"],
        input=row,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    numbers: dict[str, str] = json.loads(told.stdout)
    return {name: bytes.fromhex(number.zfill(len(number) + len(number) % 2)) for name, number in numbers.items()}


def recovery_key(directory: Path) -> str:
    """An offline key pair, written down; the policy's words for it."""
    private = rsa.generate_private_key(65537, 3072)
    public, spki = private.public_key(), PublicFormat.SubjectPublicKeyInfo
    (directory / "recovery.pem").write_bytes(public.public_bytes(Encoding.PEM, spki))
    (directory / "recovery-private.pem").write_bytes(
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    fingerprint = hashlib.sha256(public.public_bytes(Encoding.DER, spki)).hexdigest()
    return f'{{ public_key = "{directory}/recovery.pem", fingerprint = "{fingerprint}" }}'


if __name__ == "__main__":
    regions = [(region.name, region.locked, region.content) for region in memory(int(sys.argv[1]))]
    sys.stdout.buffer.write(pickle.dumps(regions))
