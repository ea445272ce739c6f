"""tssd, killed with -9 at one point of a session: for bench/kills.py and its test.

    python tests/end_to_end/killed.py ARM ARGUMENTS-OF-TSSD...

ARM is a file. Once it is there, with the words KIND NUMBER WHEN in it, the next admitted request begins to count: of
KIND `commit` (a transaction of the store), `call` (a request across the wall), `send` (a frame for the router),
`request` (one to the coordinator), `append` (events to their file) or `delivered` (what has left is marked). The
process ends before or after (WHEN) number NUMBER of them. Without the file it is tssd and nothing else.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon import __main__ as tssd
from daemon.ceremonies.admission import Admission
from daemon.custody.client import Custodian
from daemon.network import publisher
from daemon.network.coordinator import Coordinator
from daemon.network.router import Stream
from daemon.shares import store

if TYPE_CHECKING:
    from collections.abc import Callable

ARM = Path(sys.argv[1])
due: tuple[str, int, str] | None = None
counted = 0


def kill_here(kind: str, when: str) -> None:
    """Called around everything that is counted."""
    global counted  # noqa: PLW0603  the one counter of the process
    if due is None or kind != due[0]:
        return
    if when == "before":
        counted += 1
    if due == (kind, counted, when):
        os.kill(os.getpid(), signal.SIGKILL)


def around(kind: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """An asynchronous function with a point before and one after it."""

    async def act(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401  whatever the original takes
        kill_here(kind, "before")
        result = await original(*arguments, **named)
        kill_here(kind, "after")
        return result

    return act


def transact(*arguments: Any, **named: Any) -> None:  # noqa: ANN401  whatever the original takes
    """The store's transaction, in its thread."""
    kill_here("commit", "before")
    _transact(*arguments, **named)
    kill_here("commit", "after")


def append(*arguments: Any) -> None:  # noqa: ANN401  whatever the original takes
    """Events to their file, in a thread."""
    kill_here("append", "before")
    _append(*arguments)
    kill_here("append", "after")


def arm() -> None:
    """Begin to count where somebody has said what for."""
    global due, counted
    if ARM.exists():
        kind, number, when = ARM.read_text().split()
        ARM.unlink()
        due, counted = (kind, int(number), when), 0


async def admit(*arguments: Any) -> Any:  # noqa: ANN401  whatever the original takes
    """The door, at which counting begins."""
    arm()
    return await _admit(*arguments)


_transact, _append, _admit = store._transact, publisher._append, Admission.admit
store._transact = transact
publisher._append = append  # type: ignore[assignment]
Admission.admit = admit  # type: ignore[assignment, method-assign]
Custodian.ask = around("call", Custodian.ask)  # type: ignore[method-assign]
Coordinator._exchange = around("request", Coordinator._exchange)  # type: ignore[method-assign]
store.Store.delivered = around("delivered", store.Store.delivered)  # type: ignore[method-assign]
Stream.send = around("send", Stream.send)  # type: ignore[method-assign]
sys.exit(tssd.main(sys.argv[2:]))
