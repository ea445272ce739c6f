"""Each profile on a token that behaves as that provider is documented to."""

import secrets
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsm import CKR, PROFILES, HsmError, NotConforming, SealHeader, profiles
from hsm.profiles import Oaep
from hsm.sealing import Suite
from tests.hsm.conftest import Faulty
from tests.hsm.fault import IvSource, ValueLen
from tests.hsm.other import other_token
from tests.hsm.soft import Memory

PROVIDERS: dict[str, dict[str, int]] = {
    "softhsm": {"value_len": ValueLen.REFUSED},
    "cloudhsm": {
        "wrap_mechanism": 0x80002109,
        "gcm_mechanism": 0x80001087,
        "iv_source": IvSource.HEAD,
        "gcm_limit": 16_224,
        "value_len": ValueLen.REFUSED,
    },
    "cloudhsm-standard-gcm": {
        "wrap_mechanism": 0x80002109,
        "iv_source": IvSource.BUFFER,
        "gcm_limit": 16_224,
        "value_len": ValueLen.REFUSED,
    },
    "luna": {"wrap_mechanism": 0x80000170, "value_len": ValueLen.WANTED},
    "luna-fips": {"wrap_mechanism": 0x80000170, "value_len": ValueLen.WANTED, "iv_source": IvSource.TAIL},
    "nshield": {"value_len": ValueLen.REFUSED},
}
IV_BYTES = {IvSource.TAIL: 16}


def test_every_profile_has_a_provider_here() -> None:
    # NSS is there for real: test_nss.py.
    assert PROVIDERS.keys() == PROFILES.keys() - {"nss"}


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("size", [1, 12288, 40_000])
def test_it_seals_and_opens_as_the_provider_wants(faulty: Faulty, header: SealHeader, name: str, size: int) -> None:
    faulty.control.set(**PROVIDERS[name])
    content = secrets.token_bytes(size)
    with faulty.token.open(profile=name) as token:
        token.create_keys()
        blob = token.seal(Memory(content), header)
        opened = token.open(blob, header, Memory)
        assert isinstance(opened, Memory)
        assert opened.content == content
        token.reconnect()
        assert len({chunk.iv for chunk in blob.chunks}) == len(blob.chunks)
        source = IvSource(PROVIDERS[name].get("iv_source", IvSource.CALLER))
        assert {len(chunk.iv) for chunk in blob.chunks} == {IV_BYTES.get(source, 12)}


@pytest.mark.parametrize(
    ("provider", "profile"),
    [
        ("softhsm", "cloudhsm-standard-gcm"),
        ("softhsm", "luna"),
        ("softhsm", "luna-fips"),
        ("softhsm", "cloudhsm"),
        ("cloudhsm", "softhsm"),
        ("cloudhsm", "luna"),
        ("cloudhsm", "cloudhsm-standard-gcm"),
        ("cloudhsm-standard-gcm", "softhsm"),
        ("cloudhsm-standard-gcm", "cloudhsm"),
        ("luna", "softhsm"),
        ("luna", "luna-fips"),
        ("luna-fips", "luna"),
        ("luna-fips", "nshield"),
    ],
)
def test_a_wrong_profile_is_found_out_before_anything_is_sealed(faulty: Faulty, provider: str, profile: str) -> None:
    faulty.control.set(**PROVIDERS[provider])
    with faulty.token.open(profile=profile) as token, pytest.raises(NotConforming):
        token.create_keys()


@pytest.mark.parametrize("profile", ["cloudhsm-standard-gcm"])
def test_a_zero_buffer_taken_as_the_iv_never_seals(faulty: Faulty, profile: str) -> None:
    """The token claims nothing and writes nothing back: both chunks would have the all-zero IV."""
    faulty.control.set(wrap_mechanism=0x80002109)
    with faulty.token.open(profile=profile) as token, pytest.raises(NotConforming, match="IVs repeat or are zero"):
        token.create_keys()


def test_more_than_the_token_takes_in_one_call_is_never_asked(faulty: Faulty, header: SealHeader) -> None:
    faulty.control.set(gcm_limit=12_288)
    with faulty.token.open() as token:
        token.create_keys()
        token.open(token.seal(Memory(bytes(100_000)), header), header, Memory)
        faulty.control.set(gcm_limit=12_287)
        with pytest.raises(HsmError) as refused:
            token.seal(Memory(bytes(100_000)), header)
        assert refused.value.rv == CKR.DATA_LEN_RANGE


def test_a_token_that_ignores_hidden_attributes_is_refused(faulty: Faulty) -> None:
    faulty.control.set(no_unwrap_template=1, ignore_hidden=1)
    profile = "nss"  # claims no unwrap template, so that the keys can be made
    with faulty.token.open(profile=profile) as token, pytest.raises(NotConforming, match="ignores CKA_SENSITIVE"):
        token.create_keys()
    # One that came to it later, by an update of its firmware.
    faulty.control.set(ignore_hidden=0)
    with faulty.token.open(profile=profile) as token:
        token.create_keys()
        faulty.control.set(ignore_hidden=1)
        with pytest.raises(NotConforming, match="ignores CKA_SENSITIVE"):
            token.reconnect()


def test_an_unwrap_template_that_is_not_kept_is_noticed(faulty: Faulty) -> None:
    faulty.control.set(no_unwrap_template=1)
    with faulty.token.open() as token:
        with pytest.raises(NotConforming, match="CKA_UNWRAP_TEMPLATE is not kept"):
            token.create_keys()
        assert token.status().kek_versions == ()


@pytest.fixture(scope="module")
def recovery_key() -> bytes:
    public = rsa.generate_private_key(65537, 3072).public_key()
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("name", PROVIDERS)
def test_share_keys_are_wrapped_under_trusted_keys_alone_where_all_are_trusted(
    faulty: Faulty, header: SealHeader, recovery_key: bytes, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    faulty.control.set(**PROVIDERS[name])
    # With the one OAEP that the token behind can do.
    monkeypatch.setattr(profiles, "PROFILES", {name: replace(PROFILES[name], oaep=Oaep.SHA1)})

    def asked(**changes: Any) -> int:  # noqa: ANN401  (whatever the settings take)
        """How many of the two share keys ask for it that a connect and a sealing make."""
        asking, made = faulty.control.get("trusted_only"), faulty.control.calls("C_GenerateKey")
        with faulty.token.open(profile=name, **changes) as token:
            token.open(token.seal(Memory(b"share"), header), header, Memory)
        assert faulty.control.calls("C_GenerateKey") == made + 2
        return faulty.control.get("trusted_only") - asking

    with faulty.token.open(profile=name) as token:
        token.create_keys()
    assert asked() == 0
    faulty.control.set(trusted_keks=1)  # as the crypto officer does
    assert asked() == (2 if name.startswith("cloudhsm") else 0)
    assert asked(recovery_key=recovery_key) == 0


def test_a_key_that_asks_for_trusted_keys_is_wrapped_under_no_other(
    faulty: Faulty, header: SealHeader, recovery_key: bytes
) -> None:
    """Which is why it does not ask where there is a recovery key, nor before the KEK is marked."""
    asking = Suite(replace(PROFILES["softhsm"], wrap_with_trusted=True), kek_trusted=True)
    with faulty.token.open() as token:
        token.create_keys()
        token._connected()._suite = asking
        with pytest.raises(NotConforming, match="KEY_NOT_WRAPPABLE"):
            token.seal(Memory(b"share"), header)
        faulty.control.set(trusted_keks=1)
        token.seal(Memory(b"share"), header)
    with faulty.token.open(recovery_key=recovery_key) as token:
        token.seal(Memory(b"share"), header)
        token._connected()._suite = asking
        with pytest.raises(NotConforming, match="KEY_NOT_WRAPPABLE"):
            token.seal(Memory(b"share"), header)


def test_the_suite_runs_on_a_token_of_ones_own(
    faulty: Faulty, header: SealHeader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named by the environment, left as it was; what it cannot do is skipped by the mechanism's name."""
    monkeypatch.setenv("TSSD_TEST_MODULE", str(faulty.token.options["module_path"]))
    monkeypatch.setenv("TSSD_TEST_TOKEN", faulty.token.label)
    monkeypatch.setenv("TSSD_TEST_PIN_FILE", str(faulty.token.pin_file))
    before = sorted(faulty.token.directory.glob("tokens/*/*.object"))
    with other_token() as named, named.open() as token:
        token.create_keys()
        token.open(token.seal(Memory(b"share"), header), header, Memory)
    assert sorted(faulty.token.directory.glob("tokens/*/*.object")) == before
    faulty.control.set(gcm_mechanism=0x80001087)
    with pytest.raises(pytest.skip.Exception, match=r"has no CKM_AES_GCM \(0x1087\)"), other_token():
        raise AssertionError


def test_an_unknown_profile_is_refused_with_the_list(faulty: Faulty) -> None:
    with pytest.raises(NotConforming, match="softhsm, nss, cloudhsm"):
        faulty.token.open(profile="yubihsm")
