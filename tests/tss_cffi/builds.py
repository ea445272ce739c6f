"""The builds of the core that are for tests (tss_cffi/build.py), made when a source is newer than they are.

`python tests/tss_cffi/builds.py VARIANT...` makes them ahead.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]


def build(variant: str) -> Path:
    """Bring a build up to date and return its folder; raises CalledProcessError where it does not compile."""
    folder = ROOT / "build" / variant
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        package = ROOT / "tss_cffi"
        sources = [*package.rglob("*.[ch]"), package / "build.py"]
        built = [path.stat().st_mtime for path in (folder / "tss_cffi_seeded").glob("_core*.so")]
        links = {path.name for path in (folder / "tss_cffi_seeded").glob("*.py")}
        if (
            not built
            or links != {path.name for path in package.glob("*.py")}
            or max(path.stat().st_mtime for path in sources) > min(built)
        ):
            started = time.time()
            subprocess.run([sys.executable, str(package / "build.py"), f"--{variant}"], check=True, capture_output=True)
            for path in (folder / "tss_cffi_seeded").glob("_core*.so"):
                os.utime(path, (started, started))  # a source that changed meanwhile is newer
    return folder


if __name__ == "__main__":
    for each in sys.argv[1:]:
        build(each)
