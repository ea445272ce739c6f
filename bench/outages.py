"""How long the custodian is away when its HSM was, or when it died itself.

    python bench/outages.py [--quick] [--json FILE] [--cycles N]

A fresh SoftHSM token behind the tests' module that misbehaves on demand, one custodian, its supervisor, a share of
20 kB. Each cycle breaks something, waits until it is felt, mends it, and counts from then until a share opens again;
a hung call is not mended by anybody, and counts from its beginning. Every kind gets its part of the cycles, all of them
in one life of the supervisor.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from daemon.custody.client import CustodianGone, CustodyFailure  # noqa: E402 - the project's root has to be found first
from daemon.custody.wire import Done, OpenAndCheck, ShareRow  # noqa: E402 - likewise
from hsm import CKR  # noqa: E402 - likewise
from tests.daemon.custody.node import SOFTHSM, Node, init, make_node, sealed_row  # noqa: E402 - likewise
from tests.hsm import fault  # noqa: E402 - likewise
from tests.tss_cffi.seeded import core  # noqa: E402 - likewise

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from daemon.custody.client import Custodian

SHARE_BYTES: Final = 20_000
BACK_SECONDS: Final = 2.0
HUNG_SECONDS: Final = 10.0
CYCLES: Final = 600
QUICK_CYCLES: Final = 8
CONNECTING: Final = itertools.cycle(("C_Login", "C_OpenSession", "C_Initialize"))
"""Where it hangs while connecting, in turn."""
Figure = dict[str, Any]


@dataclass
class Bench:
    """What is broken and mended."""

    node: Node
    control: fault.Control
    custodian: Custodian
    row: ShareRow
    tokens: Path
    aside: Path
    """Where the token's files are while they are not in their place."""
    blank: Path
    """Files of the same token, initialised anew."""

    async def opens(self) -> bool:
        """Whether a share does now."""
        try:
            await self.custodian.ask(OpenAndCheck(row=self.row), Done)
        except (CustodyFailure, CustodianGone):
            return False
        return True

    async def until_felt(self) -> None:
        """Ask until it fails."""
        while await self.opens():
            pass

    async def until_back(self) -> float:
        """Seconds until a share opens."""
        began = time.perf_counter()
        while not await self.opens():  # noqa: ASYNC110 - what another process does
            await trio.sleep(0.01)
        return time.perf_counter() - began


async def vanished(bench: Bench) -> float:
    """The token's files are gone, and come back."""
    bench.tokens.rename(bench.aside)
    await bench.until_felt()
    while bench.custodian.ready:
        await bench.custodian.wait_change()
    bench.aside.rename(bench.tokens)
    return await bench.until_back()


async def made_anew(bench: Bench) -> float:
    """Somebody initialises the token; the old files come back."""
    bench.tokens.rename(bench.aside)
    bench.blank.rename(bench.tokens)
    await bench.until_felt()
    while bench.custodian.ready:
        await bench.custodian.wait_change()
    bench.tokens.rename(bench.blank)
    bench.aside.rename(bench.tokens)
    return await bench.until_back()


async def daemon_killed(bench: Bench) -> float:
    """What the module talks to dies and is started again."""
    bench.control.stop_daemon()
    await bench.until_felt()
    bench.control.start_daemon()
    return await bench.until_back()


async def daemon_away(bench: Bench) -> float:
    """The same, and it is away until the custodian has tried what a fresh process can do."""
    restarts = bench.custodian.restarts
    bench.control.stop_daemon()
    await bench.until_felt()
    while bench.custodian.restarts == restarts:
        await bench.custodian.wait_change()
    bench.control.start_daemon()
    return await bench.until_back()


async def sessions_lost(bench: Bench) -> float:
    """All sessions and the login end."""
    bench.control.expire_sessions()
    return await bench.until_back()


async def sessions_exhausted(bench: Bench) -> float:
    """The same, and no session is to be had for a while."""
    bench.control.answer("C_OpenSession", CKR.SESSION_COUNT, times=0).expire_sessions()
    await bench.until_felt()
    bench.control.clear()
    return await bench.until_back()


async def crashed(bench: Bench) -> float:
    """The module takes the process down."""
    bench.control.fault("C_Decrypt", fault.Action.CRASH)
    await bench.until_felt()
    return await bench.until_back()


async def killed(bench: Bench) -> float:
    """Somebody does."""
    connection = bench.custodian._connection  # noqa: SLF001 - to kill its process
    assert connection is not None
    assert connection._process is not None  # noqa: SLF001 - likewise
    os.kill(connection._process.pid, signal.SIGKILL)  # noqa: SLF001 - likewise
    await bench.until_felt()
    return await bench.until_back()


async def hung(bench: Bench) -> float:
    """A call does not return."""
    began = time.perf_counter()
    bench.control.fault("C_Decrypt", fault.Action.HANG)
    await bench.until_felt()
    await bench.until_back()
    return time.perf_counter() - began


async def hung_connecting(bench: Bench) -> float:
    """The token fails, and a call by which it would be opened again does not return."""
    began = time.perf_counter()
    bench.control.fault(next(CONNECTING), fault.Action.HANG).answer("C_Decrypt", CKR.DEVICE_ERROR)
    await bench.until_felt()
    await bench.until_back()
    return time.perf_counter() - began


KINDS: Final[dict[str, tuple[Callable[[Bench], Awaitable[float]], int, float]]] = {
    "token vanished": (vanished, 6, BACK_SECONDS),
    "token initialised": (made_anew, 4, BACK_SECONDS),
    "provider daemon killed": (daemon_killed, 6, BACK_SECONDS),
    "provider daemon away": (daemon_away, 1, BACK_SECONDS),
    "sessions lost": (sessions_lost, 5, BACK_SECONDS),
    "sessions exhausted": (sessions_exhausted, 3, BACK_SECONDS),
    "module crashed": (crashed, 2, BACK_SECONDS),
    "custodian killed": (killed, 2, BACK_SECONDS),
    "call hung": (hung, 1, HUNG_SECONDS),
    "hung while connecting": (hung_connecting, 1, HUNG_SECONDS),
}
"""By name: the outage, its share of the cycles, the most seconds it may take."""


async def measure(directory: Path, cycles: int) -> list[Figure]:
    """All kinds of outages."""
    node = make_node(directory / "node", "bench-server")
    await init(node)
    control = fault.Control(directory / "control")
    with node.opened() as token:
        row = sealed_row(node, token, SHARE_BYTES)
    tokens, blank = node.token / "tokens", directory / "blank"
    shutil.copytree(tokens, directory / "kept")
    names = ["--token", "tssd", "--label", "tssd", "--so-pin", (node.token / "so-pin").read_text(), "--pin", node.pin]
    subprocess.run(  # noqa: ASYNC221 - nothing else runs yet
        ["softhsm2-util", "--init-token", *names],  # noqa: S607 - the platform's
        env=os.environ | {"SOFTHSM2_CONF": str(node.token / "softhsm2.conf")},
        check=True,
        capture_output=True,
    )
    tokens.rename(blank)
    (directory / "kept").rename(tokens)
    node.settings |= {
        "module_path": f'"{fault.build(directory)}"',
        "module_environment": f'{{ SOFTHSM2_CONF = "{node.token}/softhsm2.conf", TSSD_FAULT_TARGET = "{SOFTHSM}", '
        f'TSSD_FAULT_CONTROL = "{control.path}" }}',
    }
    node.write_config()
    whole = sum(part for _, part, _ in KINDS.values())
    figures = []
    async with node.custodian() as custodian:
        bench = Bench(node, control, custodian, row, tokens, directory / "aside", blank)
        for name, (outage, part, limit) in KINDS.items():
            restarts = custodian.restarts
            times = [await outage(bench) for _ in range(-(-cycles * part // whole))]
            figures.append(
                {
                    "what": name,
                    "cycles": len(times),
                    "median_s": round(statistics.median(times), 3),
                    "max_s": round(max(times), 3),
                    "limit_s": limit,
                    "restarts": custodian.restarts - restarts,
                }
            )
            show(figures[-1])
    return figures


def show(figure: Figure) -> None:
    """One line."""
    rest = "  ".join(f"{name} {value}" for name, value in figure.items() if name != "what")
    print(f"  {figure['what']:<24} {rest}", flush=True)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one or two of each kind")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--cycles", type=int, help=f"how many outages ({CYCLES}; --quick: {QUICK_CYCLES})")
    asked = parser.parse_args()
    core.open_arena(1 << 20)
    print(f"{platform.machine()}, {os.cpu_count()} cores, SoftHSM behind a module that fails on demand")
    with tempfile.TemporaryDirectory() as directory:
        figures = trio.run(measure, Path(directory), asked.cycles or (QUICK_CYCLES if asked.quick else CYCLES))
    late = [figure["what"] for figure in figures if figure["max_s"] > figure["limit_s"]]
    print(f"  {sum(figure['cycles'] for figure in figures)} outages; too late: {', '.join(late) or 'none'}")
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
