"""Outbox -> coordinator and event file: in order, at least once.

What a transaction put into the outbox is marked only after it has left, so a crash in between sends it again. Events
leave in the order they were put there. Reports of one session do too; those of other sessions do not wait for one that
the coordinator stumbles over, nor behind one that it refuses for good, which is marked so and written into the audit
log. While the coordinator is away they all wait.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Final

import structlog
import trio

from daemon.errors import Declined, Misspoken, SettingsRefused, Unreachable
from daemon.network.connection import delays

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from daemon.network.coordinator import Coordinator
    from daemon.shares.store import Store, Waiting
    from daemon.values import PartyId, SessionId

log = structlog.get_logger(__name__)

FAILURES_MAX: Final = 3
"""Reports that fail in a row before the coordinator counts as away: one session that it stumbles over is no outage."""
SWEEP_MAX: Final = 1000
"""Reports looked at in one sweep."""
LONGEST_DELAY: Final = 60.0
LINE_MAX: Final = 4 * 1024
"""Bytes of a line; an event has less than 2 KiB."""
BATCH_MAX: Final = 100 * LINE_MAX
"""Bytes that are written at once."""
LINE_BEGINS: Final = b'{"number":'


async def publish_reports(store: Store, coordinator: Coordinator) -> None:
    """Carry reports to the coordinator until cancelled. What is new need not wait until what failed is tried again."""
    waits = delays(longest=LONGEST_DELAY)
    again = True
    while True:
        grown = store.outbox_grown()
        if await _report_all(store, coordinator, again=again):
            waits = delays(longest=LONGEST_DELAY)
            again = True
            await grown.wait()
            continue
        if again:
            due = trio.current_time() + next(waits)
        with trio.move_on_at(due):
            await grown.wait()
        again = trio.current_time() >= due


async def _report_all(store: Store, coordinator: Coordinator, *, again: bool) -> bool:
    """Try what waits: sessions that failed least often first, then by age; each session's reports in their order.

    So the few that always fail come last, and none of them always before another.

    Args:
        store: Whose outbox.
        coordinator: Whom to tell.
        again: Also what failed before.

    Returns:
        Whether nothing is left.
    """
    failures = 0
    for reports in _by_session(await store.waiting("report", limit=SWEEP_MAX)):
        if reports[0].attempts and not again:
            break
        if await _report_each(store, coordinator, reports):
            failures = 0
        else:
            failures += 1
            if failures == FAILURES_MAX:
                break
    return not await store.waiting("report", limit=1)


def _by_session(reports: list[Waiting]) -> list[list[Waiting]]:
    sessions: dict[tuple[SessionId, PartyId], list[Waiting]] = {}
    for report in reports:
        sessions.setdefault((report.session_id, report.party_id), []).append(report)
    return sorted(sessions.values(), key=lambda of_one: of_one[0].attempts)


async def _report_each(store: Store, coordinator: Coordinator, reports: list[Waiting]) -> bool:
    """Report what came of one session, in order, up to the first that fails; whether none did."""
    for report in reports:
        try:
            await coordinator.report(report.session_id, report.party_id, report.payload)
        except Declined as error:
            log.exception("report refused", session_id=str(report.session_id), problem=error.message)
            await store.delivered([report.number], refused=error.message)
        except (Unreachable, Misspoken) as error:
            await store.attempted(report.number)
            log.warning("report delayed", session_id=str(report.session_id), problem=error.message)
            return False
        else:
            await store.delivered([report.number])
    return True


async def publish_events(store: Store, file: Path) -> None:
    """Append events to a file of JSON lines until cancelled.

    A line is one event with its `number` in front; a number may come twice after a crash, consumers skip what they
    have.
    """
    waits: Iterator[float] = delays(longest=LONGEST_DELAY)
    while True:
        grown = store.outbox_grown()
        events = await store.waiting("event")
        try:
            if events:
                await trio.to_thread.run_sync(_append, file, events)
        except (OSError, SettingsRefused) as error:
            log.error("events cannot be written", file=str(file), problem=str(error))  # noqa: TRY400  it says all
            await trio.sleep(next(waits))
            continue
        waits = delays(longest=LONGEST_DELAY)
        if events:
            await store.delivered([event.number for event in events])
        else:
            await grown.wait()


def _append(file: Path, events: list[Waiting]) -> None:
    """Write whole lines and force them to disk. A line that a crash cut short is cut off: its event is in `events`.

    Raises:
        SettingsRefused: The file ends with something else, which is left as it is.
        OSError: It cannot be written.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    with os.fdopen(descriptor, "r+b") as lines:
        size = lines.seek(0, os.SEEK_END)
        begin = lines.seek(max(0, size - BATCH_MAX))
        tail = lines.read().rstrip(b"\0")  # a loss of power leaves these, where the length was on the disk first
        cut_short = tail[tail.rfind(b"\n") + 1 :]
        torn = begin and b"\n" not in tail
        if torn or len(cut_short) >= LINE_MAX or not LINE_BEGINS.startswith(cut_short[: len(LINE_BEGINS)]):
            raise SettingsRefused(
                f"{file} ends with something that is no event", "name another events.file, or move this one away"
            )
        whole = begin + len(tail) - len(cut_short)
        lines.truncate(whole)
        lines.seek(whole)
        for event in events:
            line = json.dumps({"number": event.number, **event.payload}, separators=(",", ":"))
            lines.write(line.encode() + b"\n")
        lines.flush()
        os.fsync(lines.fileno())
