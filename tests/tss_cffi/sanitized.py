"""The core's suite on a core with the address and undefined-behaviour sanitizers inside; arguments go to pytest.

`./run test` runs these tests so, in place of on the build without. What is out of its reach says so: `uninstrumented`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.tss_cffi.builds import build  # noqa: E402 - found through the project's root

if TYPE_CHECKING:
    from collections.abc import Sequence

SUITE: Final = ("-m", "not uninstrumented", "tests/tss_cffi", "tests/interop/test_replay.py")
# Each worker has a build of its own to warm up, and computes all the time: one for each processor.
MANNER: Final = ("-q", "-n", "auto", "--dist", "worksteal", "-p", "no:cacheprovider")
OURS: Final = "tss_cffi/src/"  # in a stack


class Outcome(NamedTuple):
    """How a command ended, and what the sanitizers have against it."""

    status: int
    findings: list[str]


def runtime(name: str) -> str:
    """A sanitizer's library; they have to come before all others."""
    gcc = shutil.which("gcc")
    assert gcc is not None, "gcc is missing: ./run setup installs it"
    told = subprocess.run([gcc, f"-print-file-name={name}"], check=True, stdout=subprocess.PIPE, text=True)
    return told.stdout.strip()


def findings_of(report: str) -> list[str]:
    """An error is one; of leaks those that are ours, for the interpreter has its own."""
    if "ERROR: AddressSanitizer" in report or "runtime error" in report:
        return [report]
    return [leak for leak in report.split("\n\n") if OURS in leak]


def run(command: Sequence[str]) -> Outcome:
    """Run a command, in whose Python processes tests.tss_cffi.seeded is the sanitized build."""
    build("sanitize")
    with tempfile.TemporaryDirectory() as folder:
        # Into files: pytest captures what a test writes, and a worker that ends takes it along.
        log = f"log_path={folder}/report"
        options = {
            "TSSD_TEST_CORE": "sanitize",
            "LD_PRELOAD": f"{runtime('libasan.so')} {runtime('libubsan.so')}",
            "PYTHONMALLOC": "malloc",  # so that what Python refers to is no leak, and each object has its bounds
            "ASAN_OPTIONS": f"detect_leaks=1:exitcode=99:malloc_context_size=12:quarantine_size_mb=64:{log}",
            "UBSAN_OPTIONS": f"print_stacktrace=1:halt_on_error=1:{log}",
            "LSAN_OPTIONS": "exitcode=0:max_leaks=0",
        }
        status = subprocess.run(command, cwd=ROOT, env=os.environ | options, check=False).returncode
        reports = [path.read_text(encoding="utf-8", errors="replace") for path in Path(folder).iterdir()]
    return Outcome(status, [finding for report in reports for finding in findings_of(report)])


def main(arguments: Sequence[str]) -> int:
    """Run the suite; the exit status, which is not 0 either where tests passed and the sanitizers found something."""
    status, findings = run([sys.executable, "-m", "pytest", *MANNER, *SUITE, *arguments])
    for finding in findings:
        sys.stderr.write(f"{finding}\n\n")
    return status or len(findings) > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
