"""tssd, killed with -9 at one point of its first session: for bench/kills.py and its test.

    python bench/killed.py KIND NUMBER WHEN ARGUMENTS-OF-TSSD...

KIND is what is counted from the first admitted request on: `commit` (a transaction of the store), `call` (a request
across the wall) or `send` (a frame for the router). The process ends before or after (WHEN) number NUMBER of them.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from daemon import __main__ as tssd
from daemon.ceremonies.admission import Admission
from daemon.custody.client import Custodian
from daemon.network.router import Stream
from daemon.shares import store

if TYPE_CHECKING:
    from collections.abc import Callable

KIND, NUMBER, WHEN = sys.argv[1], int(sys.argv[2]), sys.argv[3]
counted = -1
"""Below zero until a request is admitted."""


def kill_here(kind: str, when: str) -> None:
    """Called around everything that is counted."""
    global counted  # noqa: PLW0603  the one counter of the process
    if kind != KIND or counted < 0:
        return
    if when == "before":
        counted += 1
    if counted == NUMBER and when == WHEN:
        os.kill(os.getpid(), signal.SIGKILL)


def around(kind: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """An asynchronous function with a point before and one after it."""

    async def act(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401  whatever the original takes
        kill_here(kind, "before")
        result = await original(*arguments, **named)
        kill_here(kind, "after")
        return result

    return act


def transact(*arguments: Any) -> None:  # noqa: ANN401  whatever the original takes
    """The store's transaction, in its thread."""
    kill_here("commit", "before")
    _transact(*arguments)
    kill_here("commit", "after")


async def admit(*arguments: Any) -> Any:  # noqa: ANN401  whatever the original takes
    """Counting begins."""
    global counted  # noqa: PLW0603  the one counter of the process
    counted = max(counted, 0)
    return await _admit(*arguments)


_transact, _admit = store._transact, Admission.admit  # noqa: SLF001  fault injection reaches inside
store._transact = transact  # type: ignore[assignment]  # noqa: SLF001
Admission.admit = admit  # type: ignore[assignment, method-assign]
Custodian.ask = around("call", Custodian.ask)  # type: ignore[method-assign]
Stream.send = around("send", Stream.send)  # type: ignore[method-assign]
sys.exit(tssd.main(sys.argv[4:]))
