"""Line coverage of the C core by its own suite: `./run coverage`. Fails below the promised share.

Python tests run against the build that counts, C programs are compiled to count. Not counted: the same programs under
valgrind, under the sanitizers and from clang.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
OBJECTS: Final = ROOT / "build" / "coverage" / "objects"
PROMISED: Final = 95

SUITE: Final = (
    "tests/tss_cffi",
    "tests/interop/test_replay.py",
    "--ignore=tests/tss_cffi/test_ctime.py",
    "--ignore=tests/tss_cffi/channel/test_ctime.py",
    "-k",
    "not (sanitized or valgrind or clang or secrets_steer or would_be_found)",
)


def run(*command: str) -> None:
    """Run it with the build that counts; what fails ends the program."""
    subprocess.run(command, cwd=ROOT, env=os.environ | {"TSSD_TEST_CORE": "coverage"}, check=True)


def main(arguments: list[str]) -> None:
    """Count from zero; arguments go to pytest."""
    gcovr = shutil.which("gcovr")
    if gcovr is None:
        sys.exit("gcovr is missing: ./run coverage installs it")
    shutil.rmtree(OBJECTS.parent, ignore_errors=True)
    # The counts are written by processes that end: one process, and its children.
    run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *SUITE, *arguments)
    objects = [str(OBJECTS / "tss_cffi"), str(OBJECTS / "programs")]
    # gcov counts some branches below zero, and gcovr 5.2 stumbles over that; lines are what is asked for.
    run(
        gcovr,
        "--gcov-ignore-parse-errors",
        "--root",
        ".",
        *objects,
        "--filter",
        "tss_cffi/src/",
        "--fail-under-line",
        str(PROMISED),
    )


if __name__ == "__main__":
    main(sys.argv[1:])
