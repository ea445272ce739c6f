"""Half a minute of fuzzing for each wire format; `python tests/fuzz/test_gg18.py SECONDS` fuzzes for longer."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.interop import vectors  # noqa: E402 - found through the project's root

BUILT: Final = ROOT / "build" / "fuzz"
PROTOCOLS: Final = ("gg18-v2", "gg18-v3")
SECONDS: Final = 30
FLAGS: Final = (
    "-std=c11",
    "-D_GNU_SOURCE",
    "-g",
    "-O1",
    "-fsanitize=fuzzer,address,undefined",
    "-fno-sanitize-recover=all",
    "-DSECRET_STACK_LEN=1048576",
    "-DTSS_SEEDED",
    "-DTSS_VERIFY",
)


@functools.cache
def build() -> Path:
    """Compile the target, once for both formats; clang, because libFuzzer is a part of it."""
    clang = shutil.which("clang")
    assert clang is not None, "fuzzing needs clang: ./run setup test"
    target = BUILT / "gg18"
    target.mkdir(parents=True, exist_ok=True)
    source = ROOT / "tests" / "fuzz" / "gg18.c"
    libraries = ("-lgmp", "-lcrypto", "-lsecp256k1")
    subprocess.run([clang, *FLAGS, source, "-o", target / "target", *libraries], check=True)
    return target / "target"


def seeds(folder: Path) -> None:
    """One edit of every honest message, for the decoder and for the whole way; and of every file."""
    folder.mkdir(exist_ok=True)
    counts = {0x00: 4, 0x01: 10, 0x40: 4, 0x41: 10, 0x80: 2, 0x81: 2, 0x82: 2, 0x83: 2}
    for what, messages in counts.items():
        for which in range(messages):
            for how in (0x00, 0x01, 0x41):
                name = folder / f"{what:02x}-{which:02x}-{how:02x}"
                name.write_bytes(bytes([what, which, how, 0, 40 + which, 1, 7]))


def fuzz(protocol: str, seconds: int) -> str:
    """Run the target; what it printed. CalledProcessError is a finding, kept as crash-* in build/fuzz/gg18."""
    folder = BUILT / "gg18" / protocol
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    seeds(folder / "seeds")
    fixtures = folder / "fixtures"
    held = [*vectors.saves(protocol, 2, 2), *vectors.pre_parameters()[:2]]
    fixtures.write_text("".join(vectors.compact(value) + "\n" for value in held), encoding="utf-8")
    limits = (f"-max_total_time={seconds}", "-max_len=4096", "-len_control=0", "-print_final_stats=1")
    return subprocess.run(
        [build(), *limits, f"-artifact_prefix={folder}/", folder / "corpus", folder / "seeds"],
        check=True,
        env=os.environ | {"TSSD_FUZZ_PROTOCOL": protocol, "TSSD_FUZZ_FIXTURES": str(fixtures)},
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    ).stdout


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_half_a_minute_finds_nothing(protocol: str) -> None:
    told = fuzz(protocol, SECONDS)
    assert "stat::number_of_executed_units" in told


if __name__ == "__main__":
    for name in PROTOCOLS:
        sys.stdout.write(fuzz(name, int(sys.argv[1])))
