"""C programs of the tests: compiled strictly, with the core's libraries, and counting lines where a run is to count."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
SOURCES: Final = ROOT / "tests" / "tss_cffi" / "c"
CORE: Final = ROOT / "tss_cffi"
STRICT: Final = ("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-g")
FOLDERS: Final = (f"-I{CORE / 'src'}", f"-I{CORE / 'include'}")
SANITIZED: Final = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
LIBRARIES: Final = ("-lgmp", "-lcrypto", "-lsecp256k1")

# tests/tss_cffi/coverage.py asks for it; gcov understands gcc's notes alone.
COUNTING: Final = os.environ.get("TSSD_TEST_CORE") == "coverage"
COUNTED: Final = ROOT / "build" / "coverage" / "objects" / "programs"


def compile_program(name: str, folder: Path, compiler: str, *flags: str) -> Path:
    """Compile one file of c/ into the folder and return the program."""
    found = shutil.which(compiler)
    assert found is not None, f"{compiler} is missing: ./run setup installs it"
    if COUNTING and compiler == "gcc":
        folder = COUNTED
        folder.mkdir(parents=True, exist_ok=True)
        # With sanitizers inside, or not optimised, lines are told apart that the counting core has as one.
        flags = (*(flag for flag in flags if flag not in SANITIZED), "--coverage")
    program = folder / f"{name}-{len(list(folder.iterdir()))}"
    command = [found, *STRICT, *FOLDERS, *flags, str(SOURCES / f"{name}.c"), "-o", str(program), *LIBRARIES]
    subprocess.run(command, check=True)
    return program
