from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.running import PARTIES, Running, running

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Committee:
    """A running network of three parties and a key of theirs, of which two sign."""

    running: Running
    public_key: str


@pytest.fixture(scope="module")
def committee() -> Iterator[Committee]:
    tables: dict[str, dict[str, object]] = {
        "service": {"drain_seconds": 1},
        "limits": {"stall_seconds": 20},
        "log": {"level": "debug"},  # whatever is not to be in it is searched for in all of it
    }
    with running(tables=tables) as network:
        public_key = network.call(network.net.keygen, 2)
        network.call(network.net.sign, public_key, PARTIES[:2], "5a" * 32)
        yield Committee(network, public_key)
