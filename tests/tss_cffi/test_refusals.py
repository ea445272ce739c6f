"""Memory that is not there, at each place that asks for some: told as such, nobody blamed, nothing left behind."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.interop import vectors
from tests.tss_cffi.programs import SANITIZED, compile_program

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.uninstrumented(reason="a program of its own, with the sanitizers")


def test_each_allocation_may_be_refused_once(tmp_path: Path) -> None:
    # Without the kernel of some machines, all machines have the same places.
    program = compile_program(
        "refusals", tmp_path, "gcc", "-O1", *SANITIZED, "-DTSS_SEEDED", "-DTSS_VERIFY", "-DTSS_IFMA_OFF"
    )
    paths: list[Path] = []
    for value in (*vectors.saves("gg18-v2", 2, 2), *vectors.pre_parameters()[:2]):
        paths.append(tmp_path / f"{len(paths)}.json")
        paths[-1].write_text(vectors.compact(value), encoding="ascii")
    told = subprocess.run([str(program), *map(str, paths)], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert int(told.split()[0]) > 200
