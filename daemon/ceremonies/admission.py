"""Who may start what: expectations, replay, busy shares, capacity; and the clocks under which an admitted session runs.

A request is either refused at once, with the reason, or entered into the store and carried out. From then on its
errors are the session's: `carry_out` is the one place where what a ceremony raised becomes the end of its session.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Final, TypeVar

import structlog
import trio

from daemon.errors import (
    AuditUnwritable,
    Broken,
    Busy,
    DaemonError,
    InvalidValue,
    NotPermitted,
    Overdue,
    Refused,
    Restarted,
    SessionReplayed,
    TokenLost,
    UnknownSession,
    Unreachable,
)
from daemon.network.connection import delays
from daemon.session import SessionType
from daemon.shares.store import Offer
from daemon.values import Channel, PartyId, Protocol, Threshold

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from daemon.custody.client import Custodian
    from daemon.metrics import Metrics
    from daemon.session import Session
    from daemon.settings import Settings
    from daemon.share import Share
    from daemon.shares.store import Store
    from daemon.values import JoinToken, MessageHash, PublicKey, SessionId, ShareId, ShareType

T = TypeVar("T")

log = structlog.get_logger(__name__)

RETRY_SECONDS: Final = 2
"""What a full house tells to wait: about one signing."""
STOPPING_SECONDS: Final = 30
"""What a stopping daemon tells to wait: about one restart."""
LAST_WORDS_SECONDS: Final = 3.0
"""For writing down the end of a session while everything is being cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks. name: for the audit log, such as `uid:1000`. share_types: what they are narrowed to; None: all."""

    name: str
    share_types: frozenset[ShareType] | None = None

    def check(self, share_type: ShareType) -> None:
        """Raises NotPermitted for a share type that the caller may not use."""
        if self.share_types is not None and share_type not in self.share_types:
            raise NotPermitted(f"{self.name} may not use {share_type} shares", "see [access.share_types]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipateKeygen:
    """Take part in a keygen. threshold, parties: what the coordinator's session must say; None: not told."""

    session_id: SessionId
    party_id: PartyId
    join_token: JoinToken
    share_type: ShareType
    threshold: int | None
    parties: frozenset[PartyId] | None

    type: ClassVar = SessionType.KEYGEN

    def expected(self) -> dict[str, object]:
        """What makes two requests the same, besides session, party and type."""
        parties = None if self.parties is None else sorted(str(party) for party in self.parties)
        return {"shareType": str(self.share_type), "threshold": self.threshold, "parties": parties}


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipateSigning:
    """Take part in a signing. public_key: whose; None: not told."""

    session_id: SessionId
    party_id: PartyId
    join_token: JoinToken
    message_hash: MessageHash
    public_key: PublicKey | None

    type: ClassVar = SessionType.SIGN

    def expected(self) -> dict[str, object]:
        """What makes two requests the same, besides session, party and type."""
        return {
            "messageHash": str(self.message_hash),
            "publicKey": None if self.public_key is None else str(self.public_key),
        }


Participate = ParticipateKeygen | ParticipateSigning


@dataclass(eq=False)
class Running:
    """A session under way.

    Attributes:
        session: As it was entered; the store has what became of it.
        caller: Who asked for it.
        waits_for: Party ids, or the named reason of a wait.
        progressed_at: trio's clock at the last protocol progress.
        over_at: trio's clock when the protocol was over; what is still said is for peers that lag.
    """

    session: Session
    caller: Caller
    seconds: float
    stall_seconds: float
    waits_for: tuple[str, ...] = ()
    progressed_at: float = field(default_factory=trio.current_time)
    share_id: ShareId | None = None
    over_at: float | None = None
    gathering: bool = False
    """Peers may still have to come, or to search for their primes: that is no stall for half of the session's time."""
    _total: trio.CancelScope = field(default_factory=trio.CancelScope)
    _stall: trio.CancelScope = field(default_factory=trio.CancelScope)

    def progressed(self) -> None:
        """Protocol progress, and nothing else, sets the stall clock back."""
        self.progressed_at = trio.current_time()
        if self._stall.deadline != math.inf:
            self._stall.deadline = self.progressed_at + self.stall_seconds
            if self.gathering:
                self._stall.deadline = max(self._stall.deadline, self._total.deadline - self.seconds / 2)

    def gathered(self) -> None:
        """Everybody has spoken: whoever is silent from now on stalls."""
        self.gathering = False
        self.progressed()

    def stop_clocks(self) -> float:
        """The protocol is over; what follows has bounds of its own. The seconds that were left."""
        self.over_at = trio.current_time()
        left = max(0.0, self._total.deadline - trio.current_time())
        self._total.deadline = self._stall.deadline = math.inf
        return left

    @property
    def over(self) -> bool:
        """The protocol is."""
        return self.over_at is not None

    @property
    def overdue(self) -> bool:
        """One of the clocks has run out."""
        return self._total.cancel_called or self._stall.cancel_called

    async def persistently(self, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try until it is reached; the session's clocks are the bound."""
        waits = delays()
        while True:
            self.waits_for = (what,)
            try:
                return await attempt()
            except Unreachable as error:
                self.waits_for = (f"{what}: {error.message}",)
                log.warning("waiting", on=what, session_id=str(self.session.session_id), problem=error.message)
            await trio.sleep(next(waits))

    async def under_clocks(self, ceremony: Callable[[Running], Awaitable[None]]) -> None:
        """Run a ceremony under the total and the stall clock.

        Raises:
            Overdue: One of them ran out.
        """
        self._total.deadline = trio.current_time() + self.seconds
        with self._total:
            self._stall.deadline = self._total.deadline  # not stopped: `progressed` sets it
            self.progressed()
            with self._stall:
                await ceremony(self)
            if self._stall.cancelled_caught:
                raise self._overdue(f"no progress for {self._stall.deadline - self.progressed_at:.3g} s")
        if self._total.cancelled_caught:
            raise self._overdue(f"not finished within {self.seconds:g} s")

    def _overdue(self, message: str) -> Overdue:
        waited = f"; waiting for {', '.join(self.waits_for)}" if self.waits_for else ""
        return Overdue(f"{self.session.type}: {message}{waited}", self.waits_for)


class Admission:
    """The door. Attributes: running: sessions under way. stopping: nothing is admitted any more."""

    def __init__(self, settings: Settings, store: Store, custodian: Custodian, metrics: Metrics) -> None:
        self.running: dict[tuple[SessionId, PartyId], Running] = {}
        self.stopping = False
        self._settings = settings
        self._store = store
        self._custodian = custodian
        self._metrics = metrics
        self._one_at_a_time = trio.Lock()
        self._ended = trio.Event()
        self._own = frozenset(PartyId(party) for party in settings.custodian.party_ids)

    async def admit(self, command: Participate, caller: Caller) -> tuple[Session, Running | None]:
        """Enter a session.

        Returns:
            The session, and what to carry out; None where the same request came before.

        Raises:
            InvalidValue, NotPermitted, SessionReplayed, NoActiveShare, ShareNotActive: As they say.
            Busy: The house is full; at once, nothing queues.
            TokenLost: The custodian is not ready.
            AuditUnwritable: The decision could not be written down.
        """
        try:
            async with self._one_at_a_time:
                return await self._admit(command, caller)
        except Refused as refusal:
            self._metrics.refused.labels(refusal.kind).inc()
            if not isinstance(refusal, Busy | AuditUnwritable):
                subject: dict[str, object] = {
                    "sessionId": str(command.session_id),
                    "partyId": str(command.party_id),
                    "type": str(command.type),
                    "reason": refusal.kind,
                }
                await self._store.audited(caller.name, "refused", subject)
            raise

    async def _admit(self, command: Participate, caller: Caller) -> tuple[Session, Running | None]:
        if command.party_id not in self._own:
            raise NotPermitted(f"{command.party_id} is no party of this node", "its parties are custodian.party_ids")
        self._check_expectations(command)
        digest = _digest(command)
        known = await self._known(command, digest)
        if known is not None:
            return known, None
        share = await self._check_share(command, caller)
        self._check_capacity(command, share)
        session, fresh = await self._store.offer(
            Offer(
                session_id=command.session_id,
                party_id=command.party_id,
                type=command.type,
                request_digest=digest,
                share_type=_share_type(command, share),
                public_key=command.public_key if isinstance(command, ParticipateSigning) else None,
                message_hash=command.message_hash if isinstance(command, ParticipateSigning) else None,
                caller=caller.name,
            )
        )
        if not fresh:
            return session, None
        limits = self._settings.limits
        seconds = limits.keygen_seconds if command.type is SessionType.KEYGEN else limits.signing_seconds
        running = Running(
            session,
            caller,
            seconds,
            limits.stall_seconds,
            share_id=None if share is None else share.share_id,
            gathering=command.type is SessionType.KEYGEN,
        )
        self.running[command.session_id, command.party_id] = running
        return session, running

    def _check_expectations(self, command: Participate) -> None:
        if isinstance(command, ParticipateKeygen):
            missing = [name for name in ("threshold", "parties") if getattr(command, name) is None]
            if len(missing) == 1:
                raise InvalidValue("threshold and parties come together", missing[0])
            if command.threshold is not None and command.parties is not None:
                Threshold(command.threshold, len(command.parties))
                if command.party_id not in command.parties:
                    raise InvalidValue(f"parties must name all, {command.party_id} included", "parties")
        else:
            missing = ["publicKey"] if command.public_key is None else []
        if not missing:
            return
        if self._settings.policy.require_expectations:
            raise InvalidValue(
                f"a {command.type} request states {' and '.join(missing)}",
                missing[0],
                "state what is expected of the session, or set policy.require_expectations = false knowing the cost",
            )
        log.warning("request without expectations", session_id=str(command.session_id), missing=missing)
        self._metrics.unexpecting.inc()

    async def _known(self, command: Participate, digest: str) -> Session | None:
        """The session, where the same request entered it before."""
        try:
            known = await self._store.request_digest(command.session_id, command.party_id)
        except UnknownSession:
            return None
        if known != digest:
            raise SessionReplayed(
                f"session {command.session_id} was used before, with another request",
                "ask the coordinator for a new session",
            )
        return await self._store.session(command.session_id, command.party_id)

    async def _check_share(self, command: Participate, caller: Caller) -> Share | None:
        if isinstance(command, ParticipateKeygen):
            caller.check(command.share_type)
            return None
        if command.public_key is None:
            return None
        share = await self._store.active_share(command.party_id, command.public_key)
        caller.check(share.type)
        return share

    def _check_capacity(self, command: Participate, share: Share | None) -> None:
        if self.stopping:
            raise Busy("tssd is stopping", STOPPING_SECONDS)
        if not self._custodian.ready:
            status = self._custodian.status
            reason = self._custodian.reason if status is None else status.reason
            raise TokenLost(reason or "the custodian is not ready", "look at `tssctl hsm status`")
        limits = self._settings.limits
        if len(self.working) >= limits.sessions:
            raise Busy(f"{limits.sessions} sessions are under way, which is limits.sessions", RETRY_SECONDS)
        keygens = sum(running.session.type is SessionType.KEYGEN for running in self.working)
        if command.type is SessionType.KEYGEN and keygens >= limits.keygens:
            raise Busy(f"{limits.keygens} keygens are under way, which is limits.keygens", RETRY_SECONDS)
        if share is not None:
            self.check_alone(share)

    @property
    def working(self) -> list[Running]:
        """What takes memory and time: all but farewells."""
        return [running for running in self.running.values() if not running.over]

    async def wait_idle(self) -> None:
        """Return when no session is under way."""
        while self.running:
            await self._ended.wait()

    def with_waits(self, session: Session) -> Session:
        """The session with what it waits for just now."""
        running = self.running.get((session.session_id, session.party_id))
        return session if running is None else replace(session, waits_for=running.waits_for)

    def observe_waits(self) -> None:
        """Set the gauges that an outage in silence would show in: progress, and what sessions wait for."""
        working = self.working
        types = Counter(running.session.type for running in working)
        for type_ in SessionType:
            self._metrics.running.labels(type_).set(types[type_])
        waits = Counter(_named(running) for running in working)
        for name in ("peers", "router", "coordinator", "pre-parameters", "custodian"):
            self._metrics.waiting.labels(name).set(waits[name])
        newest = max((running.progressed_at for running in working), default=None)
        self._metrics.since_progress.set(0 if newest is None else trio.current_time() - newest)

    def check_alone(self, share: Share, but: Running | None = None) -> None:
        """tss-lib v2 does not bind a signing to its session: bare, only one at a time with a share.

        Raises:
            Busy: There is another one.
        """
        if share.channel is Channel.PLAIN and share.protocol is Protocol.GG18_V2:
            for running in self.running.values():
                if running is not but and running.share_id == share.share_id:
                    raise Busy(f"share {share.share_id} signs plain, one session at a time", RETRY_SECONDS)

    async def carry_out(self, running: Running, ceremony: Callable[[Running], Awaitable[None]]) -> None:
        """Run an admitted ceremony to its end, whatever that is, and write the end down."""
        session = running.session
        named = {"session_id": str(session.session_id), "party_id": str(session.party_id), "type": str(session.type)}
        began = trio.current_time()
        try:
            with structlog.contextvars.bound_contextvars(**named):
                await self._carry_out(running, ceremony)
        finally:
            del self.running[session.session_id, session.party_id]
            self._ended.set()
            self._ended = trio.Event()
            ended = running.over_at or trio.current_time()
            self._metrics.session_seconds.labels(session.type).observe(ended - began)

    async def _carry_out(self, running: Running, ceremony: Callable[[Running], Awaitable[None]]) -> None:
        session = running.session
        try:
            await running.under_clocks(ceremony)
        except BaseException as raised:
            # The edge of a ceremony: whatever it was, its session ends with it.
            leaves = _leaves(raised)
            if not all(isinstance(leaf, Exception) for leaf in leaves):
                with trio.move_on_after(LAST_WORDS_SECONDS, shield=True):
                    await self._end(session, Restarted("tssd was stopped while the session was under way"))
                raise
            error = _one(leaves)
            if isinstance(error, Broken):
                log.exception("ceremony broken", problem=error.message)
            else:
                log.warning("session ended", reason=getattr(error, "reason", error.kind), problem=error.message)
            await self._end(session, error)

    async def _end(self, session: Session, error: DaemonError) -> None:
        """Write the end down, again and again where the disk is full: no session is left hanging."""
        waits = delays()
        while True:
            try:
                ended = await self._store.end(session, error, report=self._settings.coordinator.report_failures)
            except AuditUnwritable as unwritable:
                log.exception("the end of a session cannot be written", problem=unwritable.message)
                await trio.sleep(next(waits))
            else:
                if ended:
                    self._metrics.sessions.labels(session.type, error.kind).inc()
                return


def _named(running: Running) -> str:
    """What a session waits for, as one of a few words."""
    first = running.waits_for[0] if running.waits_for else "custodian"
    word = re.split(r"[ :]", first, maxsplit=1)[0]
    return word if word in {"router", "coordinator", "pre-parameters", "custodian"} else "peers"


def _share_type(command: Participate, share: Share | None) -> ShareType | None:
    if isinstance(command, ParticipateKeygen):
        return command.share_type
    return None if share is None else share.type


def _digest(command: Participate) -> str:
    """Two requests are the same when this is: everything but the join token."""
    said = {
        "session": str(command.session_id),
        "party": str(command.party_id),
        "type": str(command.type),
        **command.expected(),
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _leaves(raised: BaseException) -> list[BaseException]:
    """What exception groups hold, without the groups."""
    if isinstance(raised, BaseExceptionGroup):
        return [leaf for inner in raised.exceptions for leaf in _leaves(inner)]
    return [raised]


def _one(leaves: list[BaseException]) -> DaemonError:
    """The domain error among what a ceremony raised at once; anything else is our defect."""
    for leaf in leaves:
        if isinstance(leaf, DaemonError):
            return leaf
    log.error("defect in a ceremony", exc_info=leaves[0])
    return Broken(f"a defect of tssd: {type(leaves[0]).__name__}")
