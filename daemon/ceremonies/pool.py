"""Pre-parameters, made ahead: a keygen that had to search its primes first would keep every other party waiting.

The custodian searches in slices of `SLICE_MILLISECONDS`, and only while no ceremony is under way or one waits for a
set. Sets are sealed, kept in the store and spent once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
import trio

from daemon.custody import wire
from daemon.errors import Busy, Refused, TokenLost
from daemon.values import Protocol

if TYPE_CHECKING:
    from daemon.ceremonies.admission import Admission, Running
    from daemon.metrics import Metrics
    from daemon.settings import Settings
    from daemon.shares.store import Store
    from daemon.wall import Wall

log = structlog.get_logger(__name__)

SLICE_MILLISECONDS: Final = 200
"""One call's worth of search: short, for a thread of the custodian is taken so long."""
IDLE_SECONDS: Final = 1.0
"""How often a search that made room for ceremonies looks whether they are over."""
RETRY_SECONDS: Final = 5.0


class Pool:
    """See the module. Attributes: permille: of the search under way, by protocol."""

    def __init__(self, settings: Settings, store: Store, wall: Wall, admission: Admission, metrics: Metrics) -> None:
        self.permille: dict[Protocol, int] = {}
        self._target = settings.keygen.prepared
        self._store = store
        self._wall = wall
        self._admission = admission
        self._metrics = metrics
        self._wanted: dict[Protocol, int] = {}
        self._changed = trio.Event()
        plain = {Protocol(entry.protocol) for entry in settings.custodian.plain if entry.keygen}
        self._protocols = sorted({settings.keygen.protocol, *plain})

    async def wait(self, running: Running, protocol: Protocol) -> None:
        """Return when a set is ready; the session's clocks are the bound."""
        self._wanted[protocol] = self._wanted.get(protocol, 0) + 1
        self._tell()
        try:
            while not await self._store.prepared_count(protocol):
                running.waits_for = (f"pre-parameters ({self.permille.get(protocol, 0) / 10:.0f} %)",)
                running.progressed()  # the search has no peers that could stall it
                await self._changed.wait()
        finally:
            self._wanted[protocol] -= 1

    async def take(self, running: Running, protocol: Protocol) -> wire.PreparedRow:
        """Take a set for good. Two keygens at once may wait for the same one: the later waits on."""
        while True:
            await self.wait(running, protocol)
            taken = await self._store.spend_prepared(running.session, protocol)
            self._tell()
            if taken is not None:
                return taken

    async def run(self) -> None:
        """Keep the pool full until cancelled."""
        while True:
            changed = self._changed
            protocol = await self._short_of()
            if protocol is None:
                await changed.wait()
                continue
            if self._admission.working and not self._wanted.get(protocol):
                await trio.sleep(IDLE_SECONDS)
                continue
            try:
                await self._search(protocol)
            except (TokenLost, Busy, Refused) as error:
                log.warning("pre-parameters wait", problem=error.message)
                await trio.sleep(RETRY_SECONDS)

    async def _short_of(self) -> Protocol | None:
        """The protocol whose pool is not full; one that a keygen waits for comes first."""
        short = []
        for protocol in self._protocols:
            ready = await self._store.prepared_count(protocol)
            self._metrics.prepared.labels(protocol).set(ready)
            if ready < self._target:
                short.append(protocol)
        return max(short, key=lambda protocol: self._wanted.get(protocol, 0), default=None)

    async def _search(self, protocol: Protocol) -> None:
        """One slice."""
        request = wire.Prepare(protocol=protocol.value, milliseconds=SLICE_MILLISECONDS)
        found = await self._wall.ask(request, wire.Preparing)
        self.permille[protocol] = found.permille
        if found.prepared is not None:
            await self._store.add_prepared(found.prepared)
            self.permille.pop(protocol)
            log.info("pre-parameters ready", protocol=str(protocol))
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
