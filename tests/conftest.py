"""What tests of several folders share."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST: Final = (
    "interop/test_mixed.py",
    "fuzz/test_gg18.py",
    "end_to_end/test_hostile_router.py",
    "tss_cffi/test_ctime.py",
    "end_to_end/test_restarts_and_pins.py",
    "tss_cffi/test_c_units.py",
    "end_to_end/test_hostile_coordinator.py",
    "interop/test_golang.py",
    "daemon/ceremonies/test_faults.py",
    "daemon/ceremonies/test_admission.py",
    "end_to_end/test_kills.py",
    "tss_cffi/test_refusals.py",
    "fuzz/test_channel.py",
    "end_to_end/test_mixed_committee.py",
    "end_to_end/test_demo.py",
    "end_to_end/test_malicious_party.py",
    "end_to_end/test_memory.py",
)
"""Files of more than 20 seconds. They go first, so that no worker begins one when the others are done."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    place = {here / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(LONGEST)))


@pytest.fixture(scope="session")
def arena() -> Iterator[None]:
    """One arena of the core's seeded test build for the whole run; nothing may be left in it at the end."""
    from tests.tss_cffi import seeded  # noqa: PLC0415 - builds the core, which not every test needs

    seeded.core.open_arena(seeded.ARENA)
    yield
    gc.collect()
    seeded.core.close_arena()
