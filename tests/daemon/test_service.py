"""tssd as a process: its socket, its own or systemd's; what it tells systemd; how it starts, stops and refuses to."""

from __future__ import annotations

import grp
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from daemon.errors import SettingsRefused
from daemon.service import open_listeners
from daemon.settings import ServiceSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = """\
[service]
socket = "{place}/tssd.sock"
state_directory = "{place}/state"
[coordinator]
url = "http://127.0.0.1:1"
[router]
url = "http://127.0.0.1:1"
[access]
operator = ["uid:{uid}"]
[custody]
socket = "{place}/custodian.sock"
[custodian]
module_path = "/usr/lib/softhsm/libsofthsm2.so"
token_label = "tssd"
pin = {{ source = "file", path = "/none" }}
state_directory = "{place}/custodian"
party_ids = ["demo-server"]
"""
ACTIVATED = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
os.execv(sys.executable, [sys.executable, "-I", "-m", "daemon", "--config", sys.argv[2]])
"""
"""What systemd does before it starts a unit with a socket."""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short path, for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="tssd-") as name:
        directory = Path(name)
        (directory / "config.toml").write_text(CONFIG.format(place=directory, uid=os.getuid()))
        yield directory


class Systemd:
    """Hears what tssd tells systemd, all the time, as systemd does: a socket that nobody reads holds its sender up."""

    def __init__(self, place: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(place / "notify.sock"))
        self._heard: list[str] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while notice := self._socket.recv(4096).decode():
            with self._changed:
                self._heard += notice.splitlines()
                self._changed.notify_all()

    def until(self, wanted: str, times: int = 1) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._heard.count(wanted) >= times, 60), self._heard

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()


@pytest.fixture
def systemd(place: Path) -> Iterator[Systemd]:
    with closing(Systemd(place)) as listening:
        yield listening


def ask(path: Path, route: str) -> httpx.Response:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://tssd", timeout=30) as client:
        return client.get(route)


def environment(place: Path) -> dict[str, str]:
    return os.environ | {"NOTIFY_SOCKET": str(place / "notify.sock"), "WATCHDOG_USEC": "400000"}


def test_its_own_socket_and_what_it_tells_systemd(place: Path, systemd: Systemd) -> None:
    command = [sys.executable, "-I", "-m", "daemon", "--config", str(place / "config.toml")]
    with subprocess.Popen(command, env=environment(place), stderr=subprocess.PIPE) as tssd:
        try:
            systemd.until("READY=1")
            systemd.until("WATCHDOG=1", times=2)
            assert ask(place / "tssd.sock", "/mpc-party/health").json()["status"] == "ok"
            # Without its custodian it looks after what it has, and says what is missing.
            ready = ask(place / "tssd.sock", "/mpc-party/ready")
            assert ready.status_code == 503
            assert str(place / "custodian.sock") in " ".join(ready.json()["reasons"])
            assert ask(place / "tssd.sock", "/mpc-party/shares").json() == {"shares": []}
            second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            assert second.returncode == 1
            assert f"another tssd uses {place / 'state'}" in second.stderr
        finally:
            tssd.send_signal(signal.SIGTERM)
            _, log = tssd.communicate(timeout=60)
    systemd.until("STOPPING=1")
    assert tssd.returncode == 0
    assert b"Traceback" not in log


def test_the_socket_that_systemd_hands_over(place: Path, systemd: Systemd) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place / "handed.sock"))
        listening.listen()
        command = [sys.executable, "-c", ACTIVATED, str(listening.fileno()), str(place / "config.toml")]
        with subprocess.Popen(
            command, env=environment(place), pass_fds=[listening.fileno()], stderr=subprocess.DEVNULL
        ) as tssd:
            try:
                systemd.until("READY=1")
                assert ask(place / "handed.sock", "/mpc-party/health").json()["status"] == "ok"
                assert not (place / "tssd.sock").exists()
            finally:
                tssd.send_signal(signal.SIGTERM)
                tssd.wait(60)
    assert tssd.returncode == 0


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (("[coordinator]", "[coordinatr]"), 78, "coordinatr: is not a setting"),
        (("/tssd.sock", "/none/tssd.sock"), 78, "see service.socket and service.group"),
        (("/state", "/none/state"), 1, "see service.state_directory"),
    ],
)
def test_it_does_not_start_and_says_why(place: Path, change: tuple[str, str], code: int, words: str) -> None:
    config = place / "config.toml"
    config.write_text(config.read_text().replace(*change, 1))
    command = [sys.executable, "-I", "-m", "daemon", "--config", str(config)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert words in ran.stderr
    assert "Traceback" not in ran.stderr


async def test_the_socket_is_for_its_group(place: Path) -> None:
    group = grp.getgrgid(os.getgid())
    path = place / "own.sock"
    settings = ServiceSettings(socket=path, group=group.gr_name)
    for _ in range(2):  # the second finds what the first, dead by now, left
        (listener,) = open_listeners(settings)
        status = path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, group.gr_gid)
        await listener.aclose()
    path.unlink()
    path.write_text("not a socket")
    with pytest.raises(SettingsRefused) as refused:
        open_listeners(settings)
    assert refused.value.remedy == "see service.socket and service.group"
    assert path.read_text() == "not a socket"
    with pytest.raises(SettingsRefused, match="no-such-group"):
        open_listeners(ServiceSettings(socket=place / "other.sock", group="no-such-group"))
