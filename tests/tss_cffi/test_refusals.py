"""Memory that is not there, at each place that asks for some: told as such, nobody blamed, nothing left behind."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.interop import vectors

SOURCE: Final = Path(__file__).parent / "c" / "refusals.c"
CORE: Final = Path(__file__).parents[2] / "tss_cffi"
FLAGS: Final = ("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-g", "-O1")
# Without the kernel of some machines, all machines have the same places.
DEFINED: Final = ("-DTSS_SEEDED", "-DTSS_VERIFY", "-DTSS_IFMA_OFF")
LIBRARIES: Final = ("-lgmp", "-lcrypto", "-lsecp256k1")


def test_each_allocation_may_be_refused_once(tmp_path: Path) -> None:
    gcc = shutil.which("gcc")
    assert gcc is not None, "gcc is missing: ./run setup installs it"
    program = tmp_path / "refusals"
    folders = (f"-I{CORE / 'src'}", f"-I{CORE / 'include'}")
    subprocess.run([gcc, *FLAGS, *DEFINED, *folders, str(SOURCE), "-o", str(program), *LIBRARIES], check=True)
    paths = []
    for value in (*vectors.saves("gg18-v2", 2, 2), *vectors.pre_parameters()[:2]):
        paths.append(tmp_path / f"{len(paths)}.json")
        paths[-1].write_text(vectors.compact(value), encoding="ascii")
    told = subprocess.run([str(program), *map(str, paths)], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert int(told.split()[0]) > 200
