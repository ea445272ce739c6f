"""What tests of several folders share."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def arena() -> Iterator[None]:
    """One arena of the core's seeded test build for the whole run; nothing may be left in it at the end."""
    from tests.tss_cffi import seeded  # noqa: PLC0415 - builds the core, which not every test needs

    seeded.core.open_arena(seeded.ARENA)
    yield
    gc.collect()
    seeded.core.close_arena()
