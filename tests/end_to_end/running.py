"""A network of real daemons for tests that are not asynchronous: it runs in a thread beside them."""

from __future__ import annotations

import shutil
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import trio

from localnet.net import Net, open_net

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from localnet.party import Party, Tables

PARTIES = ("demo-server", "demo-mobile", "demo-backup")


class Running:
    """A network and the way to it from another thread."""

    def __init__(self, net: Net, token: trio.lowlevel.TrioToken) -> None:
        self.net = net
        self._token = token

    def call(self, function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:  # noqa: ANN401  whatever it gives
        """Call an asynchronous function in the network's thread."""
        return trio.from_thread.run(function, *arguments, trio_token=self._token)

    def client(self, party_id: str) -> httpx.Client:
        """A client of a party's API."""
        transport = httpx.HTTPTransport(uds=str(self.net.parties[party_id].socket), verify=False)
        return httpx.Client(transport=transport, base_url="http://tssd", timeout=30)


@contextmanager
def running(
    party_ids: Sequence[str] = PARTIES,
    tables: Tables | None = None,
    before_start: Callable[[Party], None] = lambda _: None,
) -> Iterator[Running]:
    """Run a network of these parties. Its directory has a short path, for Unix sockets."""
    started = threading.Event()
    found: list[tuple[Running, trio.CancelScope]] = []
    broken: list[BaseException] = []
    directory = Path(tempfile.mkdtemp(prefix="tssd-"))

    async def run() -> None:
        with trio.CancelScope() as scope:
            async with open_net(directory, party_ids, tables=tables, before_start=before_start) as net:
                found.append((Running(net, trio.lowlevel.current_trio_token()), scope))
                started.set()
                await trio.sleep_forever()

    def in_thread() -> None:
        try:
            trio.run(run)
        except BaseException as error:  # noqa: BLE001  told by the thread that waits
            broken.append(error)
        started.set()

    # It outlives every process it starts: they die with the thread that started them.
    thread = threading.Thread(target=in_thread)
    thread.start()
    try:
        assert started.wait(400)
        if broken:
            raise broken[0]
        yield found[0][0]
    finally:
        for each, scope in found:
            each._token.run_sync_soon(scope.cancel)
        thread.join(60)
        shutil.rmtree(directory)
    if broken:
        raise broken[0]
