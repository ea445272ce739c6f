"""The other end of module/fault_module.c: builds it, steers it, reads what it saw."""

import mmap
import re
import struct
import subprocess
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Final, Self

from hsm import CKR

HERE: Final = Path(__file__).parent
HEADERS: Final = HERE.parents[1] / "hsm"

FUNCTIONS: Final = tuple(re.findall(r"X\((C_\w+)", (HEADERS / "cryptoki.h").read_text(encoding="utf-8")))
"""Every Cryptoki function, in the order of the control block."""


class Action(IntEnum):
    PASS = 0
    ANSWER = 1
    ANSWER_AFTER = 2
    HANG = 3
    CRASH = 4
    CRASH_AFTER = 5
    ANSWER_TILL_FIND = 6


class IvSource(IntEnum):
    CALLER = 0
    BUFFER = 1
    HEAD = 2
    TAIL = 3


class ValueLen(IntEnum):
    ANY = 0
    WANTED = 1
    REFUSED = 2


_FAULT: Final = struct.Struct("=4I")
_CALLS: Final = _FAULT.size * len(FUNCTIONS)
_WORDS: Final = (
    "wrap_mechanism",
    "gcm_mechanism",
    "iv_source",
    "gcm_limit",
    "value_len",
    "session_limit",
    "pin_tries",
    "ignore_hidden",
    "no_unwrap_template",
    "cannot_lock",
    "trusted_keks",
    "expire",
    "daemon",
    "expired",
    "sessions",
    "wrong_pins",
    "overlapped",
    "trusted_only",
)
_QUIRKS: Final = _CALLS + 4 * len(FUNCTIONS)
SIZE: Final = _QUIRKS + 4 * len(_WORDS)


@cache
def build(directory: Path) -> Path:
    """Compile the module; its path."""
    module = directory / "tssd_fault_module.so"
    strict = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
    source = HERE / "module/fault_module.c"
    optimised = ["-shared", "-fPIC", "-O1", "-g", "-fvisibility=hidden"]
    files = [f"-I{HEADERS}", str(source), "-o", str(module), "-ldl", "-lpthread"]
    subprocess.run(["gcc", *strict, *optimised, *files], check=True)  # noqa: S607  (the platform's compiler)
    return module


class Control:
    """The shared block. Set faults and quirks, read counters."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(SIZE))
        self.path = path
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), SIZE)

    def fault(self, function: str, action: Action, rv: int = CKR.OK, *, skip: int = 0, times: int = 1) -> Self:
        """Let `action` happen at calls of `function`, after `skip` good ones; times=0: from then on."""
        index = FUNCTIONS.index(function)
        # The action last: the module reads it first.
        _FAULT.pack_into(self._map, _FAULT.size * index, Action.PASS, rv, skip, times)
        struct.pack_into("=I", self._map, _FAULT.size * index, action)
        return self

    def answer(self, function: str, rv: int, *, skip: int = 0, times: int = 1) -> Self:
        return self.fault(function, Action.ANSWER, rv, skip=skip, times=times)

    def reset(self) -> None:
        """Neither faults nor quirks, and all counters at zero. While no token is open."""
        self._map[:] = bytes(SIZE)

    def clear(self) -> None:
        """No faults. Quirks stay."""
        self._map[:_CALLS] = bytes(_CALLS)

    def calls(self, function: str) -> int:
        return int(struct.unpack_from("=I", self._map, _CALLS + 4 * FUNCTIONS.index(function))[0])

    def set(self, **quirks: int) -> Self:
        for name, value in quirks.items():
            struct.pack_into("=I", self._map, _QUIRKS + 4 * _WORDS.index(name), value)
        return self

    def get(self, name: str) -> int:
        return int(struct.unpack_from("=I", self._map, _QUIRKS + 4 * _WORDS.index(name))[0])

    def expire_sessions(self) -> None:
        """All sessions end at the next call, and the login with them."""
        self.set(expire=self.get("expire") + 1)

    def stop_daemon(self) -> None:
        """What the module talks to is gone: every call fails, and one finalise and initialise are needed after it."""
        self.set(daemon=self.get("daemon") | 1)

    def start_daemon(self) -> None:
        self.set(daemon=self.get("daemon") + 1)

    def close(self) -> None:
        self._map.close()
