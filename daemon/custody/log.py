"""What the custodian says on standard error: a JSON object a line, of the shape of tssd's own logs.

It has nine things to say. The library that says them elsewhere loads a terminal's colours, asyncio and more, a quarter
of the time in which the custodian is back after a crash, into the one process that holds shares.
"""

from __future__ import annotations

import os
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

import msgspec

STANDARD_ERROR: Final = 2


def info(event: str, **fields: str | int | None) -> None:
    """Something happened."""
    _say("info", event, fields)


def warning(event: str, **fields: str | int | None) -> None:
    """Somebody may want to look."""
    _say("warning", event, fields)


def error(event: str, **fields: str | int | None) -> None:
    """Somebody must look."""
    _say("error", event, fields)


def exception(event: str, **fields: str | int | None) -> None:
    """An error of ours, with the trace of the exception that is being handled: the text alone, no variables' values."""
    _say("error", event, {**fields, "exception": traceback.format_exc().rstrip()})


def _say(level: str, event: str, fields: dict[str, str | int | None]) -> None:
    at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    line = msgspec.json.encode({**fields, "event": event, "level": level, "at": at})
    with suppress(OSError):  # nobody reads it any more: that must not end a call
        os.write(STANDARD_ERROR, line + b"\n")
