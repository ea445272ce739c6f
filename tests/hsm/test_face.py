"""The package as others import it."""

import shutil
import subprocess
import sys
from pathlib import Path

import hsm

SOURCE = Path(hsm.__file__).parent

THERE = """
import sys
sys.path.insert(0, sys.argv[1])
# An editable install of the project would be looked into as well.
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
"""

ALONE = """
import sys
import hsm, hsm.doctor
ours = {name.split(".")[0] for name in sys.modules} & {"daemon", "tss_cffi", "localnet"}
assert not ours, ours
assert "pkcs11._pkcs11" in sys.modules
"""


def test_it_imports_nothing_of_ours() -> None:
    subprocess.run([sys.executable, "-c", ALONE], check=True)


def test_it_offers_what_it_says() -> None:
    assert all(getattr(hsm, name) is not None for name in hsm.__all__)


def test_without_the_extension_it_says_how_to_build_it(tmp_path: Path) -> None:
    shutil.copytree(SOURCE, tmp_path / "hsm", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    done = subprocess.run(
        [sys.executable, "-I", "-c", THERE + "from hsm import Token", tmp_path],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "run `python -m hsm.build`" in done.stderr


def test_it_builds_in_place(tmp_path: Path) -> None:
    shutil.copytree(SOURCE, tmp_path / "hsm", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    before = {path.name for path in (tmp_path / "hsm").iterdir()}
    build = "import runpy; runpy.run_module('hsm.build', run_name='__main__')"
    subprocess.run([sys.executable, "-I", "-c", THERE + build, tmp_path], check=True, capture_output=True)
    (made,) = {path.name for path in (tmp_path / "hsm").iterdir()} - before - {"__pycache__"}
    assert made.startswith("_direct.")
    assert made.endswith(".so")
