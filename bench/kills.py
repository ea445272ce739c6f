"""kill -9 of one of three daemons at every point of a keygen and of a signing; what holds afterwards.

    python bench/kills.py [--quick] [--json FILE] [--every N]

A point is before or after one transaction of the store, one request across the wall, or one frame for the router,
counted from the request on (bench/killed.py). At each point: a session is started on all parties, the victim dies in
it, is started again and must be ready within `RESTART_SECONDS`; the session must have ended everywhere, or have been
completed by confirmations; every share that was committed must be there; no two signatures may have the same r; and
the three go on signing. Whatever does not hold is an exception.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import trio

from localnet.net import Net, open_net

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[1]
NAMES: Final = ("alice-server", "bob-phone", "carol-backup")
VICTIM: Final = "bob-phone"
SIGNERS: Final = ("alice-server", "bob-phone")
RESTART_SECONDS: Final = 3.0
"""On a machine that has nothing else to do; elsewhere the time is only told."""
END_SECONDS: Final = 60.0
TABLES: Final[dict[str, dict[str, object]]] = {
    "limits": {"sessions": 8, "keygen_seconds": 40, "signing_seconds": 20, "stall_seconds": 20},
    "custodian": {"arena_mib": 4, "signings_per_minute": 10000, "signings_per_hour": 100000},
}


@dataclass(frozen=True)
class Point:
    """Where the victim dies: before or after the number-th commit, call or send of a keygen or signing."""

    ceremony: str
    kind: str
    number: int
    when: str


@dataclass
class Findings:
    """What was seen, over all points."""

    points: int = 0
    beyond: int = 0
    """Points that a session does not have."""
    restarts: list[float] = field(default_factory=list)
    """Seconds from the start of the process to being ready."""
    completed: int = 0
    failed: int = 0
    nonces: set[str] = field(default_factory=set)

    def table(self) -> dict[str, object]:
        """For people and programs."""
        return {
            "points": self.points,
            "sessions completed": self.completed,
            "sessions failed": self.failed,
            "restart seconds, median": round(statistics.median(self.restarts), 2),
            "restart seconds, max": round(max(self.restarts), 2),
            "distinct nonces": len(self.nonces),
        }


def all_points(every: int) -> Iterator[Point]:
    """Every point a ceremony can have, and some more: where one was not reached, those behind it are left out."""
    for ceremony, kind, when in itertools.product(
        ("signing", "keygen"), ("commit", "call", "send"), ("before", "after")
    ):
        for number in range(1, 200, every):
            yield Point(ceremony, kind, number, when)


class Trial:
    """Three parties, one of which dies again and again."""

    def __init__(self, net: Net, key: str) -> None:
        self.net = net
        self.key = key
        self.victim = net.parties[VICTIM]
        self.findings = Findings()
        self._turn = 0

    async def at(self, point: Point) -> bool:
        """One point; whether the session has it."""
        shares = await self._shares()
        await self.victim.stop()
        await self._start(point)
        session, tokens, expected = self._invite(point.ceremony)
        async with trio.open_nursery() as nursery:
            for name in tokens:
                body = {"sessionId": session, "partyId": name, "joinToken": tokens[name], **expected}
                nursery.start_soon(self._ask, name, point.ceremony, body)
        reached = await self._died(session)
        if not reached:
            await self.victim.stop()  # it is still armed
        began = time.monotonic()
        await self.victim.start()
        await self._ready()
        if reached:
            self.findings.restarts.append(time.monotonic() - began)
            if self.findings.restarts[-1] > RESTART_SECONDS and os.getloadavg()[0] <= (os.cpu_count() or 1):
                raise AssertionError(f"{point}: ready after {self.findings.restarts[-1]:.1f} s")
        await self._ended(point, session, list(tokens))
        after = await self._shares()
        lost = {name: shares[name].items() - after[name].items() for name in shares}
        if any(lost.values()):
            raise AssertionError(f"{point}: shares changed or lost: {lost}")
        await self._sign_once()
        self.findings.points += reached
        self.findings.beyond += not reached
        return reached

    def _invite(self, ceremony: str) -> tuple[str, dict[str, str], dict[str, object]]:
        if ceremony == "keygen":
            made = self.net.coordinator.create_keygen(list(NAMES), 2)
            return made.session_id, made.join_tokens, {"shareType": "wallet", "threshold": 2, "parties": list(NAMES)}
        message = self._message()
        made = self.net.coordinator.create_signing(self.key, SIGNERS, message)
        return made.session_id, made.join_tokens, {"messageHash": message, "publicKey": self.key}

    def _message(self) -> str:
        self._turn += 1
        return hashlib.sha256(str(self._turn).encode()).hexdigest()

    async def _ask(self, name: str, ceremony: str, body: dict[str, object]) -> None:
        """Ask one party to take part; the victim may die over it."""
        with suppress(httpx.TransportError):
            async with self.net.parties[name].client() as client:
                answer = await client.post(f"/mpc-party/{ceremony}/participate", json=body)
                answer.raise_for_status()

    async def _start(self, point: Point) -> None:
        """The victim, armed."""
        command = ["setpriv", "--pdeathsig", "TERM", sys.executable, str(ROOT / "bench" / "killed.py")]
        command += [point.kind, str(point.number), point.when, "--config", str(self.victim.config), "--trusted-config"]
        with self.victim.log.open("ab") as log:
            self.victim.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: ASYNC220
        await self._ready()

    async def _ready(self) -> None:
        with trio.fail_after(END_SECONDS):
            async with self.victim.client() as client:
                while True:
                    with suppress(httpx.TransportError):
                        if (await client.get("/mpc-party/ready")).is_success:
                            return
                    await trio.sleep(0.02)

    async def _died(self, session: str) -> bool:
        """Wait until the victim is dead, or the session over without that."""
        process = self.victim.process
        assert process is not None
        with trio.fail_after(END_SECONDS):
            while process.poll() is None:
                with suppress(httpx.TransportError):
                    async with self.victim.client() as client:
                        answer = await client.get(f"/mpc-party/sessions/{session}")
                        if answer.is_success and answer.json()["status"] != "in_progress" and not await self._outbox():
                            await trio.sleep(0.3)  # the last of its acts may still be under way
                            return process.poll() is not None
                await trio.sleep(0.05)
        return True

    async def _outbox(self) -> bool:
        async with self.victim.client() as client:
            return 'tssd_outbox_waiting{kind="report"} 0.0' not in (await client.get("/metrics")).text

    async def _ended(self, point: Point, session: str, names: list[str]) -> None:
        """At nobody is the session left hanging; a keygen is completed by all or by none."""
        ends: dict[str, str] = {}
        with trio.fail_after(END_SECONDS):
            for name in names:
                async with self.net.parties[name].client() as client:
                    while True:
                        answer = await client.get(f"/mpc-party/sessions/{session}")
                        if answer.status_code == httpx.codes.NOT_FOUND and name == VICTIM:
                            ends[name] = "never entered"
                            break
                        ends[name] = answer.json()["status"]
                        if ends[name] != "in_progress":
                            break
                        await trio.sleep(0.05)
        completed = {name for name in ends if ends[name] == "completed"}
        if point.ceremony == "keygen" and completed and completed != set(names):
            raise AssertionError(f"{point}: the parties disagree: {ends}")
        self.findings.completed += completed == set(names)
        self.findings.failed += completed != set(names)

    async def _shares(self) -> dict[str, dict[str, str]]:
        """Active shares of each party, with their status."""
        found = {}
        for name, party in self.net.parties.items():
            async with party.client() as client:
                listed: list[dict[str, Any]] = []
                while True:
                    after = {"after": listed[-1]["id"]} if listed else {}
                    page = (await client.get("/mpc-party/shares", params={"limit": 500, **after})).json()["shares"]
                    listed += page
                    if not page:
                        break
            found[name] = {share["id"]: share["status"] for share in listed if share["status"] == "active"}
        return found

    async def _sign_once(self) -> None:
        signature = await self.net.sign(self.key, SIGNERS, self._message())
        nonce = signature[:64]
        if nonce in self.findings.nonces:
            raise AssertionError("a nonce was used twice")
        self.findings.nonces.add(nonce)


async def run(points: Iterator[Point], directory: Path, *, told: bool = True) -> Findings:
    """Try these points, one after the other, on one network."""
    async with open_net(directory, NAMES, tables=TABLES) as net:
        key = await net.keygen(2)
        trial = Trial(net, key)
        beyond: set[tuple[str, str, str]] = set()
        for point in points:
            series = (point.ceremony, point.kind, point.when)
            if series in beyond:
                continue
            if not await trial.at(point):
                beyond.add(series)
            if told:
                print(
                    f"{point.ceremony:8} {point.when:6} {point.kind:6} {point.number:3}"
                    f"  {'reached' if series not in beyond else 'beyond'}",
                    flush=True,
                )
    return trial.findings


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="one point in fifteen")
    parser.add_argument("--every", type=int, default=1, help="one point in so many")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as directory:
        findings = trio.run(lambda: run(all_points(15 if given.quick else given.every), Path(directory)))
    for name, value in findings.table().items():
        print(f"{name:26} {value}")
    if given.json:
        given.json.write_text(json.dumps(findings.table() | {"cores": os.cpu_count()}, indent=1))


if __name__ == "__main__":
    main()
