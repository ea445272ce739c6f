"""Every field of every message left out, empty, too long, or with an element more or less; every class turned around.

What tss-lib's ValidateBasic refuses, and the bounds that it lacks. A party judges the shape of a message when it comes,
whatever round it waits for. docs/checks.md lists every check with its tests.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from tests.tss_cffi import seeded
from tests.tss_cffi.protobuf import Wire
from tests.tss_cffi.seeded import core
from tests.tss_cffi.table import attempt, close, hold, seat_keygen, seat_signing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tss_cffi import Fault, Party, Protocol, Share

    Recorded = Callable[[Protocol, int, int], dict[int, Share]]

DIGEST: Final = hashlib.sha256(b"to be signed").digest()
V2: Final = core.Protocol.GG18_V2
DIRECT, BROADCAST = core.MessageClass.DIRECT, core.MessageClass.BROADCAST

# By message: its class, how long it may be, and by field the number of elements; 1 where it is no list.
KEYGEN: Final = {
    "keygen.KGRound1Message": (BROADCAST, 256 * 1024, {1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 258, 7: 258}),
    "keygen.KGRound2Message1": (DIRECT, 8 * 1024, {1: 1, 2: 11}),
    "keygen.KGRound2Message2": (BROADCAST, 84 * 1024, {1: 5, 2: 163}),
    "keygen.KGRound3Message": (BROADCAST, 8 * 1024, {1: 13}),
}
SIGNING: Final = {
    "signing.SignRound1Message1": (DIRECT, 8 * 1024, {1: 1, 2: 6}),
    "signing.SignRound1Message2": (BROADCAST, 1024, {1: 1}),
    "signing.SignRound2Message": (DIRECT, 16 * 1024, {1: 1, 2: 1, 3: 10, 4: 12}),
    "signing.SignRound3Message": (BROADCAST, 1024, {1: 1}),
    "signing.SignRound4Message": (BROADCAST, 1024, {1: 3, 2: 1, 3: 1, 4: 1}),
    "signing.SignRound5Message": (BROADCAST, 1024, {1: 1}),
    "signing.SignRound6Message": (BROADCAST, 1024, {1: 5, **dict.fromkeys(range(2, 9), 1)}),
    "signing.SignRound7Message": (BROADCAST, 1024, {1: 1}),
    "signing.SignRound8Message": (BROADCAST, 1024, {1: 5}),
    "signing.SignRound9Message": (BROADCAST, 1024, {1: 1}),
}

MISSING: Final = "message: element missing"
EMPTY: Final = "message: empty element"
SURPLUS: Final = "message: too many elements in a list"
LONG_INTEGER: Final = "message: integer too long"
LONG: Final = "message: longer than its fields justify"


class Bent(NamedTuple):
    """A message with one fault, and what is said of it."""

    wire: Wire
    detail: str


def bendings(wire: Wire, counts: dict[int, int], longest: int) -> Iterator[Bent]:
    """All faults of shape, one at a time."""
    for number, count in counts.items():
        parts = wire.fields[number]
        assert len(parts) == count
        others = {each: kept for each, kept in wire.fields.items() if each != number}

        def with_parts(new: list[bytes], others: dict[int, list[bytes]] = others, number: int = number) -> Wire:
            return replace(wire, fields=others | {number: new})

        yield Bent(replace(wire, fields=others), MISSING)
        yield Bent(with_parts([b"", *parts[1:]]), EMPTY)
        if count > 1:
            yield Bent(with_parts(parts[:-1]), MISSING)
            yield Bent(with_parts([*parts, parts[0]]), SURPLUS)
            yield Bent(with_parts([*parts[:-1], b""]), EMPTY)
        if len(wire.encode()) + 1025 < longest:
            yield Bent(with_parts([*parts[:-1], bytes(1024) + b"\1"]), LONG_INTEGER)
    yield Bent(replace(wire, fields=wire.fields | {99: [bytes(longest)]}), LONG)


def expected(detail: str) -> Fault:
    return core.Fault("malformed", 1, (2,), detail)


def check(
    kind: str,
    messages: dict[str, Wire],
    table: dict[str, tuple[core.MessageClass, int, dict[int, int]]],
    fresh: Callable[[], Party],
) -> None:
    """Seat 1 hears each bent message first of all."""
    message_class, longest, counts = table[kind]
    for bent in bendings(messages[kind], counts, longest):
        with fresh() as party:
            data = bent.wire.encode()
            if len(data) > 256 * 1024:
                with pytest.raises(core.Misuse, match="data_len"):
                    party.receive(2, message_class, data)
                continue
            assert attempt(party, 2, message_class, data) == expected(bent.detail), (kind, bent.detail)
    with fresh() as party:
        turned = core.Fault("class", 1, (2,), "message: delivered in the wrong class")
        other = DIRECT if message_class is BROADCAST else BROADCAST
        assert attempt(party, 2, other, messages[kind].encode()) == turned


def said(seats: dict[int, Party]) -> dict[str, Wire]:
    """What seat 2 says to seat 1 where all goes well."""
    outcome = hold(seats)
    close(seats)
    assert outcome.faults == {}
    wires = [Wire.parse(posted.data) for posted in outcome.sent if posted.sender == 2]
    return {wire.type: wire for wire in wires}


@pytest.fixture(scope="module")
def signing(recorded: Recorded) -> dict[str, Wire]:
    return said(dict(seat_signing(recorded(V2, 2, 2), (1, 2), DIGEST)))


@pytest.fixture(scope="module")
def keygen() -> dict[str, Wire]:
    return said(dict(seat_keygen(V2, 2, 2)))


@pytest.mark.parametrize("kind", SIGNING)
def test_the_shape_of_a_signing_message(kind: str, signing: dict[str, Wire], recorded: Recorded) -> None:
    shares = recorded(V2, 2, 2)
    check(kind, signing, SIGNING, lambda: core.SigningParty(shares[1], (1, 2), DIGEST))


@pytest.mark.parametrize("kind", KEYGEN)
def test_the_shape_of_a_keygen_message(kind: str, keygen: dict[str, Wire]) -> None:
    def fresh() -> Party:
        with seeded.prepared(1) as own:
            return core.KeygenParty(V2, 1, (1, 2), 2, own)

    check(kind, keygen, KEYGEN, fresh)


def test_these_are_all_messages(signing: dict[str, Wire], keygen: dict[str, Wire]) -> None:
    assert set(signing) == set(SIGNING)
    assert set(keygen) == set(KEYGEN)
