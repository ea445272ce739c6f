"""Why the custodian does not carry a request out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.custody.wire import Failure

if TYPE_CHECKING:
    from daemon.custody.wire import FailureKind


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
