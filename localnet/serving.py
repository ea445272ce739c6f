"""Serves an ASGI application on 127.0.0.1, for the reference coordinator and router."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Final, cast

import msgspec
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hypercorn.typing import ASGIFramework
    from starlette.applications import Starlette
    from starlette.requests import Request

KEEP_ALIVE_SECONDS: Final = 75
"""Longer than any client of ours keeps a connection, so that the server is never the one to hang up."""


@asynccontextmanager
async def serving(application: Starlette, *, port: int = 0) -> AsyncIterator[str]:
    """Serve until the block is left, then hang up on everybody.

    Args:
        application: What to serve.
        port: TCP port on 127.0.0.1; 0 takes a free one.

    Yields:
        The base address, such as `http://127.0.0.1:40001`.
    """
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.loglevel = "ERROR"
    config.graceful_timeout = 0
    config.keep_alive_timeout = KEEP_ALIVE_SECONDS
    config.keep_alive_max_requests = 10_000_000
    stop = trio.Event()
    async with trio.open_nursery() as nursery:

        async def run(*, task_status: trio.TaskStatus[list[str]]) -> None:
            await serve(cast("ASGIFramework", application), config, shutdown_trigger=stop.wait, task_status=task_status)

        (address,) = await nursery.start(run)
        try:
            yield address
        finally:
            stop.set()


def answer(body: object, status: int = 200) -> Response:
    """A JSON response."""
    return Response(msgspec.json.encode(body), status, media_type="application/json")


async def read_body(request: Request, limit: int) -> bytes | None:
    """The request's body, or None when it has more than `limit` bytes."""
    body = bytearray()
    async with aclosing(request.stream()) as pieces:
        async for piece in pieces:
            body += piece
            if len(body) > limit:
                return None
    return bytes(body)
