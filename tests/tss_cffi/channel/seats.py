"""Seats of one ceremony around a table, joined by a link that a test scripts; real GG18 parties behind each channel."""

from __future__ import annotations

import functools
import hashlib
import importlib
from collections import deque
from typing import TYPE_CHECKING, Final, Self

from tests.tss_cffi import seeded
from tests.tss_cffi.channel import independent as wire
from tests.tss_cffi.seeded import core

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tss_cffi import channel
else:
    channel = importlib.import_module(f"{core.__name__}.channel")

__all__ = [
    "Seat",
    "State",
    "Stranger",
    "Table",
    "ceremony",
    "channel",
    "ephemeral",
    "identities",
    "identity",
    "keygen_terms",
    "shares",
    "signing_terms",
    "sit",
]

State = channel.ChannelState
PROTOCOL: Final = core.Protocol.GG18_V2
KINDS: Final[dict[channel.CeremonyKind, int]] = {
    "keygen": wire.KEYGEN,
    "sign": wire.SIGNING,
    "rotate": wire.ROTATION,
}
TICK: Final = 250


@functools.cache
def shares(threshold: int, parties: int) -> dict[int, core.Share]:
    """The recorded key of that shape, by seat; closed by conftest.py."""
    return seeded.shares(PROTOCOL, threshold, parties)


SHAPES: Final = ((2, 2), (2, 3), (3, 5))


@functools.cache
def identity(number: int) -> wire.Identity:
    """A node's identity key, the same in every test."""
    secret = int.from_bytes(hashlib.sha256(b"identity %d" % number).digest()) % (wire.P256_ORDER - 1) + 1
    return wire.Identity(secret)


def ephemeral(name: str) -> wire.Ephemeral:
    """Ephemeral keys made from a name."""
    return wire.Ephemeral(
        hashlib.sha256(f"x25519 {name}".encode()).digest(), hashlib.sha256(f"ed25519 {name}".encode()).digest()
    )


def signing_terms(signers: Iterable[int] = (1, 2, 3), shape: tuple[int, int] = (2, 3), session: int = 1) -> wire.Terms:
    """A signing by these seats of the recorded key of a shape (t, n)."""
    return wire.Terms(
        kind=wire.SIGNING,
        protocol=PROTOCOL,
        session=session.to_bytes(16),
        committee=[(seat, f"user{seat}-server") for seat in signers],
        threshold=shape[0],
        public_key=shares(*shape)[1].info.public_key,
        digest=hashlib.sha256(b"message %d" % session).digest(),
    )


def keygen_terms(n: int = 2, threshold: int = 2, session: int = 1) -> wire.Terms:
    """A keygen by seats 1..n."""
    return wire.Terms(
        kind=wire.KEYGEN,
        protocol=PROTOCOL,
        session=session.to_bytes(16),
        committee=[(seat, f"user{seat}-server") for seat in range(1, n + 1)],
        threshold=threshold,
    )


def ceremony(terms: wire.Terms, seat: int) -> channel.Ceremony:
    """The terms as our channel takes them."""
    return channel.Ceremony(
        kind=next(name for name, kind in KINDS.items() if kind == terms.kind),
        session=terms.session,
        protocol=core.Protocol(terms.protocol),
        committee=tuple(terms.committee),
        threshold=terms.threshold,
        own_seat=seat,
        public_key=terms.public_key or None,
        digest=terms.digest or None,
        generation=terms.generation,
    )


def identities(terms: wire.Terms) -> dict[int, bytes]:
    """Pinned key of every seat."""
    return {seat: identity(seat).public for seat, _ in terms.committee}


def sit(terms: wire.Terms, seat: int, transcript: bytes | None = None) -> core.KeygenParty | core.SigningParty:
    """A party of the core, on fixture key material."""
    seats = [number for number, _ in terms.committee]
    if terms.kind == wire.KEYGEN:
        with seeded.prepared(seat) as prepared:
            return core.KeygenParty(PROTOCOL, seat, seats, terms.threshold, prepared, transcript)
    held = next(shares(*shape) for shape in SHAPES if shares(*shape)[1].info.public_key == terms.public_key)
    return core.SigningParty(held[seat], seats, terms.digest, transcript)


class Seat:
    """An honest node: our channel and party, and what a custodian does with them."""

    def __init__(self, terms: wire.Terms, seat: int) -> None:
        """Open the channel and send our hello."""
        self.terms = terms
        self.seat = seat
        self.channel = channel.Channel(ceremony(terms, seat), identities(terms))
        self.party: core.KeygenParty | core.SigningParty | None = None
        self.stored: bytes | None = None
        """Body of the confirmation, once the share is pending."""
        self.holds_back = False
        """Do not confirm of our own accord."""
        self.channel.start(identity(seat).sign(self.channel.hello_digest))

    @property
    def state(self) -> channel.ChannelState:
        """Of the channel."""
        return self.channel.state

    def receive(self, frame: bytes, now: int) -> None:
        """One frame, any bytes."""
        self.channel.receive(frame, now)
        self.advance(now)

    def tick(self, now: int) -> None:
        """Let time pass."""
        self.channel.tick(now)
        self.advance(now)

    def advance(self, now: int) -> None:
        """What the state asks for."""
        if self.state is State.AGREED:
            self.party = sit(self.terms, self.seat)
            self.channel.attach(self.party, now)
        if self.state is State.RESULT and not self.holds_back:
            self.confirm(now)
        if self.state is State.FAILED and self.stored is None:
            self.stored = b""
            if self.channel.fault() is not None:
                self.abort("failed")

    def result_digest(self) -> bytes | None:
        """Of the share; nothing in a signing."""
        if not isinstance(self.party, core.KeygenParty):
            return None
        with self.party.result() as made, core.Share(made) as share:
            return share.info.digest

    def confirm(self, now: int) -> None:
        """Store and confirm."""
        try:
            digest = self.channel.confirmation_digest(self.result_digest(), now)
        except channel.ConfirmationContradicted:
            return
        self.stored = self.channel.confirmation_body()
        self.channel.confirm(identity(self.seat).sign(digest), now)

    def abort(self, reason: str) -> None:
        """Give up and tell."""
        self.channel.abort_signed(identity(self.seat).sign(self.channel.abort(reason)))

    def outgoing(self) -> list[tuple[int | None, bytes]]:
        """What is to be carried: to whom (None: all), and the bytes."""
        return [(frame.to, frame.data) for frame in self.channel.outgoing()]

    def close(self) -> None:
        """Wipe."""
        self.channel.close()
        if self.party is not None:
            self.party.close()


class Stranger:
    """A node that speaks the independent implementation, over a real party. Honest as it stands; tests override it."""

    def __init__(self, terms: wire.Terms, seat: int) -> None:
        """Send our hello."""
        self.terms = terms
        self.seat = seat
        self.peer = wire.Peer(terms, seat, identity(seat), ephemeral(f"{seat} {terms.session.hex()}"))
        self.party: core.KeygenParty | core.SigningParty | None = None
        self.hellos = {seat: self.peer.hello()}
        self.readies: dict[int, bytes] = {}
        self.queues: dict[int, dict[int, bytes]] = {number: {} for number in self.peer.seats}
        self.delivered = dict.fromkeys(self.peer.seats, 0)
        self.confirmations: dict[int, bytes] = {}
        self.aborts: dict[int, bytes] = {}
        self.rounds = 0
        self.out: deque[tuple[int | None, bytes]] = deque([(None, self.hellos[seat])])

    # What a liar changes.

    minds_echo = True

    def said(self, note: wire.Note) -> dict[int, bytes]:
        """A message of our party as frames, by receiver."""
        return self.peer.send(note)

    def ready(self) -> dict[int, bytes]:
        """Our ready, by receiver."""
        return dict.fromkeys(self.others, self.peer.ready())

    def confirmation(self) -> bytes | None:
        """Our confirmation, when the party is done."""
        assert self.party is not None
        if isinstance(self.party, core.SigningParty):
            return self.peer.confirmation(self.rounds, self.party.result().rs)
        with self.party.result() as made, core.Share(made) as share:
            return self.peer.confirmation(self.rounds, share.info.digest)

    # ---- Honest from here on ----

    @property
    def others(self) -> list[int]:
        """All seats but ours."""
        return [seat for seat in self.peer.seats if seat != self.seat]

    def receive(self, frame: bytes, now: int) -> None:  # noqa: ARG002 - the face of Seat
        """One frame."""
        kind, sender = frame[1], int.from_bytes(frame[18:22])
        if kind == wire.HELLO and len(self.hellos) < len(self.peer.seats):
            self.hellos.setdefault(sender, frame)
            if len(self.hellos) == len(self.peer.seats):
                self.begin()
        elif kind == wire.READY:
            self.readies[sender] = frame
        elif kind == wire.SEALED:
            self.queues[sender][int.from_bytes(frame[26:34])] = frame
        elif kind == wire.CONFIRM:
            self.confirmations[sender] = frame
        elif kind == wire.ABORT:
            self.aborts[sender] = frame
        self.deliver()

    def begin(self) -> None:
        """All hellos are in."""
        self.peer.meet(self.hellos)
        self.out.extend(self.ready().items())
        self.party = sit(self.terms, self.seat)
        self.rounds = self.party.round[1]
        self.drain()

    def drain(self) -> None:
        """Send what the party has to send."""
        assert self.party is not None
        for message in self.party.outgoing():
            self.out.extend(self.said(wire.Note(message.to, message.round, message.data)).items())
        if self.party.state is core.PartyState.DONE and self.seat not in self.confirmations:
            statement = self.confirmation()
            if statement is not None:
                self.confirmations[self.seat] = statement
                self.out.append((None, statement))

    def deliver(self) -> None:
        """Give the party what is next in order."""
        moved = self.party is not None
        while moved and self.party is not None and self.party.state is core.PartyState.WANTS:
            moved = False
            for sender, queue in self.queues.items():
                frame = queue.get(self.delivered[sender] + 1)
                if frame is None or sender not in self.readies or not self.is_due(sender, frame):
                    continue
                _, class_, payload = self.peer.take(frame, minds_echo=self.minds_echo)
                self.delivered[sender] += 1
                self.party.receive(sender, core.MessageClass(class_), payload.message)
                moved = True
                self.drain()
                if self.party.state is not core.PartyState.WANTS:
                    break

    def is_due(self, sender: int, frame: bytes) -> bool:
        """Is it of the round that the party waits for?"""
        assert self.party is not None
        opened = wire.unseal(self.peer.key(sender, self.seat), frame)
        return opened is not None and int.from_bytes(opened[:2]) == self.party.round[0]

    def tick(self, now: int) -> None:
        """It has no clock."""

    def outgoing(self) -> list[tuple[int | None, bytes]]:
        """What is to be carried."""
        out = list(self.out)
        self.out.clear()
        return out

    def close(self) -> None:
        """Wipe."""
        if self.party is not None:
            self.party.close()


Node = Seat | Stranger


class Table:
    """All seats of one ceremony, over a link that delivers in order unless a test does otherwise."""

    def __init__(self, terms: wire.Terms, strangers: dict[int, type[Stranger]] | None = None) -> None:
        """strangers: seats that are not ours, and what they are."""
        self.terms = terms
        self.now = 0
        self.nodes: dict[int, Node] = {}
        for seat, _ in terms.committee:
            kind = (strangers or {}).get(seat)
            self.nodes[seat] = Seat(terms, seat) if kind is None else kind(terms, seat)
        self.flying: deque[tuple[int, int, bytes]] = deque()
        """(from, to, frame), oldest first."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes.values():
            node.close()

    @property
    def seats(self) -> dict[int, Seat]:
        """Ours."""
        return {number: node for number, node in self.nodes.items() if isinstance(node, Seat)}

    def collect(self) -> None:
        """Put on the link what the nodes have to send."""
        for sender, node in self.nodes.items():
            for to, frame in node.outgoing():
                receivers = [to] if to is not None else [seat for seat in self.nodes if seat != sender]
                self.flying.extend((sender, receiver, frame) for receiver in receivers)

    def deliver(self) -> None:
        """Deliver in order until nothing is under way."""
        self.collect()
        while self.flying:
            _, to, frame = self.flying.popleft()
            self.nodes[to].receive(frame, self.now)
            self.collect()

    def wait(self, milliseconds: int) -> None:
        """Let time pass, tick by tick, delivering."""
        for _ in range(-(-milliseconds // TICK)):
            self.now += TICK
            for node in self.nodes.values():
                node.tick(self.now)
            self.deliver()

    def states(self) -> list[channel.ChannelState]:
        """Of our seats."""
        return [seat.state for seat in self.seats.values()]
