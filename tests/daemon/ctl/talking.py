"""tssctl as a person or a program runs it, against a desk that answers from what a test put on it."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
import trio

from daemon.ctl.__main__ import main
from tests.daemon.api.standin import StandIn, served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest


@dataclass(frozen=True)
class Told:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


def tssctl(capsys: pytest.CaptureFixture[str], *arguments: str) -> Told:
    """Run a command."""
    code = 0
    try:
        main(arguments)
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 0 if left.code is None else 1
    finally:
        structlog.reset_defaults()  # it silences the whole process, which is the tests' here
    printed = capsys.readouterr()
    return Told(code, printed.out, printed.err)


@contextmanager
def listening(desk: StandIn, directory: Path) -> Iterator[Path]:
    """Serve the desk from a thread beside the test; gives the socket."""
    started = threading.Event()
    found: list[tuple[trio.CancelScope, trio.lowlevel.TrioToken]] = []

    async def serve() -> None:
        with trio.CancelScope() as scope:
            async with served(desk, directory):
                found.append((scope, trio.lowlevel.current_trio_token()))
                started.set()
                await trio.sleep_forever()

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    try:
        assert started.wait(60)
        yield directory / "tssd.sock"
    finally:
        for scope, token in found:
            token.run_sync_soon(scope.cancel)
        thread.join(60)
