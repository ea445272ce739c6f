"""One seat of a ceremony: carries what the router brings across the wall, and what the custodian says to the router.

Nothing here understands a frame. Order, repeats, blame and resends are the custodian's; this side keeps the journal
ahead of what leaves, feeds the stall clock with nothing but protocol progress, and lets time pass for the channel
(`Tick`).
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
import trio

from daemon.custody import wire
from daemon.errors import Broken, Busy, DaemonError, Overdue, PeerFault, Refused, TokenLost
from daemon.session import SessionType, Step
from daemon.shares.store import about
from daemon.values import PartyId
from daemon.wall import RETRY_SECONDS, Altered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from daemon.ceremonies.admission import Running
    from daemon.desk import Desk
    from daemon.network.router import Stream

log = structlog.get_logger(__name__)

HELLO_TICK_SECONDS: Final = 0.1
"""While hellos are due: a hello that came before its receiver is sent again after so long."""
TICK_SECONDS: Final = 0.5
"""Afterwards: as often as the channel sends anything again."""
LAST_WORDS_SECONDS: Final = 3.0
"""For telling the peers that it is over."""


OURS: Final[dict[str, Callable[[str], DaemonError]]] = {
    "refused": Refused,
    "share-altered": Altered,
    "hsm-unavailable": TokenLost,
    "busy": partial(Busy, retry_after=RETRY_SECONDS),
    "rate-limit": partial(Busy, retry_after=RETRY_SECONDS),
    "internal": Broken,
}
"""What the custodian calls it when it could not go on itself; anything else came from another party."""


class Exchange:
    """A seat that is open behind the wall. Made by `open_seat`; used by one task.

    Attributes:
        progress: The custodian's latest word; None before the first.
    """

    def __init__(self, at: Desk, running: Running, stream: Stream, *, plain: bool, ceremony: int, epoch: int) -> None:
        self.progress: wire.Progress | None = None
        self._at = at
        self._running = running
        self._stream = stream
        self._plain = plain
        self._kept = False
        self._ceremony = ceremony
        self._epoch = epoch
        self._steps = 0
        self._round = 0
        self._round_began: float | None = None
        self._drops = 0
        self._abort_ignored = False
        self._blamed: wire.FaultReport | None = None

    async def until(self, *states: str) -> wire.Progress:
        """Carry frames until the ceremony is in one of these states.

        Raises:
            PeerFault: It failed: another party broke the protocol, or gave up. After `keep`: it did, though the set of
                confirmations may still become complete.
            TokenLost, Altered, Busy, Refused, Broken: As for `Wall.ask`.
        """
        return await self._carry(lambda progress: progress.state in states)

    async def until_all_spoke(self) -> wire.Progress:
        """Carry frames until all hellos are in, or without hellos the first round. Raises: As for `until`."""
        return await self._carry(lambda progress: progress.state != "hello" and (not self._plain or progress.round > 1))

    async def until_confirmed(self, parties: int) -> wire.Progress:
        """Carry frames until so many parties have confirmed the result, ours included. Raises: As for `until`."""
        return await self._carry(lambda progress: len(progress.confirmations) >= parties)

    async def _carry(self, enough: Callable[[wire.Progress], bool]) -> wire.Progress:
        next_tick = trio.current_time() + self._tick_seconds()
        while self.progress is None or not enough(self.progress):
            incoming = None
            with trio.move_on_at(next_tick):
                incoming = await self._stream.receive()
            if incoming is None:
                request: wire.Request = wire.Tick(ceremony=self._ceremony)
            elif self._plain:
                request = wire.PlainReceive(
                    ceremony=self._ceremony,
                    sender=incoming.from_party,
                    data=incoming.payload,
                    broadcast=incoming.broadcast,
                )
            else:
                request = wire.Receive(ceremony=self._ceremony, data=incoming.payload)
            await self._tell(request)
            if incoming is None:
                next_tick = trio.current_time() + self._tick_seconds()
        return self.progress

    def _tick_seconds(self) -> float:
        greeting = self.progress is None or self.progress.state == "hello"
        return HELLO_TICK_SECONDS if greeting else TICK_SECONDS

    async def finish_keygen(self) -> wire.KeygenFinished:
        """The sealed share, in state `result`."""
        return await self._at.wall.ask(
            wire.FinishKeygen(ceremony=self._ceremony), wire.KeygenFinished, epoch=self._epoch
        )

    async def finish_signing(self) -> wire.SigningFinished:
        """The signature, in state `result`."""
        return await self._at.wall.ask(
            wire.FinishSigning(ceremony=self._ceremony), wire.SigningFinished, epoch=self._epoch
        )

    async def confirm(self) -> wire.Progress:
        """Send our confirmation, in state `result`; for a keygen, once the share is stored."""
        return await self._tell(wire.Confirm(ceremony=self._ceremony))

    async def say(self, frames: tuple[wire.OutFrame, ...], plain: tuple[wire.PlainMessage, ...]) -> None:
        """Hand over to the router."""
        for frame in frames:
            await self._stream.send(frame.to, frame.round, frame.data)
        for message in plain:
            await self._stream.send(message.to, message.round, message.data)

    async def _tell(self, request: wire.Request) -> wire.Progress:
        progress = await self._at.wall.ask(request, wire.Progress, epoch=self._epoch)
        if progress.steps != self._steps:
            self._steps = progress.steps
            self._running.progressed()
        self._running.waits_for = progress.waits_for
        if progress.drops > self._drops:
            self._at.metrics.channel_drops.inc(progress.drops - self._drops)
            self._drops = progress.drops
        if progress.round > self._round and progress.state not in {"hello", "failed"}:
            await self._enter_round(progress)
        if progress.state in {"result", "confirming", "complete"}:
            self._leave_round()
        self.progress = progress
        await self._write_down(progress)
        await self.say(progress.frames, progress.plain)
        if progress.state == "failed":
            raise _fault(progress.fault)
        if self._kept and progress.fault is not None and progress.state != "complete":
            told = _fault(progress.fault)  # the channel goes on; whether we wait is for our caller
            if isinstance(told, PeerFault):
                raise told
        return progress

    async def _write_down(self, progress: wire.Progress) -> None:
        """What peers did against the rules goes into the audit log, also where the session gets over it."""
        fault, session = progress.fault, self._running.session
        if fault is not None and fault != self._blamed and (fault.culprits or fault.evidence):
            self._blamed = fault
            await self._at.store.blame(session, fault)
        if progress.aborts_ignored and not self._abort_ignored:  # once: anybody can repeat the notice
            self._abort_ignored = True
            await self._at.store.audited("tssd", "abort-ignored", about(session))

    async def _enter_round(self, progress: wire.Progress) -> None:
        """Write the round down before its messages leave."""
        session = self._running.session
        self._leave_round()
        first = self._round == 0 and session.type is SessionType.SIGN
        self._round, self._round_began = progress.round, trio.current_time()
        await self._at.store.note(
            session,
            Step.NONCE_SPENT if first else Step.ROUND,
            round_number=progress.round,
            detail={"rounds": progress.rounds, "waitsFor": list(progress.waits_for)},
            columns={"rounds": progress.rounds},
        )

    def _leave_round(self) -> None:
        """How long it took, where one was under way: the last one ends with the result."""
        if self._round_began is not None:
            seconds = trio.current_time() - self._round_began
            self._at.metrics.round_seconds.labels(self._running.session.type).observe(seconds)
            self._round_began = None

    def keep(self) -> None:
        """The share is stored: a restart will confirm it, so an end of ours is none for the peers any more."""
        self._kept = True

    async def abandon(self, reason: str) -> None:
        """End the ceremony behind the wall and tell the peers why. Best effort: it may be gone already."""
        with trio.move_on_after(LAST_WORDS_SECONDS, shield=True):
            if not self._kept:
                await self._abort(reason)
            await self.forget()

    async def _abort(self, reason: str) -> None:
        try:
            progress = await self._at.wall.ask(
                wire.Abort(ceremony=self._ceremony, reason=reason), wire.Progress, epoch=self._epoch
            )
            await self.say(progress.frames, ())
        except DaemonError as error:
            log.info("no abort notice", problem=error.message)

    async def forget(self) -> None:
        """Wipe the ceremony behind the wall."""
        with suppress(DaemonError):  # it is gone already, which is what we want
            await self._at.wall.ask(wire.Forget(ceremony=self._ceremony), wire.Done, epoch=self._epoch)


@asynccontextmanager
async def open_seat(
    at: Desk, running: Running, stream: Stream, request: wire.BeginKeygen | wire.BeginSigning, *, plain: bool
) -> AsyncIterator[Exchange]:
    """Open a seat behind the wall for as long as the block lasts.

    Left by an exception, the ceremony is aborted and the peers are told; left otherwise, it is forgotten.

    Raises:
        TokenLost, Busy, Altered, Refused, Broken: As for `Wall.ask`.
    """
    running.waits_for = ("custodian",)
    epoch = at.custodian.epoch
    begun = await at.wall.ask(request, wire.Begun, epoch=epoch)
    exchange = Exchange(at, running, stream, plain=plain, ceremony=begun.ceremony, epoch=epoch)
    if plain:
        stream.keep_sent()
    try:
        await at.store.note(running.session, Step.BEGUN)
        await exchange.say(begun.frames, begun.plain)
        yield exchange
    except BaseException as error:
        await exchange.abandon(reason_of(error, running))
        raise
    else:
        await exchange.forget()


def reason_of(error: BaseException, running: Running) -> str:
    """The word that goes into an abort notice."""
    if isinstance(error, DaemonError):
        return error.kind
    if isinstance(error, trio.Cancelled):
        return Overdue.kind if running.overdue else "stopped"
    return "failed"


def _fault(fault: wire.FaultReport | None) -> DaemonError:
    """Why a ceremony failed: through us, which the custodian says in a few words of its own, or through others."""
    if fault is None:
        return PeerFault("the ceremony failed", reason="unidentified")
    if fault.reason in OURS:
        return OURS[fault.reason](fault.detail)
    return PeerFault(
        f"{fault.reason}: {fault.detail}" if fault.detail else fault.reason,
        reason=fault.reason,
        culprits=tuple(PartyId(party) for party in fault.culprits),
        hearsay=tuple(PartyId(party) for party in fault.hearsay),
        authenticated=fault.authenticated,
    )
