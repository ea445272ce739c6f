"""What the custodian's refusals mean on this side of the wall."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from daemon.custody.client import CustodianGone, CustodyFailure
from daemon.custody.wire import Frame, Progress
from daemon.errors import Broken, Busy, DaemonError, Refused, TokenLost

if TYPE_CHECKING:
    from daemon.custody.client import Custodian
    from daemon.custody.wire import Request
    from daemon.settings import Settings

A = TypeVar("A", bound=Frame)

RETRY_SECONDS: Final = 5
"""When a full arena or a spent rate limit is worth another try."""


RATE_SECONDS: Final = 60.0
"""How long a spent rate limit is worth a word: the shorter of its two windows."""


class Altered(Refused):
    """A sealed row does not open although the HSM is well: its share is to be set aside."""

    kind = "share-altered"


class Wall:
    """The custodian, with its failures as errors of ours. For tasks of one trio run."""

    def __init__(self, custodian: Custodian, settings: Settings) -> None:
        self.custodian = custodian
        self._rate = ""
        self._rate_refused_at = -math.inf
        self._seconds = settings.custody.call_seconds

    @property
    def rate_problem(self) -> str:
        """In the custodian's words, that it has just refused a signing for its rate; empty where it has not.

        It counts by itself, across restarts, and is known to have reached the limit only by what it refuses.
        """
        return self._rate if trio.current_time() < self._rate_refused_at + RATE_SECONDS else ""

    async def ask(self, request: Request, expect: type[A], *, epoch: int | None = None) -> A:
        """Put one request across; arguments as in `Custodian.ask`.

        Raises:
            TokenLost: The custodian or its HSM is away, locked or unwell, or has lost the ceremony.
            Busy: Its arena is full, or the policy's rate is reached.
            Altered: The row does not open.
            Refused: It will not do this.
            Broken: It, or we, break the wall's rules.
        """
        try:
            answer = await self.custodian.ask(request, expect, seconds=self._seconds, epoch=epoch)
        except CustodianGone as gone:
            raise TokenLost(str(gone), "it is being brought back; try again with a new session") from None
        except CustodyFailure as failure:
            if failure.kind == "rate":
                self._refused_for_rate(failure.message)
            raise _in_our_words(failure) from None
        if isinstance(answer, Progress) and answer.fault is not None and answer.fault.reason == "rate-limit":
            self._refused_for_rate(answer.fault.detail)
        return answer

    def _refused_for_rate(self, message: str) -> None:
        self._rate, self._rate_refused_at = message, trio.current_time()


def _in_our_words(failure: CustodyFailure) -> DaemonError:
    message = f"{failure.message} ({failure.field})" if failure.field else failure.message
    match failure.kind:
        case "refused":
            return Refused(message)
        case "altered":
            return Altered(message, "compare with a backup; `tssctl hsm doctor` tells whether the HSM is well")
        case "credential" | "locked" | "token":
            return TokenLost(message, "look at `tssctl hsm status`")
        case "unknown":
            return TokenLost(message, "the custodian was restarted; try again with a new session")
        case "busy" | "rate":
            return Busy(message, RETRY_SECONDS)
        case "state" | "internal":
            return Broken(message)
