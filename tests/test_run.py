"""`./run` with the programs it calls replaced: what it installs and lets itself lock, how, and when it does not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

RUN = Path(__file__).resolve().parents[1] / "run"
REAL = ("sh", "dirname", "cat", "mktemp", "rm", "env")


@pytest.fixture
def setup(tmp_path: Path) -> Callable[..., tuple[str, list[str]]]:
    """Run it as this uid on a host that lacks these packages; gives what it says and what it called."""
    programs, calls = tmp_path / "bin", tmp_path / "calls"
    programs.mkdir()
    shutil.copy(RUN, tmp_path / "run")

    def fake(name: str, script: str) -> None:
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{calls}\n{script}\n')
        (programs / name).chmod(0o755)

    for name in REAL:
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)

    def run(*, uid: int, missing: str = "", sudo: bool = True, apt: int = 0) -> tuple[str, list[str]]:
        fake("id", f"echo {uid}")
        fake(
            "dpkg-query", f'for last; do :; done; case " {missing} " in *" $last "*) exit 1;; *) echo installed;; esac'
        )
        fake("apt-get", f"echo what apt said; exit {apt}")
        fake("python", "exit 1")  # where the packages are done
        if sudo:
            fake("sudo", 'exec "$@"')
        environment = {"PATH": str(programs), "PYTHON": "python", "TMPDIR": str(tmp_path)}
        ran = subprocess.run(
            [tmp_path / "run", "setup"], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.returncode == 1
        return ran.stderr, [call for call in calls.read_text().splitlines() if call.startswith(("sudo", "apt-get"))]

    return run


INSTALL = "apt-get -q install -y --no-install-recommends softhsm2 curl"


def test_names_what_it_installs_with_sudo(setup: Callable[..., tuple[str, list[str]]]) -> None:
    said, called = setup(uid=1000, missing="softhsm2 curl")
    assert said.startswith("Installing these Debian packages: softhsm2 curl\n")
    assert called == [
        "sudo apt-get -q update",
        "apt-get -q update",
        f"sudo env DEBIAN_FRONTEND=noninteractive {INSTALL}",
        INSTALL,
    ]


def test_root_needs_no_sudo(setup: Callable[..., tuple[str, list[str]]]) -> None:
    said, called = setup(uid=0, missing="softhsm2 curl", sudo=False)
    assert "Installing these Debian packages: softhsm2 curl" in said
    assert called == ["apt-get -q update", INSTALL]


def test_without_sudo_it_says_what_to_ask_for(setup: Callable[..., tuple[str, list[str]]]) -> None:
    said, called = setup(uid=1000, missing="softhsm2", sudo=False)
    assert "Ask an administrator for: apt-get install --no-install-recommends softhsm2" in said
    assert called == []


def test_what_is_there_is_left_alone(setup: Callable[..., tuple[str, list[str]]]) -> None:
    said, called = setup(uid=1000)
    assert said == "run: python is older than 3.11\n"
    assert called == []


def test_apt_has_the_word_when_it_fails(setup: Callable[..., tuple[str, list[str]]]) -> None:
    said, called = setup(uid=0, missing="softhsm2", apt=100)
    assert "what apt said" in said
    assert "apt-get could not install them; its message is above" in said
    assert called == ["apt-get -q update"]


PYTHON = """
case "$*" in
    *open_arena*) [ -e "$PWD/raised" ] || exit 1 ;;
    *sys.prefix*) echo "$PWD/.venv" ;;
    *pytest*) echo tested >>"$PWD/calls" ;;
esac
"""
SUDO = 'echo "sudo" >>"$PWD/calls"; ROOT=1 "$@"'
PRLIMIT = """
case "$*" in
    *--noheadings*) echo 8388608; exit 0 ;;
    *134217728:) need=$SOFT ;;
    *) need=$ROOT ;;
esac
[ -n "$need" ] || { echo "prlimit: Operation not permitted" >&2; exit 1; }
touch "$PWD/raised"
"""


@pytest.fixture
def tests_run(tmp_path: Path) -> Callable[..., tuple[int, str, list[str]]]:
    """`./run test` where everything is set up, as a user who may raise this; its code, its words, what it called."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(RUN, tmp_path / "run")
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "test.lock").touch()

    def fake(path: Path, script: str) -> None:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    for name in (*REAL, "sha256sum", "cut", "sort", "touch"):
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    for name in ("ruff", "mypy"):
        fake(tmp_path / ".venv" / "bin" / name, "exit 0")
    fake(tmp_path / ".venv" / "bin" / "python", PYTHON)
    fake(programs / "python", "exit 0")
    fake(programs / "dpkg-query", "echo installed")
    fake(programs / "find", "exit 0")
    fake(programs / "prlimit", PRLIMIT)

    def run(*, sudo: bool = False, **may: str) -> tuple[int, str, list[str]]:
        fake(programs / "id", 'case "$1" in -un) echo somebody;; *) echo 1000;; esac')
        if sudo:
            fake(programs / "sudo", SUDO)
        environment = {"PATH": str(programs), "PYTHON": "python", "TMPDIR": str(tmp_path), "SOFT": "", "ROOT": ""} | may
        ran = subprocess.run(
            [tmp_path / "run", "test", "x"], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        calls = tmp_path / "calls"
        return ran.returncode, ran.stderr, calls.read_text().split() if calls.exists() else []

    return run


def test_locked_memory_is_left_alone_where_there_is_enough(
    tests_run: Callable[..., tuple[int, str, list[str]]], tmp_path: Path
) -> None:
    (tmp_path / "raised").touch()
    code, said, called = tests_run(sudo=True)
    assert (code, called) == (0, ["tested"])
    assert "locked memory" not in said


def test_locked_memory_is_raised_as_far_as_one_may(tests_run: Callable[..., tuple[int, str, list[str]]]) -> None:
    code, said, called = tests_run(sudo=True, SOFT="1")
    assert (code, called) == (0, ["tested"])
    assert "sudo" not in said


def test_beyond_that_it_is_raised_with_sudo(tests_run: Callable[..., tuple[int, str, list[str]]]) -> None:
    code, said, called = tests_run(sudo=True)
    assert (code, called) == (0, ["sudo", "tested"])
    assert "Raising this shell's limit of locked memory: sudo prlimit --pid" in said


def test_without_sudo_it_says_what_to_ask_for_too(tests_run: Callable[..., tuple[int, str, list[str]]]) -> None:
    code, said, called = tests_run()
    assert (code, called) == (1, [])
    assert "the limit here is 8388608 bytes" in said
    assert "somebody - memlock 131072\n" in said
