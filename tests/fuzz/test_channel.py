"""Twenty seconds of fuzzing the channel; `python tests/fuzz/test_channel.py SECONDS` fuzzes for longer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
BUILT: Final = ROOT / "build" / "fuzz" / "channel"
SECONDS: Final = 20
FLAGS: Final = (
    "-std=c11",
    "-D_GNU_SOURCE",
    "-g",
    "-O1",
    "-fsanitize=fuzzer,address,undefined",
    "-fno-sanitize-recover=all",
    "-DTSS_SEEDED",
    "-DTSS_VERIFY",
)


def build() -> Path:
    """Compile the target; clang, because libFuzzer is a part of it."""
    clang = shutil.which("clang")
    assert clang is not None, "fuzzing needs clang: ./run setup test"
    BUILT.mkdir(parents=True, exist_ok=True)
    source = ROOT / "tests" / "fuzz" / "channel.c"
    subprocess.run([clang, *FLAGS, source, "-o", BUILT / "target", "-lgmp", "-lcrypto", "-lsecp256k1"], check=True)
    return BUILT / "target"


def seeds(folder: Path) -> None:
    """A whole ceremony of each kind; each frame edited, edited inside, or repeated; statements added."""
    folder.mkdir(exist_ok=True)
    for kind in range(4):
        honest = bytes(8 if kind < 2 else 20)  # frames from each peer, of two and of three
        programs = {"honest": honest, "slow": b"\x06\x00" * 8 + honest}
        for at in range(7):
            which = 0x38  # the frame that is next
            edit = bytes([1, 0, 40 + at, 1, 3])
            programs[f"edited-{at}"] = honest[:at] + bytes([0x02 | which]) + edit + honest
            programs[f"signed-{at}"] = honest[:at] + bytes([0x42 | which]) + edit + honest
            programs[f"inside-{at}"] = honest[:at] + bytes([0x03 | which, 1, 0, at, 1, 3]) + honest
            programs[f"again-{at}"] = honest[:at] + bytes([0x01]) * 3 + honest
            programs |= {
                f"invented-{at}-{what}": honest[:at] + bytes([0x05 | what << 3, 0]) + honest for what in range(6)
            }
            programs[f"aborted-{at}"] = honest[:at] + b"\x0f" + honest
        for name, program in programs.items():
            (folder / f"{kind}-{name}").write_bytes(bytes([kind]) + program)


def fuzz(seconds: int) -> str:
    """Run the target; what it printed. CalledProcessError is a finding, kept as crash-* in build/fuzz/channel."""
    target = build()
    seeds(BUILT / "seeds")
    (BUILT / "corpus").mkdir(exist_ok=True)
    limits = (f"-max_total_time={seconds}", "-max_len=512", "-len_control=0", "-print_final_stats=1")
    return subprocess.run(
        [target, *limits, f"-artifact_prefix={BUILT}/", BUILT / "corpus", BUILT / "seeds"],
        check=True,
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    ).stdout


def test_twenty_seconds_find_nothing() -> None:
    told = fuzz(SECONDS)
    assert "stat::number_of_executed_units" in told


if __name__ == "__main__":
    sys.stdout.write(fuzz(int(sys.argv[1])))
