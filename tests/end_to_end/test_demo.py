"""`tssd-localnet`, as a person starts it: the page it prints, and what it leaves behind."""

from __future__ import annotations

import itertools
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


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


def offered(lines: Iterator[str]) -> Iterator[str]:
    """What can be pasted, up to the second of the two sessions by hand; the sentences between are left out."""
    watches = 0
    for line in lines:
        if " by hand" not in line:
            yield line
        watches += "sessions watch" in line
        if watches == 2:
            return


def test_two_parties_make_a_key_and_sign_and_stay_for_both_by_hand() -> None:
    before = left_behind()
    command = [sys.executable, "-m", "localnet", "--parties", "2", "--threshold", "2", "--stay"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ran:
        try:
            assert ran.stdout is not None
            page = "".join(itertools.takewhile(lambda line: "in another terminal" not in line, ran.stdout))
            printed = "set -ex\n" + "".join(offered(ran.stdout))
            did = subprocess.run(["/bin/sh", "-c", printed], capture_output=True, text=True, timeout=400, check=False)
        finally:
            ran.send_signal(signal.SIGINT)
            end, complaint = ran.communicate(timeout=120)
    assert (ran.returncode, complaint) == (0, ""), complaint
    assert did.returncode == 0, did.stderr
    assert re.search(r"public key  0[23][0-9a-f]{64}", page)
    assert page.count("Verified OK; for another message: Verification failure") == 1
    assert re.findall(r"demo-\w+ holds share .*, 2-of-2, active", page)
    assert re.search("able to sign +yes", did.stdout)
    assert did.stdout.count("keygen accepted") == 2
    assert did.stdout.count("signing accepted") == 2
    assert "All stopped." in end
    assert left_behind() <= before
    assert running("tssd-localnet-") == []


def test_an_interrupted_demonstration_leaves_nothing() -> None:
    before = left_behind()
    command = [sys.executable, "-m", "localnet", "--parties", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ran:
        assert ran.stdout is not None
        next(line for line in ran.stdout if "parties on this machine" in line)
        ran.send_signal(signal.SIGINT)
        end, _ = ran.communicate(timeout=120)
    assert ran.returncode == 130
    assert "All stopped." in end
    assert left_behind() <= before


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
