"""Keygen, top to bottom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from daemon.ceremonies import confirming
from daemon.ceremonies.exchange import open_seat
from daemon.ceremonies.withdrawing import withdraw
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
        try:
            async with open_seat(at, running, stream, request, plain=channel is Channel.PLAIN) as exchange:
                await exchange.until_all_spoke()
                running.gathered()
                await exchange.until("result")
                left = running.stop_clocks()  # what follows has bounds of its own
                share_id = await put_away(running, at, exchange, request)
                await confirm(at, exchange, share_id, left)
        except DaemonError as error:
            if channel is Channel.SEALED:  # the others may have a share that waits for our confirmation
                at.background.start_soon(withdraw, at, session, seat, error.kind)
            raise
    at.background.start_soon(confirming.see_through, at, await at.store.share(share_id))


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


async def put_away(running: Running, at: Desk, exchange: Exchange, request: wire.BeginKeygen) -> ShareId:
    """Seal the share and keep it as pending: from then on it is not for us to end this keygen.

    Raises:
        DaemonError: It is not stored.
    """
    finished = await exchange.finish_keygen()
    check_row(request, finished.row)
    with trio.CancelScope(shield=True):  # stored or not: nobody must be told otherwise
        await at.store.pend(running.session, finished.row, finished.fingerprints)
        exchange.keep()
    return ShareId(finished.row.share_id)


async def confirm(at: Desk, exchange: Exchange, share_id: ShareId, seconds: float) -> None:
    """Open what is on disk, say that our share is safe, and listen to the others for so long.

    The share stays pending until all have confirmed, however long that takes: a custodian that is away, or a peer that
    is silent, fails nothing any more. Where a party that has not confirmed ends the keygen, the share is given up.

    Raises:
        Altered: What is on disk does not open. The share is set aside.
    """
    share = await at.store.share(share_id)
    try:
        row = await at.store.sealed_row(share_id)
        await at.wall.ask(wire.OpenAndCheck(row=row), wire.Done)
        progress = await exchange.confirm()
        if progress.state != "complete":
            with trio.move_on_after(seconds):
                progress = await exchange.until("complete")
        await confirming.keep(at, share, row, progress.confirmations)
    except Altered as error:
        await confirming.give_up(at, share, error)
        raise
    except PeerFault as error:
        await confirming.give_up(at, share, error)
    except DaemonError as error:
        log.warning("confirmation goes on in the background", problem=error.message)
