"""Seat 1 of a ceremony in a process of its own, as a custodian is: frames in on standard input, frames out.

`python lonely_seat.py keygen|sign SEED`. In: u32 length and a frame. Out, after each: u32 receiver (0: all), u32 length
and a frame, as often as there is one; then eight zero bytes.
"""

import os
import sys
from pathlib import Path
from typing import BinaryIO

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT), str(ROOT / "build" / os.environ.get("TSSD_TEST_CORE", "seeded"))]

# Before anything that uses libcrypto: only then do its allocations for keys go to the arena.
import tss_cffi_seeded  # type: ignore[import-not-found]  # noqa: E402, F401 - see above

from tests.tss_cffi import seeded  # noqa: E402 - as above
from tests.tss_cffi.channel.seats import Seat, channel, keygen_terms, signing_terms  # noqa: E402 - as above


def say(seat: Seat, out: BinaryIO) -> None:
    """All that is outgoing, and the end mark."""
    out.writelines((to or 0).to_bytes(4) + len(frame).to_bytes(4) + frame for to, frame in seat.outgoing())
    out.write(bytes(8))
    out.flush()


def main(kind: str, seed: bytes) -> None:
    """Sit until the input ends. The seed makes our ephemeral keys, so that the test knows them."""
    if not channel.libcrypto_locked():
        sys.exit("libcrypto was in use before the core was loaded")
    seeded.core.open_arena(4 * 1024 * 1024)
    terms = keygen_terms() if kind == "keygen" else signing_terms((1, 2))
    seeded.randomness(seed)
    seat = Seat(terms, 1)
    Seat(terms, 1).close()  # the seeded stream keeps the last block it made: let that be another
    seeded.randomness(None)
    say(seat, sys.stdout.buffer)
    while header := sys.stdin.buffer.read(4):
        seat.receive(sys.stdin.buffer.read(int.from_bytes(header)), 0)
        say(seat, sys.stdout.buffer)


if __name__ == "__main__":
    main(sys.argv[1], bytes.fromhex(sys.argv[2]))
