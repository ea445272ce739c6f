"""The end of a process that hangs: a PKCS#11 call can be neither cancelled nor timed out.

Two clocks. A thread looks four times a second for a call past its deadline. And because a module may hang while it
holds the interpreter's lock, so that no Python thread runs any more, the same thread winds up a timer of the C library
each time (faulthandler's), which ends the process when it is not wound up again. Both leave with `_exit`: memory is
given back to a kernel that clears it, and no clean-up waits for the call. Where systemd watches this process too, it
hears of each look.
"""

from __future__ import annotations

import faulthandler
import itertools
import os
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from daemon.systemd import tell_systemd, watchdog_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOK_SECONDS: Final = 0.25
SLACK_SECONDS: Final = 1.0
HUNG_STATUS: Final = 70
"""Exit status (EX_SOFTWARE) of a process that ended for hanging."""


class Watchdog:
    """Watches calls until the process ends."""

    def __init__(self, seconds: float) -> None:
        """seconds: what each watched call may take."""
        self._seconds = seconds
        self._deadlines: dict[int, tuple[float, str]] = {}
        self._numbers = itertools.count()

    def start(self) -> None:
        """Begin to watch."""
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @contextmanager
    def watching(self, call: str, *, times: float = 1) -> Iterator[None]:
        """End the process if the block takes longer than the limit, `times` as long for a block of several calls."""
        number = next(self._numbers)
        self._deadlines[number] = (time.monotonic() + self._seconds * times, call)
        try:
            yield
        finally:
            del self._deadlines[number]

    def _watch(self) -> None:
        beyond = watchdog_seconds() is not None
        while True:
            if beyond:
                tell_systemd("WATCHDOG=1")
            now = time.monotonic()
            for deadline, call in list(self._deadlines.values()):
                if now > deadline:
                    os.write(sys.stderr.fileno(), f"tssd-custodian: {call} hangs; this process ends\n".encode())
                    os._exit(HUNG_STATUS)
            faulthandler.dump_traceback_later(self._seconds + SLACK_SECONDS, exit=True)
            time.sleep(LOOK_SECONDS)
