"""Tokens that vanish, come back, or come back as somebody else."""

import contextlib
import shutil
import subprocess
import time

import pytest

from hsm import CKR, HsmError, ModuleLost, SealedBlob, SealHeader, Token, TokenLost
from hsm.keys import Objects
from tests.hsm.conftest import Faulty
from tests.hsm.soft import Memory, SoftToken, make_token

CYCLES = 500


def test_five_hundred_outages(soft_token: SoftToken, header: SealHeader) -> None:
    """The token's directory goes and comes back; one reconnect is enough, well within two seconds."""
    tokens = soft_token.directory / "tokens"
    away = soft_token.directory / "away"
    slowest = 0.0
    with soft_token.open() as token:
        token.create_keys()
        blob = token.seal(Memory(b"share"), header)
        for _ in range(CYCLES):
            tokens.rename(away)
            tokens.mkdir()
            with pytest.raises(ModuleLost):
                token.probe()
            with pytest.raises(TokenLost):
                token.reconnect()
            tokens.rmdir()
            away.rename(tokens)
            start = time.monotonic()
            token.reconnect()
            opened = token.open(blob, header, Memory)
            slowest = max(slowest, time.monotonic() - start)
            assert isinstance(opened, Memory)
            assert opened.content == b"share"
    assert slowest < 2


def test_a_token_that_looks_empty_never_blames_the_share(soft_token: SoftToken, header: SealHeader) -> None:
    with soft_token.open() as token:
        token.create_keys()
        blob = token.seal(Memory(b"share"), header)
        shutil.rmtree(soft_token.directory / "tokens")
        (soft_token.directory / "tokens").mkdir()
        for _ in range(3):
            with pytest.raises(ModuleLost):
                token.open(blob, header, Memory)


def reinitialise(token: SoftToken) -> None:
    pins = [(token.directory / name).read_text() for name in ("so-pin", "pin")]
    names = ["--token", token.label, "--label", token.label]
    subprocess.run(
        ["softhsm2-util", "--init-token", *names, "--so-pin", pins[0], "--pin", pins[1]],  # noqa: S607
        check=True,
        capture_output=True,
    )


def test_a_token_made_anew_underneath(soft_token: SoftToken, header: SealHeader) -> None:
    with soft_token.open() as token:
        token.create_keys()
        blob = token.seal(Memory(b"share"), header)
        reinitialise(soft_token)
        with pytest.raises(ModuleLost):
            token.open(blob, header, Memory)
        token.reconnect()
        # Without keys there is nothing that could show the share to be altered.
        with pytest.raises(TokenLost):
            token.open(blob, header, Memory)


def test_a_serial_that_was_stated_is_insisted_upon(soft_token: SoftToken) -> None:
    with soft_token.open() as token:
        serial = token.status().serial
    soft_token.open(serial=serial).close()
    for file in ("tokens", "pin", "so-pin"):
        (soft_token.directory / file).rename(soft_token.directory / f"old-{file}")
    make_token(soft_token.directory)
    with pytest.raises(TokenLost, match=serial):
        soft_token.open(serial=serial)
    soft_token.open().close()


def test_a_key_deleted_underneath(soft_token: SoftToken, header: SealHeader) -> None:
    with soft_token.open() as token:
        token.create_keys()
        token.new_kek_version()
        blob = token.seal(Memory(b"share"), header)
        with token._connected().bench() as (bench, _):
            Objects(bench.module, bench.session).destroy(bench.keys.keks[2])
        with pytest.raises(TokenLost, match="KEK version 2 is no longer on the token"):
            token.open(blob, header, Memory)


@pytest.mark.parametrize("code", [CKR.DEVICE_REMOVED, CKR.DEVICE_ERROR, CKR.TOKEN_NOT_PRESENT, CKR.GENERAL_ERROR])
def test_a_device_that_fails_and_works_again(faulty: Faulty, header: SealHeader, code: CKR) -> None:
    calls = ("C_UnwrapKey", "C_OpenSession", "C_GetSlotList", "C_GenerateRandom", "C_FindObjectsInit")
    with faulty.token.open() as token:
        token.create_keys()
        blob = token.seal(Memory(b"share"), header)
        for _ in range(20):
            for call in calls:
                faulty.control.answer(call, code, times=0)
            for operation in (token.probe, token.reconnect, token.reconnect, token.probe):
                with pytest.raises(ModuleLost):
                    operation()
            faulty.control.clear()
            token.reconnect()
            token.open(blob, header, Memory)


def test_a_provider_daemon_that_dies_and_returns(faulty: Faulty, header: SealHeader) -> None:
    """What was initialised with the dead one stays dead; one reconnect brings it all back."""
    with faulty.token.open() as token:
        token.create_keys()
        blob = token.seal(Memory(b"share"), header)
        for _ in range(20):
            faulty.control.stop_daemon()
            for operation in (token.probe, token.reconnect, token.probe):
                with pytest.raises(ModuleLost):
                    operation()
            faulty.control.start_daemon()
            token.reconnect()
            token.open(blob, header, Memory)
            faulty.control.stop_daemon()
            faulty.control.start_daemon()
            with pytest.raises(ModuleLost):
                token.open(blob, header, Memory)
            token.reconnect()
            token.open(blob, header, Memory)


def test_many_kinds_of_loss_in_a_row(faulty: Faulty, header: SealHeader) -> None:
    """No order of losses leaves the pool of sessions short."""
    with faulty.token.open(sessions=2) as token:
        token.create_keys()
        blob = token.seal(Memory(b"share"), header)
        for code in (CKR.SESSION_CLOSED, CKR.SESSION_COUNT, CKR.DEVICE_ERROR, CKR.OPERATION_ACTIVE) * 10:
            for call in ("C_UnwrapKey", "C_OpenSession", "C_GetSessionInfo", "C_FindObjectsInit"):
                faulty.control.answer(call, code)
                _ignoring_loss(token, blob, header)
        faulty.control.clear()
        for _ in range(4):
            token.open(blob, header, Memory)


def _ignoring_loss(token: Token, blob: SealedBlob, header: SealHeader) -> None:
    with contextlib.suppress(HsmError):
        token.open(blob, header, Memory)
