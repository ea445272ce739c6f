"""Sessions of a running network under attack, many at once, each under its own script; and what is told of them."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import trio

from tests.end_to_end.prepared import database, fill, forget_moduli
from tests.end_to_end.running import PARTIES, Running, running
from tests.tss_cffi.channel import independent as channel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from localnet.coordinator import Invitation
    from localnet.net import Net
    from localnet.party import Tables
    from localnet.router import Delivery, Frame, Router

SECONDS: Final = {"signing": 120.0, "keygen": 150.0}
STALL_SECONDS: Final = 30.0
GRACE_SECONDS: Final = 5.0
"""How far past its deadline a session may be written down as over."""
TABLES: Final[dict[str, dict[str, object]]] = {
    "service": {"drain_seconds": 1},
    "limits": {
        "signing_seconds": SECONDS["signing"],
        "keygen_seconds": SECONDS["keygen"],
        "stall_seconds": STALL_SECONDS,
        "sessions": 48,
        "keygens": 16,
    },
    "custodian": {"arena_mib": 24, "signings_per_minute": 10_000, "signings_per_hour": 100_000},
    "keygen": {"prepared": 1},
}
KINDS: Final = {
    channel.HELLO: "hello",
    channel.READY: "ready",
    channel.SEALED: "sealed",
    channel.ACK: "ack",
    channel.CONFIRM: "confirm",
    channel.ABORT: "abort",
    channel.BROADCAST: "broadcast",
}
Place = tuple[str, int, str, str]
"""Where a frame belongs: its kind, its round, who says it to whom."""


def place_of(delivery: Delivery) -> Place:
    return KINDS[delivery.payload[1]], delivery.round_number, delivery.from_party, delivery.to_party


def all_rounds(rounds: int, parties: Sequence[str] = PARTIES) -> set[Place]:
    """Every place of a ceremony but for confirmations, acks and notices."""
    pairs = [(one, other) for one in parties for other in parties if one != other]
    steps = [("hello", 0), ("ready", 0), *(("sealed", number) for number in range(1, rounds + 1))]
    return {(kind, number, one, other) for kind, number in steps for one, other in pairs}


@dataclass
class End:
    """How a session ended at one party: as the API, the journal and the log tell it."""

    session: dict[str, Any]
    steps: list[dict[str, Any]]
    logged: list[dict[str, Any]] = field(default_factory=list)

    @property
    def status(self) -> str:
        return str(self.session["status"])

    @property
    def reason(self) -> str:
        return str(self.session["reason"])

    @property
    def message(self) -> str:
        return str(self.session["errorMessage"])

    @property
    def names(self) -> list[str]:
        """The journal, by its steps."""
        return [step["step"] for step in self.steps]

    @property
    def seconds(self) -> float:
        began, over = (datetime.fromisoformat(self.session[name]) for name in ("startedAt", "completedAt"))
        return (over - began).total_seconds()


Ends = dict[str, End]


async def hold(net: Net, made: Invitation, kind: str, expected: Mapping[str, object]) -> Ends:
    """Ask every invited party to take part, and wait for the end at each. expected: of all, or by party id."""
    ends: Ends = {}
    usual = {name: value for name, value in expected.items() if name not in made.join_tokens}

    async def take_part(party: str, token: str) -> None:
        own = expected.get(party, usual)
        assert isinstance(own, dict)
        body = {"sessionId": made.session_id, "partyId": party, "joinToken": token, **own}
        async with net.parties[party].client() as client:
            answer = await client.post(f"/mpc-party/{kind}/participate", json=body)
            assert answer.status_code == 202, answer.text
            ends[party] = await followed(net, party, made.session_id)

    async with trio.open_nursery() as nursery:
        for party, token in made.join_tokens.items():
            nursery.start_soon(take_part, party, token)
    return ends


async def followed(net: Net, party: str, session_id: str) -> End:
    """Follow a session to its end."""
    path = f"/mpc-party/sessions/{session_id}"
    async with net.parties[party].client() as client:
        async with client.stream("GET", f"{path}/events", timeout=None) as stream:
            lines = [line async for line in stream.aiter_lines() if line.startswith("data: ")]
        steps = [json.loads(line.removeprefix("data: ")) for line in lines]
        return End((await client.get(path)).raise_for_status().json(), steps)


def read_logs(net: Net, many: Iterable[Ends]) -> None:
    """Give each end what its party's log has of the session."""
    lines: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name, party in net.parties.items():
        for line in party.log.read_text().splitlines():
            if line.startswith("{"):
                entry = json.loads(line)
                lines.setdefault((name, entry.get("session_id", "")), []).append(entry)
    for ends in many:
        for name, end in ends.items():
            end.logged = lines.get((name, end.session["sessionId"]), [])


def is_told(end: End) -> None:
    """A session that did not end well: API, journal and log say the same of it."""
    last = end.steps[-1]
    assert last["step"] == end.status
    assert last["detail"]["reason"] == end.reason != ""
    assert last["detail"]["message"] == end.message != ""
    assert last["detail"]["culprits"] == end.session["culprits"]
    assert {entry["problem"] for entry in end.logged if entry["event"] in {"session ended", "share given up"}} == {
        end.message
    }


def blames_nobody(ends: Ends) -> None:
    for end in ends.values():
        assert (end.session["culprits"], end.session["hearsay"]) == ([], []), end


def is_in_time(ends: Ends, kind: str) -> None:
    for end in ends.values():
        assert end.seconds <= SECONDS[kind] + GRACE_SECONDS


class Once:
    """Strikes each frame the first time that it is on its way to a receiver; sent again, it passes.

    Attributes:
        struck: Where it did.
    """

    def __init__(self, deed: Callable[[Delivery], Iterable[Delivery]]) -> None:
        self.struck: set[Place] = set()
        self._deed = deed
        self._seen: set[tuple[str, bytes]] = set()

    def __call__(self, delivery: Delivery) -> Iterable[Delivery]:
        key = (delivery.to_party, delivery.payload)
        if key in self._seen:
            return (delivery,)
        self._seen.add(key)
        self.struck.add(place_of(delivery))
        return self._deed(delivery)


class Withhold:
    """Nothing that is said at a place, or after it, reaches anybody. `places`: kind and round, in their order."""

    def __init__(self, victim: str, kind: str, number: int) -> None:
        self.victim = victim
        self._order = [("hello", 0), ("ready", 0), *(("sealed", each) for each in range(1, 10)), ("confirm", 0)]
        self._from = self._order.index((kind, number))

    def __call__(self, delivery: Delivery) -> Iterable[Delivery]:
        kind, number, sender, _ = place_of(delivery)
        if kind == "confirm":
            number = 0
        late = (kind, number) not in self._order or self._order.index((kind, number)) >= self._from
        return () if sender == self.victim and late else (delivery,)


@dataclass
class Capture:
    """Everything that the router took, by session."""

    frames: dict[str, list[Frame]] = field(default_factory=dict)

    def take(self, session_id: str, frame: Frame) -> None:
        self.frames.setdefault(session_id, []).append(frame)

    def payloads(self, session_id: str) -> list[bytes]:
        return [frame.payload for frame in self.frames[session_id]]


@dataclass
class Arena:
    """A network whose router writes down everything, and a key of all three, who all sign."""

    running: Running
    capture: Capture
    public_key: str
    keygen_session: str

    @property
    def net(self) -> Net:
        return self.running.net

    @property
    def router(self) -> Router:
        return self.running.net.router

    def signs(self) -> None:
        """As if nothing had been."""
        assert self.running.call(self.net.sign, self.public_key, PARTIES, "5a" * 32)

    async def signing(self, message_hash: str, script: Callable[[Delivery], Iterable[Delivery]] | None = None) -> Ends:
        """A signing of all three, under a script."""
        made = self.net.coordinator.create_signing(self.public_key, PARTIES, message_hash)
        if script is not None:
            self.router.scripts[made.session_id] = script
        return await hold(self.net, made, "signing", {"messageHash": message_hash, "publicKey": self.public_key})

    async def keygen(self, script: Callable[[Delivery], Iterable[Delivery]] | None = None) -> Ends:
        """A keygen of all three, under a script."""
        made = self.net.coordinator.create_keygen(PARTIES, 3)
        if script is not None:
            self.router.scripts[made.session_id] = script
        expected: dict[str, object] = {"shareType": "wallet", "threshold": 3, "parties": list(PARTIES)}
        return await hold(self.net, made, "keygen", expected)

    def refill(self, sets: int = 1) -> None:
        """Let keygens use the recorded pre-parameters once more."""
        for seat, party in enumerate(self.net.parties.values(), start=1):
            with database(party) as connection:
                (made,) = connection.execute("SELECT count(*) FROM pre_params").fetchone()
            fill(party, seat, sets, first=made)
            forget_moduli(party)


@contextmanager
def arena_of(sets: int, tables: Tables | None = None) -> Iterator[Arena]:
    """Bring a network up, with so many sets of recorded pre-parameters in each pool, and make a key."""
    capture = Capture()
    merged = {table: dict(keys) for table, keys in TABLES.items()}
    for table, keys in (tables or {}).items():
        merged.setdefault(table, {}).update(keys)
    seats = {party: seat for seat, party in enumerate(PARTIES, start=1)}
    with running(tables=merged, before_start=lambda party: fill(party, seats[party.party_id], sets)) as network:
        network.net.router.tap = capture.take
        public_key = network.call(network.net.keygen, 3)
        (session_id,) = capture.frames
        for party in network.net.parties.values():
            forget_moduli(party)
        yield Arena(network, capture, public_key, session_id)


def patched(delivery: Delivery, at: int, value: bytes) -> Delivery:
    """The delivery with other bytes at a place of its frame."""
    payload = delivery.payload
    return replace(delivery, payload=payload[:at] + value + payload[at + len(value) :])
