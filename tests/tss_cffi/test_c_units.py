"""The C unit tests of the core's arithmetic: plain, under the sanitizers and under valgrind; constant time."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.tss_cffi.programs import SANITIZED, compile_program

pytestmark = pytest.mark.uninstrumented(reason="programs of their own, with the sanitizers too")

UNITS: Final = ("secret", "random", "bigint", "curve", "primes", "vss", "wire")
BUILDS: Final = {
    "plain": ("gcc", "-O3"),
    "clang": ("clang", "-O2", "-DTSS_VERIFY"),
    # The kernel of most machines, and, on those, the one of the others.
    "limbs": ("gcc", "-O2", "-DTSS_VERIFY", "-DTSS_IFMA_OFF"),
    "digits": ("gcc", "-O2", "-DTSS_VERIFY", "-DTSS_IFMA_EMULATED"),
    "sanitized": ("gcc", "-O1", "-DTSS_VERIFY", *SANITIZED),
    "valgrind": ("gcc", "-O1", "-DTSS_VERIFY", "-DTSS_VALGRIND", "-DROUNDS=20"),
}
# Children that are meant to crash say nothing.
VALGRIND: Final = ("valgrind", "--quiet", "--error-exitcode=9", "--leak-check=full", "--child-silent-after-fork=yes")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that compiles one file of c/ and returns the program."""
    folder = tmp_path_factory.mktemp("c-units")

    def compile_one(name: str, compiler: str, *flags: str) -> Path:
        return compile_program(name, folder, compiler, *flags)

    return compile_one


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("unit", UNITS)
def test_unit(unit: str, build: str, compiled: Callable[..., Path]) -> None:
    program = compiled(f"test_{unit}", *BUILDS[build])
    prefix = VALGRIND if build == "valgrind" else ()
    subprocess.run([*prefix, str(program)], check=True, timeout=100)


@pytest.mark.parametrize("build", ["plain", "sanitized"])
def test_sharing_holds_for_every_element_of_a_small_group(build: str, compiled: Callable[..., Path]) -> None:
    program = compiled("exhaustive", *BUILDS[build], "-DTSS_VERIFY")
    subprocess.run([str(program)], check=True, timeout=100)


@pytest.mark.parametrize(
    ("compiler", "level", "kernel"),
    [
        ("gcc", "-O1", "OFF"),
        ("gcc", "-O2", "OFF"),
        ("gcc", "-O3", "OFF"),
        ("clang", "-O2", "OFF"),
        ("gcc", "-O3", "EMULATED"),
    ],
)
def test_secrets_steer_neither_branches_nor_addresses(
    compiler: str, level: str, kernel: str, compiled: Callable[..., Path]
) -> None:
    program = compiled("ctime", compiler, level, "-gdwarf-4", "-DTSS_CTIME", f"-DTSS_IFMA_{kernel}")
    subprocess.run([*VALGRIND, str(program)], check=True, timeout=100)


def test_a_branch_on_a_secret_would_be_found(compiled: Callable[..., Path]) -> None:
    program = compiled("ctime", "gcc", "-O2", "-DTSS_CTIME")
    command = [*VALGRIND, str(program), "--branch"]
    told = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    assert told.returncode == 9
    assert "branch_on_a_secret" in told.stderr
