"""Outbox -> coordinator and event file: in order, at least once.

What a transaction put into the outbox leaves in the order it was put there and is marked only after it has left, so a
crash in between sends it again. Reports whose coordinator is away wait; a report that it refuses for good is marked
so, written into the audit log, and does not hold up the others.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Final

import structlog
import trio

from daemon.errors import Declined, Misspoken, Unreachable
from daemon.network.connection import delays

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from daemon.network.coordinator import Coordinator
    from daemon.shares.store import Store, Waiting

log = structlog.get_logger(__name__)

FAILURES_MAX: Final = 3
"""Reports that fail in a row before the coordinator counts as away: one session that it stumbles over is no outage."""
LONGEST_DELAY: Final = 60.0
TAIL: Final = 1024 * 1024
"""Bytes at the end of the event file in which the last newline must be; an event has less than 2 KiB."""


async def publish_reports(store: Store, coordinator: Coordinator) -> None:
    """Carry reports to the coordinator until cancelled."""
    waits = delays(longest=LONGEST_DELAY)
    while True:
        grown = store.outbox_grown()
        if await _report_all(store, coordinator):
            waits = delays(longest=LONGEST_DELAY)
            await grown.wait()
        else:
            await trio.sleep(next(waits))


async def _report_all(store: Store, coordinator: Coordinator) -> bool:
    """Try every report that waits, oldest first; whether none is left."""
    failures = 0
    left = False
    for report in await store.waiting("report"):
        try:
            await coordinator.report(report.session_id, report.party_id, report.payload)
        except Declined as error:
            log.exception("report refused", session_id=str(report.session_id), problem=error.message)
            await store.delivered([report.number], refused=error.message)
        except (Unreachable, Misspoken) as error:
            await store.attempted(report.number)
            log.warning("report delayed", session_id=str(report.session_id), problem=error.message)
            left = True
            failures += 1
            if failures == FAILURES_MAX:
                break
        else:
            await store.delivered([report.number])
            failures = 0
    return not left and not await store.waiting("report", limit=1)


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
        except OSError as error:
            log.exception("events cannot be written", file=str(file), problem=str(error))
            await trio.sleep(next(waits))
            continue
        waits = delays(longest=LONGEST_DELAY)
        if events:
            await store.delivered([event.number for event in events])
        else:
            await grown.wait()


def _append(file: Path, events: list[Waiting]) -> None:
    """Write whole lines and force them to disk. A line that a crash cut short is cut off: its event is in `events`."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    with os.fdopen(descriptor, "r+b") as lines:
        size = lines.seek(0, os.SEEK_END)
        lines.seek(max(0, size - TAIL))
        tail = lines.read()
        whole = size - len(tail) + tail.rfind(b"\n") + 1
        lines.truncate(whole)
        lines.seek(whole)
        for event in events:
            line = json.dumps({"number": event.number, **event.payload}, separators=(",", ":"))
            lines.write(line.encode() + b"\n")
        lines.flush()
        os.fsync(lines.fileno())
