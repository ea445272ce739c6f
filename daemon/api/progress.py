"""A session's progress as server-sent events."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import trio
from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.types import Receive, Scope, Send

    from daemon.api.bodies import StepInfo

HEARTBEAT_SECONDS: Final = 15
"""A comment after so long a silence, so that neither side takes the other for dead."""


class EventStream(Response):
    """Streams steps until they end or the client goes. The id of each event is its number, for Last-Event-ID."""

    media_type: str | None = "text/event-stream"

    def __init__(self, steps: AsyncGenerator[list[StepInfo], None]) -> None:
        super().__init__(headers={"Cache-Control": "no-store"})
        self._steps = steps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream; ASGI's application."""
        del scope
        headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        lock = trio.Lock()

        async def say(text: str) -> None:
            async with lock:
                await send({"type": "http.response.body", "body": text.encode(), "more_body": True})

        async def beat() -> None:
            while True:
                await trio.sleep(HEARTBEAT_SECONDS)
                await say(": still here\n\n")

        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            nursery.start_soon(beat)
            async with aclosing(self._steps) as news:
                async for steps in news:
                    await say("".join(map(_event, steps)))
            nursery.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _event(step: StepInfo) -> str:
    return f"id: {step.number}\nevent: {step.step}\ndata: {step.model_dump_json(by_alias=True)}\n\n"
