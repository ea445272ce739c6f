"""What a party does with bytes, classes, senders and repeats, whatever they mean."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.tss_cffi.protobuf import PACKAGE, Wire, element, varint
from tests.tss_cffi.seeded import core
from tests.tss_cffi.table import attempt, close, hold, seat_keygen, seat_signing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tss_cffi import Fault, Message, Party, Protocol, Share, SigningParty

    Recorded = Callable[[Protocol, int, int], dict[int, Share]]

DIGEST: Final = hashlib.sha256(b"to be signed").digest()
MessageClass = core.MessageClass
DIRECT, BROADCAST = MessageClass.DIRECT, MessageClass.BROADCAST
ASK: Final = "signing.SignRound1Message1"


class Pair:
    """Seat 1 of a fresh signing, and what seat 2 says first."""

    def __init__(self, shares: dict[int, Share]) -> None:
        self.seats = seat_signing(shares, (1, 2), DIGEST)
        self.party: SigningParty = self.seats[1]
        self.ask: Message
        self.commit: Message
        self.ask, self.commit = self.seats[2].outgoing()

    def refused(self, data: bytes, message_class: core.MessageClass = DIRECT, sender: int = 2) -> Fault:
        with pytest.raises(core.PeerFault) as caught:
            self.party.receive(sender, message_class, data)
        assert self.party.state is core.PartyState.FAILED
        assert caught.value.fault == self.party.fault()
        return caught.value.fault


@pytest.fixture
def pair(recorded: Recorded) -> Iterator[Pair]:
    made = Pair(recorded(core.Protocol.GG18_V2, 2, 2))
    yield made
    close(made.seats)


def malformed(detail: str) -> Fault:
    return core.Fault("malformed", 1, (2,), detail)


def any_of(value: bytes, name: str = ASK) -> bytes:
    return element(1, (PACKAGE + name).encode()) + element(2, value)


ENVELOPE: Final = "envelope: not a protobuf Any"
UNKNOWN: Final = "envelope: unknown message type"


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"", UNKNOWN),
        (b"\x00", ENVELOPE),
        (b"\xff" * 11, ENVELOPE),
        (b"\x0a\x05ab", ENVELOPE),
        (b"\x0b", ENVELOPE),
        (b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02", ENVELOPE),
        (element(2, b""), UNKNOWN),
        (element(1, b"") + element(2, b""), UNKNOWN),
        (element(1, b"type.googleapis.com/"), UNKNOWN),
        (any_of(b"", "signing.SignRound1Message"), UNKNOWN),
        (any_of(b"", "signing.SignRound1Message11"), UNKNOWN),
        (any_of(b"", "keygen.KGRound1Message"), UNKNOWN),
        (any_of(b""), "message: element missing"),
        (any_of(b"\x0a"), "message: not protobuf"),
        (any_of(b"\x0a\x01"), "message: not protobuf"),
        (any_of(b"\x08\x05"), "message: element missing"),
        (any_of(element(1, b"")), "message: empty element"),
        (any_of(element(1, bytes(1025))), "message: integer too long"),
        (any_of(element(2, b"\1") * 7), "message: too many elements in a list"),
        (any_of(element(9, bytes(9000))), "message: longer than its fields justify"),
    ],
)
def test_bytes_that_are_no_message(pair: Pair, data: bytes, detail: str) -> None:
    assert pair.refused(data) == malformed(detail)


def test_what_protobuf_lets_an_encoder_do_is_taken(pair: Pair) -> None:
    wire = Wire.parse(pair.ask.data)
    unknown = [element(77, b"x"), b"\x18\x96\x01", b"\x21" + bytes(8), b"\x2d" + bytes(4)]
    first_thrown_away = element(1, b"\5")
    padded = element(1, bytes(3) + wire.fields[1][0])
    elements = b"".join(element(2, bytes(2) + part) for part in wire.fields[2])
    value = unknown[0] + elements + unknown[1] + first_thrown_away + unknown[2] + padded + unknown[3]
    url = element(1, b"elsewhere/binance.tsslib.ecdsa." + ASK.encode())
    assert pair.party.receive(2, DIRECT, element(2, value) + b"\x18\x05" + url)
    assert pair.party.receive(2, BROADCAST, pair.commit.data)
    assert pair.party.round == (2, 9)


def test_a_message_in_the_wrong_class(pair: Pair) -> None:
    expected = core.Fault("class", 1, (2,), "message: delivered in the wrong class")
    assert pair.refused(pair.ask.data, BROADCAST) == expected


def test_a_broadcast_sent_to_one(pair: Pair) -> None:
    expected = core.Fault("class", 1, (2,), "message: delivered in the wrong class")
    assert pair.refused(pair.commit.data, DIRECT) == expected


@pytest.mark.parametrize("sender", [0, 1, 3, 65536, 0xFFFFFFFF])
def test_strangers_and_oneself_change_nothing(pair: Pair, sender: int) -> None:
    with pytest.raises(core.Stranger):
        pair.party.receive(sender, DIRECT, b"anything")
    assert pair.party.fault() is None
    assert pair.party.waits_for() == (2,)


def test_the_same_again_is_harmless_and_another_is_equivocation(pair: Pair) -> None:
    assert pair.party.receive(2, DIRECT, pair.ask.data)
    assert not pair.party.receive(2, DIRECT, pair.ask.data)
    changed = Wire.parse(pair.ask.data)
    found = pair.refused(changed.with_number(1, changed.number(1) + 1).encode())
    assert found == core.Fault("equivocation", 1, (2,), "message: differs from an earlier one of its type")


def test_equivocation_after_its_round_is_over(pair: Pair) -> None:
    assert pair.party.receive(2, DIRECT, pair.ask.data)
    assert pair.party.receive(2, BROADCAST, pair.commit.data)
    assert pair.party.round == (2, 9)
    assert not pair.party.receive(2, BROADCAST, pair.commit.data)
    found = pair.refused(Wire.parse(pair.commit.data).with_number(1, 5).encode(), BROADCAST)
    assert found == core.Fault("equivocation", 2, (2,), "message: differs from an earlier one of its type")


def carry(seats: dict[int, SigningParty], sent: dict[int, list[Message]], to: int) -> None:
    """Deliver to one seat what the others have sent it."""
    for seat, messages in sent.items():
        for message in messages:
            if seat != to and message.to in {None, to}:
                assert seats[to].receive(seat, message.message_class, message.data)


def test_early_messages_are_kept(recorded: Recorded) -> None:
    seats = seat_signing(recorded(core.Protocol.GG18_V2, 2, 3), (1, 2, 3), DIGEST)
    first = {seat: party.outgoing() for seat, party in seats.items()}
    carry(seats, first, 2)
    carry(seats, first, 3)
    # Seat 1 hears of round 2 before it has round 1.
    second = {seat: seats[seat].outgoing() for seat in (2, 3)}
    for to in seats:
        carry(seats, second, to)
    assert seats[1].round == (1, 9)
    carry(seats, first, 1)
    assert seats[1].round == (3, 9)
    assert hold(seats).faults == {}
    assert len({party.result() for party in seats.values()}) == 1
    close(seats)


def test_a_failed_party_is_final_and_keeps_its_first_fault(pair: Pair) -> None:
    first = pair.refused(b"\x00")
    with pytest.raises(core.PartyFinal):
        pair.party.receive(2, DIRECT, pair.ask.data)
    assert pair.party.fault() == first
    assert pair.party.outgoing() == []
    assert pair.party.waits_for() == ()
    with pytest.raises(core.NoResult):
        pair.party.result()


def test_a_done_party_is_final(recorded: Recorded) -> None:
    seats = seat_signing(recorded(core.Protocol.GG18_V2, 2, 2), (1, 2), DIGEST)
    hold(seats)
    with pytest.raises(core.PartyFinal):
        seats[1].receive(2, DIRECT, b"late")
    assert seats[1].fault() is None
    assert seats[1].result() == seats[2].result()
    close(seats)


def test_messages_of_another_ceremony_of_the_same_kind(recorded: Recorded) -> None:
    shares = recorded(core.Protocol.GG18_V3, 2, 2)
    one = seat_signing(shares, (1, 2), DIGEST)
    other = seat_signing(shares, (1, 2), hashlib.sha256(b"another").digest())
    faults = [attempt(one[1], 2, message.message_class, message.data) for message in other[2].outgoing()]
    assert faults == [None, core.Fault("proof", 2, (2,), "range_proof_alice: does not verify")]
    close(one)
    close(other)


def test_a_failing_party_frees_what_it_held(recorded: Recorded) -> None:
    shares = recorded(core.Protocol.GG18_V2, 2, 2)
    before = core.arena_usage().used
    seats = seat_signing(shares, (1, 2), DIGEST)
    opened = core.arena_usage().used
    with pytest.raises(core.PeerFault):
        seats[1].receive(2, DIRECT, b"\x00")
    failed = core.arena_usage().used
    close(seats)
    assert before < failed < opened
    assert core.arena_usage().used == before


BYTES = st.binary(max_size=300)
FIELDS = st.dictionaries(st.integers(1, 20), st.lists(BYTES, max_size=8), max_size=4)
TYPES = st.sampled_from(
    [
        ASK,
        *(f"signing.SignRound{k}Message" for k in range(2, 10)),
        "signing.SignRound1Message2",
        "keygen.KGRound1Message",
        "keygen.KGRound2Message1",
        "keygen.KGRound2Message2",
        "keygen.KGRound3Message",
    ]
)


ANYTHING = st.one_of(BYTES, st.builds(lambda kind, parts: Wire(kind, parts).encode(), TYPES, FIELDS))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=ANYTHING)
@example(data=element(1, (PACKAGE + ASK).encode()) + varint(2 << 3 | 2) + varint((1 << 64) - 1))
def test_any_bytes_end_in_a_fault_that_names_the_sender(recorded: Recorded, data: bytes) -> None:
    made = Pair(recorded(core.Protocol.GG18_V2, 2, 2))
    found = attempt(made.party, 2, DIRECT, data)
    assert found is None or (found.reason in {"malformed", "class"} and found.culprits == (2,))
    close(made.seats)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 13), data=ANYTHING, turned=st.booleans())
def test_any_bytes_in_place_of_any_message(recorded: Recorded, place: int, data: bytes, *, turned: bool) -> None:
    """Places 0 to 9 are a signing's messages, the others a keygen's."""
    shares = recorded(core.Protocol.GG18_V3, 2, 2)
    before = core.arena_usage().used
    pair = seat_signing(shares, (1, 2), DIGEST) if place < 10 else seat_keygen(core.Protocol.GG18_V3, 2, 2)
    seats: dict[int, Party] = dict(pair)
    left = place % 10
    found = None
    while messages := [(seat, message) for seat in seats for message in seats[seat].outgoing()]:
        for seat, message in messages:
            found = None
            if seat == 2 and left == 0:
                message_class = MessageClass(3 - message.message_class) if turned else message.message_class
                found = attempt(seats[1], 2, message_class, data)
            left -= seat == 2
            found = found or attempt(seats[3 - seat], seat, message.message_class, message.data)
            if found is not None:
                assert found.reason in {"malformed", "class", "equivocation", "commitment", "proof"}
                assert found.culprits == (2,)
                assert seats[1].state is core.PartyState.FAILED
                assert seats[1].outgoing() == []
    assert left < 0
    close(seats)
    assert core.arena_usage().used == before


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spoilt=st.integers(0, 9), place=st.floats(0, 1, exclude_max=True))
def test_a_flipped_bit_never_yields_a_signature(recorded: Recorded, spoilt: int, place: float) -> None:
    seats = seat_signing(recorded(core.Protocol.GG18_V3, 2, 2), (1, 2), DIGEST)
    faults = []
    sent = 0
    while messages := [(seat, message) for seat in seats for message in seats[seat].outgoing()]:
        for seat, message in messages:
            data = bytearray(message.data)
            if seat == 2:
                if sent == spoilt:
                    bit = int(place * 8 * (len(data) - 60)) + 8 * 60  # behind the host of the URL, which means nothing
                    data[bit // 8] ^= 1 << bit % 8
                sent += 1
            faults.append(attempt(seats[3 - seat], seat, message.message_class, bytes(data)))
    assert sent > spoilt
    assert seats[1].state is not core.PartyState.DONE
    first = next(fault for fault in faults if fault is not None)
    assert first.reason != "internal"
    close(seats)


def test_a_keygen_takes_no_signing_messages(pair: Pair) -> None:
    seats = seat_keygen(core.Protocol.GG18_V2, 2, 2)
    with pytest.raises(core.PeerFault) as caught:
        seats[1].receive(2, DIRECT, pair.ask.data)
    assert caught.value.fault == malformed(UNKNOWN)
    close(seats)
