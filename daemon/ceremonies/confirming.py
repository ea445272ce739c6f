"""From pending to active: collecting what the parties of a keygen confirm, for as long as it takes.

A share becomes active with the complete set of confirmations, from whatever source: the ceremony itself, the router's
stream of that session later, a file that an operator hands over. Whoever holds the complete set gives it to those
that ask. Statements are public and signed; which of them hold for a share is the custodian's judgement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
import trio

from daemon.custody import wire
from daemon.errors import AuditUnwritable, Busy, DaemonError, PeerFault, TokenLost
from daemon.network.connection import delays
from daemon.share import ShareStatus
from daemon.values import Channel
from daemon.wall import Altered

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from daemon.desk import Desk
    from daemon.network.router import Stream
    from daemon.share import Share

log = structlog.get_logger(__name__)

STATEMENT_MAX: Final = 16 * 1024
"""Bytes of a statement; one of 32 parties has less than 8 KiB. What is longer is none."""
LONGEST_DELAY: Final = 60.0
"""Seconds between two repeats of our statement while others are missing."""
ANSWER_SECONDS: Final = (1.0, 5.0)
"""Between two answers to parties that ask: at first, in the end."""


async def keep(at: Desk, share: Share, row: wire.ShareRow, statements: Iterable[bytes]) -> tuple[str, ...]:
    """Keep those statements that hold; with the complete set the share becomes active.

    Where a party that has not confirmed says, signed, that it never will, the share is given up.

    Returns:
        Party ids that are still missing.

    Raises:
        TokenLost, Busy, Refused: As for `Wall.ask`.
    """
    if share.channel is Channel.PLAIN:
        await _activate(at, share, confirmed=False)
        return ()
    held = await at.store.confirmations(share.share_id)
    fresh: dict[str, bytes] = {}
    withdrawn: set[str] = set()
    for statement in statements:
        if statement in held.values() or not 0 < len(statement) <= STATEMENT_MAX:
            continue
        judged = await at.wall.ask(wire.CheckConfirmations(row=row, confirmations=(statement,)), wire.ConfirmedBy)
        fresh |= {party: statement for party in judged.confirmed if party not in held}
        withdrawn |= set(judged.withdrawn)
    if fresh:
        await at.store.add_confirmations(share, fresh)
    missing = {str(party) for party in share.committee.parties} - held.keys() - fresh.keys()
    if not missing:
        if share.status is ShareStatus.QUARANTINED:
            await at.wall.ask(wire.OpenAndCheck(row=row), wire.Done)
        await _activate(at, share, confirmed=True)
    elif withdrawn & missing:
        names = sorted(withdrawn & missing)
        await give_up(at, share, PeerFault(f"{', '.join(names)} ended the keygen", reason="aborted"))
    return tuple(sorted(missing))


async def give_up(at: Desk, share: Share, error: DaemonError) -> None:
    """Nobody need wait for this share any longer: it is set aside, never deleted, and its session has failed.

    A party that has confirmed cannot withdraw: whoever signs both is lying, and the complete set counts. So a share
    that is active stays so, and one that was given up becomes active when somebody hands over the complete set.
    """
    waits = delays()
    while True:
        try:
            given_up = await at.store.give_up(share, error, report=at.settings.coordinator.report_failures)
        except AuditUnwritable as unwritable:
            log.exception("the end of a keygen cannot be written", problem=unwritable.message)
            await trio.sleep(next(waits))
        else:
            break
    if given_up:
        at.metrics.sessions.labels("keygen", error.kind).inc()
        log.warning("share given up", share_id=str(share.share_id), problem=error.message)


async def _activate(at: Desk, share: Share, *, confirmed: bool) -> None:
    if await at.store.activate(share, confirmed=confirmed):
        at.metrics.sessions.labels("keygen", "completed").inc()
        log.info("share active", share_id=str(share.share_id), public_key=str(share.public_key), confirmed=confirmed)


async def see_through(at: Desk, share: Share) -> None:
    """Collect until the share is active, then for a while answer those that still ask.

    In the background, for ever if need be: an incomplete set never expires by itself; an operator may quarantine it.
    """
    try:
        if share.channel is Channel.PLAIN:
            await _open_alone(at, share)
            return
        async with at.router.open(share.session_id, share.party_id) as stream:
            if share.status is not ShareStatus.ACTIVE and not await _collect(at, share, stream):
                return
            await _linger(at, share, stream)
    except* DaemonError as group:
        log.warning("confirming given up", share_id=str(share.share_id), problem=str(group.exceptions[0]))


async def _open_alone(at: Desk, share: Share) -> None:
    """A plain committee confirms nothing: its share is active as soon as what is stored has been opened."""
    row = await at.store.sealed_row(share.share_id)
    waits = delays(first=1.0, longest=LONGEST_DELAY)
    while (await at.store.share(share.share_id)).status is ShareStatus.PENDING:
        try:
            await at.wall.ask(wire.OpenAndCheck(row=row), wire.Done)
            await keep(at, share, row, ())
        except Altered as error:
            await give_up(at, share, error)
        except (TokenLost, Busy, AuditUnwritable) as error:
            log.info("confirming waits", share_id=str(share.share_id), problem=error.message)
            await trio.sleep(next(waits))


async def _collect(at: Desk, share: Share, stream: Stream) -> bool:
    """Repeat what we hold and take what comes until the share is active; False where it ended otherwise.

    One that was given up is tried for as long as others linger: who has the complete set has it from a party that lied.
    """
    row = await at.store.sealed_row(share.share_id)
    waits = delays(first=1.0, longest=LONGEST_DELAY)
    stated = False
    with trio.CancelScope() as scope:
        while share.status in {ShareStatus.PENDING, ShareStatus.QUARANTINED}:
            if share.status is ShareStatus.QUARANTINED:
                scope.deadline = min(scope.deadline, trio.current_time() + at.settings.limits.linger_seconds)
            try:
                if not stated:
                    own = await at.wall.ask(wire.ConfirmRow(row=row), wire.Statement)
                    await keep(at, share, row, (own.data,))
                    stated = True
                for statement in (await at.store.confirmations(share.share_id)).values():
                    await stream.send(None, 0, statement)
                with trio.move_on_after(next(waits)):
                    while await keep(at, share, row, ((await stream.receive()).payload,)):
                        pass
            except Altered as error:
                await give_up(at, share, error)
                return False
            except (TokenLost, Busy, AuditUnwritable) as error:
                log.info("confirming waits", share_id=str(share.share_id), problem=error.message)
                await trio.sleep(next(waits))
            share = await at.store.share(share.share_id)
    return share.status is ShareStatus.ACTIVE


async def _linger(at: Desk, share: Share, stream: Stream) -> None:
    """Whatever a party of this committee still says in this session, it lacks the set."""
    statements = (await at.store.confirmations(share.share_id)).values()
    with trio.move_on_after(at.settings.limits.linger_seconds):
        await answer(stream, {str(party) for party in share.committee.parties} - {str(share.party_id)}, statements)


async def answer(stream: Stream, whom: set[str] | None, statements: Collection[bytes]) -> None:
    """Give the statements to each party that says anything, and to it alone: others that linger would answer too.

    Ever more slowly, for two that both answer would otherwise keep each other busy.
    """
    waits = delays(*ANSWER_SECONDS)
    while True:
        incoming = await stream.receive()
        if whom is None or incoming.from_party in whom:
            for statement in statements:
                await stream.send(incoming.from_party, 0, statement)
            await trio.sleep(next(waits))
