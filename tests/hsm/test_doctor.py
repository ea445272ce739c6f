"""The doctor finds what is wrong, names it, and leaves the token as it was."""

from contextlib import closing
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsm import CKR, DataAltered, NotConforming, TokenSettings, doctor
from hsm.connection import Connection
from hsm.doctor import CheckResult, Outcome, Report, check_names, examine
from hsm.errors import class_of
from hsm.keys import Objects
from hsm.profiles import profile_named
from hsm.token import AMBIGUOUS
from tests.hsm.conftest import Faulty
from tests.hsm.soft import SoftToken
from tests.hsm.test_profiles import PROVIDERS


def named(report: Report, outcome: Outcome) -> set[str]:
    return {result.name for result in report.results if result.outcome is outcome}


def check(token: SoftToken, **changes: Any) -> Report:  # noqa: ANN401  (whatever the settings take)
    return examine(token.settings(**changes), token.pin(), None)


def with_keys(token: SoftToken, **changes: Any) -> SoftToken:  # noqa: ANN401  (likewise)
    with token.open(**changes) as opened:
        opened.create_keys()
    return token


def test_there_are_many_checks_each_with_its_meaning() -> None:
    names = check_names()
    assert len(names) == len(set(names)) >= 40


def test_a_good_token_is_tier_a(soft_token: SoftToken) -> None:
    spki = (
        rsa.generate_private_key(65537, 3072).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    with with_keys(soft_token).open() as token:
        serial = token.status().serial
    seen: list[CheckResult] = []
    settings = soft_token.settings(serial=serial, recovery_key=spki)
    report = examine(settings, soft_token.pin(), None, watch=seen.append)
    assert report.tier == "A"
    assert report.passed
    assert {result.outcome for result in report.results} == {Outcome.PASSED}
    assert tuple(result.name for result in report.results) == check_names()
    assert tuple(seen) == report.results
    assert all(result.proves and result.detail for result in report.results)


def test_a_token_without_our_keys_can_be_examined(soft_token: SoftToken) -> None:
    report = check(soft_token)
    assert report.tier == "A"
    assert named(report, Outcome.FAILED) == set()
    assert {name for name in named(report, Outcome.SKIPPED) if name.startswith("keys.")} == {
        name for name in check_names() if name.startswith("keys.")
    }


def test_nothing_is_left_on_the_token(soft_token: SoftToken) -> None:
    with with_keys(soft_token).open() as token:
        before = token.status()
    files = sorted(path.name for path in soft_token.directory.glob("tokens/*/*.object"))
    check(soft_token)
    assert sorted(path.name for path in soft_token.directory.glob("tokens/*/*.object")) == files
    with soft_token.open() as token:
        assert token.status() == before


def test_each_provider_gets_its_verdict(provider: SoftToken) -> None:
    report = check(with_keys(provider))
    assert named(report, Outcome.FAILED) == set()
    nss = provider.options.get("profile") == "nss"
    assert report.tier == ("A, open to the PIN" if nss else "A")
    if nss:
        assert "unwrap.in-clear-refused" in named(report, Outcome.WEAK)
        assert "kek.not-wrappable" in named(report, Outcome.WEAK)


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_profile_passes_on_its_provider(faulty: Faulty, name: str) -> None:
    faulty.control.set(**PROVIDERS[name])
    report = check(with_keys(faulty.token, profile=name), profile=name)
    if name == "luna-fips":
        # The IV of 16 bytes is imitated on a token that takes 12, so nobody else opens what it sealed.
        assert named(report, Outcome.FAILED) == {"seal.independent"}
    else:
        assert named(report, Outcome.FAILED) == set()
        assert report.tier == "A"


@pytest.mark.parametrize(
    ("quirks", "profile", "failed"),
    [
        ({"ignore_hidden": 1}, "softhsm", {"seal.one-byte", "unwrap.in-clear-refused"}),
        ({"no_unwrap_template": 1}, "softhsm", {"kek.unwrap-template-kept", "unwrap.in-clear-refused"}),
        (
            {"no_unwrap_template": 1, "ignore_hidden": 1},
            "nss",
            {"share-key.opens", "share-key.not-readable"},
        ),
        ({"gcm_limit": 12_287}, "softhsm", {"seal.full-chunk", "seal.several-chunks"}),
        ({"wrap_mechanism": 0x80000170}, "softhsm", {"mechanism.key-wrap", "seal.one-byte"}),
        ({"gcm_mechanism": 0x80001087}, "softhsm", {"mechanism.aes-gcm", "seal.one-byte"}),
        ({"value_len": 1}, "softhsm", {"seal.one-byte"}),
        ({"value_len": 2}, "luna", {"mechanism.key-wrap", "seal.one-byte"}),
        ({"iv_source": 1}, "softhsm", {"seal.one-byte"}),
        ({"wrap_mechanism": 0x80002109}, "cloudhsm-standard-gcm", {"seal.one-byte"}),
    ],
    ids=lambda each: "+".join(sorted(each)) if isinstance(each, set) else str(each),
)
def test_what_is_wrong_is_named(faulty: Faulty, quirks: dict[str, int], profile: str, failed: set[str]) -> None:
    faulty.control.set(**quirks)
    report = check(faulty.token, profile=profile)
    found = named(report, Outcome.FAILED) | named(report, Outcome.SKIPPED)
    assert failed & named(report, Outcome.FAILED)
    assert failed <= found
    assert report.tier == "none"
    assert not report.passed


def test_weaknesses_do_not_fail(faulty: Faulty) -> None:
    faulty.control.set(session_limit=2)
    assert "token.sessions" in named(check(faulty.token, sessions=8), Outcome.WEAK)
    faulty.control.reset()
    faulty.control.set(cannot_lock=1)
    report = check(faulty.token)
    assert "token.locking" in named(report, Outcome.WEAK)
    assert report.tier == "A"
    assert faulty.control.get("overlapped") == 0


def test_a_wrong_pin_ends_it_and_is_tried_once(faulty: Faulty) -> None:
    faulty.token.pin_file.chmod(0o600)
    faulty.token.pin_file.write_bytes(b"wrong-pin")
    report = check(faulty.token)
    assert named(report, Outcome.FAILED) == {"token.opens"}
    assert named(report, Outcome.SKIPPED) == set(check_names()) - {"token.opens"}
    assert faulty.control.calls("C_Login") == 1


def test_no_such_token(soft_token: SoftToken) -> None:
    report = check(soft_token, token_label="nobody")  # noqa: S106  (a name)
    assert report.results[0].detail == "there is no token 'nobody'"
    assert report.tier == "none"


def test_half_of_our_keys(soft_token: SoftToken) -> None:
    with with_keys(soft_token).open() as token, token._connected().bench() as (bench, _):
        assert bench.keys.backup is not None
        objects = Objects(bench.module, bench.session)
        objects.destroy(bench.keys.backup.handle)
        (public,) = objects.find(2, "tssd-backup")
        objects.destroy(public)
    assert named(check(soft_token), Outcome.FAILED) == {"keys.as-we-make-them"}


@pytest.mark.parametrize("code", [CKR.DEVICE_ERROR, CKR.SESSION_HANDLE_INVALID, CKR.HOST_MEMORY])
def test_a_token_that_dies_refuses_nothing(faulty: Faulty, code: CKR) -> None:
    """An outage must not look like a token that protects its keys."""
    with_keys(faulty.token)
    faulty.control.answer("C_UnwrapKey", code, times=0)
    report = check(faulty.token)
    protecting = {name for name in check_names() if name.startswith(("unwrap.", "gcm."))}
    assert protecting & named(report, Outcome.PASSED) == set()
    assert report.tier == "none"


@pytest.mark.parametrize(("function", "how"), [("C_CopyObject", "by-copy"), ("C_SetAttributeValue", "by-change")])
def test_any_code_while_a_key_is_copied_or_changed(faulty: Faulty, function: str, how: str) -> None:
    """What says no is a refusal; what says that the token is away, full or confused refuses nothing."""
    with_keys(faulty.token)
    settings = faulty.token.settings()
    profile = profile_named(settings.profile)
    with closing(Connection(settings, profile, faulty.token.pin(), None, look_for_keys=False)) as connection:
        patient = doctor._Patient(settings, profile, connection)
        wanted = []
        for entry in doctor._CHECKS:
            if entry.name.endswith(f"not-readable-{how}"):
                wanted.append(entry)
            else:
                doctor._run(entry, patient)  # what those build on
        assert wanted
        for code in [code for code in CKR if code not in (CKR.ODD_OUTPUT, CKR.MISUSE)]:
            faulty.control.answer(function, code, times=0)
            says_no = class_of(code) in (NotConforming, DataAltered) or code in AMBIGUOUS
            for entry in wanted:
                found = doctor._run(entry, patient)
                assert found.outcome is (Outcome.PASSED if says_no and code is not CKR.OK else Outcome.FAILED), code
                assert code.name in found.detail or code is CKR.OK
            faulty.control.clear()


def test_an_unknown_profile_is_a_mistake_of_the_caller(soft_token: SoftToken) -> None:
    settings: TokenSettings = soft_token.settings(profile="yubihsm")
    with pytest.raises(NotConforming, match="no provider profile"):
        examine(settings, soft_token.pin(), None)
