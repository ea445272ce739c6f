"""softhsm/init-token.sh: tokens without questions, side by side, with their PINs out of sight."""

import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "softhsm/init-token.sh"


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | environment,
    )


def slots(directory: Path) -> str:
    return subprocess.run(
        ["softhsm2-util", "--show-slots"],  # noqa: S607  (found as the script finds it)
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"SOFTHSM2_CONF": str(directory / "softhsm2.conf")},
    ).stdout


@pytest.mark.parametrize("name", ["plain", "with space", "dollar$and'quote", "a/b/c"])
def test_it_makes_a_token(tmp_path: Path, name: str) -> None:
    directory = tmp_path / name
    done = run(directory, "alice-1.x_y")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "alice-1.x_y" in slots(directory)
    assert {path.name for path in directory.iterdir()} == {"softhsm2.conf", "tokens", "pin", "so-pin"}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for file in ("pin", "so-pin"):
        assert stat.S_IMODE((directory / file).stat().st_mode) == 0o400
        assert len((directory / file).read_text()) == 32
    assert (directory / "pin").read_text() != (directory / "so-pin").read_text()


def test_its_pin_is_never_an_argument(tmp_path: Path) -> None:
    """softhsm2-util is replaced by one that writes down how it was called, then by the real one."""
    spy, log = tmp_path / "bin/softhsm2-util", tmp_path / "log"
    spy.parent.mkdir()
    spy.write_text(f'#!/bin/sh\necho "$@" >>{log}\nexec /usr/bin/softhsm2-util "$@"\n')
    spy.chmod(0o700)
    done = run(tmp_path / "token", PATH=f"{spy.parent}:{os.environ['PATH']}")
    assert done.returncode == 0
    said = log.read_text()
    assert "--init-token" in said
    for file in ("pin", "so-pin"):
        assert (tmp_path / "token" / file).read_text() not in said


def test_a_second_token_in_one_place_is_refused(tmp_path: Path) -> None:
    assert run(tmp_path / "token").returncode == 0
    before = (tmp_path / "token/pin").read_bytes()
    again = run(tmp_path / "token")
    assert again.returncode == 73
    assert "has a token already" in again.stderr
    assert (tmp_path / "token/pin").read_bytes() == before


def test_several_at_once(tmp_path: Path) -> None:
    codes: list[int] = []
    threads = [
        threading.Thread(target=lambda name=name: codes.append(run(tmp_path / name, name).returncode))
        for name in ("alice", "bob", "carol", "dave")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0, 0, 0, 0]
    for name in ("alice", "bob", "carol", "dave"):
        assert slots(tmp_path / name).count("Initialized:      yes") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((), "usage"), (("",), "usage"), (("a", "b", "c"), "usage"), (("x", "bad label"), "letters, digits")],
)
def test_wrong_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.returncode == 64
    assert said in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_missing_tool_is_named(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "dirname", "mkdir"):
        (tools / tool).symlink_to(f"/bin/{tool}")
    done = run(tmp_path / "token", PATH=str(tools))
    assert done.returncode == 69
    assert "softhsm2-util is missing" in done.stderr


def test_shellcheck_has_nothing_to_say() -> None:
    subprocess.run(["shellcheck", SCRIPT], check=True)  # noqa: S607  (the platform's)
