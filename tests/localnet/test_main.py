"""What a person is told who does not sit at a terminal."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
import trio
from rich.console import Console

from localnet.__main__ import Page, tell_restarts, watched

if TYPE_CHECKING:
    from localnet.net import Net

NOTES = ["the router has not been well since ...", "pre-parameters for gg18-v3 in the making: 42 %"]


class Told:
    """A network of two, of which nothing is real but what it answers."""

    def __init__(self) -> None:
        self.restarts = {"a-x": 0, "b-x": 0}
        self.console = Console(file=io.StringIO(), width=200)
        parties = {
            name: SimpleNamespace(client=lambda name=name: self._client(name), log=f"/{name}.log")
            for name in self.restarts
        }
        self.net = cast("Net", SimpleNamespace(parties=parties, on_step=None))

    def _client(self, name: str) -> httpx.AsyncClient:
        def answer(request: httpx.Request) -> httpx.Response:
            if request.url.path == "/metrics":
                return httpx.Response(
                    200, text=f"# HELP x\ntssd_custodian_restarts {self.restarts[name]}.0\nother 1.0\n"
                )
            return httpx.Response(200, json={"notes": NOTES})

        return httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://tssd")

    @property
    def lines(self) -> list[str]:
        assert isinstance(self.console.file, io.StringIO)
        return self.console.file.getvalue().splitlines()

    def saw(self, party: str, step: str, round_number: int = 0, **detail: Any) -> None:  # noqa: ANN401  JSON
        assert self.net.on_step is not None
        self.net.on_step(party, {"step": step, "round": round_number, "detail": detail})


@pytest.mark.usefixtures("autojump_clock")
async def test_a_ceremony_that_lasts_is_told_of_every_ten_seconds() -> None:
    told = Told()

    async def ceremony() -> str:
        told.saw("a-x", "preparing")
        await trio.sleep(15)
        told.saw("a-x", "round", 2, rounds=4)
        told.saw("b-x", "agreed")
        await trio.sleep(10)
        return "made"

    assert await watched(told.net, Page(told.console), ["a-x", "b-x"], ceremony) == "made"
    assert told.lines == [
        "   ... 10 s  a-x: looks for primes: pre-parameters for gg18-v3 in the making: 42 %; b-x: asked",
        "   ... 20 s  a-x: round 2 of 4; b-x: agreed",
    ]


@pytest.mark.usefixtures("autojump_clock")
async def test_a_ceremony_that_is_soon_over_is_not_told_of() -> None:
    told = Told()

    async def ceremony() -> str:
        await trio.sleep(9)
        return "made"

    assert await watched(told.net, Page(told.console), ["a-x", "b-x"], ceremony) == "made"
    assert told.lines == []


@pytest.mark.usefixtures("autojump_clock")
async def test_a_custodian_that_was_started_again_is_told_of_once() -> None:
    told = Told()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell_restarts, told.net, Page(told.console))
        await trio.sleep(5)
        assert told.lines == []
        told.restarts["b-x"] = 1
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert told.lines == ["   the custodian of b-x was started again; /b-x.log says why"]
