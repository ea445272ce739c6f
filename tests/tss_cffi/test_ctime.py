"""Whole ceremonies under valgrind: constant time, with every secret marked; nothing invalid, nothing left behind."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from tests.interop import vectors
from tests.tss_cffi.programs import compile_program

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.uninstrumented(reason="a program of its own, under valgrind")

# valgrind does not know the instructions of the fast kernel, which test_c_units.py covers in emulation.
FLAGS: Final = ("-gdwarf-4", "-O2", "-DTSS_CTIME", "-DTSS_SEEDED", "-DTSS_IFMA_OFF")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_program("ctime_ceremony", tmp_path_factory.mktemp("ctime"), "gcc", *FLAGS)


@pytest.mark.parametrize("ceremony", ["sign", "keygen"])
def test_secrets_steer_neither_branches_nor_addresses(ceremony: str, program: Path, tmp_path: Path) -> None:
    material = vectors.saves("gg18-v2", 2, 2) if ceremony == "sign" else vectors.pre_parameters()[:2]
    paths = [tmp_path / f"{seat}.json" for seat in (1, 2)]
    for path, value in zip(paths, material, strict=True):
        path.write_text(vectors.compact(value), encoding="ascii")
    valgrind = ("valgrind", "--quiet", "--error-exitcode=9", "--leak-check=full")
    command = [*valgrind, str(program), ceremony, *map(str, paths)]
    subprocess.run(command, check=True)
