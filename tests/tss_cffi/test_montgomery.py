"""The bounds of the kernel that multiplies 52-bit digits, at their edges, by the processor and in emulation."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

SOURCE: Final = Path(__file__).parent / "c" / "montgomery_bounds.c"
INCLUDED: Final = Path(__file__).parents[2] / "tss_cffi" / "src"
STRICT: Final = ("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wconversion", "-Werror", f"-I{INCLUDED}")
LIBRARIES: Final = ("-lgmp", "-lcrypto", "-lsecp256k1")


@pytest.mark.parametrize("flags", [("-O3",), ("-O1", "-DTSS_IFMA_EMULATED")], ids=["processor", "emulated"])
def test_no_product_leaves_its_bounds(flags: tuple[str, ...], tmp_path: Path) -> None:
    gcc = shutil.which("gcc")
    assert gcc is not None, "gcc is missing: ./run setup installs it"
    program = tmp_path / "bounds"
    subprocess.run([gcc, *STRICT, *flags, "-DTSS_VERIFY", str(SOURCE), "-o", str(program), *LIBRARIES], check=True)
    subprocess.run([str(program)], check=True)
