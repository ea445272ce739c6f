"""Whole ceremonies under valgrind: constant time, with every secret marked; nothing invalid, nothing left behind."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.interop import vectors

SOURCE: Final = Path(__file__).parent / "c" / "ctime_ceremony.c"
CORE: Final = Path(__file__).parents[2] / "tss_cffi"
STRICT: Final = ("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-gdwarf-4", "-O2")
# valgrind does not know the instructions of the fast kernel, which test_c_units.py covers in emulation.
DEFINED: Final = ("-DTSS_CTIME", "-DTSS_SEEDED", "-DTSS_IFMA_OFF")
LIBRARIES: Final = ("-lgmp", "-lcrypto", "-lsecp256k1")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    gcc = shutil.which("gcc")
    assert gcc is not None, "gcc is missing: ./run setup installs it"
    built = tmp_path_factory.mktemp("ctime") / "ceremony"
    folders = (f"-I{CORE / 'src'}", f"-I{CORE / 'include'}")
    subprocess.run([gcc, *STRICT, *DEFINED, *folders, str(SOURCE), "-o", str(built), *LIBRARIES], check=True)
    return built


@pytest.mark.parametrize("ceremony", ["sign", "keygen"])
def test_secrets_steer_neither_branches_nor_addresses(ceremony: str, program: Path, tmp_path: Path) -> None:
    material = vectors.saves("gg18-v2", 2, 2) if ceremony == "sign" else vectors.pre_parameters()[:2]
    paths = [tmp_path / f"{seat}.json" for seat in (1, 2)]
    for path, value in zip(paths, material, strict=True):
        path.write_text(vectors.compact(value), encoding="ascii")
    valgrind = ("valgrind", "--quiet", "--error-exitcode=9", "--leak-check=full")
    command = [*valgrind, str(program), ceremony, *map(str, paths)]
    subprocess.run(command, check=True)
