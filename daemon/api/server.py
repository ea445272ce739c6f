"""Serves the API: hypercorn's trio worker on Unix sockets, with the kernel's word on the caller in every request."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from daemon.api.access import Access, peer_of
from daemon.api.bodies import BODY_MAX
from daemon.api.problems import problem
from daemon.api.routes import application

if TYPE_CHECKING:
    from hypercorn.typing import ASGIFramework
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from daemon.desk import Desk

CONNECTIONS_MAX: Final = 256
"""Connections served at once; one more waits until another is closed."""
BODY_SECONDS: Final = 10
"""For the whole of a request's body to arrive."""
GRACE_SECONDS: Final = 0.5
"""For answers in hand when the doors are shut."""
IDLE_SECONDS: Final = 75
ID_LENGTH: Final = 36
"""Characters of a UUID; no other part of a route has as many."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def serve(
    desk: Desk,
    listeners: list[trio.SocketListener],
    *,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the API until cancelled; then shut the doors, give answers in hand a moment, and hang up.

    Args:
        desk: What the routes are the face of.
        listeners: Listening Unix sockets; closed on return.
        task_status: Told when connections are accepted.

    Raises:
        SettingsRefused: The `[jwt]` key cannot be used.
    """
    access = Access(desk.settings.access, desk.settings.jwt)
    config = Config()
    config.errorlog = None  # a defect is logged by daemon/api/problems.py, in our own form
    config.keep_alive_timeout = IDLE_SECONDS
    config.keep_alive_max_requests = 1_000_000  # a main service keeps its connection for weeks
    config.include_server_header = False
    wrapped = ASGIWrapper(cast("ASGIFramework", Gate(application(desk, access))))
    context = WorkerContext(None)
    room = trio.Semaphore(CONNECTIONS_MAX)

    async def connected(stream: trio.SocketStream) -> None:
        async with room:
            state = ConnectionState({"peer": peer_of(stream.socket)})
            await TCPServer(wrapped, config, context, state, cast("Any", stream))  # it takes plain streams as well

    closing = trio.Event()

    async def hold(*, task_status: trio.TaskStatus[trio.Nursery]) -> None:
        # Shielded: whoever cancels us means the doors, not the answers in hand.
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as connections:
                task_status.started(connections)
                await closing.wait()
                connections.cancel_scope.deadline = trio.current_time() + GRACE_SECONDS

    async with trio.open_nursery() as nursery:
        connections = await nursery.start(hold)
        try:
            await trio.serve_listeners(connected, listeners, handler_nursery=connections, task_status=task_status)
        finally:
            await context.terminated.set()  # idle connections hang up
            closing.set()


class Gate:
    """In front of the application: takes a request's body whole, within bounds, and logs how it was answered."""

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; ASGI's application."""
        if scope["type"] != "http":
            return

        async def logged(message: Message) -> None:
            if message["type"] == "http.response.start":
                _log(scope, message["status"])
            await send(message)

        try:
            body = await _whole_body(scope, receive)
        except _RefusedUnread as refused:
            kind = refused.status.phrase.lower().replace(" ", "-")
            await problem(refused.status, kind, str(refused))(scope, receive, logged)
            return
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def again() -> Message:
            return next(messages, None) or await receive()

        await self._application(scope, again, logged)


class _RefusedUnread(Exception):
    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


async def _whole_body(scope: Scope, receive: Receive) -> bytes:
    body = bytearray()
    more = True
    with trio.move_on_after(BODY_SECONDS):
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)  # a disconnect has none, and nobody to answer
            if len(body) > BODY_MAX:
                raise _RefusedUnread(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has at most {BODY_MAX} bytes")
    if more:
        raise _RefusedUnread(HTTPStatus.REQUEST_TIMEOUT, f"the body did not arrive within {BODY_SECONDS} s")
    if body and not _is_json(scope):
        raise _RefusedUnread(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send the body as 'Content-Type: application/json'")
    return bytes(body)


def _is_json(scope: Scope) -> bool:
    content_type = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    return content_type.split(b";")[0].strip().lower() == b"application/json"


def _log(scope: Scope, status: int) -> None:
    """Neither query nor body: they are the caller's. Of the path, nothing that is longer than an id."""
    path = "/".join(part if len(part) <= ID_LENGTH else "..." for part in scope["path"].split("/"))
    level = log.info if scope["method"] != "GET" or status >= HTTPStatus.BAD_REQUEST else log.debug
    level("request", method=scope["method"], path=path, status=status, uid=scope["state"]["peer"].uid)
