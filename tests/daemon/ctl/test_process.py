"""tssctl as a process: broken off by the terminal, and by the end of a pipe."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from typing import IO, TYPE_CHECKING

from tests.daemon.api.standin import StandIn
from tests.daemon.ctl.talking import listening

if TYPE_CHECKING:
    from pathlib import Path


def first_line(pipe: IO[bytes] | None) -> bytes:
    assert pipe is not None
    return pipe.readline()


def test_what_goes_on_until_interrupted(tmp_path: Path) -> None:
    with listening(StandIn(), tmp_path) as socket:
        command = [sys.executable, "-I", "-m", "daemon.ctl", "--socket", str(socket), "events", "--follow", "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
            assert first_line(running.stdout) == b'{"number":1,"event":{"type":"ShareCreated"}}\n'
            running.send_signal(signal.SIGINT)
            _, complaint = running.communicate(timeout=60)
    assert running.returncode == 130
    assert b"Traceback" not in complaint


def test_nobody_reads_on(tmp_path: Path) -> None:
    with listening(StandIn(), tmp_path) as socket:
        command = [sys.executable, "-I", "-m", "daemon.ctl", "--socket", str(socket), "events", "--follow", "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
            first_line(running.stdout)
            assert running.stdout is not None
            running.stdout.close()
            assert running.wait(timeout=60) != 0
            assert running.stderr is not None
            assert b"Traceback" not in running.stderr.read()


def test_a_rotation_of_the_kek_shows_how_far_it_is_on_a_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    seen = b""
    with listening(StandIn(to_go=(4, 3, 2, 1, 0)), tmp_path) as socket:
        command = [sys.executable, "-I", "-m", "daemon.ctl", "--socket", str(socket), "hsm", "rotate-kek"]
        environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=environment) as running:
            os.close(theirs)
            try:
                while more := os.read(ours, 4096):
                    seen += more
            except OSError:  # the other end is closed
                pass
            os.close(ours)
            said, _ = running.communicate(timeout=60)
    assert (running.returncode, said) == (0, b"KEK version 2 is made; shares sealed anew under it: 3\n")
    assert b"sealing anew" in seen
    shown = [seen.find(f"{percent}%".encode()) for percent in (0, 33, 67)]
    assert -1 not in shown
    assert shown == sorted(shown)
