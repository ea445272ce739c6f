"""Shares under a new version of the KEK: one commit per share, taken up again after a stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
import trio

from daemon.custody import wire
from daemon.errors import Busy, Refused, TokenLost
from daemon.values import ShareId
from daemon.wall import Altered

if TYPE_CHECKING:
    from daemon.shares.store import Store
    from daemon.wall import Wall

log = structlog.get_logger(__name__)

RETRY_SECONDS: Final = 5.0
PAGE: Final = 100
"""Rows taken out of the store at a time."""


class Resealing:
    """See the module.

    Attributes:
        left: Shares that are not under the newest version, as last counted; those that are refused are among them.
        refused: By share id, why the custodian does not seal it anew. It is asked again every `RETRY_SECONDS`.
    """

    def __init__(self, store: Store, wall: Wall) -> None:
        self.left = 0
        self.refused: dict[str, str] = {}
        self._version = 0
        self._store = store
        self._wall = wall
        self._wanted = trio.Event()

    async def start(self, caller: str) -> tuple[int, int]:
        """Make a new KEK version; every share is then resealed in the background.

        Returns:
            The version, and how many shares.

        Raises:
            TokenLost, Refused: As for `Wall.ask`.
        """
        status = await self._wall.ask(wire.NewKekVersion(), wire.Status)
        await self._store.audited(caller, "kek-version-made", {"kek": status.kek_version})
        self._version, self.refused = status.kek_version, {}
        self.left = await self._store.count_sealed_before(self._version)
        self._wanted.set()
        return status.kek_version, self.left

    async def run(self) -> None:
        """Reseal whatever is under an older version, at start and after each `start`, until cancelled."""
        while True:
            self._wanted = trio.Event()
            try:
                await self._reseal_all()
            except (TokenLost, Busy, Refused) as error:
                log.warning("resealing waits", problem=error.message)
                await trio.sleep(RETRY_SECONDS)
            else:
                await self._wanted.wait()

    async def _reseal_all(self) -> None:
        await self._wall.custodian.wait_ready()
        status = await self._wall.ask(wire.GetStatus(), wire.Status)
        # A version that is made meanwhile is resealed to from then on.
        self._version = max(self._version, status.kek_version)
        self.left = await self._store.count_sealed_before(self._version)
        refused: dict[str, Refused] = {}
        while rows := await self._store.sealed_before(self._version, PAGE + len(refused)):
            for row in rows:
                if row.share_id in refused:
                    continue
                try:
                    resealed = await self._wall.ask(wire.Reseal(row=row), wire.Resealed)
                except Altered:
                    await self._store.quarantine(ShareId(row.share_id), "did not open to be resealed")
                except Refused as error:
                    refused[row.share_id] = error  # the others do not have to wait for this one
                    self.refused[row.share_id] = error.message
                    continue
                else:
                    await self._store.reseal(resealed.row)
                self.left -= 1
                self.refused.pop(row.share_id, None)
            self.left = await self._store.count_sealed_before(self._version)
            if self.left <= len(refused):
                break
        self.refused = {share_id: why.message for share_id, why in refused.items()}
        for share_id, why in refused.items():
            raise Refused(f"{len(refused)} shares cannot be sealed anew, share {share_id} among them: {why.message}")
