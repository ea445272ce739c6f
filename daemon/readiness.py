"""Ready means: able to sign now. And what systemd's watchdog hears of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from daemon.share import ShareStatus
from daemon.systemd import tell_systemd, watchdog_seconds

if TYPE_CHECKING:
    from daemon.desk import Desk


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """reasons: why not, each with what to do; empty when ready. notes: what an operator may want to know besides."""

    ready: bool
    reasons: tuple[str, ...]
    notes: tuple[str, ...]

    @classmethod
    async def of(cls, desk: Desk) -> Readiness:
        """As things are now."""
        reasons: list[str] = []
        notes: list[str] = []
        if desk.admission.stopping:
            reasons.append("tssd is stopping")
        status = desk.custodian.status
        if status is None:
            reasons.append(desk.custodian.reason or "the custodian is away; it is being brought back")
        elif status.state != "ready":
            reasons.append(status.reason or f"the custodian is in state '{status.state}'")
        else:
            reasons.extend(filter(None, (status.chain_problem, status.pins_problem)))
        if desk.store.problem:
            reasons.append(desk.store.problem)
        notes.extend(
            f"pre-parameters for {protocol} in the making: {permille / 10:.0f} %"
            for protocol, permille in desk.pool.permille.items()
        )
        for kind, (count, _) in (await desk.store.backlog()).items():
            if kind == "report":
                notes.append(f"{count} reports wait for the coordinator")
        pending = (await desk.store.count_shares())[ShareStatus.PENDING]
        if pending:
            notes.append(f"{pending} shares wait for their peers' confirmations")
        if desk.resealing.left:
            notes.append(f"{desk.resealing.left} shares are to be resealed")
        notes.extend(f"share {share_id} is not resealed: {why}" for share_id, why in desk.resealing.refused.items())
        return cls(ready=not reasons, reasons=tuple(reasons), notes=tuple(notes))


async def feed_watchdog() -> None:
    """Tell systemd's watchdog, at half its interval, that the event loop turns; returns where nobody watches."""
    seconds = watchdog_seconds()
    while seconds is not None:
        tell_systemd("WATCHDOG=1")
        await trio.sleep(seconds / 2)
