from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.interop import gg18
from tests.tss_cffi import seeded
from tests.tss_cffi.seeded import core
from tests.tss_cffi.table import close, hold, seat_keygen

if TYPE_CHECKING:
    from tss_cffi import KeygenParty, Protocol, Share


def finish(parties: dict[int, KeygenParty]) -> dict[int, Share]:
    shares = {}
    for seat, party in parties.items():
        assert party.state is core.PartyState.DONE
        with party.result() as data:
            shares[seat] = core.Share(data)
    close(parties)
    return shares


def interpolate(shares: dict[int, Share]) -> gg18.Point | None:
    saves = {seat: seeded.export(share) for seat, share in shares.items()}
    secret = sum(saves[seat]["Xi"] * gg18.lagrange(seat, list(saves)) for seat in saves)
    return gg18.mul(secret, gg18.G)


@pytest.mark.parametrize(
    ("threshold", "parties"), [(2, 2), (2, 3), (3, 3), (3, 5)], ids=["t2n2", "t2n3", "t3n3", "t3n5"]
)
def test_all_parties_agree_and_any_t_shares_are_the_key(protocol: Protocol, threshold: int, parties: int) -> None:
    seats = seat_keygen(protocol, threshold, parties)
    assert hold(seats).faults == {}
    shares = finish(seats)
    infos = {seat: share.info for seat, share in shares.items()}
    first = infos[1]
    assert {info.public_key for info in infos.values()} == {first.public_key}
    assert {info.digest for info in infos.values()} == {first.digest}
    assert [info.seat for info in infos.values()] == list(range(1, parties + 1))
    assert (first.protocol, first.threshold, first.parties) == (protocol, threshold, parties)
    assert first.seats == tuple(range(1, parties + 1))
    some = dict(random.Random(1).sample(sorted(shares.items()), threshold))
    key = interpolate(some)
    assert key is not None
    assert first.public_key == bytes([2 | key.y & 1]) + key.x.to_bytes(32)
    some.popitem()
    assert interpolate(some) != key
    for share in shares.values():
        share.close()


def test_any_order_and_repeats_of_messages_are_harmless(protocol: Protocol) -> None:
    seats = seat_keygen(protocol, 2, 3)
    assert hold(seats, order=random.Random(7), repeats=2).faults == {}
    shares = finish(seats)
    assert len({share.info.digest for share in shares.values()}) == 1
    for share in shares.values():
        share.close()


def test_seats_need_not_be_contiguous(protocol: Protocol) -> None:
    numbers = (3, 700, 65535)
    parties = {}
    for place, seat in enumerate(numbers, start=1):
        with seeded.prepared(place) as own:
            parties[seat] = core.KeygenParty(protocol, seat, numbers, 2, own)
    assert hold(parties).faults == {}
    shares = finish(parties)
    assert shares[700].info.seats == numbers
    key = interpolate({seat: shares[seat] for seat in (3, 65535)})
    assert key is not None
    assert shares[3].info.public_key == bytes([2 | key.y & 1]) + key.x.to_bytes(32)
    for share in shares.values():
        share.close()


def test_the_session_is_bound_where_the_protocol_can() -> None:
    protocol = core.Protocol.GG18_V3
    same = seat_keygen(protocol, 2, 2, session=bytes(31) + b"\1")
    assert hold(same).faults == {}
    close(same)
    with seeded.prepared(1) as first, seeded.prepared(2) as second:
        other = {
            1: core.KeygenParty(protocol, 1, (1, 2), 2, first, b"a" * 32),
            2: core.KeygenParty(protocol, 2, (1, 2), 2, second, b"b" * 32),
        }
    outcome = hold(other)
    assert {fault.detail for fault in outcome.faults.values()} == {"dlnproof_1: does not verify"}
    close(other)


def test_profiles_do_not_mix() -> None:
    with seeded.prepared(1) as first, seeded.prepared(2) as second:
        mixed = {
            1: core.KeygenParty(core.Protocol.GG18_V2, 1, (1, 2), 2, first),
            2: core.KeygenParty(core.Protocol.GG18_V3, 2, (1, 2), 2, second),
        }
    outcome = hold(mixed)
    assert [(seat, fault.reason, fault.round, fault.culprits) for seat, fault in sorted(outcome.faults.items())] == [
        (1, "proof", 2, (2,)),
        (2, "proof", 2, (1,)),
    ]
    close(mixed)


def test_rounds_and_what_is_awaited(protocol: Protocol) -> None:
    seats = seat_keygen(protocol, 2, 3)
    one = seats[1]
    assert one.round == (1, 3)
    assert one.waits_for() == (2, 3)
    states = [one.state]
    sent = one.outgoing()
    assert one.outgoing() == []
    states.append(one.state)
    assert states == [core.PartyState.HAS, core.PartyState.WANTS]
    assert [(message.to, message.message_class, message.round) for message in sent] == [
        (None, core.MessageClass.BROADCAST, 1)
    ]
    (second,) = seats[2].outgoing()
    assert one.receive(2, second.message_class, second.data)
    assert one.waits_for() == (3,)
    assert not one.receive(2, second.message_class, second.data)
    (third,) = seats[3].outgoing()
    assert one.receive(3, third.message_class, third.data)
    assert one.round == (2, 3)
    assert one.waits_for() == (2, 3)
    assert [(message.to, message.message_class) for message in one.outgoing()] == [
        (2, core.MessageClass.DIRECT),
        (3, core.MessageClass.DIRECT),
        (None, core.MessageClass.BROADCAST),
    ]
    with pytest.raises(core.NoResult):
        one.result()
    close(seats)


def test_the_share_is_handed_over_once(protocol: Protocol) -> None:
    seats = seat_keygen(protocol, 2, 2)
    hold(seats)
    seats[1].result().close()
    with pytest.raises(core.NoResult):
        seats[1].result()
    close(seats)


def test_a_seed_replays_a_keygen_byte_for_byte(protocol: Protocol) -> None:
    def once() -> tuple[list[bytes], bytes]:
        seeded.randomness(bytes(32))
        seats = seat_keygen(protocol, 2, 2)
        sent = [posted.data for posted in hold(seats).sent]
        seeded.randomness(None)
        shares = finish(seats)
        key = shares[1].info.public_key
        for share in shares.values():
            share.close()
        return sent, key

    assert once() == once()
