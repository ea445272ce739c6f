"""Session: one ceremony as this party sees it, and the only legal ways from one status to the next.

What happened is the session's journal: append-only rows, each written before its effect can be seen outside. The status
is derived from the newest row (`STATUS_OF`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime

    from daemon.values import MessageHash, PartyId, PublicKey, SessionId, ShareId, Signature


class SessionType(StrEnum):
    """What a session makes."""

    KEYGEN = "keygen"
    SIGN = "sign"
    ROTATE = "rotate"


class SessionStatus(StrEnum):
    """Where a session stands. All but `in_progress` are final."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMEOUT = "timeout"

    @property
    def final(self) -> bool:
        """Nothing can follow."""
        return not LEGAL[self]


LEGAL: Final[dict[SessionStatus, frozenset[SessionStatus]]] = {
    SessionStatus.IN_PROGRESS: frozenset({SessionStatus.COMPLETED, SessionStatus.FAILED, SessionStatus.TIMEOUT}),
    SessionStatus.COMPLETED: frozenset(),
    SessionStatus.FAILED: frozenset(),
    SessionStatus.TIMEOUT: frozenset(),
}


class Step(StrEnum):
    """One row of a session's journal, named after what is about to become visible outside."""

    OFFERED = "offered"
    """Accepted from a caller, who is about to be told so."""
    PREPARING = "preparing"
    """A keygen waits for, or has taken, its pre-parameters."""
    JOINING = "joining"
    """The router's stream is open; the coordinator is about to hear of us."""
    AGREED = "agreed"
    """The coordinator's session is the one that was asked for, its committee is known."""
    BEGUN = "begun"
    """A seat is open behind the wall; its hello is about to leave."""
    NONCE_SPENT = "nonce_spent"
    """Signing: the first message that depends on the nonce is about to leave. Never resumed from here."""
    ROUND = "round"
    """A protocol round began; what it makes us say is about to leave."""
    PENDING = "pending"
    """Keygen: the share is sealed, stored and was opened once; our confirmation is about to leave."""
    CONFIRMED = "confirmed"
    """Keygen: another party's confirmation holds."""
    COMPLETED = "completed"
    """The result is final here: report and events are in the outbox, in the same transaction."""
    FAILED = "failed"
    TIMEOUT = "timeout"


STATUS_OF: Final[dict[Step, SessionStatus]] = {
    Step.COMPLETED: SessionStatus.COMPLETED,
    Step.FAILED: SessionStatus.FAILED,
    Step.TIMEOUT: SessionStatus.TIMEOUT,
}
"""The status each step brings; every other step leaves the session `in_progress`."""

TELLING: Final[frozenset[Step]] = frozenset({Step.JOINING, Step.BEGUN, Step.ROUND})
"""Steps that only tell where a session stands. A restart does the same whether the newest of them is known or not: the
session has failed. So they are in the journal before their effect, like all others, but need not be on the disk yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One row. number: ascending over all sessions. round: 0 outside the rounds. detail: JSON-ready facts."""

    number: int
    session_id: SessionId
    party_id: PartyId
    step: Step
    round: int
    detail: dict[str, object]
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session with what its journal says about it."""

    session_id: SessionId
    party_id: PartyId
    type: SessionType
    status: SessionStatus
    step: Step
    round: int
    rounds: int
    """How many rounds the protocol has; 0 while that is not known."""
    waits_for: tuple[str, ...]
    """Party ids, or the named reason of a wait; empty when nothing is waited for."""
    culprits: tuple[str, ...]
    hearsay: tuple[str, ...]
    reason: str
    """`kind` of the error that ended it (daemon/errors.py), or the protocol's reason; empty otherwise."""
    error_message: str
    public_key: PublicKey | None
    message_hash: MessageHash | None
    share_id: ShareId | None
    signature: Signature | None
    started_at: datetime
    completed_at: datetime | None
