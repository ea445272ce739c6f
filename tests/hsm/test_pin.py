"""A PIN is read from the right files only, and a wrong one is tried once, ever."""

import json
import os
import pickle
import pty
import stat
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hsm import CKR, CredentialRefused, Pin, PinLatch, Token, TokenLost
from tests.hsm.conftest import Faulty
from tests.hsm.fault import Action
from tests.hsm.soft import SoftToken

START = """
import sys
from pathlib import Path
from hsm import CredentialRefused, Pin, PinLatch, TokenSettings, open_token
module, label, pin, state, profile, init_string = sys.argv[1:]
settings = TokenSettings(
    module_path=Path(module), token_label=label, profile=profile, init_string=init_string or None
)
try:
    open_token(settings, Pin.from_file(Path(pin)), PinLatch(Path(state))).close()
except CredentialRefused as refused:
    print(refused)
    sys.exit(3)
"""
ACCEPTED, REFUSED = 0, 3


def start(token: SoftToken, state: Path) -> tuple[int, str]:
    """One start of a process that opens the token: its exit code and what it said."""
    settings = token.settings()
    how = [
        str(settings.module_path),
        token.label,
        str(token.pin_file),
        str(state),
        settings.profile,
        settings.init_string or "",
    ]
    done = subprocess.run(
        [sys.executable, "-c", START, *how],
        check=False,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout


@pytest.fixture
def state(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    return made


def spoil(pin_file: Path, content: bytes = b"wrong-pin") -> bytes:
    right = pin_file.read_bytes()
    pin_file.chmod(0o600)
    pin_file.write_bytes(content)
    pin_file.chmod(0o400)
    return right


def test_a_wrong_pin_is_tried_once_over_any_number_of_starts(faulty: Faulty, state: Path) -> None:
    faulty.control.set(pin_tries=3)
    right = spoil(faulty.token.pin_file)
    for _ in range(8):
        code, said = start(faulty.token, state)
        assert code == REFUSED
    assert "latched" in said
    assert faulty.control.get("wrong_pins") == 1
    spoil(faulty.token.pin_file, right)
    assert start(faulty.token, state)[0] == ACCEPTED
    assert start(faulty.token, state)[0] == ACCEPTED


def test_a_refused_pin_waits_for_another_on_each_provider(disposable: SoftToken, state: Path) -> None:
    right = spoil(disposable.pin_file)
    tried = []
    for _ in range(4):
        code, said = start(disposable, state)
        assert code == REFUSED
        tried.append("latched" not in said)
    assert tried == [True, False, False, False]
    spoil(disposable.pin_file, right)
    assert start(disposable, state)[0] == ACCEPTED
    assert start(disposable, state)[0] == ACCEPTED


@pytest.mark.parametrize("action", [Action.CRASH, Action.CRASH_AFTER])
def test_a_crash_in_the_first_login_leaves_the_latch_shut(faulty: Faulty, state: Path, action: Action) -> None:
    spoil(faulty.token.pin_file)
    faulty.control.fault("C_Login", action)
    assert start(faulty.token, state)[0] < 0
    for _ in range(3):
        code, said = start(faulty.token, state)
        assert code == REFUSED
        assert "outcome unknown" in said
    assert faulty.control.calls("C_Login") == 1


def test_a_crash_does_not_lock_out_a_pin_that_was_right(faulty: Faulty, state: Path) -> None:
    assert start(faulty.token, state)[0] == ACCEPTED
    for action in (Action.CRASH, Action.CRASH_AFTER):
        faulty.control.fault("C_Login", action)
        assert start(faulty.token, state)[0] < 0
        assert start(faulty.token, state)[0] == ACCEPTED


def test_a_right_pin_for_another_token_proves_nothing(faulty: Faulty, state: Path) -> None:
    assert start(faulty.token, state)[0] == ACCEPTED
    latch = state / "pin-latch.json"
    record = json.loads(latch.read_bytes())
    assert record["outcome"] == "accepted"
    latch.write_text(json.dumps(record | {"accepted_by": "another serial", "outcome": "trying"}))
    assert start(faulty.token, state)[0] == REFUSED


@pytest.mark.parametrize("code", [CKR.PIN_INCORRECT, CKR.PIN_LOCKED, CKR.PIN_EXPIRED])
def test_reconnecting_does_not_try_a_refused_pin_again(faulty: Faulty, state: Path, code: CKR) -> None:
    for latch in (None, PinLatch(state)):
        faulty.control.clear()
        with faulty.token.open(latch) as token:
            faulty.control.answer("C_Login", code)
            before = faulty.control.calls("C_Login")
            for _ in range(5):
                with pytest.raises(CredentialRefused):
                    token.reconnect()
            assert faulty.control.calls("C_Login") == before + 1
            faulty.token.pin_file.touch()
            token.reconnect()
            token.probe()


def test_what_is_not_about_the_pin_does_not_latch(faulty: Faulty, state: Path) -> None:
    latch = PinLatch(state)
    faulty.control.answer("C_Login", CKR.TOKEN_NOT_PRESENT)
    with pytest.raises(TokenLost):
        faulty.token.open(latch)
    faulty.token.open(latch).close()
    faulty.control.answer("C_Login", CKR.TOKEN_NOT_PRESENT)
    with pytest.raises(TokenLost):
        faulty.token.open(latch)
    faulty.token.open(latch).close()


def test_an_operator_can_release_the_latch(disposable: SoftToken, state: Path) -> None:
    right = spoil(disposable.pin_file)
    latch = PinLatch(state)
    with pytest.raises(CredentialRefused, match="PIN_INCORRECT"):
        disposable.open(latch)
    with pytest.raises(CredentialRefused, match="latched"):
        disposable.open(latch)
    latch.release()
    with pytest.raises(CredentialRefused, match="PIN_INCORRECT"):
        disposable.open(latch)
    spoil(disposable.pin_file, right)
    disposable.open(latch).close()


def test_a_damaged_latch_stays_shut(disposable: SoftToken, state: Path) -> None:
    for damage in (b"", b"{}", b"[]", b"null", b'{"credential": 1}'):
        (state / "pin-latch.json").write_bytes(damage)
        with pytest.raises(CredentialRefused, match="damaged"):
            disposable.open(PinLatch(state))


def test_the_latch_holds_nothing_of_the_pin(disposable: SoftToken, state: Path) -> None:
    disposable.open(PinLatch(state)).close()
    (file,) = state.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    record = json.loads(file.read_bytes())
    assert record["credential"].keys() == {"source", "device", "inode", "modified_ns", "changed_ns", "size"}


@pytest.mark.parametrize(
    "mode",
    [0o440, 0o404, 0o644, 0o660, 0o420, 0o401, 0o410, 0o500, 0o700, 0o100, 0o200, 0o000, 0o4400, 0o2400, 0o1600],
    ids=oct,
)
def test_a_file_of_another_mode_is_refused(soft_token: SoftToken, mode: int) -> None:
    """What others can read, or write, or was never meant to be a secret's file."""
    if os.geteuid() != 0 and not mode & 0o400:
        pytest.skip("not even opened")
    soft_token.pin_file.chmod(mode)
    with pytest.raises(CredentialRefused, match=f"has mode {mode:04o}; must be 0400 or 0600"):
        soft_token.pin()


@pytest.mark.parametrize("mode", [0o400, 0o600], ids=oct)
def test_a_file_of_ours_alone_is_taken(soft_token: SoftToken, mode: int) -> None:
    soft_token.pin_file.chmod(mode)
    soft_token.open().close()


def allow(path: Path, *entries: tuple[int, int, int]) -> None:
    """Give a file an access list: tag, permissions, id; as the kernel takes it."""
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(path, "system.posix_acl_access", packed)
    except OSError as error:
        pytest.skip(f"this file system has no access lists: {error.strerror}")


def test_a_file_listed_for_us_alone_is_taken(soft_token: SoftToken) -> None:
    """As systemd gives a credential to a unit's user: the mode reads 0440, and no group may read it."""
    path, nobody = soft_token.pin_file, 2**32 - 1
    owner, us, group, mask, other = (
        (0x01, 4, nobody),
        (0x02, 4, os.geteuid()),
        (0x04, 0, nobody),
        (0x10, 4, nobody),
        (0x20, 0, nobody),
    )
    allow(path, owner, us, group, mask, other)
    assert stat.S_IMODE(path.stat().st_mode) == 0o440
    soft_token.open().close()
    for entries in (
        (owner, (0x02, 4, 12345), group, mask, other),
        (owner, us, (0x02, 4, 12345), group, mask, other),
        (owner, us, (0x04, 4, nobody), mask, other),
        (owner, us, group, (0x08, 4, 12345), mask, other),
        (owner, us, group, mask, (0x20, 4, nobody)),
        (owner, (0x02, 6, os.geteuid()), group, (0x10, 6, nobody), other),
    ):
        allow(path, *entries)
        with pytest.raises(CredentialRefused, match="must be 0400 or 0600"):
            soft_token.pin()


def test_odd_files_are_refused(tmp_path: Path, soft_token: SoftToken) -> None:
    link = tmp_path / "link"
    link.symlink_to(soft_token.pin_file)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    directory = tmp_path / "directory"
    directory.mkdir(mode=0o700)
    for path, said in (
        (link, "symbolic links"),
        (fifo, "not a regular file"),
        (directory, "not a regular file"),
        (tmp_path / "nowhere", "No such file"),
    ):
        with pytest.raises(CredentialRefused, match=said):
            Pin.from_file(path)


def test_a_file_of_somebody_else_is_refused(soft_token: SoftToken) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a file away takes root, which CI is")
    os.chown(soft_token.pin_file, 12345, 12345)
    with pytest.raises(CredentialRefused, match="belongs to uid 12345"):
        soft_token.pin()


@pytest.mark.parametrize(("content", "said"), [(b"", "No data"), (b"\n", "No data"), (b"x" * 257, "too long")])
def test_odd_pins_never_reach_the_token(faulty: Faulty, content: bytes, said: str) -> None:
    spoil(faulty.token.pin_file, content)
    with pytest.raises(CredentialRefused, match=said):
        faulty.token.open()
    assert faulty.control.calls("C_Login") == 0


@pytest.mark.parametrize("ending", [b"", b"\n", b"\nsecond line\n"])
def test_the_first_line_is_the_pin(soft_token: SoftToken, ending: bytes) -> None:
    spoil(soft_token.pin_file, soft_token.pin_file.read_bytes().strip() + ending)
    soft_token.open().close()


def test_a_systemd_credential_goes_by_its_source(
    soft_token: SoftToken, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd copies a credential anew at each start; the copy's inode and times say nothing."""
    source = tmp_path / "source"
    source.write_bytes(b"wrong-pin")
    credentials = tmp_path / "credentials"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    tried = []
    for identity_of in (source, None):
        PinLatch(state).release()
        for _ in range(3):
            credentials.mkdir(exist_ok=True)
            (credentials / "pin").unlink(missing_ok=True)
            (credentials / "pin").write_bytes(source.read_bytes())
            (credentials / "pin").chmod(0o400)
            pin = Pin.from_file(credentials / "pin", identity_of=identity_of)
            with pytest.raises(CredentialRefused) as refused:
                Token(soft_token.settings(), pin, PinLatch(state))
            tried.append("latched" not in str(refused.value))
    assert tried == [True, False, False] * 2


class Terminal:
    """A pseudo-terminal on which somebody types once asked."""

    def __init__(self, keys: bytes) -> None:
        self._ours, self._theirs = pty.openpty()
        self.path = Path(os.ttyname(self._theirs))
        self.seen = b""
        self._typist = threading.Thread(target=self._type, args=(keys,))
        self._typist.start()

    def _type(self, keys: bytes) -> None:
        while b": " not in self.seen:
            self.seen += os.read(self._ours, 100)
        os.write(self._ours, keys)

    def close(self) -> bytes:
        self._typist.join()
        os.close(self._theirs)
        os.set_blocking(self._ours, False)
        try:
            while more := os.read(self._ours, 100):
                self.seen += more
        except OSError:
            pass
        os.close(self._ours)
        return self.seen


def test_a_typed_pin_is_not_shown_and_serves_reconnecting(soft_token: SoftToken) -> None:
    right = soft_token.pin_file.read_bytes().strip()
    terminal = Terminal(b"oops\x15x\x7f" + right + b"\n")
    pin = Pin.from_prompt("PIN: ", terminal.path)
    seen = terminal.close()
    assert seen.split() == [b"PIN:"]
    with Token(soft_token.settings(), pin, None) as token:
        token.reconnect()
        pin.close()
        with pytest.raises(CredentialRefused, match="waiting for PIN"):
            token.reconnect()


def test_a_wrong_typed_pin_is_forgotten(faulty: Faulty) -> None:
    terminal = Terminal(b"wrong-pin\r")
    pin = Pin.from_prompt("PIN: ", terminal.path)
    terminal.close()
    for _ in range(3):
        with pytest.raises(CredentialRefused):
            Token(faulty.token.settings(), pin, None)
    assert faulty.control.calls("C_Login") == 1


@pytest.mark.parametrize("key", [b"\x03", b"\x04"])
def test_the_operator_can_break_off(key: bytes) -> None:
    terminal = Terminal(b"12" + key)
    with pytest.raises(CredentialRefused, match="canceled"):
        Pin.from_prompt("PIN: ", terminal.path)
    terminal.close()


def test_no_terminal(tmp_path: Path) -> None:
    with pytest.raises(CredentialRefused, match="no PIN was typed"):
        Pin.from_prompt(terminal=tmp_path / "nothing")


def test_a_pin_shows_and_gives_nothing(soft_token: SoftToken) -> None:
    pin = soft_token.pin()
    assert soft_token.pin_file.read_text().strip() not in repr(pin)
    with pytest.raises(TypeError):
        pickle.dumps(pin)
