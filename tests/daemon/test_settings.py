from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from daemon.errors import SettingsRefused
from daemon.settings import Principal, Settings, line_of, load

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "config.toml"
SMALL = """\
[coordinator]
url = "https://coordinator.example"
[router]
url = "https://router.example"
[custodian]
module_path = "/usr/lib/softhsm/libsofthsm2.so"
token_label = "t"
pin = { source = "file", path = "/pin" }
state_directory = "/var/lib/custodian"
party_ids = ["a-wallet"]
"""


def refusal(tmp_path: Path, text: str) -> str:
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(SettingsRefused) as refused:
        load(file)
    return refused.value.message.removeprefix(f"{file}:")


def uncommented(text: str) -> str:
    """The shipped file with its example lines switched on."""
    return re.sub(r"(?m)^# (?=\[|[\w\"][^ ]* = )", "", text)


def test_the_shipped_file_is_in_order() -> None:
    load(SHIPPED)


def test_every_example_in_the_shipped_file_is_a_setting(tmp_path: Path) -> None:
    text = uncommented(SHIPPED.read_text())
    tables = tomllib.loads(text)
    assert {"jwt", "custodian"} < tables.keys()
    assert {"recovery", "plain", "threads"} < tables["custodian"].keys()
    for name in ("user:wallet",):
        text = text.replace(name, "uid:1000")
    file = tmp_path / "config.toml"
    file.write_text(text)
    load(file)


def model_of(annotation: object) -> type[BaseModel] | None:
    """The table a field holds, through Optional, Annotated and tuples."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((inner for part in get_args(annotation) if (inner := model_of(part))), None)


def fields(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Every setting by its dotted name, with its default."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        table = model_of(field.annotation)
        if table is None or table is Principal or name == "pin":
            found[prefix + name] = field.get_default(call_default_factory=True)
        else:
            found |= fields(table, f"{prefix}{name}.")
    return found


def test_every_setting_is_in_the_shipped_file_with_its_default() -> None:
    shown = tomllib.loads(uncommented(SHIPPED.read_text()))
    plain = SHIPPED.read_text()
    required = {"custodian.module_environment", "access.operator", "access.share_types"}
    for name, default in fields(Settings).items():
        here: Any = shown
        for part in name.split("."):
            here = here[0] if isinstance(here, list) else here
            assert part in here, f"{name} is not in config.toml"
            here = here[part]
        key = name.rpartition(".")[2]
        if name in required or default is PydanticUndefined or not re.search(rf"(?m)^{key} = ", plain):
            continue
        assert str(here) == str(list(default) if isinstance(default, tuple) else default), name


def ranges() -> dict[str, str]:
    """The range of every number, as config.toml words it."""
    found: dict[str, str] = {}
    for table in Settings.model_json_schema()["$defs"].values():
        for name, schema in table.get("properties", {}).items():
            for each in schema.get("anyOf", [schema]):
                least, most = each.get("minimum", each.get("ge")), each.get("maximum", each.get("le"))
                above = each.get("exclusiveMinimum", each.get("gt"))
                if most is not None and (least, above) != (None, None):
                    found[name] = f"{least} to {most}" if above is None else f"above {above} to {most}"
    del found["number"]  # of a uid or gid
    return found


def test_every_range_in_the_shipped_file_is_the_true_one() -> None:
    lines = SHIPPED.read_text().splitlines()
    assert len(ranges()) > 15
    for name, words in ranges().items():
        (line,) = (line for line in lines if re.match(rf"(# )?{name} = ", line))
        assert words in line, name


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (SMALL + "[limits]\nsesions = 3\n", "12: limits.sesions: is not a setting"),
        (SMALL + "[limts]\n", "11: limts: is not a setting"),
        (SMALL + '[limits]\nsessions = "3"\n', "12: limits.sessions: must be a whole number, without quotes"),
        (
            SMALL + "peer_uid = 1.5\n",
            "11: custodian.peer_uid: must be a whole number, without quotes and poi",
        ),
        (SMALL + '[policy]\nrequire_expectations = "no"\n', "12: policy.require_expectations: must be true or false"),
        (SMALL + "[service]\nsocket = 3\n", "12: service.socket: must be a path in quotes"),
        (SMALL.replace('"t"', "3"), "7: custodian.token_label: must be a text in quotes"),
        (
            SMALL.replace('["a-wallet"]', '"a-wallet"'),
            '10: custodian.party_ids: must be a list, such as ["first",',
        ),
        (SMALL.replace('["a-wallet"]', "[]"), "10: custodian.party_ids: must have at least 1 of them"),
        (SMALL.replace('source = "file", ', ""), '8: custodian.pin: must be a table that says source = "credential"'),
        (SMALL.replace('"file"', '"env"'), '8: custodian.pin: must be a table that says source = "credential"'),
        ("custody = 3\n" + SMALL, "1: custody: must be a table"),
        (SMALL + "[custody]\ncall_seconds = 6\n", "12: custody.call_seconds: custody.call_seconds = 6 leaves the"),
        (SMALL + "[custody]\ncall_seconds = 6\n", "hsm_call_seconds = 5; make it 7 or more"),
        (
            SMALL + "hsm_call_seconds = 7\n[custody]\ncall_seconds = 8\n",
            "13: custody.call_seconds: custody.call_seconds = 8 leaves the",
        ),
        (SMALL + '[custody]\nsocket = "/run/tssd/tssd.sock"\n', "12: custody.socket: service.socket and custody.soc"),
        (
            SMALL + '[service]\nsocket = "/run/tssd-custodian/custodian.sock"\n',
            "12: service.socket: service.socket and custody.socket are the same",
        ),
        (SMALL + "signings_per_hour = 59\n", "11: custodian.signings_per_hour: signings_per_minute = 60 would never"),
        (SMALL + "signings_per_minute = 1201\n", "11: custodian.signings_per_minute: signings_per_minute = 1201 wo"),
        (
            SMALL.replace('{ source = "file", path = "/pin" }', '{ source = "credential" }')
            + '[custody]\nstart = "spawn"\n',
            "8: custodian.pin: systemd gives the credential to the custodian's own unit",
        ),
        (SMALL + "[limits]\nkeygen_seconds = 0\n", "12: limits.keygen_seconds: Input should be greater than 0"),
        (SMALL + "[limits]\nkeygens = 9\nsessions = 8\n", "12: limits.keygens: must not be more than sessions = 8"),
        (SMALL + "[limits]\nsessions = 3\n", "11: limits.keygens: must not be more than sessions = 3"),
        (SMALL + "[limits]\nsessions = 65\n", "12: limits.sessions: limits.sessions = 65 does not fit"),
        (SMALL + "arena_mib = 31\n", "11: custodian.arena_mib: limits.sessions = 64 does not fit"),
        (SMALL + "[limits]\nstall_seconds = 400\n", "12: limits.stall_seconds: beyond keygen_seconds"),
        (SMALL + '[limits]\nstall_seconds = "60"\n', "12: limits.stall_seconds: must be a number"),
        (SMALL + "[service]\ndrain_seconds = true\n", "12: service.drain_seconds: must be a number"),
        (SMALL + "[service]\ndrain_seconds = nan\n", "12: service.drain_seconds: Input should be"),
        (SMALL + "[policy]\nrequire_expectations = 0\n", "12: policy.require_expectations: must be true or false"),
        (SMALL + '[service]\nsocket = "tssd.sock"\n', "12: service.socket: must be an absolute path"),
        (
            SMALL + '[service]\nstate_directory = "/var/lib/custodian"\n',
            "9: custodian.state_directory: must be another one than service.state_directory",
        ),
        (SMALL + '[access]\nviewer = ["nobody"]\n', "12: access.viewer: 'nobody' is not one of"),
        (SMALL + '[access]\nviewer = ["user:no-such-user"]\n', "12: access.viewer: this host has no user"),
        (SMALL + "[access]\nviewer = 0\n", "12: access.viewer: must be a list"),
        (SMALL + '[access.share_types]\n"uid:1" = ["walet"]\n', "11: access.share_types"),
        (SMALL + '[jwt]\nalgorithm = "none"\n', "12: jwt.algorithm: Input should be 'HS256', 'RS256' or 'ES256'"),
        (SMALL.replace("https://coord", "http://coord"), "2: coordinator.url: http to another host is refused"),
        (
            SMALL.replace("https://coord", "http://coord") + '[coordinator.tls]\nca_file = "/ca.pem"\n',
            "11: coordinator.tls: tls is set but url is http",
        ),
        (SMALL.replace("https://router.example", "wss://router.example"), "4: router.url: must be an address"),
        (SMALL.replace("https://router.example", "https://me@router.example"), "4: router.url: must be an address"),
        (
            SMALL + '[router.tls]\ncertificate_file = "/c.pem"\n',
            "12: router.tls.certificate_file: certificate_file and",
        ),
        (SMALL.replace('url = "https://router.example"\n', ""), "3: router.url: is required"),
        (SMALL.replace('"a-wallet"', '"a wallet"'), "10: custodian.party_ids.0: must look like user-type"),
        (SMALL.replace('path = "/pin"', 'path = "pin"'), "8: custodian.pin.path: must be an absolute path"),
        (SMALL.replace("[custodian]", "[custodian"), " Expected ']'"),
        (
            SMALL + "[[custodian.plain]]\nprotocol='gg18-v2'\nparties=['a-wallet','b-x']\n" * 2,
            "5: custodian: plain: the same",
        ),
        (
            SMALL
            + "[[custodian.plain]]\nprotocol='gg18-v2'\nparties=['a-wallet','b-x']\n"
            + "[[custodian.plain]]\nprotocol='gg18-v9'\nparties=['a-wallet','c-x']\n",
            "15: custodian.plain.1.protocol: Input should be 'gg18-v2' or 'gg18-v3'",
        ),
    ],
)
def test_a_refusal_names_line_key_and_reason(tmp_path: Path, change: str, expected: str) -> None:
    assert expected in refusal(tmp_path, change)


@pytest.mark.parametrize(
    "change",
    [
        SMALL.replace('"a-wallet"', '"a wallet"'),
        SMALL.replace('"a-wallet"', "3"),
        SMALL + "[[custodian.plain]]\nprotocol='gg18-v2'\nparties=['a wallet','b-x']\n",
    ],
)
def test_one_mistake_in_a_list_is_one_refusal(tmp_path: Path, change: str) -> None:
    """A list is not also called too short because what was wrong in it is left out."""
    assert len(refusal(tmp_path, change).splitlines()) == 1


def test_settings_at_the_edge_of_a_contradiction_stand_together(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        SMALL + "hsm_call_seconds = 7\nsignings_per_hour = 60\n" + '[custody]\ncall_seconds = 9\nstart = "spawn"\n'
    )
    assert load(file).custody.call_seconds == 9


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    told = refusal(tmp_path, SMALL + "[limits]\nsessions = 0\n[log]\nlevel = 'loud'\n")
    assert "limits.sessions" in told
    assert "log.level" in told


def test_http_is_for_this_host_unless_allowed(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    for url in ("http://127.0.0.1:8080", "http://localhost/base", "http://[::1]:1"):
        file.write_text(SMALL.replace("https://coordinator.example", url))
        assert load(file).coordinator.url == url
    file.write_text(SMALL.replace('"https://coordinator.example"', '"http://far.example"\nallow_http = true'))
    assert load(file).coordinator.allow_http


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x = " + b"1" * (1024 * 1024)])
def test_what_is_no_configuration_at_all(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(content)
    with pytest.raises(SettingsRefused):
        load(file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsRefused, match="No such file") as refused:
        load(tmp_path / "none.toml")
    assert "--config" in refused.value.remedy


def test_settings_are_frozen(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(SMALL)
    settings = load(file)
    with pytest.raises(ValueError, match="frozen"):
        settings.limits.sessions = 1


def test_lines_are_found_in_nested_tables() -> None:
    text = "[a]\nx = 1\n[a.b]\ny.z = 2\n[[a.c]]\nk = 1\n[[a.c]]\nk = 2\n'q r' = 3\n"
    assert line_of(text, ["a", "x"]) == 2
    assert line_of(text, ["a", "b", "y", "z"]) == 4
    assert line_of(text, ["a", "c", 1, "k"]) == 8
    assert line_of(text, ["a", "c", 1, "q r"]) == 9
    assert line_of(text, ["a", "c", 0, "none"]) == 5
    assert line_of(text, ["nowhere"]) == 1
