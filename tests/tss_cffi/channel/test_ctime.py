"""Whole ceremonies of the channel in C, under valgrind: constant time in keys and messages, clean, and without a leak.

Under the sanitizers they run in tests/fuzz/test_channel.py.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

pytestmark = pytest.mark.uninstrumented(reason="a program of its own, under valgrind")

HERE: Final = Path(__file__).parent
CORE: Final = Path(__file__).parents[3] / "tss_cffi"
STRICT: Final = ("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-gdwarf-4", "-O2")
DEFINED: Final = ("-DTSS_CTIME", "-DTSS_IFMA_OFF", f"-I{CORE / 'src'}", f"-I{CORE / 'include'}")
LIBRARIES: Final = ("-lgmp", "-lcrypto", "-lsecp256k1")
VALGRIND: Final = ("valgrind", "--quiet", "--error-exitcode=9", "--leak-check=full")
PUBLIC: Final = f"--suppressions={HERE / 'ctime.supp'}"


def test_secrets_steer_neither_branches_nor_addresses(tmp_path: Path) -> None:
    gcc = shutil.which("gcc")
    assert gcc is not None, "gcc is missing: ./run setup installs it"
    program = tmp_path / "ceremonies"
    subprocess.run([gcc, *STRICT, *DEFINED, str(HERE / "ctime.c"), "-o", str(program), *LIBRARIES], check=True)
    subprocess.run([*VALGRIND, PUBLIC, str(program)], check=True, timeout=300)
