"""The C by itself: warnings, both compilers, sanitizers, valgrind."""

import os
import subprocess
from pathlib import Path

import pytest

from hsm.build import STRICT
from tests.hsm.conftest import Faulty
from tests.hsm.fault import IvSource

HSM = Path(__file__).parents[2] / "hsm"
DRIVER = Path(__file__).parent / "module/driver.c"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]


def build(target: Path, compiler: str, *flags: str) -> Path:
    files = [str(HSM / "pkcs11_direct.c"), str(DRIVER), f"-I{HSM}", "-o", str(target), "-ldl"]
    subprocess.run([compiler, *STRICT, "-g", *flags, *files], check=True)
    return target


def drive(faulty: Faulty, program: Path, source: IvSource, *before: str, **environment: str) -> None:
    faulty.control.reset()
    faulty.control.set(iv_source=source)
    module = str(faulty.token.options["module_path"])
    done = subprocess.run(
        [*before, program, module, faulty.token.pin_file, str(int(source))],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_under_address_and_undefined_behaviour_sanitizers(faulty: Faulty, tmp_path: Path, compiler: str) -> None:
    program = build(tmp_path / "driver", compiler, "-O1", *SANITIZERS)
    for source in IvSource:
        # The provider's own leaks are its own.
        drive(faulty, program, source, ASAN_OPTIONS="detect_leaks=0")


def test_under_valgrind(faulty: Faulty, tmp_path: Path) -> None:
    program = build(tmp_path / "driver", "gcc", "-O1")
    drive(faulty, program, IvSource.CALLER, "valgrind", "--quiet", "--error-exitcode=9")
