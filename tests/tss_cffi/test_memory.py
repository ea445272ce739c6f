"""Secrets stay in the arena while they live and are nowhere afterwards: a process at work is searched from outside.

The search looks for a key share, a signing nonce and factors of moduli: as limbs, big-endian bytes and decimal digits.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import pytest

from tests.interop import vectors
from tests.tss_cffi import seeded
from tests.tss_cffi.table import close, hold

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.uninstrumented(reason="what was freed would be kept, to be looked at")

CHILD: Final = Path(__file__).parent / "secret_keeper.py"
SEED: Final = b"\x55" * 32


class Keeper:
    """The process that signs or makes a key; stopped wherever it says so."""

    def __init__(self, folder: Path, what: str) -> None:
        files = []
        material = vectors.pre_parameters()[:2] if what == "keygen" else vectors.saves("gg18-v2", 2, 2)
        for seat, each in enumerate(material, start=1):
            files.append(str(folder / f"{seat}.json"))
            Path(files[-1]).write_text(vectors.compact(each), encoding="ascii")
        command = [sys.executable, str(CHILD), str(seeded.FOLDER), *files, SEED.hex(), what]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._started = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def reaches(self) -> str:
        """Let it go on to its next stop, where it waits, and return what it says there."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._started:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        self._started = True
        return self._process.stdout.readline().strip()

    def finds(self, needle: bytes) -> list[int]:
        """Addresses of a byte string in all memory that the process can read or write."""
        found = []
        with open(f"/proc/{self._process.pid}/mem", "rb", 0) as memory:  # noqa: PTH123 - a file without a size
            for start, end in self._mappings():
                memory.seek(start)
                content = memory.read(end - start)
                at = content.find(needle)
                while at >= 0:
                    found.append(start + at)
                    at = content.find(needle, at + 1)
        return found

    def _mappings(self) -> Iterator[tuple[int, int]]:
        for line in Path(f"/proc/{self._process.pid}/maps").read_text(encoding="ascii").splitlines():
            span, access, _, _, _, *name = line.split()
            if access.startswith("rw") and name != ["[vvar]"]:
                start, end = span.split("-")
                yield int(start, 16), int(end, 16)


def forms(secret: int, length: int) -> dict[str, bytes]:
    """How a secret could lie in memory. Half of it is enough, so that an overwritten end does not hide it."""
    return {
        "limbs": secret.to_bytes(length, "little")[: length // 2],
        "bytes": secret.to_bytes(length)[: length // 2],
        "digits": str(secret)[: length // 2].encode(),
    }


def made_share() -> int:
    """What the keeper's keygen makes x: all polynomials are drawn when the seats are opened."""
    seats = {}
    for seat in (1, 2):
        with seeded.prepared(seat) as own:
            seeded.randomness(bytes([seat]) + SEED[1:])
            seats[seat] = seeded.core.KeygenParty(seeded.PROTOCOLS[0], seat, (1, 2), 2, own)
    seeded.randomness(None)
    assert hold(seats).faults == {}
    with seats[1].result() as data, seeded.core.Share(data) as share:
        x: int = seeded.export(share)["Xi"]
    close(seats)
    return x


def secrets_of(what: str) -> list[tuple[str, int, int]]:
    """Name, value and bytes."""
    if what == "keygen":
        own = vectors.pre_parameters()[0]
        return [("x", made_share(), 32), ("p", own["PaillierSK"]["P"], 128), ("ring p", 2 * own["P"] + 1, 128)]
    save = vectors.saves("gg18-v2", 2, 2)[0]
    # The first scalar that a seeded signing draws is k.
    nonce = int.from_bytes(hashlib.sha256(SEED + bytes(8)).digest(), "little")
    return [("x", save["Xi"], 32), ("k", nonce, 32), ("p", save["PaillierSK"]["P"], 128)]


def wanted(what: str) -> dict[str, bytes]:
    """What must not be found, by name and form."""
    return {
        f"{name} as {form}": needle
        for name, secret, length in secrets_of(what)
        for form, needle in forms(secret, length).items()
    }


class Search:
    """Where the secrets are, arena and rest told apart."""

    def __init__(self, keeper: Keeper, what: str) -> None:
        self._keeper = keeper
        self._low, self._high = (int(address, 16) for address in keeper.reaches().split())
        self._wanted = wanted(what)

    def outside(self) -> set[str]:
        return {
            name
            for name, needle in self._wanted.items()
            if any(not self._held(at) for at in self._keeper.finds(needle))
        }

    def inside(self) -> set[str]:
        names = {
            name for name, needle in self._wanted.items() if any(self._held(at) for at in self._keeper.finds(needle))
        }
        return {name.rpartition(" as ")[0] for name in names}

    def _held(self, address: int) -> bool:
        return self._low <= address < self._high


@pytest.mark.parametrize(
    ("what", "stops"),
    [
        (
            "sign",
            {
                "loaded": {"x", "p"},
                "round 1": {"x", "k", "p"},
                "round 6": {"x", "p"},
                "signed": {"x", "p"},
                "closed": set(),
            },
        ),
        ("fail", {"loaded": {"x", "p"}, "round 1": {"x", "k", "p"}, "closed": set()}),
        (
            "keygen",
            {
                "prepared": {"p", "ring p"},
                "round 3": {"x", "p", "ring p"},
                "made": {"x", "p", "ring p"},
                "closed": set(),
            },
        ),
    ],
)
def test_secrets_lie_in_the_arena_alone_and_end_with_their_owner(
    tmp_path: Path, what: str, stops: dict[str, set[str]]
) -> None:
    # k is spent in round 5; x and the factor live as long as the share.
    with Keeper(tmp_path, what) as keeper:
        search = Search(keeper, what)
        for stop, held in stops.items():
            assert keeper.reaches() == stop
            assert search.outside() == set(), stop
            assert search.inside() == held, stop


def test_the_search_would_find_a_secret(tmp_path: Path) -> None:
    with Keeper(tmp_path, "sign") as keeper:
        keeper.reaches()
        assert keeper.finds(b"a canary in the keep" + b"er's memory")
