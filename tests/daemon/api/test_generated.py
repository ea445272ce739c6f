"""Requests made from our own OpenAPI document, right and wrong ones: each is answered, never with a defect."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import schemathesis
import trio
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.core.result import Err

from daemon.api import problems, routes
from daemon.api.access import Access
from daemon.settings import AccessSettings
from tests.daemon.api.standin import StandIn, served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastapi import FastAPI

EXAMPLES = 40
"""Per route and kind of request: more than 1,000 in all."""


def description() -> dict[str, Any]:
    app: FastAPI = routes.application(StandIn(), Access(AccessSettings(), None))  # type: ignore[arg-type]
    return problems.described(app)


SCHEMA = schemathesis.openapi.from_dict(description())
OPERATIONS = [result.ok() for result in SCHEMA.get_all_operations() if not isinstance(result, Err)]
CASES = [(each, GenerationMode.POSITIVE) for each in OPERATIONS] + [
    (each, GenerationMode.NEGATIVE) for each in OPERATIONS if each.body or each.query or each.path_parameters
]


@contextmanager
def served_in_thread(directory: Path) -> Iterator[httpx.Client]:
    """Hypothesis is not asynchronous; the server runs beside it."""
    started = threading.Event()
    handle: list[tuple[trio.lowlevel.TrioToken, trio.CancelScope]] = []

    async def serve() -> None:
        with trio.CancelScope() as scope:
            async with served(StandIn(), directory):
                handle.append((trio.lowlevel.current_trio_token(), scope))
                started.set()
                await trio.sleep_forever()

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    try:
        assert started.wait(10)
        transport = httpx.HTTPTransport(uds=str(directory / "tssd.sock"))
        with httpx.Client(transport=transport, base_url="http://tssd", timeout=10) as client:
            yield client
    finally:
        token, scope = handle[0]
        token.run_sync_soon(scope.cancel)
        thread.join(10)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with served_in_thread(tmp_path_factory.mktemp("api")) as client:
        yield client


def check(response: httpx.Response, path: str) -> None:
    if path == "/mpc-party/ready" and response.status_code == 503:
        return
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert response.headers["content-type"] == problems.MEDIA_TYPE
        problems.Problem.model_validate(response.json())


@pytest.mark.parametrize(("operation", "mode"), CASES, ids=[f"{each.label} {mode.value}" for each, mode in CASES])
def test_every_route_answers(
    client: httpx.Client, operation: schemathesis.APIOperation[Any, Any, Any, Any], mode: GenerationMode
) -> None:
    @given(operation.as_strategy(generation_mode=mode))
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    def ask(case: schemathesis.Case[Any]) -> None:
        made = case.as_transport_kwargs(base_url="http://tssd")
        parts = {"params": "params", "headers": "headers", "json": "json", "data": "content"}
        request = client.build_request(
            made["method"], made["url"], **{ours: made[theirs] for theirs, ours in parts.items() if made.get(theirs)}
        )
        check(client.send(request), operation.path)

    ask()
