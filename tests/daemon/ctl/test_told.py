"""What each command prints and how it exits, as `told.txt` has it; and the same for programs, as JSON."""

from __future__ import annotations

import json
import os
import re
import shlex
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from daemon.ctl.__main__ import CODES, EPILOG, USAGE, app
from daemon.errors import AuditUnwritable, Broken, Busy, DaemonError, NotPermitted, TokenLost, Unauthenticated
from tests.daemon.api.standin import SESSION, SHARE, StandIn
from tests.daemon.ctl.talking import listening, tssctl

if TYPE_CHECKING:
    from collections.abc import Iterator

# httpcore leaves a socket that could not connect to the collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

TOLD = (Path(__file__).parent / "told.txt").read_text()
ANSWERED = (
    "health",
    "status",
    "shares list",
    f"shares show {SHARE.share_id}",
    f"shares quarantine {SHARE.share_id}",
    "sessions list",
    f"sessions show {SESSION}",
    f"sessions watch {SESSION}",
    f"sessions confirmations {SESSION}",
    "events",
    "peers list",
    "peers show",
    "peers succeed c2lnbmVk",
    "audit list",
    "audit verify",
    "hsm status",
    "hsm rotate-kek --no-wait",
    f"keygen participate {SESSION} --party user123-server --join-token-file TOKEN",
    f"sign participate {SESSION} --party user123-server --hash {'5a' * 32} --join-token-file TOKEN",
)
"""Every command that goes through tssd."""
LOCAL = {
    "peers add",
    "peers replace",
    "peers remove",
    "peers renew",
    "peers verify",
    "peers sign-succession",
    "hsm init",
    "hsm doctor",
    "config check",
}
"""Commands that need no tssd: tests/end_to_end/test_operator.py and test_config.py have them."""


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with listening(StandIn(), tmp_path_factory.mktemp("tssd")) as path:
        yield path


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text("eyJ.join.token\n")
    return file


def commands() -> set[str]:
    """Every command there is."""
    groups = [("", app)] + [(f"{group.name} ", group.typer_instance) for group in app.registered_groups]
    return {
        f"{prefix}{command.name or (command.callback.__name__ if command.callback else '')}"
        for prefix, group in groups
        if not prefix.startswith("peer ") and group is not None
        for command in group.registered_commands
    }


def scripts() -> Iterator[tuple[str, str, int]]:
    for block in TOLD.removeprefix("$ ").split("\n\n$ "):
        command, _, rest = block.partition("\n")
        printed, _, code = rest.rpartition("-> ")
        yield command.removeprefix("tssctl "), printed, int(code)


@pytest.mark.parametrize(("command", "printed", "code"), tuple(scripts()), ids=[script[0] for script in scripts()])
def test_it_says(socket: Path, capsys: pytest.CaptureFixture[str], command: str, printed: str, code: int) -> None:
    told = tssctl(capsys, "--socket", str(socket), *shlex.split(command))
    assert (told.out + told.err, told.code) == (printed, code)


class PutBack(StandIn):
    """The custodian's own memory is of an earlier day."""

    async def custody(self) -> Any:  # noqa: ANN401  as there
        status = await super().custody()
        status.chain_problem = "the state is older than a checkpoint"
        return status


def test_an_hsm_that_is_ready_for_a_custodian_that_refuses_is_not_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with listening(PutBack(), tmp_path) as path:
        told = tssctl(capsys, "--socket", str(path), "hsm", "status")
    assert told.out.startswith("HSM              ready\nrefuses          the state is older than a checkpoint\n")
    assert told.code == 1


def test_every_command_is_here() -> None:
    assert {" ".join(command.split()[:2]) if " " in command else command for command in ANSWERED} | LOCAL == commands()


@pytest.mark.parametrize("command", ANSWERED)
def test_every_command_answers_programs(
    socket: Path, token: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    told = tssctl(capsys, "--socket", str(socket), *command.replace("TOKEN", str(token)).split(), "--json")
    lines = command.startswith(("events", "sessions watch"))
    for document in told.out.splitlines() if lines else [told.out]:
        assert isinstance(json.loads(document), dict | list)
    assert told.err == ""


@pytest.mark.parametrize("command", ANSWERED)
def test_every_command_says_that_nobody_is_there(
    tmp_path: Path, token: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    nowhere = tmp_path / "tssd.sock"
    words = ["--socket", str(nowhere), *command.replace("TOKEN", str(token)).split()]
    told = tssctl(capsys, *words)
    assert told.code == 69
    assert told.out == ""
    assert told.err == (
        f"tssctl: tssd is not listening on {nowhere}; is the service running?\n"
        "  -> systemctl status tssd.socket tssd.service; --socket names another place\n"
    )
    told = tssctl(capsys, *words, "--json")
    assert told.code == 69
    assert json.loads(told.err)["type"] == "urn:tssd:problem:not-listening"


EXITS: tuple[tuple[DaemonError, int], ...] = (
    (TokenLost("the HSM is gone", "plug it in"), 69),
    (AuditUnwritable("the disk is full", "make room"), 69),
    (Broken("no"), 70),
    (Busy("64 sessions are under way", 2), 75),
    (NotPermitted("uid:1 is nobody here", "see [access]"), 77),
    (Unauthenticated("a token is needed", "send one"), 77),
)


@pytest.mark.parametrize(("error", "code"), EXITS, ids=[error.kind for error, _ in EXITS])
def test_exit_codes_tell_refusals_apart(
    tmp_path: Path, token: Path, capsys: pytest.CaptureFixture[str], error: DaemonError, code: int
) -> None:
    asked = ["sign", "participate", str(SESSION), "--party", "user123-server", "--hash", "5a" * 32]
    with listening(StandIn(fails=error), tmp_path) as at:
        told = tssctl(capsys, "--socket", str(at), *asked, "--join-token-file", str(token))
        program = tssctl(capsys, "--socket", str(at), *asked, "--join-token-file", str(token), "--json")
    assert (told.code, program.code) == (code, code)
    assert (told.out, program.out) == ("", "")
    assert json.loads(program.err)["type"] == f"urn:tssd:problem:{error.kind}"
    if not isinstance(error, Broken):  # of our own defects only the log has the details
        assert f"tssctl: {error.message}\n  -> {error.remedy}" in told.err


def test_every_exit_code_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    documented = {int(code) for code in re.findall(r"^  (\d+) ", EPILOG, re.MULTILINE)}
    assert documented == {0, 1, USAGE, *CODES.values(), 78, 130}
    told = tssctl(capsys, "--help")
    assert all(line.strip() in told.out for line in EPILOG.splitlines()[1:])


def test_the_version_needs_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    told = tssctl(capsys, "--version")
    assert told.code == 0
    assert re.fullmatch(r"tssctl \d+\.\d+\.\d+\n", told.out)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda: (shell, f"/bin/{shell}"))
    told = tssctl(capsys, "--show-completion")
    assert told.code == 0
    assert f"complete_{shell}" in told.out


def test_ids_are_completed_from_a_running_tssd(
    socket: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for words, expected in (
        (f"tssctl --socket {socket} shares show ", str(SHARE.share_id)),
        (f"tssctl --socket {socket} sessions watch 7c", str(SESSION)),
        (f"tssctl --socket {socket}.gone shares show ", ""),
        ("tssctl sh", "shares"),
    ):
        monkeypatch.setenv("_TSSCTL_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
        assert tssctl(capsys).out.split() == ([expected] if expected else []), words


def test_what_is_not_tssd(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    told = tssctl(capsys, "--socket", str(tmp_path / "file"), "health")
    assert told.code == 69
    assert "is not listening" in told.err


@contextmanager
def as_a_stranger() -> Iterator[None]:
    """Started by root, whom no mode keeps out: be somebody else meanwhile."""
    root = os.geteuid() == 0
    if root:
        os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        if root:
            os.setresuid(0, 0, 0)


def test_who_may_not_connect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with listening(StandIn(), tmp_path) as path:
        assert tssctl(capsys, "--socket", str(path), "health").code == 0
        path.chmod(0)
        with as_a_stranger():
            told = tssctl(capsys, "--socket", str(path), "health")
    assert told.code == 69
    assert told.err == (
        f"tssctl: you may not connect to {path}\n  -> its group may; `ls -l` shows which, `id` shows yours\n"
    )


def test_a_rotation_of_the_kek_ends_where_only_refused_shares_are_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = StandIn(to_go=(3, 2, 1), refused={str(SHARE.share_id): "it is revoked"})
    with listening(desk, tmp_path) as path:
        told = tssctl(capsys, "--socket", str(path), "hsm", "rotate-kek")
        assert told.code == 1
        assert told.out == (
            "KEK version 2 is made; shares sealed anew under it: 2\n"
            "still under an older version, for the custodian refuses them: 1\n"
            f"  share {SHARE.share_id}: it is revoked\n"
        )
        told = tssctl(capsys, "--socket", str(path), "hsm", "rotate-kek", "--json")
    assert told.code == 1
    assert json.loads(told.out) == {
        "kekVersion": 2,
        "shares": 3,
        "left": 1,
        "refused": [{"shareId": str(SHARE.share_id), "reason": "it is revoked"}],
    }
