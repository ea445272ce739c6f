"""The recorded keys that the seats of these tests sign with are released at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.tss_cffi.channel import seats

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session", autouse=True)
def recorded_shares(arena: None) -> Iterator[None]:  # noqa: ARG001 - the arena must outlive them
    yield
    for shape in seats.SHAPES:
        for share in seats.shares(*shape).values():
            share.close()
