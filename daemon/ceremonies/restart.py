"""After a stop or crash: what was under way has failed, and those who wait for us are told; what was made goes on.

Nothing is resumed inside a round. A share that was pending goes on being confirmed; an active one's report is in the
outbox.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

import structlog
import trio

from daemon.ceremonies import confirming
from daemon.custody import wire
from daemon.errors import DaemonError, Restarted
from daemon.values import Channel, now

if TYPE_CHECKING:
    from daemon.desk import Desk
    from daemon.shares.store import Interrupted

log = structlog.get_logger(__name__)

NOTICE_SECONDS: Final = 60.0
"""How long we try to tell the peers; their stall clocks end the session anyway."""
NOTICES_AT_ONCE: Final = 16


async def pick_up(at: Desk) -> None:
    """Before the doors open: end what a stop has ended, go on with what goes on.

    Raises:
        AuditUnwritable: It cannot be written down.
    """
    limiter = trio.Semaphore(NOTICES_AT_ONCE)
    for interrupted in await at.store.interrupted():
        session = await at.store.session(interrupted.session_id, interrupted.party_id)
        report = at.settings.coordinator.report_failures
        await at.store.end(session, Restarted("tssd stopped while the session was under way"), report=report)
        log.warning("session ended by a restart", session_id=str(session.session_id), party_id=str(session.party_id))
        if interrupted.begun and interrupted.channel is Channel.SEALED and interrupted.seat is not None:
            at.background.start_soon(_give_notice, at, interrupted, interrupted.seat, limiter)
    since = now() - timedelta(seconds=at.settings.limits.linger_seconds)
    for share in (*await at.store.pending_shares(), *await at.store.recent_keys(since)):
        at.background.start_soon(confirming.see_through, at, share)


async def _give_notice(at: Desk, interrupted: Interrupted, seat: int, limiter: trio.Semaphore) -> None:
    """A signed abort notice for a session that the custodian does not know any more."""
    request = wire.AbortUnknown(
        session=interrupted.session_id.octets, party_id=str(interrupted.party_id), seat=seat, reason=Restarted.kind
    )
    async with limiter:
        with trio.move_on_after(NOTICE_SECONDS):
            try:
                await at.custodian.wait_ready()
                notice = await at.wall.ask(request, wire.Statement)
                async with at.router.open(interrupted.session_id, interrupted.party_id) as stream:
                    await stream.send(None, 0, notice.data)
            except* DaemonError as group:
                problem = str(group.exceptions[0])
                log.info("no abort notice", session_id=str(interrupted.session_id), problem=problem)
