"""A party that lies, sitting in with a real daemon through the real channel: the fault names it, in the API as well.

The seat is the tests' own: the core's seeded build, whose messages are bent on their way out, behind the second
implementation of the channel. tests/tss_cffi has each check of the core in every variant; here is one of each kind.
"""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest
import trio
from trio_websocket import wrap_client_stream

from daemon.custody.wire import EditPins, Pins
from daemon.network.peers import store_pins
from localnet.coordinator import Report
from tests.end_to_end.hostile import TABLES, End, followed, is_told, read_logs
from tests.end_to_end.prepared import fill, forget_moduli
from tests.end_to_end.running import Running, running
from tests.interop.gg18 import Q
from tests.tss_cffi import seeded
from tests.tss_cffi.channel import independent as wire
from tests.tss_cffi.channel.seats import Stranger, ephemeral, identity
from tests.tss_cffi.protobuf import Wire
from tests.tss_cffi.seeded import core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from localnet.coordinator import Invitation
    from localnet.net import Net
    from localnet.party import Party

    Change = Callable[[Wire], Wire]

HONEST: Final = "demo-server"
EVIL: Final = "mallory-server"
PARTIES: Final = (HONEST, EVIL)
SEAT: Final = 2
PROTOCOL: Final = core.Protocol.GG18_V3
HASH: Final = hashlib.sha256(b"pay Mallory").digest()


def adding(number: int, value: int, index: int = 0) -> Change:
    return lambda wire: wire.with_number(number, wire.number(number, index) + value, index)


def setting(number: int, value: int, index: int = 0) -> Change:
    return lambda wire: wire.with_number(number, value, index)


def without(number: int) -> Change:
    return lambda wire: Wire(wire.type, {name: parts for name, parts in wire.fields.items() if name != number})


def longer(number: int, surplus: int) -> Change:
    return lambda wire: Wire(wire.type, wire.fields | {number: wire.fields[number] + wire.fields[number][-surplus:]})


def of_type(other: str) -> Change:
    return lambda wire: Wire(other, wire.fields)


NO_OPENING: Final = "de_commitment: does not open the commitment"
KEYGEN: Final[dict[str, tuple[str, Change, str]]] = {
    "Paillier modulus too short": ("KGRound1Message", setting(2, 15), "paillier_n: not odd of 2048 bits"),
    "Paillier modulus even": ("KGRound1Message", setting(2, 1 << 2047), "paillier_n: not odd of 2048 bits"),
    "ring modulus too short": ("KGRound1Message", setting(3, (1 << 2047) - 1), "n_tilde: not odd of 2048 bits"),
    "h1 is 1": ("KGRound1Message", setting(4, 1), "h1: not a unit above 1 of n_tilde"),
    "h1 equals h2": ("KGRound1Message", lambda w: w.with_number(4, w.number(5)), "h1, h2: equal"),
    "dln proof, one way": ("KGRound1Message", adding(6, 1, 9), "dlnproof_1: does not verify"),
    "dln proof, the other way": ("KGRound1Message", adding(7, 1, 9), "dlnproof_2: does not verify"),
    "dln proof of fewer iterations": ("KGRound1Message", setting(6, 127, 0), "dlnproof_1: does not verify"),
    "commitment too long": ("KGRound1Message", adding(1, 1 << 256), "commitment: more than 256 bits"),
    "share": ("KGRound2Message1", adding(1, 1), "share: does not fit the opened polynomial"),
    "share not reduced": ("KGRound2Message1", adding(1, Q), "share: does not fit the opened polynomial"),
    "fac proof": ("KGRound2Message1", adding(2, 1, 3), "facProof: does not verify"),
    "no fac proof": ("KGRound2Message1", without(2), "message: element missing"),
    "opening": ("KGRound2Message2", adding(1, 1, 1), NO_OPENING),
    "polynomial of a higher degree": ("KGRound2Message2", longer(1, 2), "message: too many elements in a list"),
    "mod proof, W": ("KGRound2Message2", setting(2, 4, 0), "modProof: does not verify"),
    "no mod proof": ("KGRound2Message2", without(2), "message: element missing"),
    "Paillier proof": ("KGRound3Message", adding(1, 1, 12), "paillier_proof: does not verify"),
    "a message of signing": ("KGRound3Message", of_type("signing.SignRound9Message"), "malformed"),
}
"""By what is wrong: the message, its change, and what the fault says."""
SIGNING: Final[dict[str, tuple[str, Change, str]]] = {
    "no ciphertext": ("SignRound1Message1", setting(1, 1 << 5000), "c: not a ciphertext"),
    "range proof": ("SignRound1Message1", adding(2, 1, 5), "range_proof_alice: does not verify"),
    "commitment too long": ("SignRound1Message2", adding(1, 1 << 256), "commitment: more than 256 bits"),
    "no answer": ("SignRound2Message", setting(1, 1 << 5000), "c1: not a ciphertext"),
    "no answer with check": ("SignRound2Message", setting(2, 1 << 5000), "c2: not a ciphertext"),
    "Bob's proof": ("SignRound2Message", adding(3, 1, 9), "proof_bob: does not verify"),
    "Bob's proof with check": ("SignRound2Message", adding(4, 1, 9), "proof_bob_wc: does not verify"),
    "theta, so that its R is another": ("SignRound3Message", adding(1, 1), "proof of V: does not verify"),
    "theta not reduced": ("SignRound3Message", adding(1, Q), "theta: not in (0, q)"),
    "opening of Gamma": ("SignRound4Message", adding(1, 1, 0), NO_OPENING),
    "proof of Gamma": ("SignRound4Message", adding(4, 1), "proof of Gamma: does not verify"),
    "opening of V and A": ("SignRound6Message", adding(1, 1, 0), NO_OPENING),
    "proof of A": ("SignRound6Message", adding(4, 1), "proof of A: does not verify"),
    "proof of V": ("SignRound6Message", adding(7, 1), "proof of V: does not verify"),
    "opening of U and T": ("SignRound8Message", adding(1, 1, 0), NO_OPENING),
    "s not reduced": ("SignRound9Message", adding(1, Q), "s: not in (0, q)"),
}
UNIDENTIFIED: Final[dict[str, tuple[str, Change, str]]] = {
    "s": ("SignRound9Message", adding(1, 1), "the signature does not verify"),
}
"""What GG18 finds without finding out who did it."""


class Mallory(Stranger):
    """The seat. change: what it does to the messages of a type."""

    def __init__(self, terms: wire.Terms, share: core.Share | None, kind: str, change: Change | None) -> None:
        super().__init__(terms, SEAT)
        self.made: core.Share | None = None
        self._share = share
        self._kind = kind
        self._change = change

    def begin(self) -> None:
        self.peer.meet(self.hellos)
        self.out.extend(self.ready().items())
        if self._share is None:
            with seeded.prepared(SEAT) as own:
                self.party = core.KeygenParty(PROTOCOL, SEAT, (1, SEAT), 2, own, self.peer.transcript)
        else:
            self.party = core.SigningParty(self._share, (1, SEAT), self.terms.digest, self.peer.transcript)
        self.rounds = self.party.round[1]
        self.drain()

    def deliver(self) -> None:
        with suppress(core.PeerFault):  # what it sees does not fit what it said
            super().deliver()

    def said(self, note: wire.Note) -> dict[int, bytes]:
        message = Wire.parse(note.data)
        if self._change is not None and message.type.endswith(f".{self._kind}"):
            note = note._replace(data=self._change(message).encode())
        return super().said(note)

    def confirmation(self) -> bytes | None:
        if self._change is not None:
            return None  # whoever has the signature after all keeps it
        if isinstance(self.party, core.KeygenParty):
            with self.party.result() as made:
                self.made = core.Share(made)
            return self.peer.confirmation(self.rounds, self.made.info.digest)
        return super().confirmation()


class TwoFaced(Mallory):
    """Says hello twice, with other keys."""

    def begin(self) -> None:
        super().begin()
        keys = ephemeral("another")
        body = wire.hello_body(self.terms, SEAT, self.peer.identity.public, keys.x25519, wire.NO_KEY)
        self.out.append((None, self.peer.identity.state(body)))


class OfLowOrder(Mallory):
    """Says hello with a key that makes every secret zero."""

    def outgoing(self) -> list[tuple[int | None, bytes]]:
        own = self.peer.identity
        body = wire.hello_body(self.terms, SEAT, own.public, bytes(32), wire.NO_KEY)
        return [(to, own.state(body) if frame[1] == wire.HELLO else frame) for to, frame in super().outgoing()]


class Slanderer(Mallory):
    """Gives up and says that the honest one is to blame."""

    def begin(self) -> None:
        super().begin()
        self.out.append((None, self.peer.abort("proof", (1,))))


class Unsigned(Mallory):
    """Broadcasts, in round 3, in a frame that says that it is of round 5."""

    def said(self, note: wire.Note) -> dict[int, bytes]:
        return super().said(note._replace(round=5) if note.round == 3 else note)


SEATS: Final[dict[type[Mallory], tuple[str, list[str], list[str]]]] = {
    TwoFaced: ("equivocation", [EVIL], []),
    OfLowOrder: ("ephemeral-key", [EVIL], []),
    Unsigned: ("payload", [EVIL], []),
    Slanderer: ("aborted", [], [HONEST]),
}
"""What the channel finds: the reason, whom it blames, and who is blamed by hearsay."""


async def sit(net: Net, made: Invitation, seat: Mallory) -> None:
    """Listen, join, and talk until cancelled."""
    host, port = net.router_url.removeprefix("http://").split(":")
    resource = f"/sessions/{made.session_id}/messages?party_id={EVIL}"
    async with (
        httpx.AsyncClient(base_url=net.coordinator_url, verify=False) as coordinator,  # noqa: S501  it speaks http
        await trio.open_tcp_stream(host, int(port)) as tcp,
        trio.open_nursery() as nursery,
    ):
        stream = await wrap_client_stream(nursery, tcp, host, resource)
        join = {"session_id": made.session_id, "party_id": EVIL, "join_token": made.join_tokens[EVIL]}
        (await coordinator.post("/sessions/join", json=join)).raise_for_status()
        while True:
            for _, frame in seat.outgoing():
                said = {"from_party": EVIL, "round_number": 0, "payload": base64.b64encode(frame).decode()}
                await stream.send_message(json.dumps(said))
            got = json.loads(await stream.get_message())
            seat.receive(base64.b64decode(got["payload"]), 0)


@dataclass
class Table:
    """The honest daemon, and what the other seat holds of their key."""

    running: Running
    share: core.Share
    public_key: str

    async def signing(self, seat: type[Mallory] = Mallory, kind: str = "", change: Change | None = None) -> End:
        """A signing, as the honest one sees it."""
        net = self.running.net
        made = net.coordinator.create_signing(self.public_key, PARTIES, HASH.hex())
        terms = terms_of(made, wire.SIGNING, public_key=bytes.fromhex(self.public_key), digest=HASH)
        body = {"messageHash": HASH.hex(), "publicKey": self.public_key}
        return await together(net, made, "signing", body, seat(terms, self.share, kind, change))


def terms_of(made: Invitation, kind: int, **more: Any) -> wire.Terms:  # noqa: ANN401  fields of Terms
    session, committee = uuid.UUID(made.session_id).bytes, [(1, HONEST), (SEAT, EVIL)]
    return wire.Terms(kind=kind, protocol=PROTOCOL, session=session, committee=committee, threshold=2, **more)


async def keygen(net: Net, kind: str = "", change: Change | None = None) -> tuple[End, Mallory]:
    """A keygen, as the honest one sees it."""
    made = net.coordinator.create_keygen(PARTIES, 2)
    seat = Mallory(terms_of(made, wire.KEYGEN), None, kind, change)
    body = {"shareType": "wallet", "threshold": 2, "parties": list(PARTIES)}
    return await together(net, made, "keygen", body, seat), seat


async def together(net: Net, made: Invitation, kind: str, body: Mapping[str, object], seat: Mallory) -> End:
    whole = {"sessionId": made.session_id, "partyId": HONEST, "joinToken": made.join_tokens[HONEST], **body}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sit, net, made, seat)
        async with net.parties[HONEST].client() as client:
            answer = await client.post(f"/mpc-party/{kind}/participate", json=whole)
            assert answer.status_code == 202, answer.text
        end = await followed(net, HONEST, made.session_id)
        nursery.cancel_scope.cancel()
    seat.close()
    return end


async def pin(party: Party) -> None:
    edit = EditPins(pins=None, action="add", node="mallory", identity=identity(SEAT).public, patterns=(EVIL,))
    async with party._operator() as operator:
        store_pins(party.database, await operator.ask(edit, Pins))


async def reported(net: Net, end: End, public_key: str) -> None:
    """Mallory's report of a keygen, and the honest one's, which is on its way."""
    net.coordinator.report(Report(end.session["sessionId"], EVIL, public_key))
    with trio.fail_after(30):
        assert (await net.coordinator.outcome(end.session["sessionId"])).status == "completed"


@contextmanager
def seated() -> Iterator[Running]:
    with running((HONEST,), TABLES) as network:
        (party,) = network.net.parties.values()
        network.call(pin, party)
        fill(party, 1, len(KEYGEN) + 2)
        yield network


@pytest.fixture(scope="module")
def table(arena: None) -> Iterator[Table]:  # noqa: ARG001  of the core that Mallory runs
    with seated() as network:
        end, seat = network.call(keygen, network.net)
        assert end.status == "completed", end.message
        assert seat.made is not None
        public_key = seat.made.info.public_key.hex()
        network.call(reported, network.net, end, public_key)
        forget_moduli(network.net.parties[HONEST])
        with seat.made as share:
            yield Table(network, share, public_key)


@pytest.fixture(scope="module")
def ends(table: Table) -> dict[str, End]:
    """Every attack, a few at a time."""
    found: dict[str, End] = {}
    few = trio.CapacityLimiter(4)

    async def attack() -> None:
        async def sign(name: str, kind: str, change: Change) -> None:
            async with few:
                found[f"signing: {name}"] = await table.signing(Mallory, kind, change)

        async def make(name: str, kind: str, change: Change) -> None:
            async with few:
                found[f"keygen: {name}"] = (await keygen(table.running.net, kind, change))[0]

        async def misbehave(seat: type[Mallory]) -> None:
            async with few:
                found[seat.__name__] = await table.signing(seat)

        with trio.fail_after(600):
            async with trio.open_nursery() as nursery:
                for name, (kind, change, _) in KEYGEN.items():
                    nursery.start_soon(make, name, kind, change)
                for name, (kind, change, _) in (SIGNING | UNIDENTIFIED).items():
                    nursery.start_soon(sign, name, kind, change)
                for seat in SEATS:
                    nursery.start_soon(misbehave, seat)

    table.running.call(attack)
    read_logs(table.running.net, [{HONEST: end} for end in found.values()])
    return found


def is_named(end: End, words: str) -> None:
    assert (end.status, end.reason, end.session["culprits"]) == ("failed", "party", [EVIL]), end.message
    assert words in end.message
    assert end.session["signature"] is None
    is_told(end)


@pytest.mark.parametrize("name", KEYGEN)
def test_a_lie_in_a_keygen_names_its_author(ends: dict[str, End], name: str) -> None:
    is_named(ends[f"keygen: {name}"], KEYGEN[name][2])


@pytest.mark.parametrize("name", SIGNING)
def test_a_lie_in_a_signing_names_its_author(ends: dict[str, End], name: str) -> None:
    is_named(ends[f"signing: {name}"], SIGNING[name][2])


@pytest.mark.parametrize("name", UNIDENTIFIED)
def test_what_nobody_can_be_blamed_for_blames_nobody(ends: dict[str, End], name: str) -> None:
    end = ends[f"signing: {name}"]
    assert (end.status, end.reason, end.session["culprits"]) == ("failed", "party", []), end.message
    assert UNIDENTIFIED[name][2] in end.message
    is_told(end)


@pytest.mark.parametrize("seat", SEATS, ids=lambda seat: seat.__name__)
def test_what_breaks_the_channels_rules(ends: dict[str, End], seat: type[Mallory]) -> None:
    end = ends[seat.__name__]
    reason, culprits, hearsay = SEATS[seat]
    assert (end.status, end.reason, end.session["culprits"]) == ("failed", reason, culprits), end.message
    assert end.session["hearsay"] == hearsay
    is_told(end)


def test_a_party_that_mends_its_ways_signs(table: Table, ends: dict[str, End]) -> None:
    del ends
    end = table.running.call(table.signing)
    assert (end.status, end.session["culprits"]) == ("completed", []), end.message
