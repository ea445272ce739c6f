"""Finding the token and our keys without guessing; making them once."""

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from hsm import ModuleLost, NotConforming, Pin, Token, TokenLost, TokenSettings
from hsm.connection import Connection
from hsm.keys import CKO_SECRET_KEY, Objects
from hsm.signing import P256_ORDER
from tests.hsm.soft import HEADER, SOFTHSM, Memory, SoftToken, lose_identity, make_token


def verify(public: bytes, digest: bytes, signature: bytes) -> None:
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    assert s <= P256_ORDER // 2
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public)
    key.verify(utils.encode_dss_signature(r, s), digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))


def test_keys_are_made_once_and_sign(provider_token: Token) -> None:
    status = provider_token.status()
    assert status.kek_versions == (1,)
    assert status.current_kek == 1
    assert status.identity_public is not None
    assert status.backup_public is not None
    assert status.identity_public != status.backup_public
    assert provider_token.identity_public_key() == status.identity_public
    for i in range(64):
        digest = bytes([i]) * 32
        verify(status.identity_public, digest, provider_token.sign_identity(digest))
        verify(status.backup_public, digest, provider_token.sign_backup(digest))
    with pytest.raises(NotConforming, match="exist already"):
        provider_token.create_keys()
    provider_token.reconnect()
    assert provider_token.status() == status


def test_beside_a_kek_the_keys_that_are_missing_are_made(token: Token) -> None:
    """What came from another token stays: it opens what was sealed there."""
    before = token.status()
    blob = token.seal(Memory(b"share"), HEADER)
    lose_identity(token)
    token.reconnect()
    assert token.status().identity_public is None
    token.create_keys()
    after = token.status()
    assert after.identity_public not in {None, before.identity_public}
    assert (after.kek_versions, after.backup_public) == (before.kek_versions, before.backup_public)
    opened = token.open(blob, HEADER, Memory)
    assert isinstance(opened, Memory)
    assert opened.content == b"share"


def test_beside_signing_keys_no_kek_is_made(token: Token) -> None:
    """It would seal beside shares that it does not open."""
    with token._connected().bench() as (bench, _):
        objects = Objects(bench.module, bench.session)
        (kek,) = objects.find(CKO_SECRET_KEY, TokenSettings.kek_label)
        objects.destroy(kek)
    token.reconnect()
    before = token.status()
    with pytest.raises(NotConforming, match="no KEK"):
        token.create_keys()
    assert token.status() == before


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_only_a_digest_is_signed(token: Token, length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        token.sign_identity(bytes(length))


def test_without_keys_everything_says_so(soft_token: SoftToken) -> None:
    with soft_token.open() as token:
        token.probe()
        assert token.status().kek_versions == ()
        for call in (token.identity_public_key, token.new_kek_version, lambda: token.sign_backup(bytes(32))):
            with pytest.raises(NotConforming, match="there is no"):
                call()


def test_kek_versions_count_up(token: Token) -> None:
    assert [token.new_kek_version() for _ in range(3)] == [2, 3, 4]
    token.reconnect()
    assert token.status().kek_versions == (1, 2, 3, 4)


def test_a_missing_token(soft_token: SoftToken) -> None:
    with pytest.raises(TokenLost, match="no token 'other'"):
        soft_token.open(token_label="other")  # noqa: S106  (a name)
    with pytest.raises(TokenLost, match="no token 'tssd' with serial 0000"):
        soft_token.open(serial="0000")
    soft_token.open().close()


def test_two_tokens_of_one_name_need_a_serial(soft_token: SoftToken) -> None:
    pin = soft_token.pin_file.read_text()
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", "tssd", "--so-pin", pin, "--pin", pin],  # noqa: S607
        check=True,
        capture_output=True,
    )
    with pytest.raises(NotConforming, match="state the serial") as refused:
        soft_token.open()
    serials = str(refused.value).split("serials ")[1].split(";")[0].split(", ")
    assert len(serials) == 2
    for serial in serials:
        with soft_token.open(serial=serial) as token:
            assert token.status().serial == serial


def test_several_tokens_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = [make_token(tmp_path / name, name) for name in ("alice", "bob")]
    identities = set()
    for each in tokens:
        monkeypatch.setenv("SOFTHSM2_CONF", str(each.conf))
        with each.open() as token:
            token.create_keys()
            identities.add(token.identity_public_key())
    assert len(identities) == 2


def test_one_token_at_a_time_for_a_module(soft_token: SoftToken) -> None:
    with soft_token.open() as token:
        with pytest.raises(NotConforming, match="in use by another token"):
            soft_token.open()
        token.probe()
    soft_token.open().close()


def test_closing_twice_and_using_a_closed_one(soft_token: SoftToken) -> None:
    token = soft_token.open()
    token.close()
    token.close()
    with pytest.raises(ModuleLost, match="not connected"):
        token.random(1)
    token.reconnect()
    assert len(token.random(16)) == 16
    token.close()


def test_what_is_no_module(tmp_path: Path, soft_token: SoftToken) -> None:
    text = tmp_path / "text.so"
    text.write_text("no library")
    with pytest.raises(ModuleLost, match="loading"):
        soft_token.open(module_path=text)
    with pytest.raises(ModuleLost, match="loading"):
        soft_token.open(module_path=tmp_path / "nowhere.so")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"module_path": Path("libsofthsm2.so")}, "must be absolute"),
        ({"sessions": 0}, "at least one session"),
        ({"identity_label": "tssd-kek"}, "labels of their own"),
    ],
    ids=str,
)
def test_settings_that_cannot_work(change: dict[str, object], said: str) -> None:
    plain = {"module_path": SOFTHSM, "token_label": "tssd"}
    with pytest.raises(NotConforming, match=said):
        TokenSettings(**(plain | change))  # type: ignore[arg-type]  # that is the point


def test_a_connection_that_fails_leaves_the_module_free(soft_token: SoftToken, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong-pin")
    wrong.chmod(0o400)
    for _ in range(3):
        with pytest.raises(Exception, match="PIN"):
            Token(soft_token.settings(), Pin.from_file(wrong), None)
    soft_token.open().close()


def test_the_random_bytes_are_as_many_as_asked(token: Token) -> None:
    for length in (0, 1, 33, 4096):
        assert len(token.random(length)) == length
    assert token.random(32) != token.random(32)


def test_nothing_is_left_open_by_many_connections(soft_token: SoftToken) -> None:
    with soft_token.open() as token:
        token.create_keys()
        for _ in range(50):
            token.reconnect()
        connection = token._connection
        assert isinstance(connection, Connection)
        assert connection.generation == 0
