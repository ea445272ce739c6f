"""What a reader of the two processes' memory finds: the secrets in the custodian's locked arena, and nowhere else.

The secrets are learnt as an owner of token and PIN learns them, by opening the row afterwards, in a process of its own.
"""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.daemon.custody import drive, reveal
from tests.daemon.custody.committee import Committee, copy_committee
from tests.daemon.custody.node import ROOT

PIECE = 16
"""Bytes of a secret that are looked for: enough that no chance finds them."""


@dataclass
class Region:
    """A mapping and its content. locked: it cannot be swapped, as the arena."""

    name: str
    locked: bool
    content: bytes


def memory(pid: int) -> list[Region]:
    """All that a process has mapped and can read."""
    regions: list[Region] = []
    with Path(f"/proc/{pid}/smaps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", buffering=0) as content:
        for line in maps:
            words = line.split()
            if "-" in words[0] and not words[0].endswith(":"):
                start, end = (int(part, 16) for part in words[0].split("-"))
                name = words[5] if len(words) > 5 else ""
                read = b""
                if words[1].startswith("r") and not name.startswith(("[vvar", "[vsyscall")):
                    content.seek(start)
                    read = content.read(end - start)
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


def found(regions: list[Region], secrets: dict[str, bytes]) -> set[tuple[str, str, bool]]:
    """(secret, form, whether in locked memory) of each hit."""
    return {
        (name, form, region.locked)
        for name, secret in secrets.items()
        for form, piece in forms(secret).items()
        for region in regions
        if piece in region.content
    }


@pytest.fixture(scope="module")
def seen(made: Committee, tmp_path_factory: pytest.TempPathFactory) -> Seen:

    directory = tmp_path_factory.mktemp("memory")
    committee = copy_committee(made, directory / "nodes")
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
    alice = committee.nodes["alice"]
    revealed = subprocess.run(
        [sys.executable, reveal.__file__, alice.token / "softhsm2.conf", alice.token / "pin"],
        input=row.read_bytes(),
        stdout=subprocess.PIPE,
        env=environment,
        check=True,
    )
    for name, number in json.loads(revealed.stdout).items():
        seen.secrets[name] = bytes.fromhex(number.zfill(len(number) + len(number) % 2))
    return seen


def test_there_is_something_to_look_for(seen: Seen) -> None:
    assert len(seen.stages) == 5
    assert {"share", "Paillier p", "ring p"} <= set(seen.secrets)
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
