"""Committees in which some seats are unmodified tss-lib parties and the others are ours."""

from __future__ import annotations

import hashlib
from itertools import combinations
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop import ours, vectors
from tests.interop.committee import hold
from tests.interop.independent import public_key, verify
from tests.interop.ours import OurSeat
from tests.tss_cffi import seeded
from tests.tss_cffi.seeded import core

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from tests.interop.golang import GoParties, GoSeat

pytestmark = pytest.mark.interop

Save = dict[str, Any]

DIGEST = hashlib.sha256(b"a mixed committee").digest()


def keygen(
    parties: GoParties, t: int, keys: Sequence[int], our_keys: Collection[int], nonce: int | None = None
) -> dict[int, Save]:
    """Make a key; what each seat stored, as tss-lib's save data."""
    sets = vectors.pre_parameters()
    seats: list[GoSeat | OurSeat] = [
        ours.keygen(parties.profile, key, keys, t, sets[i], nonce=nonce)
        if key in our_keys
        else parties.keygen(key, keys, t, sets[i], nonce=nonce)
        for i, key in enumerate(keys)
    ]
    hold(seats)
    saves: dict[int, Save] = {}
    for seat in seats:
        assert seat.fault is None, seat.fault
        if isinstance(seat, OurSeat):
            with seat.share() as share:
                saves[seat.key] = seeded.export(share)
        else:
            assert seat.save is not None
            saves[seat.key] = seat.save
    return saves


def sign(
    parties: GoParties,
    t: int,
    saves: dict[int, Save],
    our_keys: Collection[int],
    digest: bytes = DIGEST,
    nonce: int | None = None,
) -> None:
    """Sign with these shares, whoever made them, in seats of either make; verify independently."""
    keys = sorted(saves)
    message = int.from_bytes(digest)
    seats: list[GoSeat | OurSeat] = []
    for key in keys:
        if key in our_keys:
            with ours.load(parties.profile, t, saves[key]) as share:
                seats.append(ours.signing(key, keys, share, digest, nonce=nonce))
        else:
            seats.append(parties.signing(key, keys, t, saves[key], message, nonce=nonce))
    hold(seats)
    told = set()
    for seat in seats:
        assert seat.fault is None, seat.fault
        if isinstance(seat, OurSeat):
            told.add((seat.signature().rs, seat.signature().recovery_id))
            seat.party.close()
        else:
            assert seat.signature is not None
            told.add((seat.signature.rs, seat.signature.recovery_id))
            seat.leave()
    ((rs, recovery_id),) = told
    verify(saves[keys[0]], digest, rs, recovery_id)


def agreed(saves: dict[int, Save]) -> None:
    """All seats stored the same public side of the key."""
    public = [
        {name: save[name] for name in ("Ks", "NTildej", "H1j", "H2j", "BigXj", "PaillierPKs", "ECDSAPub")}
        for save in saves.values()
    ]
    assert all(other == public[0] for other in public)


KEYGENS = [
    (2, 2, (1,)),
    (2, 2, (2,)),
    (2, 3, (2,)),
    (2, 3, (1, 3)),
    (3, 5, (4,)),
    (3, 5, (1, 5)),
    (3, 5, (1, 2, 4, 5)),
]


@pytest.mark.parametrize(("t", "n", "our_keys"), KEYGENS, ids=lambda value: str(value).replace(" ", ""))
def test_a_mixed_keygen_and_signings_with_its_key(
    go_parties: GoParties, t: int, n: int, our_keys: tuple[int, ...]
) -> None:
    keys = range(1, n + 1)
    saves = keygen(go_parties, t, keys, our_keys)
    agreed(saves)
    for signers in list(combinations(keys, t))[:3]:
        chosen = {key: saves[key] for key in signers}
        # In the seats that made the shares, and then each share in a seat of the other make.
        sign(go_parties, t, chosen, our_keys)
        sign(go_parties, t, chosen, [key for key in signers if key not in our_keys])


@pytest.mark.parametrize("signers", [(1, 2), (1, 3), (2, 3), (1, 2, 3)], ids=str)
def test_every_subset_of_a_2_of_3_in_every_mixture(go_parties: GoParties, signers: tuple[int, ...]) -> None:
    stored = vectors.saves(go_parties.profile, 2, 3)
    saves = {key: stored[key - 1] for key in signers}
    for count in range(1, len(signers)):
        for our_keys in combinations(signers, count):
            sign(go_parties, 2, saves, our_keys)


@pytest.mark.parametrize(
    ("signers", "our_keys"),
    [((1, 2, 3), (2,)), ((1, 3, 5), (1, 5)), ((2, 4, 5), (4, 5)), ((1, 2, 3, 4, 5), (1, 3, 5))],
    ids=str,
)
def test_several_subsets_of_a_3_of_5(
    go_parties: GoParties, signers: tuple[int, ...], our_keys: tuple[int, ...]
) -> None:
    stored = vectors.saves(go_parties.profile, 3, 5)
    sign(go_parties, 3, {key: stored[key - 1] for key in signers}, our_keys)


def digests() -> Iterator[bytes]:
    """A hundred of them, the awkward ones first."""
    order = int("FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141", 16)
    yield from (number.to_bytes(32) for number in (1, 2, order - 1, order // 2, 1 << 255))
    for i in range(95):
        yield hashlib.sha256(b"%d" % i).digest()


def test_a_hundred_signatures_in_a_row_on_one_mixed_key(go_parties: GoParties) -> None:
    saves = keygen(go_parties, 2, (1, 2), (1,))
    for digest in digests():
        # tss-lib wants the hash reduced; ours reduces it.
        sign(go_parties, 2, saves, (1,), digest)


def test_a_session_nonce_is_bound_by_both_alike(go_parties: GoParties) -> None:
    if go_parties.profile == "gg18-v2":
        with pytest.raises(core.Misuse, match="session32"):
            keygen(go_parties, 2, (1, 2), (1,), nonce=7)
        return
    saves = keygen(go_parties, 2, (1, 2), (1,), nonce=1 << 255)
    sign(go_parties, 2, saves, (1,), nonce=7)
    with ours.load(go_parties.profile, 2, saves[1]) as share:
        mine = ours.signing(1, (1, 2), share, DIGEST, nonce=7)
    hold([mine, go_parties.signing(2, (1, 2), 2, saves[2], int.from_bytes(DIGEST), nonce=8)])
    assert mine.fault is not None
    assert (mine.fault.reason, mine.fault.culprits) == ("proof", (2,))


def test_the_save_data_of_either_says_the_same_key(go_parties: GoParties) -> None:
    stored = vectors.saves(go_parties.profile, 2, 3)
    with ours.load(go_parties.profile, 2, stored[0]) as share:
        assert share.info.public_key == public_key(stored[0])
        again = seeded.export(share)
    assert again == {name: stored[0][name] for name in again}
