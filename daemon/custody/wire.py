"""The frames that cross the wall between tssd and the custodian.

A frame is a u32 big-endian length and one MessagePack value: a `Call` towards the custodian, a `Reply` towards tssd.
Calls may overlap; a reply carries the number of its call; calls for one ceremony are done in the order they came.
Decoding is strict: an unknown tag, an unknown field or a wrong type ends the connection.

No type here has a field for a share, a share key, a nonce, a PIN or bytes to be signed as they are: what crosses is
public, or sealed to the HSM, or sealed to a peer. The one exception is named: `PlainReceive` and `PlainMessage`, for
committees that the custodian's own policy lists as plain.
"""

from __future__ import annotations

import struct
from typing import Final, Literal

import msgspec

HEADER_LENGTH: Final = 4
CALL_MAX: Final = 1024 * 1024
"""Bytes of a call; the largest carries a router payload or a row with its confirmations."""
REPLY_MAX: Final = 16 * 1024 * 1024
"""Bytes of a reply; the largest has 31 sealed copies of a message of 256 KiB."""

RECEIVE_BYTES: Final = 64 * 1024
"""Read at once: a row and more. What is much larger the C library would map and unmap for each read."""
PIN_LIST_HEAD: Final = struct.Struct(">BQH")
"""What a list of pins begins with: its version, its number, how many there are."""

ProtocolName = Literal["gg18-v2", "gg18-v3"]
ChannelName = Literal["sealed", "plain"]
ShareTypeName = Literal["wallet", "admin", "recovery"]
FailureKind = Literal[
    "refused",  # the request contradicts policy, state or itself; trying again will not help
    "altered",  # a sealed row does not open although the HSM is well
    "credential",  # the PIN was refused; latched until the credential changes
    "locked",  # waiting for a PIN
    "token",  # the HSM is gone or unwell; probed until it is back
    "busy",  # no room for another ceremony in the arena
    "rate",  # the policy's rate limit
    "unknown",  # no such ceremony here (any more)
    "state",  # not possible at this point of the ceremony
    "internal",  # our own invariant does not hold
]


class Frame(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="is", kw_only=True):
    """Base of everything that crosses: frozen, strict, tagged by class name."""


class Seat(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One member of a committee. seat: Shamir coordinate, party_index + 1 at keygen, 1..65535."""

    seat: int
    party_id: str


class SealedChunk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One AES-256-GCM chunk: at most 12 KiB of data, the IV that was used, a 16-byte tag."""

    data: bytes
    iv: bytes
    auth_tag: bytes


class Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the HSM sealed: format version, tier, KEK version, the wrapped share key (A256KW, 40 bytes), chunks."""

    format: int
    tier: Literal["A"]
    kek_version: int
    wrapped_key: bytes
    recovery_wrapped: bytes | None
    recovery_fingerprint: bytes | None
    chunks: tuple[SealedChunk, ...]


class ShareRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A share at rest with everything its seal is bound to. session: the ceremony that made it, 16 bytes."""

    share_id: str
    party_id: str
    session: bytes
    share_type: ShareTypeName
    public_key: bytes
    threshold: int
    committee: tuple[Seat, ...]
    seat: int
    protocol: ProtocolName
    channel: ChannelName
    generation: int
    transcript: bytes
    """T of the ceremony that made it, 32 bytes; empty for plain committees."""
    identities: tuple[bytes, ...]
    """Identity key of each seat at that ceremony, 33 bytes each, in committee order; empty for plain committees."""
    result_digest: bytes
    """Digest of everything public that the parties must agree on, 32 bytes."""
    confirmation: bytes
    """Body of our confirmation (docs/channel.md), to be signed again after a restart; empty for plain committees."""
    sealed: Sealed


class PreparedRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A sealed set of pre-parameters, for one keygen. fingerprints: SHA-256 of each value that must be unique."""

    prepared_id: str
    protocol: ProtocolName
    fingerprints: tuple[bytes, ...]
    sealed: Sealed


class SignedPins(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The list of pinned peers as it was signed: body (docs/channel.md) and our identity key's signature."""

    body: bytes
    signature: bytes

    @property
    def count(self) -> int:
        """How many pins it says it has. Who they are only the custodian can tell."""
        count: int = PIN_LIST_HEAD.unpack_from(self.body)[2] if len(self.body) >= PIN_LIST_HEAD.size else 0
        return count


class OutFrame(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Sealed bytes for the router. to: a party id, or None for everybody. round: the router's hint."""

    to: str | None
    round: int
    data: bytes


class FaultReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Why a ceremony failed. culprits: party ids, empty where nobody can be named."""

    reason: str
    detail: str
    round: int
    culprits: tuple[str, ...]
    hearsay: tuple[str, ...]
    """Party ids that an abort notice of a peer blames: shown, never counted."""
    authenticated: bool
    """False for plain committees: the sender was only the router's word."""
    evidence: tuple[bytes, ...]


# ---- Requests ----


class GetStatus(Frame, frozen=True):
    """Ask how the custodian and its HSM are. Answer: `Status`."""


class BeginKeygen(Frame, frozen=True):
    """Open a seat in a keygen. Answer: `Begun`. prepared is spent by this call, whatever comes of it."""

    session: bytes
    party_id: str
    share_id: str
    share_type: ShareTypeName
    protocol: ProtocolName
    channel: ChannelName
    committee: tuple[Seat, ...]
    threshold: int
    prepared: PreparedRow | None
    known_fingerprints: tuple[bytes, ...]
    """Fingerprints of values that stored shares and committees already use."""
    pins: SignedPins | None


class BeginSigning(Frame, frozen=True):
    """Open a seat in a signing with a share. Answer: `Begun`.

    signers: seats out of the row's committee, ascending, ours among them.
    """

    session: bytes
    row: ShareRow
    confirmations: tuple[bytes, ...]
    signers: tuple[int, ...]
    message_hash: bytes
    pins: SignedPins | None


class Receive(Frame, frozen=True):
    """One router payload for a ceremony, any bytes. Answer: `Progress`."""

    ceremony: int
    data: bytes


class PlainReceive(Frame, frozen=True):
    """One bare protocol message, for a plain committee only. Answer: `Progress`."""

    ceremony: int
    sender: str
    data: bytes
    broadcast: bool


class Tick(Frame, frozen=True):
    """Let time pass: repeats, acknowledgements, resends. Answer: `Progress`."""

    ceremony: int


class Reconnected(Frame, frozen=True):
    """The router was lost and is there again: ask each peer for what is missing. Answer: `Progress`."""

    ceremony: int


class FinishKeygen(Frame, frozen=True):
    """Seal the share that a keygen made. Answer: `KeygenFinished`; the same row again when asked again."""

    ceremony: int


class FinishSigning(Frame, frozen=True):
    """Fetch the signature. Answer: `SigningFinished`."""

    ceremony: int


class Confirm(Frame, frozen=True):
    """Sign and send our confirmation, in state `result`. Answer: `Progress`.

    For a keygen the row must have been stored, durably.
    """

    ceremony: int


class ConfirmRow(Frame, frozen=True):
    """After a restart: open a pending row, check it and sign its confirmation again. Answer: `Statement`."""

    row: ShareRow


class CheckConfirmations(Frame, frozen=True):
    """Which of these statements confirm this row, and which say that it never will be. Answer: `ConfirmedBy`."""

    row: ShareRow
    confirmations: tuple[bytes, ...]


class Abort(Frame, frozen=True):
    """End a ceremony and wipe it; a signed notice goes to the peers. Answer: `Progress`, its last."""

    ceremony: int
    reason: str


class AbortUnknown(Frame, frozen=True):
    """A signed notice for a session that was under way before a restart. Answer: `Statement`."""

    session: bytes
    party_id: str
    seat: int
    reason: str


class Forget(Frame, frozen=True):
    """Wipe a ceremony without a word to anybody (after completion). Answer: `Done`."""

    ceremony: int


class OpenAndCheck(Frame, frozen=True):
    """Open a row and wipe it: the seal proves content and every field. Answer: `Done`.

    thorough: also load the share into the core, which checks every relation in it and takes milliseconds.
    """

    row: ShareRow
    thorough: bool = False


class Reseal(Frame, frozen=True):
    """Open a row and seal it under a fresh share key and the current KEK. Answer: `Resealed`."""

    row: ShareRow


class NewKekVersion(Frame, frozen=True):
    """Make the next version of the KEK; rows are then resealed one by one. Answer: `Status`."""


class Revoke(Frame, frozen=True):
    """Remember for ever that this share must not be used. Answer: `Done`."""

    share_id: str


class Prepare(Frame, frozen=True):
    """Work on a set of pre-parameters for at most `milliseconds`. Answer: `Preparing`; continued by the next call."""

    protocol: ProtocolName
    milliseconds: int


class Checkpoint(Frame, frozen=True):
    """Sign the head of the audit log together with the custodian's own chain. Answer: `Checkpointed`."""

    audit_count: int
    audit_head: bytes


class ShowCheckpoint(Frame, frozen=True):
    """Show the newest checkpoint that was signed. Answer: `Done`.

    Where the custodian's own chain is missing, shorter or another one, its state was rolled back: this and every use of
    a key is refused from then on.
    """

    checkpoint: Checkpointed


class VerifyPins(Frame, frozen=True):
    """Is this list ours, whole and not older than the newest we signed? Answer: `Pins`."""

    pins: SignedPins


class NewestPins(Frame, frozen=True):
    """Fetch the newest list that was signed: it may be newer than the one that was stored. Answer: `Pins`.

    Before the first, a list with number 0, no pins and no signature.
    """


class Succeed(Frame, frozen=True):
    """Replace a pinned identity by its signed successor (docs/channel.md). Answer: `Pins`."""

    pins: SignedPins
    statement: bytes


# Operator's requests: refused unless the custodian was started with --operator, on a terminal, for one command.


class InitToken(Frame, frozen=True):
    """Make KEK, identity and backup key on the token. Answer: `Status`."""


class Doctor(Frame, frozen=True):
    """Run the conformance checks. Answer: `DoctorReport`."""


class EditPins(Frame, frozen=True):
    """Add, replace or remove one pin and sign the list with the next number. Answer: `Pins`."""

    pins: SignedPins | None
    action: Literal["add", "replace", "remove"]
    node: str
    identity: bytes | None
    patterns: tuple[str, ...]


class RenewPins(Frame, frozen=True):
    """Sign the list of pins anew after our own identity key has changed. Answer: `Pins`.

    Signed is the newest list that an earlier identity key of ours signed; with `empty`, one without pins, whatever
    became of the newest. Where the present key signed the newest list already, that list is the answer.
    """

    empty: bool


class SignSuccession(Frame, frozen=True):
    """State, signed by the present identity key, that another identity key succeeds it. Answer: `Statement`."""

    successor: bytes


Request = (
    GetStatus
    | BeginKeygen
    | BeginSigning
    | Receive
    | PlainReceive
    | Tick
    | Reconnected
    | FinishKeygen
    | FinishSigning
    | Confirm
    | ConfirmRow
    | CheckConfirmations
    | Abort
    | AbortUnknown
    | Forget
    | OpenAndCheck
    | Reseal
    | NewKekVersion
    | Revoke
    | Prepare
    | Checkpoint
    | ShowCheckpoint
    | VerifyPins
    | NewestPins
    | Succeed
    | InitToken
    | Doctor
    | EditPins
    | RenewPins
    | SignSuccession
)


# ---- Answers ----


class Done(Frame, frozen=True):
    """Nothing to tell but that it is done."""


class Status(Frame, frozen=True):
    """State of the secret side."""

    state: Literal["ready", "starting", "locked", "credential", "token"]
    reason: str
    """What is wrong and what to do next, in the operator's words; empty when ready."""
    token_label: str
    token_serial: str
    token_model: str
    tier: Literal["A", "A, open to the PIN", ""]
    """What the doctor says of such a token when it finds no fault; empty while the token is away."""
    kek_version: int
    identity: bytes
    """Our identity key, 33 bytes; empty while the token is away."""
    earlier_identities: tuple[bytes, ...]
    """Those before it, in their order."""
    pins_number: int
    pins_problem: str
    """Why no sealed ceremony can begin with the newest list of pins, and what to do; empty where one can."""
    chain_count: int
    chain_head: bytes
    chain_problem: str
    """Why every use of a key is refused, and what to do: the custodian's own memory was put back to an earlier day, or
    cannot be written. Empty where it is well."""
    ceremonies: int
    arena_used: int
    arena_size: int
    hsm_operations: int
    hsm_errors: int
    plain_committees: int


class Begun(Frame, frozen=True):
    """A ceremony is open. ceremony: its number until it is forgotten."""

    ceremony: int
    frames: tuple[OutFrame, ...]
    plain: tuple[PlainMessage, ...]


class PlainMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One bare protocol message of a plain committee. to: a party id, or None for everybody."""

    to: str | None
    round: int
    data: bytes
    broadcast: bool


class Progress(Frame, frozen=True):
    """Where a ceremony stands, and what is to be sent.

    state: hello (waiting for the peers' hellos), running, result (Finish*, store, then Confirm), confirming, complete,
    failed. A plain committee knows neither hello nor confirming: after result, `Confirm` makes it complete.
    """

    state: Literal["hello", "running", "result", "confirming", "complete", "failed"]
    round: int
    rounds: int
    steps: int
    """Counts protocol progress only: what the stall clock watches."""
    waits_for: tuple[str, ...]
    frames: tuple[OutFrame, ...]
    plain: tuple[PlainMessage, ...]
    confirmations: tuple[bytes, ...]
    """All statements held so far, ours included."""
    drops: int
    """Frames that the channel has dropped."""
    aborts_ignored: int
    """Among them, signed abort notices of seats that had confirmed before: either word is a lie."""
    fault: FaultReport | None


class KeygenFinished(Frame, frozen=True):
    """The sealed share, to be stored as pending before `Confirm`."""

    row: ShareRow
    fingerprints: tuple[bytes, ...]


class SigningFinished(Frame, frozen=True):
    """signature: r||s, 64 bytes, low s, verified; recovery_id: 0..3."""

    signature: bytes
    recovery_id: int
    public_key: bytes


class Statement(Frame, frozen=True):
    """A signed statement in the form the peers take it."""

    data: bytes


class ConfirmedBy(Frame, frozen=True):
    """Party ids whose confirmation holds for the row, and those still missing.

    withdrawn: of the missing, those that have signed an abort notice: they will never confirm.
    """

    confirmed: tuple[str, ...]
    missing: tuple[str, ...]
    withdrawn: tuple[str, ...]


class Resealed(Frame, frozen=True):
    """The same share under the current KEK."""

    row: ShareRow


class Preparing(Frame, frozen=True):
    """Progress of the search; prepared is set when it is found."""

    permille: int
    prepared: PreparedRow | None


class Checkpointed(Frame, frozen=True):
    """signature (64 bytes) by the identity key over audit head and chain head, as docs/channel.md says."""

    audit_count: int
    audit_head: bytes
    chain_count: int
    chain_head: bytes
    identity: bytes
    signature: bytes


class Pin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One pinned node. patterns: party ids, in which only `*` is special."""

    node: str
    identity: bytes
    patterns: tuple[str, ...]


class Pins(Frame, frozen=True):
    """A verified (or newly signed) list."""

    number: int
    pins: tuple[Pin, ...]
    signed: SignedPins


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One conformance check. proves: what passing shows, in a sentence. detail: what was seen."""

    name: str
    outcome: Literal["passed", "weak", "failed", "skipped"]
    proves: str
    detail: str


class DoctorReport(Frame, frozen=True):
    """All checks and the tier they allow."""

    tier: Literal["A", "A, open to the PIN", "none"]
    verdict: str
    checks: tuple[Check, ...]


class Failure(Frame, frozen=True):
    """The request was not carried out. message: what went wrong and what to do next, without secrets."""

    kind: FailureKind
    message: str
    field: str
    """The argument or row field it is about; may be empty."""


Answer = (
    Done
    | Status
    | Begun
    | Progress
    | KeygenFinished
    | SigningFinished
    | Statement
    | ConfirmedBy
    | Resealed
    | Preparing
    | Checkpointed
    | Pins
    | DoctorReport
    | Failure
)


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A numbered request. now_ms: tssd's monotonic clock, for the channel's timers."""

    number: int
    now_ms: int
    request: Request


class Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The answer to the call of the same number."""

    number: int
    answer: Answer


class Broken(Exception):
    """What arrived is no frame of ours: the connection is of no further use."""


# A string that is not UTF-8 comes as a ValueError of its own.
_UNREADABLE: Final = (msgspec.DecodeError, ValueError, RecursionError)
_encoder: Final = msgspec.msgpack.Encoder()
_calls: Final = msgspec.msgpack.Decoder(Call)
_replies: Final = msgspec.msgpack.Decoder(Reply)


def encode(value: Call | Reply) -> bytes:
    """Length and value, ready to be written.

    Raises:
        Broken: It is longer than CALL_MAX or REPLY_MAX.
    """
    body = _encoder.encode(value)
    if len(body) > (CALL_MAX if isinstance(value, Call) else REPLY_MAX):
        raise Broken(f"a frame of {len(body)} bytes")
    return len(body).to_bytes(HEADER_LENGTH, "big") + body


def body_length(header: bytes, limit: int) -> int:
    """How many bytes follow a header of `HEADER_LENGTH` bytes.

    Raises:
        Broken: More than limit (CALL_MAX or REPLY_MAX), or none.
    """
    length = int.from_bytes(header, "big")
    if not 0 < length <= limit:
        raise Broken(f"a frame of {length} bytes")
    return length


def decode_call(body: bytes) -> Call:
    """Read one body that came from tssd.

    Raises:
        Broken: It is not exactly one call.
    """
    try:
        return _calls.decode(body)
    except _UNREADABLE:
        raise Broken("not a call") from None  # the decoder's message would quote what came


def decode_reply(body: bytes) -> Reply:
    """Read one body that came from the custodian.

    Raises:
        Broken: It is not exactly one reply.
    """
    try:
        return _replies.decode(body)
    except _UNREADABLE:
        raise Broken("not a reply") from None
