"""The C against vectors that it had no part in."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.tss_cffi import seeded
from tests.tss_cffi.channel import independent as wire
from tests.tss_cffi.channel.seats import State, channel
from tests.tss_cffi.seeded import core
from tests.vectors.channel import generate

if TYPE_CHECKING:
    from collections.abc import Iterator

CEREMONY: Final[dict[str, Any]] = json.loads((generate.HERE / "ceremony.json").read_text(encoding="utf-8"))
REFUSED: Final[dict[str, Any]] = json.loads((generate.HERE / "refused.json").read_text(encoding="utf-8"))
TERMS: Final[dict[str, Any]] = CEREMONY["terms"]
SEATS: Final[dict[int, dict[str, Any]]] = {entry["seat"]: entry for entry in CEREMONY["seats"]}
COMMITTEE: Final = tuple((seat, party_id) for seat, party_id in TERMS["committee"])
IDENTITIES: Final = {seat: bytes.fromhex(entry["identity"]) for seat, entry in SEATS.items()}


def opened(seat: int) -> channel.Channel:
    """A channel whose ephemeral keys are the vector's; started."""
    stated = channel.Ceremony(
        kind="sign",
        session=bytes.fromhex(TERMS["session"]),
        protocol=core.Protocol.GG18_V2,
        committee=COMMITTEE,
        threshold=TERMS["threshold"],
        own_seat=seat,
        public_key=bytes.fromhex(TERMS["public_key"]),
        digest=bytes.fromhex(TERMS["digest"]),
        generation=TERMS["generation"],
    )
    seeded.randomness(bytes.fromhex(SEATS[seat]["seed"]))
    made = channel.Channel(stated, IDENTITIES)
    seeded.randomness(None)
    assert made.hello_digest.hex() == SEATS[seat]["hello_digest"]
    made.start(bytes.fromhex(SEATS[seat]["hello"])[-wire.SIGNATURE :])
    return made


def met(seat: int) -> channel.Channel:
    """A channel that has all hellos and readies."""
    made = opened(seat)
    for kind in ("hello", "ready"):
        for other in SEATS.keys() - {seat}:
            made.receive(bytes.fromhex(SEATS[other][kind]), 0)
    assert made.state is State.AGREED
    return made


@pytest.fixture(params=SEATS, ids=lambda seat: f"seat {seat}")
def seat(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture
def met_channel(seat: int) -> Iterator[channel.Channel]:
    with met(seat) as made:
        yield made


def test_the_generator_still_makes_them() -> None:
    assert json.loads(json.dumps(generate.ceremony())) == CEREMONY
    assert json.loads(json.dumps(generate.refused())) == REFUSED


def test_hello(seat: int) -> None:
    with opened(seat) as made:
        assert [frame.data.hex() for frame in made.outgoing()] == [SEATS[seat]["hello"]]


def test_transcript_and_ready(met_channel: channel.Channel, seat: int) -> None:
    assert met_channel.transcript.hex() == CEREMONY["transcript"]
    readies = {frame.to: frame.data.hex() for frame in met_channel.outgoing() if frame.data[1] == wire.READY}
    assert readies == dict.fromkeys(SEATS.keys() - {seat}, SEATS[seat]["ready"])
    assert met_channel.drops() == {}


def test_sealed_frames_open(met_channel: channel.Channel, seat: int) -> None:
    """In any order: each is genuine, so each counts, and waits for the party."""
    frames = [entry for entry in CEREMONY["frames"] if entry["to"] == seat]
    steps = met_channel.progress().steps
    for entry in reversed(frames):
        met_channel.receive(bytes.fromhex(entry["frame"]), 0)
    assert met_channel.drops() == {}
    assert met_channel.progress().steps == steps + len(frames)


def test_confirmations(seat: int) -> None:
    statement = bytes.fromhex(SEATS[seat]["confirmation_of_a_keygen"])
    stated = channel.read_confirmation(statement, IDENTITIES[seat])
    assert stated.committee.hex() == CEREMONY["committee_digest"]
    assert stated.committee == channel.committee_digest(COMMITTEE, TERMS["threshold"], IDENTITIES)
    assert (stated.kind, stated.protocol.label, stated.seat, stated.generation) == ("keygen", "gg18-v3", seat, 0)
    assert stated.transcript.hex() == CEREMONY["transcript"]
    body = statement[: -wire.SIGNATURE]
    assert channel.confirmation_digest(body) == wire.digest_of(body)
    everybody = [bytes.fromhex(entry["confirmation_of_a_keygen"]) for entry in SEATS.values()]
    assert channel.confirmed_by(body, everybody, IDENTITIES) == SEATS.keys()


def test_notices(seat: int) -> None:
    notice = channel.read_abort(bytes.fromhex(SEATS[seat]["abort"]), IDENTITIES[seat])
    assert notice == (bytes.fromhex(TERMS["session"]), seat, dict(COMMITTEE)[seat], "test", (1, 4) if seat == 2 else ())


@pytest.mark.parametrize("case", REFUSED["cases"], ids=lambda case: f"refused.json::{case['name']}")
def test_single_frames(case: dict[str, Any]) -> None:
    with opened(1) as made:
        for kind in ("hello", "ready"):
            for other in (2, 4):
                if not (kind == "ready" and case["name"] == "ready-signature" and other == 2):
                    made.receive(bytes.fromhex(SEATS[other][kind]), 0)
        steps = made.progress().steps
        made.receive(bytes.fromhex(case["frame"]), 0)
        assert made.drops() == ({case["drop"]: 1} if case["drop"] else {})
        assert made.progress().steps == steps + (not case["drop"])
        fault = made.fault()
        assert (fault.reason if fault else "") == case["fault"]
        if fault is not None:
            assert fault.culprits == tuple(case["culprits"])
