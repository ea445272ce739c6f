"""Hours of bad network around three real daemons: how their sessions end, and whether any outlives its deadline.

    bench/chaos.py [--quick] [--json FILE] [--minutes M] [--flight F] [--seed N]

The weather changes every minute: 1-30 % of the frames lost, up to 2 s of latency for each on its own (so that they
overtake one another), some repeated or with a bit flipped. Meanwhile the router restarts and forgets everything, the
coordinator restarts, and now and then a party is cut off from the router, or its frames vanish unnoticed. F signings
are kept under way, and one keygen. A session's time is the daemon's own word, `completedAt - startedAt`, for each
party; its deadline is the configured one. The figures so far are written to FILE every minute.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from localnet.net import Net, SessionFailed, open_net
from localnet.router import chain, corrupt, delay, drop, repeat

if TYPE_CHECKING:
    from localnet.coordinator import Invitation
    from localnet.router import Delivery, Mischief

PARTIES: Final = ("chaos-one", "chaos-two", "chaos-three")
SECONDS: Final = {"signing": 180.0, "keygen": 300.0}
"""The default deadlines; the default stall clock of 60 s runs too."""
GRACE_SECONDS: Final = 5.0
TABLES: Final[dict[str, dict[str, object]]] = {
    "limits": {"signing_seconds": SECONDS["signing"], "keygen_seconds": SECONDS["keygen"]},
    "custodian": {"signings_per_minute": 10_000, "signings_per_hour": 100_000},
    "service": {"drain_seconds": 1},
}
WEATHER_SECONDS: Final = 60.0
LOSS: Final = (0.01, 0.30)
LATENCY_SECONDS: Final = 2.0
KEYGEN_EVERY_SECONDS: Final = 120.0
"""Between two; a keygen's time includes the search for its primes, which the pool does not find beside signings."""


@dataclass
class Findings:
    """What was seen."""

    began: float = field(default_factory=time.monotonic)
    ends: dict[str, Counter[str]] = field(default_factory=lambda: {kind: Counter() for kind in SECONDS})
    """How sessions ended: `completed` at every party, or what the first that did not says."""
    seconds: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in SECONDS})
    """Of each party in each session."""
    overdue: float = -1e9
    """Seconds past the deadline, of the party that took longest; below zero: before it."""
    disagreed: int = 0
    """Sessions that some parties completed and others did not."""
    events: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)

    def took(self, kind: str, ended: dict[str, dict[str, Any]]) -> None:
        """A session is over at every party."""
        for session in ended.values():
            began, over = (datetime.fromisoformat(session[name]) for name in ("startedAt", "completedAt"))
            seconds = (over - began).total_seconds()
            self.seconds[kind].append(seconds)
            self.overdue = max(self.overdue, seconds - SECONDS[kind])
        failed = {party: end for party, end in ended.items() if end["status"] != "completed"}
        if failed:
            first = min(failed.values(), key=lambda end: str(end["completedAt"]))
            self.ends[kind][first["reason"]] += 1
            self.disagreed += len(failed) != len(ended)
            said = {party: f"{end['status']}: {end['errorMessage']}" for party, end in failed.items()}
            self.failures.append({"kind": kind, "minute": round((time.monotonic() - self.began) / 60), "said": said})
        else:
            self.ends[kind]["completed"] += 1

    def table(self) -> dict[str, object]:
        """For people and programs."""
        sessions = sum(sum(counts.values()) for counts in self.ends.values())
        well = sum(counts["completed"] for counts in self.ends.values())
        return {
            "cores": os.cpu_count(),
            "minutes": round((time.monotonic() - self.began) / 60, 1),
            "sessions": sessions,
            "completed": well,
            "share completed": round(well / sessions, 4) if sessions else None,
            "ends": {kind: dict(counts) for kind, counts in self.ends.items()},
            "seconds": {kind: percentiles(seconds) for kind, seconds in self.seconds.items() if seconds},
            "longest, past its deadline": round(self.overdue, 1),
            "completed by some parties only": self.disagreed,
            "chaos": dict(self.events),
            "failures": self.failures,
        }


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Median, 95th, 99th percentile and most."""
    ordered = sorted(seconds)
    places = {"median": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {name: round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) for name, share in places.items()}


class Chaos:
    """A network in bad weather."""

    def __init__(self, net: Net, dice: random.Random, findings: Findings) -> None:
        self.net = net
        self.findings = findings
        self._dice = dice
        self._silent: set[str] = set()
        self._weather: Mischief = lambda delivery: (delivery,)
        net.router.mischief = self._carry

    def _carry(self, delivery: Delivery) -> tuple[Delivery, ...]:
        if {delivery.from_party, delivery.to_party} & self._silent:
            return ()
        return tuple(self._weather(delivery))

    async def weather(self) -> None:
        """Another loss and latency every minute."""
        while True:
            loss = self._dice.uniform(*LOSS)
            self._weather = chain(
                drop(self._dice, loss),
                corrupt(self._dice, loss / 3),
                repeat(self._dice, loss),
                delay(self._dice, self._dice.choice((0.05, 0.5, LATENCY_SECONDS))),
            )
            self.findings.events["weathers"] += 1
            await trio.sleep(WEATHER_SECONDS)

    async def restarts(self) -> None:
        """The router is gone for a moment, then the coordinator, and so on."""
        while True:
            await trio.sleep(self._dice.uniform(20, 60))
            await self.net.restart_router(self._dice.uniform(0, 5))
            self.findings.events["router restarts"] += 1
            await trio.sleep(self._dice.uniform(20, 60))
            await self.net.restart_coordinator(self._dice.uniform(0, 10))
            self.findings.events["coordinator restarts"] += 1

    async def partitions(self) -> None:
        """A party is cut off for a while: refused by the router, or its frames vanish."""
        while True:
            await trio.sleep(self._dice.uniform(20, 60))
            party = self._dice.choice(PARTIES)
            where = self._dice.choice((self._silent, self.net.router.cut_off))
            where.add(party)
            if where is not self._silent:
                self.net.router.disconnect(None, party)
            await trio.sleep(self._dice.uniform(5, 25))
            where.remove(party)
            self.findings.events["partitions"] += 1

    async def sign(self, public_key: str) -> None:
        """One signing by two of the three, to its end at both."""
        message_hash = self._dice.randbytes(32).hex()
        made = self.net.coordinator.create_signing(public_key, self._dice.sample(PARTIES, 2), message_hash)
        await self._hold("signing", made, {"messageHash": message_hash, "publicKey": public_key})

    async def keygen(self) -> None:
        """One keygen of all, to its end at each."""
        made = self.net.coordinator.create_keygen(PARTIES, 2)
        await self._hold("keygen", made, {"shareType": "wallet", "threshold": 2, "parties": list(PARTIES)})

    async def _hold(self, kind: str, made: Invitation, expected: dict[str, object]) -> None:
        ended: dict[str, dict[str, Any]] = {}

        async def take_part(party: str, token: str) -> None:
            body = {"sessionId": made.session_id, "partyId": party, "joinToken": token, **expected}
            while party not in ended:
                try:
                    ended[party] = await self.net.take_part(party, kind, body)
                except SessionFailed:
                    self.findings.events["refused, asked again"] += 1
                    await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            for party, token in made.join_tokens.items():
                nursery.start_soon(take_part, party, token)
        self.findings.took(kind, ended)
        if kind == "signing":  # of a keygen, parties may still ask for confirmations
            self.net.router.forget(made.session_id)


async def run(arguments: argparse.Namespace, directory: Path) -> Findings:
    """Everything."""
    dice = random.Random(arguments.seed)  # noqa: S311  weather
    async with open_net(directory, PARTIES, tables=TABLES) as net:
        public_key = await net.keygen(2)
        findings = Findings()
        chaos = Chaos(net, dice, findings)
        until = trio.current_time() + 60 * arguments.minutes

        async def sign_on() -> None:
            while trio.current_time() < until:
                await chaos.sign(public_key)

        async def make_keys() -> None:
            while trio.current_time() < until:
                await chaos.keygen()
                with trio.move_on_at(until):
                    await trio.sleep(KEYGEN_EVERY_SECONDS)

        async def tell() -> None:
            while True:
                await trio.sleep(WEATHER_SECONDS)
                write(findings, arguments.json)

        async with trio.open_nursery() as storm:
            for each in (chaos.weather, chaos.restarts, chaos.partitions, tell):
                storm.start_soon(each)
            async with trio.open_nursery() as sessions:
                for _ in range(arguments.flight):
                    sessions.start_soon(sign_on)
                sessions.start_soon(make_keys)
            storm.cancel_scope.cancel()
        write(findings, arguments.json)
    return findings


def write(findings: Findings, place: Path | None) -> None:
    """The figures so far."""
    if place is not None:
        place.write_text(json.dumps(findings.table(), indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a minute, to see that it works")
    parser.add_argument("--minutes", type=float, help="how long (120; --quick: 1)")
    parser.add_argument("--flight", type=int, default=6, help="signings under way at once (6)")
    parser.add_argument("--seed", type=int, default=1, help="of the weather (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well, every minute")
    arguments = parser.parse_args()
    arguments.minutes = arguments.minutes or (1.0 if arguments.quick else 120.0)
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        findings = trio.run(run, arguments, Path(name))
    for name, value in findings.table().items():
        print(f"{name:32} {value}")
    if findings.overdue > GRACE_SECONDS:
        raise SystemExit("a session outlived its deadline")


if __name__ == "__main__":
    main()
