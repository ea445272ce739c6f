"""`tssd-localnet`, as a person starts it: the page it prints, and what it leaves behind."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path


def left_behind() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("tssd-localnet-*"))


def running(place: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        if place in words:
            found.append(words)
    return found


def test_two_parties_make_a_key_and_sign() -> None:
    before = left_behind()
    command = [sys.executable, "-m", "localnet", "--parties", "2", "--threshold", "2"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stderr == ""
    assert re.search(r"public key  0[23][0-9a-f]{64}", ran.stdout)
    assert ran.stdout.count("Verified OK; for another message: Verification failure") == 1
    assert re.findall(r"demo-\w+ holds share .*, 2-of-2, active", ran.stdout)
    assert left_behind() <= before
    assert running("tssd-localnet-") == []


def test_a_threshold_beyond_the_parties_is_refused() -> None:
    command = [sys.executable, "-m", "localnet", "--parties", "2", "--threshold", "3"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 2
    assert "there are fewer parties than that" in ran.stderr


def test_a_directory_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep")
    command = [sys.executable, "-m", "localnet", "--directory", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 2
    assert (tmp_path / "mine").read_text() == "keep"
