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

REFUSED: Final[dict[str, Any]] = json.loads((generate.HERE / "refused.json").read_text(encoding="utf-8"))


class Vector:
    """A ceremony's file."""

    def __init__(self, name: str) -> None:
        self.content: dict[str, Any] = json.loads((generate.HERE / f"{name}.json").read_text(encoding="utf-8"))
        self.terms: dict[str, Any] = self.content["terms"]
        self.seats: dict[int, dict[str, Any]] = {entry["seat"]: entry for entry in self.content["seats"]}
        self.committee = tuple((seat, party_id) for seat, party_id in self.terms["committee"])
        self.identities = {seat: bytes.fromhex(entry["identity"]) for seat, entry in self.seats.items()}

    def opened(self, seat: int) -> channel.Channel:
        """A channel whose ephemeral keys are the vector's; started."""
        stated = channel.Ceremony(
            kind="sign",
            session=bytes.fromhex(self.terms["session"]),
            protocol=core.Protocol.GG18_V2,
            committee=self.committee,
            threshold=self.terms["threshold"],
            own_seat=seat,
            public_key=bytes.fromhex(self.terms["public_key"]),
            digest=bytes.fromhex(self.terms["digest"]),
            generation=self.terms["generation"],
        )
        seeded.randomness(bytes.fromhex(self.seats[seat]["seed"]))
        made = channel.Channel(stated, self.identities)
        seeded.randomness(None)
        assert made.hello_digest.hex() == self.seats[seat]["hello_digest"]
        made.start(bytes.fromhex(self.seats[seat]["hello"])[-wire.SIGNATURE :])
        return made

    def met(self, seat: int) -> channel.Channel:
        """A channel that has all hellos and readies."""
        made = self.opened(seat)
        for kind in ("hello", "ready"):
            for other in self.seats.keys() - {seat}:
                made.receive(bytes.fromhex(self.seats[other][kind]), 0)
        assert made.state is State.AGREED
        return made


CEREMONY: Final = Vector("ceremony")
TWO: Final = Vector("two")


@pytest.fixture(
    params=[(vector, seat) for vector in (CEREMONY, TWO) for seat in vector.seats],
    ids=lambda place: f"{len(place[0].seats)} parties, seat {place[1]}",
)
def place(request: pytest.FixtureRequest) -> tuple[Vector, int]:
    at: tuple[Vector, int] = request.param
    return at


@pytest.fixture
def vector(place: tuple[Vector, int]) -> Vector:
    return place[0]


@pytest.fixture
def seat(place: tuple[Vector, int]) -> int:
    return place[1]


@pytest.fixture
def met_channel(vector: Vector, seat: int) -> Iterator[channel.Channel]:
    with vector.met(seat) as made:
        yield made


def test_the_generator_still_makes_them() -> None:
    assert json.loads(json.dumps(generate.ceremony(generate.TERMS))) == CEREMONY.content
    assert json.loads(json.dumps(generate.ceremony(generate.TWO))) == TWO.content
    assert json.loads(json.dumps(generate.refused())) == REFUSED


def test_hello(vector: Vector, seat: int) -> None:
    with vector.opened(seat) as made:
        assert [frame.data.hex() for frame in made.outgoing()] == [vector.seats[seat]["hello"]]


def test_transcript_and_ready(met_channel: channel.Channel, vector: Vector, seat: int) -> None:
    assert met_channel.transcript.hex() == vector.content["transcript"]
    readies = {frame.to: frame.data.hex() for frame in met_channel.outgoing() if frame.data[1] == wire.READY}
    assert readies == dict.fromkeys(vector.seats.keys() - {seat}, vector.seats[seat]["ready"])
    assert met_channel.drops() == {}


def test_sealed_frames_open(met_channel: channel.Channel, vector: Vector, seat: int) -> None:
    """In any order: each is genuine, so each counts, and waits for the party."""
    frames = [entry for entry in vector.content["frames"] if entry["to"] == seat]
    steps = met_channel.progress().steps
    for entry in reversed(frames):
        met_channel.receive(bytes.fromhex(entry["frame"]), 0)
    assert met_channel.drops() == {}
    assert met_channel.progress().steps == steps + len(frames)


def test_confirmations(vector: Vector, seat: int) -> None:
    statement = bytes.fromhex(vector.seats[seat]["confirmation_of_a_keygen"])
    stated = channel.read_confirmation(statement, vector.identities[seat])
    assert stated.committee.hex() == vector.content["committee_digest"]
    assert stated.committee == channel.committee_digest(vector.committee, vector.terms["threshold"], vector.identities)
    assert (stated.kind, stated.protocol.label, stated.seat, stated.generation) == ("keygen", "gg18-v3", seat, 0)
    assert stated.transcript.hex() == vector.content["transcript"]
    body = statement[: -wire.SIGNATURE]
    assert channel.confirmation_digest(body) == wire.digest_of(body)
    everybody = [bytes.fromhex(entry["confirmation_of_a_keygen"]) for entry in vector.seats.values()]
    assert channel.confirmed_by(body, everybody, vector.identities) == vector.seats.keys()


def test_notices(vector: Vector, seat: int) -> None:
    notice = channel.read_abort(bytes.fromhex(vector.seats[seat]["abort"]), vector.identities[seat])
    session, party_id = bytes.fromhex(vector.terms["session"]), dict(vector.committee)[seat]
    assert notice == (session, seat, party_id, "test", (1, 4) if seat == 2 else ())


@pytest.mark.parametrize("case", REFUSED["cases"], ids=lambda case: f"refused.json::{case['name']}")
def test_single_frames(case: dict[str, Any]) -> None:
    with CEREMONY.opened(1) as made:
        for kind in ("hello", "ready"):
            for other in (2, 4):
                if not (kind == "ready" and case["name"].startswith("ready-") and other == 2):
                    made.receive(bytes.fromhex(CEREMONY.seats[other][kind]), 0)
        steps = made.progress().steps
        made.receive(bytes.fromhex(case["frame"]), 0)
        assert made.drops() == ({case["drop"]: 1} if case["drop"] else {})
        assert made.progress().steps == steps + (not case["drop"])
        fault = made.fault()
        assert (fault.reason if fault else "") == case["fault"]
        if fault is not None:
            assert fault.culprits == tuple(case["culprits"])
