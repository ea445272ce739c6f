"""`tssctl config check`: what is wrong, what is missing, what is weaker than it could be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.daemon.ctl.talking import tssctl

if TYPE_CHECKING:
    from collections.abc import Callable

SHIPPED = Path(__file__).resolve().parents[3] / "config.toml"
WHOLE = """\
[coordinator]
url = "https://coordinator.example"
[router]
url = "https://router.example"
[custodian]
module_path = "{there}"
token_label = "t"
pin = {{ source = "file", path = "{there}" }}
state_directory = "/var/lib/custodian"
party_ids = ["a-wallet"]
peer_uid = 990
[custodian.recovery]
public_key = "{there}"
fingerprint = "{fingerprint}"
"""


@pytest.fixture
def configured(tmp_path: Path) -> Callable[..., Path]:
    there = tmp_path / "there"
    there.touch()

    def write(more: str = "", **changed: str) -> Path:
        text = WHOLE.format(there=there, fingerprint="0" * 64)
        for old, new in changed.items():
            assert old in text
            text = text.replace(old, new)
        file = tmp_path / "config.toml"
        file.write_text(text + more)
        file.chmod(0o644)
        return file

    return write


def test_nothing_to_say(configured: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    file = configured()
    told = tssctl(capsys, "config", "check", str(file))
    assert (told.code, told.out, told.err) == (0, f"{file}: in order\n", "")
    told = tssctl(capsys, "--config", str(file), "config", "check", "--json")
    assert (told.code, json.loads(told.out)) == (0, {"config": str(file), "missing": [], "warnings": []})


def test_what_is_wrong_is_told_by_line(configured: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    file = configured("[limits]\nsesions = 3\nkeygens = 65\n")
    told = tssctl(capsys, "config", "check", str(file))
    assert (told.code, told.out) == (78, "")
    assert f"{file}:16: limits.sesions: is not a setting; remove it or correct its name" in told.err
    assert f"{file}:17: limits.keygens: Input should be less than or equal to 64" in told.err
    told = tssctl(capsys, "config", "check", str(file), "--json")
    assert (told.code, told.out) == (78, "")
    assert "limits.sesions" in json.loads(told.err)["detail"]


@pytest.mark.parametrize(
    ("more", "missing"),
    [
        ('[service]\ngroup = "no-such-group"\n', "service.group: this host has no group 'no-such-group'"),
        ('[coordinator.tls]\nca_file = "/none/ca.pem"\n', "coordinator.tls.ca_file: there is no /none/ca.pem"),
        (
            '[jwt]\nalgorithm = "ES256"\nissuer = "i"\nkey_file = "/none/jwt.pem"\n',
            "jwt.key_file: /none/jwt.pem: No such file or directory",
        ),
    ],
)
def test_what_is_missing(
    configured: Callable[..., Path], capsys: pytest.CaptureFixture[str], more: str, missing: str
) -> None:
    file = configured(more)
    told = tssctl(capsys, "config", "check", str(file))
    assert (told.code, told.out) == (1, f"{file}: not yet\n  missing: {missing}\n")


def test_a_policy_that_others_may_write(configured: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    file = configured()
    file.chmod(0o664)
    told = tssctl(capsys, "config", "check", str(file), "--json")
    assert told.code == 1
    assert json.loads(told.out)["missing"] == [
        f"{file} may be written by others than its owner, so the custodian will not believe it: chmod go-w"
    ]


@pytest.mark.parametrize(
    ("change", "warned"),
    [
        ({"more": "[policy]\nrequire_expectations = false\n"}, "policy.require_expectations = false"),
        ({"https://router.example": 'http://router.example"\nallow_http = "'}, None),
        ({'url = "https://router.example"': 'url = "http://router.example"\nallow_http = true'}, "router.allow_http"),
        ({"more": '[custody]\nstart = "spawn"\n'}, 'custody.start = "spawn"'),
        (
            {"more": "[[custodian.plain]]\nprotocol = 'gg18-v2'\nparties = ['a-wallet', 'b-x']\nkeygen = true\n"},
            "custodian.plain: a-wallet, b-x talk unauthenticated; whoever reads the router's traffic",
        ),
    ],
)
def test_what_is_weaker_than_it_could_be(
    configured: Callable[..., Path], capsys: pytest.CaptureFixture[str], change: dict[str, str], warned: str | None
) -> None:
    file = configured(**change)
    told = tssctl(capsys, "config", "check", str(file))
    if warned is None:
        assert told.code == 78  # a text is no flag
    else:
        assert told.code == 0
        assert told.out.startswith(f"{file}: in order\n  weaker than it could be: {warned}")


def test_the_shipped_one_says_what_an_installation_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    told = tssctl(capsys, "config", "check", str(SHIPPED))
    assert told.code == 1
    assert "missing: custodian.peer_uid" in told.out
    assert "weaker than it could be: custodian.recovery is not set: shares are lost with the HSM" in told.out
