"""The share store: shares, sessions with their journal, outbox, pins, pre-parameters; SQLite and nothing else.

One connection writes and another reads lists, each in one thread at a time; a third finds single things by their key at
once, in trio's own thread, for that takes less time than to hand it to another. Every write is durable when its method
returns (WAL, synchronous=FULL), but for steps that only tell where a session stands: those are in the file when the
method returns, which the end of this process does not undo, and on the disk with the next durable write
(synchronous=NORMAL, by a fourth connection, at once). Writers that come while a commit is under way share the next one,
so that many ceremonies cost few fsyncs; each keeps a savepoint of its own: what one breaks is not the others' loss.

No secret is in it: shares and pre-parameters are sealed to the HSM. Raised by every writing method, besides what it
says: `AuditUnwritable` where the disk is full, read-only or gone; `Broken` where the database is not what we wrote.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import deque
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast
from uuid import uuid4

import sqlite_utils
import trio

from daemon.custody import wire
from daemon.errors import (
    AuditUnwritable,
    Broken,
    DaemonError,
    NoActiveShare,
    Refused,
    SessionReplayed,
    ShareNotActive,
    UnknownSession,
    UnknownShare,
    outcome,
)
from daemon.events import KeygenCompleted, Published, ShareCreated, SigningCompleted, timestamp
from daemon.session import STATUS_OF, TELLING, JournalEntry, Session, SessionStatus, SessionType, Step
from daemon.share import LEGAL, Share, ShareStatus
from daemon.shares import audit, rows, schema
from daemon.values import Channel, MessageHash, PartyId, PublicKey, SessionId, ShareId, ShareType, Signature, now

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
    from pathlib import Path


T = TypeVar("T")

BUSY_MILLISECONDS: Final = 5000
"""How long we wait for another process's write (tssctl storing a pin list)."""
KNOWN_FINGERPRINTS_MAX: Final = 16384
"""Fingerprints told to the custodian at a keygen, newest first: half a megabyte. The table's key refuses the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A request to take part, as it is admitted. request_digest: two requests are the same when theirs are."""

    session_id: SessionId
    party_id: PartyId
    type: SessionType
    request_digest: str
    share_type: ShareType | None
    public_key: PublicKey | None
    message_hash: MessageHash | None
    caller: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A row of the outbox that has not left yet."""

    number: int
    kind: str
    session_id: SessionId
    party_id: PartyId
    payload: dict[str, str]
    attempts: int
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted:
    """A session that a crash or stop has ended. seat: None where the committee was not known yet."""

    session_id: SessionId
    party_id: PartyId
    seat: int | None
    channel: Channel | None
    begun: bool
    """Whether peers may have heard of us."""


@dataclass(slots=True)
class _Write(Generic[T]):
    act: Callable[[sqlite3.Connection], T]
    result: T | None = None
    error: BaseException | None = None
    done: trio.Event = field(default_factory=trio.Event)


@dataclass(slots=True)
class _News:
    """What the followers of a session wait for: its next row, its end."""

    changed: trio.Event = field(default_factory=trio.Event)
    over: trio.Event = field(default_factory=trio.Event)


@dataclass
class Store:
    """See the module. Made by `open_store`."""

    _path: Path
    _writer: sqlite3.Connection
    _reader: sqlite3.Connection
    _finder: sqlite3.Connection
    _jotter: sqlite3.Connection
    _queue: deque[_Write[object]] = field(default_factory=deque)
    _writing: bool = False
    _reading: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1))
    _news: dict[tuple[SessionId, PartyId], _News] = field(default_factory=dict)
    _outbox: trio.Event = field(default_factory=trio.Event)
    problem: str = ""
    """Why the latest write failed; empty while writes succeed."""

    # ---- Transactions ----

    async def write(self, act: Callable[[sqlite3.Connection], T], *, durable: bool = True) -> T:
        """Carry out `act` in a transaction. It may be repeated by nobody, and sees all before it.

        Args:
            act: What to do.
            durable: On the disk on return. Otherwise a loss of power may undo it, as long as no durable write follows.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        job: _Write[T] = _Write(act)
        if durable or not self._jot(cast("_Write[object]", job)):
            self._queue.append(cast("_Write[object]", job))
            if not self._writing:
                self._commit()
            with trio.CancelScope(shield=True):  # what is in the hands of a thread cannot be taken back
                await job.done.wait()
        if job.error is not None:
            if isinstance(job.error, AuditUnwritable):
                self.problem = job.error.message
            raise job.error
        self.problem = ""
        return cast("T", job.result)

    def _jot(self, job: _Write[object]) -> bool:
        """Write it at once, without waiting for the disk. False while anybody else is writing: nobody waits here."""
        if self._writing:
            return False
        try:
            self._jotter.execute("BEGIN IMMEDIATE")
        except sqlite3.Error:  # another process's turn; anything worse meets the writer too
            return False
        _transact(self._jotter, [job], begun=True)
        return True

    def _commit(self) -> None:
        """Have a thread write what is there. Not by `to_thread`: what that adds costs as much as the write."""
        batch = list(self._queue)
        self._queue.clear()
        self._writing = True
        token = trio.lowlevel.current_trio_token()
        trio.lowlevel.start_thread_soon(
            lambda: _transact(self._writer, batch), lambda _: token.run_sync_soon(self._committed, batch)
        )

    def _committed(self, batch: list[_Write[object]]) -> None:
        for job in batch:
            job.done.set()
        self._writing = False
        if self._queue:
            self._commit()

    async def read(self, act: Callable[[sqlite3.Connection], T]) -> T:
        """Carry out `act` on what is committed, in a thread."""
        return await trio.to_thread.run_sync(_read, self._reader, act, limiter=self._reading)

    async def _list(self, statement: str, values: Sequence[object] = ()) -> list[rows.Row]:
        """What may be many rows, or takes a look at many."""
        return await self.read(lambda connection: list(sqlite_utils.Database(connection).query(statement, values)))

    def _find(self, statement: str, values: Sequence[object] = ()) -> list[rows.Row]:
        """A few rows by an index of their table, at once."""
        return _read(self._finder, lambda connection: _select(connection, statement, values))

    # ---- Sessions ----

    async def offer(self, offer: Offer) -> tuple[Session, bool]:
        """Enter a session, or find the one that the same request entered before.

        Returns:
            The session, and whether it is new.

        Raises:
            SessionReplayed: Another request used this session id.
        """
        try:
            session = await self.write(lambda connection: _enter(connection, offer))
        except sqlite3.IntegrityError:  # the id was here before
            existing = self._session_row(offer.session_id, offer.party_id)
        else:
            self._wake(offer.session_id, offer.party_id)
            return session, True
        if existing is None or existing["request_digest"] != offer.request_digest:
            raise SessionReplayed(
                f"session {offer.session_id} was used before, with another request",
                "ask the coordinator for a new session",
            )
        return rows.session_of(existing), False

    async def note(
        self,
        session: Session,
        step: Step,
        *,
        round_number: int = 0,
        detail: dict[str, object] | None = None,
        columns: dict[str, object] | None = None,
        audited: dict[str, object] | None = None,
    ) -> None:
        """Add a journal row for a step that ends nothing; durable where its step is (`daemon.session.TELLING`).

        columns: of the session. audited: subject of an audit row.
        """

        def act(connection: sqlite3.Connection) -> None:
            _note(connection, session, step, detail or {}, columns or {}, round_number=round_number)
            if audited is not None:
                audit.append(connection, "tssd", str(step), about(session) | audited)

        await self.write(act, durable=audited is not None or step not in TELLING)
        self._wake(session.session_id, session.party_id)

    async def end(self, session: Session, error: DaemonError, *, report: bool) -> bool:
        """A session that failed, and why.

        Args:
            session: The session.
            error: What ended it.
            report: Also tell the coordinator.

        Returns:
            False where nothing was to be ended: it has a result, or a pending share that goes on being confirmed.
        """
        step, detail, columns = _told(error)

        def act(connection: sqlite3.Connection) -> bool:
            now_in = _in_progress(connection, session.session_id, session.party_id)
            if now_in is None or now_in.step in {Step.PENDING, Step.CONFIRMED}:
                return False
            _note(connection, session, step, detail, columns)
            audit.append(connection, "tssd", f"session-{step}", about(session) | detail)
            if report:
                _put(connection, "report", session, {"error": f"{detail['reason']}: {error.message}"})
            return True

        ended = await self.write(act)
        self._wake(session.session_id, session.party_id, over=True)
        self._wake_outbox()
        return ended

    async def blame(self, session: Session, fault: wire.FaultReport) -> None:
        """A peer broke the rules, as `fault` says, with its evidence. Its session names it, even a completed one."""
        culprits = rows.compact(list(fault.culprits))
        subject: dict[str, object] = {
            "reason": fault.reason,
            "detail": fault.detail,
            "culprits": list(fault.culprits),
            "authenticated": fault.authenticated,
            "evidence": [statement.hex() for statement in fault.evidence],
        }

        def act(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE session_states SET culprits = ? WHERE session_id = ? AND party_id = ?",
                (culprits, str(session.session_id), str(session.party_id)),
            )
            audit.append(connection, "tssd", "peer-fault", about(session) | subject)

        await self.write(act)

    async def session(self, session_id: SessionId, party_id: PartyId | None = None) -> Session:
        """One session.

        Raises:
            UnknownSession: There is none, or several parties of ours are in it and none was named.
        """
        found = self._find(
            "SELECT * FROM session_states WHERE session_id = ?1 AND (?2 IS NULL OR party_id = ?2)",
            (str(session_id), None if party_id is None else str(party_id)),
        )
        if not found:
            raise UnknownSession(f"there is no session {session_id} here", "the list of sessions has those that are")
        if len(found) > 1:
            names = ", ".join(row["party_id"] for row in found)
            raise UnknownSession(f"several parties of ours are in session {session_id}: {names}", "name the party id")
        return rows.session_of(found[0])

    async def sessions(
        self,
        *,
        status: SessionStatus | None = None,
        type_: SessionType | None = None,
        party_id: PartyId | None = None,
        before: datetime | None = None,
        limit: int = 100,
    ) -> list[Session]:
        """Sessions, newest first."""
        found = await self._list(
            "SELECT * FROM session_states WHERE (?1 IS NULL OR status = ?1) AND (?2 IS NULL OR session_type = ?2)"
            " AND (?3 IS NULL OR party_id = ?3) AND (?4 IS NULL OR started_at < ?4)"
            " ORDER BY started_at DESC, id LIMIT ?5",
            (status, type_, _text(party_id), before and timestamp(before), limit),
        )
        return [rows.session_of(row) for row in found]

    async def journal(self, session_id: SessionId, party_id: PartyId, after: int = 0) -> list[JournalEntry]:
        """A session's journal after a row."""
        found = self._find(
            "SELECT * FROM journal WHERE session_id = ? AND party_id = ? AND number > ? ORDER BY number",
            (str(session_id), str(party_id), after),
        )
        return [rows.journal_of(row) for row in found]

    async def follow(
        self, session_id: SessionId, party_id: PartyId | None = None, after: int = 0, *, pace: float = 0
    ) -> AsyncGenerator[list[JournalEntry]]:
        """A session's journal after a row, live, what is new at a time; ends after the row that ends the session.

        Args:
            session_id: The session.
            party_id: Whose; needed where several parties of ours are in it.
            after: Number of the last row that is known.
            pace: Seconds between two looks, at least; the end is told at once.

        Raises:
            UnknownSession: As for `session`.
        """
        key = session_id, (await self.session(session_id, party_id)).party_id
        while True:
            news = self._news.setdefault(key, _News())
            changed = news.changed
            entries = await self.journal(*key, after)
            if entries:
                after = entries[-1].number
                yield entries
            # Without entries it may have ended before the row that we were told to begin after.
            last = entries[-1].step if entries else (await self.session(*key)).step
            if last in STATUS_OF:
                self._news.pop(key, None)
                return
            await changed.wait()
            if pace:
                with trio.move_on_after(pace):
                    await news.over.wait()

    async def interrupted(self) -> list[Interrupted]:
        """Sessions that are in progress and have no pending share: at start, those that a crash or stop ended."""
        found = await self._list(
            "SELECT session_id, party_id, seat, channel, step FROM session_states AS s WHERE status = 'in_progress'"
            " AND NOT EXISTS (SELECT 1 FROM party_shares AS p"
            " WHERE p.session_id = s.session_id AND p.party_id = s.party_id AND p.status = 'pending')"
        )
        quiet = {Step.OFFERED, Step.PREPARING, Step.JOINING}  # that it was begun may be lost with the power
        return [
            Interrupted(
                session_id=SessionId(row["session_id"]),
                party_id=PartyId(row["party_id"]),
                seat=row["seat"],
                channel=None if row["channel"] is None else Channel(row["channel"]),
                begun=Step(row["step"]) not in quiet,
            )
            for row in found
        ]

    async def request_digest(self, session_id: SessionId, party_id: PartyId) -> str:
        """Digest of the request that entered a session.

        Raises:
            UnknownSession: None did.
        """
        row = self._session_row(session_id, party_id)
        if row is None:
            raise UnknownSession(f"there is no session {session_id} here")
        return str(row["request_digest"])

    def _session_row(self, session_id: SessionId, party_id: PartyId) -> rows.Row | None:
        found = self._find(
            "SELECT * FROM session_states WHERE session_id = ? AND party_id = ?", (str(session_id), str(party_id))
        )
        return found[0] if found else None

    def _wake(self, session_id: SessionId, party_id: PartyId, *, over: bool = False) -> None:
        news = self._news.get((session_id, party_id))
        if news is not None:
            news.changed.set()
            news.changed = trio.Event()
            if over:
                news.over.set()
                del self._news[session_id, party_id]

    # ---- Shares ----

    async def share(self, share_id: ShareId) -> Share:
        """One share.

        Raises:
            UnknownShare: There is none.
        """
        return rows.share_of(self._share_row(share_id))

    async def sealed_row(self, share_id: ShareId) -> wire.ShareRow:
        """A share as the custodian takes it.

        Raises:
            UnknownShare: There is none.
        """
        return rows.share_row(self._share_row(share_id))

    def _share_row(self, share_id: ShareId) -> rows.Row:
        found = self._find("SELECT * FROM party_shares WHERE id = ?", (str(share_id),))
        if not found:
            raise UnknownShare(f"there is no share {share_id} here", "the list of shares has those that are")
        return found[0]

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
        found = await self._list(
            "SELECT * FROM party_shares WHERE (?1 IS NULL OR party_id = ?1) AND (?2 IS NULL OR public_key = ?2)"
            " AND (?3 IS NULL OR share_type = ?3) AND (?4 IS NULL OR status = ?4) AND (?5 IS NULL OR id > ?5)"
            " ORDER BY id LIMIT ?6",
            (_text(party_id), _text(public_key), share_type, status, _text(after), limit),
        )
        return [rows.share_of(row) for row in found]

    async def active_share(self, party_id: PartyId, public_key: PublicKey) -> Share:
        """The share that signs for this key.

        Raises:
            ShareNotActive: There are shares of this key, none of them active.
            NoActiveShare: There is no share of this key.
        """
        found = self._find(
            "SELECT * FROM party_shares WHERE public_key = ? AND party_id = ?"
            " ORDER BY status = 'active' DESC, created_at DESC LIMIT 1",
            (str(public_key), str(party_id)),
        )
        if found:
            share = rows.share_of(found[0])
            if share.status is ShareStatus.ACTIVE:
                return share
            raise ShareNotActive(
                f"no active share for this public key: share {share.share_id} is {share.status}",
                "list the shares of this key to see what became of them",
            )
        raise NoActiveShare("no active share for this public key", "list the shares to find the keys held here")

    async def count_shares(self) -> dict[str, int]:
        """Shares by status; every status is there."""
        found = await self._list("SELECT status, count(*) AS count FROM party_shares GROUP BY status")
        return dict.fromkeys(map(str, ShareStatus), 0) | {row["status"]: row["count"] for row in found}

    async def pending_shares(self) -> list[Share]:
        """Shares that wait for confirmations."""
        return await self.shares(status=ShareStatus.PENDING, limit=-1)

    async def recent_keys(self, since: datetime) -> list[Share]:
        """Sealed shares that became active after a moment: their peers may still ask for confirmations."""
        found = await self._list(
            "SELECT * FROM party_shares WHERE status = 'active' AND channel = 'sealed' AND updated_at > ?",
            (timestamp(since),),
        )
        return [rows.share_of(row) for row in found]

    async def pend(self, session: Session, row: wire.ShareRow, fingerprints: tuple[bytes, ...]) -> None:
        """Store a finished keygen's share as pending.

        Raises:
            Refused: A value in it serves another key already.
        """

        def act(connection: sqlite3.Connection) -> None:
            moment = timestamp(now())
            columns = rows.share_columns(row) | {"status": "pending", "created_at": moment, "updated_at": moment}
            connection.execute(*rows.insert("party_shares", columns))
            try:
                connection.executemany(
                    "INSERT INTO fingerprints (fingerprint, share_id) VALUES (?, ?)",
                    [(fingerprint, row.share_id) for fingerprint in fingerprints],
                )
            except sqlite3.IntegrityError:
                raise Refused("a modulus or parameter of this keygen serves another key already") from None
            public = {"shareId": row.share_id, "publicKey": row.public_key.hex()}
            known = {"share_id": row.share_id, "public_key": row.public_key.hex()}
            _note(connection, session, Step.PENDING, dict(public), dict(known))
            audit.append(connection, "tssd", "share-pending", about(session) | public)

        await self.write(act)
        self._wake(session.session_id, session.party_id)

    async def confirmations(self, share_id: ShareId) -> dict[str, bytes]:
        """The statements that confirm a share, by the party that states it."""
        found = self._find(
            "SELECT from_party, statement FROM confirmations WHERE share_id = ? ORDER BY from_party", (str(share_id),)
        )
        return {row["from_party"]: row["statement"] for row in found}

    async def add_confirmations(self, share: Share, statements: dict[str, bytes]) -> None:
        """Keep statements that the custodian has checked."""

        def act(connection: sqlite3.Connection) -> None:
            for party, statement in statements.items():
                added = connection.execute(
                    "INSERT OR IGNORE INTO confirmations (share_id, from_party, statement) VALUES (?, ?, ?)",
                    (str(share.share_id), party, statement),
                ).rowcount
                if added:
                    session = _in_progress(connection, share.session_id, share.party_id)
                    if session is not None:
                        _note(connection, session, Step.CONFIRMED, {"by": party}, {})
                    audit.append(connection, "tssd", "share-confirmed", {"shareId": str(share.share_id), "by": party})

        await self.write(act)
        self._wake(share.session_id, share.party_id)

    async def activate(self, share: Share, *, confirmed: bool) -> bool:
        """The share becomes active; report and events enter the outbox. False where it may not.

        Args:
            share: The pending share, or one that was given up and has its complete set after all: its session stays
                failed.
            confirmed: False for plain committees, where nobody can confirm.
        """

        def act(connection: sqlite3.Connection) -> bool:
            session = _session(connection, share)
            if session.status is SessionStatus.COMPLETED:  # and what became of the share since is another matter
                return False
            if not _set_status(connection, share.share_id, ShareStatus.ACTIVE):
                return False
            moment = now()
            public: dict[str, object] = {"shareId": str(share.share_id), "publicKey": str(share.public_key)}
            if not session.status.final:
                _note(connection, session, Step.COMPLETED, public | {"confirmed": confirmed}, {})
            audit.append(
                connection,
                "tssd",
                "share-active" if confirmed else "share-active-unconfirmed",
                about(session) | public,
            )
            _put(connection, "report", session, {"public_key": str(share.public_key)})
            created = ShareCreated(
                share_id=share.share_id,
                party_id=share.party_id,
                session_id=share.session_id,
                share_type=share.type,
                public_key=share.public_key,
                occurred_at=moment,
            )
            completed = KeygenCompleted(
                session_id=share.session_id,
                party_id=share.party_id,
                public_key=share.public_key,
                share_id=share.share_id,
                occurred_at=moment,
            )
            _put(connection, "event", session, created.published())
            _put(connection, "event", session, completed.published())
            return True

        activated = await self.write(act)
        self._wake(share.session_id, share.party_id, over=True)
        self._wake_outbox()
        return activated

    async def give_up(self, share: Share, error: DaemonError, *, report: bool) -> bool:
        """A keygen whose share will not be confirmed: the share is set aside, the session has failed.

        Args:
            share: The pending share.
            error: Why nobody need wait any longer.
            report: Also tell the coordinator.

        Returns:
            False where it was not pending any more: what is active stays so.
        """
        step, detail, columns = _told(error)

        def act(connection: sqlite3.Connection) -> bool:
            session = _session(connection, share)
            if session.status.final or not _set_status(connection, share.share_id, ShareStatus.QUARANTINED):
                return False
            _note(connection, session, step, detail, columns)
            subject = about(session) | detail | {"shareId": str(share.share_id)}
            audit.append(connection, "tssd", "share-given-up", subject)
            if report:
                _put(connection, "report", session, {"error": f"{detail['reason']}: {error.message}"})
            return True

        given_up = await self.write(act)
        self._wake(share.session_id, share.party_id, over=True)
        self._wake_outbox()
        return given_up

    async def complete_signing(
        self, session: Session, share: Share, message: MessageHash, signature: Signature
    ) -> None:
        """A verified signature: the session is completed, the share marked as used, report and event in the outbox."""

        def act(connection: sqlite3.Connection) -> None:
            moment = now()
            columns: dict[str, object] = {"signature": str(signature), "recovery_id": signature.recovery_id}
            public: dict[str, object] = {"signature": str(signature), "recoveryId": signature.recovery_id}
            _note(connection, session, Step.COMPLETED, public, columns)
            connection.execute(
                "UPDATE party_shares SET last_used_at = ? WHERE id = ?", (timestamp(moment), str(share.share_id))
            )
            audit.append(connection, "tssd", "signed", about(session) | {"messageHash": str(message)} | public)
            _put(connection, "report", session, {"signature": str(signature)})
            completed = SigningCompleted(
                session_id=session.session_id,
                party_id=session.party_id,
                message_hash=message,
                signature=signature,
                occurred_at=moment,
            )
            _put(connection, "event", session, completed.published())

        await self.write(act)
        self._wake(session.session_id, session.party_id, over=True)
        self._wake_outbox()

    async def quarantine(self, share_id: ShareId, why: str, actor: str = "tssd") -> None:
        """Set a share aside. Harmless when it is already, or cannot be any more."""

        def act(connection: sqlite3.Connection) -> None:
            if _set_status(connection, share_id, ShareStatus.QUARANTINED):
                audit.append(connection, actor, "share-quarantined", {"shareId": str(share_id), "why": why})

        await self.write(act)

    async def reseal(self, row: wire.ShareRow) -> None:
        """Replace a share's sealed data by the same share under another KEK version, in one commit."""

        def act(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE party_shares SET share_data = ?, updated_at = updated_at WHERE id = ?",
                (rows.sealed_json(row.sealed), row.share_id),
            )
            audit.append(connection, "tssd", "share-resealed", {"shareId": row.share_id, "kek": row.sealed.kek_version})

        await self.write(act)

    async def sealed_before(self, kek_version: int, limit: int = 100) -> list[wire.ShareRow]:
        """Shares that are not under this KEK version yet and may still be opened.

        A rotated share stays as it is: the custodian opens no generation that a newer one has replaced.
        """
        found = await self._list(
            "SELECT * FROM party_shares WHERE json_extract(share_data, '$.kek') < ?"
            " AND status IN ('pending', 'active') ORDER BY id LIMIT ?",
            (kek_version, limit),
        )
        return [rows.share_row(row) for row in found]

    async def count_sealed_before(self, kek_version: int) -> int:
        """How many of them there are."""
        found = await self._list(
            "SELECT count(*) AS count FROM party_shares WHERE json_extract(share_data, '$.kek') < ?"
            " AND status IN ('pending', 'active')",
            (kek_version,),
        )
        return int(found[0]["count"])

    # ---- Outbox ----

    async def waiting(self, kind: str, limit: int = 100) -> list[Waiting]:
        """What has not left yet, oldest first."""
        found = self._find(
            "SELECT * FROM outbox WHERE kind = ? AND delivered_at IS NULL ORDER BY number LIMIT ?", (kind, limit)
        )
        return [
            Waiting(
                number=row["number"],
                kind=row["kind"],
                session_id=SessionId(row["session_id"]),
                party_id=PartyId(row["party_id"]),
                payload=json.loads(row["payload"]),
                attempts=row["attempts"],
                created_at=datetime.fromisoformat(row["created_at"]),
            )
            for row in found
        ]

    async def delivered(self, numbers: list[int], refused: str | None = None) -> None:
        """These have left. refused: the other side took note and will never accept them; why."""

        def act(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "UPDATE outbox SET delivered_at = ?, refused = ?, attempts = attempts + 1 WHERE number = ?",
                [(timestamp(now()), refused, number) for number in numbers],
            )
            if refused is not None:
                audit.append(connection, "tssd", "report-refused", {"outbox": numbers, "why": refused})

        await self.write(act, durable=refused is not None)  # forgotten, it leaves once more

    async def attempted(self, number: int) -> None:
        """This one was tried in vain."""
        await self.write(
            lambda connection: connection.execute(
                "UPDATE outbox SET attempts = attempts + 1 WHERE number = ?", (number,)
            ),
            durable=False,
        )

    async def events(self, after: int, limit: int) -> list[Published]:
        """Domain events after a number, oldest first."""
        found = await self._list(
            "SELECT number, payload FROM outbox WHERE kind = 'event' AND number > ? ORDER BY number LIMIT ?",
            (after, limit),
        )
        return [Published(number=row["number"], event=json.loads(row["payload"])) for row in found]

    def outbox_grown(self) -> trio.Event:
        """Set once something enters the outbox from now on: take it first, then look, then wait."""
        return self._outbox

    def _wake_outbox(self) -> None:
        self._outbox.set()
        self._outbox = trio.Event()

    async def backlog(self) -> dict[str, tuple[int, datetime | None]]:
        """How many rows of each kind wait, and since when the oldest does."""
        found = await self._list(
            "SELECT kind, count(*) AS count, min(created_at) AS oldest FROM outbox"
            " WHERE delivered_at IS NULL GROUP BY kind"
        )
        return {row["kind"]: (row["count"], datetime.fromisoformat(row["oldest"])) for row in found}

    # ---- Pre-parameters ----

    async def prepared_count(self, protocol: str) -> int:
        """Sets that are ready."""
        found = await self._list(
            "SELECT count(*) AS count FROM pre_params WHERE protocol = ? AND status = 'ready'", (protocol,)
        )
        return int(found[0]["count"])

    async def add_prepared(self, row: wire.PreparedRow) -> None:
        """Put a set into the pool."""
        columns = rows.prepared_columns(row) | {"status": "ready", "made_at": timestamp(now())}

        def act(connection: sqlite3.Connection) -> None:
            connection.execute(*rows.insert("pre_params", columns))
            audit.append(connection, "tssd", "prepared", {"preparedId": row.prepared_id})

        await self.write(act)

    async def spend_prepared(self, session: Session, protocol: str) -> wire.PreparedRow | None:
        """Take the oldest set out of the pool, for ever; None where there is none."""

        def act(connection: sqlite3.Connection) -> wire.PreparedRow | None:
            found = _select(
                connection,
                "SELECT * FROM pre_params WHERE protocol = ? AND status = 'ready' ORDER BY made_at LIMIT 1",
                (protocol,),
            )
            if not found:
                return None
            row = rows.prepared_of(found[0])
            connection.execute(
                "UPDATE pre_params SET status = 'spent', spent_at = ?, sealed = '{}' WHERE prepared_id = ?",
                (timestamp(now()), row.prepared_id),
            )
            _note(connection, session, Step.PREPARING, {"preparedId": row.prepared_id}, {})
            return row

        row = await self.write(act)
        self._wake(session.session_id, session.party_id)
        return row

    async def known_fingerprints(self) -> tuple[bytes, ...]:
        """Values that stored shares and their committees use."""
        found = await self._list("SELECT fingerprint FROM fingerprints LIMIT ?", (KNOWN_FINGERPRINTS_MAX,))
        return tuple(row["fingerprint"] for row in found)

    # ---- Pins ----

    async def pins(self) -> wire.SignedPins | None:
        """The newest pin list; None before anybody was pinned."""
        found = self._find("SELECT body, signature FROM peers ORDER BY number DESC LIMIT 1")
        return wire.SignedPins(body=found[0]["body"], signature=found[0]["signature"]) if found else None

    async def add_pins(self, pins: wire.Pins, caller: str, action: str) -> None:
        """Keep a list that the custodian has verified or signed."""

        def act(connection: sqlite3.Connection) -> None:
            keep_pins(connection, pins)
            audit.append(connection, caller, action, {"pins": pins.number})

        await self.write(act)

    # ---- Audit ----

    async def audited(self, actor: str, action: str, subject: dict[str, object]) -> None:
        """Add an audit row on its own."""
        await self.write(lambda connection: audit.append(connection, actor, action, subject))

    async def audit_rows(self, after: int, limit: int) -> list[audit.AuditRow]:
        """Audit rows after a number, oldest first."""
        return await self.read(lambda connection: audit.rows(connection, after, limit))

    async def audit_head(self) -> tuple[int, bytes]:
        """Number and digest of the newest audit row."""
        return await self.read(audit.head)

    async def newest_checkpoint(self) -> wire.Checkpointed | None:
        """The newest signed head of the audit log."""
        return await self.read(audit.newest_checkpoint)

    async def keep_checkpoint(self, checkpoint: wire.Checkpointed) -> None:
        """Store a signed head."""
        await self.write(lambda connection: audit.keep_checkpoint(connection, checkpoint))

    async def verify_audit(self, identities: Collection[bytes]) -> audit.AuditVerdict:
        """Go over the whole log; arguments as in `audit.verify`."""

        def act() -> audit.AuditVerdict:
            with closing(connect(self._path)) as connection:  # of its own: a long log must not hold up other readers
                return _read(connection, lambda connection: audit.verify(connection, identities))

        return await trio.to_thread.run_sync(act)


@asynccontextmanager
async def open_store(path: Path) -> AsyncIterator[Store]:
    """Open the store, made or brought up to date where needed; mode 0600.

    Raises:
        Refused: The file cannot be opened, is another program's, or a newer tssd's.
    """
    try:
        writer, reader, finder, jotter = [await trio.to_thread.run_sync(connect, path) for _ in range(4)]
        # In trio's own thread nothing waits: not for another process, nor for the disk.
        for pragma in ("busy_timeout = 0", "synchronous = NORMAL", "wal_autocheckpoint = 0"):
            jotter.execute(f"PRAGMA {pragma}")
    except (sqlite3.Error, OSError) as error:
        raise Refused(f"the share store {path} cannot be opened: {error}", "look at service.state_directory") from None
    try:
        yield Store(path, writer, reader, finder, jotter)
    finally:
        jotter.close()
        finder.close()
        reader.close()
        writer.close()


def connect(path: Path) -> sqlite3.Connection:
    """A connection as every user of the store must have it; the tables are there and up to date."""
    # Only a new file is opened here: to close any descriptor of a file drops all locks that this process has on it,
    # SQLite's own among them. Another process would then take itself for the last one, and delete the log under us.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(
        path, timeout=BUSY_MILLISECONDS / 1000, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
    schema.bring_up_to_date(connection)
    return connection


def keep_pins(connection: sqlite3.Connection, pins: wire.Pins) -> None:
    """Store a signed pin list inside the transaction that is open."""
    connection.execute(
        "INSERT OR REPLACE INTO peers (number, body, signature, at) VALUES (?, ?, ?, ?)",
        (pins.number, pins.signed.body, pins.signed.signature, timestamp(now())),
    )


def _transact(connection: sqlite3.Connection, batch: list[_Write[object]], *, begun: bool = False) -> None:
    """Carry out a batch in one transaction, each in a savepoint of its own. Errors are left in the jobs."""
    try:
        if not begun:
            connection.execute("BEGIN IMMEDIATE")
        for job in batch:
            connection.execute("SAVEPOINT job")
            try:
                job.result = job.act(connection)
            except Exception as error:
                if isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.IntegrityError):
                    raise
                job.error = error
                connection.execute("ROLLBACK TO job")
            connection.execute("RELEASE job")
        connection.execute("COMMIT")
    except BaseException as error:  # noqa: BLE001  whatever it was, nothing of the batch is stored
        for job in batch:
            job.error = _in_our_words(error)
        with suppress(sqlite3.Error):  # then no transaction can begin any more, and everybody is told
            if connection.in_transaction:
                connection.execute("ROLLBACK")


def _read(connection: sqlite3.Connection, act: Callable[[sqlite3.Connection], T]) -> T:
    try:
        return act(connection)
    except sqlite3.Error as error:
        raise _in_our_words(error) from error


def _in_our_words(error: BaseException) -> BaseException:
    if isinstance(error, sqlite3.OperationalError):
        return AuditUnwritable(
            f"the share store cannot be used: {error}", "make room on, or repair, the disk of service.state_directory"
        )
    if isinstance(error, sqlite3.Error):
        return Broken(f"the share store is not what was written: {error}")
    return error


def _select(connection: sqlite3.Connection, statement: str, values: Sequence[object]) -> list[rows.Row]:
    found = connection.execute(statement, values)
    names = [name for name, *_ in found.description]
    return [dict(zip(names, row, strict=True)) for row in found]


def _text(value: object | None) -> str | None:
    return None if value is None else str(value)


def about(session: Session) -> dict[str, object]:
    """Which session an audit row is about."""
    return {"sessionId": str(session.session_id), "partyId": str(session.party_id), "type": str(session.type)}


def _told(error: DaemonError) -> tuple[Step, dict[str, object], dict[str, object]]:
    """An error as the step that ends a session: the row's detail, and the session's columns."""
    step = Step.TIMEOUT if outcome(error) is SessionStatus.TIMEOUT else Step.FAILED
    culprits = [str(party) for party in getattr(error, "culprits", ())]
    hearsay = [str(party) for party in getattr(error, "hearsay", ())]
    reason = getattr(error, "reason", error.kind)
    detail: dict[str, object] = {
        "reason": reason,
        "message": error.message,
        "culprits": culprits,
        "hearsay": hearsay,
        "authenticated": getattr(error, "authenticated", True),
        "waitsFor": [str(party) for party in getattr(error, "waits_for", ())],
    }
    columns: dict[str, object] = {
        "reason": reason,
        "error_message": error.message,
        "culprits": rows.compact(culprits),
        "hearsay": rows.compact(hearsay),
    }
    return step, detail, columns


def _enter(connection: sqlite3.Connection, offer: Offer) -> Session:
    moment = timestamp(now())
    columns = {
        "id": str(uuid4()),
        "session_id": str(offer.session_id),
        "party_id": str(offer.party_id),
        "session_type": offer.type,
        "status": SessionStatus.IN_PROGRESS,
        "step": Step.OFFERED,
        "request_digest": offer.request_digest,
        "share_type": offer.share_type,
        "public_key": _text(offer.public_key),
        "message_hash": _text(offer.message_hash),
        "started_at": moment,
    }
    connection.execute(*rows.insert("session_states", columns))
    ids = (str(offer.session_id), str(offer.party_id))
    _journal(connection, ids, Step.OFFERED, 0, {})
    subject: dict[str, object] = {
        "sessionId": ids[0],
        "partyId": ids[1],
        "type": str(offer.type),
        "request": offer.request_digest,
    }
    audit.append(connection, offer.caller, "accepted", subject)
    session = _in_progress(connection, offer.session_id, offer.party_id)
    assert session is not None  # noqa: S101  narrows the type: it was just entered
    return session


def _in_progress(connection: sqlite3.Connection, session_id: SessionId, party_id: PartyId) -> Session | None:
    found = _select(
        connection,
        "SELECT * FROM session_states WHERE session_id = ? AND party_id = ? AND status = 'in_progress'",
        (str(session_id), str(party_id)),
    )
    return rows.session_of(found[0]) if found else None


def _session(connection: sqlite3.Connection, share: Share) -> Session:
    """The session that made a share."""
    (found,) = _select(
        connection,
        "SELECT * FROM session_states WHERE session_id = ? AND party_id = ?",
        (str(share.session_id), str(share.party_id)),
    )
    return rows.session_of(found)


def _note(
    connection: sqlite3.Connection,
    session: Session,
    step: Step,
    detail: dict[str, object],
    columns: dict[str, object],
    *,
    round_number: int = 0,
) -> None:
    """A journal row, and what it says about its session. A session that has ended takes none."""
    changes: dict[str, object] = columns | {"step": step, "status": STATUS_OF.get(step, SessionStatus.IN_PROGRESS)}
    if round_number:
        changes["current_round"] = round_number
    if step in STATUS_OF:
        changes["completed_at"] = timestamp(now())
    assignments = ", ".join(f"{name} = ?" for name in changes)
    ids = (str(session.session_id), str(session.party_id))
    changed = connection.execute(
        f"UPDATE session_states SET {assignments} WHERE session_id = ? AND party_id = ? AND status = 'in_progress'",  # noqa: S608  names are ours
        (*changes.values(), *ids),
    ).rowcount
    if not changed:
        raise Broken(f"session {ids[0]} of {ids[1]} has ended; '{step}' cannot follow")
    _journal(connection, ids, step, round_number, detail)


def _journal(
    connection: sqlite3.Connection, ids: tuple[str, str], step: Step, round_number: int, detail: dict[str, object]
) -> None:
    columns = {
        "session_id": ids[0],
        "party_id": ids[1],
        "step": step,
        "round": round_number,
        "detail": rows.compact(detail),
        "at": timestamp(now()),
    }
    connection.execute(*rows.insert("journal", columns))


def _set_status(connection: sqlite3.Connection, share_id: ShareId, status: ShareStatus) -> bool:
    """Change a share's status where that is legal; whether it was."""
    found = connection.execute("SELECT status FROM party_shares WHERE id = ?", (str(share_id),)).fetchone()
    if found is None or status not in LEGAL[ShareStatus(found[0])]:
        return False
    connection.execute(
        "UPDATE party_shares SET status = ?, updated_at = ? WHERE id = ?",
        (status, timestamp(now()), str(share_id)),
    )
    return True


def _put(connection: sqlite3.Connection, kind: str, session: Session, payload: dict[str, str]) -> None:
    columns = {
        "kind": kind,
        "session_id": str(session.session_id),
        "party_id": str(session.party_id),
        "payload": rows.compact(payload),
        "created_at": timestamp(now()),
    }
    connection.execute(*rows.insert("outbox", columns))
