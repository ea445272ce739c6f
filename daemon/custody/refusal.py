"""Why the custodian does not carry a request out."""

from __future__ import annotations

from typing import Final

from daemon.custody.state import RateExceeded, Revoked, StateRefused
from daemon.custody.wire import Failure, FailureKind
from tss_cffi import ArenaFull, KeyMaterialRefused, Misuse, TssError


class Refusal(Exception):
    """A request is not carried out. message: what is wrong and what to do next, without secrets."""

    def __init__(self, kind: FailureKind, message: str, field: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.field = field

    def answer(self) -> Failure:
        """As it crosses the wall."""
        return Failure(kind=self.kind, message=self.message, field=self.field)


_KINDS: Final[tuple[tuple[type[Exception], FailureKind], ...]] = (
    (RateExceeded, "rate"),
    (Revoked, "refused"),
    (StateRefused, "refused"),
    (ArenaFull, "busy"),
    (KeyMaterialRefused, "altered"),
    (Misuse, "refused"),
    (TssError, "state"),
)


def refusal_of(error: Exception) -> Refusal | None:
    """What an error of state or core means to whoever asked; None for a defect."""
    if isinstance(error, Refusal):
        return error
    for cause, kind in _KINDS:
        if isinstance(error, cause):
            return Refusal(kind, str(error), getattr(error, "field", getattr(error, "argument", "")))
    return None
