"""What the core costs: each proof, each round, each ceremony, beside the floor and beside tss-lib in Go.

    python bench/core.py [--quick] [--json FILE] [--protocol gg18-v2]

THE FLOOR is the modular exponentiations that the protocol asks for, each at its cost measured in the same run by a
plain constant-time window exponentiation (one without constant time where everything is public). A product of powers
counts as one power with the longest exponent, and with known factors (our own N and ring) the Chinese remainder theorem
is part of the floor. Fixed-base tables are not: they get below 1.

With TSSD_TEST_CORE=portable in the environment all is measured without AVX-512 IFMA, as on processors that have none.

CPU time is the process's own, per party; messages are carried in memory. The peer is one Go process on one processor.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.interop import golang, ours, vectors  # noqa: E402 - the project's root has to be found first
from tests.tss_cffi import seeded  # noqa: E402 - likewise
from tests.tss_cffi.seeded import core  # noqa: E402 - likewise

SIZES: Final = ((2, 2), (2, 3), (3, 5))
DIGEST: Final = hashlib.sha256(b"tssd").digest()
Row = dict[str, Any]

FLOORS: Final[dict[str, tuple[tuple[str, int], ...]]] = {
    # What a proof asks for: (unit, bits of the longest exponent), summed. docs/performance.md derives them.
    "dln prove": (("own 2048", 128 * 2048),),
    "dln verify": (("exp_var 2048", 128 * 2048),),
    "mod prove": (("own 2048", 160 * 2048),),
    "mod verify": (("exp_var 2048", 80 * 2048),),
    "fac prove": (("exp 2048", 2304 + 2304 + 2816 + 2816 + 4864),),
    "fac verify": (("own 2048", 4 * 2048 + 3 * 512),),
    "paillier prove": (("own 2048", 13 * 2048),),
    "paillier verify": (("exp_var 2048", 13 * 2048),),
    "encrypt": (("own nth power", 2048),),
    "range prove": (("own nth power", 2048), ("exp 2048", 2304 + 2816), ("own 2048", 512)),
    "range verify": (("exp_var 4096", 2048), ("own 2048", 2048 + 512)),
    "answer": (("exp 4096", 2048),),
    "bob prove": (("exp 4096", 2048), ("exp 2048", 2304 + 2816 + 2304 + 2816), ("exp_var 2048", 256)),
    "bob verify": (("own nth power", 2048), ("own 4096", 768 + 256), ("own 2048", 2 * 2048 + 2 * 512)),
    "decrypt": (("own 4096", 1024),),
}
FLOORS["bob wc prove"] = FLOORS["bob prove"]
FLOORS["bob wc verify"] = FLOORS["bob verify"]

SIGNING_PER_PEER: Final = (
    *("encrypt", "range prove", "range verify", "answer", "bob prove", "answer", "bob wc prove"),
    *("bob verify", "bob wc verify"),
)
KEYGEN_ONCE: Final = ("dln prove", "dln prove", "mod prove", "paillier prove")
KEYGEN_PER_PEER: Final = ("dln verify", "dln verify", "mod verify", "fac prove", "fac verify", "paillier verify")


def row(what: str, protocol: str, t: int | None, n: int | None, samples: list[float], **more: object) -> Row:
    """One figure, as --json writes it; cpu_ms is the median."""
    figures: Row = {
        "what": what,
        "protocol": protocol,
        "t": t,
        "n": n,
        "cpu_ms": statistics.median(samples),
        "cpu_ms_min": min(samples),
        "cpu_ms_max": max(samples),
        "floor_ratio": None,
        "peer": None,
        "peer_ratio": None,
        "bytes": None,
        "peak_kib": None,
    }
    return figures | more


def proofs(protocol: str, runs: int) -> tuple[list[Row], dict[str, float]]:
    """Time every proof in C; also the cost in ms of a bit of exponent, by unit."""
    program = ROOT / "build" / "bench" / "core"
    program.parent.mkdir(parents=True, exist_ok=True)
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O3", "-Wno-unused-function"]
    if seeded.BUILD == "portable":
        flags.append("-DTSS_IFMA_OFF")
    libraries = ["-lgmp", "-lcrypto", "-lsecp256k1"]
    subprocess.run(
        [shutil.which("cc") or "cc", *flags, ROOT / "bench" / "core.c", "-o", program, *libraries], check=True
    )
    with tempfile.NamedTemporaryFile("w", suffix=".json") as saves:
        saves.writelines(vectors.compact(save) + "\n" for save in vectors.saves(protocol, 2, 3)[:2])
        saves.flush()
        told = subprocess.run(
            [program, protocol, saves.name, "2", str(runs)], check=True, capture_output=True, text=True
        ).stdout
    figures = {figure["what"]: [us / 1000 for us in figure["us"]] for figure in map(json.loads, told.splitlines())}
    units = {what.removeprefix("unit "): ms[0] / 2048 for what, ms in figures.items() if what.startswith("unit ")}
    rows = []
    for what, (median, least, most) in figures.items():
        figures_row = row(what, protocol, None, None, [median], cpu_ms_min=least, cpu_ms_max=most)
        if what in FLOORS:
            figures_row["floor_ratio"] = median / floor_of((what,), units)
        rows.append(figures_row)
    return rows, units


def floor_of(parts: tuple[str, ...], units: dict[str, float]) -> float:
    """The floor of these proofs together, in ms."""
    return sum(units[unit] * bits for part in parts for unit, bits in FLOORS[part])


class Clock:
    """CPU ms of one run: in all and by round, summed over the parties; and the bytes that they sent."""

    def __init__(self) -> None:
        self.rounds: defaultdict[int, float] = defaultdict(float)
        self.sent = 0


def ceremony(parties: dict[int, Any], clock: Clock) -> None:
    """Carry the messages of n parties; the work of a receive counts for the round that it starts."""
    moving = True
    while moving:
        moving = False
        for key, party in parties.items():
            for message in party.outgoing():
                moving = True
                receivers = [other for other in parties if other != key and message.to in {None, other}]
                clock.sent += len(message.data)
                for other in receivers:
                    before, _ = parties[other].round
                    start = time.process_time()
                    parties[other].receive(key, message.message_class, message.data)
                    clock.rounds[before + 1] += (time.process_time() - start) * 1000


def keygen_once(protocol: core.Protocol, t: int, n: int) -> Clock:
    """One keygen among n of our parties."""
    clock = Clock()
    keys = range(1, n + 1)
    made = [seeded.prepared_from(fixture, protocol) for fixture in vectors.pre_parameters()[:n]]
    parties = {}
    for key, prepared in zip(keys, made, strict=True):
        start = time.process_time()
        parties[key] = core.KeygenParty(protocol, key, keys, t, prepared)
        clock.rounds[1] += (time.process_time() - start) * 1000
        prepared.close()
    ceremony(parties, clock)
    for party in parties.values():
        party.result().close()
        party.close()
    return clock


def signing_once(shares: list[core.Share]) -> Clock:
    """One signing by the holders of these shares."""
    clock = Clock()
    signers = [share.info.seat for share in shares]
    parties = {}
    for share in shares:
        start = time.process_time()
        parties[share.info.seat] = core.SigningParty(share, signers, DIGEST)
        clock.rounds[1] += (time.process_time() - start) * 1000
    ceremony(parties, clock)
    for party in parties.values():
        party.result()
        party.close()
    return clock


def run_once(what: str, protocol: core.Protocol, t: int, n: int) -> Clock:
    """One ceremony; a signing is by t of n."""
    if what == "keygen":
        return keygen_once(protocol, t, n)
    shares = [ours.load(protocol.label, t, save) for save in vectors.saves(protocol.label, t, n)[:t]]
    try:
        return signing_once(shares)
    finally:
        for share in shares:
            share.close()


def peaks(what: str, protocol: str, t: int, n: int) -> tuple[int, int]:
    """KiB per party, in a fresh process: of the arena, and of all memory."""
    own = [sys.executable, __file__, "--peak", what, protocol, str(t), str(n)]
    arena, whole = subprocess.run(own, check=True, capture_output=True, text=True).stdout.split()
    return int(arena), int(whole)


def print_peaks(what: str, protocol: str, t: int, n: int) -> None:
    """The child of `peaks`."""
    parties = n if what == "keygen" else t
    used = core.arena_usage().used
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak of resident memory starts here: proc(5)
    before = resident_peak()
    run_once(what, core.Protocol.of(protocol), t, n)
    print((core.arena_usage().peak - used) // 1024 // parties, (resident_peak() - before) // parties)


def resident_peak() -> int:
    """KiB of this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])


def ceremonies(protocol: str, units: dict[str, float], runs: int, peer_runs: int) -> list[Row]:
    """Keygens and signings, whole and by round, beside the peer's."""
    rows = []
    known = core.Protocol.of(protocol)
    for what in ("keygen", "signing"):
        for t, n in SIZES:
            parties = n if what == "keygen" else t
            clocks = [run_once(what, known, t, n) for _ in range(runs if what == "signing" else max(2, runs // 4))]
            # One keygen of five parties takes Go half a minute.
            asked = peer_runs > 1 or (peer_runs == 1 and (what == "signing" or n == 2))  # noqa: PLR2004 - the smallest
            peer = golang.bench(protocol, what, t, n, peer_runs) if asked else None
            theirs = peer["cpu_ms"]["median"] if peer else None
            parts = KEYGEN_ONCE + KEYGEN_PER_PEER * (n - 1) if what == "keygen" else SIGNING_PER_PEER * (t - 1)
            samples = [sum(clock.rounds.values()) / parties for clock in clocks]
            median = statistics.median(samples)
            arena, whole = peaks(what, protocol, t, n)
            rows.append(
                row(
                    what,
                    protocol,
                    t,
                    n,
                    samples,
                    floor_ratio=median / floor_of(parts, units),
                    peer="tss-lib (Go)" if peer else None,
                    peer_cpu_ms=theirs,
                    peer_ratio=median / theirs if theirs else None,
                    bytes=clocks[0].sent // parties,
                    peak_kib=whole,
                    arena_peak_kib=arena,
                )
            )
            rows.extend(
                row(f"{what} round {number}", protocol, t, n, [clock.rounds[number] / parties for clock in clocks])
                for number in sorted(clocks[0].rounds)
            )
    return rows


def pre_parameters(runs: int, peer_runs: int) -> Row:
    """A set, from nothing; the spread is that of luck, so means are compared."""
    samples = []
    for _ in range(runs):
        start = time.process_time()
        with core.PreParameterSearch(core.Protocol.GG18_V2) as search:
            found = None
            while found is None:
                found = search.step()
        found.close()
        samples.append((time.process_time() - start) * 1000)
    peer = golang.bench("gg18-v2", "preparams", 2, 2, peer_runs) if peer_runs else None
    theirs = statistics.mean(peer["samples"]) if peer else None
    mean = statistics.mean(samples)
    return row(
        "pre-parameters",
        "gg18-v2",
        None,
        None,
        samples,
        cpu_ms_mean=mean,
        peer="tss-lib (Go)" if peer else None,
        peer_cpu_ms=theirs,
        peer_ratio=mean / theirs if theirs else None,
    )


def show(rows: list[Row]) -> None:
    """The table for people."""
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors; ms of CPU per party")
    print(
        f"{'what':28}{'protocol':9}{'t-of-n':>7}{'median':>10}{'min':>10}{'max':>10}{'/floor':>8}{'/peer':>8}"
        f"{'bytes':>9}{'arena KiB':>10}{'all KiB':>9}"
    )
    for figures in rows:
        size = f"{figures['t']}-of-{figures['n']}" if figures["t"] else ""
        ratios = "".join(
            f"{figures[name]:8.2f}" if figures[name] is not None else " " * 8 for name in ("floor_ratio", "peer_ratio")
        )
        sizes = "".join(
            f"{figures.get(name) if figures.get(name) is not None else '':>{width}}"
            for name, width in (("bytes", 9), ("arena_peak_kib", 10), ("peak_kib", 9))
        )
        print(
            f"{figures['what']:28}{figures['protocol']:9}{size:>7}{figures['cpu_ms']:10.2f}{figures['cpu_ms_min']:10.2f}"
            f"{figures['cpu_ms_max']:10.2f}{ratios}{sizes}"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer runs, one protocol, no pre-parameters of the peer")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    parser.add_argument("--protocol", action="append", choices=("gg18-v2", "gg18-v3"), help="instead of both")
    parser.add_argument("--peak", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    core.open_arena(seeded.ARENA)
    if asked.peak:
        what, protocol, t, n = asked.peak
        print_peaks(what, protocol, int(t), int(n))
        return
    try:
        golang.go()
        peer = True
    except golang.GoMissing as missing:
        print(f"Without the peer: {missing}", file=sys.stderr)
        peer = False
    rows: list[Row] = []
    for protocol in asked.protocol or (["gg18-v2"] if asked.quick else ["gg18-v2", "gg18-v3"]):
        timed, units = proofs(protocol, 7 if asked.quick else 41)
        rows += timed
        rows += ceremonies(protocol, units, 5 if asked.quick else 40, (1 if asked.quick else 5) if peer else 0)
    rows.append(pre_parameters(3 if asked.quick else 20, 0 if asked.quick or not peer else 10))
    show(rows)
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
