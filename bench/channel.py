"""What the sealed channel costs: each piece, and what it adds to a ceremony in CPU, bytes and round trips.

    python bench/channel.py [--quick] [--json FILE]

A ceremony is run twice over the same committee: bare parties that pass messages in memory, and the same behind
channels, all hellos and confirmations included (but not the identity keys' own signatures: those are the HSM's). CPU
time is the process's own, per party. ADDED is the difference, Python's share of it included, with caches that the
protocol's mathematics has just filled with its own: the median of runs in turns, and where it lies with 95 %. "All of
a signing" is the channel's C alone, for a signing's messages without its mathematics; ALONE is that, and its share is
of the bare signing, each at its least disturbed. Neither may be more than 3 % of a signing; of what is added that is
said to be broken where all of the interval lies above. A HOP is one message time: everything that is sent at once
arrives one hop later, so hops are what a ceremony takes over a slow link. One message takes longer by what it takes
to hash, sign and seal, to open it and hash it again.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.tss_cffi import seeded  # noqa: E402 - the project's root has to be found first
from tests.tss_cffi.channel import independent as wire  # noqa: E402 - likewise
from tests.tss_cffi.channel import seats  # noqa: E402 - likewise
from tests.tss_cffi.seeded import core  # noqa: E402 - likewise

if TYPE_CHECKING:
    from collections.abc import Callable

Row = dict[str, Any]
LIMIT: Final = 0.03
"""Share of a signing's CPU that the channel may cost."""
FRAME: Final = 35 + 3 + 16
"""Bytes that a frame adds to its message: header, round and count of echoes, tag. Besides: echoes, a signature."""
SEED: Final = b"bench/channel.py".ljust(32, b"\0")


def pieces(runs: int) -> list[Row]:
    """The steps in C."""
    program = ROOT / "build" / "bench" / "channel"
    program.parent.mkdir(parents=True, exist_ok=True)
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O3", "-Wno-unused-function"]
    libraries = ["-lgmp", "-lcrypto", "-lsecp256k1"]
    source = ROOT / "bench" / "channel.c"
    subprocess.run([shutil.which("cc") or "cc", *flags, source, "-o", program, *libraries], check=True)
    told = subprocess.run([program, str(runs)], check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in told.splitlines()]


class Bare:
    """The parties alone."""

    def __init__(self, terms: wire.Terms) -> None:
        self.parties = {seat: seats.sit(terms, seat) for seat, _ in terms.committee}
        self.sent = 0
        self.messages = 0

    def outgoing(self, seat: int) -> list[tuple[int | None, Any]]:
        """What a seat has to send."""
        messages = self.parties[seat].outgoing()
        copies = len(self.parties) - 1
        self.messages += sum(1 if message.to else copies for message in messages)
        self.sent += sum(len(message.data) * (1 if message.to else copies) for message in messages)
        return [(message.to, message) for message in messages]

    def receive(self, sender: int, seat: int, message: Any) -> None:  # noqa: ANN401 - whatever outgoing gave
        """Hand it over."""
        self.parties[seat].receive(sender, message.message_class, message.data)

    def close(self) -> None:
        """Check and wipe."""
        for party in self.parties.values():
            assert party.state is core.PartyState.DONE
            party.close()


class Sealed:
    """The parties behind channels; identity keys sign outside the clock."""

    def __init__(self, terms: wire.Terms) -> None:
        self.terms = terms
        self.away = 0.0
        self.sent = 0
        self.messages = 0
        self.channels = {
            seat: seats.channel.Channel(seats.ceremony(terms, seat), seats.identities(terms))
            for seat, _ in terms.committee
        }
        self.parties: dict[int, core.KeygenParty | core.SigningParty] = {}
        self.digests: dict[int, bytes] = {}
        for seat, channel in self.channels.items():
            channel.start(self.signed(seat, channel.hello_digest))

    def signed(self, seat: int, digest: bytes) -> bytes:
        """As the HSM would."""
        before = time.process_time()
        signature = seats.identity(seat).sign(digest)
        self.away += time.process_time() - before
        return signature

    def outgoing(self, seat: int) -> list[tuple[int | None, Any]]:
        """What a seat has to send."""
        frames = self.channels[seat].outgoing()
        copies = len(self.channels) - 1
        self.messages += sum(1 if frame.to else copies for frame in frames)
        self.sent += sum(len(frame.data) * (1 if frame.to else copies) for frame in frames)
        return [(frame.to, frame.data) for frame in frames]

    def receive(self, sender: int, seat: int, message: Any) -> None:  # noqa: ANN401, ARG002 - whatever outgoing gave
        """Hand it over, and do what the state asks for."""
        channel = self.channels[seat]
        state = channel.receive(message, 0)
        if state is seats.State.AGREED:
            self.parties[seat] = seats.sit(self.terms, seat)
            channel.attach(self.parties[seat], 0)
            state = channel.state
        if state is seats.State.RESULT:
            digest = channel.confirmation_digest(self.result(seat), 0)
            channel.confirm(self.signed(seat, digest), 0)

    def result(self, seat: int) -> bytes | None:
        """The share's digest; reading the share is not the channel's."""
        party = self.parties[seat]
        if not isinstance(party, core.KeygenParty):
            return None
        before = time.process_time()
        with party.result() as made, core.Share(made) as share:
            digest = share.info.digest
        self.away += time.process_time() - before
        return digest

    def close(self) -> None:
        """Check and wipe."""
        for seat, channel in self.channels.items():
            assert channel.state is seats.State.COMPLETE
            channel.close()
            self.parties[seat].close()


def middle(samples: list[float]) -> tuple[float, float, float]:
    """Median, and the two samples between which the true one lies with 95 % (order statistics; any distribution)."""
    ordered, half = sorted(samples), len(samples) / 2
    reach = 0.98 * len(samples) ** 0.5
    return (
        statistics.median(ordered),
        ordered[max(0, int(half - reach))],
        ordered[min(len(ordered) - 1, int(half + reach))],
    )


def run(table: Callable[[wire.Terms], Bare | Sealed], terms: wire.Terms) -> tuple[float, int, Bare | Sealed]:
    """One ceremony: CPU ms per party, hops, and the table."""
    seeded.randomness(SEED)
    gc.collect()
    gc.disable()
    before = time.process_time()
    at = table(terms)
    hops = 0
    flying = {seat: at.outgoing(seat) for seat, _ in terms.committee}
    while any(flying.values()):
        hops += 1
        for sender, letters in flying.items():
            for to, letter in letters:
                for seat in flying:
                    if seat != sender and to in {None, seat}:
                        at.receive(sender, seat, letter)
        flying = {seat: at.outgoing(seat) for seat in flying}
    cpu = time.process_time() - before - getattr(at, "away", 0.0)
    gc.enable()
    seeded.randomness(None)
    at.close()
    return 1000 * cpu / len(flying), hops, at


def messages(steps: list[Row], n: int) -> list[Row]:
    """What one message of a round after the first takes longer, and how many bytes it is longer."""
    cost = {(step["what"], step["bytes"]): step["us"][0] for step in steps}
    rows = []
    for what, size, signature in (
        ("broadcast", 100, 64 if n > wire.TWO else 0),
        ("direct", 2300, 0),
        ("direct", 6800, 0),
    ):
        hashed = cost["hash", size] if what == "broadcast" else 0.0
        signed = cost["broadcast signature, make", 0] if signature else 0.0
        rows.append(
            {
                "what": f"a {what} message",
                "n": n,
                "bytes": size,
                "added_bytes": FRAME + 32 * n + signature,
                "latency_us": 2 * hashed + signed + cost["seal", size] + cost["open", size],
            }
        )
    return rows


def ceremony(what: str, terms: wire.Terms, runs: int, alone_us: float | None) -> Row:
    """The same ceremony bare and sealed, in turns. alone_us: what the channel takes without the mathematics."""
    n = len(terms.committee)
    bare_ms, sealed_ms = [], []
    run(Bare, terms)
    for _ in range(runs):
        cpu, bare_hops, bare = run(Bare, terms)
        bare_ms.append(cpu)
        cpu, sealed_hops, sealed = run(Sealed, terms)
        sealed_ms.append(cpu)
    added, least, most = middle([sealed - bare for sealed, bare in zip(sealed_ms, bare_ms, strict=True)])
    bare_median = statistics.median(bare_ms)
    return {
        "what": what,
        "t": terms.threshold,
        "n": n,
        "bare_ms": bare_median,
        "sealed_ms": statistics.median(sealed_ms),
        "added_ms": added,
        "added_ms_interval": [least, most],
        "added_share": added / bare_median,
        "added_share_interval": [least / bare_median, most / bare_median],
        "alone_ms": None if alone_us is None else alone_us / 1000,
        "alone_share": None if alone_us is None else alone_us / 1000 / min(bare_ms),
        "bytes": bare.sent // n,
        "added_bytes": (sealed.sent - bare.sent) // n,
        "messages": bare.messages // n,
        "frames": sealed.messages // n,
        "hops": bare_hops,
        "added_hops": sealed_hops - bare_hops,
    }


def show(steps: list[Row], singles: list[Row], ceremonies: list[Row]) -> None:
    """The tables for people."""
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors; CPU time")
    print(f"{'piece':32}{'bytes':>8}{'median us':>11}{'min':>9}{'max':>9}")
    for step in steps:
        median, least, most = step["us"]
        print(f"{step['what']:32}{step['bytes'] or '':>8}{median:11.1f}{least:9.1f}{most:9.1f}")
    print()
    for row in singles:
        told = f"{row['added_bytes']} more, {row['latency_us']:.0f} us"
        print(f"{row['what']} between {row['n']}, {row['bytes']} bytes: {told}")
    print()
    print(
        f"{'per party':18}{'t-of-n':>8}{'bare ms':>9}{'alone ms':>10}{'share':>7}"
        f"{'added ms':>10}{'share':>7}{'95 %':>14}"
        f"{'bytes':>9}{'added':>8}{'frames':>8}{'hops':>6}{'added':>7}"
    )
    for row in ceremonies:
        print(
            f"{row['what']:18}{row['t']}-of-{row['n']:<3}{row['bare_ms']:9.2f}"
            + (f"{row['alone_ms']:10.2f}{row['alone_share']:7.1%}" if row["alone_ms"] else " " * 17)
            + f"{row['added_ms']:10.2f}{row['added_share']:7.1%}"
            + "{:7.1%}{:7.1%}".format(*row["added_share_interval"])
            + f"{row['bytes']:9}{row['added_bytes']:8}{row['frames']:8}{row['hops']:6}{row['added_hops']:7}"
        )


def main() -> None:
    """Measure and print; exit code 1 where a signing costs more than it may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer runs, and no keygen of three")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    asked = parser.parse_args()
    core.open_arena(seeded.ARENA)
    runs = 5 if asked.quick else 201
    steps = pieces(101 if asked.quick else 1001)
    signings = [((1, 2), (2, 2)), ((1, 2, 3), (2, 3)), ((1, 2, 3, 4, 5), (3, 5))]
    alone = {step["what"]: step["us"][1] for step in steps}
    ceremonies = [
        # As many seconds for each; more parties disturb each other less.
        ceremony("signing", seats.signing_terms(signers, shape), runs * 2 // n, alone[f"all of a signing by {n}"])
        for signers, shape in signings[: 2 if asked.quick else 3]
        for n in (len(signers),)
    ]
    ceremonies += [
        ceremony("keygen", seats.keygen_terms(n), max(1, runs // 10), None) for n in ((2,) if asked.quick else (2, 3))
    ]
    singles = [*messages(steps, 2), *messages(steps, 3)]
    show(steps, singles, ceremonies)
    if asked.json:
        asked.json.write_text(json.dumps([*steps, *singles, *ceremonies], indent=1) + "\n", encoding="utf-8")
    signed = [row for row in ceremonies if row["what"] == "signing"]
    over = [row for row in signed if row["alone_share"] > LIMIT or row["added_share_interval"][0] > LIMIT]
    if over and not asked.quick:
        sys.exit(f"the channel costs more than {LIMIT:.0%} of a signing")


if __name__ == "__main__":
    main()
