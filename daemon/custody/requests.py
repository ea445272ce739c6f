"""What tssd may ask for: each request of the wall, carried out."""

from __future__ import annotations

import re
import secrets
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal

from daemon.custody import confirmations, pins, rows
from daemon.custody.ceremonies import PlainCeremony, SealedCeremony
from daemon.custody.preparation import Preparation
from daemon.custody.refusal import Refusal
from daemon.custody.seats import KeygenSeat, SigningSeat
from daemon.custody.state import RecoveryKey, StateRefused, Use
from daemon.custody.wire import (
    Abort,
    AbortUnknown,
    BeginKeygen,
    BeginSigning,
    Begun,
    CheckConfirmations,
    Checkpoint,
    Checkpointed,
    Confirm,
    ConfirmedBy,
    ConfirmRow,
    Done,
    FinishKeygen,
    FinishSigning,
    Forget,
    GetStatus,
    KeygenFinished,
    NewestPins,
    NewKekVersion,
    OpenAndCheck,
    Pins,
    PlainReceive,
    Prepare,
    Preparing,
    Progress,
    Receive,
    Reconnected,
    Reseal,
    Resealed,
    Revoke,
    ShowCheckpoint,
    SignedPins,
    SigningFinished,
    Statement,
    Status,
    Succeed,
    Tick,
    VerifyPins,
)
from daemon.custody.workers import Lane
from tss_cffi import arena_usage
from tss_cffi import channel as peer

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.custody.pins import PinBook
    from daemon.custody.seats import Ground
    from daemon.custody.vault import Vault
    from daemon.custody.wire import Answer, Request, ShareRow
    from hsm import TokenStatus

CEREMONY_BYTES: Final = 512 * 1024
"""Of the arena, for one ceremony at most."""
REASON: Final = re.compile(r"[a-z0-9-]{1,64}")
FIRST_USES: Final = frozenset(
    {
        BeginKeygen,
        BeginSigning,
        ConfirmRow,
        CheckConfirmations,
        AbortUnknown,
        OpenAndCheck,
        Reseal,
        NewKekVersion,
        Revoke,
        Prepare,
        Checkpoint,
        Succeed,
    }
)
"""What uses a key and belongs to no ceremony that is held: refused unread where the chain was rolled back, for what it
forgot is what would refuse them. A checkpoint of such a chain would make it the newest there is."""
NO_PINS: Final = Pins(number=0, pins=(), signed=SignedPins(body=b"", signature=b""))

Ceremony = SealedCeremony | PlainCeremony


class Held:
    """A ceremony that has its number; it is None while it is being opened."""

    def __init__(self, seat: KeygenSeat | SigningSeat) -> None:
        self.seat = seat
        self.lane = Lane()
        self.ceremony: Ceremony | None = None

    @property
    def live(self) -> bool:
        """Whether it may still use a key."""
        return self.ceremony is None or self.ceremony.live

    def is_of(self, session: bytes, party_id: str) -> bool:
        """Whether it is this party's seat in this session."""
        return (self.seat.session, self.seat.party_id) == (session, party_id)


class ServiceRequests:
    """Carries out what tssd asks for, for any number of threads."""

    def __init__(self, ground: Ground) -> None:
        """Nothing is opened yet."""
        self._ground = ground
        self._held: dict[int, Held] = {}
        self._lock = threading.Lock()
        # A number of an earlier process must not name a ceremony of this one.
        self._number = secrets.randbits(40) << 20
        self._preparation = Preparation(ground.vault)
        self._preparing = Lane()
        self._kek = threading.Lock()
        self._handlers: dict[type[Request], Callable[..., Answer]] = {
            GetStatus: self._status,
            BeginKeygen: self._begin_keygen,
            BeginSigning: self._begin_signing,
            Receive: self._receive,
            PlainReceive: self._plain_receive,
            Tick: self._tick,
            Reconnected: self._reconnected,
            FinishKeygen: self._finish_keygen,
            FinishSigning: self._finish_signing,
            Confirm: self._confirm,
            ConfirmRow: self._confirm_row,
            CheckConfirmations: self._check_confirmations,
            Abort: self._abort,
            AbortUnknown: self._abort_unknown,
            Forget: self._forget,
            OpenAndCheck: self._open_and_check,
            Reseal: self._reseal,
            NewKekVersion: self._new_kek_version,
            Revoke: self._revoke,
            Prepare: self._prepare,
            Checkpoint: self._checkpoint,
            ShowCheckpoint: self._show_checkpoint,
            VerifyPins: self._verify_pins,
            NewestPins: self._newest_pins,
            Succeed: self._succeed,
        }
        ground.vault.idle = lambda: not self._held
        ground.vault.admit = ground.state.admit
        ground.vault.highest_kek = ground.state.highest_kek
        recovery = ground.vault.recovery_fingerprint
        if recovery != ground.state.recovery:
            ground.state.append(RecoveryKey(fingerprint=recovery))

    def lane(self, request: Request) -> Lane | None:
        """One for each ceremony, one for preparing, none for the others."""
        if isinstance(request, Prepare):
            return self._preparing
        held = self._held.get(getattr(request, "ceremony", 0))
        return held.lane if held is not None else None

    def answer(self, request: Request, now_ms: int) -> Answer:
        """Carry one out. Raises what `refusal_of` knows."""
        handler = self._handlers.get(type(request))
        if handler is None:
            raise Refusal("refused", f"{type(request).__name__} is for an operator at a terminal: use tssctl")
        if type(request) in FIRST_USES and (problem := self._ground.state.problem()):
            raise Refusal("refused", problem)
        return handler(request, now_ms)

    # ---- Ceremonies ----

    def _begin_keygen(self, request: BeginKeygen, _: int) -> Begun:
        return self._begin(KeygenSeat(self._ground, request), request)

    def _begin_signing(self, request: BeginSigning, _: int) -> Begun:
        return self._begin(SigningSeat(self._ground, request), request)

    def _begin(self, seat: KeygenSeat | SigningSeat, request: BeginKeygen | BeginSigning) -> Begun:
        with self._lock:
            self._check_room(seat)
            self._number += 1
            number = self._number
            held = self._held[number] = Held(seat)
        try:
            if seat.channel == "plain":
                held.ceremony = PlainCeremony(seat)
            else:
                identities = self._ground.identities(seat.committee, seat.party_id, request.pins)
                held.ceremony = SealedCeremony(self._ground, seat, identities)
        except BaseException:
            with self._lock:
                del self._held[number]
            seat.close()
            raise
        progress = held.ceremony.progress()
        return Begun(ceremony=number, frames=progress.frames, plain=progress.plain)

    def _check_room(self, seat: KeygenSeat | SigningSeat) -> None:
        # A sealed ceremony that is over has wiped its party, and what is left of it is small.
        taken = sum(held.live or held.seat.channel == "plain" for held in self._held.values())
        if (taken + 1) * CEREMONY_BYTES > arena_usage().capacity:
            raise Refusal("busy", "no room for another ceremony; let one end, or raise custodian.arena_mib")
        for held in self._held.values():
            other = held.seat
            if held.is_of(seat.session, seat.party_id):
                raise Refusal("state", "this session is under way already", "session")
            if (
                held.live
                and isinstance(seat, SigningSeat)
                and (seat.channel, other.channel, seat.protocol.label) == ("plain", "plain", "gg18-v2")
                and other.share_id == seat.share_id
            ):
                # Without a session in its proofs, messages of one signing could be played into the other.
                raise Refusal("state", f"share {seat.share_id} signs in another plain session", "row.share_id")

    def _ceremony(self, number: int) -> Ceremony:
        held = self._held.get(number)
        if held is None or held.ceremony is None:
            raise Refusal("unknown", "there is no such ceremony here, or no longer", "ceremony")
        return held.ceremony

    def _sealed(self, number: int) -> SealedCeremony:
        ceremony = self._ceremony(number)
        if not isinstance(ceremony, SealedCeremony):
            raise Refusal("refused", "this ceremony is plain", "ceremony")
        return ceremony

    def _receive(self, request: Receive, now_ms: int) -> Progress:
        return self._sealed(request.ceremony).receive(request.data, now_ms)

    def _plain_receive(self, request: PlainReceive, _: int) -> Progress:
        ceremony = self._ceremony(request.ceremony)
        if not isinstance(ceremony, PlainCeremony):
            raise Refusal("refused", "this ceremony is sealed: no message in clear is taken", "ceremony")
        return ceremony.receive(request.sender, request.data, broadcast=request.broadcast)

    def _tick(self, request: Tick, now_ms: int) -> Progress:
        return self._ceremony(request.ceremony).tick(now_ms)

    def _reconnected(self, request: Reconnected, now_ms: int) -> Progress:
        return self._sealed(request.ceremony).reconnected(now_ms)

    def _finish_keygen(self, request: FinishKeygen, now_ms: int) -> KeygenFinished:
        return self._ceremony(request.ceremony).finish_keygen(now_ms)

    def _finish_signing(self, request: FinishSigning, _: int) -> SigningFinished:
        return self._ceremony(request.ceremony).finish_signing()

    def _confirm(self, request: Confirm, now_ms: int) -> Progress:
        return self._ceremony(request.ceremony).confirm(now_ms)

    def _abort(self, request: Abort, _: int) -> Progress:
        _check_reason(request.reason)
        return self._ceremony(request.ceremony).abort(request.reason)

    def _forget(self, request: Forget, _: int) -> Done:
        ceremony = self._ceremony(request.ceremony)
        with self._lock:  # another begin may be counting them
            del self._held[request.ceremony]
        ceremony.close()
        return Done()

    def _abort_unknown(self, request: AbortUnknown, _: int) -> Statement:
        _check_reason(request.reason)
        self._ground.check_party(request.party_id)
        rows.check_session(request.session)
        if self._ground.state.is_confirmed(request.session, request.party_id):
            raise Refusal("refused", "this keygen was confirmed, and no notice may contradict that", "session")
        with self._lock:
            if any(
                (h.seat.session, h.seat.party_id) == (request.session, request.party_id) for h in self._held.values()
            ):
                raise Refusal("state", "this session is under way: Abort ends it", "session")
        notice = peer.AbortNotice(request.session, request.seat, request.party_id, request.reason, ())
        body, digest = peer.abort_notice(notice)
        return Statement(data=body + self._ground.vault.sign(digest))

    # ---- Rows ----

    def _open_and_check(self, request: OpenAndCheck, _: int) -> Done:
        self._check_usable(request.row)
        _check_stated(request.row)
        opened = rows.open_share if request.thorough else rows.open_bytes
        opened(self._ground.vault, request.row).close()
        return Done()

    def _reseal(self, request: Reseal, _: int) -> Resealed:
        row = request.row
        self._check_usable(row)
        _check_stated(row)
        self._ground.vault.check_kek(row.sealed.kek_version)  # asked again and again: not an event each time
        self._ground.state.append(
            Use(
                kind="reseal",
                at=int(time.time()),
                session=row.session,
                party_id=row.party_id,
                share_id=row.share_id,
                digest=b"",
                plain=False,
            )
        )
        with rows.open_bytes(self._ground.vault, row) as secret:
            return Resealed(row=rows.seal(self._ground.vault, row, secret))

    def _confirm_row(self, request: ConfirmRow, _: int) -> Statement:
        row = request.row
        self._check_usable(row)
        rows.check_row(row)
        confirmations.check(row)
        rows.open_share(self._ground.vault, row).close()
        self._ground.state.confirm(row.session, row.party_id)
        return Statement(data=row.confirmation + self._ground.vault.sign(peer.confirmation_digest(row.confirmation)))

    def _check_confirmations(self, request: CheckConfirmations, _: int) -> ConfirmedBy:
        row, state = request.row, self._ground.state
        rows.check_row(row)
        by = confirmations.confirmed_by(row, request.confirmations)
        if not by.missing and row.generation > state.newest_generation(row.party_id, row.public_key):
            self._check_usable(row)
            rows.open_bytes(self._ground.vault, row).close()  # anybody could confirm a row of his own making
            state.succeed(row.party_id, row.public_key, row.generation)
        return by

    def _revoke(self, request: Revoke, _: int) -> Done:
        rows.check_name(request.share_id, "share_id")
        self._ground.state.revoke(request.share_id)
        return Done()

    def _check_usable(self, row: ShareRow) -> None:
        self._ground.check_party(row.party_id)
        self._ground.check_current(row)
        if self._ground.state.is_revoked(row.share_id):
            raise Refusal("refused", f"share {row.share_id} is revoked", "row.share_id")

    # ---- The rest ----

    def _status(self, _: GetStatus, __: int) -> Status:
        count, head = self._ground.state.position()
        status = status_of(
            self._ground.vault,
            self._ground.book,
            chain_count=count,
            chain_head=head,
            chain_problem=self._ground.state.problem(),
            ceremonies=len(self._held),
            plain_committees=len(self._ground.policy.plain),
            identities=self._ground.state.recall().identities,
        )
        if status.identity and not status.pins_problem:
            # An operator's custodian writes no chain: what it signed counts even if the file is lost before it is used.
            with suppress(StateRefused):
                self._ground.state.see_pins(status.pins_number)
        return status

    def _new_kek_version(self, _: NewKekVersion, now_ms: int) -> Status:
        with self._kek:
            self._ground.vault.new_kek()
        return self._status(GetStatus(), now_ms)

    def _prepare(self, request: Prepare, _: int) -> Preparing:
        return self._preparation.work(request.protocol, request.milliseconds)

    def _checkpoint(self, request: Checkpoint, _: int) -> Checkpointed:
        if request.audit_count < 0 or len(request.audit_head) != rows.DIGEST_BYTES:
            raise Refusal("refused", "an audit head has 32 bytes", "audit_head")
        identity = self._ground.vault.identity()
        count, head = self._ground.state.position()
        body = pins.checkpoint_body(request.audit_count, request.audit_head, count, head)
        return Checkpointed(
            audit_count=request.audit_count,
            audit_head=request.audit_head,
            chain_count=count,
            chain_head=head,
            identity=identity,
            signature=self._ground.vault.sign(pins.tagged("tssd/1/checkpoint", body)),
        )

    def _show_checkpoint(self, request: ShowCheckpoint, _: int) -> Done:
        shown = request.checkpoint
        body = pins.checkpoint_body(shown.audit_count, shown.audit_head, shown.chain_count, shown.chain_head)
        ours = {self._ground.vault.identity(), *self._ground.state.recall().identities}
        if shown.identity not in ours or not pins.verify(
            shown.identity, pins.tagged("tssd/1/checkpoint", body), shown.signature
        ):
            raise Refusal("refused", "the checkpoint is not signed by our identity key", "checkpoint.signature")
        self._ground.state.compare(shown.chain_count, shown.chain_head)
        return Done()

    def _verify_pins(self, request: VerifyPins, _: int) -> Pins:
        verified = self._ground.book.check(request.pins, self._ground.vault.identity())
        self._ground.state.see_pins(verified.number)
        return verified

    def _newest_pins(self, _: NewestPins, __: int) -> Pins:
        return self._ground.book.newest(self._ground.vault.identity()) or NO_PINS

    def _succeed(self, request: Succeed, _: int) -> Pins:
        identity = self._ground.vault.identity()
        shown = self._ground.book.check(request.pins, identity)
        signed = self._ground.book.sign(
            pins.succeeded(shown.pins, request.statement), identity, self._ground.vault.sign
        )
        self._ground.state.see_pins(signed.number)
        return signed


def tier_of(token: TokenStatus) -> Literal["A", "A, open to the PIN"]:
    """As the doctor judges: a token without unwrap template gives share keys away to who has PIN and store."""
    return "A" if token.unwrap_template else "A, open to the PIN"


def status_of(
    vault: Vault,
    book: PinBook,
    *,
    chain_count: int = 0,
    chain_head: bytes = b"",
    chain_problem: str = "",
    ceremonies: int = 0,
    plain_committees: int = 0,
    identities: tuple[bytes, ...] = (),
) -> Status:
    """What `GetStatus` is answered; asks the HSM nothing. identities: all of ours, as the chain has them."""
    token, usage = vault.status, arena_usage()
    identity = (token.identity_public or b"") if token and vault.state == "ready" else b""
    return Status(
        state=vault.state,
        reason=vault.reason,
        token_label=token.label if token else "",
        token_serial=token.serial if token else "",
        token_model=token.model if token else "",
        tier=tier_of(token) if token else "",
        kek_version=(token.current_kek or 0) if token else 0,
        identity=identity,
        earlier_identities=tuple(earlier for earlier in identities if earlier != identity),
        pins_number=book.number(),
        pins_problem=book.problem(identity) if identity else "",
        chain_count=chain_count,
        chain_head=chain_head,
        chain_problem=chain_problem,
        ceremonies=ceremonies,
        arena_used=usage.used,
        arena_size=usage.capacity,
        hsm_operations=vault.operations,
        hsm_errors=vault.errors,
        plain_committees=plain_committees,
    )


def _check_stated(row: ShareRow) -> None:
    """Name where a row contradicts itself: the token would say no more than that it does not open. Raises Refusal."""
    rows.check_row(row)
    if row.channel == "sealed":
        confirmations.check(row)


def _check_reason(reason: str) -> None:
    if not REASON.fullmatch(reason):
        raise Refusal("refused", "a reason has 1 to 64 characters of a-z, 0-9 and '-'", "reason")
