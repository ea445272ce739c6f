"""A throw-away token for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm import SealHeader, Token
from tests.hsm.soft import HEADER, SoftToken, make_token


@pytest.fixture
def soft_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftToken:
    """A fresh token, without keys; the process's SoftHSM sees it alone."""
    made = make_token(tmp_path / "token")
    monkeypatch.setenv("SOFTHSM2_CONF", str(made.conf))
    return made


@pytest.fixture
def token(soft_token: SoftToken) -> Iterator[Token]:
    """Open, with all our keys."""
    with soft_token.open() as opened:
        opened.create_keys()
        yield opened


@pytest.fixture
def header() -> SealHeader:
    return HEADER
