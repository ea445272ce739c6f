"""Our seat in a ceremony: what it may do, the keys it opens for that, and what it makes.

A seat is checked when it is taken, and opens nothing then. `begin` comes when all parties have agreed on the ceremony:
it records the use in the chain, opens what is sealed, hands it to the core and wipes it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from daemon.custody import confirmations, pins, rows
from daemon.custody.refusal import Refusal
from daemon.custody.state import Use
from daemon.custody.wire import KeygenFinished, Seat, ShareRow
from tss_cffi import KeygenParty, Protocol, Share, SigningParty, prepared_fingerprints

if TYPE_CHECKING:
    from daemon.custody.policy import CustodianPolicy
    from daemon.custody.state import State
    from daemon.custody.vault import Vault
    from daemon.custody.wire import BeginKeygen, BeginSigning, SignedPins
    from tss_cffi import SecretBytes

BINDS_SESSION: Final = frozenset({Protocol.GG18_V3})
"""Protocols that take a value of the ceremony, the transcript, into their proofs."""


@dataclass(frozen=True)
class Ground:
    """What every request stands on."""

    policy: CustodianPolicy
    state: State
    vault: Vault
    book: pins.PinBook

    def check_party(self, party_id: str) -> None:
        """Refuse a party id that is not ours."""
        if party_id not in self.policy.party_ids:
            raise Refusal("refused", f"{party_id} is not one of custodian.party_ids", "party_id")

    def check_current(self, row: ShareRow) -> None:
        """Refuse a share that was put back in the place of a newer one of the same key."""
        newest = self.state.newest_generation(row.party_id, row.public_key)
        if row.generation < newest:
            raise Refusal(
                "refused",
                f"this is generation {row.generation} of the share; generation {newest} was confirmed by all",
                "row.generation",
            )

    def identities(self, committee: tuple[Seat, ...], party_id: str, signed: SignedPins | None) -> dict[int, bytes]:
        """Identity key of each seat: ours from the HSM, the others' from the list of pins. Raises Refusal."""
        if signed is None:
            raise Refusal("refused", "a sealed ceremony needs the list of pinned peers", "pins")
        own = self.vault.identity()
        shown = self.book.check(signed, own)
        self.state.see_pins(shown.number)
        identities = {
            member.seat: own if member.party_id == party_id else pins.identity_of(shown.pins, member.party_id)
            for member in committee
        }
        if len(set(identities.values())) != len(identities):
            raise Refusal("refused", "one node would have two seats in this ceremony", "committee")
        return identities


class KeygenSeat:
    """A seat in a keygen."""

    def __init__(self, ground: Ground, request: BeginKeygen) -> None:
        """Check the request against policy, state and itself. Raises Refusal."""
        self.request = request
        self.party_id = request.party_id
        self.session = request.session
        self.share_id = request.share_id
        self.protocol = Protocol.of(request.protocol)
        self.channel = request.channel
        self.committee = request.committee
        self.members = rows.Members(request.committee)
        self._ground = ground
        self._result: SecretBytes | None = None
        self._finished: KeygenFinished | None = None
        ground.check_party(request.party_id)
        rows.check_session(request.session)
        rows.check_name(request.share_id, "share_id")
        rows.check_committee(request.committee, request.threshold, request.party_id)
        if ground.state.is_revoked(request.share_id):
            raise Refusal("refused", f"share {request.share_id} is revoked", "share_id")
        if request.prepared is not None:
            rows.check_prepared(request.prepared, request.protocol)
            if ground.state.is_spent(request.prepared.prepared_id):
                raise Refusal("refused", "these pre-parameters were used before", "prepared")
        if request.channel == "plain":
            listed = ground.policy.plain_committee(request.protocol, frozenset(m.party_id for m in request.committee))
            if listed is None or not listed.keygen:
                raise Refusal("refused", "custodian.plain does not allow a keygen of this committee", "channel")

    @property
    def seat(self) -> int:
        """Ours."""
        return self.members.seats[self.party_id]

    def begin(self, transcript: bytes | None) -> KeygenParty:
        """Open the pre-parameters, which are spent by this, and sit down. Raises Refusal, TssError."""
        request, ground = self.request, self._ground
        session = transcript if self.protocol in BINDS_SESSION else None
        seats = [member.seat for member in self.committee]
        use = Use(
            kind="keygen",
            at=int(time.time()),
            session=self.session,
            party_id=self.party_id,
            share_id=self.share_id,
            digest=b"",
            plain=self.channel == "plain",
        )
        if request.prepared is None:
            ground.state.append(use)
            return KeygenParty(self.protocol, self.seat, seats, request.threshold, None, session)
        header = rows.prepared_header(request.prepared.prepared_id, request.protocol, request.prepared.fingerprints)
        with ground.vault.open(rows.blob_of(request.prepared.sealed), header) as prepared:
            self._refuse_known(prepared_fingerprints(prepared))
            ground.state.spend(request.prepared.prepared_id)
            ground.state.append(use)
            return KeygenParty(self.protocol, self.seat, seats, request.threshold, prepared, session)

    def take(self, party: KeygenParty) -> bytes:
        """Take the share out of a party that is done; the digest that all parties must agree on. Again: the same."""
        if self._result is None:
            self._result = party.result()
        with Share(self._result) as share:
            self._refuse_known(share.fingerprints())
            return share.info.digest

    def finish(self, identities: dict[int, bytes], transcript: bytes, confirmation: bytes) -> KeygenFinished:
        """Seal the share that was taken; the same row again when asked again. Raises Refusal."""
        if self._finished is not None:
            return self._finished
        request = self.request
        if self._result is None:
            raise Refusal("state", "what was taken is wiped")
        with Share(self._result) as share:
            info, fingerprints = share.info, tuple(share.fingerprints())
        row = ShareRow(
            share_id=self.share_id,
            party_id=self.party_id,
            session=self.session,
            share_type=request.share_type,
            public_key=info.public_key,
            threshold=request.threshold,
            committee=self.committee,
            seat=self.seat,
            protocol=request.protocol,
            channel=self.channel,
            generation=0,
            transcript=transcript,
            identities=tuple(identities[member.seat] for member in self.committee) if identities else (),
            result_digest=info.digest,
            confirmation=confirmation,
            sealed=rows.UNSEALED,
        )
        rows.check_row(row)
        rows.check_share(row, info)
        row = rows.seal(self._ground.vault, row, self._result)
        self._finished = KeygenFinished(row=row, fingerprints=fingerprints)
        self._result.close()
        return self._finished

    def close(self) -> None:
        """Wipe what was not sealed."""
        if self._result is not None:
            self._result.close()
            self._result = None

    def _refuse_known(self, fingerprints: list[bytes]) -> None:
        if not set(fingerprints).isdisjoint(self.request.known_fingerprints):
            raise Refusal("refused", "a modulus of this keygen is used by another share", "known_fingerprints")


class SigningSeat:
    """A seat in a signing."""

    def __init__(self, ground: Ground, request: BeginSigning) -> None:
        """Check the request against policy, state and itself; the row's confirmations too. Raises Refusal."""
        row = request.row
        self.request = request
        self.row = row
        self.party_id = row.party_id
        self.session = request.session
        self.share_id = row.share_id
        self.protocol = Protocol.of(row.protocol)
        self.channel = row.channel
        self._ground = ground
        ground.check_party(row.party_id)
        rows.check_session(request.session)
        rows.check_row(row)
        ground.check_current(row)
        self.committee = tuple(member for member in row.committee if member.seat in request.signers)
        self.members = rows.Members(self.committee)
        if (
            tuple(member.seat for member in self.committee) != request.signers
            or row.seat not in request.signers
            or len(request.signers) < row.threshold
        ):
            raise Refusal("refused", "signers are at least t seats of the committee, ascending, with ours", "signers")
        if len(request.message_hash) != rows.DIGEST_BYTES:
            raise Refusal("refused", "a message hash has 32 bytes", "message_hash")
        if ground.state.is_revoked(row.share_id):
            raise Refusal("refused", f"share {row.share_id} is revoked", "share_id")
        if row.channel == "plain":
            if ground.policy.plain_committee(row.protocol, frozenset(m.party_id for m in row.committee)) is None:
                raise Refusal("refused", "custodian.plain does not list this committee", "channel")
        else:
            confirmations.require_all(row, request.confirmations)

    @property
    def seat(self) -> int:
        """Ours."""
        return self.row.seat

    def begin(self, transcript: bytes | None) -> SigningParty:
        """Open the share and sit down. Raises Refusal, TssError, and what `State.use` raises."""
        ground = self._ground
        ground.check_current(self.row)  # again: a newer one may have been confirmed since the seat was taken
        ground.state.use(
            Use(
                kind="sign",
                at=int(time.time()),
                session=self.session,
                party_id=self.party_id,
                share_id=self.share_id,
                digest=self.request.message_hash,
                plain=self.channel == "plain",
            ),
            per_minute=ground.policy.signings_per_minute,
            per_hour=ground.policy.signings_per_hour,
        )
        with rows.open_share(ground.vault, self.row, prove=False) as share:
            ground.state.succeed(self.party_id, self.row.public_key, self.row.generation)
            session = transcript if self.protocol in BINDS_SESSION else None
            return SigningParty(share, self.request.signers, self.request.message_hash, session)

    def close(self) -> None:
        """Nothing is held: the share was wiped when the party began."""
