"""A throw-away token for each test, plain or behind the module that misbehaves on demand."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hsm import SealHeader, Token
from tests.hsm import fault, nss, other
from tests.hsm.soft import HEADER, SOFTHSM, SoftToken, copy_token, make_token


@pytest.fixture(scope="session")
def blank_token(tmp_path_factory: pytest.TempPathFactory) -> SoftToken:
    """Made once, never used: tests take copies, for making one takes longer than most tests."""
    return make_token(tmp_path_factory.mktemp("blank") / "token")


@pytest.fixture
def soft_token(blank_token: SoftToken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftToken:
    """A fresh token, without keys; the process's SoftHSM sees it alone."""
    made = copy_token(blank_token, tmp_path / "token")
    monkeypatch.setenv("SOFTHSM2_CONF", str(made.conf))
    return made


@pytest.fixture
def token(soft_token: SoftToken) -> Iterator[Token]:
    """Open, with all our keys."""
    with soft_token.open() as opened:
        opened.create_keys()
        yield opened


@pytest.fixture(params=["softhsm", "nss", *(["other"] if other.NAMED else [])])
def provider(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SoftToken]:
    """A fresh token of each real provider there is for nothing, and the one that the environment names."""
    if request.param == "nss":
        yield nss.make_token(tmp_path / "nss")
    elif request.param == "other":
        with other.other_token() as named:
            yield named
    else:
        yield request.getfixturevalue("soft_token")


@pytest.fixture(params=["softhsm", "nss"])
def disposable(request: pytest.FixtureRequest, tmp_path: Path) -> SoftToken:
    """A fresh token of each real provider whose PIN a test may get wrong."""
    if request.param == "nss":
        return nss.make_token(tmp_path / "nss")
    made: SoftToken = request.getfixturevalue("soft_token")
    return made


@pytest.fixture
def provider_token(provider: SoftToken) -> Iterator[Token]:
    """Open, with all our keys, on each provider."""
    with provider.open() as opened:
        opened.create_keys()
        yield opened


@pytest.fixture
def header() -> SealHeader:
    return HEADER


@dataclass
class Faulty:
    """A fresh token behind the fault module, and what steers that."""

    token: SoftToken
    control: fault.Control


@pytest.fixture(scope="session")
def fault_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # One for the process: a module stays loaded, and with it the control block it mapped first.
    return tmp_path_factory.mktemp("fault")


@pytest.fixture
def faulty(soft_token: SoftToken, fault_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    control_file = fault_folder / "control"
    control = fault.Control(control_file)
    control.reset()
    monkeypatch.setenv("TSSD_FAULT_TARGET", str(SOFTHSM))
    monkeypatch.setenv("TSSD_FAULT_CONTROL", str(control_file))
    soft_token.options["module_path"] = fault.build(fault_folder)
    yield Faulty(soft_token, control)
    control.close()
