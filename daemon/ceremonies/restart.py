"""After a stop or crash: what was under way has failed, and those who wait for us are told; what was made goes on.

Nothing is resumed inside a round. A share that was pending goes on being confirmed; an active one's report is in the
outbox.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from daemon.ceremonies import confirming
from daemon.ceremonies.withdrawing import withdraw
from daemon.errors import Restarted
from daemon.values import Channel, now

if TYPE_CHECKING:
    from daemon.desk import Desk

log = structlog.get_logger(__name__)


async def pick_up(at: Desk) -> None:
    """Before the doors open: end what a stop has ended, go on with what goes on.

    Raises:
        AuditUnwritable: It cannot be written down.
    """
    for interrupted in await at.store.interrupted():
        session = await at.store.session(interrupted.session_id, interrupted.party_id)
        report = at.settings.coordinator.report_failures
        await at.store.end(session, Restarted("tssd stopped while the session was under way"), report=report)
        log.warning("session ended by a restart", session_id=str(session.session_id), party_id=str(session.party_id))
        if interrupted.begun and interrupted.channel is Channel.SEALED and interrupted.seat is not None:
            at.background.start_soon(withdraw, at, session, interrupted.seat, Restarted.kind)
    since = now() - timedelta(seconds=at.settings.limits.linger_seconds)
    for share in (*await at.store.pending_shares(), *await at.store.recent_keys(since)):
        at.background.start_soon(confirming.see_through, at, share)
