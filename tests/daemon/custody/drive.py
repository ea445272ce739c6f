"""The network side of a keygen and a signing, for a look at its memory: ``python drive.py COMMITTEE ROW``.

Says on standard output where it is, with the custodians' process ids, and goes on when it reads a line.
"""

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import trio

from daemon.custody.client import Custodian
from daemon.custody.wire import Done, Forget
from tests.daemon.custody.committee import (
    Committee,
    Table,
    begin_keygen,
    begin_signing,
    finish_keygen,
    finish_signing,
)

PLANTED = bytes(range(100, 160))
"""In this process's memory on purpose: a scan that does not find it is no scan."""
DEALT_ROUND = 3
"""All sub-shares are on their way, or have arrived."""


class SeededCustodian(subprocess.Popen[bytes]):
    """What the client starts, around the seeded core."""

    def __init__(self, command: list[str], **options: Any) -> None:  # noqa: ANN401  (Popen's)
        program = str(Path(__file__).with_name("seeded_custodian.py"))
        super().__init__([command[0], program, *command[4:]], **options)


async def pause(stage: str, custodians: dict[str, Custodian]) -> None:
    pids = {}
    for name, custodian in custodians.items():
        assert custodian._connection is not None
        assert custodian._connection._process is not None
        pids[name] = custodian._connection._process.pid
    print(json.dumps({"stage": stage, "custodians": pids}), flush=True)  # noqa: T201  (its output)
    await trio.to_thread.run_sync(sys.stdin.readline)


async def forget(table: Table) -> None:
    for name, number in table.ceremonies.items():
        await table.custodians[name].ask(Forget(ceremony=number), Done)


async def drive(committee: Committee, row: Path) -> None:
    async with committee.up() as custodians:
        table = await begin_keygen(committee, custodians)
        await table.deliver(lambda: "alice" in table.progress and table.progress["alice"].round == DEALT_ROUND)
        await pause("keygen running", custodians)
        await table.until("result")
        await pause("keygen result", custodians)
        shares = await finish_keygen(table)
        await trio.Path(row).write_bytes(msgspec.msgpack.encode(shares["alice"].row))
        await pause("keygen complete", custodians)
        await forget(table)
        await pause("keygen forgotten", custodians)
        pair = {name: custodians[name] for name in ("alice", "bob")}
        table = await begin_signing(committee, pair, shares, b"\5" * 32)
        await table.until("result", "complete")
        await pause("signing result", custodians)
        await finish_signing(table)
        await forget(table)
        await pause("signing forgotten", custodians)


if __name__ == "__main__":
    setattr(subprocess, "Popen", SeededCustodian)  # noqa: B010  (for this program, which starts nothing else)
    trio.run(drive, pickle.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2]))  # noqa: S301  (our own)
