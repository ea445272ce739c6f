"""What a reader of the two processes' memory finds: the secrets in the custodian's locked arena, and nowhere else.

The secrets are learnt as an owner of token and PIN learns them, by opening the row afterwards, in a process of its own.
"""

import hashlib
import json
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.daemon.custody import drive, reveal
from tests.daemon.custody.committee import Committee, copy_committee
from tests.daemon.custody.node import ROOT

PIECE = 16
"""Bytes of a secret that are looked for: enough that no chance finds them."""
PAGE = 4096
ZEROS = bytes(PAGE)


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


@dataclass
class Snapshot:
    """Memory of the network side and of one custodian, at one moment."""

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
    }
    return {
        f"{name}, {end}": piece
        for name, shape in shapes.items()
        for end, piece in (("front", shape[:PIECE]), ("back", shape[-PIECE:]))
    }


@cache
def forms_in(content: bytes, pieces: tuple[tuple[str, str, bytes], ...]) -> frozenset[tuple[str, str]]:
    """(secret, form) of each piece. Most regions are the same at every stage, and are searched once."""
    return frozenset((name, form) for name, form, piece in pieces if piece in content)


def found(regions: list[Region], secrets: dict[str, bytes]) -> set[tuple[str, str, bool]]:
    """(secret, form, whether in locked memory) of each hit."""
    pieces = tuple((name, form, piece) for name, secret in secrets.items() for form, piece in forms(secret).items())
    return {(name, form, region.locked) for region in regions for name, form in forms_in(region.content, pieces)}


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


@pytest.fixture(scope="module")
def seen(made: Committee, tmp_path_factory: pytest.TempPathFactory) -> Seen:

    directory = tmp_path_factory.mktemp("memory")
    committee = copy_committee(made, directory / "nodes")
    recovery = recovery_key(directory)
    alice = committee.nodes["alice"]
    alice.settings |= {"recovery": recovery}
    alice.write_config()
    pickled, row = directory / "committee", directory / "row"
    pickled.write_bytes(pickle.dumps(committee))
    seen = Seen()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, drive.__file__, pickled, row],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as network:
        assert network.stdin is not None
        assert network.stdout is not None
        for line in network.stdout:
            told = json.loads(line)
            seen.stages[told["stage"]] = Snapshot(memory(network.pid), memory(told["custodians"]["alice"]))
            network.stdin.write("\n")
            network.stdin.flush()
    assert network.returncode == 0
    revealed = subprocess.run(
        [
            sys.executable,
            reveal.__file__,
            alice.token / "softhsm2.conf",
            alice.token / "pin",
            directory / "recovery-private.pem",
        ],
        input=row.read_bytes(),
        stdout=subprocess.PIPE,
        env=environment,
        check=True,
    )
    for name, number in json.loads(revealed.stdout).items():
        seen.secrets[name] = bytes.fromhex(number.zfill(len(number) + len(number) % 2))
    return seen


def test_there_is_something_to_look_for(seen: Seen) -> None:
    assert len(seen.stages) == 6
    assert {"share", "share key", "Paillier p", "ring p", "sub-share of 1 for 2", "sub-share of 3 for 1"} <= set(
        seen.secrets
    )
    assert len(seen.secrets["share"]) > PIECE
    for snapshot in seen.stages.values():
        assert any(drive.PLANTED in region.content for region in snapshot.network)
        assert any(region.locked for region in snapshot.custodian)


def test_the_network_side_never_holds_a_secret(seen: Seen) -> None:
    for stage, snapshot in seen.stages.items():
        assert found(snapshot.network, seen.secrets) == set(), stage


def test_the_custodian_holds_secrets_in_locked_memory_alone(seen: Seen) -> None:
    hits = found(seen.stages["keygen result"].custodian, seen.secrets)
    assert "share" in {name for name, _, _ in hits}, "the scan finds nothing where there is something"
    for stage, snapshot in seen.stages.items():
        open_ = {hit for hit in found(snapshot.custodian, seen.secrets) if not hit[2]}
        assert open_ == set(), stage


@pytest.mark.parametrize("stage", ["keygen forgotten", "signing forgotten"])
def test_after_a_ceremony_the_custodian_holds_none(seen: Seen, stage: str) -> None:
    assert found(seen.stages[stage].custodian, seen.secrets) == set()


def test_the_pin_is_nowhere(seen: Seen, made: Committee) -> None:
    pin = made.nodes["alice"].pin.encode()
    assert len(pin) >= PIECE
    for stage, snapshot in seen.stages.items():
        for side in (snapshot.network, snapshot.custodian):
            assert not any(pin in region.content for region in side), stage
