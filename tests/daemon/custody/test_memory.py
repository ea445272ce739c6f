"""What a reader of the two processes' memory finds: the secrets in the custodian's locked arena, and nowhere else.

The secrets are learnt as an owner of token and PIN learns them, by opening the row afterwards, in a process of its own.
"""

import json
import os
import pickle
import subprocess
import sys

import pytest

from tests.daemon.custody import drive
from tests.daemon.custody.committee import Committee, copy_committee
from tests.daemon.custody.node import ROOT
from tests.daemon.custody.scan import (
    PIECE,
    Region,
    Seen,
    Snapshot,
    found,
    memory,
    memory_of_custodian,
    needs_root,
    recovery_key,
    revealed,
)


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
            seen.stages[told["stage"]] = Snapshot(memory(network.pid), memory_of_custodian(told["custodians"]["alice"]))
            network.stdin.write("\n")
            network.stdin.flush()
    assert network.returncode == 0
    seen.secrets = revealed(row.read_bytes(), alice.token, directory)
    return seen


def test_there_is_something_to_look_for(seen: Seen) -> None:
    assert len(seen.stages) == 6
    assert {"share", "share key", "Paillier p", "ring p", "sub-share of 1 for 2", "sub-share of 3 for 1"} <= set(
        seen.secrets
    )
    assert len(seen.secrets["share"]) > PIECE
    for snapshot in seen.stages.values():
        assert any(drive.PLANTED in region.content for region in snapshot.network)


def test_the_network_side_never_holds_a_secret(seen: Seen) -> None:
    for stage, snapshot in seen.stages.items():
        assert found(snapshot.network, seen.secrets) == set(), stage


@needs_root
def test_the_custodian_holds_secrets_in_locked_memory_alone(seen: Seen) -> None:
    hits = found(seen.stages["keygen result"].custodian, seen.secrets)
    assert "share" in {name for name, _, _ in hits}, "the scan finds nothing where there is something"
    for stage, snapshot in seen.stages.items():
        assert any(region.locked for region in snapshot.custodian)
        open_ = {hit for hit in found(snapshot.custodian, seen.secrets) if not hit[2]}
        assert open_ == set(), stage


@needs_root
@pytest.mark.parametrize("stage", ["keygen forgotten", "signing forgotten"])
def test_after_a_ceremony_the_custodian_holds_none(seen: Seen, stage: str) -> None:
    assert found(seen.stages[stage].custodian, seen.secrets) == set()


@pytest.mark.parametrize("side", ["network", pytest.param("custodian", marks=needs_root)])
def test_the_pin_is_nowhere(seen: Seen, made: Committee, side: str) -> None:
    pin = made.nodes["alice"].pin.encode()
    assert len(pin) >= PIECE
    for stage, snapshot in seen.stages.items():
        regions: list[Region] = getattr(snapshot, side)
        assert regions
        assert not any(pin in region.content for region in regions), stage
