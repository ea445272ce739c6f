"""The figures are those that docs/operations.md explains."""

from __future__ import annotations

import re
from pathlib import Path

from daemon.metrics import Metrics

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"


def test_every_figure_is_explained_and_no_other() -> None:
    told = set(re.findall(r"`(tssd_\w+)", OPERATIONS.read_text()))
    families = Metrics().registry.collect()
    assert told == {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
