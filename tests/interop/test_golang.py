"""Go parties among themselves: the harness carries what tss-lib says, and blames whom tss-lib blames."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.exceptions import InvalidSignature

from tests.interop import golang, record, vectors
from tests.interop.committee import Letter, hold
from tests.interop.independent import verify

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.interop.golang import GoParties, GoSeat

pytestmark = pytest.mark.interop

DIGEST = bytes.fromhex("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")
MESSAGE = int.from_bytes(DIGEST)


def keygen(parties: GoParties, t: int, keys: Sequence[int], nonce: int | None = None) -> list[dict[str, Any]]:
    sets = vectors.pre_parameters()
    seats = [parties.keygen(key, keys, t, sets[i], nonce=nonce) for i, key in enumerate(keys)]
    hold(seats)
    saves = [seat.save for seat in seats if seat.save is not None]
    assert len(saves) == len(keys)
    return saves


def sign(parties: GoParties, t: int, saves: Sequence[dict[str, Any]], nonce: int | None = None) -> golang.GoSignature:
    keys = [save["ShareID"] for save in saves]
    seats = [parties.signing(key, keys, t, save, MESSAGE, nonce=nonce) for key, save in zip(keys, saves, strict=True)]
    hold(seats)
    (signature,) = {seat.signature for seat in seats}
    assert signature is not None
    return signature


def test_the_modules_are_the_released_ones(go_parties: GoParties) -> None:
    origin = go_parties.origin()
    number = go_parties.profile.removeprefix("gg18-v")
    assert origin["module"] == f"github.com/bnb-chain/tss-lib/v{number}"
    assert origin["version"] == {"2": "v2.0.2", "3": "v3.0.0"}[number]
    assert not origin["replaced"]
    assert origin["sum"] == vectors.load(f"{go_parties.profile}-hash")["origin"]["sum"]


def test_both_programs_are_the_same_but_for_the_transcript() -> None:
    for name in ("library.go", "vectors.go"):
        v2 = (golang.SOURCE / "gg18v2" / name).read_text()
        v3 = (golang.SOURCE / "gg18v3" / name).read_text()
        swapped = re.sub(r"gg18v2 seats parties of tss-lib v2", "gg18v3 seats parties of tss-lib v3", v2)
        assert swapped.replace("tss-lib/v2", "tss-lib/v3") == v3


def test_signing(go_parties: GoParties) -> None:
    saves = vectors.saves(go_parties.profile, 2, 3)
    for chosen in ((0, 2), (0, 1, 2)):
        signature = sign(go_parties, 2, [saves[i] for i in chosen])
        verify(saves[0], DIGEST, signature.rs, signature.recovery_id)
        assert signature.message == DIGEST
    with pytest.raises(InvalidSignature):
        verify(saves[0], DIGEST[::-1], signature.rs, signature.recovery_id)


def test_session_nonces_are_bound_in_v3_and_unknown_to_v2(go_parties: GoParties) -> None:
    saves = vectors.saves(go_parties.profile, 2, 2)
    if go_parties.profile == "gg18-v2":
        with pytest.raises(golang.GoRefused, match="no session nonce"):
            sign(go_parties, 2, saves, nonce=7)
        return
    fresh = keygen(go_parties, 2, [1, 2], nonce=1 << 255)
    signature = sign(go_parties, 2, fresh, nonce=7)
    verify(fresh[0], DIGEST, signature.rs, signature.recovery_id)
    seats = [go_parties.signing(i, [1, 2], 2, saves[i - 1], MESSAGE, nonce=i) for i in (1, 2)]
    hold(seats)
    assert [seat.fault and seat.fault.culprits for seat in seats] == [(2,) * 2, (1,) * 2]


def test_the_recorded_keygen_comes_out_again(go_parties: GoParties) -> None:
    told, saves = record.keygen(go_parties, 2, 2)
    recorded = vectors.load(f"{go_parties.profile}-keygen-2-of-2")
    assert told["messages"] == recorded["messages"]
    assert saves == vectors.saves(go_parties.profile, 2, 2)


class Tampering:
    """A Go signer with one flipped bit in the messages of one type."""

    def __init__(self, seat: GoSeat, name: str) -> None:
        self.key = seat.key
        self.receive = seat.receive
        self._seat = seat
        self._name = name

    def outgoing(self) -> list[Letter]:
        return [self._spoil(letter) if letter.type == self._name else letter for letter in self._seat.outgoing()]

    @staticmethod
    def _spoil(letter: Letter) -> Letter:
        return letter._replace(payload=letter.payload[:-1] + bytes([letter.payload[-1] ^ 1]))


@pytest.mark.parametrize(
    ("name", "at", "culprits"),
    [
        ("SignRound1Message1", 2, (1, 1)),
        ("SignRound2Message", 3, (1,)),
        ("SignRound4Message", 5, (1,)),
        ("SignRound8Message", 9, (1,)),
        ("SignRound9Message", 10, ()),
    ],
)
def test_tss_lib_blames(go_parties: GoParties, name: str, at: int, culprits: tuple[int, ...]) -> None:
    saves = vectors.saves(go_parties.profile, 2, 2)
    seats = [go_parties.signing(key, [1, 2], 2, saves[key - 1], MESSAGE) for key in (1, 2)]
    hold([Tampering(seats[0], name), seats[1]])
    fault = seats[1].fault
    assert fault is not None
    assert (fault.round, fault.culprits) == (at, culprits)
    assert seats[1].signature is None


def test_a_stranger_is_refused_by_tss_lib(go_parties: GoParties) -> None:
    saves = vectors.saves(go_parties.profile, 2, 3)
    seat = go_parties.signing(1, [1, 2], 2, saves[0], MESSAGE)
    stranger = go_parties.signing(3, [1, 3], 2, saves[2], MESSAGE)
    seat.receive(3, stranger.outgoing()[0])
    assert seat.fault is not None
    assert seat.fault.culprits == (3,)


def test_a_panic_ends_the_process_and_is_told() -> None:
    with golang.GoParties("gg18-v2") as parties:
        seat = parties.signing(1, [1, 2], 2, vectors.saves("gg18-v2", 2, 2)[0], MESSAGE)
        assert seat.outgoing()
        with pytest.raises(golang.GoDied, match="unable to find a signer party"):
            parties.signing(1, [1, 9], 2, vectors.saves("gg18-v2", 2, 2)[0], MESSAGE)


def test_messages_come_in_the_order_of_sending(go_parties: GoParties) -> None:
    saves = vectors.saves(go_parties.profile, 2, 3)
    sent = go_parties.signing(2, [1, 2, 3], 2, saves[1], MESSAGE).outgoing()
    assert [(letter.to, letter.type) for letter in sent] == [
        (1, "SignRound1Message1"),
        (3, "SignRound1Message1"),
        (None, "SignRound1Message2"),
    ]
    assert not sent[0].broadcast
    assert sent[2].broadcast


def test_bench_measures_one_party_at_a_time(go_parties: GoParties) -> None:
    measured = golang.bench(go_parties.profile, "signing", 2, 3, 1)
    assert sorted(measured["rounds"]) == list(range(1, 11))
    assert len(measured["samples"]) == 2
    assert 0 < measured["cpu_ms"]["min"] <= measured["cpu_ms"]["median"] <= measured["cpu_ms"]["max"]
    assert measured["bytes"] > 2300 + 6800
