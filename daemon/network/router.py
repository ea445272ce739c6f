"""Client of the message router: one WebSocket, one bounded inbox per session, brought back whenever it is lost.

The router is not trusted: what arrives is bytes and hints. Frames are bounded before they are parsed, unknown fields
are left alone, and a frame that does not read is counted and dropped: a session must not fail because somebody threw
garbage.
"""

from __future__ import annotations

import base64
import math
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import quote, urlsplit

import msgspec
import structlog
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, HandshakeError, WebSocketConnection, wrap_client_stream

from daemon.errors import Declined, Unreachable
from daemon.network.connection import Reach, delays, tls_context, why

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable

    from daemon.settings import RouterSettings
    from daemon.values import PartyId, SessionId

log = structlog.get_logger(__name__)

FRAME_MAX: Final = 384 * 1024
"""Bytes of one frame's JSON."""
PAYLOAD_MAX: Final = 288 * 1024
"""Bytes of a payload; base64 of it fits into a frame."""
CONNECT_SECONDS: Final = 10.0
"""For TCP, TLS and the WebSocket's handshake together."""
LONGEST_DELAY: Final = 5.0
"""Seconds between two tries to connect, at most: a ceremony has no minutes to wait."""
SETTLED_SECONDS: Final = 5.0
"""A connection that lasted this long, or brought a frame, starts the delays anew."""
GOODBYE_SECONDS: Final = 1.0
"""For the WebSocket's closing handshake."""
TRY_AGAIN: Final = frozenset({404, 408, 425, 429})
"""404: the router does not know the session yet."""


class _Incoming(msgspec.Struct):
    from_party: Annotated[str, msgspec.Meta(max_length=128)]
    payload: str
    round_number: int = 0
    is_broadcast: bool = False


class _Outgoing(msgspec.Struct, omit_defaults=True):
    from_party: str
    round_number: int
    payload: str
    to_parties: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Incoming:
    """What the router brought. from_party and broadcast are its word only."""

    from_party: str
    payload: bytes
    broadcast: bool


_decoder: Final = msgspec.json.Decoder(_Incoming)


def read_frame(text: str | bytes) -> Incoming | None:
    """One frame as it came; None where it does not read."""
    try:
        frame = _decoder.decode(text)
        payload = base64.b64decode(frame.payload, validate=True)
    except (ValueError, RecursionError):  # msgspec's and binascii's errors among them
        return None
    if not 0 < len(payload) <= PAYLOAD_MAX:
        return None
    return Incoming(frame.from_party, payload, frame.is_broadcast)


def write_frame(from_party: PartyId, to: str | None, round_number: int, payload: bytes) -> str:
    """One frame as the router takes it; no receiver means everybody else."""
    frame = _Outgoing(
        from_party=str(from_party),
        round_number=round_number,
        payload=base64.b64encode(payload).decode(),
        to_parties=None if to is None else (to,),
    )
    return msgspec.json.encode(frame).decode()


class Stream:
    """One session's connection to the router, as one party of it. Made by `Router.open`.

    Attributes:
        opened: Set once the router has accepted the first connection, or declined us for good.
        declined: How it did that.
        connections: How many there have been.
        problem: Why there is none just now; empty while there is one.
        dropped: Frames that did not read.
    """

    def __init__(self, party_id: PartyId, inbox: int) -> None:
        self.opened = trio.Event()
        self.declined: Declined | None = None
        self.connections = 0
        self.problem = "the router has not answered yet"
        self.dropped = 0
        self._party_id = party_id
        self._arrived, self._inbox = trio.open_memory_channel[Incoming](inbox)
        self._socket: WebSocketConnection | None = None
        self._connected = trio.Event()
        self._sent: list[str] | None = None
        self._closing = False
        self._useful = False

    def keep_sent(self) -> None:
        """For bare protocol messages: from now on keep what is sent, and send it again on each new connection."""
        self._sent = []

    @property
    def waiting(self) -> int:
        """Frames in the inbox."""
        return self._inbox.statistics().current_buffer_used

    async def receive(self) -> Incoming:
        """The next frame that reads."""
        return await self._inbox.receive()

    async def send(self, to: str | None, round_number: int, payload: bytes) -> None:
        """Hand a frame to the router, waiting for a connection where there is none.

        A frame that is lost with a dying connection is not noticed here: the sealed channel asks for it again; for bare
        messages there is `keep_sent`.
        """
        frame = write_frame(self._party_id, to, round_number, payload)
        if self._sent is not None:
            self._sent.append(frame)
        while True:
            socket = self._socket
            if socket is None:
                await self._connected.wait()
                continue
            try:
                await socket.send_message(frame)
            except ConnectionClosed:
                if self._socket is socket:
                    self._lost("the router closed the connection")
            else:
                return

    async def _serve(self, socket: WebSocketConnection) -> None:
        """Take frames from one connection until it is gone."""
        for frame in self._sent or ():
            await socket.send_message(frame)
        self._socket, self.problem = socket, ""
        self.connections += 1
        self.opened.set()
        self._connected.set()
        while True:
            text = await socket.get_message()
            frame_read = read_frame(text)
            if frame_read is None:
                self.dropped += 1
            else:
                self._useful = True
                try:
                    self._arrived.send_nowait(frame_read)
                except trio.WouldBlock:
                    await self._arrived.send(frame_read)

    async def _close(self) -> None:
        """Say goodbye and wait for the answer: the router has then read all that was sent.

        A socket that is just closed, with something unread in it, may take back what it sent last.
        """
        self._closing = True
        with trio.move_on_after(GOODBYE_SECONDS, shield=True):
            if self._socket is not None:
                await self._socket.aclose()

    def _lost(self, problem: str) -> None:
        if self._socket is not None:
            self._connected = trio.Event()
        self._socket, self.problem = None, problem


class Router:
    """See the module. Made by `open_router`; streams share nothing but the settings.

    Attributes:
        reach: Whether it was there for the stream that tried it last.
    """

    def __init__(self, settings: RouterSettings, links: trio.Nursery, on_reconnect: Callable[[], None]) -> None:
        address = urlsplit(settings.url)
        self._settings = settings
        self._host = address.hostname or ""
        self._port = address.port or (443 if address.scheme == "https" else 80)
        self._authority = address.netloc
        self._path = address.path.rstrip("/")
        self._tls: ssl.SSLContext | None = tls_context(settings.tls) if address.scheme == "https" else None
        self._links = links
        self._on_reconnect = on_reconnect
        self._streams: set[Stream] = set()
        self.reach = Reach()

    @property
    def waiting(self) -> int:
        """Frames in the inboxes of all sessions."""
        return sum(stream.waiting for stream in self._streams)

    @asynccontextmanager
    async def open(self, session_id: SessionId, party_id: PartyId) -> AsyncIterator[Stream]:
        """A session's stream for as long as the block lasts; entered once the router has accepted it.

        Not accepted yet (404 among that) means: try again. The caller's deadline is the bound. Its cancellation leaves
        the connection alone until the block is left: the last word of a session that ran out of time is still to go.

        Raises:
            Declined: The router will not have us.
        """
        stream = Stream(party_id, self._settings.inbox_frames)
        resource = f"{self._path}/sessions/{session_id}/messages?party_id={quote(str(party_id))}"
        link = trio.CancelScope()
        self._streams.add(stream)
        self._links.start_soon(self._keep, stream, resource, link)
        try:
            await stream.opened.wait()
            if stream.declined is not None:
                raise stream.declined
            yield stream
        finally:
            await stream._close()  # noqa: SLF001  the other half of one object
            link.cancel()
            self._streams.discard(stream)

    async def _keep(self, stream: Stream, resource: str, link: trio.CancelScope) -> None:
        """Keep one connection up until the link is cancelled, or the router declines the first one."""
        with link:
            await self._keep_connected(stream, resource)

    async def _keep_connected(self, stream: Stream, resource: str) -> None:
        waits = delays(longest=LONGEST_DELAY)
        while True:
            began = trio.current_time()
            try:
                await self._connect(stream, resource)
            except Unreachable as error:
                stream._lost(error.message)  # noqa: SLF001  the other half of one object
            except Declined as error:
                if not stream.opened.is_set():
                    stream.declined = error
                    stream.opened.set()
                    return
                stream._lost(error.message)  # noqa: SLF001
            if stream._closing:  # noqa: SLF001
                return
            if stream._useful or trio.current_time() - began > SETTLED_SECONDS:  # noqa: SLF001
                stream._useful = False  # noqa: SLF001
                waits = delays(longest=LONGEST_DELAY)
            if stream.opened.is_set():
                self._on_reconnect()
            log.debug("router connection lost", problem=stream.problem)
            await trio.sleep(next(waits))

    async def _connect(self, stream: Stream, resource: str) -> None:
        """One connection, from TCP to its end. Always raises: Unreachable, or Declined."""
        ended: BaseException | None = None
        try:
            # The TCP stream is ours to close: trio-websocket leaves it open where the other side refuses or ends first.
            with trio.fail_after(CONNECT_SECONDS) as connecting:
                tcp = await trio.open_tcp_stream(self._host, self._port)
                async with tcp, trio.open_nursery() as nursery:
                    socket = await wrap_client_stream(
                        nursery, await self._secured(tcp), self._authority, resource, max_message_size=FRAME_MAX
                    )
                    connecting.deadline = math.inf
                    self.reach.succeeded()
                    nursery.start_soon(self._ping, socket)
                    await stream._serve(socket)  # noqa: SLF001
        except* (ConnectionClosed, HandshakeError, OSError, trio.BrokenResourceError, trio.TooSlowError) as group:
            ended = _first(group)
        if isinstance(ended, ConnectionRejected):
            raise self._rejected(ended.status_code)
        if isinstance(ended, trio.TooSlowError):
            unreachable = Unreachable("the router does not answer")
        else:
            said = "it hung up" if ended is None else why(ended)
            unreachable = Unreachable(f"the router cannot be reached: {said}")
        if not stream._closing:  # noqa: SLF001
            self.reach.failed(unreachable.message)
        raise unreachable

    def _rejected(self, status: int) -> Unreachable | Declined:
        """The router is there and will not have us. That it does not know the session yet says nothing about it."""
        message = f"the router answered {status}"
        declined = 400 <= status < 500  # noqa: PLR2004  HTTP's classes
        if declined:
            self.reach.succeeded()
        else:
            self.reach.failed(message)
        return Declined(message, status) if declined and status not in TRY_AGAIN else Unreachable(message)

    async def _secured(self, tcp: trio.SocketStream) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
        """The handshake is made here: trio-websocket would wait for an answer on a connection that TLS has refused."""
        if self._tls is None:
            return tcp
        stream = trio.SSLStream(tcp, self._tls, server_hostname=self._host)
        await stream.do_handshake()
        return stream

    async def _ping(self, socket: WebSocketConnection) -> None:
        """Notice a connection that is dead without having been closed."""
        while True:
            await trio.sleep(self._settings.ping_seconds)
            with trio.fail_after(self._settings.ping_seconds):
                await socket.ping()


@asynccontextmanager
async def open_router(
    settings: RouterSettings, on_reconnect: Callable[[], None] = lambda: None
) -> AsyncIterator[Router]:
    """A client for as long as the block lasts; its streams must be closed by then.

    Raises:
        SettingsRefused: The TLS files cannot be used.
    """
    async with trio.open_nursery() as links:
        try:
            yield Router(settings, links, on_reconnect)
        finally:
            links.cancel_scope.cancel()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
