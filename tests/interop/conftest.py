"""What the interoperation tests need of the machine, and what is left out where it is not there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import pytest

from tests.interop import golang

if TYPE_CHECKING:
    from collections.abc import Iterator

LEFT_OUT: Final = pytest.StashKey[str]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without Go, leave out what needs it, but on CI: there it fails."""
    wanted = [item for item in items if item.get_closest_marker("interop")]
    if not wanted or os.environ.get("CI") == "true":
        return
    try:
        golang.go()
    except golang.GoMissing as missing:
        config.stash[LEFT_OUT] = f"left out {len(wanted)} interoperation tests with tss-lib: {missing}"
        config.hook.pytest_deselected(items=wanted)
        items[:] = [item for item in items if item not in wanted]


def pytest_report_collectionfinish(config: pytest.Config) -> str:
    """One line about what was left out."""
    return config.stash.get(LEFT_OUT, "")


@pytest.fixture(scope="session", params=["gg18-v2", "gg18-v3"])
def go_parties(request: pytest.FixtureRequest) -> Iterator[golang.GoParties]:
    """A process of Go parties, for each version of the protocol."""
    with golang.GoParties(request.param) as parties:
        yield parties


@pytest.fixture(scope="session", autouse=True)
def _arena(arena: None) -> None:
    """Our own seats need it."""
