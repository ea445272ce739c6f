"""Telling the peers, signed, that a session has ended here: after a crash, or where a finished share could not be kept.

A ceremony that fails tells its peers itself. This is for those that cannot, or whose peers may wait for a confirmation
long after the ceremony's own end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
import trio

from daemon.ceremonies import confirming
from daemon.custody import wire
from daemon.errors import Busy, DaemonError, TokenLost
from daemon.network.connection import delays
from daemon.session import SessionType

if TYPE_CHECKING:
    from daemon.desk import Desk
    from daemon.session import Session

log = structlog.get_logger(__name__)

SIGNING_SECONDS: Final = 60.0
"""For a signing: its peers' stall clocks end it anyway. A keygen's peers may ask for `limits.linger_seconds`."""


async def withdraw(at: Desk, session: Session, seat: int, reason: str) -> None:
    """Send the notice at once, and again to whoever still speaks in this session; in the background.

    The custodian signs none for a keygen that we have confirmed.
    """
    request = wire.AbortUnknown(
        session=session.session_id.octets, party_id=str(session.party_id), seat=seat, reason=reason
    )
    keygen = session.type is SessionType.KEYGEN
    with trio.move_on_after(at.settings.limits.linger_seconds if keygen else SIGNING_SECONDS):
        try:
            notice = await _signed(at, request)
            async with at.router.open(session.session_id, session.party_id) as stream:
                await stream.send(None, 0, notice)
                await confirming.answer(stream, None, (notice,))
        except* DaemonError as group:
            problem = str(group.exceptions[0])
            log.info("no abort notice", session_id=str(session.session_id), problem=problem)


async def _signed(at: Desk, request: wire.AbortUnknown) -> bytes:
    """The notice, as soon as the custodian can sign it. Raises Refused."""
    waits = delays(first=1.0)
    while True:
        try:
            await at.custodian.wait_ready()
            return (await at.wall.ask(request, wire.Statement)).data
        except (TokenLost, Busy) as error:
            log.info("abort notice waits", problem=error.message)
        await trio.sleep(next(waits))
