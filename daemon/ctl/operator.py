"""A custodian for one command of an operator at the terminal: what changes keys or pins goes through it, not the API.

tssd can do neither, so whoever captures it cannot. The custodian reads its policy and the PIN itself (a PIN that is a
credential of systemd's is asked for at the terminal), and ends with the command.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import asynccontextmanager
from typing import IO, TYPE_CHECKING, Final, TypeVar

from daemon.custody.client import CustodianGone, CustodianRefused, CustodyFailure, Spawn, open_custodian
from daemon.errors import Refused, SettingsRefused, TokenLost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from daemon.custody.client import Custodian
    from daemon.custody.wire import Frame, Request

A = TypeVar("A", bound="Frame")

ANSWER_SECONDS: Final = 600.0
"""For one request: all conformance checks on a slow HSM, or somebody who looks for the PIN."""


class Operator:
    """What an operator may ask for. Made by `operating`."""

    def __init__(self, custodian: Custodian) -> None:
        """custodian: started for an operator."""
        self._custodian = custodian

    async def ask(self, request: Request, expect: type[A]) -> A:
        """Put one request and wait for its answer.

        Raises:
            TokenLost: The HSM, or the custodian, is not there, is locked or refuses us.
            Refused: It was not carried out.
        """
        try:
            return await self._custodian.ask(request, expect, seconds=ANSWER_SECONDS)
        except CustodyFailure as failure:
            if failure.kind in {"token", "locked", "credential"}:
                raise TokenLost(failure.message, "see [custodian] in config.toml") from None
            raise Refused(failure.message) from None
        except CustodianGone as gone:
            raise TokenLost(str(gone), "`tssctl hsm doctor` tells whether the HSM is well") from None


@asynccontextmanager
async def operating(config: Path) -> AsyncIterator[Operator]:
    """Run an operator's custodian for as long as the block lasts. Must be entered from the main thread.

    Args:
        config: Absolute path of config.toml, which is believed whoever owns it: the operator vouches for it.

    Raises:
        SettingsRefused: The custodian cannot start with it.
    """
    with tempfile.TemporaryFile() as log:
        try:
            async with open_custodian(Spawn(config=config, operator=True, stderr=log.fileno())) as custodian:
                yield Operator(custodian)
        except CustodianRefused:
            raise SettingsRefused(_last_problem(log), "see [custodian] in config.toml") from None


def reachable(directory: Path) -> None:
    """Refuse to go on as root where a state directory is not there: made by root, its user could not enter it.

    Raises:
        Refused: It is not there.
    """
    if os.geteuid() == 0 and not directory.exists():
        raise Refused(
            f"{directory} does not exist yet, and root must not be the one who makes it",
            "systemd-tmpfiles --create tssd.conf makes it for its user",
        )


def _last_problem(log: IO[bytes]) -> str:
    """Why it would not start, out of its log: JSON lines, of which the last says it."""
    log.seek(0, os.SEEK_SET)
    lines = log.read().decode(errors="replace").splitlines() or ["the custodian does not start"]
    try:
        return str(json.loads(lines[-1])["problem"])
    except (ValueError, TypeError, KeyError):
        return lines[-1]
