"""A router that does whatever it can, in every round of keygen and signing, against real daemons.

All sessions are under way at once, each under a script of its own. What can be made good by sending again ends well;
what is withheld for good ends within the deadline. Nobody is blamed for what the router did.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import pytest
import trio

from localnet.__main__ import openssl_verify
from localnet.router import corrupt
from tests.end_to_end import prepared
from tests.end_to_end.hostile import (
    KINDS,
    Arena,
    End,
    Ends,
    Once,
    Withhold,
    all_rounds,
    arena_of,
    blames_nobody,
    is_in_time,
    is_told,
    patched,
    place_of,
    read_logs,
)
from tests.end_to_end.running import PARTIES
from tests.interop import vectors
from tests.tss_cffi.channel import independent as channel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from localnet.router import Delivery, Router
    from tests.end_to_end.hostile import Place

    Deed = Callable[[Delivery], Iterable[Delivery]]

VICTIM: Final = PARTIES[1]
STRANGER: Final = "mallory-server"
SIGNING_ROUNDS: Final = 9
KEYGEN_ROUNDS: Final = 3
"""In which it says something; in the fourth it only computes."""
SESSION, FROM, PROFILE = 2, 18, 23
"""Where they are in a frame; PROFILE in a hello."""
DEEDS: Final = (
    "change",
    "drop",
    "delay",
    "repeat",
    "replay",
    "inject",
    "redirect",
    "split",
    "swap",
    "downgrade",
    "impersonate",
    "disconnect",
)


FIRST: Final = "keygen, all deeds in turn"
SECOND: Final = "keygen, all deeds in turn, confirmations held back"


class Repertoire:
    """What the router can do to a frame. yesterday: frames of a session that is over, by their place."""

    def __init__(self, router: Router, yesterday: dict[Place, bytes]) -> None:
        self._router = router
        self._yesterday = yesterday
        self._dice = random.Random(6)  # which bits change
        self._flip = corrupt(self._dice, 1)
        self._turn = itertools.count()

    def deed(self, name: str) -> Deed:
        return getattr(self, name)  # type: ignore[no-any-return]  # one of the methods below

    def change(self, frame: Delivery) -> Iterable[Delivery]:
        """In any one bit; the frame itself is lost."""
        return self._flip(frame)

    def drop(self, _: Delivery) -> Iterable[Delivery]:
        return ()

    def delay(self, frame: Delivery) -> Iterable[Delivery]:
        """Each for a time of its own: they overtake one another."""
        return (replace(frame, delay=self._dice.uniform(0, 1.5)),)

    def repeat(self, frame: Delivery) -> Iterable[Delivery]:
        return (frame, frame, replace(frame, delay=0.3), replace(frame, delay=2))

    def replay(self, frame: Delivery) -> Iterable[Delivery]:
        """What was said at this place another day, as it was and under today's session; then the frame."""
        old = self._yesterday[place_of(frame)]
        replayed = replace(frame, payload=old)
        return (replayed, patched(replayed, SESSION, frame.payload[SESSION:FROM]), frame)

    def inject(self, frame: Delivery) -> Iterable[Delivery]:
        """A frame that nobody said, in somebody's name, and something that is no frame; then the frame."""
        session, turn = frame.payload[SESSION:FROM], next(self._turn)
        kind, seat = (*KINDS, 9)[turn % 8], (0, 1, 2, 3, 9)[turn % 5]
        texts = ("{", "[" * 5000, '{"from_party": 1}', '{"from_party": "x-y", "payload": "%"}', b"\xff\xfe")
        self._router.throw(frame.session_id, frame.to_party, texts[turn % 5])
        payloads = (
            channel.header(kind, session, seat) + self._dice.randbytes(90),
            channel.ack(session, seat, 1 + turn % 3, (0, 1, 2**63)[turn % 3]),
            (b"\0", self._dice.randbytes(100), bytes(288 * 1024))[0 if turn % 20 else turn // 20 % 3],
        )
        return (*(replace(frame, payload=payload) for payload in payloads), frame)

    def redirect(self, frame: Delivery) -> Iterable[Delivery]:
        """To the one whom it is not for."""
        return (replace(frame, to_party=self._third(frame)),)

    def split(self, frame: Delivery) -> Iterable[Delivery]:
        """One receiver gets what was said to all, the other gets it not, or the first one's copy."""
        if frame.to_party == min(set(PARTIES) - {frame.from_party}):
            return (frame, replace(frame, to_party=self._third(frame)))
        return ()

    def swap(self, frame: Delivery) -> Iterable[Delivery]:
        """In the name of the third, outside and inside; the frame itself is lost."""
        other = self._third(frame)
        renamed = replace(frame, from_party=other)
        return (renamed, patched(renamed, FROM, (PARTIES.index(other) + 1).to_bytes(4)))

    def downgrade(self, frame: Delivery) -> Iterable[Delivery]:
        """To other versions, and in a hello to another profile; the frame itself is lost."""
        versions = (patched(frame, 0, bytes([version])) for version in (0, 2, 255))
        return (*versions, *(patched(frame, PROFILE, bytes([profile])) for profile in (0, 1, 3)))

    def impersonate(self, frame: Delivery) -> Iterable[Delivery]:
        """From a party that nobody knows, outside and inside; the frame itself, too, comes in its name."""
        renamed = replace(frame, from_party=STRANGER, round_number=99, is_broadcast=not frame.is_broadcast)
        return (patched(renamed, FROM, (9).to_bytes(4)), renamed)

    def disconnect(self, frame: Delivery) -> Iterable[Delivery]:
        """Whoever is to get it is cut off, at the latest when it has it."""
        self._router.disconnect(frame.session_id, frame.to_party)
        return (frame,)

    @staticmethod
    def _third(frame: Delivery) -> str:
        (other,) = set(PARTIES) - {frame.from_party, frame.to_party}
        return other


class InTurn:
    """One deed after the other, so that in each round each frame suffers another one. done: which, where."""

    def __init__(self, repertoire: Repertoire, first: int) -> None:
        self.done: dict[tuple[str, int], Counter[str]] = {}
        self._repertoire = repertoire
        self._first = first

    def __call__(self, frame: Delivery) -> Iterable[Delivery]:
        kind, number, _, _ = place_of(frame)
        done = self.done.setdefault((kind, number), Counter())
        name = DEEDS[(self._first + done.total()) % len(DEEDS)]
        done[name] += 1
        return self._repertoire.deed(name)(frame)


@pytest.fixture(scope="module")
def network(arena: None) -> Iterator[Arena]:  # noqa: ARG001  of the core that seals the recorded pre-parameters
    with arena_of(sets=8) as made:
        yield made


def message_hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def recorded(network: Arena, session_id: str) -> dict[Place, bytes]:
    """What was said in a session, by place; who was to hear it is worked out from the frame's own fields."""
    found: dict[Place, bytes] = {}
    for frame in network.capture.frames[session_id]:
        kind = KINDS[frame.payload[1]]
        for receiver in frame.to_parties or PARTIES:
            if receiver != frame.from_party:
                found[kind, frame.round_number, frame.from_party, receiver] = frame.payload
    return found


class Yesterday(dict["Place", bytes]):
    """Frames of sessions that are over; where nothing was said, somebody's hello."""

    def __missing__(self, place: Place) -> bytes:
        return self["hello", 0, PARTIES[0], PARTIES[1]]


SIGNING_STEPS: Final = [("hello", 0), ("ready", 0), *(("sealed", number) for number in range(1, SIGNING_ROUNDS + 1))]
KEYGEN_STEPS: Final = SIGNING_STEPS[: 2 + KEYGEN_ROUNDS]


@dataclass
class Storm:
    """How the sessions ended, what was struck where, and what a keygen suffered."""

    ends: dict[str, Ends] = field(default_factory=dict)
    struck: dict[str, Once] = field(default_factory=dict)
    turns: list[InTurn] = field(default_factory=list)


class HoldsBack:
    """Holds every confirmation back until it relents; what comes before goes through another script."""

    def __init__(self, script: Deed) -> None:
        self.relents = False
        self.all_are_held = trio.Event()
        self._script = script
        self._held: set[str] = set()

    def __call__(self, frame: Delivery) -> Iterable[Delivery]:
        if self.relents or place_of(frame)[0] != "confirm":
            return self._script(frame)
        self._held.add(frame.from_party)
        if self._held == set(PARTIES):
            self.all_are_held.set()
        return ()


@pytest.fixture(scope="module")
def storm(network: Arena) -> Storm:
    """Every session of this module, side by side; then a keygen more, for the pools' sets are the same ones."""
    storm = Storm()

    async def signing(name: str, script: Deed) -> None:
        storm.ends[name] = await network.signing(message_hash(name), script)

    async def keygen(name: str, script: Deed) -> None:
        storm.ends[name] = await network.keygen(script)

    def in_turn(repertoire: Repertoire, name: str, first: int) -> Once:
        storm.turns.append(InTurn(repertoire, first))
        storm.struck[name] = Once(storm.turns[-1])
        return storm.struck[name]

    async def attack() -> None:
        calm = await network.signing(message_hash("another day"))
        (session,) = {end.session["sessionId"] for end in calm.values()}
        of_signing = Repertoire(network.router, Yesterday(recorded(network, session)))
        of_keygen = Repertoire(network.router, Yesterday(recorded(network, network.keygen_session)))
        few = trio.CapacityLimiter(4)

        async def bear(deed: str) -> None:
            async with few:
                await signing(deed, storm.struck[deed])

        with trio.fail_after(600):
            async with trio.open_nursery() as waiting:
                async with trio.open_nursery() as nursery:
                    for kind, number in SIGNING_STEPS:
                        script = Withhold(VICTIM, kind, number)
                        nursery.start_soon(signing, f"signing without {kind} {number}", script)
                    for kind, number in KEYGEN_STEPS:
                        script = Withhold(VICTIM, kind, number)
                        # Who has not spoken yet may be searching for primes, and is waited for.
                        among = waiting if kind == "hello" else nursery
                        among.start_soon(keygen, f"keygen without {kind} {number}", script)
                    for deed in DEEDS:
                        storm.struck[deed] = Once(of_signing.deed(deed))
                        nursery.start_soon(bear, deed)
                await trio.to_thread.run_sync(network.refill)
                await keygen(FIRST, in_turn(of_keygen, FIRST, 0))
                await trio.to_thread.run_sync(network.refill)
                holds_back = HoldsBack(in_turn(of_keygen, SECOND, len(DEEDS) // 2))
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(keygen, SECOND, holds_back)
                    await holds_back.all_are_held.wait()
                    for party in network.net.parties.values():
                        async with party.client() as client:
                            (share,) = (await client.get("/mpc-party/shares?status=pending")).json()["shares"]
                            assert share["partyId"] == party.party_id
                    holds_back.relents = True

    network.running.call(attack)
    read_logs(network.net, storm.ends.values())
    return storm


def signature_of(ends: Ends) -> str:
    (signature,) = {end.session["signature"] for end in ends.values()}
    return str(signature)


@pytest.mark.parametrize("deed", DEEDS)
def test_a_signing_bears_it_in_every_round(network: Arena, storm: Storm, deed: str) -> None:
    ends = storm.ends[deed]
    assert {party: (end.status, end.reason) for party, end in ends.items()} == dict.fromkeys(PARTIES, ("completed", ""))
    struck = storm.struck[deed].struck
    # Whoever has the signature from one peer's confirmation no longer needs the last message of another.
    last = {place for place in all_rounds(SIGNING_ROUNDS) if place[:2] == ("sealed", SIGNING_ROUNDS)}
    assert struck >= all_rounds(SIGNING_ROUNDS) - last
    assert struck & last
    blames_nobody(ends)
    is_in_time(ends, "signing")
    assert openssl_verify(network.public_key, signature_of(ends), deed.encode()) == "Verified OK"


@pytest.mark.parametrize("step", SIGNING_STEPS, ids=lambda step: f"{step[0]}-{step[1]}")
def test_a_signing_without_a_word_of_one_party_ends_in_time(storm: Storm, step: tuple[str, int]) -> None:
    ends = storm.ends[f"signing without {step[0]} {step[1]}"]
    ends_in_time(ends, "signing")
    # What leaves last in a signing is the victim's own last message: it alone has the signature then.
    assert (ends[VICTIM].status == "completed") == (step == ("sealed", SIGNING_ROUNDS))
    if step == ("hello", 0):
        for party, end in ends.items():
            assert party == VICTIM or not {"nonce_spent", "round"} & set(end.names), "no share is opened"


@pytest.mark.parametrize("step", KEYGEN_STEPS, ids=lambda step: f"{step[0]}-{step[1]}")
def test_a_keygen_without_a_word_of_one_party_ends_in_time(storm: Storm, step: tuple[str, int]) -> None:
    ends = storm.ends[f"keygen without {step[0]} {step[1]}"]
    ends_in_time(ends, "keygen")


def ends_in_time(ends: Ends, kind: str) -> None:
    blames_nobody(ends)
    is_in_time(ends, kind)
    others = [end for party, end in ends.items() if party != VICTIM]
    for end in others:
        assert end.status in {"failed", "timeout"}
    for end in ends.values():
        if end.status != "completed":
            assert end.reason in {"overdue", "aborted"}
            is_told(end)
    assert any(names_the_silent(end) for end in others)


def names_the_silent(end: End) -> bool:
    return end.reason == "overdue" and VICTIM in end.message


@pytest.mark.parametrize("name", [FIRST, SECOND])
def test_a_keygen_bears_them_all(storm: Storm, name: str) -> None:
    ends = storm.ends[name]
    assert {end.status for end in ends.values()} == {"completed"}
    assert len({end.session["publicKey"] for end in ends.values()}) == 1
    assert storm.struck[name].struck >= all_rounds(KEYGEN_ROUNDS)
    blames_nobody(ends)
    is_in_time(ends, "keygen")


def test_every_deed_was_done_in_every_round_of_a_keygen(storm: Storm) -> None:
    for step in KEYGEN_STEPS:
        assert {name for turn in storm.turns for name in turn.done[step]} == set(DEEDS)


def needles(network: Arena, public_key: str) -> dict[str, bytes]:
    """What a protocol message of this keygen says, and what the parties keep to themselves."""
    found = {"type": b"tsslib", "package": b"type.googleapis.com"}

    def walk(name: str, value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{name}.{key}", inner)
        elif isinstance(value, list):
            for place, inner in enumerate(value):
                walk(f"{name}.{place}", inner)
        elif isinstance(value, int) and value.bit_length() > 64:
            found[name] = value.to_bytes((value.bit_length() + 7) // 8)

    for seat, party in enumerate(network.net.parties.values(), start=1):
        walk(f"pre-parameters {seat}", vectors.pre_parameters()[seat - 1])
        walk(f"share {seat}", prepared.secrets_of(party, public_key))
    return found


def test_captured_traffic_holds_no_plaintext_and_no_secret(network: Arena, storm: Storm) -> None:
    """Of the keygen of the key, whose shares are opened for this; then of every session of the storm."""
    wanted = needles(network, network.public_key)
    assert {"share 1.Xi", "share 2.PaillierSK.P", "pre-parameters 3.NTildei", "share 1.BigXj.1.Coords.0"} <= set(wanted)
    for session_id, frames in network.capture.frames.items():
        told = b"".join(frame.payload for frame in frames)
        seen = {name for name, needle in wanted.items() for form in forms(needle) if form in told}
        of_key = {name for name in wanted if "ECDSAPub" in name}  # a signing's hellos name the key
        assert seen <= (set() if session_id == network.keygen_session else of_key)
        assert {KINDS[frame.payload[1]] for frame in frames} <= set(KINDS.values())
    assert len(network.capture.frames) > len(storm.ends)


def forms(needle: bytes) -> tuple[bytes, ...]:
    return needle, needle[::-1], needle.hex().encode(), str(int.from_bytes(needle)).encode()


def test_the_next_ceremonies_work(network: Arena, storm: Storm) -> None:
    del storm
    network.signs()
    network.refill()
    ends = network.running.call(network.keygen)
    assert {end.status for end in ends.values()} == {"completed"}
    for party in PARTIES:
        with network.running.client(party) as client:
            assert client.post("/mpc-party/audit/verify").json()["whole"] is True
            assert client.get("/mpc-party/ready").json()["ready"] is True
