"""The units as systemd reads them: without complaint, hardened as promised, and of one mind with config.toml."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.custody.custodian import parsed
from daemon.custody.policy import PinCredential
from daemon.settings import Settings, load

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "systemd"
NAMES = ("tssd.socket", "tssd.service", "tssd-custodian.socket", "tssd-custodian.service")
ANALYZE = "/usr/bin/systemd-analyze"
INSTALLED = "/usr/local/bin/"
EXPOSURE = {"tssd.service": 1.2, "tssd-custodian.service": 0.5}
"""What `systemd-analyze security` may say at the most."""
DROP_INS = {
    "addresses": ("tssd.service", 1.2),
    "pin-encrypted": ("tssd-custodian.service", 0.5),
    "network-hsm": ("tssd-custodian.service", 1.3),
    "cloudhsm": ("tssd-custodian.service", 0.5),
    "nshield": ("tssd-custodian.service", 0.5),
}
"""Which unit each is for, and what the unit may then be exposed to."""


def read(name: str, section: str) -> dict[str, str]:
    """A section of a unit; of a key that stands several times, the last."""
    inside = ""
    settings = {}
    for line in (UNITS / name).read_text().splitlines():
        if line.startswith("["):
            inside = line.strip("[]")
        elif inside == section and "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            settings[key] = value
    return settings


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units as they are after an installation, but that the programs are those of this environment."""
    programs = f"{Path(sys.executable).parent}/"
    for name in NAMES:
        (tmp_path / name).write_text((UNITS / name).read_text().replace(INSTALLED, programs))
    return tmp_path


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load(ROOT / "config.toml")


def verify(unit: Path) -> tuple[int, str]:
    ran = subprocess.run(
        [ANALYZE, "verify", "--man=no", unit],
        capture_output=True,
        text=True,
        check=False,
        env={"SYSTEMD_UNIT_PATH": f"{unit.parent}:", "PATH": "/usr/bin:/bin"},
    )
    return ran.returncode, ran.stdout + ran.stderr


def exposure(unit: Path) -> float:
    """The figure of `systemd-analyze security`, 0 (safe) to 10."""
    ran = subprocess.run(
        [ANALYZE, "security", "--offline=yes", "--no-pager", unit],
        capture_output=True,
        text=True,
        check=True,
    )
    verdict = next(line for line in ran.stdout.splitlines() if "Overall exposure level" in line)
    return float(verdict.split(":")[1].split()[0])


@pytest.mark.parametrize("name", NAMES)
def test_systemd_has_nothing_to_say_against_it(installed: Path, name: str) -> None:
    assert verify(installed / name) == (0, "")


@pytest.mark.parametrize("name", EXPOSURE)
def test_it_is_hardened(installed: Path, name: str) -> None:
    assert exposure(installed / name) <= EXPOSURE[name]


def test_every_drop_in_is_tried() -> None:
    assert {file.stem for file in (UNITS / "drop-ins").iterdir()} == DROP_INS.keys()


@pytest.mark.parametrize("drop_in", DROP_INS)
def test_a_drop_in_leaves_it_hardened(installed: Path, drop_in: str) -> None:
    name, allowed = DROP_INS[drop_in]
    directory = installed / f"{name}.d"
    directory.mkdir()
    shutil.copy(UNITS / "drop-ins" / f"{drop_in}.conf", directory)
    assert verify(installed / name) == (0, "")
    assert exposure(installed / name) <= allowed
    assert f"/{directory.name}/{drop_in}.conf" in (UNITS / "drop-ins" / f"{drop_in}.conf").read_text()


def test_the_sockets_are_where_the_configuration_looks_for_them(settings: Settings) -> None:
    assert read("tssd.socket", "Socket")["ListenStream"] == str(settings.service.socket)
    assert read("tssd-custodian.socket", "Socket")["ListenStream"] == str(settings.custody.socket)
    assert settings.custody.start == "connect"


@pytest.mark.parametrize("name", ["tssd.socket", "tssd-custodian.socket"])
def test_one_process_takes_the_listening_socket(name: str) -> None:
    assert read(name, "Socket")["Accept"] == "no"


def test_two_users_each_with_a_directory_of_its_own(settings: Settings) -> None:
    network, secret = (read(name, "Service") for name in EXPOSURE)
    assert network["User"] != secret["User"]
    for service, directory in (
        (network, settings.service.state_directory),
        (secret, settings.custodian.state_directory),
    ):
        assert f"/var/lib/{service['StateDirectory']}" == str(directory)
        assert service["StateDirectoryMode"] == "0700"
        assert "PrivateUsers" not in service  # callers would be `nobody`: both ends of the wall ask for a uid
    assert f"-{settings.custodian.state_directory}" in network["InaccessiblePaths"].split()
    made = [line.split() for line in (UNITS / "tmpfiles.conf").read_text().splitlines() if line.startswith("d ")]
    assert {(path, mode, user, group) for _, path, mode, user, group, _ in made} == {
        (f"/var/lib/{service['StateDirectory']}", "0700", service["User"], service["Group"])
        for service in (network, secret)
    }
    declared = [line.split()[:2] for line in (UNITS / "sysusers.conf").read_text().splitlines()]
    assert ["u", network["User"]] in declared
    assert ["u", secret["User"]] in declared
    assert ["g", read("tssd.socket", "Socket")["SocketGroup"]] in declared


def test_only_tssd_reaches_the_custodian() -> None:
    socket = read("tssd-custodian.socket", "Socket")
    assert (socket["SocketUser"], socket["SocketMode"]) == (read("tssd.service", "Service")["User"], "0600")


def test_the_pin_goes_to_the_custodian_alone(settings: Settings) -> None:
    pin = settings.custodian.pin
    assert isinstance(pin, PinCredential)
    assert read("tssd-custodian.service", "Service")["LoadCredential"] == f"{pin.name}:{pin.file}"
    assert not [key for key in read("tssd.service", "Service") if "Credential" in key]


def test_the_custodian_is_started_as_often_as_it_takes() -> None:
    assert read("tssd-custodian.service", "Unit")["StartLimitIntervalSec"] == "0"
    assert read("tssd-custodian.socket", "Socket")["TriggerLimitIntervalSec"] == "0"


def test_limits_leave_room_for_what_is_configured(settings: Settings) -> None:
    secret, network = read("tssd-custodian.service", "Service"), read("tssd.service", "Service")
    assert int(secret["LimitMEMLOCK"].removesuffix("M")) >= settings.custodian.arena_mib + 8
    assert int(network["TimeoutStopSec"]) > settings.service.drain_seconds
    # A PKCS#11 call that hangs is the custodian's own business, and it must have the time for it.
    assert int(secret["WatchdogSec"]) > 2 * settings.custodian.hsm_call_seconds
    for service in (secret, network):
        assert service["Type"] == "notify"
        assert service["LimitCORE"] == "0"


def test_the_commands_are_ones_that_the_programs_take(tmp_path: Path) -> None:
    program, *arguments = read("tssd-custodian.service", "Service")["ExecStart"].split()
    assert program == f"{INSTALLED}tssd-custodian"
    options = parsed(arguments)
    assert (options.fd, options.operator, options.trusted_config) == (None, False, False)
    program, *arguments = read("tssd.service", "Service")["ExecStart"].split()
    assert program == f"{INSTALLED}tssd"
    config = tmp_path / "config.toml"
    shutil.copy(ROOT / "config.toml", config)
    given = [str(config) if argument == str(options.config) else argument for argument in arguments]
    command = [str(Path(sys.executable).parent / "tssd"), *given, "--check"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, f"{config}: in order\n")
