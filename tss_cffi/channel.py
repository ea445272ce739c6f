"""One seat's end of the sealed channel between the parties of a ceremony (docs/channel.md).

Sans-IO: give it frames and the time, ask it for frames, look at its state. It steps the party itself, so that no
protocol message is ever a Python object. Identity keys live in an HSM: the channel hands out digests and takes
signatures.

```python
with Channel(ceremony, identities) as channel:
    channel.start(sign(channel.hello_digest))
    ...                                             # receive, tick, outgoing, until AGREED
    channel.attach(party, now_ms)                   # ... until RESULT
    channel.confirm(sign(channel.confirmation_digest(digest_of_the_share, now_ms)), now_ms)
    ...                                             # ... until COMPLETE
```
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, NoReturn, Self

from ._core import ffi, lib
from .errors import Misuse, Status, TssError, check
from .party import Signature
from .share import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .party import Party

CeremonyKind = Literal["keygen", "sign", "rotate"]
_KINDS: Final[tuple[CeremonyKind, ...]] = ("keygen", "sign", "rotate")

_PARTIES_MAX: Final = 32
_SESSION_BYTES: Final = 16
_KEY_BYTES: Final = 33
_DIGEST_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64
_ABORT_BODY_ROOM: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceremony:
    """What all parties must agree on, and who we are.

    session: 16 bytes. committee: (seat, party id) of those who take part, ascending by seat, 2 to 32. threshold: t,
    that many sign. public_key: the group's, 33 bytes, in a signing and a rotation. digest: what is signed, 32 bytes, in
    a signing. generation: of the share; 0 at keygen.
    """

    kind: CeremonyKind
    session: bytes
    protocol: Protocol
    committee: tuple[tuple[int, str], ...]
    threshold: int
    own_seat: int
    public_key: bytes | None = None
    digest: bytes | None = None
    generation: int = 0


class ChannelState(IntEnum):
    """Where a channel stands; tss_channel.h tells what is to be done in each."""

    HELLO = 1
    AGREED = 2
    RUNNING = 3
    RESULT = 4
    CONFIRMING = 5
    COMPLETE = 6
    FAILED = 7


_STATES: Final[dict[int, ChannelState]] = {int(state): state for state in ChannelState}
"""By number."""


class Frame(NamedTuple):
    """Bytes for the network. to: a seat, or None for everybody. round: a hint for the router."""

    to: int | None
    round: int
    data: bytes


class ChannelFault(NamedTuple):
    """Why a channel failed, or what contradicts it after our confirmation.

    reason: a stable name, such as "echo-differs"; of a failed party it is "party". by: the seat whose message showed it
    (no accusation), or None. culprits: seats, empty where nobody can be named. hearsay: seats that a peer's notice
    accuses without proof. evidence: the signed statements that convict or contradict.
    """

    reason: str
    by: int | None
    culprits: tuple[int, ...]
    hearsay: tuple[int, ...]
    detail: str
    evidence: tuple[bytes, ...]


class Progress(NamedTuple):
    """How far it is.

    round: whose messages are awaited; 0 before the party. steps: grows with protocol progress alone. waits_for: seats.
    """

    round: int
    rounds: int
    steps: int
    waits_for: tuple[int, ...]


class SignatureRefused(TssError):
    """Not our identity key's signature over the digest, or its s is high. Nothing changed."""


class ConfirmationContradicted(TssError):
    """A peer has confirmed another result already; the channel has failed, and our share must not be confirmed."""


class Channel:
    """Our end of the channel of one ceremony. `close` wipes its keys, at any time."""

    _handle: Any

    def __init__(self, ceremony: Ceremony, identities: dict[int, bytes]) -> None:
        """Make our end, with fresh ephemeral keys.

        Args:
            ceremony: What we were asked to take part in.
            identities: Pinned identity key of every seat, ours too: P-256, compressed, 33 bytes.

        Raises:
            Misuse: The ceremony contradicts itself; the field is named.
            ArenaFull: No room for the keys.
        """
        self._handle = None
        self._frame = ffi.new("tss_frame *")
        self._party: Party | None = None
        self._signing = ceremony.kind == "sign"
        self._seats = tuple(seat for seat, _ in ceremony.committee)
        slot = ffi.new("tss_channel **")
        check(lib.tss_channel_new(slot, _ceremony(ceremony, identities)))
        self._handle = slot[0]

    @property
    def handle(self) -> Any:  # noqa: ANN401 - cffi pointers have no type
        """The C object; ValueError once closed, or when the attached party was closed while it was needed."""
        if self._handle is None:
            raise ValueError("this channel was closed already")
        if self._party is not None and self._party.closed and self.state is ChannelState.RUNNING:
            _ = self._party.handle
        return self._handle

    @property
    def hello_digest(self) -> bytes:
        """32 bytes for our identity key to sign."""
        digest = ffi.new("uint8_t[32]")
        lib.tss_channel_hello_digest(self.handle, digest)
        return bytes(ffi.buffer(digest))

    def start(self, signature: bytes) -> None:
        """Send our hello.

        Args:
            signature: Over `hello_digest`: r||s, 64 bytes, low s.

        Raises:
            SignatureRefused: Not ours, or high s.
            Misuse: Started already, or not 64 bytes.
        """
        _check_signature(lib.tss_channel_start(self.handle, _sized(signature, _SIGNATURE_BYTES, "signature64")))

    def receive(self, data: bytes, now_ms: int) -> ChannelState:
        """Take one frame from the network: any bytes. What is not genuine is dropped and counted, never raised.

        May compute rounds of the party. now_ms: milliseconds of a clock that never goes back. Where it stands then.
        """
        check(lib.tss_channel_receive(self.handle, data, len(data), now_ms))
        return self.state

    def tick(self, now_ms: int) -> None:
        """Let time pass: call it every 250 ms or so, also when nothing came."""
        lib.tss_channel_tick(self.handle, now_ms)

    def connected(self, now_ms: int) -> None:
        """The way to the peers was lost and is there again."""
        lib.tss_channel_connected(self.handle, now_ms)

    def outgoing(self) -> list[Frame]:
        """All frames to send now, each given once; what gets lost is sent again when a peer asks."""
        frames: list[Frame] = []
        frame, handle = self._frame, self.handle
        while check(lib.tss_channel_outgoing(handle, frame)) is Status.OK:
            frames.append(Frame(frame.to or None, frame.round, ffi.buffer(frame.data, frame.data_len)[:]))
        return frames

    @property
    def state(self) -> ChannelState:
        """Where it stands."""
        if self._handle is None:
            raise ValueError("this channel was closed already")
        state = _STATES[lib.tss_channel_state_of(self._handle)]
        if state is not ChannelState.RUNNING:
            self._party = None  # it has let go of it
        return state

    @property
    def transcript(self) -> bytes:
        """T, 32 bytes, unique to this ceremony and equal at all parties. Misuse before AGREED."""
        transcript = ffi.new("uint8_t[32]")
        if check(lib.tss_channel_transcript(self.handle, transcript)) is Status.NOTHING:
            raise Misuse("transcript")
        return bytes(ffi.buffer(transcript))

    def attach(self, party: Party, now_ms: int) -> None:
        """In AGREED: give the channel its party, fresh; only the channel steps it from now on. Misuse elsewhere.

        Keep the party open until the channel has left RUNNING.
        """
        check(lib.tss_channel_attach(self.handle, party.handle, now_ms))
        self._party = party

    def confirmation_digest(self, result_digest: bytes | None, now_ms: int) -> bytes:
        """In RESULT: what our identity key signs to confirm the result.

        Args:
            result_digest: `ShareInfo.digest` of the new share; None in a signing, which confirms its signature.
            now_ms: As in `receive`.

        Raises:
            ConfirmationContradicted: A peer has confirmed another result.
            Misuse: Not in RESULT, or result_digest is missing or superfluous.
        """
        digest = ffi.new("uint8_t[32]")
        result = ffi.NULL if result_digest is None else _sized(result_digest, _DIGEST_BYTES, "result32")
        if check(lib.tss_channel_confirmation_digest(self.handle, digest, result, now_ms)) is Status.FAULT:
            raise ConfirmationContradicted("a peer confirms another result; this one must not be used")
        return bytes(ffi.buffer(digest))

    def confirmation_body(self) -> bytes:
        """The statement without its signature, to be kept with a pending share. Misuse before `confirmation_digest`."""
        body = ffi.new("uint8_t **")
        length = ffi.new("size_t *")
        if check(lib.tss_channel_confirmation_body(self.handle, body, length)) is Status.NOTHING:
            raise Misuse("confirmation_body")
        return bytes(ffi.buffer(body[0], length[0]))

    def confirm(self, signature: bytes, now_ms: int) -> None:
        """Send our confirmation; from here on this party cannot abort.

        Raises:
            SignatureRefused: Not our identity's signature over `confirmation_digest`, or high s.
            Misuse: Not after `confirmation_digest`.
        """
        sized = _sized(signature, _SIGNATURE_BYTES, "signature64")
        _check_signature(lib.tss_channel_confirm(self.handle, sized, now_ms))

    def confirmations(self) -> dict[int, bytes]:
        """The statements held so far that agree with ours, signature included, by seat."""
        statements: dict[int, bytes] = {}
        statement = ffi.new("uint8_t **")
        length = ffi.new("size_t *")
        for seat in self._seats:
            if check(lib.tss_channel_confirmation(self.handle, statement, length, seat)) is Status.OK:
                statements[seat] = bytes(ffi.buffer(statement[0], length[0]))
        return statements

    def signature(self) -> Signature | None:
        """In a signing: the signature, ours or one that a peer confirmed; verified."""
        rs = ffi.new("uint8_t[64]")
        recovery_id = ffi.new("uint8_t *")
        if check(lib.tss_channel_signature(self.handle, rs, recovery_id)) is Status.NOTHING:
            return None
        return Signature(bytes(ffi.buffer(rs)), recovery_id[0])

    def abort(self, reason: str) -> bytes:
        """End the ceremony; the digest that our identity key signs to tell the peers.

        Args:
            reason: 1 to 64 of [a-z0-9-], for the peers' operators.

        Raises:
            Misuse: After `confirm`, in COMPLETE, or the reason is malformed.
        """
        digest = ffi.new("uint8_t[32]")
        check(lib.tss_channel_abort(self.handle, digest, reason.encode("ascii", "replace")))
        return bytes(ffi.buffer(digest))

    def abort_signed(self, signature: bytes) -> None:
        """Send the notice. Raises SignatureRefused, Misuse (no `abort` before)."""
        _check_signature(lib.tss_channel_abort_signed(self.handle, _sized(signature, _SIGNATURE_BYTES, "signature64")))

    def fault(self) -> ChannelFault | None:
        """What is wrong, if anything. Where it names nobody, evidence that arrives later may still do so."""
        fault = ffi.new("tss_channel_fault *")
        lib.tss_channel_fault_of(self.handle, fault)
        if fault.reason == 0:
            return None
        return ChannelFault(
            reason=_text(lib.tss_channel_reason_name(fault.reason)),
            by=fault.by or None,
            culprits=tuple(fault.culprits[0 : fault.culprits_len]),
            hearsay=tuple(fault.hearsay[0 : fault.hearsay_len]),
            detail=_text(fault.detail),
            evidence=tuple(
                bytes(ffi.buffer(fault.evidence[i], fault.evidence_len[i])) for i in range(2) if fault.evidence_len[i]
            ),
        )

    def drops(self) -> dict[str, int]:
        """How many frames were dropped, by cause; only causes that occurred."""
        counts = ffi.new("uint64_t[]", lib.TSS_DROPS)
        lib.tss_channel_drops(self.handle, counts)
        return {_text(lib.tss_channel_drop_name(cause)): count for cause, count in enumerate(counts) if count}

    def progress(self) -> Progress:
        """How far it is, and whom it waits for."""
        progress = ffi.new("tss_progress *")
        lib.tss_channel_progress(self.handle, progress)
        return Progress(
            progress.round, progress.rounds, progress.steps, tuple(progress.waits_for[0 : progress.waits_for_len])
        )

    def close(self) -> None:
        """Wipe and release; harmless when done already. The party is not closed."""
        handle, self._handle = self._handle, None
        self._party = None
        if handle is not None:
            lib.tss_channel_free(handle)

    def __reduce__(self) -> NoReturn:
        raise TypeError("secrets do not leave the process")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()


# ---- Statements, without a channel ----


class Claims(NamedTuple):
    """What a frame says it is, unverified: for finding its channel."""

    session: bytes
    sender: int


class Confirmation(NamedTuple):
    """What a confirmation states. result: a share's digest, 32 bytes, or a signature, 64 bytes."""

    kind: CeremonyKind
    protocol: Protocol
    session: bytes
    seat: int
    generation: int
    committee: bytes
    transcript: bytes
    echo: bytes
    result: bytes


class AbortNotice(NamedTuple):
    """What an abort notice states. culprits: hearsay."""

    session: bytes
    seat: int
    party_id: str
    reason: str
    culprits: tuple[int, ...]


def frame_claims(data: bytes) -> Claims | None:
    """Session and sender that a frame claims; None where it is no frame of ours."""
    kind = ffi.new("tss_frame_kind *")
    session = ffi.new("uint8_t[16]")
    sender = ffi.new("uint32_t *")
    if lib.tss_frame_claims(kind, session, sender, ffi.from_buffer(data), len(data)) != Status.OK:
        return None
    return Claims(bytes(ffi.buffer(session)), sender[0])


def identity_verify(identity: bytes, digest: bytes, signature: bytes) -> bool:
    """Does an identity key (33 bytes) sign a digest (32 bytes) in the one form that counts: r||s, low s?"""
    status = lib.tss_identity_verify(
        _sized(identity, _KEY_BYTES, "identity33"),
        _sized(digest, _DIGEST_BYTES, "digest32"),
        _sized(signature, _SIGNATURE_BYTES, "signature64"),
    )
    return bool(status == Status.OK)


def committee_digest(committee: tuple[tuple[int, str], ...], threshold: int, identities: dict[int, bytes]) -> bytes:
    """The committee (seats and party ids) and its threshold, as confirmations state them: 32 bytes. Raises Misuse."""
    digest = ffi.new("uint8_t[32]")
    struct = ffi.new("tss_ceremony *", {"threshold": threshold})
    _fill_members(struct, committee, identities)
    check(lib.tss_committee_digest(digest, struct))
    return bytes(ffi.buffer(digest))


def read_confirmation(data: bytes, identity: bytes | None) -> Confirmation:
    """Read a statement, or a body.

    Args:
        data: The statement with its signature; without it where identity is None.
        identity: Who must have signed it, 33 bytes.

    Raises:
        KeyMaterialRefused: Malformed, or not signed by that key.
    """
    confirmation = ffi.new("tss_confirmation *")
    key = ffi.NULL if identity is None else ffi.from_buffer(_sized(identity, _KEY_BYTES, "identity33"))
    check(lib.tss_confirmation_read(confirmation, ffi.from_buffer(data), len(data), key))
    return Confirmation(
        kind=_KINDS[confirmation.kind - 1],
        protocol=Protocol(confirmation.protocol),
        session=bytes(ffi.buffer(confirmation.session16)),
        seat=confirmation.seat,
        generation=confirmation.generation,
        committee=bytes(ffi.buffer(confirmation.committee32)),
        transcript=bytes(ffi.buffer(confirmation.transcript32)),
        echo=bytes(ffi.buffer(confirmation.echo32)),
        result=bytes(ffi.buffer(confirmation.result, confirmation.result_len)),
    )


def confirmation_digest(body: bytes) -> bytes:
    """What our identity key signs to confirm a body that was kept; body + signature is the statement.

    Raises:
        KeyMaterialRefused: No body of a confirmation.
    """
    digest = ffi.new("uint8_t[32]")
    check(lib.tss_confirmation_digest(digest, ffi.from_buffer(body), len(body)))
    return bytes(ffi.buffer(digest))


def confirmed_by(body: bytes, statements: Iterable[bytes], identities: dict[int, bytes]) -> frozenset[int]:
    """Which seats confirm what body states; a set is complete when they are all of `identities`.

    Args:
        body: Our own confirmation, without signature.
        statements: Whatever was handed in as confirmations, by anybody.
        identities: Identity key of every seat as it was at that ceremony.

    Raises:
        KeyMaterialRefused: body is no body of a confirmation.
    """
    own = read_confirmation(body, None)
    confirmed: set[int] = set()
    for statement in statements:
        claims = frame_claims(statement)
        if claims is None or claims.sender not in identities:
            continue
        try:
            stated = read_confirmation(statement, identities[claims.sender])
        except TssError:
            continue
        if stated == own._replace(seat=stated.seat):
            confirmed.add(stated.seat)
    return frozenset(confirmed)


def abort_notice(notice: AbortNotice) -> tuple[bytes, bytes]:
    """For a session that has no channel any more: the notice's body, and the digest that our identity key signs.

    body + signature is the notice. Raises Misuse: a field is malformed.
    """
    struct = ffi.new("tss_abort *")
    struct.seat = notice.seat
    struct.culprits_len = len(notice.culprits)
    if len(notice.culprits) > _PARTIES_MAX:
        raise Misuse("abort.culprits_len")
    ffi.memmove(struct.session16, _sized(notice.session, _SESSION_BYTES, "session16"), _SESSION_BYTES)
    _put_text(struct.party_id, notice.party_id, "abort.party_id")
    _put_text(struct.reason, notice.reason, "abort.reason")
    for place, seat in enumerate(sorted(notice.culprits)):
        struct.culprits[place] = seat
    body = ffi.new("uint8_t[]", _ABORT_BODY_ROOM)
    length = ffi.new("size_t *", _ABORT_BODY_ROOM)
    digest = ffi.new("uint8_t[32]")
    check(lib.tss_abort_body(body, length, digest, struct))
    return bytes(ffi.buffer(body, length[0])), bytes(ffi.buffer(digest))


def read_abort(notice: bytes, identity: bytes) -> AbortNotice:
    """Read a notice that identity (33 bytes) must have signed. Raises KeyMaterialRefused."""
    struct = ffi.new("tss_abort *")
    key = _sized(identity, _KEY_BYTES, "identity33")
    check(lib.tss_abort_read(struct, ffi.from_buffer(notice), len(notice), key))
    return AbortNotice(
        session=bytes(ffi.buffer(struct.session16)),
        seat=struct.seat,
        party_id=_text(struct.party_id),
        reason=_text(struct.reason),
        culprits=tuple(struct.culprits[0 : struct.culprits_len]),
    )


def libcrypto_locked() -> bool:
    """Whether what libcrypto allocates for our keys lies in the arena too (docs/channel.md, "Keys in memory").

    False where libcrypto was in use before this package was imported: import it first.
    """
    return bool(lib.tss_channel_libcrypto_locked())


def _ceremony(ceremony: Ceremony, identities: dict[int, bytes]) -> Any:  # noqa: ANN401 - cffi structs have no type
    if ceremony.kind not in _KINDS:
        raise Misuse("ceremony.kind")
    struct = ffi.new("tss_ceremony *")
    struct.kind = _KINDS.index(ceremony.kind) + 1
    struct.protocol = ceremony.protocol
    struct.seat = ceremony.own_seat
    struct.threshold = ceremony.threshold
    struct.generation = ceremony.generation
    ffi.memmove(struct.session16, _sized(ceremony.session, _SESSION_BYTES, "ceremony.session16"), _SESSION_BYTES)
    _fill_members(struct, ceremony.committee, identities)
    if ceremony.public_key is not None:
        struct.has_public = 1
        ffi.memmove(struct.public33, _sized(ceremony.public_key, _KEY_BYTES, "ceremony.public33"), _KEY_BYTES)
    if ceremony.digest is not None:
        struct.has_digest = 1
        ffi.memmove(struct.digest32, _sized(ceremony.digest, _DIGEST_BYTES, "ceremony.digest32"), _DIGEST_BYTES)
    return struct


def _fill_members(
    struct: Any,  # noqa: ANN401 - cffi structs have no type
    committee: tuple[tuple[int, str], ...],
    identities: dict[int, bytes],
) -> None:
    if len(committee) > _PARTIES_MAX:
        raise Misuse("ceremony.members_len")
    if {seat for seat, _ in committee} != set(identities):
        raise Misuse("identities")
    struct.members_len = len(committee)
    for place, (seat, party_id) in enumerate(committee):
        member = struct.members[place]
        member.seat = seat
        _put_text(member.party_id, party_id, "ceremony.members.party_id")
        identity = _sized(identities[seat], _KEY_BYTES, "ceremony.members.identity33")
        ffi.memmove(member.identity33, identity, _KEY_BYTES)


def _put_text(field: Any, text: str, argument: str) -> None:  # noqa: ANN401 - cffi arrays have no type
    encoded = text.encode("ascii", "replace")
    if len(encoded) >= len(field):
        raise Misuse(argument)
    ffi.memmove(field, encoded + b"\0", len(encoded) + 1)


def _sized(value: bytes, length: int, argument: str) -> bytes:
    if len(value) != length:
        raise Misuse(argument)
    return value


def _text(pointer: Any) -> str:  # noqa: ANN401 - cffi pointers have no type
    return str(ffi.string(pointer), "ascii")


def _check_signature(status: int) -> None:
    if status == Status.REFUSED:
        raise SignatureRefused("not our identity's signature over the digest, or its s is high")
    check(status)
