"""The reference message router: carries frames between the parties of a session and knows nothing of what is in them.

A party listens on the WebSocket `/sessions/{id}/messages?party_id={me}` and sends either there or by
`POST /sessions/{id}/messages`. Frames for a party that is not connected wait for it, bounded; broadcasts also reach
parties that come later. Everything is in memory: it is for trials and tests.

The parties do not trust their router, so this one can be told to be a bad one. `Router.mischief`, or for one session
its entry in `Router.scripts`, decides for each delivery what really reaches whom; `delay`, `reorder`, `repeat`,
`corrupt` and `drop` are made for it. `take` injects a frame, `deliver` puts one into a mailbox, `throw` sends anything
at all, `disconnect` and `cut_off` break connections.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
import trio
from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from localnet.serving import answer, read_body, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractAsyncContextManager
    from random import Random

    from starlette.requests import Request
    from starlette.responses import Response

FRAME_MAX: Final = 384 * 1024
"""Bytes of one frame's JSON."""
WAITING_MAX: Final = 4096
"""Frames that wait for one party of one session; more are dropped and counted."""
SESSIONS_MAX: Final = 1024
"""Sessions remembered; the one that was quiet for longest is forgotten first."""
POLICY_VIOLATION: Final = 1008
SERVICE_RESTART: Final = 1012


class Frame(msgspec.Struct, frozen=True):
    """What a party sends. payload: base64 in JSON. No to_parties: everybody else in the session."""

    from_party: str
    round_number: int
    payload: bytes
    to_parties: tuple[str, ...] | None = None


class _Received(msgspec.Struct, frozen=True):
    from_party: str
    round_number: int
    payload: bytes
    is_broadcast: bool


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One frame on its way to one receiver. delay: seconds it is held back."""

    session_id: str
    to_party: str
    from_party: str
    round_number: int
    payload: bytes
    is_broadcast: bool
    delay: float = 0.0


Mischief: TypeAlias = "Callable[[Delivery], Iterable[Delivery]]"
"""What is really delivered in place of a delivery: nothing, itself, others, to whom and in which session they say."""


@dataclass
class Traffic:
    """Counters since the start."""

    taken: int = 0
    delivered: int = 0
    octets: int = 0
    """Payload bytes delivered."""
    overflowed: int = 0
    """Frames dropped because too many were waiting."""


@dataclass
class _Mailbox:
    """Frames for one party of one session: by due time, then by order of arrival."""

    waiting: list[tuple[float, int, Delivery | str | bytes]] = field(default_factory=list)
    seen: list[Delivery] = field(default_factory=list)
    """Delivered before; kept only where the router replays."""
    more: trio.Event = field(default_factory=trio.Event)
    stream: trio.CancelScope | None = None


@dataclass
class _Room:
    mailboxes: dict[str, _Mailbox] = field(default_factory=dict)
    broadcasts: list[Delivery] = field(default_factory=list)
    """For parties that come later; addressed to nobody yet."""


class Router:
    """Rooms by session id, a mailbox per party in them.

    Attributes:
        mischief: See the module; None delivers everything as it came.
        scripts: Mischief in one session, by its id, in place of `mischief`.
        tap: Called with each frame taken, as (session id, frame), before anything else happens to it.
        down: While true, every request is answered 503.
        admitted: Where not None, only these session ids are known, others are answered 404.
        cut_off: Party ids whose streams are refused, as if the network ended before them; `disconnect` cuts what they
            have.
        replays: Whether a party that connects again is sent everything once more.
        traffic: Counters.
    """

    def __init__(self, *, mischief: Mischief | None = None) -> None:
        self.mischief = mischief
        self.scripts: dict[str, Mischief] = {}
        self.tap: Callable[[str, Frame], None] | None = None
        self.down = False
        self.admitted: set[str] | None = None
        self.cut_off: set[str] = set()
        self.replays = False
        self.traffic = Traffic()
        self._rooms: OrderedDict[str, _Room] = OrderedDict()
        self._arrivals = itertools.count()

    def serving(self, *, port: int = 0) -> AbstractAsyncContextManager[str]:
        """Serve on 127.0.0.1 while the block runs; gives the base address with the scheme `http`."""
        path = "/sessions/{session_id}/messages"
        routes = [Route(path, self._post, methods=["POST"]), WebSocketRoute(path, self._listen)]
        return serving(Starlette(routes=routes), port=port)

    def take(self, session_id: str, frame: Frame) -> None:
        """Carry a frame, as if a party had sent it."""
        self.traffic.taken += 1
        if self.tap is not None:
            self.tap(session_id, frame)
        room = self._room(session_id)
        delivery = Delivery(
            session_id=session_id,
            to_party="",
            from_party=frame.from_party,
            round_number=frame.round_number,
            payload=frame.payload,
            is_broadcast=frame.to_parties is None,
        )
        if frame.to_parties is None:
            if len(room.broadcasts) < WAITING_MAX:
                room.broadcasts.append(delivery)
            receivers = tuple(room.mailboxes)
        else:
            receivers = frame.to_parties
        for party_id in receivers:
            if party_id != frame.from_party:
                self._mailbox(room, party_id)
                self._carry(party_id, delivery)

    def deliver(self, delivery: Delivery) -> None:
        """Put a delivery into its receiver's mailbox as it is, whatever the script says."""
        mailbox = self._mailbox(self._room(delivery.session_id), delivery.to_party)
        self._push(mailbox, delivery, delivery.delay)

    def throw(self, session_id: str, party_id: str, message: str | bytes) -> None:
        """Send a party any text, or bytes, on its stream of a session."""
        self._push(self._mailbox(self._room(session_id), party_id), message)

    def disconnect(self, session_id: str | None, party_id: str) -> None:
        """Cut a party's stream of a session, or (None) of all; what waits for it stays."""
        rooms = self._rooms.values() if session_id is None else (self._room(session_id),)
        for room in rooms:
            mailbox = room.mailboxes.get(party_id)
            if mailbox is not None and mailbox.stream is not None:
                mailbox.stream.cancel()

    def forget(self, session_id: str | None = None) -> None:
        """Drop everything that is kept of a session; without one, of all, as a restart does."""
        if session_id is None:
            self._rooms.clear()
        else:
            self._rooms.pop(session_id, None)
            self.scripts.pop(session_id, None)

    # ---- Rooms ----

    def _room(self, session_id: str) -> _Room:
        room = self._rooms.setdefault(session_id, _Room())
        self._rooms.move_to_end(session_id)
        if len(self._rooms) > SESSIONS_MAX:
            self._rooms.popitem(last=False)
        return room

    def _mailbox(self, room: _Room, party_id: str) -> _Mailbox:
        mailbox = room.mailboxes.get(party_id)
        if mailbox is None:
            mailbox = room.mailboxes[party_id] = _Mailbox()
            for missed in room.broadcasts:
                if missed.from_party != party_id:
                    self._carry(party_id, missed)
        return mailbox

    def _carry(self, party_id: str, delivery: Delivery) -> None:
        """Deliver what the script makes of it."""
        addressed = replace(delivery, to_party=party_id)
        script = self.scripts.get(delivery.session_id, self.mischief)
        for actual in (addressed,) if script is None else script(addressed):
            self.deliver(actual)

    def _push(self, mailbox: _Mailbox, what: Delivery | str | bytes, delay: float = 0.0) -> None:
        if len(mailbox.waiting) >= WAITING_MAX:
            self.traffic.overflowed += 1
            return
        heapq.heappush(mailbox.waiting, (trio.current_time() + delay, next(self._arrivals), what))
        mailbox.more.set()

    # ---- HTTP and WebSocket ----

    def _refusal(self, session_id: str) -> Response | None:
        if self.down:
            return answer({"error": "down for maintenance"}, 503)
        if self.admitted is not None and session_id not in self.admitted:
            return answer({"error": "no such session"}, 404)
        return None

    async def _post(self, request: Request) -> Response:
        session_id = request.path_params["session_id"].lower()
        refusal = self._refusal(session_id)
        if refusal is not None:
            return refusal
        body = await read_body(request, FRAME_MAX)
        if body is None:
            return answer({"error": f"a frame has at most {FRAME_MAX} bytes"}, 413)
        try:
            frame = msgspec.json.decode(body, type=Frame)
        except msgspec.MsgspecError as error:
            return answer({"error": str(error)}, 400)
        self.take(session_id, frame)
        return answer({"success": True}, 202)

    async def _listen(self, socket: WebSocket) -> None:
        session_id = socket.path_params["session_id"].lower()
        party_id = socket.query_params.get("party_id", "")
        refusal = self._refusal(session_id) if party_id else answer({"error": "party_id is missing"}, 400)
        if party_id in self.cut_off:
            refusal = answer({"error": "cut off"}, 503)
        if refusal is not None:
            await socket.send_denial_response(refusal)
            return
        await socket.accept()
        room = self._room(session_id)
        mailbox = self._mailbox(room, party_id)
        if mailbox.stream is not None:
            mailbox.stream.cancel()  # the newest stream of a party is the one it listens on
        if self.replays:
            for delivery in mailbox.seen:
                heapq.heappush(mailbox.waiting, (trio.current_time(), next(self._arrivals), delivery))
            mailbox.seen.clear()
        code = SERVICE_RESTART  # where the stream is cut by disconnect()
        async with trio.open_nursery() as nursery:
            mailbox.stream = nursery.cancel_scope
            nursery.start_soon(self._deliver, mailbox, socket)
            code = await self._take_all(session_id, party_id, socket)
            nursery.cancel_scope.cancel()
        if mailbox.stream is nursery.cancel_scope:
            mailbox.stream = None
        if socket.application_state is WebSocketState.CONNECTED and socket.client_state is WebSocketState.CONNECTED:
            with suppress(WebSocketDisconnect, RuntimeError):
                await socket.close(code)

    async def _take_all(self, session_id: str, party_id: str, socket: WebSocket) -> int:
        """Take frames from a stream until its end; gives the close code."""
        while True:
            try:
                text = await socket.receive_text()
                frame = msgspec.json.decode(text, type=Frame)
            except (WebSocketDisconnect, KeyError):  # KeyError: a binary frame
                return SERVICE_RESTART
            except msgspec.MsgspecError:
                return POLICY_VIOLATION
            if len(text) > FRAME_MAX or frame.from_party != party_id:
                return POLICY_VIOLATION
            self.take(session_id, frame)

    async def _deliver(self, mailbox: _Mailbox, socket: WebSocket) -> None:
        while True:
            mailbox.more = trio.Event()
            due = mailbox.waiting[0][0] if mailbox.waiting else math.inf
            if due > trio.current_time():
                with trio.move_on_at(due):
                    await mailbox.more.wait()
                continue
            what = heapq.heappop(mailbox.waiting)[2]
            try:
                if isinstance(what, bytes):
                    await socket.send_bytes(what)
                else:
                    await socket.send_text(what if isinstance(what, str) else _written(what))
            except (WebSocketDisconnect, RuntimeError, trio.Cancelled):
                heapq.heappush(mailbox.waiting, (due, next(self._arrivals), what))
                raise
            if isinstance(what, Delivery):
                self.traffic.delivered += 1
                self.traffic.octets += len(what.payload)
                if self.replays:
                    mailbox.seen.append(what)


def _written(delivery: Delivery) -> str:
    received = _Received(delivery.from_party, delivery.round_number, delivery.payload, delivery.is_broadcast)
    return msgspec.json.encode(received).decode()


# ---- Mischief ----


def delay(random: Random, seconds: float) -> Mischief:
    """Hold every frame back for up to `seconds`, each for a time of its own: frames overtake one another."""
    return lambda delivery: (replace(delivery, delay=delivery.delay + random.uniform(0, seconds)),)


def reorder(random: Random, share: float, seconds: float) -> Mischief:
    """Hold a share (0..1) of the frames back for `seconds`, so that later ones overtake them."""
    return lambda delivery: (replace(delivery, delay=delivery.delay + (seconds if random.random() < share else 0)),)


def repeat(random: Random, share: float, seconds: float = 0.05) -> Mischief:
    """Deliver a share (0..1) of the frames twice, the second time `seconds` later."""

    def twice(delivery: Delivery) -> tuple[Delivery, ...]:
        if random.random() >= share:
            return (delivery,)
        return (delivery, replace(delivery, delay=delivery.delay + seconds))

    return twice


def corrupt(random: Random, share: float) -> Mischief:
    """Flip one bit in a share (0..1) of the frames."""

    def flip(delivery: Delivery) -> tuple[Delivery, ...]:
        if random.random() >= share or not delivery.payload:
            return (delivery,)
        payload = bytearray(delivery.payload)
        payload[random.randrange(len(payload))] ^= 1 << random.randrange(8)
        return (replace(delivery, payload=bytes(payload)),)

    return flip


def drop(random: Random, share: float) -> Mischief:
    """Lose a share (0..1) of the frames."""
    return lambda delivery: () if random.random() < share else (delivery,)


def chain(*parts: Mischief) -> Mischief:
    """One after the other, each on what the one before let through."""

    def all_of(delivery: Delivery) -> Iterable[Delivery]:
        deliveries: Iterable[Delivery] = (delivery,)
        for part in parts:
            deliveries = [after for before in deliveries for after in part(before)]
        return deliveries

    return all_of
