"""tssctl as a process: broken off by the terminal, and by the end of a pipe."""

from __future__ import annotations

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
