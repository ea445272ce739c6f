"""Memory that a message makes a party take: never more than the message justifies."""

from __future__ import annotations

import hashlib
import subprocess
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from tests.interop import vectors
from tests.tss_cffi.programs import compile_program
from tests.tss_cffi.protobuf import PACKAGE, Wire, element, varint
from tests.tss_cffi.seeded import core
from tests.tss_cffi.table import close, hold, seat_keygen, seat_signing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.tss_cffi.table import Outcome
    from tss_cffi import Party, Protocol, Share

    Recorded = Callable[[Protocol, int, int], dict[int, Share]]

pytestmark = pytest.mark.uninstrumented(reason="it measures the heap of a program of its own")

V2: Final = core.Protocol.GG18_V2
DIGEST: Final = hashlib.sha256(b"to be signed").digest()
TAKEN, FAULT = 0, 4  # tss_status

# What one hash of libcrypto's takes on the heap, and a block of the arena beside its bytes.
HEAP: Final = 4096
BLOCK: Final = 256


class Case(NamedTuple):
    """Messages for a fresh party; the last one is measured."""

    keygen: bool
    messages: Sequence[tuple[core.MessageClass, bytes]]

    @property
    def last(self) -> bytes:
        return self.messages[-1][1]

    def encode(self) -> bytes:
        each = (bytes([kind]) + len(data).to_bytes(4) + data for kind, data in self.messages)
        return bytes([self.keygen, len(self.messages)]) + b"".join(each)


class Cost(NamedTuple):
    """Bytes that heap and arena grew by at most."""

    status: int
    heap: int
    arena: int


@pytest.fixture(scope="module")
def measure(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[Case]], list[Cost]]:
    """A function that delivers cases in a process of its own."""
    folder = tmp_path_factory.mktemp("bounds")
    program = compile_program("bounds", folder, "gcc", "-O1", "-DTSS_SEEDED")
    (folder / "save").write_text(vectors.compact(vectors.saves("gg18-v2", 2, 2)[0]), encoding="ascii")
    (folder / "parameters").write_text(vectors.compact(vectors.pre_parameters()[0]), encoding="ascii")

    def run(cases: Sequence[Case]) -> list[Cost]:
        (folder / "cases").write_bytes(b"".join(case.encode() for case in cases))
        command = [str(program), *(str(folder / name) for name in ("save", "parameters", "cases"))]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        costs = [Cost(*map(int, line.split())) for line in told.splitlines()]
        assert len(costs) == len(cases)
        return costs

    return run


def said(seats: dict[int, Party]) -> dict[str, tuple[core.MessageClass, bytes]]:
    """What seat 2 says to seat 1, by type."""
    outcome: Outcome = hold(seats)
    close(seats)
    sent = [posted for posted in outcome.sent if posted.sender == 2]
    return {Wire.parse(posted.data).type: (posted.message_class, posted.data) for posted in sent}


def hostile(kind: str, data: bytes) -> list[bytes]:
    """Messages of a type that ask for more than they are."""
    wire = Wire.parse(data)
    url = element(1, (PACKAGE + kind).encode())
    first = min(wire.fields)
    return [
        b"",
        data[:-1],
        bytes(256 * 1024),
        b"\x0a\xff\xff\xff\xff\x0f" + bytes(100),
        url + b"\x12" + varint(2**63) + bytes(100),
        url + element(2, varint(first << 3 | 2) + varint(2**40)),
        url + element(2, element(first, b"\1") * 5000),
        url + element(2, element(first, bytes(200_000))),
        url + element(2, element(99, bytes(200_000))),
        Wire(kind, {number: [bytes(1024)] * len(parts) for number, parts in wire.fields.items()}).encode(),
    ]


def test_memory_is_what_messages_justify(measure: Callable[[Sequence[Case]], list[Cost]], recorded: Recorded) -> None:
    signing = said(dict(seat_signing(recorded(V2, 2, 2), (1, 2), DIGEST)))
    keygen = said(dict(seat_keygen(V2, 2, 2)))
    # In a keygen of two, the first message completes a round: that is the other test's case.
    honest = [
        *(Case(keygen=False, messages=[message]) for message in signing.values()),
        *(Case(keygen=True, messages=[keygen[kind]]) for kind in list(keygen)[1:]),
    ]
    bent = [
        Case(keygen, [(message_class, data)])
        for keygen, messages in ((False, signing), (True, keygen))
        for kind, (message_class, whole) in messages.items()
        for data in hostile(kind, whole)
        if len(data) <= 256 * 1024 and (kind != "keygen.KGRound1Message" or len(data) < 200_000)
    ]
    cases = [*honest, *bent]
    costs = measure(cases)
    assert {cost.status for cost in costs[: len(honest)]} == {TAKEN}
    assert {cost.status for cost in costs[len(honest) :]} == {TAKEN, FAULT}
    for case, cost in zip(cases, costs, strict=True):
        assert cost.heap <= HEAP
        assert cost.arena <= len(case.last) + BLOCK
        assert cost.arena == 0 if cost.status == FAULT else cost.arena >= len(case.last)


def test_a_round_of_hostile_messages_takes_no_more_than_one_of_honest_ones(
    measure: Callable[[Sequence[Case]], list[Cost]], recorded: Recorded
) -> None:
    signing = said(dict(seat_signing(recorded(V2, 2, 2), (1, 2), DIGEST)))
    keygen = said(dict(seat_keygen(V2, 2, 2)))
    ask, commit = (signing[f"signing.SignRound1Message{k}"] for k in (1, 2))
    first = keygen["keygen.KGRound1Message"]

    wire = Wire.parse(ask[1])
    swollen = Wire(wire.type, {number: [b"\xff" * 1024] * len(parts) for number, parts in wire.fields.items()})
    honest = [Case(keygen=False, messages=[commit, ask]), Case(keygen=True, messages=[first])]
    bent = [
        Case(keygen=False, messages=[commit, (ask[0], swollen.encode())]),
        Case(keygen=True, messages=[(first[0], Wire.parse(first[1]).with_number(3, (1 << 2048) - 1).encode())]),
    ]
    good, bad = measure(honest), measure(bent)
    assert {cost.status for cost in good} == {TAKEN}
    assert good[1].heap > 64 * 1024  # tables of powers, for dln: that they are seen shows that all would be
    assert {cost.status for cost in bad} == {FAULT}
    for less, more in zip(bad, good, strict=True):
        assert less.heap <= more.heap + HEAP
        assert less.arena <= more.arena + BLOCK
