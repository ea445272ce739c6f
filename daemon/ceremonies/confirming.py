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
from daemon.errors import Busy, DaemonError, TokenLost
from daemon.network.connection import delays
from daemon.share import ShareStatus
from daemon.values import Channel
from daemon.wall import Altered

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daemon.desk import Desk
    from daemon.network.router import Stream
    from daemon.share import Share

log = structlog.get_logger(__name__)

STATEMENT_MAX: Final = 16 * 1024
"""Bytes of a statement; one of 32 parties has less than 8 KiB. What is longer is none."""
LONGEST_DELAY: Final = 60.0
"""Seconds between two repeats of our statement while others are missing."""
ANSWER_SECONDS: Final = 1.0
"""The complete set is sent at most so often to parties that ask."""


async def keep(at: Desk, share: Share, row: wire.ShareRow, statements: Iterable[bytes]) -> tuple[str, ...]:
    """Keep those statements that hold; with the complete set the share becomes active.

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
    for statement in statements:
        if statement in held.values() or not 0 < len(statement) <= STATEMENT_MAX:
            continue
        judged = await at.wall.ask(wire.CheckConfirmations(row=row, confirmations=(statement,)), wire.ConfirmedBy)
        fresh |= {party: statement for party in judged.confirmed if party not in held}
    if fresh:
        await at.store.add_confirmations(share, fresh)
    missing = tuple(sorted({str(party) for party in share.committee.parties} - held.keys() - fresh.keys()))
    if not missing:
        await _activate(at, share, confirmed=True)
    return missing


async def _activate(at: Desk, share: Share, *, confirmed: bool) -> None:
    if await at.store.activate(share, confirmed=confirmed):
        at.metrics.sessions.labels("keygen", "completed").inc()
        log.info("share active", share_id=str(share.share_id), public_key=str(share.public_key), confirmed=confirmed)


async def see_through(at: Desk, share: Share) -> None:
    """Collect until the share is active, then for a while answer those that still ask.

    In the background, for ever if need be: an incomplete set never expires by itself; an operator may quarantine it.
    """
    try:
        async with at.router.open(share.session_id, share.party_id) as stream:
            if share.status is ShareStatus.PENDING and not await _collect(at, share, stream):
                return
            await _linger(at, share, stream)
    except* DaemonError as group:
        log.warning("confirming given up", share_id=str(share.share_id), problem=str(group.exceptions[0]))


async def _collect(at: Desk, share: Share, stream: Stream) -> bool:
    """Repeat what we hold and take what comes until the share is active; False where it ended otherwise."""
    row = await at.store.sealed_row(share.share_id)
    waits = delays(first=1.0, longest=LONGEST_DELAY)
    stated = False
    while (await at.store.share(share.share_id)).status is ShareStatus.PENDING:
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
        except Altered:
            await at.store.quarantine(share.share_id, "did not open for its confirmation")
        except (TokenLost, Busy) as error:
            log.info("confirming waits", share_id=str(share.share_id), problem=error.message)
            await trio.sleep(next(waits))
    return (await at.store.share(share.share_id)).status is ShareStatus.ACTIVE


async def _linger(at: Desk, share: Share, stream: Stream) -> None:
    """Whatever a party of this committee still says in this session, it lacks the set: give it to that party alone.

    An answer to all would be taken for a question by the others that linger.
    """
    others = {str(party) for party in share.committee.parties} - {str(share.party_id)}
    statements = (await at.store.confirmations(share.share_id)).values()
    with trio.move_on_after(at.settings.limits.linger_seconds):
        while True:
            incoming = await stream.receive()
            if incoming.from_party in others:
                for statement in statements:
                    await stream.send(incoming.from_party, 0, statement)
                await trio.sleep(ANSWER_SECONDS)
