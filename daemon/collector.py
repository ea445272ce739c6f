"""Python's garbage collector, in a process that runs for months: tssd and its custodian."""

from __future__ import annotations

import gc
from typing import Final

COLLECT_AFTER: Final = 10_000
"""New objects before the collector looks at them: a signing makes and drops some thousands, nearly none in cycles."""


def settle_memory() -> None:
    """What start-up has made stays: the collector need not look through it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
