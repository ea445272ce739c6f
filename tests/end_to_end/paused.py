"""tssd that waits at named moments of its ceremonies to be looked at: for test_memory.py.

    python tests/end_to_end/paused.py SOCKET ARGUMENTS-OF-TSSD...

At each moment it connects to SOCKET, says which, and goes on when the connection is closed; its event loop stands still
meanwhile. Without a listener there it does not wait. The custodian that it starts is the seeded one, whose keygens can
be replayed. Otherwise it is tssd, and nothing is imported here that knows more.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from daemon import __main__ as tssd
from daemon.custody import wire
from daemon.custody.client import Custodian

ROOT: Final = Path(__file__).resolve().parents[2]
SEEDED: Final = ROOT / "tests" / "daemon" / "custody" / "seeded_custodian.py"
PLANTED: Final = bytes(range(100, 160))
"""In this process's memory on purpose: a scan that does not find it is no scan."""
ROUNDS: Final = {"keygen": 3, "signing": 5}
"""The middle: all sub-shares have been dealt; the nonces' shares are in use."""

kinds: dict[int, str] = {}
told: set[str] = set()
_ask = Custodian.ask


class SeededCustodian(subprocess.Popen[bytes]):
    """What the client starts, around the seeded core."""

    def __init__(self, command: list[str], **options: Any) -> None:  # noqa: ANN401  (Popen's)
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        super().__init__([command[0], str(SEEDED), *command[4:]], env=environment, **options)


def pause(moment: str) -> None:
    """Once for each moment."""
    if moment in told:
        return
    told.add(moment)
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(sys.argv[1])
        except OSError:
            return
        connection.sendall(moment.encode())
        connection.recv(1)


async def ask(self: Custodian, request: wire.Request, expect: type[Any], **options: Any) -> Any:  # noqa: ANN401
    """The wall, with a wait before or after what is of interest."""
    if isinstance(request, wire.FinishKeygen | wire.FinishSigning):
        pause(f"{kinds[request.ceremony]} result")
    elif isinstance(request, wire.OpenAndCheck):
        pause("keygen pending")  # what is on the disk is opened before it is confirmed
    answer = await _ask(self, request, expect, **options)
    if isinstance(request, wire.BeginKeygen):
        kinds[answer.ceremony] = "keygen"
    elif isinstance(request, wire.BeginSigning):
        kinds[answer.ceremony] = "signing"
    elif isinstance(request, wire.Receive) and answer.round == ROUNDS[kinds[request.ceremony]]:
        pause(f"{kinds[request.ceremony]} running")
    return answer


if __name__ == "__main__":
    Custodian.ask = ask  # type: ignore[method-assign]
    setattr(subprocess, "Popen", SeededCustodian)  # noqa: B010  (for this program, which starts nothing else)
    sys.exit(tssd.main(sys.argv[2:]))
