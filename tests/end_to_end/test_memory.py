"""What a reader of tssd's own memory finds while it makes a key and signs: store, journal, API, router and all.

tests/daemon/custody/test_memory.py looks at the wall's two sides alone. The secrets are learnt from the row in the
store, as an owner of token, PIN and recovery key learns them.
"""

from __future__ import annotations

import socket
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from daemon.shares import rows
from tests.daemon.custody.committee import recorded_set
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
from tests.end_to_end import paused
from tests.end_to_end.prepared import database, fill
from tests.end_to_end.running import PARTIES, running

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from localnet.party import Party

KEYGEN = ("keygen running", "keygen result", "keygen pending")
SIGNING = ("signing running", "signing result")
SECONDS = 120.0
SPARE = 5
"""A recorded set that nobody uses. A pool that is full does not search, which would take from the seeded randomness."""
MESSAGE_HASH = "5a" * 32


@dataclass
class Watched(Seen):
    """And what is no secret, and must be found: a scan that finds nothing proves nothing."""

    public_key: str = ""
    pin: bytes = b""
    party_id: str = field(default=PARTIES[0])


def both(party: Party) -> Snapshot:
    assert party.process is not None
    pid = party.process.pid
    children = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    (custodian,) = (int(child) for each in children for child in each)
    return Snapshot(memory(pid), memory_of_custodian(custodian))


def look(listener: socket.socket, party: Party, moments: tuple[str, ...], ends: Future[str]) -> dict[str, Snapshot]:
    """One look at each moment at which the party waits."""
    seen = {}
    for moment in moments:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            raise AssertionError(f"{moment} did not come; ended: {ends.done()}") from None
        with connection:
            assert connection.recv(100).decode() == moment
            seen[moment] = both(party)
    return seen


@pytest.fixture(scope="module")
def seen(arena: None, tmp_path_factory: pytest.TempPathFactory) -> Watched:  # noqa: ARG001  opened by it
    directory = tmp_path_factory.mktemp("memory")
    recovery = tomllib.loads(f"recovery = {recovery_key(directory)}")
    tables = {"keygen": {"prepared": 1}, "service": {"drain_seconds": 1}, "custodian": recovery}
    path = directory / "moments.sock"

    def before_start(party: Party) -> None:
        place = PARTIES.index(party.party_id)
        fill(party, recorded_set(place, 1, len(PARTIES)), 1)
        fill(party, SPARE, 1)
        where = path if party.party_id == PARTIES[0] else directory / "nobody"
        party.program = (paused.__file__, str(where))

    watched = Watched()
    with (
        socket.socket(socket.AF_UNIX) as listener,
        running(tables=tables, before_start=before_start) as network,
        ThreadPoolExecutor(1) as aside,
    ):
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(SECONDS)
        party = network.net.parties[PARTIES[0]]

        def ceremony(moments: tuple[str, ...], act: Callable[..., object], *arguments: object) -> str:
            result: Future[str] = aside.submit(network.call, act, *arguments)  # type: ignore[arg-type]
            watched.stages.update(look(listener, party, moments, result))
            return result.result(SECONDS)

        watched.public_key = ceremony(KEYGEN, network.net.keygen, 2)
        watched.stages["keygen active"] = both(party)
        ceremony(SIGNING, network.net.sign, watched.public_key, PARTIES[:2], MESSAGE_HASH)
        watched.stages["signing over"] = both(party)
        with database(party) as connection:
            (stored,) = connection.execute("SELECT * FROM party_shares").fetchall()
        assert stored["status"] == "active"
        row = msgspec.msgpack.encode(rows.share_row(dict(stored)))
        token = party.directory / "token"
        watched.secrets = revealed(row, token, directory)
        watched.pin = (token / "pin").read_bytes().strip()
    return watched


def holds(regions: list[Region], pieces: set[bytes]) -> bool:
    """One of them is there."""
    return any(piece in region.content for region in regions for piece in pieces)


def test_the_scan_finds_what_is_there(seen: Watched) -> None:
    assert tuple(seen.stages) == (*KEYGEN, "keygen active", *SIGNING, "signing over")
    key = bytes.fromhex(seen.public_key)
    for stage, snapshot in seen.stages.items():
        assert holds(snapshot.network, {paused.PLANTED}), stage
        # The key is known from the result on, as bytes from the wall and as hex for the store.
        known = holds(snapshot.network, {key, seen.public_key.encode()})
        assert known == (stage not in {"keygen running", "keygen result"}), stage
    names = {"share", "share key", "Paillier p", "ring p", "sub-share of 1 for 2", "sub-share of 3 for 1"}
    assert names <= set(seen.secrets)
    assert all(len(seen.secrets[name]) >= PIECE for name in names)


@needs_root
def test_the_secrets_are_in_its_custodian_at_those_moments(seen: Watched) -> None:
    for stage, names in {
        "keygen running": {"sub-share of 1 for 1", "Paillier p"},
        "keygen result": {"share", "Paillier p"},
        "signing running": {"Paillier p"},
    }.items():
        assert names <= {name for name, _, _ in found(seen.stages[stage].custodian, seen.secrets)}, stage
    for stage, snapshot in seen.stages.items():
        assert not {hit for hit in found(snapshot.custodian, seen.secrets) if not hit[2]}, stage
    assert found(seen.stages["signing over"].custodian, seen.secrets) == set()


def test_tssd_never_holds_a_secret(seen: Watched) -> None:
    for stage, snapshot in seen.stages.items():
        assert found(snapshot.network, seen.secrets) == set(), stage


@pytest.mark.parametrize("side", ["network", pytest.param("custodian", marks=needs_root)])
def test_the_pin_is_in_neither(seen: Watched, side: str) -> None:
    assert len(seen.pin) >= PIECE
    for stage, snapshot in seen.stages.items():
        regions: list[Region] = getattr(snapshot, side)
        assert regions
        assert not holds(regions, {seen.pin}), stage
