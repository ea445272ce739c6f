"""The policy is read strictly, and from nowhere that the two processes could write."""

import os
import stat
from pathlib import Path

import pytest

from daemon.custody import policy as module
from daemon.custody.policy import PolicyRefused, read_policy

BASE = """
[service]
anything = "is tssd's"

[custodian]
module_path = "/usr/lib/softhsm/libsofthsm2.so"
token_label = "tssd"
pin = { source = "credential" }
state_directory = "/var/lib/tssd-custodian"
party_ids = ["alice-server"]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(BASE)
    return path


def test_the_least_that_is_needed(config: Path) -> None:
    policy = read_policy(config, trusted=True)
    assert policy.party_ids == ("alice-server",)
    assert policy.recovery is None
    assert policy.plain == ()
    assert policy.plain_committee("gg18-v2", frozenset({"alice-server", "bob-server"})) is None


PLAIN = """
[[custodian.plain]]
protocol = "gg18-v2"
parties = ["alice-server", "bob-server"]
"""


def test_plain_committees_are_found_exactly(config: Path) -> None:
    config.write_text(BASE + PLAIN)
    policy = read_policy(config, trusted=True)
    listed = policy.plain_committee("gg18-v2", frozenset({"bob-server", "alice-server"}))
    assert listed is not None
    assert not listed.keygen
    assert policy.plain_committee("gg18-v3", frozenset({"bob-server", "alice-server"})) is None
    assert policy.plain_committee("gg18-v2", frozenset({"bob-server", "alice-server", "eve-server"})) is None
    assert policy.plain_committee("gg18-v2", frozenset({"alice-server"})) is None


@pytest.mark.parametrize(
    ("addition", "named"),
    [
        ('sealed_backdoor = "yes"', "custodian.sealed_backdoor"),
        ("arena_mib = 0", "custodian.arena_mib"),
        ('arena_mib = "16"', "custodian.arena_mib"),
        ("arena_mib = true", "custodian.arena_mib"),
        ("hsm_call_seconds = 8", "custodian.hsm_call_seconds"),
        ("signings_per_minute = 0", "custodian.signings_per_minute"),
        ("peer_uid = -1", "custodian.peer_uid"),
        ('serial = "12345678901234567"', "custodian.serial"),
        ('profile = "../x"', "custodian.profile"),
        ('module_environment = { "a b" = "c" }', "custodian.module_environment"),
        ('[custodian.recovery]\npublic_key = "/k.pem"\nfingerprint = "00"', "custodian.recovery.fingerprint"),
        ('[custodian.recovery]\npublic_key = "k.pem"\nfingerprint = "' + "0" * 64 + '"', "recovery.public_key"),
        (PLAIN + 'keygen = "yes"', "keygen"),
        (PLAIN + "sessions = 1", "sessions"),
        (PLAIN + PLAIN, "the same committee twice"),
        (PLAIN.replace('"bob-server"', '"alice-server"'), "the same party id twice"),
        (PLAIN.replace('"alice-server"', '"carol-server"'), "without any of our party_ids"),
        (PLAIN.replace('"bob-server"', '"bob"'), "custodian.plain.0.parties.1"),
        (PLAIN.replace("gg18-v2", "gg20"), "custodian.plain.0.protocol"),
    ],
)
def test_what_is_wrong_is_named(config: Path, addition: str, named: str) -> None:
    config.write_text(BASE + addition)
    with pytest.raises(PolicyRefused, match=named.replace(".", r"\.")):
        read_policy(config, trusted=True)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('module_path = "/usr/lib/softhsm/libsofthsm2.so"', "custodian.module_path"),
        ('token_label = "tssd"', "custodian.token_label"),
        ('pin = { source = "credential" }', "custodian.pin"),
        ('state_directory = "/var/lib/tssd-custodian"', "custodian.state_directory"),
        ('party_ids = ["alice-server"]', "custodian.party_ids"),
    ],
)
def test_what_is_missing_is_named(config: Path, line: str, named: str) -> None:
    config.write_text(BASE.replace(line, ""))
    with pytest.raises(PolicyRefused, match=named):
        read_policy(config, trusted=True)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"/usr/lib/softhsm/libsofthsm2.so"', '"libsofthsm2.so"'),
        ('"/usr/lib/softhsm/libsofthsm2.so"', '"/usr/lib/../lib/libsofthsm2.so"'),
        ('{ source = "credential" }', '{ source = "environment", name = "PIN" }'),
        ('{ source = "credential" }', '{ source = "file" }'),
        ('{ source = "credential" }', '{ source = "credential", name = "../pin" }'),
        ('{ source = "credential" }', '"1234"'),
        ('["alice-server"]', "[]"),
        ('["alice-server"]', '["alice-server", "alice-server"]'),
        ('["alice-server"]', '["*-server"]'),
        ('["alice-server"]', '["alice-s\u00e9rver"]'),
        ('["alice-server"]', '["' + "a" * 128 + '-x"]'),
        ("[custodian]", "[custodian"),
        ("[custodian]", "[warden]"),
    ],
)
def test_values_that_cannot_be(config: Path, before: str, after: str) -> None:
    config.write_text(BASE.replace(before, after))
    with pytest.raises(PolicyRefused):
        read_policy(config, trusted=True)


def test_a_missing_or_endless_file(config: Path, tmp_path: Path) -> None:
    with pytest.raises(PolicyRefused):
        read_policy(tmp_path / "none.toml", trusted=True)
    with pytest.raises(PolicyRefused):
        read_policy(Path("config.toml"), trusted=True)
    config.write_text(BASE + "#" * module.CONFIG_MAX)
    with pytest.raises(PolicyRefused, match="more than"):
        read_policy(config, trusted=True)


def test_a_file_that_we_could_write_is_refused(config: Path) -> None:
    with pytest.raises(PolicyRefused, match="must not be able to write"):
        read_policy(config)


def as_if_we_were(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)


OTHER_UID = 4242


def test_another_users_file_is_read(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_if_we_were(monkeypatch, OTHER_UID)
    assert read_policy(config).party_ids


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_file_that_others_could_write_is_refused(config: Path, monkeypatch: pytest.MonkeyPatch, mode: int) -> None:
    as_if_we_were(monkeypatch, OTHER_UID)
    config.chmod(mode)
    with pytest.raises(PolicyRefused, match="chmod go-w"):
        read_policy(config)


def test_a_directory_that_others_could_write_is_refused(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_if_we_were(monkeypatch, OTHER_UID)
    config.parent.chmod(0o777)
    with pytest.raises(PolicyRefused, match="chmod go-w"):
        read_policy(config)
    config.parent.chmod(0o777 | stat.S_ISVTX)
    assert read_policy(config).party_ids


def test_a_file_of_the_other_process_is_refused(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_if_we_were(monkeypatch, OTHER_UID)
    config.write_text(BASE + f"peer_uid = {config.stat().st_uid}")
    with pytest.raises(PolicyRefused, match="must not be able to write"):
        read_policy(config)
