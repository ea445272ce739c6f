"""Ready means: a signing that is asked for now is admitted, and all that is in our own hands for it is there.

Of others it is known only what they did last: that is told beside it and does not count, for whoever sent us nothing
any more because of it would never learn that they are back. And what systemd's watchdog hears.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from daemon.events import timestamp
from daemon.session import SessionType
from daemon.share import ShareStatus
from daemon.systemd import tell_systemd, watchdog_seconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

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
        reasons = [reason async for reason in _reasons(desk)]
        return cls(ready=not reasons, reasons=tuple(reasons), notes=tuple([note async for note in _notes(desk)]))


async def _reasons(desk: Desk) -> AsyncIterator[str]:
    status = desk.custodian.status
    if desk.admission.stopping:
        yield "tssd is stopping"
    if status is None:
        yield desk.custodian.reason or "the custodian is away; it is being brought back"
    elif status.state != "ready":
        yield status.reason or f"the custodian is in state '{status.state}'"
    else:
        for problem in filter(None, (status.chain_problem, status.pins_problem)):
            yield problem
    pins = await desk.store.pins()
    if not desk.settings.custodian.plain and (pins is None or not pins.count):
        yield "no peers are pinned yet; pin them with `tssctl peers add`"
    if desk.store.problem:
        yield desk.store.problem
    working, sessions = len(desk.admission.working), desk.settings.limits.sessions
    if working >= sessions:
        yield f"all {sessions} places are taken (limits.sessions); try again when a session has ended"


async def _notes(desk: Desk) -> AsyncIterator[str]:
    keygens = sum(running.session.type is SessionType.KEYGEN for running in desk.admission.working)
    if keygens >= desk.settings.limits.keygens:
        yield f"all {keygens} places for keygens are taken (limits.keygens)"
    if desk.wall.rate_problem:
        limits = "custodian.signings_per_minute, custodian.signings_per_hour"
        yield f"a signing was just refused: {desk.wall.rate_problem} ({limits})"
    for note in _of_neighbours(desk):
        yield note
    for protocol, permille in desk.pool.permille.items():
        yield f"pre-parameters for {protocol} in the making: {permille / 10:.0f} %"
    for kind, (count, _) in (await desk.store.backlog()).items():
        if kind == "report":
            yield f"{count} reports wait for the coordinator"
        elif desk.settings.events.file is not None:
            yield f"{count} events wait for {desk.settings.events.file}"
    pending = (await desk.store.count_shares())[ShareStatus.PENDING]
    if pending:
        yield f"{pending} shares wait for their peers' confirmations"
    for note in _of_resealing(desk):
        yield note


def _of_resealing(desk: Desk) -> Iterator[str]:
    if desk.resealing.left:
        yield f"{desk.resealing.left} shares are to be resealed"
    for share_id, why in desk.resealing.refused.items():
        yield f"share {share_id} is not resealed: {why}"


def _of_neighbours(desk: Desk) -> Iterator[str]:
    for name, reach in (("coordinator", desk.coordinator.reach), ("router", desk.router.reach)):
        if reach.since is not None:
            yield f"the {name} has not been well since {timestamp(reach.since)}: {reach.problem}"


async def feed_watchdog() -> None:
    """Tell systemd's watchdog, at half its interval, that the event loop turns; returns where nobody watches."""
    seconds = watchdog_seconds()
    while seconds is not None:
        tell_systemd("WATCHDOG=1")
        await trio.sleep(seconds / 2)
