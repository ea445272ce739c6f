"""Signing, top to bottom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from daemon.ceremonies.exchange import open_seat
from daemon.custody import wire
from daemon.errors import Broken, DaemonError, Disagreement, Misspoken
from daemon.session import SessionType, Step
from daemon.values import Channel, Signature
from daemon.wall import Altered

if TYPE_CHECKING:
    from daemon.ceremonies.admission import ParticipateSigning, Running
    from daemon.ceremonies.exchange import Exchange
    from daemon.desk import Desk
    from daemon.network.coordinator import Joined
    from daemon.share import Share
    from daemon.values import PublicKey

log = structlog.get_logger(__name__)


async def participate_signing(command: ParticipateSigning, running: Running, at: Desk) -> None:
    """Sign with the others. On return the signature is verified and stored, its report on the way.

    Raises:
        DaemonError: Why not.
    """
    session = running.session
    running.waits_for = ("router",)
    async with at.router.open(session.session_id, session.party_id) as stream:
        await at.store.note(session, Step.JOINING)
        joined = await running.persistently(
            "coordinator", lambda: at.coordinator.join(session.session_id, session.party_id, command.join_token)
        )
        public_key = agree(command, joined)
        share = await at.store.active_share(session.party_id, public_key)
        running.caller.check(share.type)
        at.admission.check_alone(share, but=running)
        running.share_id = share.share_id
        signers = check_committee(share, joined)
        public: dict[str, object] = {"shareId": str(share.share_id), "publicKey": str(public_key)}
        await at.store.note(
            session,
            Step.AGREED,
            detail=public | {"channel": share.channel},
            columns={
                "seat": share.seat,
                "channel": share.channel,
                "share_id": str(share.share_id),
                "public_key": str(public_key),
                "share_type": share.type,
            },
            audited=public | {"messageHash": str(command.message_hash), "signers": list(signers)},
        )
        request = wire.BeginSigning(
            session=session.session_id.octets,
            row=await at.store.sealed_row(share.share_id),
            confirmations=tuple((await at.store.confirmations(share.share_id)).values()),
            signers=signers,
            message_hash=command.message_hash.octets,
            pins=await at.store.pins(),
        )
        try:
            async with open_seat(at, running, stream, request, plain=share.channel is Channel.PLAIN) as exchange:
                await exchange.until("result", "confirming", "complete")
                finished = await exchange.finish_signing()
                signature = Signature(finished.signature, finished.recovery_id)
                if not public_key.verify(command.message_hash, signature):
                    raise Broken("the custodian's signature does not verify; it is not reported")
                await at.store.complete_signing(session, share, command.message_hash, signature)
                at.metrics.sessions.labels(session.type, "completed").inc()
                await farewell(running, exchange, 0 if share.channel is Channel.PLAIN else len(signers))
        except Altered:
            await at.store.quarantine(share.share_id, "did not open for a signing")
            raise


def agree(command: ParticipateSigning, joined: Joined) -> PublicKey:
    """The key, after the coordinator's session was compared with what the requester expects.

    Raises:
        Disagreement: They differ.
        Misspoken: The session names no hash or no key.
    """
    if joined.type is not SessionType.SIGN:
        raise Disagreement(f"a signing was asked for, the coordinator's session is of type {joined.type}")
    if joined.public_key is None or joined.message_hash is None:
        raise Misspoken("the coordinator's session does not name public key and message hash")
    if joined.message_hash != command.message_hash:
        raise Disagreement("the coordinator's message hash is not the one that was asked for")
    if command.public_key not in {None, joined.public_key}:
        raise Disagreement("the coordinator's public key is not the one that was asked for")
    return joined.public_key


def check_committee(share: Share, joined: Joined) -> tuple[int, ...]:
    """The seats that sign, ascending: from the stored committee alone, whatever indices the coordinator gives.

    Raises:
        Disagreement: The session's threshold or parties are not the share's.
    """
    if joined.threshold != share.threshold:
        raise Disagreement(f"the share is {share.threshold}, the coordinator's session {joined.threshold}")
    signers = {share.party_id, *joined.others}
    if share.party_id in joined.others or not signers <= share.committee.parties:
        raise Disagreement("the coordinator's session has parties that hold no share of this key")
    if len(signers) < share.threshold.t:
        raise Disagreement(f"{len(signers)} parties are in the session, {share.threshold.t} must sign")
    return tuple(sorted(share.committee.seat_of(party) for party in signers))


async def farewell(running: Running, exchange: Exchange, parties: int) -> None:
    """Give the others what they may still lack, until all have the signature or would have given up waiting for us.

    It is ours already, so nothing here can fail the session.
    """
    seconds = min(running.stop_clocks(), running.stall_seconds)
    running.share_id = None  # it may sign the next one
    try:
        with trio.move_on_after(seconds):
            await exchange.confirm()
            await exchange.until_confirmed(parties)
    except DaemonError as error:
        log.info("signed, but the farewell failed", problem=error.message)
