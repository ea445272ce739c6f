"""The custodian signs the head of the audit log, every so many rows and every so many seconds.

It signs it together with the head of a chain of its own, which counts every use of a key. So neither side can rewrite
its history alone: what was signed here is shown to each new custodian process (`ShowCheckpoint`), which refuses to
work when its own chain does not reach so far.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
import trio

from daemon.custody import wire
from daemon.errors import Busy, Refused, TokenLost

if TYPE_CHECKING:
    from daemon.settings import AuditSettings
    from daemon.shares.store import Store
    from daemon.wall import Wall

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 1.0
"""How often the log's length is looked at; one read of a primary key."""


async def keep_signing(settings: AuditSettings, store: Store, wall: Wall) -> None:
    """Have the head signed whenever it is due, until cancelled."""
    shown = 0
    newest = await store.newest_checkpoint()
    signed_count = 0 if newest is None else newest.audit_count
    signed_at = trio.current_time()
    told = ""
    while True:
        try:
            await wall.custodian.wait_ready()
            if newest is not None and wall.custodian.epoch != shown:
                shown = wall.custodian.epoch
                await wall.ask(wire.ShowCheckpoint(checkpoint=newest), wire.Done, epoch=shown)
            count, _ = await store.audit_head()
            late = trio.current_time() - signed_at >= settings.checkpoint_seconds
            if count - signed_count >= settings.checkpoint_rows or (late and count > signed_count):
                newest = await sign_head(store, wall)
                signed_count, signed_at = newest.audit_count, trio.current_time()
                shown = wall.custodian.epoch
            told = ""
        except Refused as error:
            if error.message != told:  # what stays so is said by /ready
                log.exception("the custodian refuses the audit log's head", problem=error.message)
            told = error.message
        except (TokenLost, Busy) as error:
            log.info("checkpoint waits", problem=error.message)
        await trio.sleep(LOOK_SECONDS)


async def sign_head(store: Store, wall: Wall) -> wire.Checkpointed:
    """Have the present head signed, and keep what was signed.

    Raises:
        TokenLost, Busy, Refused: As for `Wall.ask`.
    """
    count, head = await store.audit_head()
    signed = await wall.ask(wire.Checkpoint(audit_count=count, audit_head=head), wire.Checkpointed)
    await store.keep_checkpoint(signed)
    return signed
