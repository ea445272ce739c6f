"""What the API takes and gives: JSON in camelCase, requests strict, answers as the OpenAPI document promises."""

# No `from __future__ import annotations` here: pydantic reads the annotations.
from base64 import b64decode, b64encode
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema, field_validator
from pydantic.alias_generators import to_camel

from daemon.custody import wire
from daemon.desk import AuditRow, AuditVerdict, Confirmations, Peers, Readiness
from daemon.errors import InvalidValue
from daemon.events import Published, timestamp
from daemon.session import JournalEntry, Session, SessionStatus, SessionType, Step
from daemon.share import Share, ShareStatus
from daemon.values import (
    COMMITTEE_MAX,
    JOIN_TOKEN_MAX,
    Channel,
    JoinToken,
    MessageHash,
    PartyId,
    Protocol,
    PublicKey,
    SessionId,
    ShareType,
)

BODY_MAX: Final = 256 * 1024
"""Bytes of a request's body; room for a complete set of confirmations of the largest committee."""
PAGE_MAX: Final = 1000
PAGE: Final = 100

T = TypeVar("T")


def _parsed(parse: Callable[[str], T]) -> PlainValidator:
    def validate(value: object) -> T:
        if not isinstance(value, str):
            raise InvalidValue("must be a text")
        return parse(value)

    return PlainValidator(validate)


def _text(pattern: str, example: str, **more: object) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": [example], **more})


UUID: Final = r"^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"
_KEY_EXAMPLE = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
SessionIdText = Annotated[SessionId, _parsed(SessionId), _text(UUID, "7c9e6679-7425-40de-944b-e07fc1f90ae7")]
PartyIdText = Annotated[
    PartyId, _parsed(PartyId), _text(r"^[A-Za-z0-9_-]+-[A-Za-z0-9_]+$", "user123-server", maxLength=128)
]
JoinTokenText = Annotated[JoinToken, _parsed(JoinToken), _text(r"^[ -~]+$", "eyJ...", maxLength=JOIN_TOKEN_MAX)]
MessageHashText = Annotated[
    MessageHash, _parsed(MessageHash.parse), _text(r"^(0[xX])?[0-9A-Fa-f]{64}$", "0x" + "5a" * 32)
]
PublicKeyText = Annotated[
    PublicKey, _parsed(PublicKey.parse), _text(r"^([0-9A-Fa-f]{66}|[0-9A-Fa-f]{130})$", _KEY_EXAMPLE)
]
Base64Text = Annotated[
    bytes,
    _parsed(partial(b64decode, validate=True)),
    _text(r"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$", "c2lnbmVk", minLength=4),
]
Moment = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]


class _Body(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, extra="forbid", frozen=True, strict=True)


# ---- Requests ----


class KeygenRequest(_Body):
    """Take part in a keygen. threshold, parties: what is expected of the session (`policy.require_expectations`)."""

    session_id: SessionIdText
    party_id: PartyIdText
    join_token: JoinTokenText
    share_type: Annotated[ShareType, Field(strict=False)]
    threshold: Annotated[int, Field(ge=2, le=COMMITTEE_MAX)] | None = None
    """t: how many parties sign."""
    parties: Annotated[tuple[PartyIdText, ...], Field(strict=False, min_length=2, max_length=COMMITTEE_MAX)] | None = (
        None
    )
    """All n party ids, ours included, in any order."""

    @field_validator("parties")
    @classmethod
    def _distinct(cls, parties: tuple[PartyId, ...] | None) -> tuple[PartyId, ...] | None:
        if parties is not None and len(set(parties)) != len(parties):
            raise InvalidValue("names a party twice")
        return parties


class SigningRequest(_Body):
    """Take part in a signing. publicKey: what is expected of the session (`policy.require_expectations`)."""

    session_id: SessionIdText
    party_id: PartyIdText
    join_token: JoinTokenText
    message_hash: MessageHashText
    public_key: PublicKeyText | None = None


class SuccessionRequest(_Body):
    """A peer's new identity key, signed by its old one (docs/channel.md). statement: base64."""

    statement: Base64Text


class ConfirmationsRequest(_Body):
    """Confirmations of a pending share, from whatever source they came. statements: base64."""

    party_id: PartyIdText | None = None
    statements: Annotated[list[Base64Text], Field(min_length=1, max_length=COMMITTEE_MAX)]


class _Query(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, extra="forbid", frozen=True)


class OneSession(_Query):
    """Which of our parties is meant, where several sit in one session."""

    party_id: str | None = None


class ShareQuery(_Query):
    """Which shares. after: the id of the last share of the page before."""

    party_id: str | None = None
    public_key: str | None = None
    share_type: ShareType | None = None
    status: ShareStatus | None = None
    after: str | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = PAGE


class SessionQuery(_Query):
    """Which sessions, newest first. before: the startedAt of the last session of the page before."""

    status: SessionStatus | None = None
    type: SessionType | None = None
    party_id: str | None = None
    before: str | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = PAGE


class NumberedQuery(_Query):
    """A page of numbered rows, ascending. after: the number of the last row of the page before."""

    after: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = PAGE


# ---- Answers ----


class Accepted(_Body):
    """The session is under way; `/mpc-party/sessions/{sessionId}` tells the rest."""

    message: str
    session_id: str
    party_id: str


class SeatInfo(_Body):
    """One member of a committee."""

    seat: int
    party_id: str


class ShareInfo(_Body):
    """A share, without its data."""

    id: str
    party_id: str
    session_id: str
    share_type: ShareType
    public_key: str
    threshold: Annotated[str, Field(examples=["2-of-3"])]
    status: ShareStatus
    created_at: Moment
    last_used_at: Moment | None
    generation: int
    protocol: Protocol
    channel: Channel
    committee: list[SeatInfo]

    @classmethod
    def of(cls, share: Share) -> Self:
        """The published form."""
        return cls(
            id=str(share.share_id),
            party_id=str(share.party_id),
            session_id=str(share.session_id),
            share_type=share.type,
            public_key=str(share.public_key),
            threshold=str(share.threshold),
            status=share.status,
            created_at=timestamp(share.created_at),
            last_used_at=None if share.last_used_at is None else timestamp(share.last_used_at),
            generation=share.generation,
            protocol=share.protocol,
            channel=share.channel,
            committee=[SeatInfo(seat=seat.number, party_id=str(seat.party_id)) for seat in share.committee.seats],
        )


class ShareList(_Body):
    """A page of shares."""

    shares: list[ShareInfo]


class SessionInfo(_Body):
    """A session. reason: why it failed, a stable name; errorMessage: the same in words."""

    session_id: str
    party_id: str
    type: SessionType
    status: SessionStatus
    step: Step
    round: int
    rounds: int
    waits_for: list[str]
    culprits: list[str]
    hearsay: list[str]
    reason: str
    error_message: str
    public_key: str | None
    message_hash: str | None
    share_id: str | None
    signature: str | None
    recovery_id: int | None
    started_at: Moment
    completed_at: Moment | None

    @classmethod
    def of(cls, session: Session) -> Self:
        """The published form."""
        signature = session.signature
        return cls(
            session_id=str(session.session_id),
            party_id=str(session.party_id),
            type=session.type,
            status=session.status,
            step=session.step,
            round=session.round,
            rounds=session.rounds,
            waits_for=list(session.waits_for),
            culprits=list(session.culprits),
            hearsay=list(session.hearsay),
            reason=session.reason,
            error_message=session.error_message,
            public_key=_or_none(session.public_key),
            message_hash=_or_none(session.message_hash),
            share_id=_or_none(session.share_id),
            signature=_or_none(signature),
            recovery_id=None if signature is None else signature.recovery_id,
            started_at=timestamp(session.started_at),
            completed_at=None if session.completed_at is None else timestamp(session.completed_at),
        )


class SessionList(_Body):
    """A page of sessions, newest first."""

    sessions: list[SessionInfo]


class StepInfo(_Body):
    """One row of a session's journal. detail: facts of the step."""

    number: int
    session_id: str
    party_id: str
    step: Step
    round: int
    at: Moment
    detail: dict[str, Any]

    @classmethod
    def of(cls, entry: JournalEntry) -> Self:
        """The published form."""
        return cls(
            number=entry.number,
            session_id=str(entry.session_id),
            party_id=str(entry.party_id),
            step=entry.step,
            round=entry.round,
            at=timestamp(entry.at),
            detail=entry.detail,
        )


class EventInfo(_Body):
    """A domain event. number: what a consumer goes on from."""

    number: int
    event: dict[str, str]


class EventList(_Body):
    """A page of domain events, ascending."""

    events: list[EventInfo]

    @classmethod
    def of(cls, published: list[Published]) -> Self:
        """The published form."""
        return cls(events=[EventInfo(number=each.number, event=each.event) for each in published])


class PeerInfo(_Body):
    """A pinned node. identity: P-256 key, compressed, hex. partyIds: patterns in which only `*` is special."""

    node: str
    identity: str
    fingerprint: str
    party_ids: list[str]


class PeerList(_Body):
    """Our own identity and the pinned nodes. number: of the signed list; 0: none was made yet."""

    number: int
    identity: str
    peers: list[PeerInfo]

    @classmethod
    def of(cls, peers: Peers) -> Self:
        """The published form."""
        return cls(
            number=peers.number,
            identity=peers.identity.hex(),
            peers=[
                PeerInfo(
                    node=pin.node,
                    identity=pin.identity.hex(),
                    fingerprint=sha256(pin.identity).hexdigest(),
                    party_ids=list(pin.patterns),
                )
                for pin in peers.pins
            ],
        )


class ConfirmationsInfo(_Body):
    """Who has confirmed a share, and the signed statements, base64, to be given to whoever lacks them."""

    session_id: str
    party_id: str
    share_id: str
    confirmed: list[str]
    missing: list[str]
    statements: list[str]

    @classmethod
    def of(cls, confirmations: Confirmations) -> Self:
        """The published form."""
        return cls(
            session_id=str(confirmations.session_id),
            party_id=str(confirmations.party_id),
            share_id=str(confirmations.share_id),
            confirmed=list(confirmations.confirmed),
            missing=list(confirmations.missing),
            statements=[b64encode(statement).decode() for statement in confirmations.statements],
        )


class CustodyInfo(_Body):
    """The custodian and its HSM. reason: what is wrong and what to do; empty when ready.

    chain_problem: why it refuses every use of a key although the HSM is ready: its own memory was put back to an
    earlier day, or cannot be written. Empty where that is well.
    """

    state: Literal["ready", "starting", "locked", "credential", "token"]
    reason: str
    token_label: str
    token_serial: str
    token_model: str
    tier: str
    kek_version: int
    identity: str
    pins_number: int
    chain_count: int
    chain_head: str
    chain_problem: str
    ceremonies: int
    arena_used: int
    arena_size: int
    hsm_operations: int
    hsm_errors: int
    plain_committees: int

    @classmethod
    def of(cls, status: wire.Status) -> Self:
        """The published form."""
        return cls(
            state=status.state,
            reason=status.reason,
            token_label=status.token_label,
            token_serial=status.token_serial,
            token_model=status.token_model,
            tier=status.tier,
            kek_version=status.kek_version,
            identity=status.identity.hex(),
            pins_number=status.pins_number,
            chain_count=status.chain_count,
            chain_head=status.chain_head.hex(),
            chain_problem=status.chain_problem,
            ceremonies=status.ceremonies,
            arena_used=status.arena_used,
            arena_size=status.arena_size,
            hsm_operations=status.hsm_operations,
            hsm_errors=status.hsm_errors,
            plain_committees=status.plain_committees,
        )


class ResealStarted(_Body):
    """A new version of the key-encryption key was made; so many shares are being sealed anew under it."""

    message: str
    kek_version: int
    shares: int


class RefusedShare(_Body):
    """A share that the custodian does not seal anew, and why; it is asked again every few seconds."""

    share_id: str
    reason: str


class ResealProgress(_Body):
    """left: shares under an older version of the key-encryption key; refused: those among them that stay there."""

    left: int
    refused: list[RefusedShare]

    @classmethod
    def of(cls, left: int, refused: dict[str, str]) -> Self:
        """The published form."""
        return cls(
            left=left,
            refused=[RefusedShare(share_id=share_id, reason=reason) for share_id, reason in sorted(refused.items())],
        )


class AuditRowInfo(_Body):
    """One row of the audit log. previous, digest: the chain, hex."""

    number: int
    at: Moment
    actor: str
    action: str
    subject: dict[str, Any]
    previous: str
    digest: str

    @classmethod
    def of(cls, row: AuditRow) -> Self:
        """The published form."""
        return cls(
            number=row.number,
            at=timestamp(row.at),
            actor=row.actor,
            action=row.action,
            subject=row.subject,
            previous=row.previous.hex(),
            digest=row.digest.hex(),
        )


class AuditPage(_Body):
    """A page of the audit log, ascending."""

    rows: list[AuditRowInfo]


class AuditVerdictInfo(_Body):
    """Whether the log is whole. problem: the first difference; empty where there is none."""

    whole: bool
    rows: int
    checkpoints: int
    last_checkpoint: int
    problem: str

    @classmethod
    def of(cls, verdict: AuditVerdict) -> Self:
        """The published form."""
        return cls(
            whole=verdict.whole,
            rows=verdict.rows,
            checkpoints=verdict.checkpoints,
            last_checkpoint=verdict.last_checkpoint,
            problem=verdict.problem,
        )


class Health(_Body):
    """Alive."""

    status: Literal["ok"]
    timestamp: Moment
    service: Literal["tssd"]


class Ready(_Body):
    """Able to sign now? reasons: why not, each with what to do. notes: what is worth knowing besides."""

    ready: bool
    reasons: list[str]
    notes: list[str]

    @classmethod
    def of(cls, readiness: Readiness) -> Self:
        """The published form."""
        return cls(ready=readiness.ready, reasons=list(readiness.reasons), notes=list(readiness.notes))


def _or_none(value: object | None) -> str | None:
    return None if value is None else str(value)
