"""Whole ceremonies end to end: real daemons and custodians, SoftHSM tokens, store, channel, a router on this machine.

    python bench/ceremonies.py [--quick] [--json FILE] [--seconds S] [--flight F] [--shares N]

What is measured: keygens; signings one after the other; signings with F in flight for S seconds, none of which may be
left hanging; what a signature costs tssd and custodian in processor time, beside the core's own cost, measured in the
same run; how fast an overfull house says so; how long a killed daemon is away; and start and memory of a daemon with N
shares in its store. All parties, the router and the coordinator share this machine's cores. With
TSSD_TEST_CORE=portable in the environment, the custodians and the core beside them are those of a processor without
AVX-512 IFMA.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import sqlite3
import statistics
import sys
import tempfile
from contextlib import AsyncExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import msgspec
import trio
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from prometheus_client.parser import text_string_to_metric_families

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.core import run_once  # noqa: E402 - the project's root has to be found first
from daemon.session import SessionType  # noqa: E402 - likewise
from daemon.shares.store import Offer, Store, open_store  # noqa: E402 - likewise
from daemon.values import PartyId, PublicKey, SessionId, ShareId, ShareType  # noqa: E402 - likewise
from localnet.net import Net, SessionFailed, open_net  # noqa: E402 - likewise
from tests.tss_cffi import seeded  # noqa: E402 - likewise

if TYPE_CHECKING:
    from daemon.custody import wire
    from localnet.party import Party

PARTIES: Final = ("bench-one", "bench-two", "bench-three")
SIGNERS: Final = PARTIES[:2]
PAIRS: Final = (PARTIES[:2], PARTIES[1:], (PARTIES[0], PARTIES[2]))
PROTOCOL: Final = "gg18-v3"
ROOM: Final = 1.5
"""Sessions that a daemon takes, as a multiple of those in flight: one that is done still answers its peers."""
SESSIONS_PER_MIB: Final = 2
SILENT_SECONDS: Final = 5
"""Nothing was reported from a session for so long: then the daemons are asked."""
PREPARED: Final = 1
"""Sets of pre-parameters that each party keeps ahead."""
POOL_SECONDS: Final = 300.0
"""For all parties to have them: a search takes a fifth of a second of a processor that is its own."""
TICKS: Final = os.sysconf("SC_CLK_TCK")
WRITERS: Final = 64
"""That fill the store side by side: they share their commits."""


def tables(flight: int) -> dict[str, dict[str, object]]:
    """Of config.toml, for every party."""
    sessions = max(8, int(ROOM * flight))
    return {
        "limits": {"sessions": sessions, "linger_seconds": 1},
        "custodian": {
            "signings_per_minute": 100_000,
            "signings_per_hour": 1_000_000,
            "arena_mib": -(-sessions // SESSIONS_PER_MIB),
        },
        "service": {"drain_seconds": 1},
        "keygen": {"prepared": PREPARED},
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


# ---- Processes ----


@dataclass(frozen=True)
class Usage:
    """Processor seconds of a party's two processes so far, and the most memory that each had, in MB."""

    tssd: float
    custodian: float
    tssd_mb: float
    custodian_mb: float


def usage(party: Party) -> Usage:
    """What a party has used."""
    assert party.process is not None
    tssd = party.process.pid
    custodian = next(
        int(directory.name)
        for directory in Path("/proc").iterdir()
        if directory.name.isdigit() and _parent(directory) == tssd
    )
    return Usage(_seconds(tssd), _seconds(custodian), _peak_mb(tssd), _peak_mb(custodian))


def _fields(directory: Path) -> list[str]:
    """Of /proc/PID/stat, from the state on."""
    text = (directory / "stat").read_text()
    return text[text.rindex(")") + 2 :].split()


def _parent(directory: Path) -> int:
    with suppress(OSError):
        return int(_fields(directory)[1])
    return 0


def _seconds(pid: int) -> float:
    fields = _fields(Path(f"/proc/{pid}"))
    return (int(fields[11]) + int(fields[12])) / TICKS


def _peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6, 1)


async def pools_full(net: Net) -> None:
    """Return when no party searches for pre-parameters any more: what that takes is no signing's cost."""
    with trio.fail_after(POOL_SECONDS):
        for party in net.parties.values():
            async with party.client() as client:
                while not _full((await client.get("/metrics")).text):  # noqa: ASYNC110  it is another process
                    await trio.sleep(0.1)


def _full(metrics: str) -> bool:
    families = text_string_to_metric_families(metrics)
    ready = [sample.value for family in families if family.name == "tssd_prepared_sets" for sample in family.samples]
    return bool(ready) and min(ready) >= PREPARED


class Meter:
    """Processor time of the parties from now on."""

    def __init__(self, net: Net) -> None:
        self._net = net
        self._before = {name: usage(party) for name, party in net.parties.items()}

    def per_seat(self, signatures: int) -> dict[str, float]:
        """Milliseconds for each signature and each of its two signers."""
        after = {name: usage(party) for name, party in self._net.parties.items()}
        spent = {
            which: sum(getattr(after[name], which) - getattr(self._before[name], which) for name in after)
            for which in ("tssd", "custodian")
        }
        return {which: round(1000 * seconds / signatures / len(SIGNERS), 2) for which, seconds in spent.items()}


def on_core(party: Party) -> None:
    """Have the party's custodian use the build of the core that the environment names."""
    if seeded.BUILD != "seeded":
        party.program = (str(ROOT / "bench" / "on_test_core.py"),)


def core_ms(runs: int) -> float:
    """Processor time of one seat of a 2-of-3 signing in the core alone, by this machine as it is now; the median."""
    known = seeded.core.Protocol.of(PROTOCOL)
    samples = [sum(run_once("signing", known, 2, 3).rounds.values()) / len(SIGNERS) for _ in range(runs)]
    return statistics.median(samples)


# ---- Ceremonies ----


async def timed_keygens(net: Net, count: int) -> tuple[str, list[float]]:
    """Keygens one after the other, the search for primes included where none were ready."""
    seconds, public_key = [], ""
    for _ in range(count):
        began = trio.current_time()
        public_key = await net.keygen(2)
        seconds.append(trio.current_time() - began)
    return public_key, seconds


class Service:
    """What stands beside a daemon and asks it to sign, on a connection that it keeps.

    It learns the result where the parties report it, and asks a daemon only when nothing was reported for a while.
    """

    def __init__(self, net: Net, stack: AsyncExitStack) -> None:
        self._net = net
        self._stack = stack
        self._clients: dict[str, httpx.AsyncClient] = {}

    async def sign(self, public_key: str, signers: tuple[str, ...], seconds: list[float]) -> None:
        """A signing of a random hash, timed from the first request to the last report. Raises SessionFailed."""
        began = trio.current_time()
        message_hash = os.urandom(32).hex()
        made = self._net.coordinator.create_signing(public_key, signers, message_hash)
        async with trio.open_nursery() as nursery:
            for party_id, token in made.join_tokens.items():
                body = {"sessionId": made.session_id, "partyId": party_id, "joinToken": token}
                body |= {"messageHash": message_hash, "publicKey": public_key}
                nursery.start_soon(self._participate, party_id, body)
        while True:
            with trio.move_on_after(SILENT_SECONDS):
                session = await self._net.coordinator.outcome(made.session_id)
                break
            for party_id in signers:
                await self._look(party_id, made.session_id)
        self._net.router.forget(made.session_id)
        if session.status != "completed":
            raise SessionFailed(f"session {made.session_id}: the parties' reports differ")
        seconds.append(trio.current_time() - began)

    async def _participate(self, party_id: str, body: dict[str, str]) -> None:
        answer = await (await self._client(party_id)).post("/mpc-party/signing/participate", json=body)
        if answer.status_code != httpx.codes.ACCEPTED:
            raise SessionFailed(f"{party_id} refused: {answer.text}")

    async def _look(self, party_id: str, session_id: str) -> None:
        session = (await (await self._client(party_id)).get(f"/mpc-party/sessions/{session_id}")).json()
        if session["status"] not in {"in_progress", "completed"}:
            raise SessionFailed(f"{party_id}: {session['status']}: {session['errorMessage']}")

    async def _client(self, party_id: str) -> httpx.AsyncClient:
        if party_id not in self._clients:
            self._clients[party_id] = await self._stack.enter_async_context(self._net.parties[party_id].client())
        return self._clients[party_id]


async def one_by_one(net: Net, service: Service, public_key: str, count: int, core_runs: int) -> dict[str, Any]:
    """Signings one after the other, and what each costs; a few more whose every step is watched as it happens."""
    latencies: list[float] = []
    before, meter = core_ms(core_runs), Meter(net)
    for turn in range(count):
        await service.sign(public_key, PAIRS[turn % len(PAIRS)], latencies)
    spent, watched = meter.per_seat(count), Meter(net)
    for turn in range(watching := max(1, count // 4)):
        await net.sign(public_key, PAIRS[turn % len(PAIRS)], os.urandom(32).hex())
    return (
        {"latency_ms": summary(latencies)}
        | costs(spent, (before + core_ms(core_runs)) / 2)
        | {"tssd_cpu_ms_watched": watched.per_seat(watching)["tssd"]}
    )


def costs(spent: dict[str, float], core: float) -> dict[str, Any]:
    """Processor milliseconds for each signature and signer; ratio: of everything to the core alone."""
    return {
        "tssd_cpu_ms": spent["tssd"],
        "custodian_cpu_ms": spent["custodian"],
        "core_cpu_ms": round(core, 2),
        "ratio": round(sum(spent.values()) / core, 2),
    }


async def in_flight(
    net: Net, service: Service, public_key: str, flight: int, seconds: float, core_runs: int
) -> dict[str, Any]:
    """Keep `flight` signings under way for so long, by all pairs in turn."""
    latencies: list[float] = []
    failed: list[str] = []
    before, meter = core_ms(core_runs), Meter(net)
    began = trio.current_time()

    async def keep_signing(turn: int) -> None:
        while trio.current_time() - began < seconds:
            try:
                await service.sign(public_key, PAIRS[turn % len(PAIRS)], latencies)
            except* SessionFailed as group:
                failed.append(str(group.exceptions[0]))

    async with trio.open_nursery() as nursery:
        for turn in range(flight):
            nursery.start_soon(keep_signing, turn)
    lasted = trio.current_time() - began
    spent = meter.per_seat(len(latencies))
    with trio.fail_after(120):
        hanging = {name: await sessions_left(party) for name, party in net.parties.items()}
    return {
        "flight": flight,
        "seconds": round(lasted, 1),
        "signatures": len(latencies),
        "per_second": round(len(latencies) / lasted, 2),
        "latency_ms": summary(latencies),
        "failed": len(failed),
        "first_failure": failed[0] if failed else "",
        "hanging": sum(hanging.values()),
    } | costs(spent, (before + core_ms(core_runs)) / 2)


async def sessions_left(party: Party) -> int:
    """Sessions that the party's store still has in progress."""
    async with party.client() as client:
        found = (await client.get("/mpc-party/sessions", params={"status": "in_progress"})).json()
    return len(found["sessions"])


async def overload(net: Net, public_key: str, most: int) -> dict[str, Any]:
    """Ask one party for more sessions than it takes, none of which can begin; time the answers that say `busy`."""
    refusals: list[float] = []
    accepted = 0
    async with net.parties[SIGNERS[0]].client() as client:
        for _ in range(most + 50):
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
            if answer.status_code == httpx.codes.ACCEPTED:
                accepted += 1
                continue
            said = answer.json()["type"], answer.status_code, "retry-after" in answer.headers
            if said != ("urn:tssd:problem:busy", httpx.codes.SERVICE_UNAVAILABLE, True):
                raise AssertionError(f"an overfull house says {answer.text}")
            refusals.append(trio.current_time() - began)
    return {"accepted": accepted, "busy": len(refusals), "busy_ms": summary(refusals)}


async def away(net: Net) -> dict[str, float]:
    """From the kill of a daemon to its being able to sign: seconds, and processor seconds of both processes."""
    party = net.parties[SIGNERS[0]]
    await party.stop(signal.SIGKILL)
    return await started(party)


async def started(party: Party) -> dict[str, float]:
    """Start a party's daemon; seconds until it could sign, and what that took."""
    began = trio.current_time()
    await party.start()
    async with party.client() as client:
        while not (await client.get("/mpc-party/ready")).is_success:  # noqa: ASYNC110  it is another process
            await trio.sleep(0.02)
    seconds, used = trio.current_time() - began, usage(party)
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(used.tssd + used.custodian, 2),
        "tssd_mb": used.tssd_mb,
        "custodian_mb": used.custodian_mb,
    }


# ---- A full store ----


async def full_store(net: Net, service: Service, public_key: str, count: int) -> dict[str, Any]:
    """Start and memory of a daemon with so many shares, each with its session, journal, audit and confirmations."""
    party = net.parties[SIGNERS[0]]
    await party.stop()
    async with open_store(party.database) as store:
        (share,) = await store.shares(public_key=PublicKey.parse(public_key))
        row = await store.sealed_row(share.share_id)
        limiter = trio.CapacityLimiter(WRITERS)
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                await limiter.acquire_on_behalf_of(token := object())
                nursery.start_soon(_add_share, store, row, limiter, token)
    with closing(sqlite3.connect(party.database)) as connection:  # long ago, and all reported
        connection.execute("UPDATE party_shares SET updated_at = '2026-01-01T00:00:00.000Z'")
        connection.execute("UPDATE outbox SET delivered_at = created_at")
        connection.commit()
    figures = await started(party)
    seconds: list[float] = []
    await service.sign(public_key, SIGNERS, seconds)
    used = usage(party)
    return figures | {
        "shares": count,
        "store_mb": round(party.database.stat().st_size / 1e6),
        "tssd_mb_after_signing": used.tssd_mb,
        "custodian_mb_after_signing": used.custodian_mb,
        "signing_ms": round(1000 * seconds[0], 1),
    }


async def _add_share(store: Store, row: wire.ShareRow, limiter: trio.CapacityLimiter, token: object) -> None:
    session_id, party_id = SessionId.of_octets(secrets.token_bytes(16)), PartyId(row.party_id)
    point = ec.generate_private_key(ec.SECP256K1()).public_key()
    another = msgspec.structs.replace(
        row,
        share_id=str(ShareId.fresh()),
        session=session_id.octets,
        public_key=point.public_bytes(Encoding.X962, PublicFormat.CompressedPoint),
    )
    session, _ = await store.offer(
        Offer(
            session_id=session_id,
            party_id=party_id,
            type=SessionType.KEYGEN,
            request_digest=secrets.token_hex(32),
            share_type=ShareType.WALLET,
            public_key=None,
            message_hash=None,
            caller="uid:0",
        )
    )
    await store.pend(session, another, tuple(secrets.token_bytes(32) for _ in range(6)))
    share = await store.share(ShareId(another.share_id))
    await store.add_confirmations(share, {member.party_id: secrets.token_bytes(400) for member in row.committee})
    await store.activate(share, confirmed=True)
    limiter.release_on_behalf_of(token)


# ---- All of it ----


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything, on a network of its own."""
    quick = arguments.quick
    core_runs = 5 if quick else 40
    with tempfile.TemporaryDirectory(prefix="tssd-") as name:
        config = tables(arguments.flight)
        opened = open_net(Path(name), PARTIES, tables=config, before_start=on_core)
        async with opened as net, AsyncExitStack() as stack:
            service = Service(net, stack)
            public_key, keygens = await timed_keygens(net, 1 if quick else 3)
            await pools_full(net)
            sessions = config["limits"]["sessions"]
            assert isinstance(sessions, int)
            return {
                "cores": os.cpu_count(),
                "load": [round(load, 1) for load in os.getloadavg()],
                "core": seeded.BUILD,
                "committee": f"2-of-{len(PARTIES)}",
                "keygen_ms": summary(keygens),
                "signing": await one_by_one(net, service, public_key, 3 if quick else 100, core_runs),
                "in_flight": await in_flight(net, service, public_key, arguments.flight, arguments.seconds, core_runs),
                "overload": await overload(net, public_key, sessions),
                "away": await away(net),
                "full_store": await full_store(net, service, public_key, arguments.shares),
            }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few of each, to see that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--seconds", type=float, help="how long signings are kept in flight (600; --quick: 3)")
    parser.add_argument("--flight", type=int, help="how many (64; --quick: 4)")
    parser.add_argument("--shares", type=int, help="in the full store (10000; --quick: 100)")
    arguments = parser.parse_args()
    arguments.seconds = arguments.seconds or (3.0 if arguments.quick else 600.0)
    arguments.flight = arguments.flight or (4 if arguments.quick else 64)
    arguments.shares = arguments.shares or (100 if arguments.quick else 10_000)
    seeded.core.open_arena(seeded.ARENA)
    measured = trio.run(measure, arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    for name, value in measured.items():
        figures = value if isinstance(value, dict) else {"": value}
        print(f"{name:14}", "  ".join(f"{key} {each}".strip() for key, each in figures.items()))


if __name__ == "__main__":
    main()
