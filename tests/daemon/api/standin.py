"""A desk that answers from what a test put on it, served on a real Unix socket."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import httpx
import trio
from prometheus_client import CollectorRegistry, Counter

from daemon.api import server
from daemon.desk import AuditRow, AuditVerdict, Confirmations, Peers, Readiness
from daemon.errors import UnknownSession, UnknownShare
from daemon.events import Published
from daemon.session import JournalEntry, Session, SessionStatus, SessionType, Step
from daemon.settings import AccessSettings, JwtSettings
from daemon.share import Share, ShareStatus
from daemon.values import (
    Channel,
    Committee,
    PartyId,
    Protocol,
    PublicKey,
    Seat,
    SessionId,
    ShareId,
    ShareType,
    Threshold,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

    from daemon.desk import Caller, Desk, ParticipateKeygen, ParticipateSigning

SESSION = SessionId("7c9e6679-7425-40de-944b-e07fc1f90ae7")
PARTY = PartyId("user123-server")
KEY = PublicKey.parse("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")
THEN = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
ME = f"uid:{os.getuid()}"

SHARE = Share(
    share_id=ShareId("11111111-2222-4333-8444-555555555555"),
    party_id=PARTY,
    session_id=SESSION,
    type=ShareType.WALLET,
    public_key=KEY,
    threshold=Threshold(2, 3),
    committee=Committee(tuple(Seat(n + 1, PartyId(f"user123-{kind}")) for n, kind in enumerate(["server", "a", "b"]))),
    protocol=Protocol.GG18_V3,
    channel=Channel.SEALED,
    generation=0,
    status=ShareStatus.ACTIVE,
    created_at=THEN,
    updated_at=THEN,
    last_used_at=None,
)


def session(party: PartyId = PARTY, kind: SessionType = SessionType.SIGN) -> Session:
    return Session(
        session_id=SESSION,
        party_id=party,
        type=kind,
        status=SessionStatus.IN_PROGRESS,
        step=Step.OFFERED,
        round=0,
        rounds=0,
        waits_for=(),
        culprits=(),
        hearsay=(),
        reason="",
        error_message="",
        public_key=KEY,
        message_hash=None,
        share_id=SHARE.share_id,
        signature=None,
        started_at=THEN,
        completed_at=None,
    )


def entry(number: int, step: Step) -> JournalEntry:
    return JournalEntry(
        number=number, session_id=SESSION, party_id=PARTY, step=step, round=number, detail={"rounds": 9}, at=THEN
    )


@dataclass
class StandIn:
    """The face of daemon/desk.py. fails: raised by every call while set."""

    access: AccessSettings = field(default_factory=lambda: AccessSettings.model_validate({"operator": [ME]}))
    jwt: JwtSettings | None = None
    fails: Exception | None = None
    asked: list[tuple[str, Any]] = field(default_factory=list)
    journal: list[JournalEntry] = field(default_factory=lambda: [entry(1, Step.OFFERED), entry(2, Step.COMPLETED)])
    hold: trio.Event | None = None
    to_go: tuple[int, ...] = (3, 2, 1, 0)
    """Shares that a rotation of the KEK has left, each time somebody asks."""
    refused: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.settings = SimpleNamespace(access=self.access, jwt=self.jwt)
        self.metrics = SimpleNamespace(registry=CollectorRegistry())
        Counter("tssd_sessions", "Sessions.", registry=self.metrics.registry).inc()

    async def _asked(self, name: str, *what: object) -> None:
        self.asked.append((name, what))
        if self.hold is not None:
            await self.hold.wait()
        if self.fails is not None:
            raise self.fails

    async def participate_keygen(self, command: ParticipateKeygen, caller: Caller) -> Session:
        await self._asked("participate_keygen", command, caller)
        return session(command.party_id, SessionType.KEYGEN)

    async def participate_signing(self, command: ParticipateSigning, caller: Caller) -> Session:
        await self._asked("participate_signing", command, caller)
        return session(command.party_id)

    async def succeed(self, statement: bytes, caller: Caller) -> Peers:
        await self._asked("succeed", statement, caller)
        return await self.peers()

    async def take_confirmations(
        self, session_id: SessionId, party_id: PartyId | None, statements: list[bytes], caller: Caller
    ) -> Confirmations:
        await self._asked("take_confirmations", session_id, party_id, statements, caller)
        return await self.confirmations(session_id)

    async def rotate_kek(self, caller: Caller) -> tuple[int, int]:
        await self._asked("rotate_kek", caller)
        return 2, 3

    async def to_reseal(self) -> tuple[int, dict[str, str]]:
        await self._asked("to_reseal")
        self.to_go = self.to_go[1:] or self.to_go
        return self.to_go[0], self.refused

    async def share(self, share_id: ShareId) -> Share:
        await self._asked("share", share_id)
        if share_id != SHARE.share_id:
            raise UnknownShare(f"no share {share_id}", "list the shares")
        return SHARE

    async def quarantine(self, share_id: ShareId, caller: Caller) -> Share:
        await self._asked("quarantine", share_id, caller)
        return replace(await self.share(share_id), status=ShareStatus.QUARANTINED)

    async def shares(self, **wanted: object) -> list[Share]:
        await self._asked("shares", wanted)
        return [SHARE]

    async def session(self, session_id: SessionId, party_id: PartyId | None = None) -> Session:
        await self._asked("session", session_id, party_id)
        if session_id != SESSION:
            raise UnknownSession(f"no session {session_id}")
        return session()

    async def sessions(self, **wanted: object) -> list[Session]:
        await self._asked("sessions", wanted)
        return [session()]

    async def follow(
        self, session_id: SessionId, party_id: PartyId | None = None, after: int = 0, *, pace: float = 0
    ) -> AsyncGenerator[list[JournalEntry], None]:
        await self._asked("follow", session_id, party_id, after, pace)
        yield [each for each in self.journal if each.number > after]

    async def events(self, after: int = 0, limit: int = 100) -> list[Published]:
        await self._asked("events", after, limit)
        return [Published(number=after + 1, event={"type": "ShareCreated"})]

    async def peers(self) -> Peers:
        await self._asked("peers")
        return Peers(number=0, pins=(), identity=b"\x02" + bytes(32))

    async def custody(self) -> Any:  # noqa: ANN401  any object with the fields of wire.Status
        await self._asked("custody")
        return SimpleNamespace(
            state="ready",
            reason="",
            token_label="tssd",  # noqa: S106  a label
            token_serial="1",  # noqa: S106  a number
            token_model="SoftHSM v2",  # noqa: S106  a name
            tier="A",
            kek_version=1,
            identity=b"\x02",
            earlier_identities=(),
            pins_number=0,
            pins_problem="",
            chain_count=0,
            chain_head=b"",
            chain_problem="",
            ceremonies=0,
            arena_used=0,
            arena_size=1,
            hsm_operations=0,
            hsm_errors=0,
            plain_committees=0,
        )

    async def confirmations(self, session_id: SessionId, party_id: PartyId | None = None) -> Confirmations:
        await self._asked("confirmations", session_id, party_id)
        return Confirmations(
            session_id=session_id,
            party_id=PARTY,
            share_id=SHARE.share_id,
            confirmed=("user123-server",),
            missing=("user123-a",),
            statements=(b"signed",),
        )

    async def audit(self, after: int = 0, limit: int = 100) -> list[AuditRow]:
        await self._asked("audit", after, limit)
        row = AuditRow(
            number=1,
            at=THEN,
            actor="uid:0",
            action="keygen",
            subject={"session": str(SESSION)},
            previous=bytes(32),
            digest=bytes(32),
        )
        return [row]

    async def verify_audit(self) -> AuditVerdict:
        await self._asked("verify_audit")
        return AuditVerdict(whole=True, rows=1, checkpoints=0, last_checkpoint=0, problem="")

    async def readiness(self) -> Readiness:
        await self._asked("readiness")
        return Readiness(ready=False, reasons=("the token is away: plug it in",), notes=())

    async def refresh_metrics(self) -> None:
        await self._asked("refresh_metrics")


@asynccontextmanager
async def served(desk: StandIn, directory: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The API on a Unix socket in this directory, and a client of it."""
    path = directory / "tssd.sock"
    socket = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    await socket.bind(str(path))
    socket.listen()
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    async with (
        httpx.AsyncClient(transport=transport, base_url="http://tssd", timeout=5) as client,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(server.serve, cast("Desk", desk), [trio.SocketListener(socket)])
        yield client
        nursery.cancel_scope.cancel()
