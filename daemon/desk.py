"""The desk: everything the network side can be asked to do or tell, for the API and for tests.

Commands check, enter and start; ceremonies run in a nursery of their own. Queries read. Every part is an attribute,
so that ceremonies take the desk as their one argument for the world.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.ceremonies import confirming
from daemon.ceremonies.admission import Caller, ParticipateKeygen, ParticipateSigning
from daemon.ceremonies.keygen import participate_keygen
from daemon.ceremonies.signing import participate_signing
from daemon.custody import wire
from daemon.errors import Overdue, Refused, TokenLost
from daemon.network.peers import Peers
from daemon.readiness import Readiness
from daemon.share import ShareStatus
from daemon.shares.audit import AuditRow, AuditVerdict
from daemon.values import now

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from datetime import datetime

    import trio

    from daemon.ceremonies.admission import Admission, Running
    from daemon.ceremonies.pool import Pool
    from daemon.custody.client import Custodian
    from daemon.events import Published
    from daemon.metrics import Metrics
    from daemon.network.coordinator import Coordinator
    from daemon.network.router import Router
    from daemon.session import JournalEntry, Session, SessionStatus, SessionType
    from daemon.settings import Settings
    from daemon.share import Share
    from daemon.shares.reseal import Resealing
    from daemon.shares.store import Store
    from daemon.values import PartyId, PublicKey, SessionId, ShareId, ShareType
    from daemon.wall import Wall

__all__ = [
    "AuditRow",
    "AuditVerdict",
    "Caller",
    "Confirmations",
    "Desk",
    "ParticipateKeygen",
    "ParticipateSigning",
    "Peers",
    "Readiness",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmations:
    """Who has confirmed a share, and who has not. statements: one per confirmed party, for handing on."""

    session_id: SessionId
    party_id: PartyId
    share_id: ShareId
    confirmed: tuple[str, ...]
    missing: tuple[str, ...]
    statements: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """See the module. ceremonies: sessions under way. background: what outlives them and stops with the daemon."""

    settings: Settings
    metrics: Metrics
    store: Store
    custodian: Custodian
    wall: Wall
    coordinator: Coordinator
    router: Router
    admission: Admission
    pool: Pool
    resealing: Resealing
    ceremonies: trio.Nursery
    background: trio.Nursery

    # ---- Commands ----

    async def participate_keygen(self, command: ParticipateKeygen, caller: Caller) -> Session:
        """Start taking part in a keygen, or find the session that the same request started.

        Raises:
            Refused, Busy, TokenLost: As for `Admission.admit`.
        """
        session, running = await self.admission.admit(command, caller)
        if running is not None:

            async def ceremony(running: Running) -> None:
                await participate_keygen(command, running, self)

            self.ceremonies.start_soon(self.admission.carry_out, running, ceremony)
        return session

    async def participate_signing(self, command: ParticipateSigning, caller: Caller) -> Session:
        """Start taking part in a signing, or find the session that the same request started.

        Raises:
            Refused, Busy, TokenLost: As for `Admission.admit`.
        """
        session, running = await self.admission.admit(command, caller)
        if running is not None:

            async def ceremony(running: Running) -> None:
                await participate_signing(command, running, self)

            self.ceremonies.start_soon(self.admission.carry_out, running, ceremony)
        return session

    async def succeed(self, statement: bytes, caller: Caller) -> Peers:
        """Replace a pinned identity by the successor that it has signed for.

        Raises:
            Refused: Nobody is pinned, or the statement does not hold.
            TokenLost: The custodian is away.
        """
        signed = await self.store.pins()
        if signed is None:
            raise Refused("no peers are pinned yet", "pin them with `tssctl peers add`")
        pins = await self.wall.ask(wire.Succeed(pins=signed, statement=statement), wire.Pins)
        await self.store.add_pins(pins, caller.name, "peer-succeeded")
        return self._peers(pins)

    async def take_confirmations(
        self, session_id: SessionId, party_id: PartyId | None, statements: list[bytes], caller: Caller
    ) -> Confirmations:
        """Take in statements that confirm a share, however they got here; those that do not hold are left out.

        Raises:
            UnknownSession, Refused, TokenLost: As they say.
        """
        share = await self._made_by(session_id, party_id)
        row = await self.store.sealed_row(share.share_id)
        await self.store.audited(caller.name, "confirmations-offered", {"shareId": str(share.share_id)})
        await confirming.keep(self, share, row, statements)
        return await self._confirmations(share)

    async def quarantine(self, share_id: ShareId, caller: Caller) -> Share:
        """Wait no longer for peers that have not confirmed a pending share: it is set aside, its session is over.

        Our own confirmation stands, and so does what the others have: nobody else hears of it.

        Raises:
            UnknownShare: There is none.
            Refused: It is not pending.
        """
        share = await self.store.share(share_id)
        if share.status is not ShareStatus.PENDING:
            raise Refused(f"share {share_id} is {share.status}", "only a pending share can be given up")
        missing = (await self._confirmations(share)).missing
        await self.store.audited(caller.name, "quarantine-asked", {"shareId": str(share_id)})
        waited = f"; waiting for {', '.join(missing)}" if missing else ""
        error = Overdue(f"keygen: given up by {caller.name}{waited}", missing)
        await confirming.give_up(self, share, error)
        return await self.store.share(share_id)

    async def rotate_kek(self, caller: Caller) -> tuple[int, int]:
        """Make the next version of the KEK and reseal every share under it, in the background.

        Returns:
            The version, and how many shares are to be resealed.

        Raises:
            Refused, TokenLost: As for `Wall.ask`.
        """
        return await self.resealing.start(caller.name)

    # ---- Queries ----

    async def to_reseal(self) -> tuple[int, dict[str, str]]:
        """Shares under an older version of the KEK, and why the custodian refuses those among them that it does."""
        return self.resealing.left, self.resealing.refused

    async def share(self, share_id: ShareId) -> Share:
        """One share. Raises UnknownShare."""
        return await self.store.share(share_id)

    async def shares(
        self,
        *,
        party_id: PartyId | None = None,
        public_key: PublicKey | None = None,
        share_type: ShareType | None = None,
        status: ShareStatus | None = None,
        after: ShareId | None = None,
        limit: int = 100,
    ) -> list[Share]:
        """Shares by id, ascending."""
        return await self.store.shares(
            party_id=party_id,
            public_key=public_key,
            share_type=share_type,
            status=status,
            after=after,
            limit=limit,
        )

    async def session(self, session_id: SessionId, party_id: PartyId | None = None) -> Session:
        """One session, with what it waits for just now. Raises UnknownSession."""
        return self._live(await self.store.session(session_id, party_id))

    async def sessions(
        self,
        *,
        status: SessionStatus | None = None,
        type: SessionType | None = None,  # noqa: A002  the word of the API
        party_id: PartyId | None = None,
        limit: int = 100,
        before: datetime | None = None,
    ) -> list[Session]:
        """Sessions, newest first."""
        found = await self.store.sessions(status=status, type_=type, party_id=party_id, before=before, limit=limit)
        return [self._live(session) for session in found]

    def follow(
        self, session_id: SessionId, party_id: PartyId | None = None, after: int = 0, *, pace: float = 0
    ) -> AsyncGenerator[list[JournalEntry]]:
        """A session's journal after a row, live, to the row that ends it. Raises UnknownSession. To be closed.

        pace: seconds between two looks, at least; the end is told at once.
        """
        return self.store.follow(session_id, party_id, after, pace=pace)

    async def events(self, after: int = 0, limit: int = 100) -> list[Published]:
        """Domain events after a number, oldest first."""
        return await self.store.events(after, limit)

    async def peers(self) -> Peers:
        """Who is pinned, as the custodian verifies it. Raises TokenLost, Refused."""
        signed = await self.store.pins()
        if signed is None:
            status = self.custodian.status
            return Peers(number=0, pins=(), identity=b"" if status is None else status.identity)
        return self._peers(await self.wall.ask(wire.VerifyPins(pins=signed), wire.Pins))

    async def custody(self) -> wire.Status:
        """How the custodian and its HSM are. Raises TokenLost when there is no custodian."""
        if self.custodian.status is None:
            raise TokenLost(self.custodian.reason, "look at the custodian's log")
        return self.custodian.status

    async def confirmations(self, session_id: SessionId, party_id: PartyId | None = None) -> Confirmations:
        """Who has confirmed the share that a session made. Raises UnknownSession, Refused."""
        return await self._confirmations(await self._made_by(session_id, party_id))

    async def audit(self, after: int = 0, limit: int = 100) -> list[AuditRow]:
        """Audit rows after a number, oldest first."""
        return await self.store.audit_rows(after, limit)

    async def verify_audit(self) -> AuditVerdict:
        """Go over the whole audit log."""
        status = self.custodian.status
        return await self.store.verify_audit(
            frozenset() if status is None or not status.identity else {status.identity, *status.earlier_identities}
        )

    async def readiness(self) -> Readiness:
        """Whether we could sign now, and if not, why."""
        return await Readiness.of(self)

    async def refresh_metrics(self) -> None:
        """Bring gauges up to date that nobody sets on a change."""
        metrics, status = self.metrics, self.custodian.status
        metrics.custodian_ready.set(self.custodian.ready)
        metrics.custodian_restarts.set(self.custodian.restarts)
        if status is not None:
            metrics.hsm_operations.set(status.hsm_operations)
            metrics.hsm_errors.set(status.hsm_errors)
            metrics.arena_used.set(status.arena_used)
            metrics.arena_size.set(status.arena_size)
        metrics.inbox.set(self.router.waiting)
        backlog = await self.store.backlog()
        for kind in ("report", "event"):
            count, oldest = backlog.get(kind, (0, None))
            if kind == "event" and self.settings.events.file is None:
                count, oldest = 0, None  # nobody is to be brought them; who wants them asks
            metrics.outbox.labels(kind).set(count)
            metrics.outbox_age.labels(kind).set(0 if oldest is None else (now() - oldest).total_seconds())
        for share_status, count in (await self.store.count_shares()).items():
            metrics.shares.labels(share_status).set(count)
        metrics.resealing.set(self.resealing.left)
        self.admission.observe_waits()

    # ---- Parts ----

    def _live(self, session: Session) -> Session:
        return self.admission.with_waits(session)

    def _peers(self, pins: wire.Pins) -> Peers:
        status = self.custodian.status
        return Peers(number=pins.number, pins=pins.pins, identity=b"" if status is None else status.identity)

    async def _made_by(self, session_id: SessionId, party_id: PartyId | None) -> Share:
        session = await self.store.session(session_id, party_id)
        if session.share_id is None or session.message_hash is not None:
            raise Refused(f"session {session_id} has made no share", "confirmations belong to a keygen that is done")
        return await self.store.share(session.share_id)

    async def _confirmations(self, share: Share) -> Confirmations:
        held = await self.store.confirmations(share.share_id)
        missing = {str(party) for party in share.committee.parties} - held.keys()
        return Confirmations(
            session_id=share.session_id,
            party_id=share.party_id,
            share_id=share.share_id,
            confirmed=tuple(sorted(held)),
            missing=tuple(sorted(missing)),
            statements=tuple(held.values()),
        )
