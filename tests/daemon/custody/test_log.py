"""What the custodian says is JSON lines, and saying it never breaks what it was doing."""

from __future__ import annotations

import json
import os
from datetime import datetime
from typing import TYPE_CHECKING

from daemon.custody import log

if TYPE_CHECKING:
    import pytest


def test_a_line_is_one_object(capfd: pytest.CaptureFixture[str]) -> None:
    log.info("HSM", state="ready", reason="")
    log.warning("refused", pid=7, uid=None)
    log.error('a "quote"\nand a line')
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [line.pop("level") for line in lines] == ["info", "warning", "error"]
    assert all(datetime.fromisoformat(line.pop("at")).utcoffset() is not None for line in lines)
    assert lines == [
        {"event": "HSM", "state": "ready", "reason": ""},
        {"event": "refused", "pid": 7, "uid": None},
        {"event": 'a "quote"\nand a line'},
    ]


def test_a_defect_comes_with_its_place_and_no_values(capfd: pytest.CaptureFixture[str]) -> None:
    planted = "a value of a variable"
    try:
        os.stat(planted[:0])  # noqa: PTH116  (anything that raises)
    except FileNotFoundError:
        log.exception("a defect", request="Tick")
    line = json.loads(capfd.readouterr().err)
    assert line["request"] == "Tick"
    assert "test_log.py" in line["exception"]
    assert planted not in line["exception"].replace(f'planted = "{planted}"', "")


def test_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    monkeypatch.setattr(log, "STANDARD_ERROR", write)
    log.info("HSM", state="token")
    os.close(write)
    log.info("HSM", state="ready")
