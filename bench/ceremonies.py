"""Whole ceremonies end to end: real daemons and custodians, SoftHSM tokens, store, channel, a router on this machine.

    bench/ceremonies.py [--quick] [--json] [--seconds S] [--flight F]

What is measured: keygens; signings one after the other; signings with F in flight for S seconds; how fast an overfull
house says so; how long a killed daemon is away. All parties, the router and the coordinator share this machine's cores.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import tempfile
from pathlib import Path
from typing import Any

import trio

from localnet.net import Net, SessionFailed, open_net

PARTIES = ("bench-one", "bench-two", "bench-three")
SIGNERS = PARTIES[:2]
TABLES: dict[str, dict[str, object]] = {
    "custodian": {"signings_per_minute": 100_000, "signings_per_hour": 1_000_000},
    "service": {"drain_seconds": 1},
    "log": {"level": "warning"},
}


def summary(seconds: list[float]) -> dict[str, float]:
    """Milliseconds: least, median, 95th and 99th percentile, most; and how many."""
    ordered = sorted(seconds)

    def at(share: float) -> float:
        return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)

    return {
        "n": len(ordered),
        "min": at(0),
        "median": round(1000 * statistics.median(ordered), 1),
        "p95": at(0.95),
        "p99": at(0.99),
        "max": at(1),
    }


async def timed_keygens(net: Net, count: int) -> tuple[str, list[float]]:
    """Keygens one after the other, the search for primes included where none were ready."""
    seconds, public_key = [], ""
    for _ in range(count):
        began = trio.current_time()
        public_key = await net.keygen(2)
        seconds.append(trio.current_time() - began)
    return public_key, seconds


async def one_signing(net: Net, public_key: str, seconds: list[float]) -> None:
    """A signing of a random hash, timed from the first request to the last report."""
    began = trio.current_time()
    await net.sign(public_key, SIGNERS, os.urandom(32).hex())
    seconds.append(trio.current_time() - began)


async def in_flight(net: Net, public_key: str, flight: int, seconds: float) -> dict[str, Any]:
    """Keep `flight` signings under way for so long."""
    latencies: list[float] = []
    failed: list[str] = []
    began = trio.current_time()

    async def keep_signing() -> None:
        while trio.current_time() - began < seconds:
            try:
                await one_signing(net, public_key, latencies)
            except SessionFailed as error:
                failed.append(str(error))

    async with trio.open_nursery() as nursery:
        for _ in range(flight):
            nursery.start_soon(keep_signing)
    lasted = trio.current_time() - began
    return {
        "flight": flight,
        "seconds": round(lasted, 1),
        "per_second": round(len(latencies) / lasted, 2),
        "latency_ms": summary(latencies),
        "failed": len(failed),
        "first_failure": failed[0] if failed else "",
    }


async def overload(net: Net, public_key: str) -> dict[str, Any]:
    """Ask one party for more sessions than it takes, none of which can begin; time the answers that say `busy`."""
    refusals: list[float] = []
    accepted = 0
    async with net.parties[SIGNERS[0]].client() as client:
        for _ in range(200):
            message_hash = os.urandom(32).hex()
            made = net.coordinator.create_signing(public_key, SIGNERS, message_hash)
            body = {
                "sessionId": made.session_id,
                "partyId": SIGNERS[0],
                "joinToken": made.join_tokens[SIGNERS[0]],
                "messageHash": message_hash,
                "publicKey": public_key,
            }
            began = trio.current_time()
            answer = await client.post("/mpc-party/signing/participate", json=body)
            if answer.status_code == 202:  # noqa: PLR2004  accepted
                accepted += 1
            else:
                refusals.append(trio.current_time() - began)
                if len(refusals) == 50:  # noqa: PLR2004  enough to judge
                    break
    return {"accepted": accepted, "busy": len(refusals), "busy_ms": summary(refusals) if refusals else {}}


async def away(net: Net) -> float:
    """Seconds from the kill of a daemon to its first answer."""
    party = net.parties[SIGNERS[0]]
    await party.stop(signal.SIGKILL)
    began = trio.current_time()
    await party.start()
    return round(trio.current_time() - began, 2)


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything, on a network of its own."""
    with tempfile.TemporaryDirectory(prefix="tssd-") as name:
        async with open_net(Path(name), PARTIES, tables=TABLES) as net:
            public_key, keygens = await timed_keygens(net, 1 if arguments.quick else 5)
            latencies: list[float] = []
            for _ in range(3 if arguments.quick else 50):
                await one_signing(net, public_key, latencies)
            return {
                "cores": os.cpu_count(),
                "committee": f"2-of-{len(PARTIES)}",
                "keygen_ms": summary(keygens),
                "signing_ms": summary(latencies),
                "in_flight": await in_flight(net, public_key, arguments.flight, arguments.seconds),
                "overload": await overload(net, public_key),
                "away_seconds": await away(net),
            }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few of each, to see that it works")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--seconds", type=float, help="how long signings are kept in flight (60; --quick: 3)")
    parser.add_argument("--flight", type=int, help="how many (8; --quick: 2)")
    arguments = parser.parse_args()
    arguments.seconds = arguments.seconds or (3.0 if arguments.quick else 60.0)
    arguments.flight = arguments.flight or (2 if arguments.quick else 8)
    measured = trio.run(measure, arguments)
    if arguments.json:
        print(json.dumps(measured))
        return
    for name, value in measured.items():
        figures = value if isinstance(value, dict) else {"": value}
        print(f"{name:14}", "  ".join(f"{key} {each}".strip() for key, each in figures.items()))


if __name__ == "__main__":
    main()
