"""What the custodian costs: opening and sealing through the wall and without it, one call.

    python bench/custody.py [--quick] [--json FILE] [--operations N]

A fresh SoftHSM token, one custodian, a sealed share of 20 kB. "Direct" is the same work in one process, without the
wall. What the wall costs is the median of a call that does nothing but cross it. An open through it less a direct
one is more than that: the row's 20 kB are carried, checked and digested as well. A reseal is an open and a seal, and an
event in the chain, which is on the disk before the answer. --operations repeats opens and seals so often and reports
crashes.

A run that is not --quick says where it misses what is required, and ends with 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from daemon.custody import rows  # noqa: E402 - the project's root has to be found first
from daemon.custody.wire import Done, OpenAndCheck, Request, Reseal, Resealed, Revoke, ShareRow  # noqa: E402 - likewise
from tests.daemon.custody.node import Node, init, make_node, sealed_row  # noqa: E402 - likewise
from tests.tss_cffi.seeded import core  # noqa: E402 - likewise

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from daemon.custody.client import Custodian
    from hsm import Token

SHARE_BYTES: Final = 20_000
CALLERS: Final = (1, 2, 4, 8)
OPENS_REQUIRED: Final = 2000
OVERHEAD_MS_REQUIRED: Final = 0.3
Figure = dict[str, Any]


def direct(token: Token, row: ShareRow, seconds: float) -> list[Figure]:
    """Opens, and opens with seals, by threads of this process."""
    header = rows.share_header(row)
    blob = rows.blob_of(row.sealed)

    def open_once() -> None:
        token.open(blob, header, core.SecretBytes).close()  # type: ignore[attr-defined]  # what the callable made

    def reseal_once() -> None:
        opened = token.open(blob, header, core.SecretBytes)
        token.seal(opened, header)
        opened.close()  # type: ignore[attr-defined]  # likewise

    figures = []
    for what, once in (("open, direct", open_once), ("open+seal, direct", reseal_once)):
        for callers in CALLERS:
            counts = [0] * callers
            until = time.perf_counter() + seconds

            def work(number: int, *, once: Callable[[], None] = once, until: float = until) -> None:
                while time.perf_counter() < until:
                    once()
                    counts[number] += 1  # noqa: B023 - the threads end within this turn of the loop

            threads = [threading.Thread(target=work, args=(number,)) for number in range(callers)]
            began = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            figures.append(rate(what, callers, sum(counts), time.perf_counter() - began))
    return figures


def opened_once(token: Token, row: ShareRow, calls: int) -> list[float]:
    """Milliseconds of opens in this process, one after the other."""
    header, blob = rows.share_header(row), rows.blob_of(row.sealed)
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        token.open(blob, header, core.SecretBytes).close()  # type: ignore[attr-defined]  # what the callable made
        times.append((time.perf_counter() - began) * 1000)
    return times


def rate(what: str, callers: int, count: int, seconds: float) -> Figure:
    """Operations a second."""
    return {"what": what, "callers": callers, "per_second": round(count / seconds, 1), "count": count}


async def through_the_wall(custodian: Custodian, row: ShareRow, seconds: float) -> list[Figure]:
    """The same by tasks, across the wall."""

    async def open_once() -> None:
        await custodian.ask(OpenAndCheck(row=row), Done)

    async def reseal_once() -> None:
        await custodian.ask(Reseal(row=row), Resealed)

    figures = []
    for what, once in (("open, wall", open_once), ("open+seal, wall", reseal_once)):
        for callers in CALLERS:
            began = time.perf_counter()
            count = await repeat(once, callers, seconds)
            figures.append(rate(what, callers, count, time.perf_counter() - began))
    return figures


async def repeat(once: Callable[[], Awaitable[None]], callers: int, seconds: float) -> int:
    """How often so many tasks did it in so long."""
    count = 0

    async def work() -> None:
        nonlocal count
        while trio.current_time() < until:
            await once()
            count += 1

    until = trio.current_time() + seconds
    async with trio.open_nursery() as nursery:
        for _ in range(callers):
            nursery.start_soon(work)
    return count


async def overhead(custodian: Custodian, row: ShareRow, alone: list[float]) -> list[Figure]:
    """What crossing costs. alone: milliseconds of opens on this side, as many as calls are made."""
    # A worker answers this without HSM, core or disk: a share that is revoked already.
    empty = await timed(custodian, Revoke(share_id="revoked"), len(alone))
    carrying = await timed(custodian, OpenAndCheck(row=row), len(alone))
    return [
        {"what": "one call", **spread(empty)},
        {"what": "one open, wall", **spread(carrying)},
        {"what": "one open, direct", **spread(alone)},
        {
            "what": "wall less direct",
            "median_ms": round(statistics.median(carrying) - statistics.median(alone), 3),
        },
    ]


async def timed(custodian: Custodian, request: Request, calls: int) -> list[float]:
    """Milliseconds of a request, one after the other; the first time is not counted."""
    await custodian.ask(request, Done)
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        await custodian.ask(request, Done)
        times.append((time.perf_counter() - began) * 1000)
    return times


async def endurance(custodian: Custodian, row: ShareRow, operations: int) -> Figure:
    """Opens and reseals, eight at a time; restarts are crashes."""
    before, done = custodian.restarts, 0

    async def work() -> None:
        nonlocal done
        while done < operations:
            done += 3
            await custodian.ask(OpenAndCheck(row=row), Done)
            await custodian.ask(Reseal(row=row), Resealed)

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(CALLERS[-1]):
            nursery.start_soon(work)
    return {
        "what": "endurance",
        "operations": done,
        "seconds": round(time.perf_counter() - began, 1),
        "crashes": custodian.restarts - before,
    }


def spread(times: list[float]) -> Figure:
    """Median and extremes, milliseconds."""
    return {
        "median_ms": round(statistics.median(times), 3),
        "min_ms": round(min(times), 3),
        "max_ms": round(max(times), 3),
        "count": len(times),
    }


async def measure(node: Node, asked: argparse.Namespace) -> list[Figure]:
    """Everything, on one node."""
    await init(node)
    seconds = 0.3 if asked.quick else 3.0
    with node.opened(sessions=CALLERS[-1]) as token:
        row = sealed_row(node, token, SHARE_BYTES)
        figures = direct(token, row, seconds)
        alone = opened_once(token, row, 200 if asked.quick else 5000)
    async with node.custodian() as custodian:
        figures += await through_the_wall(custodian, row, seconds)
        figures += await overhead(custodian, row, alone)
        if asked.operations:
            figures.append(await endurance(custodian, row, asked.operations))
    return figures


def report(figures: list[Figure], *, judged: bool) -> bool:
    """Print them, and what is required of them; where they are judged, False if one misses it."""
    print(f"{platform.machine()}, {os.cpu_count()} cores, SoftHSM, a share of {SHARE_BYTES} bytes")
    for figure in figures:
        rest = "  ".join(f"{name} {value}" for name, value in figure.items() if name != "what")
        print(f"  {figure['what']:<20} {rest}")
    medians = {figure["what"]: figure["median_ms"] for figure in figures if "median_ms" in figure}
    opens = max(figure["per_second"] for figure in figures if figure["what"] == "open, wall")
    crashes = sum(figure.get("crashes", 0) for figure in figures)
    call = medians["one call"]
    required = (
        (f"opens through the wall: {opens:.0f}/s (required {OPENS_REQUIRED}/s)", opens >= OPENS_REQUIRED),
        (
            f"overhead of the wall: {call:.3f} ms median for a call (at most {OVERHEAD_MS_REQUIRED} ms)",
            call <= OVERHEAD_MS_REQUIRED,
        ),
        (f"crashes: {crashes} (required 0)", crashes == 0),
    )
    for line, met in required:
        print(f"  {line}{': FAILED' if judged and not met else ''}")
    return not judged or all(met for _, met in required)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--operations", type=int, default=0, metavar="N", help="also so many operations in a row")
    asked = parser.parse_args()
    core.open_arena(1 << 20)
    with tempfile.TemporaryDirectory() as directory:
        node = make_node(Path(directory) / "node", "bench-server")
        figures = trio.run(measure, node, asked)
    as_required = report(figures, judged=not asked.quick)
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if not as_required:
        sys.exit(1)


if __name__ == "__main__":
    main()
