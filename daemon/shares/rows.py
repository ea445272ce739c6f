"""How the store's rows are written: the custodian's frames and our records as columns, and back.

What the custodian sealed is kept as JSON with base64 (`share_data`), every other binary value in lower-case hex, so
that a row can be read by eye. Reading is strict: a row that does not parse is `Broken`, for nobody but us writes
here.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from datetime import datetime
from typing import TYPE_CHECKING, Any

from daemon.custody import wire
from daemon.errors import Broken, InvalidValue
from daemon.session import JournalEntry, Session, SessionStatus, SessionType, Step
from daemon.share import Share, ShareStatus
from daemon.values import (
    Channel,
    Committee,
    MessageHash,
    PartyId,
    Protocol,
    PublicKey,
    Seat,
    SessionId,
    ShareId,
    ShareType,
    Signature,
    Threshold,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

Row = dict[str, Any]
"""One row by column name, as SQLite gives it."""


def compact(value: object) -> str:
    """JSON without blanks."""
    return json.dumps(value, separators=(",", ":"))


def sealed_json(sealed: wire.Sealed) -> str:
    """What the HSM sealed, as `share_data`."""
    return compact(
        {
            "format": sealed.format,
            "tier": sealed.tier,
            "kek": sealed.kek_version,
            "wrappedKeys": {
                "kek": b64encode(sealed.wrapped_key).decode(),
                "recovery": None if sealed.recovery_wrapped is None else b64encode(sealed.recovery_wrapped).decode(),
                "recoveryFingerprint": sealed.recovery_fingerprint and sealed.recovery_fingerprint.hex(),
            },
            "chunks": [
                {
                    "data": b64encode(chunk.data).decode(),
                    "iv": b64encode(chunk.iv).decode(),
                    "authTag": b64encode(chunk.auth_tag).decode(),
                }
                for chunk in sealed.chunks
            ],
        }
    )


def sealed_of(text: str) -> wire.Sealed:
    """The inverse of `sealed_json`.

    Raises:
        Broken: The text is not one of ours.
    """
    try:
        data = json.loads(text)
        keys = data["wrappedKeys"]
        recovery, fingerprint = keys["recovery"], keys["recoveryFingerprint"]
        return wire.Sealed(
            format=data["format"],
            tier=data["tier"],
            kek_version=data["kek"],
            wrapped_key=b64decode(keys["kek"], validate=True),
            recovery_wrapped=None if recovery is None else b64decode(recovery, validate=True),
            recovery_fingerprint=None if fingerprint is None else bytes.fromhex(fingerprint),
            chunks=tuple(
                wire.SealedChunk(
                    data=b64decode(chunk["data"], validate=True),
                    iv=b64decode(chunk["iv"], validate=True),
                    auth_tag=b64decode(chunk["authTag"], validate=True),
                )
                for chunk in data["chunks"]
            ),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise Broken(f"sealed data in the store does not read: {type(error).__name__}") from None


def share_columns(row: wire.ShareRow) -> Row:
    """A new share's columns, but for status and times."""
    return {
        "id": row.share_id,
        "party_id": row.party_id,
        "session_id": str(SessionId.of_octets(row.session)),
        "share_type": row.share_type,
        "share_data": sealed_json(row.sealed),
        "public_key": row.public_key.hex(),
        "threshold_n": len(row.committee),
        "threshold_t": row.threshold,
        "committee": compact([{"seat": seat.seat, "partyId": seat.party_id} for seat in row.committee]),
        "seat": row.seat,
        "protocol": row.protocol,
        "channel": row.channel,
        "generation": row.generation,
        "transcript": row.transcript.hex(),
        "identities": compact([identity.hex() for identity in row.identities]),
        "result_digest": row.result_digest.hex(),
        "confirmation": row.confirmation.hex(),
    }


def share_row(row: Row) -> wire.ShareRow:
    """A stored share as the custodian takes it, everything its seal is bound to as it was stored."""
    return wire.ShareRow(
        share_id=row["id"],
        party_id=row["party_id"],
        session=SessionId(row["session_id"]).octets,
        share_type=row["share_type"],
        public_key=bytes.fromhex(row["public_key"]),
        threshold=row["threshold_t"],
        committee=tuple(
            wire.Seat(seat=seat["seat"], party_id=seat["partyId"]) for seat in json.loads(row["committee"])
        ),
        seat=row["seat"],
        protocol=row["protocol"],
        channel=row["channel"],
        generation=row["generation"],
        transcript=bytes.fromhex(row["transcript"]),
        identities=tuple(bytes.fromhex(identity) for identity in json.loads(row["identities"])),
        result_digest=bytes.fromhex(row["result_digest"]),
        confirmation=bytes.fromhex(row["confirmation"]),
        sealed=sealed_of(row["share_data"]),
    )


def share_of(row: Row) -> Share:
    """A stored share as everybody but the custodian sees it."""
    try:
        return Share(
            share_id=ShareId(row["id"]),
            party_id=PartyId(row["party_id"]),
            session_id=SessionId(row["session_id"]),
            type=ShareType(row["share_type"]),
            public_key=PublicKey.parse(row["public_key"]),
            threshold=Threshold(row["threshold_t"], row["threshold_n"]),
            committee=Committee(
                tuple(Seat(seat["seat"], PartyId(seat["partyId"])) for seat in json.loads(row["committee"]))
            ),
            protocol=Protocol(row["protocol"]),
            channel=Channel(row["channel"]),
            generation=row["generation"],
            status=ShareStatus(row["status"]),
            created_at=datetime.fromisoformat(row["created_at"]),
            updated_at=datetime.fromisoformat(row["updated_at"]),
            last_used_at=_moment(row["last_used_at"]),
        )
    except (InvalidValue, ValueError, KeyError) as error:
        raise Broken(f"share {row['id']} in the store does not read: {error}") from None


def session_of(row: Row) -> Session:
    """A stored session."""
    signature = None
    if row["signature"] is not None:
        signature = Signature(bytes.fromhex(row["signature"]), row["recovery_id"])
    return Session(
        session_id=SessionId(row["session_id"]),
        party_id=PartyId(row["party_id"]),
        type=SessionType(row["session_type"]),
        status=SessionStatus(row["status"]),
        step=Step(row["step"]),
        round=row["current_round"],
        rounds=row["rounds"],
        waits_for=(),
        culprits=tuple(json.loads(row["culprits"])),
        hearsay=tuple(json.loads(row["hearsay"])),
        reason=row["reason"],
        error_message=row["error_message"],
        public_key=None if row["public_key"] is None else PublicKey.parse(row["public_key"]),
        message_hash=None if row["message_hash"] is None else MessageHash.parse(row["message_hash"]),
        share_id=None if row["share_id"] is None else ShareId(row["share_id"]),
        signature=signature,
        started_at=datetime.fromisoformat(row["started_at"]),
        completed_at=_moment(row["completed_at"]),
    )


def journal_of(row: Row) -> JournalEntry:
    """A stored row of a session's journal."""
    return JournalEntry(
        number=row["number"],
        session_id=SessionId(row["session_id"]),
        party_id=PartyId(row["party_id"]),
        step=Step(row["step"]),
        round=row["round"],
        detail=json.loads(row["detail"]),
        at=datetime.fromisoformat(row["at"]),
    )


def prepared_columns(row: wire.PreparedRow) -> Row:
    """A new set of pre-parameters, but for status and times."""
    return {
        "prepared_id": row.prepared_id,
        "protocol": row.protocol,
        "fingerprints": compact([fingerprint.hex() for fingerprint in row.fingerprints]),
        "sealed": sealed_json(row.sealed),
    }


def prepared_of(row: Row) -> wire.PreparedRow:
    """A stored set of pre-parameters as the custodian takes it."""
    return wire.PreparedRow(
        prepared_id=row["prepared_id"],
        protocol=row["protocol"],
        fingerprints=tuple(bytes.fromhex(fingerprint) for fingerprint in json.loads(row["fingerprints"])),
        sealed=sealed_of(row["sealed"]),
    )


def insert(table: str, columns: Mapping[str, object]) -> tuple[str, list[object]]:
    """An INSERT and its values. table and column names are ours, never a caller's."""
    names = ", ".join(columns)
    marks = ", ".join("?" for _ in columns)
    return f"INSERT INTO {table} ({names}) VALUES ({marks})", list(columns.values())  # noqa: S608  names are ours


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
