"""What the custodian gives up at its start, before it has anything to lose."""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_NO_NEW_PRIVS: Final = 38


def harden(*, follow_parent: bool) -> None:
    """No core dump, no tracing by our own user, no privileges gained, files for us alone.

    Args:
        follow_parent: Die with the thread that started us, which is tssd's main thread.
    """
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    _prctl(PR_SET_DUMPABLE, 0)
    if follow_parent:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        # An interrupt at the terminal is for tssd, which then ends us in its own order.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def become_owner_of(directory: Path) -> None:
    """Where an operator runs us as root: become the user whose state, token files and PIN latch these are."""
    if os.geteuid() != 0 or not directory.exists():
        return
    owner = directory.stat()
    if owner.st_uid == 0:
        return
    try:
        os.initgroups(pwd.getpwuid(owner.st_uid).pw_name, owner.st_gid)
    except KeyError:
        os.setgroups([])  # a dynamic user that is not running now
    os.setgid(owner.st_gid)
    os.setuid(owner.st_uid)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")
