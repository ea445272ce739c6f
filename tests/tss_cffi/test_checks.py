"""docs/checks.md names tests that exist, and every test of a fault stands in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

HERE: Final = Path(__file__).parent
PAGE: Final = HERE.parents[1] / "docs" / "checks.md"
FILES: Final = {
    "keygen": HERE / "test_faults_keygen.py",
    "signing": HERE / "test_faults_signing.py",
    "attacks": HERE / "channel" / "test_attacks.py",
    **{
        name: HERE / f"test_{name}.py"
        for name in ("bounds", "ctime", "edges", "messages", "misuse", "prepare", "second_line", "shapes", "share")
    },
}
COMPLETE: Final = ("keygen", "signing", "shapes", "messages")


def defined_in(name: str) -> set[str]:
    return set(re.findall(r"^def (test_\w+)", FILES[name].read_text(encoding="utf-8"), re.MULTILINE))


def listed() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, test in re.findall(r"`(\w+)::(test_\w+)`", PAGE.read_text(encoding="utf-8")):
        found.setdefault(name, set()).add(test)
    return found


@pytest.mark.parametrize("name", FILES)
def test_what_is_listed_exists(name: str) -> None:
    assert listed()[name] <= defined_in(name)


@pytest.mark.parametrize("name", COMPLETE)
def test_what_exists_is_listed(name: str) -> None:
    assert defined_in(name) == listed()[name]


def test_every_name_is_one_of_these() -> None:
    assert set(listed()) == set(FILES)
