"""kill -9 of one of three daemons at every point of a keygen and of a signing; what holds afterwards.

    python bench/kills.py [--quick] [--json FILE] [--every N] [--only WORD...]

A point is before or after one transaction of the store, one request across the wall, one frame for the router or one
request to the coordinator, one batch of events appended to a file or one delivery marked, counted from the admission
on (tests/end_to_end/killed.py). At each point: a session is started on all parties, the victim dies in it, is started
again and must be ready within `RESTART_SECONDS`; the session must have ended everywhere and the same way, or have been
completed by confirmations, and asking for it again must begin nothing; whoever completed it has reported that, and has
its events in order by route and by file, none missing; every share that was committed must be there; no two signatures
may have the same r; and the three go on signing. Whatever does not hold is an exception. Pre-parameters are recorded
ones: their search is not what is tried here.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import trio

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from localnet.net import Net, open_net  # noqa: E402 - the project's root has to be found first
from tests.end_to_end.prepared import fill, forget_moduli  # noqa: E402 - likewise
from tests.tss_cffi import seeded  # noqa: E402 - likewise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from localnet.party import Party

KILLED: Final = ROOT / "tests" / "end_to_end" / "killed.py"
NAMES: Final = ("alice-server", "bob-phone", "carol-backup")
VICTIM: Final = "bob-phone"
SIGNERS: Final = ("alice-server", "bob-phone")
RESTART_SECONDS: Final = 3.0
"""On a machine that has nothing else to do; elsewhere the time is only told."""
END_SECONDS: Final = 60.0
SETS: Final = 150
"""Recorded pre-parameters for so many keygens."""
TICKS: Final = os.sysconf("SC_CLK_TCK")
TABLES: Final[dict[str, dict[str, object]]] = {
    "limits": {
        "sessions": 8,
        "keygen_seconds": 40,
        "signing_seconds": 30,
        "stall_seconds": 10,
        "linger_seconds": 30,
    },
    "custodian": {"arena_mib": 4, "signings_per_minute": 10000, "signings_per_hour": 100000},
    "keygen": {"prepared": 1},
    "log": {"level": "warning"},
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
    processor: list[float] = field(default_factory=list)
    """Seconds of processor time in it, the custodian's included."""
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
            "restart processor seconds, median": round(statistics.median(self.processor), 2),
            "restart processor seconds, max": round(max(self.processor), 2),
            "distinct nonces": len(self.nonces),
        }


def all_points(every: int, only: frozenset[str] = frozenset()) -> Iterator[Point]:
    """Every point a ceremony can have, and some more: where one was not reached, those behind it are left out.

    Args:
        every: One in so many.
        only: Words that a point must have; for several runs side by side.
    """
    for ceremony, kind, when in itertools.product(
        ("signing", "keygen"), ("commit", "call", "send", "request", "append", "delivered"), ("before", "after")
    ):
        if not only <= {ceremony, kind, when}:
            continue
        for number in range(1, 200, every):
            yield Point(ceremony, kind, number, when)


class Trial:
    """Three parties, one of which dies again and again."""

    def __init__(self, net: Net, key: str) -> None:
        self.net = net
        self.key = key
        self.victim = net.parties[VICTIM]
        self.findings = Findings()
        self._arm = self.victim.directory / "arm"
        self._turn = 0

    async def at(self, point: Point) -> bool:
        """One point; whether the session has it."""
        shares = await self._shares()
        self._arm.write_text(f"{point.kind} {point.number} {point.when}")
        session, tokens, expected = self._invite(point.ceremony)
        bodies = {
            name: {"sessionId": session, "partyId": name, "joinToken": token, **expected}
            for name, token in tokens.items()
        }
        async with trio.open_nursery() as nursery:
            for name, body in bodies.items():
                nursery.start_soon(self._ask, name, point.ceremony, body)
        reached = await self._died(session)
        await self.restart(timed=reached)
        if reached and self.findings.restarts[-1] > RESTART_SECONDS and os.getloadavg()[0] <= (os.cpu_count() or 1):
            raise AssertionError(f"{point}: ready after {self.findings.restarts[-1]:.1f} s")
        await self._told(point, session, await self._ended(point, session, list(tokens)))
        await self._replayed(point, session, bodies[VICTIM])
        after = await self._shares()
        lost = {name: shares[name].items() - after[name].items() for name in shares}
        if any(lost.values()):
            raise AssertionError(f"{point}: shares changed or lost: {lost}")
        await self._sign_once()
        if point.ceremony == "keygen":
            for party in self.net.parties.values():
                forget_moduli(party)
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

    async def restart(self, *, timed: bool = False) -> None:
        """Start the victim, as one that can be armed."""
        await self.victim.stop(signal.SIGKILL)
        self._arm.unlink(missing_ok=True)
        began = time.monotonic()
        self.victim.program = (str(KILLED), str(self._arm))
        await self.victim.start()
        with trio.fail_after(END_SECONDS):
            async with self.victim.client() as client:
                while True:
                    with suppress(httpx.TransportError):
                        if (await client.get("/mpc-party/ready")).is_success:
                            break
                    await trio.sleep(0.02)
        if timed:
            assert self.victim.process is not None
            self.findings.restarts.append(time.monotonic() - began)
            self.findings.processor.append(processor_seconds(self.victim.process.pid))

    async def _died(self, session: str) -> bool:
        """Wait until the victim is dead, or the session over without that."""
        process = self.victim.process
        assert process is not None
        with trio.fail_after(END_SECONDS):
            while process.poll() is None:
                with suppress(httpx.TransportError):
                    async with self.victim.client() as client:
                        answer = await client.get(f"/mpc-party/sessions/{session}")
                        if answer.is_success and answer.json()["status"] != "in_progress" and await self._idle(client):
                            return process.poll() is not None
                await trio.sleep(0.05)
        return True

    async def _idle(self, client: httpx.AsyncClient) -> bool:
        """Whether nothing of the session is left to be done: report and events have left, its task has ended."""
        figures = (await client.get("/metrics")).text.splitlines()
        left = [line for line in figures if line.startswith(("tssd_sessions_running{", "tssd_outbox_waiting{"))]
        return all(line.endswith(" 0.0") for line in left)

    async def _replayed(self, point: Point, session: str, body: dict[str, object]) -> None:
        """The same request once more begins nothing: what has ended is told again."""
        path = f"/mpc-party/sessions/{session}"
        async with self.victim.client() as client:
            before = await client.get(path)
            if before.status_code == httpx.codes.NOT_FOUND:
                return  # it died before it had accepted
            (await client.post(f"/mpc-party/{point.ceremony}/participate", json=body)).raise_for_status()
            if (await client.get(path)).json() != before.json():
                raise AssertionError(f"{point}: the same request began the session once more")

    async def _told(self, point: Point, session: str, completed: set[str]) -> None:
        """Whoever completed the session has told the coordinator so, and whoever takes its events."""
        for name in completed:
            with trio.fail_after(END_SECONDS):
                while name not in self.net.coordinator.sessions[session].reports:  # noqa: ASYNC110  it tells nobody
                    await trio.sleep(0.02)
        if point.ceremony == "signing" and completed and self.net.coordinator.sessions[session].status == "failed":
            raise AssertionError(f"{point}: the parties' reports differ")
        for name, party in self.net.parties.items():
            async with party.client() as client:
                with trio.fail_after(END_SECONDS):
                    while not await self._idle(client):  # noqa: ASYNC110  it is another process
                        await trio.sleep(0.02)
                by_route = await self._events(client)
            told = {event["event"]["type"] for event in by_route if event["event"]["sessionId"] == session}
            expected = {"ShareCreated", "KeygenCompleted"} if point.ceremony == "keygen" else {"SigningCompleted"}
            if told != (expected if name in completed else set()):
                raise AssertionError(f"{point}: {name} told {told or 'no event'} of the session")
            if by_file(events_of(party)) != by_route:
                raise AssertionError(f"{point}: {name}'s event file is not what its route tells")

    async def _events(self, client: httpx.AsyncClient) -> list[dict[str, Any]]:
        """All that the route has; it says so itself that the numbers ascend."""
        found: list[dict[str, Any]] = []
        while True:
            after = found[-1]["number"] if found else 0
            answer = await client.get("/mpc-party/events", params={"after": after, "limit": 1000})
            page = answer.raise_for_status().json()["events"]
            if not page:
                return found
            found += page

    async def _ended(self, point: Point, session: str, names: list[str]) -> set[str]:
        """At nobody is the session left hanging; a keygen is completed by all or by none. Gives who completed it."""
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
        if point.ceremony == "signing" and completed:
            signature = await self._signature(session, min(completed))
            self._remember(signature)
        if point.ceremony == "keygen" and completed and completed != set(names):
            raise AssertionError(f"{point}: the parties disagree: {ends}")
        self.findings.completed += completed == set(names)
        self.findings.failed += completed != set(names)
        return completed

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

    async def _signature(self, session: str, name: str) -> str:
        async with self.net.parties[name].client() as client:
            return str((await client.get(f"/mpc-party/sessions/{session}")).json()["signature"])

    async def _sign_once(self) -> None:
        self._remember(await self.net.sign(self.key, SIGNERS, self._message()))

    def _remember(self, signature: str) -> None:
        nonce = signature[:64]
        if nonce in self.findings.nonces:
            raise AssertionError("a nonce was used twice")
        self.findings.nonces.add(nonce)


def events_of(party: Party) -> Path:
    """A party's event file."""
    return party.directory / "events.jsonl"


def write_events(party: Party) -> None:
    """Let a party's events go to a file of its own."""
    with party.config.open("a") as config:
        config.write(f'\n[events]\nfile = "{events_of(party)}"\n')


def by_file(file: Path) -> list[dict[str, Any]]:
    """A consumer's view of an event file: a line that comes again is skipped. As the route tells them.

    Raises:
        AssertionError: A line that comes again is another one, or one is too late.
    """
    found: dict[int, dict[str, Any]] = {}
    for line in file.read_text().splitlines() if file.exists() else ():
        event = json.loads(line)
        number = event.pop("number")
        if found.get(number, event) != event or (number not in found and found and number < max(found)):
            raise AssertionError(f"{file}: event {number} is another one, or out of order")
        found[number] = event
    return [{"number": number, "event": event} for number, event in found.items()]


def processor_seconds(pid: int) -> float:
    """Processor time of a process and of its children, so far."""
    seconds = 0.0
    for directory in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            text = (directory / "stat").read_text()
            fields = text[text.rindex(")") + 2 :].split()
            if int(directory.name) == pid or int(fields[1]) == pid:
                seconds += (int(fields[11]) + int(fields[12])) / TICKS
    return seconds


async def run(points: Iterator[Point], directory: Path, *, sets: int = SETS, told: bool = True) -> Findings:
    """Try these points, one after the other, on one network that can make so many keys."""
    async with open_net(directory, NAMES, tables=TABLES, before_start=write_events) as net:
        for seat, party in enumerate(net.parties.values(), 1):
            await trio.to_thread.run_sync(fill, party, seat, sets)
        trial = Trial(net, await net.keygen(2))
        for party in net.parties.values():
            forget_moduli(party)
        await trial.restart()
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
    parser.add_argument("--only", nargs="+", default=[], help="points of this ceremony, kind or side alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    given = parser.parse_args()
    seeded.core.open_arena(seeded.ARENA)
    points = all_points(15 if given.quick else given.every, frozenset(given.only))
    with tempfile.TemporaryDirectory(prefix="kills-") as directory:
        sets = 2 if "signing" in given.only else SETS
        findings = trio.run(lambda: run(points, Path(directory), sets=sets))
    for name, value in findings.table().items():
        print(f"{name:26} {value}")
    if given.json:
        given.json.write_text(json.dumps(findings.table() | {"cores": os.cpu_count()}, indent=1))


if __name__ == "__main__":
    main()
