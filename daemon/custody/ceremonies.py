"""A ceremony on the secret side: a seat, and how it talks to the peers.

`SealedCeremony` talks through the peer channel: what it takes and gives are sealed frames, and protocol messages in
clear never leave the core. `PlainCeremony` carries bare protocol messages, for the committees that the policy lists.
Both are for one thread at a time.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from daemon.custody.refusal import Refusal, refusal_of
from daemon.custody.seats import KeygenSeat, SigningSeat
from daemon.custody.wire import FaultReport, OutFrame, PlainMessage, Progress, SigningFinished
from tss_cffi import KeygenParty, MessageClass, PartyFinal, PartyState, PeerFault, SigningParty, Stranger, TssError
from tss_cffi import channel as peer

if TYPE_CHECKING:
    from typing import Literal

    from daemon.custody.seats import Ground
    from daemon.custody.wire import KeygenFinished
    from tss_cffi import Fault, Party

STATE_NAMES: Final[
    dict[peer.ChannelState, Literal["hello", "running", "result", "confirming", "complete", "failed"]]
] = {
    peer.ChannelState.HELLO: "hello",
    peer.ChannelState.AGREED: "hello",
    peer.ChannelState.RUNNING: "running",
    peer.ChannelState.RESULT: "result",
    peer.ChannelState.CONFIRMING: "confirming",
    peer.ChannelState.COMPLETE: "complete",
    peer.ChannelState.FAILED: "failed",
}
REASONS: Final = {
    "refused": "refused",
    "altered": "share-altered",
    "credential": "hsm-unavailable",
    "locked": "hsm-unavailable",
    "token": "hsm-unavailable",
    "busy": "busy",
    "rate": "rate-limit",
}
"""What peers are told when a refusal ends a ceremony; anything else is `internal`."""


HELLO_KIND: Final = 1
HELLO_PARTY: Final = 24
"""Where in a hello the sender's party id stands, a string; its identity key is next (docs/channel.md, 3)."""
KEY_BYTES: Final = 33
SIGNATURE_BYTES: Final = 64


def stated_identity(frame: bytes) -> tuple[bytes, int, bytes] | None:
    """Session, seat and identity key that a hello states; None for anything else. For `signs_hello` to verify."""
    claims = peer.frame_claims(frame)
    if claims is None or frame[1] != HELLO_KIND or len(frame) < HELLO_PARTY + 2 + SIGNATURE_BYTES:
        return None
    at = HELLO_PARTY + 2 + int.from_bytes(frame[HELLO_PARTY : HELLO_PARTY + 2], "big")
    key = frame[at : min(at + KEY_BYTES, len(frame) - SIGNATURE_BYTES)]
    return (claims.session, claims.sender, key) if len(key) == KEY_BYTES else None


def signs_hello(key: bytes, frame: bytes) -> bool:
    """Whether this key has signed the hello."""
    body, signature = frame[:-SIGNATURE_BYTES], frame[-SIGNATURE_BYTES:]
    return peer.identity_verify(key, hashlib.sha256(b"tssd/1/hello\0" + body).digest(), signature)


def changed_identity(key: bytes) -> str:
    """What to say of a peer whose hello another key than the pinned one signs."""
    return (
        f"its hello is signed by another key than the pinned one, fingerprint {hashlib.sha256(key).hexdigest()}; "
        "if its identity has changed: `tssctl peers succeed`, or compare it by voice and `tssctl peers replace`"
    )


class SealedCeremony:
    """A seat behind the peer channel.

    Attributes:
        live: Whether it may still use a key, as far as its latest progress told.
    """

    def __init__(self, ground: Ground, seat: KeygenSeat | SigningSeat, identities: dict[int, bytes]) -> None:
        """Open the channel and sign our hello, which is then outgoing. Raises Refusal."""
        self.seat = seat
        self.live = True
        self._ground = ground
        self._identities = identities
        self._party: Party | None = None
        self._local: FaultReport | None = None
        self._digest: bytes | None = None
        self._strangers: dict[int, bytes] = {}
        signing = seat.request if isinstance(seat, SigningSeat) else None
        self._channel = peer.Channel(
            peer.Ceremony(
                kind="keygen" if signing is None else "sign",
                session=seat.session,
                protocol=seat.protocol,
                committee=tuple((member.seat, member.party_id) for member in seat.committee),
                threshold=_threshold(seat),
                own_seat=seat.seat,
                public_key=None if signing is None else signing.row.public_key,
                digest=None if signing is None else signing.message_hash,
                generation=0 if signing is None else signing.row.generation,
            ),
            identities,
        )
        try:
            self._channel.start(ground.vault.sign(self._channel.hello_digest))
        except BaseException:
            self._channel.close()
            raise

    def receive(self, data: bytes, now_ms: int) -> Progress:
        """One frame of the router's: any bytes."""
        if self._channel.state is peer.ChannelState.HELLO:
            self._note_stranger(data)
        self._channel.receive(data, now_ms)
        return self._advance(now_ms)

    def tick(self, now_ms: int) -> Progress:
        """Let time pass."""
        self._channel.tick(now_ms)
        return self._advance(now_ms)

    def reconnected(self, now_ms: int) -> Progress:
        """Ask every peer for what is missing."""
        self._channel.connected(now_ms)
        return self._advance(now_ms)

    def finish_keygen(self, now_ms: int) -> KeygenFinished:
        """Seal the share. Raises Refusal."""
        seat, party = self.seat, self._party
        if not isinstance(seat, KeygenSeat):
            raise Refusal("state", "this is no keygen with a result")
        if self._digest is None:
            self._expect(peer.ChannelState.RESULT)
            assert isinstance(party, KeygenParty)  # noqa: S101  (until confirmed)
            self._digest = self._channel.confirmation_digest(seat.take(party), now_ms)
        return seat.finish(self._identities, self._channel.transcript, self._channel.confirmation_body())

    def finish_signing(self) -> SigningFinished:
        """The signature, ours or the one a peer confirmed. Raises Refusal."""
        signature = self._channel.signature()
        if not isinstance(self.seat, SigningSeat) or signature is None:
            raise Refusal("state", "there is no signature yet")
        return SigningFinished(
            signature=signature.rs, recovery_id=signature.recovery_id, public_key=self.seat.row.public_key
        )

    def confirm(self, now_ms: int) -> Progress:
        """Sign and send our confirmation. Raises Refusal."""
        if self._channel.state is peer.ChannelState.RESULT:
            if isinstance(self.seat, SigningSeat):
                self._digest = self._channel.confirmation_digest(None, now_ms)
            elif self._digest is None:
                raise Refusal("state", "the share is not sealed yet: FinishKeygen comes first")
            else:
                self._ground.state.confirm(self.seat.session, self.seat.party_id)
            assert self._digest is not None  # noqa: S101  (set on both ways here)
            self._channel.confirm(self._ground.vault.sign(self._digest), now_ms)
        elif self._channel.state not in {peer.ChannelState.CONFIRMING, peer.ChannelState.COMPLETE}:
            raise Refusal("state", "there is no result to confirm")
        return self.progress()

    def abort(self, reason: str) -> Progress:
        """End it and tell the peers, where that is still ours to do."""
        self._tell(reason)
        return self.progress()

    def close(self) -> None:
        """Wipe everything."""
        self._channel.close()
        self._leave()

    def _leave(self) -> None:
        """Wipe what only the protocol needs."""
        if self._party is not None:
            self._party.close()
            self._party = None
        self.seat.close()

    def _advance(self, now_ms: int) -> Progress:
        state = self._channel.state
        if state is not peer.ChannelState.AGREED:
            return self._progress(state)
        try:
            self._party = self.seat.begin(self._channel.transcript)
            self._channel.attach(self._party, now_ms)
        except Exception as error:
            refusal = refusal_of(error)
            if refusal is None:
                raise
            reason = REASONS.get(refusal.kind, "internal")
            self._local = _local_fault(reason, refusal.message)
            self._tell(reason)
        return self.progress()

    def _note_stranger(self, data: bytes) -> None:
        """Remember whose hello another key than the pinned one signs.

        The channel drops it, and rightly: anybody can make one. But where a peer's identity has changed, the session
        waits in vain, and its operators have to know for what.
        """
        stated = stated_identity(data)
        if stated is None:
            return
        session, seat, key = stated
        # One by the pinned key is the channel's to verify; here it counts only where another one came before.
        known = self._strangers.get(seat, self._identities.get(seat, key))
        if session == self.seat.session and key != known and signs_hello(key, data):
            self._strangers[seat] = key

    def _waits_for(self, seats: tuple[int, ...]) -> tuple[str, ...]:
        """Party ids; with what is odd about a hello, where that is why."""
        if not self._strangers:
            return self.seat.members.named(seats)
        names = []
        for seat, name in zip(seats, self.seat.members.named(seats), strict=True):
            key = self._strangers.get(seat, self._identities[seat])
            names.append(name if key == self._identities[seat] else f"{name} ({changed_identity(key)})")
        return tuple(names)

    def _tell(self, reason: str) -> None:
        try:
            digest = self._channel.abort(reason)
        except TssError:
            return  # after our confirmation, or complete: no notice may contradict that
        try:
            self._channel.abort_signed(self._ground.vault.sign(digest))
        except Refusal:
            return  # without the HSM the peers learn it from their clocks

    def _expect(self, state: peer.ChannelState) -> None:
        if self._channel.state is not state:
            raise Refusal("state", f"not in state {STATE_NAMES[self._channel.state]}")

    def progress(self) -> Progress:
        """Where it stands, and what is to be sent."""
        return self._progress(self._channel.state)

    def _progress(self, state: peer.ChannelState) -> Progress:
        # Twenty times a signing, each time with caches that the protocol's numbers have filled: what cannot be there
        # is not asked for.
        channel, parties = self._channel, self.seat.members.parties
        if state >= peer.ChannelState.CONFIRMING:
            self.live = False
            self._leave()
        progress, drops = channel.progress(), channel.drops()
        return Progress(
            state=STATE_NAMES[state],
            round=progress.round,
            rounds=progress.rounds,
            steps=progress.steps,
            waits_for=self._waits_for(progress.waits_for),
            frames=tuple(
                OutFrame(to=None if frame.to is None else parties[frame.to], round=frame.round, data=frame.data)
                for frame in channel.outgoing()
            ),
            plain=(),
            confirmations=() if state <= peer.ChannelState.RUNNING else tuple(channel.confirmations().values()),
            drops=sum(drops.values()),
            aborts_ignored=drops.get("abort", 0),
            fault=self._fault(),
        )

    def _fault(self) -> FaultReport | None:
        if self._local is not None:
            return self._local
        fault, members = self._channel.fault(), self.seat.members
        if fault is None:
            return None
        return FaultReport(
            reason=fault.reason,
            detail=fault.detail,
            round=self._channel.progress().round,
            culprits=members.named(fault.culprits),
            hearsay=members.named(fault.hearsay),
            authenticated=True,
            evidence=fault.evidence,
        )


class PlainCeremony:
    """A seat among parties that speak the bare protocol; who sent what is only the router's word."""

    def __init__(self, seat: KeygenSeat | SigningSeat) -> None:
        """Begin at once: there is nothing to agree on. Raises Refusal, TssError, and what the state raises."""
        self.seat = seat
        self._party: Party = seat.begin(None)
        self._steps = 0
        self._confirmed = False
        self._aborted: FaultReport | None = None

    @property
    def live(self) -> bool:
        """Whether it still uses a key."""
        return self._aborted is None and self._party.state not in {PartyState.DONE, PartyState.FAILED}

    def receive(self, sender: str, data: bytes, *, broadcast: bool) -> Progress:
        """One protocol message."""
        seat = self.seat.members.seats.get(sender)
        if seat is None:
            raise Refusal("refused", f"{sender} has no seat in this ceremony", "sender")
        if self.live:
            try:
                taken = self._party.receive(seat, MessageClass.BROADCAST if broadcast else MessageClass.DIRECT, data)
            except (Stranger, PartyFinal):
                raise Refusal("refused", f"{sender} is ourselves", "sender") from None
            except PeerFault:
                taken = False  # progress tells
            self._steps += taken
        return self.progress()

    def tick(self, _: int) -> Progress:
        """Where it stands; nothing here depends on time."""
        return self.progress()

    def progress(self) -> Progress:
        """Where it stands, and what is to be sent."""
        done = self._party.state is PartyState.DONE
        faulty = self._aborted is not None or self._party.state is PartyState.FAILED
        running, rounds = self._party.round
        return Progress(
            state="failed" if faulty else "complete" if self._confirmed else "result" if done else "running",
            round=running,
            rounds=rounds,
            steps=self._steps,
            waits_for=self.seat.members.named(self._party.waits_for()),
            frames=(),
            plain=tuple(
                PlainMessage(
                    to=None if message.to is None else self.seat.members.parties[message.to],
                    round=message.round,
                    data=message.data,
                    broadcast=message.message_class is MessageClass.BROADCAST,
                )
                for message in (self._party.outgoing() if self._aborted is None else ())
            ),
            confirmations=(),
            drops=0,
            aborts_ignored=0,
            fault=self._aborted or self._fault(self._party.fault()),
        )

    def finish_keygen(self, _: int) -> KeygenFinished:
        """Seal the share. Raises Refusal."""
        if not isinstance(self.seat, KeygenSeat) or not isinstance(self._party, KeygenParty):
            raise Refusal("state", "this is no keygen")
        if self._party.state is not PartyState.DONE or self._aborted is not None:
            raise Refusal("state", "there is no share yet")
        self.seat.take(self._party)
        return self.seat.finish({}, b"", b"")

    def finish_signing(self) -> SigningFinished:
        """The signature. Raises Refusal."""
        if not isinstance(self.seat, SigningSeat) or not isinstance(self._party, SigningParty):
            raise Refusal("state", "this is no signing")
        if self._party.state is not PartyState.DONE:
            raise Refusal("state", "there is no signature yet")
        signature = self._party.result()
        return SigningFinished(
            signature=signature.rs, recovery_id=signature.recovery_id, public_key=self.seat.row.public_key
        )

    def confirm(self, _: int) -> Progress:
        """Nobody is told; it is complete."""
        if self._party.state is not PartyState.DONE or self._aborted is not None:
            raise Refusal("state", "there is no result to confirm")
        self._confirmed = True
        return self.progress()

    def abort(self, reason: str) -> Progress:
        """End it; bare peers have no ear for why."""
        if not self._confirmed:
            self._aborted = _local_fault(reason, "", authenticated=False)
        return self.progress()

    def close(self) -> None:
        """Wipe everything."""
        self._party.close()
        self.seat.close()

    def _fault(self, fault: Fault | None) -> FaultReport | None:
        if fault is None:
            return None
        return FaultReport(
            reason=fault.reason,
            detail=fault.detail,
            round=fault.round,
            culprits=self.seat.members.named(fault.culprits),
            hearsay=(),
            authenticated=False,
            evidence=(),
        )


def _local_fault(reason: str, detail: str, *, authenticated: bool = True) -> FaultReport:
    return FaultReport(
        reason=reason, detail=detail, round=0, culprits=(), hearsay=(), authenticated=authenticated, evidence=()
    )


def _threshold(seat: KeygenSeat | SigningSeat) -> int:
    return seat.request.threshold if isinstance(seat, KeygenSeat) else seat.request.row.threshold
