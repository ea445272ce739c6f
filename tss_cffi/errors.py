"""What can go wrong with the core, told apart by whose fault it is.

```
TssError
|- Misuse              the caller broke the contract; .argument names how
|- KeyMaterialRefused  stored or imported key material is wrong; .field names where
|- PeerFault           the ceremony failed; .fault says why and who, where somebody can be named
|- Stranger            the sender has no seat in this ceremony; nothing changed
|- PartyFinal          the party is done or has failed; nothing changed
|- NoResult            there is no result (yet, or any more)
|- NotNeeded           the protocol wants no pre-parameters
|- ArenaUnavailable    the arena cannot be made or locked; the message says what to do
`- ArenaFull           no room for another secret; fewer ceremonies at once, or a larger arena
```

Anything else that is raised is a defect of this package.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from ._core import ffi, lib

ENUM_MAX = 0x7FFF_FFFF
U16_MAX = 0xFFFF
U32_MAX = 0xFFFF_FFFF
SIZE_MAX = 0xFFFF_FFFF_FFFF_FFFF


class Status(IntEnum):
    """tss_status, as include/tss.h explains it."""

    OK = 0
    REPEAT = 1
    MORE = 2
    NOTHING = 3
    FAULT = 4
    STRANGER = 5
    FINAL = 6
    MISUSE = 7
    REFUSED = 8
    MEMORY = 9


_STATUSES = tuple(Status)
"""By number: every call of the core comes by here, and a look-up takes a fifth of what it takes to make one."""


class Fault(NamedTuple):
    """Why a ceremony failed. culprits: seats, empty where nobody can be named; round: from 1; detail: which check."""

    reason: str
    round: int
    culprits: tuple[int, ...]
    detail: str


class TssError(Exception):
    """Base of all errors of this package."""


class Misuse(TssError):
    """An argument breaks the contract. Nothing changed."""

    def __init__(self, argument: str) -> None:
        super().__init__(f"argument refused: {argument}")
        self.argument = argument


class KeyMaterialRefused(TssError):
    """Key material is wrong; field names the first that is."""

    def __init__(self, field: str) -> None:
        super().__init__(f"key material refused: {field}")
        self.field = field


class PeerFault(TssError):
    """The ceremony failed and is over."""

    def __init__(self, fault: Fault) -> None:
        blamed = ", ".join(str(seat) for seat in fault.culprits) or "unidentified"
        super().__init__(f"{fault.reason} in round {fault.round} ({fault.detail}); seats to blame: {blamed}")
        self.fault = fault


class Stranger(TssError):
    """The sender has no seat in this ceremony, or it is our own."""


class PartyFinal(TssError):
    """The party is done or has failed and takes nothing any more."""


class NoResult(TssError):
    """There is no result: not yet, or it was handed over already."""


class NotNeeded(TssError):
    """This protocol wants no pre-parameters."""


class ArenaUnavailable(TssError):
    """The arena for secrets cannot be made or locked."""


class ArenaFull(TssError):
    """The arena (or the heap) has no room for this."""


def last_misuse() -> str:
    """The argument or field that this thread's last refused call was about."""
    return str(ffi.string(lib.tss_last_misuse()), "ascii")


def in_range(number: int, argument: str, most: int) -> int:
    """The number, where C can be handed it at all; which of these it takes, it says itself. Raises Misuse."""
    if not 0 <= number <= most:
        raise Misuse(argument)
    return number


def check(status: int) -> Status:
    """Raise for the refusals every call may answer with; hand back all other statuses."""
    if status < Status.MISUSE:
        return _STATUSES[status]
    answer = Status(status)
    if answer is Status.MISUSE:
        raise Misuse(last_misuse())
    if answer is Status.REFUSED:
        raise KeyMaterialRefused(last_misuse())
    if answer is Status.MEMORY:
        raise ArenaFull("no room in the arena: run fewer ceremonies at once, or make the arena larger")
    return answer
