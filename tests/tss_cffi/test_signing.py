from __future__ import annotations

import hashlib
import itertools
import random
from typing import TYPE_CHECKING

import pytest

from tests.interop import gg18, independent
from tests.tss_cffi import seeded
from tests.tss_cffi.seeded import core
from tests.tss_cffi.table import close, hold, seat_signing

if TYPE_CHECKING:
    from collections.abc import Callable

    from tss_cffi import Protocol, Share

    Recorded = Callable[[Protocol, int, int], dict[int, Share]]

DIGEST = hashlib.sha256(b"to be signed").digest()


def sign(shares: dict[int, Share], signers: tuple[int, ...], digest: bytes, session: bytes | None = None) -> bytes:
    seats = seat_signing(shares, signers, digest, session=session)
    assert hold(seats).faults == {}
    signatures = {party.result() for party in seats.values()}
    assert {party.state for party in seats.values()} == {core.PartyState.DONE}
    close(seats)
    (signature,) = signatures
    independent.verify(shares[signers[0]].info.public_key, digest, signature.rs, signature.recovery_id)
    return signature.rs


@pytest.mark.parametrize(("threshold", "parties"), [(2, 2), (2, 3), (3, 5)], ids=["t2n2", "t2n3", "t3n5"])
def test_every_t_subset_signs(protocol: Protocol, recorded: Recorded, threshold: int, parties: int) -> None:
    shares = recorded(protocol, threshold, parties)
    for signers in itertools.combinations(range(1, parties + 1), threshold):
        sign(shares, signers, DIGEST)


def test_more_than_t_sign(protocol: Protocol, recorded: Recorded) -> None:
    sign(recorded(protocol, 2, 3), (1, 2, 3), DIGEST)
    sign(recorded(protocol, 3, 5), (1, 3, 4, 5), DIGEST)


@pytest.mark.parametrize(
    "digest",
    [bytes(32), bytes(31) + b"\1", gg18.Q.to_bytes(32), (gg18.Q - 1).to_bytes(32), b"\xff" * 32],
    ids=["0", "1", "q", "q-1", "2^256-1"],
)
def test_digests_at_the_edges_are_reduced(protocol: Protocol, recorded: Recorded, digest: bytes) -> None:
    sign(recorded(protocol, 2, 2), (1, 2), digest)


def test_any_order_and_repeats_of_messages_are_harmless(protocol: Protocol, recorded: Recorded) -> None:
    for seed in range(3):
        seats = seat_signing(recorded(protocol, 2, 3), (1, 2, 3), DIGEST)
        assert hold(seats, order=random.Random(seed), repeats=2).faults == {}
        assert len({party.result() for party in seats.values()}) == 1
        close(seats)


def test_the_session_is_bound_where_the_protocol_can(recorded: Recorded) -> None:
    shares = recorded(core.Protocol.GG18_V3, 2, 2)
    sign(shares, (1, 2), DIGEST, b"s" * 32)
    seats = {
        1: core.SigningParty(shares[1], (1, 2), DIGEST, b"a" * 32),
        2: core.SigningParty(shares[2], (1, 2), DIGEST, b"b" * 32),
    }
    faults = hold(seats).faults
    assert {(fault.reason, fault.round) for fault in faults.values()} == {("proof", 2)}
    close(seats)


def test_digests_that_differ_give_no_signature(protocol: Protocol, recorded: Recorded) -> None:
    shares = recorded(protocol, 2, 2)
    seats = {
        1: core.SigningParty(shares[1], (1, 2), DIGEST),
        2: core.SigningParty(shares[2], (1, 2), hashlib.sha256(DIGEST).digest()),
    }
    faults = hold(seats).faults
    # v3 binds the message into the session, v2 finds that the parts do not fit before one is released.
    expected = ("proof", 2) if protocol is core.Protocol.GG18_V3 else ("inconsistent", 9)
    assert {(fault.reason, fault.round) for fault in faults.values()} == {expected}
    for party in seats.values():
        with pytest.raises(core.NoResult):
            party.result()
    close(seats)


def test_rounds_of_messages(protocol: Protocol, recorded: Recorded) -> None:
    seats = seat_signing(recorded(protocol, 2, 2), (1, 2), DIGEST)
    assert seats[1].round == (1, 9)
    sent = hold(seats).sent
    assert [posted.message_class.name for posted in sent if posted.sender == 1] == [
        "DIRECT",
        "BROADCAST",
        "DIRECT",
        *["BROADCAST"] * 7,
    ]
    assert seats[1].round == (9, 9)
    close(seats)


def test_a_seed_replays_a_signing_byte_for_byte(protocol: Protocol, recorded: Recorded) -> None:
    def once() -> list[bytes]:
        seeded.randomness(b"\7" * 32)
        seats = seat_signing(recorded(protocol, 2, 2), (1, 2), DIGEST)
        sent = [posted.data for posted in hold(seats).sent]
        seeded.randomness(None)
        close(seats)
        return sent

    assert once() == once()


def test_two_signings_share_no_randomness(protocol: Protocol, recorded: Recorded) -> None:
    shares = recorded(protocol, 2, 2)
    assert sign(shares, (1, 2), DIGEST)[:32] != sign(shares, (1, 2), DIGEST)[:32]
