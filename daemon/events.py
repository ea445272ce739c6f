"""The domain events and their published form: camelCase JSON objects with a `type` and times in RFC 3339."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from daemon.values import MessageHash, PartyId, PublicKey, SessionId, ShareId, ShareType, Signature


def timestamp(moment: datetime) -> str:
    """A UTC moment as `2026-01-31T12:00:00.123456Z`; always this long, so that text sorts as time does."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareCreated:
    """A share became active."""

    share_id: ShareId
    party_id: PartyId
    session_id: SessionId
    share_type: ShareType
    public_key: PublicKey
    occurred_at: datetime

    def published(self) -> dict[str, str]:
        """The event as subscribers see it."""
        return {
            "type": "ShareCreated",
            "shareId": str(self.share_id),
            "partyId": str(self.party_id),
            "sessionId": str(self.session_id),
            "shareType": str(self.share_type),
            "publicKey": str(self.public_key),
            "occurredAt": timestamp(self.occurred_at),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class KeygenCompleted:
    """A key was made and every party confirmed it."""

    session_id: SessionId
    party_id: PartyId
    public_key: PublicKey
    share_id: ShareId
    occurred_at: datetime

    def published(self) -> dict[str, str]:
        """The event as subscribers see it."""
        return {
            "type": "KeygenCompleted",
            "sessionId": str(self.session_id),
            "partyId": str(self.party_id),
            "publicKey": str(self.public_key),
            "shareId": str(self.share_id),
            "occurredAt": timestamp(self.occurred_at),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningCompleted:
    """A signature was made and verified."""

    session_id: SessionId
    party_id: PartyId
    message_hash: MessageHash
    signature: Signature
    occurred_at: datetime

    def published(self) -> dict[str, str]:
        """The event as subscribers see it."""
        return {
            "type": "SigningCompleted",
            "sessionId": str(self.session_id),
            "partyId": str(self.party_id),
            "messageHash": str(self.message_hash),
            "signature": str(self.signature),
            "occurredAt": timestamp(self.occurred_at),
        }


Event = ShareCreated | KeygenCompleted | SigningCompleted


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """An event with its number in the outbox: ascending, never reused, what consumers remember to go on from."""

    number: int
    event: dict[str, str]
