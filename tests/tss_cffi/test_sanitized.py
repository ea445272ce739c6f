"""Much of the core's suite once more, against a core with the address and undefined-behaviour sanitizers inside."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]

# Honest ceremonies, the face in every misuse, key material in every way wrong. Messages in every way wrong are for the
# fuzzers, arithmetic for test_c_units.py: both have the same sanitizers.
PART: Final = (
    "tests/interop/test_replay.py",
    "tests/tss_cffi/test_edges.py",
    "tests/tss_cffi/test_misuse.py",
    "tests/tss_cffi/test_share.py",
)
OURS: Final = "tss_cffi/src/"  # in the stack of a leak


def runtime(compiler: str, name: str) -> str:
    """The sanitizer's library, which has to come before all others."""
    told = subprocess.run([compiler, f"-print-file-name={name}"], check=True, stdout=subprocess.PIPE, text=True)
    return told.stdout.strip()


def test_the_sanitizers_find_nothing(tmp_path: Path) -> None:
    gcc = shutil.which("gcc")
    assert gcc is not None, "gcc is missing: ./run setup installs it"
    environment = os.environ | {
        "TSSD_TEST_CORE": "sanitize",
        "LD_PRELOAD": f"{runtime(gcc, 'libasan.so')} {runtime(gcc, 'libubsan.so')}",
        "PYTHONMALLOC": "malloc",  # so that what Python refers to is no leak
        "ASAN_OPTIONS": "detect_leaks=1:exitcode=99",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        # The interpreter has leaks of its own: all are written down, ours are looked for.
        "LSAN_OPTIONS": f"exitcode=0:max_leaks=0:log_path={tmp_path}/leaks",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *PART]
    told = subprocess.run(
        command, cwd=ROOT, env=environment, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    reports = [path.read_text(encoding="utf-8", errors="replace") for path in tmp_path.glob("leaks.*")]
    assert told.returncode == 0, told.stdout + "".join(reports)
    leaks = [leak for report in reports for leak in report.split("\n\n") if OURS in leak]
    assert leaks == []
