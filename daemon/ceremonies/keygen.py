"""Keygen, top to bottom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from daemon.ceremonies import confirming
from daemon.ceremonies.exchange import open_seat
from daemon.custody import wire
from daemon.errors import Broken, DaemonError, Disagreement, Misspoken, PeerFault
from daemon.session import SessionType, Step
from daemon.values import Channel, Committee, Protocol, Seat, ShareId
from daemon.wall import Altered

if TYPE_CHECKING:
    from daemon.ceremonies.admission import ParticipateKeygen, Running
    from daemon.ceremonies.exchange import Exchange
    from daemon.desk import Desk
    from daemon.network.coordinator import Joined
    from daemon.settings import Settings
    from daemon.values import PartyId

log = structlog.get_logger(__name__)


async def participate_keygen(command: ParticipateKeygen, running: Running, at: Desk) -> None:
    """Make our share of a new key. On return the share is active, or pending and left to `confirming`.

    Raises:
        DaemonError: Why not; nothing of the share is kept.
    """
    session = running.session
    if command.parties is not None:
        # Peers begin to wait once we have joined: what can be had before is had before.
        protocol, _ = profile(at.settings, command.parties)
        await at.pool.wait(running, protocol)
    running.waits_for = ("router",)
    async with at.router.open(session.session_id, session.party_id) as stream:
        await at.store.note(session, Step.JOINING)
        joined = await running.persistently(
            "coordinator", lambda: at.coordinator.join(session.session_id, session.party_id, command.join_token)
        )
        committee = agree(command, joined)
        protocol, channel = profile(at.settings, committee.parties)
        seat = committee.seat_of(session.party_id)
        await at.store.note(
            session,
            Step.AGREED,
            detail={"threshold": str(joined.threshold), "channel": channel},
            columns={"seat": seat, "channel": channel},
            audited={"threshold": str(joined.threshold), "parties": sorted(map(str, committee.parties))},
        )
        request = wire.BeginKeygen(
            session=session.session_id.octets,
            party_id=str(session.party_id),
            share_id=str(ShareId.fresh()),
            share_type=command.share_type.value,
            protocol=protocol.value,
            channel=channel.value,
            committee=wire_seats(committee),
            threshold=joined.threshold.t,
            prepared=await at.pool.take(running, protocol),
            known_fingerprints=await at.store.known_fingerprints(),
            pins=await at.store.pins(),
        )
        async with open_seat(at, running, stream, request, plain=channel is Channel.PLAIN) as exchange:
            await exchange.until("result")
            finished = await exchange.finish_keygen()
            check_row(request, finished.row)
            await at.store.pend(session, finished.row, finished.fingerprints)
            await read_back(at, ShareId(finished.row.share_id))
            await confirm(running, at, exchange, finished.row)
    if channel is Channel.SEALED:
        share = await at.store.share(ShareId(finished.row.share_id))
        at.background.start_soon(confirming.see_through, at, share)


def agree(command: ParticipateKeygen, joined: Joined) -> Committee:
    """The committee, after the coordinator's session was compared with what the requester expects.

    Raises:
        Disagreement: They differ.
        Misspoken: The session contradicts itself.
    """
    if joined.type is not SessionType.KEYGEN:
        raise Disagreement(f"a keygen was asked for, the coordinator's session is of type {joined.type}")
    n = joined.threshold.n
    if command.party_id in joined.others or len(joined.others) != n - 1:
        raise Misspoken(f"the coordinator names {len(joined.others)} other parties in a committee of {n}")
    missing = set(range(n)) - set(joined.others.values())
    if len(missing) != 1 or joined.index not in {None, *missing}:
        raise Misspoken("the coordinator's party indices are not 0..n-1, each once")
    indices: dict[PartyId, int] = joined.others | {command.party_id: missing.pop()}
    if command.threshold not in {None, joined.threshold.t}:
        raise Disagreement(f"threshold {command.threshold} was expected, the coordinator says {joined.threshold}")
    if command.parties not in {None, frozenset(indices)}:
        raise Disagreement("the coordinator's committee is not the one that was expected")
    return Committee(tuple(Seat(index + 1, party) for party, index in indices.items()))


def profile(settings: Settings, parties: frozenset[PartyId]) -> tuple[Protocol, Channel]:
    """Protocol and channel of a committee: plain where the custodian's policy lists it, sealed otherwise."""
    names = frozenset(str(party) for party in parties)
    for entry in settings.custodian.plain:
        if entry.keygen and frozenset(entry.parties) == names:
            return Protocol(entry.protocol), Channel.PLAIN
    return settings.keygen.protocol, Channel.SEALED


def wire_seats(committee: Committee) -> tuple[wire.Seat, ...]:
    """A committee as it crosses the wall."""
    return tuple(wire.Seat(seat=seat.number, party_id=str(seat.party_id)) for seat in committee.seats)


def check_row(request: wire.BeginKeygen, row: wire.ShareRow) -> None:
    """The share that came back is the one that was asked for.

    Raises:
        Broken: It is not.
    """
    asked = (
        request.share_id,
        request.party_id,
        request.session,
        request.share_type,
        request.threshold,
        request.committee,
        request.protocol,
        request.channel,
    )
    made = (
        row.share_id,
        row.party_id,
        row.session,
        row.share_type,
        row.threshold,
        row.committee,
        row.protocol,
        row.channel,
    )
    if asked != made:
        raise Broken("the custodian finished another keygen than was begun")


async def read_back(at: Desk, share_id: ShareId) -> None:
    """What is on disk opens: only then may anybody rely on it.

    Raises:
        Altered: It does not; the share is quarantined.
    """
    try:
        await at.wall.ask(wire.OpenAndCheck(row=await at.store.sealed_row(share_id)), wire.Done)
    except Altered:
        await at.store.quarantine(share_id, "did not open after it was stored")
        raise


async def confirm(running: Running, at: Desk, exchange: Exchange, row: wire.ShareRow) -> None:
    """Say that our share is safe, and listen to the others for as long as the session's clock allows.

    From here on nothing of ours fails the session: the share stays pending until all have confirmed, however long that
    takes.

    Raises:
        PeerFault: A party that had not confirmed gave up. The share is quarantined, the session has failed.
    """
    share = await at.store.share(ShareId(row.share_id))
    left = running.stop_clocks()
    try:
        progress = await exchange.confirm()
        if progress.state != "complete":
            with trio.move_on_after(left):
                progress = await exchange.until("complete")
        await confirming.keep(at, share, row, progress.confirmations)
    except PeerFault as fault:
        # A party that has not confirmed gave up, signed: the set can never be complete.
        await at.store.give_up(running.session, share, fault)
        raise
    except DaemonError as error:
        log.warning("confirmation goes on in the background", problem=error.message)
