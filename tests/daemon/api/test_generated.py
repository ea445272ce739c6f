"""Requests made from our own OpenAPI document, right and wrong ones: each is answered as that promises, never with a
defect.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import schemathesis
import trio
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.core.result import Err
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from daemon.api import problems, routes
from daemon.api.access import Access
from daemon.settings import AccessSettings
from tests.daemon.api.standin import StandIn, served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastapi import FastAPI

EXAMPLES = 40
"""Per route and kind of request, at most: a route that takes nothing has only one request."""
OPERATIONS_KNOWN = 23
REQUESTS_MIN = 1000
sent = 0
"""Requests so far."""


def description() -> dict[str, Any]:
    app: FastAPI = routes.application(StandIn(), Access(AccessSettings(), None))  # type: ignore[arg-type]
    return problems.described(app)


SCHEMA = schemathesis.openapi.from_dict(description())
LOADED = list(SCHEMA.get_all_operations())
OPERATIONS = [result.ok() for result in LOADED if not isinstance(result, Err)]
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


def check(response: httpx.Response, case: schemathesis.Case[Any]) -> None:
    """The answer is one that the document promises: status, content type, headers, body."""
    case.operation.validate_response(response, case=case)
    case.validate_response(response, checks=[status_code_conformance, content_type_conformance])
    if case.operation.path == "/mpc-party/ready" and response.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
        return
    assert response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR, response.text
    if response.status_code >= HTTPStatus.BAD_REQUEST:
        assert response.headers["content-type"] == problems.MEDIA_TYPE
        problems.Problem.model_validate(response.json())


def test_every_operation_loads() -> None:
    """One that schemathesis does not understand would be tried by nobody."""
    assert [result.err() for result in LOADED if isinstance(result, Err)] == []
    described_by_hand = [method for item in description()["paths"].values() for method in item]
    assert len(OPERATIONS) == len(described_by_hand) == OPERATIONS_KNOWN


@pytest.mark.parametrize(("operation", "mode"), CASES, ids=[f"{each.label} {mode.value}" for each, mode in CASES])
def test_every_route_answers(
    client: httpx.Client, operation: schemathesis.APIOperation[Any, Any, Any, Any], mode: GenerationMode
) -> None:
    @given(operation.as_strategy(generation_mode=mode))
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    def ask(case: schemathesis.Case[Any]) -> None:
        global sent  # noqa: PLW0603  counted over all tests
        made = case.as_transport_kwargs(base_url="http://tssd")
        parts = {"params": "params", "headers": "headers", "json": "json", "data": "content"}
        request = client.build_request(
            made["method"], made["url"], **{ours: made[theirs] for theirs, ours in parts.items() if made.get(theirs)}
        )
        check(client.send(request), case)
        sent += 1

    ask()


def test_so_many_requests_were_made(request: pytest.FixtureRequest) -> None:
    """The last one here. Where some of the others were left out, there is nothing to count."""
    others = [item for item in request.session.items if getattr(item, "function", None) is test_every_route_answers]
    if len(others) < len(CASES):
        pytest.skip("not all requests were asked for")
    assert sent > REQUESTS_MIN
