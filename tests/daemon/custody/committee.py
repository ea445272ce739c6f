"""Several custodians in one ceremony, with the test as their router."""

import hashlib
import os
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio

from daemon.custody import rows
from daemon.custody.client import Custodian
from daemon.custody.wire import (
    BeginKeygen,
    BeginSigning,
    Begun,
    ChannelName,
    Confirm,
    FinishKeygen,
    FinishSigning,
    KeygenFinished,
    OutFrame,
    PlainMessage,
    PlainReceive,
    PreparedRow,
    Progress,
    ProtocolName,
    Receive,
    Seat,
    ShareRow,
    SignedPins,
    SigningFinished,
    Tick,
)
from hsm import Token
from tests.daemon.custody.node import Node, copy_node, make_node, pin_all
from tests.tss_cffi import seeded

CEREMONY_SECONDS = 120
PROTOCOLS: tuple[ProtocolName, ...] = ("gg18-v2", "gg18-v3")
ORIGIN = 6
"""Where the core's bytes of pre-parameters say whether they were searched for or recorded."""
SEARCHED = 1
DIGEST_BYTES = 32


@dataclass
class Share:
    """What tssd would have stored."""

    row: ShareRow
    fingerprints: tuple[bytes, ...]
    confirmations: tuple[bytes, ...]


@dataclass
class Committee:
    """Nodes by name, and what stands in their stores."""

    nodes: dict[str, Node]
    identities: dict[str, bytes]
    pins: dict[str, SignedPins]
    shares: dict[str, Share] = field(default_factory=dict)
    plain: dict[str, Share] = field(default_factory=dict)
    prepared: dict[str, list[PreparedRow]] = field(default_factory=dict)
    """Sets of pre-parameters that are not spent."""

    def seats(self, names: tuple[str, ...]) -> tuple[Seat, ...]:
        order = sorted(self.nodes)
        return tuple(Seat(seat=order.index(name) + 1, party_id=self.nodes[name].party_id) for name in sorted(names))

    def name_of(self, party_id: str) -> str:
        return next(name for name, node in self.nodes.items() if node.party_id == party_id)

    @asynccontextmanager
    async def up(self, *names: str) -> AsyncIterator[dict[str, Custodian]]:
        async with AsyncExitStack() as stack:
            yield {name: await stack.enter_async_context(self.nodes[name].custodian()) for name in names or self.nodes}


def copy_committee(committee: Committee, directory: Path) -> Committee:
    """The same nodes on copies of their disks."""
    nodes = {name: copy_node(node, directory / name) for name, node in committee.nodes.items()}
    return replace(
        committee,
        nodes=nodes,
        pins=dict(committee.pins),
        shares=dict(committee.shares),
        plain=dict(committee.plain),
        prepared={name: list(rows) for name, rows in committee.prepared.items()},
    )


async def make_committee(directory: Path, *names: str, **changes: object) -> Committee:
    """Nodes with keys, pins of each other, and two sets of pre-parameters for each protocol; needs the arena."""
    nodes = {name: make_node(directory / name, f"{name}-server", **changes) for name in names}
    identities, prepared = {}, {}
    for place, (name, node) in enumerate(nodes.items()):
        with node.opened() as token:
            token.create_keys()
            identities[name] = token.status().identity_public or b""
            prepared[name] = [
                seal_prepared(token, protocol, recorded_set(place, turn, len(names)))
                for protocol in PROTOCOLS
                for turn in range(2)
            ]
    lists = await pin_all(nodes, identities)
    return Committee(nodes, identities, {name: pins.signed for name, pins in lists.items()}, prepared=prepared)


def recorded_set(place: int, turn: int, parties: int) -> int:
    """Which of the recorded sets the party at a place uses; all parties have different ones. The last is used first."""
    return 1 + (place + turn) % parties


def seal_prepared(token: Token, protocol: ProtocolName, seat: int, turn: int = 0) -> PreparedRow:
    """A recorded set of pre-parameters, as if a custodian with this token had searched for it, which takes long.

    A custodian refuses recorded sets by a mark under their seal. Nobody but the token's owner can make such a row.
    """
    with seeded.prepared(seat) as recorded:
        content = bytearray(seeded.reveal(recorded))
    content[ORIGIN] = SEARCHED
    content[-DIGEST_BYTES:] = hashlib.sha256(content[:-DIGEST_BYTES]).digest()
    with seeded.secret(bytes(content)) as found:
        fingerprints = tuple(seeded.core.prepared_fingerprints(found))
        prepared_id = f"{token.status().serial}-{protocol}-{seat}-{turn}"
        blob = token.seal(found, rows.prepared_header(prepared_id, protocol, fingerprints))
    return PreparedRow(
        prepared_id=prepared_id, protocol=protocol, fingerprints=fingerprints, sealed=rows.sealed_of(blob)
    )


def seed_of(seat: int) -> bytes:
    """What the randomness of a seat in a keygen begins with where it is to be replayed."""
    return hashlib.sha256(b"custodian %d" % seat).digest()


def _honest(frame: bytes) -> list[bytes]:
    return [frame]


@dataclass
class Table:
    """One ceremony under way: who sits at it, and the frames between them."""

    committee: Committee
    custodians: dict[str, Custodian]
    ceremonies: dict[str, int]
    wire: Callable[[bytes], list[bytes]] = _honest
    """What the router makes of a frame."""
    queue: deque[tuple[str, str, OutFrame | PlainMessage]] = field(default_factory=deque)
    progress: dict[str, Progress] = field(default_factory=dict)
    seen: list[bytes] = field(default_factory=list)
    requests: dict[str, BeginKeygen] = field(default_factory=dict)

    def send(self, name: str, frames: tuple[OutFrame, ...], plain: tuple[PlainMessage, ...]) -> None:
        everything: list[OutFrame | PlainMessage] = [*frames, *plain]
        for frame in everything:
            self.seen.append(frame.data)
            for other in self.ceremonies:
                party_id = self.committee.nodes[other].party_id
                if other != name and frame.to in (None, party_id):
                    self.queue.append((name, other, frame))

    def note(self, name: str, progress: Progress) -> None:
        self.progress[name] = progress
        self.send(name, progress.frames, progress.plain)

    async def deliver(self, enough: Callable[[], bool] = lambda: False) -> None:
        """Hand over everything that is on its way, and what that sets going; no further than it is enough."""
        while self.queue and not enough():
            sender, receiver, frame = self.queue.popleft()
            number = self.ceremonies[receiver]
            custodian = self.custodians[receiver]
            for data in self.wire(frame.data):
                request: Receive | PlainReceive
                if isinstance(frame, PlainMessage):
                    party_id = self.committee.nodes[sender].party_id
                    request = PlainReceive(ceremony=number, sender=party_id, data=data, broadcast=frame.broadcast)
                else:
                    request = Receive(ceremony=number, data=data)
                self.note(receiver, await custodian.ask(request, Progress))

    async def tick(self) -> None:
        for name, number in self.ceremonies.items():
            self.note(name, await self.custodians[name].ask(Tick(ceremony=number), Progress))

    async def until(self, *states: str) -> None:
        """Carry frames until every seat is in one of these states."""
        with trio.fail_after(CEREMONY_SECONDS):
            await self.deliver()
            while not all(name in self.progress and self.progress[name].state in states for name in self.ceremonies):
                await self.tick()
                await self.deliver()
                if any(progress.state == "failed" for progress in self.progress.values()) and "failed" not in states:
                    raise AssertionError([progress.fault for progress in self.progress.values()])
                await trio.sleep(0.05)  # the channel's timers are real time; nothing here depends on how long

    async def confirm(self) -> None:
        for name, number in self.ceremonies.items():
            self.note(name, await self.custodians[name].ask(Confirm(ceremony=number), Progress))


async def begin_keygen(
    committee: Committee,
    custodians: dict[str, Custodian],
    *,
    threshold: int = 2,
    protocol: ProtocolName = "gg18-v2",
    channel: ChannelName = "sealed",
) -> Table:
    session = os.urandom(16)
    table = Table(committee, custodians, {})
    begun = {}
    for name, custodian in custodians.items():
        ahead = [row for row in committee.prepared[name] if row.protocol == protocol]
        committee.prepared[name].remove(ahead[-1])
        table.requests[name] = BeginKeygen(
            session=session,
            party_id=committee.nodes[name].party_id,
            share_id=f"share-{session.hex()}-{name}",
            share_type="wallet",
            protocol=protocol,
            channel=channel,
            committee=committee.seats(tuple(custodians)),
            threshold=threshold,
            prepared=ahead[-1],
            known_fingerprints=(),
            pins=committee.pins[name] if channel == "sealed" else None,
        )
        begun[name] = await custodian.ask(table.requests[name], Begun)
        table.ceremonies[name] = begun[name].ceremony
    for name, answer in begun.items():
        table.send(name, answer.frames, answer.plain)
    return table


async def finish_keygen(table: Table) -> dict[str, Share]:
    finished = {}
    for name, number in table.ceremonies.items():
        finished[name] = await table.custodians[name].ask(FinishKeygen(ceremony=number), KeygenFinished)
    await table.confirm()
    await table.until("complete")
    return {
        name: Share(answer.row, answer.fingerprints, table.progress[name].confirmations)
        for name, answer in finished.items()
    }


async def keygen(committee: Committee, custodians: dict[str, Custodian], **options: object) -> dict[str, Share]:
    table = await begin_keygen(committee, custodians, **options)  # type: ignore[arg-type]  # its own options
    await table.until("result")
    return await finish_keygen(table)


async def begin_signing(
    committee: Committee,
    custodians: dict[str, Custodian],
    shares: dict[str, Share],
    digest: bytes,
    *,
    session: bytes | None = None,
) -> Table:
    session = session or os.urandom(16)
    table = Table(committee, custodians, {})
    begun = {}
    for name, custodian in custodians.items():
        begun[name] = await custodian.ask(
            signing_request(committee, shares, name, tuple(custodians), digest, session), Begun
        )
        table.ceremonies[name] = begun[name].ceremony
    for name, answer in begun.items():
        table.send(name, answer.frames, answer.plain)
    return table


def signing_request(
    committee: Committee, shares: dict[str, Share], name: str, signers: tuple[str, ...], digest: bytes, session: bytes
) -> BeginSigning:
    return BeginSigning(
        session=session,
        row=shares[name].row,
        confirmations=shares[name].confirmations,
        signers=tuple(member.seat for member in committee.seats(signers)),
        message_hash=digest,
        pins=committee.pins[name] if shares[name].row.channel == "sealed" else None,
    )


async def finish_signing(table: Table) -> SigningFinished:
    results = set()
    for name, number in table.ceremonies.items():
        results.add(await table.custodians[name].ask(FinishSigning(ceremony=number), SigningFinished))
    assert len(results) == 1
    await table.confirm()
    await table.until("complete")
    return results.pop()


async def sign(
    committee: Committee, custodians: dict[str, Custodian], shares: dict[str, Share], digest: bytes
) -> SigningFinished:
    table = await begin_signing(committee, custodians, shares, digest)
    await table.until("result", "complete")
    return await finish_signing(table)
