"""The HTTP face of the daemon's commands and queries: `/mpc-party/...`, `/metrics`, `/openapi.json`, `/docs`."""

# No `from __future__ import annotations` here: FastAPI reads the annotations of these functions.
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from html import escape
from http import HTTPStatus
from importlib.metadata import version
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Header, Path, Query, Request
from fastapi.responses import HTMLResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import WithJsonSchema

from daemon.api import problems
from daemon.api.access import Access, Role, Standing, require
from daemon.api.bodies import (
    UUID,
    Accepted,
    AuditPage,
    AuditRowInfo,
    AuditVerdictInfo,
    ConfirmationsInfo,
    ConfirmationsRequest,
    CustodyInfo,
    EventList,
    Health,
    KeygenRequest,
    NumberedQuery,
    OneSession,
    PeerList,
    Ready,
    ResealProgress,
    ResealStarted,
    SessionInfo,
    SessionList,
    SessionQuery,
    ShareInfo,
    ShareList,
    ShareQuery,
    SigningRequest,
    StepInfo,
    SuccessionRequest,
)
from daemon.api.progress import EventStream
from daemon.desk import Caller, Desk, ParticipateKeygen, ParticipateSigning
from daemon.errors import InvalidValue
from daemon.events import timestamp
from daemon.values import PartyId, PublicKey, SessionId, ShareId, now

T = TypeVar("T")
PACE_SECONDS: Final = 0.5
"""Between two looks at a session's progress: each costs about as much as a message of the protocol."""
JOURNAL_MAX: Final = 2**63 - 1
"""The largest number a journal row can have."""


# Asynchronous, though none of them waits: FastAPI gives each of the others to a thread, for every request.


async def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


async def _standing(request: Request) -> Standing:
    access: Access = request.app.state.access
    return access.judge(request.state.peer, request.headers.get("authorization"))


Uuid = Annotated[
    str, Path(examples=["7c9e6679-7425-40de-944b-e07fc1f90ae7"]), WithJsonSchema({"type": "string", "pattern": UUID})
]
At = Annotated[Desk, Depends(_desk)]
Known = Annotated[Standing, Depends(_standing)]


async def _viewer(standing: Known) -> Caller:
    require(standing, Role.VIEWER)
    return Caller(name=standing.name, share_types=standing.share_types)


async def _participant(standing: Known) -> Caller:
    require(standing, Role.PARTICIPANT)
    return Caller(name=standing.name, share_types=standing.share_types)


async def _operator(standing: Known) -> Caller:
    require(standing, Role.OPERATOR)
    return Caller(name=standing.name, share_types=standing.share_types)


Participant = Annotated[Caller, Depends(_participant)]
Operator = Annotated[Caller, Depends(_operator)]

anybody = APIRouter(prefix="/mpc-party")
viewing = APIRouter(prefix="/mpc-party", dependencies=[Depends(_viewer)])
acting = APIRouter(prefix="/mpc-party")
surroundings = APIRouter(dependencies=[Depends(_viewer)])


def application(desk: Desk, access: Access) -> FastAPI:
    """The whole API, over this desk; `request.state.peer` must hold the caller (daemon/api/server.py puts it there)."""
    app = FastAPI(
        title="tssd",
        version=version("tssd"),
        description="One party of a threshold wallet. HTTP/1.1 over a Unix socket; the caller's uid and groups decide.",
        openapi_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.desk = desk
    app.state.access = access
    for router in (anybody, viewing, acting, surroundings):
        app.include_router(router, responses=problems.RESPONSES)
    problems.install(app)
    return app


# ---- Ceremonies ----


@acting.post("/keygen/participate", status_code=HTTPStatus.ACCEPTED)
async def participate_keygen(body: KeygenRequest, desk: At, caller: Participant) -> Accepted:
    """Take part in a keygen. Accepted at once; the same request again is harmless."""
    session = await desk.participate_keygen(
        ParticipateKeygen(
            session_id=body.session_id,
            party_id=body.party_id,
            join_token=body.join_token,
            share_type=body.share_type,
            threshold=body.threshold,
            parties=None if body.parties is None else frozenset(body.parties),
        ),
        caller,
    )
    return _accepted("keygen", session.session_id, session.party_id)


@acting.post("/signing/participate", status_code=HTTPStatus.ACCEPTED)
async def participate_signing(body: SigningRequest, desk: At, caller: Participant) -> Accepted:
    """Take part in a signing. Accepted at once; the same request again is harmless."""
    session = await desk.participate_signing(
        ParticipateSigning(
            session_id=body.session_id,
            party_id=body.party_id,
            join_token=body.join_token,
            message_hash=body.message_hash,
            public_key=body.public_key,
        ),
        caller,
    )
    return _accepted("signing", session.session_id, session.party_id)


def _accepted(what: str, session_id: SessionId, party_id: PartyId) -> Accepted:
    return Accepted(message=f"{what} accepted", session_id=str(session_id), party_id=str(party_id))


# ---- Shares and sessions ----


@viewing.get("/shares")
async def list_shares(query: Annotated[ShareQuery, Query()], desk: At) -> ShareList:
    """The shares we hold, without their data."""
    shares = await desk.shares(
        party_id=_party(query.party_id),
        public_key=None if query.public_key is None else _named("publicKey", PublicKey.parse, query.public_key),
        share_type=query.share_type,
        status=query.status,
        after=None if query.after is None else _named("after", ShareId, query.after),
        limit=query.limit,
    )
    return ShareList(shares=[ShareInfo.of(share) for share in shares])


@viewing.get("/shares/{share_id}")
async def get_share(share_id: Uuid, desk: At) -> ShareInfo:
    """One share, without its data."""
    return ShareInfo.of(await desk.share(_named("share_id", ShareId, share_id)))


@acting.post("/shares/{share_id}/quarantine")
async def quarantine_share(share_id: Uuid, desk: At, caller: Operator) -> ShareInfo:
    """Wait no longer for the confirmations of a pending share. With the complete set it becomes active all the same."""
    return ShareInfo.of(await desk.quarantine(_named("share_id", ShareId, share_id), caller))


@viewing.get("/sessions")
async def list_sessions(query: Annotated[SessionQuery, Query()], desk: At) -> SessionList:
    """The sessions we took part in, newest first."""
    sessions = await desk.sessions(
        status=query.status,
        type=query.type,
        party_id=_party(query.party_id),
        before=None if query.before is None else _named("before", _moment, query.before),
        limit=query.limit,
    )
    return SessionList(sessions=[SessionInfo.of(session) for session in sessions])


@viewing.get("/sessions/{session_id}")
async def get_session(session_id: Uuid, query: Annotated[OneSession, Query()], desk: At) -> SessionInfo:
    """One session: status, round, culprits, result."""
    return SessionInfo.of(await desk.session(_session(session_id), _party(query.party_id)))


@viewing.get(
    "/sessions/{session_id}/events",
    status_code=HTTPStatus.OK,
    response_class=EventStream,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def follow_session(
    session_id: Uuid,
    query: Annotated[OneSession, Query()],
    desk: At,
    last_event_id: Annotated[int, Header(ge=0, le=JOURNAL_MAX)] = 0,
) -> Response:
    """Server-sent events: every step of the session so far, then each as it comes, until its outcome."""
    session, party = _session(session_id), _party(query.party_id)
    await desk.session(session, party)  # so that an unknown one is answered 404, not with an empty stream
    return EventStream(_steps(desk, session, party, last_event_id))


async def _steps(
    desk: Desk, session: SessionId, party: PartyId | None, after: int
) -> AsyncGenerator[list[StepInfo], None]:
    async with aclosing(desk.follow(session, party, after, pace=PACE_SECONDS)) as news:
        async for entries in news:
            yield [StepInfo.of(entry) for entry in entries]


@viewing.get("/sessions/{session_id}/confirmations")
async def get_confirmations(session_id: Uuid, query: Annotated[OneSession, Query()], desk: At) -> ConfirmationsInfo:
    """Who has confirmed the share that this keygen made, and their signed statements."""
    return ConfirmationsInfo.of(await desk.confirmations(_session(session_id), _party(query.party_id)))


@acting.post("/sessions/{session_id}/confirmations")
async def take_confirmations(
    session_id: Uuid, body: ConfirmationsRequest, desk: At, caller: Operator
) -> ConfirmationsInfo:
    """Give us signed statements that we lack; a complete set activates the share."""
    session = _session(session_id)
    return ConfirmationsInfo.of(await desk.take_confirmations(session, body.party_id, body.statements, caller))


# ---- Events, peers, custody, audit ----


@viewing.get("/events")
async def list_events(query: Annotated[NumberedQuery, Query()], desk: At) -> EventList:
    """The domain events after a number, for consumers that poll."""
    return EventList.of(await desk.events(query.after, query.limit))


@viewing.get("/peers")
async def list_peers(desk: At) -> PeerList:
    """Our identity and the pinned nodes. Pins are made by `tssctl peers`, on the operator's terminal."""
    return PeerList.of(await desk.peers())


@acting.post("/peers/succession")
async def succeed(body: SuccessionRequest, desk: At, caller: Operator) -> PeerList:
    """Replace a pinned identity by the successor that it signed for."""
    return PeerList.of(await desk.succeed(body.statement, caller))


@viewing.get("/custody")
async def get_custody(desk: At) -> CustodyInfo:
    """The custodian and its HSM."""
    return CustodyInfo.of(await desk.custody())


@acting.post("/custody/rotate-kek", status_code=HTTPStatus.ACCEPTED)
async def rotate_kek(desk: At, caller: Operator) -> ResealStarted:
    """Make a new version of the key-encryption key and seal every share anew under it, in the background."""
    kek_version, shares = await desk.rotate_kek(caller)
    return ResealStarted(message="resealing has begun", kek_version=kek_version, shares=shares)


@viewing.get("/custody/rotate-kek")
async def get_reseal_progress(desk: At) -> ResealProgress:
    """How far sealing shares anew under the newest version of the key-encryption key is."""
    return ResealProgress.of(*await desk.to_reseal())


@viewing.get("/audit")
async def list_audit(query: Annotated[NumberedQuery, Query()], desk: At) -> AuditPage:
    """The audit log after a row's number."""
    return AuditPage(rows=[AuditRowInfo.of(row) for row in await desk.audit(query.after, query.limit)])


@acting.post("/audit/verify")
async def verify_audit(desk: At, _: Operator) -> AuditVerdictInfo:
    """Walk the whole audit log, its chain and its signed checkpoints."""
    return AuditVerdictInfo.of(await desk.verify_audit())


# ---- Health and description ----


@anybody.get("/health")
async def health() -> Health:
    """Alive. Asked without role or token."""
    return Health(status="ok", timestamp=timestamp(now()), service="tssd")


@viewing.get("/ready", responses={503: {"model": Ready, "description": "Not able to sign; the reasons say why"}})
async def ready(desk: At, response: Response) -> Ready:
    """Able to sign now, and if not, why."""
    readiness = await desk.readiness()
    response.status_code = HTTPStatus.OK if readiness.ready else HTTPStatus.SERVICE_UNAVAILABLE
    return Ready.of(readiness)


@surroundings.get(
    "/metrics", response_class=Response, responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
)
async def metrics(desk: At) -> Response:
    """Prometheus text."""
    await desk.refresh_metrics()
    return Response(generate_latest(desk.metrics.registry), media_type=CONTENT_TYPE_LATEST)


@surroundings.get("/openapi.json")
async def openapi(request: Request) -> dict[str, Any]:
    """This description."""
    return problems.described(request.app)


@surroundings.get("/docs", response_class=HTMLResponse)
async def docs(request: Request) -> HTMLResponse:
    """The routes on one page, without anything from elsewhere."""
    rows = "\n".join(
        f"<tr><td>{method.upper()} <code>{escape(path)}</code><td>{escape(operation['description'])}"
        for path, operations in problems.described(request.app)["paths"].items()
        for method, operation in operations.items()
    )
    head = "<!doctype html><meta charset=utf-8><title>tssd</title><h1>tssd</h1><p><a href=openapi.json>OpenAPI</a>"
    return HTMLResponse(f"{head}<table>{rows}</table>")


# ---- Values in paths and queries ----


def _named(field: str, parse: Callable[[str], T], text: str) -> T:
    """Parse a value of a path or query; a refusal names the field."""
    try:
        return parse(text)
    except InvalidValue as error:
        raise InvalidValue(f"{field}: {error.message}", field) from None


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidValue("must be a time with a zone, such as 2026-01-31T12:00:00Z")
    return moment.astimezone(UTC)


def _session(text: str) -> SessionId:
    return _named("session_id", SessionId, text)


def _party(text: str | None) -> PartyId | None:
    return None if text is None else _named("partyId", PartyId, text)
