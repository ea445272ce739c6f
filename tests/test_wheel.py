"""The sdist builds a wheel, and the wheel works by itself, as for somebody who installs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final
from zipfile import ZipFile

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGES: Final = {"daemon", "hsm", "localnet", "tss_cffi"}
# What is left where somebody worked, which a clone does not have.
MADE: Final = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")
WORKS: Final = """
import daemon, hsm, localnet, tss_cffi
for package in daemon, hsm, localnet, tss_cffi:
    print(package.__file__)
tss_cffi.open_arena(1 << 20)
with tss_cffi.SecretBytes(32) as secret:
    print(len(secret))
tss_cffi.close_arena()
"""


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    ran = subprocess.run(
        command, cwd=cwd, env=os.environ | environment, check=False, text=True, capture_output=True, timeout=300
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist of what a clone has, with the libraries that are here."""
    folder = tmp_path_factory.mktemp("wheel")
    clone = folder / "clone"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, clone / package, ignore=MADE)
    for name in ("LICENSE", "README.md", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, clone)
    make = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", make, folder, cwd=clone)
    (sdist,) = folder.glob("*.tar.gz")
    offline = ("--no-index", "--no-deps", "--no-build-isolation", "--no-cache-dir")
    run(sys.executable, "-m", "pip", "wheel", "-q", *offline, "-w", folder, sdist, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_works_by_itself(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "-t", "site", wheel, cwd=tmp_path)
    site = tmp_path / "site"
    told = run(sys.executable, "-c", WORKS, cwd=tmp_path, PYTHONPATH=str(site)).splitlines()
    assert [Path(line).parents[1] for line in told[:4]] == [site] * 4
    assert told[4] == "32"
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for name in scripts:
        assert "usage" in run(site / "bin" / name, "--help", cwd=tmp_path, PYTHONPATH=str(site)).lower()


def test_the_wheel_holds_programs_and_headers_alone(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        files = {Path(name) for name in archive.namelist() if ".dist-info/" not in name}
    assert {file.parts[0] for file in files} == PACKAGES
    assert {file.suffix for file in files if file.name != "py.typed"} == {".py", ".pyi", ".so", ".h"}
    assert {file.parent.name for file in files if file.suffix == ".h"} == {"include"}
