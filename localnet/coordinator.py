"""The reference session coordinator: says who sits in a session, with which threshold, for which key.

It speaks the interface the daemon is a client of (`POST /sessions/join`, `POST /sessions/report-completion`,
`GET /sessions/{id}/status`), and, for whoever wants a ceremony, `POST /sessions`. It keeps everything in memory: it is
for trials and tests. In the same process a test can script it: `Coordinator.alter` and `Coordinator.down` for all
sessions, `Coordinator.scripts` for one, down to the bytes of the answer and to whom it tells what.
"""

from __future__ import annotations

import secrets
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

import jwt
import msgspec
import trio
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from localnet.serving import answer, read_body, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from starlette.requests import Request

BODY_MAX: Final = 64 * 1024
TOKEN_SECONDS: Final = 3600
THRESHOLD_MIN: Final = 2
SessionType = Literal["keygen", "sign"]
SessionStatus = Literal["in_progress", "completed", "failed"]
Hex = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{2})+$", max_length=130)]


class CoordinatorRefused(Exception):
    """The request cannot be served. status: the HTTP status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Member(msgspec.Struct, frozen=True):
    """A party of a session. party_index: zero-based."""

    party_id: str
    party_index: int


class SessionInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a session is about, as every party of it is told. public_key and message_hash: lower-case hex."""

    session_id: str
    session_type: SessionType
    threshold_n: int
    threshold_t: int
    public_key: str | None = None
    message_hash: str | None = None


class JoinAnswer(msgspec.Struct, frozen=True):
    """Answer to a join: the session and everybody else in it."""

    session_info: SessionInfo
    other_parties: tuple[Member, ...]
    party_index: int


class StatusAnswer(msgspec.Struct, frozen=True):
    """How far a session is. reported: the parties whose report has come."""

    session_id: str
    session_type: SessionType
    status: SessionStatus
    joined: tuple[str, ...]
    reported: tuple[str, ...]
    public_key: str | None
    signature: str | None


class Invitation(msgspec.Struct, frozen=True):
    """A new session and, per party, the token it joins with."""

    session_id: str
    join_tokens: dict[str, str]


class _Join(msgspec.Struct, frozen=True):
    session_id: str
    party_id: str
    join_token: str


class Report(msgspec.Struct, frozen=True):
    """A party's word that it is done. signature: 64 bytes r||s, hex."""

    session_id: str
    party_id: str
    public_key: Hex | None = None
    signature: Hex | None = None


class _Create(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    session_type: SessionType
    parties: tuple[str, ...]
    threshold_t: int | None = None
    public_key: Hex | None = None
    message_hash: Hex | None = None


@dataclass
class Session:
    """One session. members: who was invited; a signing has its t signers, not all n holders."""

    info: SessionInfo
    members: tuple[Member, ...]
    joined: set[str] = field(default_factory=set)
    reports: dict[str, Report] = field(default_factory=dict)
    over: trio.Event = field(default_factory=trio.Event)

    @property
    def status(self) -> SessionStatus:
        """Completed when all reports are in and say the same; failed when they differ."""
        results = {(report.public_key, report.signature) for report in self.reports.values()}
        if len(results) > 1:
            return "failed"
        return "completed" if len(self.reports) == len(self.members) else "in_progress"

    def result(self) -> Report | None:
        """Any one report, for they all say the same; None while the session is not completed."""
        return next(iter(self.reports.values())) if self.status == "completed" else None


@dataclass(frozen=True)
class _Key:
    threshold: int
    members: tuple[Member, ...]


Script: TypeAlias = "Callable[[str, dict[str, object]], dict[str, object] | Response]"
"""What a party (by its id) that joins is told in place of the honest answer."""


class Coordinator:
    """Sessions, their tokens and their reports.

    Attributes:
        sessions: All sessions by id.
        down: While true, every request is answered 503.
        alter: Applied to each successful answer before it leaves: `alter(route, body)`, with the route `join`, `report`
            or `status` and the JSON object, returns the object to send. A test lies through it.
        scripts: What parties that join a session are told, by session id.
    """

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.down = False
        self.alter: Callable[[str, dict[str, object]], dict[str, object]] | None = None
        self.scripts: dict[str, Script] = {}
        self._keys: dict[str, _Key] = {}
        self._token_key = secrets.token_bytes(32)

    def serving(self, *, port: int = 0) -> AbstractAsyncContextManager[str]:
        """Serve on 127.0.0.1 while the block runs; gives the base address."""
        routes = [
            Route("/sessions", self._create, methods=["POST"]),
            Route("/sessions/join", self._join, methods=["POST"]),
            Route("/sessions/report-completion", self._report, methods=["POST"]),
            Route("/sessions/{session_id}/status", self._status, methods=["GET"]),
        ]
        return serving(Starlette(routes=routes), port=port)

    # ---- For whoever wants a ceremony ----

    def create_keygen(self, parties: Sequence[str], threshold: int) -> Invitation:
        """Invite all n parties to make a key of which `threshold` sign."""
        if len(set(parties)) != len(parties) or not THRESHOLD_MIN <= threshold <= len(parties):
            raise CoordinatorRefused(400, "a keygen needs distinct parties and 2 <= threshold_t <= their number")
        members = tuple(Member(party_id, index) for index, party_id in enumerate(parties))
        return self._open(SessionInfo(str(uuid.uuid4()), "keygen", len(members), threshold), members)

    def create_signing(self, public_key: str, parties: Sequence[str], message_hash: str) -> Invitation:
        """Invite t holders of a key made here to sign a 32-byte hash, given in hex."""
        key = self._keys.get(public_key)
        if key is None:
            raise CoordinatorRefused(404, "no completed keygen has this public key")
        members = tuple(member for member in key.members if member.party_id in set(parties))
        if len(members) != len(parties) or len(members) != key.threshold:
            raise CoordinatorRefused(400, f"a signing needs exactly {key.threshold} holders of the key")
        if len(message_hash) != 2 * SHA256.digest_size:
            raise CoordinatorRefused(400, "message_hash must be 32 bytes in hex")
        info = SessionInfo(str(uuid.uuid4()), "sign", len(key.members), key.threshold, public_key, message_hash)
        return self._open(info, members)

    async def outcome(self, session_id: str) -> Session:
        """Wait until all reports are in, or two of them differ."""
        session = self._session(session_id)
        await session.over.wait()
        return session

    def _open(self, info: SessionInfo, members: tuple[Member, ...]) -> Invitation:
        self.sessions[info.session_id] = Session(info, members)
        tokens = {member.party_id: self._token(info.session_id, member.party_id) for member in members}
        return Invitation(info.session_id, tokens)

    def _token(self, session_id: str, party_id: str) -> str:
        expires = int(time.time()) + TOKEN_SECONDS
        return jwt.encode({"sid": session_id, "sub": party_id, "exp": expires}, self._token_key, algorithm="HS256")

    # ---- For the parties ----

    def join(self, session_id: str, party_id: str, join_token: str) -> JoinAnswer:
        """Let a party in; the same again gives the same answer."""
        try:
            claims = jwt.decode(
                join_token, self._token_key, algorithms=["HS256"], options={"require": ["exp", "sub", "sid"]}
            )
        except jwt.InvalidTokenError as error:
            raise CoordinatorRefused(401, f"the join token does not hold: {error}") from None
        session = self._session(session_id)
        if claims["sid"] != session_id or claims["sub"] != party_id:
            raise CoordinatorRefused(403, "the join token is for another party or session")
        session.joined.add(party_id)
        others = tuple(member for member in session.members if member.party_id != party_id)
        (own,) = (member.party_index for member in session.members if member.party_id == party_id)
        return JoinAnswer(session.info, others, own)

    def report(self, report: Report) -> None:
        """Take a party's report; the same again is harmless, another one is a conflict."""
        session = self._session(report.session_id)
        if report.party_id not in session.joined:
            raise CoordinatorRefused(403, "this party has not joined the session")
        wanted = report.public_key if session.info.session_type == "keygen" else report.signature
        if wanted is None:
            raise CoordinatorRefused(400, "the report lacks the result of the session")
        if session.info.session_type == "sign" and not _holds(session.info, wanted):
            raise CoordinatorRefused(422, "the signature does not verify under the session's key and hash")
        if session.reports.setdefault(report.party_id, report) != report:
            raise CoordinatorRefused(409, "this party has reported something else before")
        if session.status == "completed" and session.info.session_type == "keygen":
            self._keys[wanted] = _Key(session.info.threshold_t, session.members)
        if session.status != "in_progress":
            session.over.set()

    def status(self, session_id: str) -> StatusAnswer:
        """How far a session is."""
        session = self._session(session_id)
        result = session.result()
        return StatusAnswer(
            session_id=session_id,
            session_type=session.info.session_type,
            status=session.status,
            joined=tuple(sorted(session.joined)),
            reported=tuple(sorted(session.reports)),
            public_key=result.public_key if result else session.info.public_key,
            signature=result.signature if result else None,
        )

    def _session(self, session_id: str) -> Session:
        try:
            return self.sessions[session_id]
        except KeyError:
            raise CoordinatorRefused(404, "no such session") from None

    # ---- HTTP ----

    async def _create(self, request: Request) -> Response:
        def create(body: bytes) -> Invitation:
            wanted = msgspec.json.decode(body, type=_Create)
            if wanted.session_type == "keygen":
                return self.create_keygen(wanted.parties, wanted.threshold_t or 0)
            return self.create_signing(wanted.public_key or "", wanted.parties, wanted.message_hash or "")

        return await self._serve("create", request, create)

    async def _join(self, request: Request) -> Response:
        def join(body: bytes) -> object:
            wanted = msgspec.json.decode(body, type=_Join)
            honest = self.join(wanted.session_id, wanted.party_id, wanted.join_token)
            script = self.scripts.get(wanted.session_id)
            return honest if script is None else script(wanted.party_id, msgspec.to_builtins(honest))

        return await self._serve("join", request, join)

    async def _report(self, request: Request) -> Response:
        def report(body: bytes) -> dict[str, bool]:
            self.report(msgspec.json.decode(body, type=Report))
            return {"success": True}

        return await self._serve("report", request, report)

    async def _status(self, request: Request) -> Response:
        return await self._serve("status", request, lambda _: self.status(request.path_params["session_id"]))

    async def _serve(self, route: str, request: Request, act: Callable[[bytes], object]) -> Response:
        if self.down:
            return answer({"error": "down for maintenance"}, 503)
        body = await read_body(request, BODY_MAX)
        if body is None:
            return answer({"error": f"a body has at most {BODY_MAX} bytes"}, 413)
        try:
            made = act(body)
        except msgspec.MsgspecError as error:
            return answer({"error": str(error)}, 400)
        except CoordinatorRefused as error:
            return answer({"error": str(error)}, error.status)
        if isinstance(made, Response):
            return made
        result: dict[str, object] = msgspec.to_builtins(made)
        return answer(self.alter(route, result) if self.alter else result)


def _holds(info: SessionInfo, signature: str) -> bool:
    """Whether a reported signature is one of the session's key over its hash."""
    raw = bytes.fromhex(signature)
    half = SHA256.digest_size
    der = utils.encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), bytes.fromhex(info.public_key or ""))
    try:
        key.verify(der, bytes.fromhex(info.message_hash or ""), ec.ECDSA(utils.Prehashed(SHA256())))
    except InvalidSignature:
        return False
    return True
