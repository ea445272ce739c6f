"""Rows of the share store, as the custodian takes them: every field checked, every field under the seal.

What a share is sealed with (docs/sealing.md) names party, share, session, type, public key, threshold and generation,
and one digest for all else a row says, the committee digest:

    SHA-256("tssd/1/row" || 0x00 || string protocol || string channel || u32 own seat ||
            u16 n || n times {u32 seat || string party id || string identity key} ||
            string transcript || string result digest || string confirmation body)

with u32 and u16 big-endian, a string being u16 length and bytes; identity keys, transcript and confirmation are empty
strings in plain committees. Pre-parameters are sealed in their own domain, with the digest of their fingerprints in the
same place.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from typing import TYPE_CHECKING, Final

import msgspec

from daemon.custody.policy import PARTY_ID, PARTY_ID_MAX
from daemon.custody.refusal import Refusal
from daemon.custody.wire import Sealed, SealedChunk
from hsm import Chunk, DataAltered, SealedBlob, SealHeader
from tss_cffi import KeyMaterialRefused, Share

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.custody.vault import Vault
    from daemon.custody.wire import PreparedRow, Seat, ShareRow
    from tss_cffi import SecretBytes, ShareInfo

SESSION_BYTES: Final = 16
KEY_BYTES: Final = 33
DIGEST_BYTES: Final = 32
SEAT_MAX: Final = 0xFFFF
COMMITTEE_MAX: Final = 32
NAME_MAX: Final = 128
CONFIRMATION_MAX: Final = 1024


def committee_digest(row: ShareRow) -> bytes:
    """What the seal says of a row's committee and result; 32 bytes."""
    identities = row.identities or (b"",) * len(row.committee)
    parts = [
        b"tssd/1/row\0",
        _string(row.protocol.encode()),
        _string(row.channel.encode()),
        struct.pack(">IH", row.seat, len(row.committee)),
    ]
    for member, identity in zip(row.committee, identities, strict=True):
        parts += [member.seat.to_bytes(4), _string(member.party_id.encode()), _string(identity)]
    parts += [_string(row.transcript), _string(row.result_digest), _string(row.confirmation)]
    return hashlib.sha256(b"".join(parts)).digest()


def share_header(row: ShareRow) -> SealHeader:
    """What the row's share is sealed to."""
    return SealHeader(
        domain="share",
        party_id=row.party_id,
        share_id=row.share_id,
        session_id=str(uuid.UUID(bytes=row.session)),
        share_type=row.share_type,
        public_key=row.public_key,
        threshold_t=row.threshold,
        threshold_n=len(row.committee),
        committee_digest=committee_digest(row),
        generation=row.generation,
    )


def prepared_header(prepared_id: str, protocol: str, fingerprints: tuple[bytes, ...]) -> SealHeader:
    """What a set of pre-parameters is sealed to."""
    return SealHeader(
        domain="pre-params",
        party_id=protocol,
        share_id=prepared_id,
        committee_digest=hashlib.sha256(b"".join(fingerprints)).digest(),
    )


def blob_of(sealed: Sealed) -> SealedBlob:
    """The sealed part of a row as the HSM's side takes it. Raises Refusal."""
    try:
        return SealedBlob(
            format=sealed.format,
            tier=sealed.tier,
            kek_version=sealed.kek_version,
            wrapped_key=sealed.wrapped_key,
            recovery_wrapped=sealed.recovery_wrapped,
            recovery_fingerprint=sealed.recovery_fingerprint,
            chunks=tuple(Chunk(chunk.data, chunk.iv, chunk.auth_tag) for chunk in sealed.chunks),
        )
    except DataAltered as error:
        raise Refusal("altered", str(error), "sealed") from None


def sealed_of(blob: SealedBlob) -> Sealed:
    """The other way round."""
    return Sealed(
        format=blob.format,
        tier="A",
        kek_version=blob.kek_version,
        wrapped_key=blob.wrapped_key,
        recovery_wrapped=blob.recovery_wrapped,
        recovery_fingerprint=blob.recovery_fingerprint,
        chunks=tuple(SealedChunk(data=chunk.data, iv=chunk.iv, auth_tag=chunk.auth_tag) for chunk in blob.chunks),
    )


def check_row(row: ShareRow) -> None:
    """Refuse a row that no keygen of ours could have made, naming the first field that is wrong."""
    check_session(row.session)
    check_name(row.share_id, "share_id")
    check_committee(row.committee, row.threshold, row.party_id)
    for field in _odd_fields(row):
        raise Refusal("altered", f"the row's {field} cannot be", field)


def _odd_fields(row: ShareRow) -> Iterator[str]:
    sealed = row.channel == "sealed"
    if Members(row.committee).seats[row.party_id] != row.seat:
        yield "seat"
    if len(row.public_key) != KEY_BYTES:
        yield "public_key"
    if not 0 <= row.generation < 2**32:
        yield "generation"
    if len(row.result_digest) != DIGEST_BYTES:
        yield "result_digest"
    if [len(key) for key in row.identities] != [KEY_BYTES] * (len(row.committee) if sealed else 0):
        yield "identities"
    if len(row.transcript) != (DIGEST_BYTES if sealed else 0):
        yield "transcript"
    if bool(row.confirmation) != sealed or len(row.confirmation) > CONFIRMATION_MAX:
        yield "confirmation"


def check_committee(committee: tuple[Seat, ...], threshold: int, party_id: str) -> None:
    """Refuse what is no committee with party_id in it and a threshold that fits."""
    for field in _odd_terms(committee, threshold, party_id):
        raise Refusal("refused", f"the {field} cannot be", field)


def _odd_terms(committee: tuple[Seat, ...], threshold: int, party_id: str) -> Iterator[str]:
    seats = [member.seat for member in committee]
    parties = [member.party_id for member in committee]
    if not 2 <= len(committee) <= COMMITTEE_MAX:  # noqa: PLR2004  (one party is no committee)
        yield "committee"
    if seats != sorted(set(seats)) or not 1 <= seats[0] <= seats[-1] <= SEAT_MAX:
        yield "committee"
    if len(set(parties)) != len(parties):
        yield "committee"
    for party in parties:
        if len(party) > PARTY_ID_MAX or not PARTY_ID.fullmatch(party):
            yield "committee"
    if party_id not in parties:
        yield "party_id"
    if not 2 <= threshold <= len(committee):  # noqa: PLR2004  (one signer is no threshold)
        yield "threshold"


def check_session(session: bytes) -> None:
    """Refuse what is no session id."""
    if len(session) != SESSION_BYTES:
        raise Refusal("refused", "a session id has 16 bytes", "session")


def check_name(name: str, field: str) -> None:
    """Refuse an id that is empty or too long to be sealed."""
    if not 0 < len(name.encode()) <= NAME_MAX:
        raise Refusal("refused", f"{field} must have 1 to {NAME_MAX} bytes", field)


def check_share(row: ShareRow, info: ShareInfo) -> None:
    """Hold an opened share against its row. The seal binds both: a difference is a defect, or a forger with our KEK."""
    for holds, field in (
        (info.protocol.label == row.protocol, "protocol"),
        (info.threshold == row.threshold, "threshold"),
        (info.seat == row.seat, "seat"),
        (info.seats == tuple(member.seat for member in row.committee), "committee"),
        (info.public_key == row.public_key, "public_key"),
        (info.digest == row.result_digest, "result_digest"),
    ):
        if not holds:
            raise Refusal("altered", f"the share is not what its row says: {field}", field)


def check_prepared(row: PreparedRow, protocol: str) -> None:
    """Refuse pre-parameters for another protocol, or that cannot be."""
    check_name(row.prepared_id, "prepared.prepared_id")
    if row.protocol != protocol:
        raise Refusal("refused", f"pre-parameters for {row.protocol}, a keygen of {protocol}", "prepared.protocol")
    if any(len(fingerprint) != DIGEST_BYTES for fingerprint in row.fingerprints):
        raise Refusal("altered", "a fingerprint has 32 bytes", "prepared.fingerprints")


class Members:
    """Party ids and seats of a committee, each by the other.

    Attributes:
        seats: By party id.
        parties: By seat.
    """

    def __init__(self, committee: tuple[Seat, ...]) -> None:
        self.seats = {member.party_id: member.seat for member in committee}
        self.parties = {member.seat: member.party_id for member in committee}

    def named(self, seats: tuple[int, ...]) -> tuple[str, ...]:
        """Party ids of several seats."""
        return tuple(self.parties[seat] for seat in seats)


def seal(vault: Vault, row: ShareRow, share: SecretBytes) -> ShareRow:
    """The row with a share sealed to all it says. Raises Refusal."""
    return msgspec.structs.replace(row, sealed=sealed_of(vault.seal(share, share_header(row))))


def open_bytes(vault: Vault, row: ShareRow) -> SecretBytes:
    """Open the share of a row that `check_row` has passed; for the caller to wipe. Raises Refusal."""
    return vault.open(blob_of(row.sealed), share_header(row))


def open_share(vault: Vault, row: ShareRow, *, prove: bool = True) -> Share:
    """Open, load and check the share of a row that `check_row` has passed against all it says. Raises Refusal.

    Nothing is sealed as a share but bytes that were proven, and what opens under the row's header is those bytes: to
    sign with them they need not be proven again.
    """
    with open_bytes(vault, row) as secret:
        try:
            share = Share(secret, prove=prove)
        except KeyMaterialRefused as error:
            raise Refusal("altered", f"the share does not load: {error.field}", error.field) from None
    try:
        check_share(row, share.info)
    except Refusal:
        share.close()
        raise
    return share


UNSEALED: Final = Sealed(
    format=0,
    tier="A",
    kek_version=0,
    wrapped_key=b"",
    recovery_wrapped=None,
    recovery_fingerprint=None,
    chunks=(),
)
"""Stands in a row until `seal`."""


def _string(content: bytes) -> bytes:
    return len(content).to_bytes(2) + content
