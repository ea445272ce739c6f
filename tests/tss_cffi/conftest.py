"""One arena for all tests of the core, which must be empty again after each of them; recorded keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.tss_cffi import seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tss_cffi import Protocol, Share


def pytest_itemcollected(item: pytest.Item) -> None:
    """What sanitized.py is to run."""
    if item.get_closest_marker("uninstrumented") is None:
        item.add_marker("instrumented")


@pytest.fixture(scope="session", autouse=True)
def _arena(arena: None) -> None:
    """Every test here needs it."""


@pytest.fixture(params=seeded.PROTOCOLS, ids=lambda protocol: protocol.label)
def protocol(request: pytest.FixtureRequest) -> Protocol:
    chosen: Protocol = request.param
    return chosen


@pytest.fixture(scope="session")
def recorded() -> Iterator[Callable[[Protocol, int, int], dict[int, Share]]]:
    """A function: the recorded key of that protocol and shape, loaded once."""
    loaded: dict[tuple[Protocol, int, int], dict[int, Share]] = {}

    def shares(protocol: Protocol, threshold: int, parties: int) -> dict[int, Share]:
        key = (protocol, threshold, parties)
        if key not in loaded:
            loaded[key] = seeded.shares(protocol, threshold, parties)
        return loaded[key]

    yield shares
    for key in loaded.values():
        for share in key.values():
            share.close()
