"""The bounds of the kernel that multiplies 52-bit digits, at their edges, by the processor and in emulation."""

import subprocess
from pathlib import Path

import pytest

from tests.tss_cffi.programs import SANITIZED, compile_program

pytestmark = pytest.mark.uninstrumented(reason="programs of their own, with the sanitizers too")


@pytest.mark.parametrize(
    "flags",
    [("-O3",), ("-O1", *SANITIZED), ("-O1", "-DTSS_IFMA_EMULATED")],
    ids=["processor", "sanitized", "emulated"],
)
def test_no_product_leaves_its_bounds(flags: tuple[str, ...], tmp_path: Path) -> None:
    program = compile_program("montgomery_bounds", tmp_path, "gcc", *flags, "-DTSS_VERIFY")
    subprocess.run([str(program)], check=True)
