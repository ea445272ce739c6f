"""Share: this party's part of one key as everybody but the custodian sees it, and the legal changes of its status."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime

    from daemon.values import (
        Channel,
        Committee,
        PartyId,
        Protocol,
        PublicKey,
        SessionId,
        ShareId,
        ShareType,
        Threshold,
    )


class ShareStatus(StrEnum):
    """What may be done with a share. Only `active` signs."""

    PENDING = "pending"
    """Made and stored, not yet confirmed by all."""
    ACTIVE = "active"
    ROTATED = "rotated"
    """A newer share of the same key replaced it."""
    REVOKED = "revoked"
    QUARANTINED = "quarantined"
    """Does not open although the HSM is well, or was set aside by an operator; never deleted."""


LEGAL: Final[dict[ShareStatus, frozenset[ShareStatus]]] = {
    ShareStatus.PENDING: frozenset({ShareStatus.ACTIVE, ShareStatus.QUARANTINED}),
    ShareStatus.ACTIVE: frozenset({ShareStatus.ROTATED, ShareStatus.REVOKED, ShareStatus.QUARANTINED}),
    ShareStatus.ROTATED: frozenset({ShareStatus.REVOKED}),
    ShareStatus.REVOKED: frozenset(),
    ShareStatus.QUARANTINED: frozenset({ShareStatus.ACTIVE, ShareStatus.REVOKED}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Everything about a share but its sealed data."""

    share_id: ShareId
    party_id: PartyId
    session_id: SessionId
    """The ceremony that made it."""
    type: ShareType
    public_key: PublicKey
    threshold: Threshold
    committee: Committee
    protocol: Protocol
    channel: Channel
    generation: int
    """0 at keygen, one more with each rotation."""
    status: ShareStatus
    created_at: datetime
    updated_at: datetime
    last_used_at: datetime | None

    @property
    def seat(self) -> int:
        """Our own seat number."""
        return self.committee.seat_of(self.party_id)
