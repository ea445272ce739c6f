"""What the sanitizers would find, were it there: the suite itself is run on their build by sanitized.py."""

from __future__ import annotations

import sys
from typing import Final

import pytest

from tests.tss_cffi import sanitized

pytestmark = pytest.mark.uninstrumented(reason="it starts processes on that build")

OPENED: Final = """
from tests.tss_cffi.seeded import ARENA, PROTOCOLS, core, ffi, lib, prepared
core.open_arena(ARENA)
"""
FLAWED: Final = {
    "heap-buffer-overflow": "lib.tss_seeded_randomness(ffi.new('uint8_t[31]'))",
    "in party_new": "core.KeygenParty(PROTOCOLS[0], 1, (1, 2), 2, prepared(1))._handle = None",
}


@pytest.mark.parametrize("found", FLAWED)
def test_what_is_wrong_is_found(found: str) -> None:
    _, findings = sanitized.run([sys.executable, "-c", OPENED + FLAWED[found]])
    assert any(found in finding for finding in findings)


def test_where_nothing_is_wrong_nothing_is_found() -> None:
    honest = "core.KeygenParty(PROTOCOLS[0], 1, (1, 2), 2, prepared(1)).close()"
    assert sanitized.run([sys.executable, "-c", OPENED + honest]) == (0, [])
