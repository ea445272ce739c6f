"""Ceremonies recorded with a tss-lib party, replayed without Go: our seeded seat says the same, byte for byte."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop import ours, vectors
from tests.interop.committee import Letter
from tests.interop.independent import public_key, verify
from tests.tss_cffi import seeded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.interop.ours import OurSeat

PROFILES = ("gg18-v2", "gg18-v3")


@pytest.fixture(autouse=True)
def _randomness() -> Iterator[None]:
    yield
    seeded.randomness(None)


def letters(recorded: dict[str, Any]) -> Iterator[tuple[int, Letter]]:
    for message in recorded["messages"]:
        payload = base64.b64decode(message["bytes"])
        yield message["from"], Letter(message["to"], message["broadcast"], "", payload)


def replay(seat: OurSeat, recorded: dict[str, Any]) -> None:
    """Feed the peer's messages in their order; our own must be the recorded ones."""
    said = seat.outgoing()
    expected = []
    for sender, letter in letters(recorded):
        if sender == seat.key:
            expected.append(letter)
        else:
            seat.receive(sender, letter)
            said += seat.outgoing()
    assert seat.fault is None, seat.fault
    assert said == expected


@pytest.mark.parametrize("profile", PROFILES)
def test_a_keygen_replays(profile: str) -> None:
    recorded = vectors.load(f"{profile}-mixed-keygen")
    seeded.randomness(bytes.fromhex(recorded["seed"]))
    seat = ours.keygen(profile, 1, recorded["keys"], recorded["t"], vectors.pre_parameters()[0])
    replay(seat, recorded)
    with seat.share() as share:
        assert seeded.export(share) == recorded["save"]
        assert share.info.public_key == public_key(recorded["peer_save"])


@pytest.mark.parametrize("profile", PROFILES)
def test_a_signing_replays(profile: str) -> None:
    recorded = vectors.load(f"{profile}-mixed-signing")
    digest = bytes.fromhex(recorded["digest"])
    with ours.load(profile, recorded["t"], recorded["save"]) as share:
        seeded.randomness(bytes.fromhex(recorded["seed"]))
        seat = ours.signing(1, recorded["keys"], share, digest)
    replay(seat, recorded)
    signature = seat.signature()
    seat.party.close()
    assert (signature.rs.hex(), signature.recovery_id) == (recorded["signature"], recorded["recovery_id"])
    verify(recorded["save"], digest, signature.rs, signature.recovery_id)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_changed_recording_is_noticed(profile: str) -> None:
    recorded = vectors.load(f"{profile}-mixed-signing")
    theirs = next(message for message in recorded["messages"] if message["from"] == 2 and message["broadcast"])
    payload = bytearray(base64.b64decode(theirs["bytes"]))
    payload[-1] ^= 1
    theirs["bytes"] = base64.b64encode(payload).decode()
    with ours.load(profile, recorded["t"], recorded["save"]) as share:
        seeded.randomness(bytes.fromhex(recorded["seed"]))
        seat = ours.signing(1, recorded["keys"], share, bytes.fromhex(recorded["digest"]))
    for sender, letter in letters(recorded):
        if sender == 2:
            seat.receive(sender, letter)
            seat.outgoing()
    assert seat.fault is not None
    assert (seat.fault.reason, seat.fault.culprits) == ("commitment", (2,))
