from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING

import pytest
import structlog
import trio
import trio.lowlevel

from daemon.api import bodies
from daemon.desk import ParticipateKeygen, ParticipateSigning
from daemon.errors import Broken, Busy, NoActiveShare, TokenLost
from daemon.session import Step
from daemon.settings import AccessSettings
from daemon.values import PartyId
from tests.daemon.api.standin import KEY, ME, PARTY, SESSION, SHARE, StandIn, entry, served

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

KEYGEN_PARTIES = ["user123-b", "user123-server", "user123-a"]
KEYGEN: dict[str, object] = {
    "sessionId": str(SESSION).upper(),
    "partyId": "user123-server",
    "joinToken": "eyJhbGciOi.planted.secret",
    "shareType": "wallet",
    "threshold": 2,
    "parties": KEYGEN_PARTIES,
}
SIGNING = {
    "sessionId": str(SESSION),
    "partyId": "user123-server",
    "joinToken": "eyJhbGciOi.planted.secret",
    "messageHash": "0x" + "5A" * 32,
    "publicKey": str(KEY),
}
ROUTES = [
    "/mpc-party/health",
    "/mpc-party/ready",
    "/mpc-party/shares",
    f"/mpc-party/shares/{SHARE.share_id}",
    "/mpc-party/sessions",
    f"/mpc-party/sessions/{SESSION}",
    f"/mpc-party/sessions/{SESSION}/confirmations",
    "/mpc-party/events",
    "/mpc-party/peers",
    "/mpc-party/custody",
    "/mpc-party/custody/rotate-kek",
    "/mpc-party/audit",
    "/metrics",
    "/openapi.json",
    "/docs",
]


def problem(response: httpx.Response, status: int, kind: str) -> dict[str, object]:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, object] = response.json()
    assert body["type"] == f"urn:tssd:problem:{kind}"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    return body


async def test_keygen_is_accepted_with_parsed_values(tmp_path: Path) -> None:
    desk = StandIn()
    async with served(desk, tmp_path) as client:
        response = await client.post("/mpc-party/keygen/participate", json=KEYGEN)
    assert response.status_code == 202
    accepted = {"message": "keygen accepted", "sessionId": str(SESSION), "partyId": "user123-server"}
    assert response.json() == accepted
    ((_, (command, caller)),) = desk.asked
    assert isinstance(command, ParticipateKeygen)
    assert command.session_id == SESSION
    assert command.threshold == 2
    assert command.parties == frozenset(map(PartyId, KEYGEN_PARTIES))
    assert command.join_token.reveal() == KEYGEN["joinToken"]
    assert (caller.name, caller.share_types) == (f"uid:{os.getuid()}", None)


async def test_signing_is_accepted_with_and_without_expectations(tmp_path: Path) -> None:
    desk = StandIn()
    async with served(desk, tmp_path) as client:
        assert (await client.post("/mpc-party/signing/participate", json=SIGNING)).status_code == 202
        bare = {name: value for name, value in SIGNING.items() if name != "publicKey"}
        assert (await client.post("/mpc-party/signing/participate", json=bare)).status_code == 202
    first, second = (what[0] for _, what in desk.asked)
    assert isinstance(first, ParticipateSigning)
    assert (first.public_key, second.public_key) == (KEY, None)
    assert first.message_hash.octets == b"\x5a" * 32


async def test_every_query_answers_as_described(tmp_path: Path) -> None:
    async with served(StandIn(), tmp_path) as client:
        for route in ROUTES:
            response = await client.get(route)
            assert response.status_code == (503 if route == "/mpc-party/ready" else 200), route
        share = (await client.get(f"/mpc-party/shares/{SHARE.share_id}")).json()
        metrics = (await client.get("/metrics")).text
        health = (await client.get("/mpc-party/health")).json()
    assert health["status"] == "ok"
    assert health["service"] == "tssd"
    assert set(health) == {"status", "timestamp", "service"}
    assert share["threshold"] == "2-of-3"
    assert share["createdAt"] == "2026-01-31T12:00:00.000000Z"
    assert not any("data" in name.lower() for name in share)
    assert "tssd_sessions_total 1.0" in metrics


async def test_operators_commands(tmp_path: Path) -> None:
    desk = StandIn()
    statement = base64.b64encode(b"signed").decode()
    async with served(desk, tmp_path) as client:
        posted = await client.post("/mpc-party/peers/succession", json={"statement": statement})
        assert posted.status_code == 200
        path = f"/mpc-party/sessions/{SESSION}/confirmations"
        taken = await client.post(path, json={"statements": [statement]})
        assert taken.json()["missing"] == ["user123-a"]
        assert taken.json()["statements"] == [statement]
        quarantined = await client.post(f"/mpc-party/shares/{SHARE.share_id}/quarantine")
        assert quarantined.json()["status"] == "quarantined"
        assert (await client.post("/mpc-party/custody/rotate-kek")).json()["shares"] == 3
        assert (await client.post("/mpc-party/audit/verify")).json()["whole"] is True
    assert desk.asked[0][1][0] == b"signed"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"surprise": 1}, "surprise"),
        ({"sessionId": "7c9e6679"}, "sessionId"),
        ({"partyId": "nodash"}, "partyId"),
        ({"partyId": 7}, "partyId"),
        ({"joinToken": ""}, "joinToken"),
        ({"joinToken": "x" * 16385}, "joinToken"),
        ({"shareType": "piggybank"}, "shareType"),
        ({"threshold": "2"}, "threshold"),
        ({"threshold": 1}, "threshold"),
        ({"threshold": True}, "threshold"),
        ({"parties": ["user123-server"]}, "parties"),
        ({"parties": "user123-server"}, "parties"),
        ({"parties": ["user123-server", "user123-server"]}, "parties"),
        ({"session_id": str(SESSION)}, "session_id"),
    ],
)
async def test_refuses_what_a_keygen_cannot_be(tmp_path: Path, change: dict[str, object], field: str) -> None:
    desk = StandIn()
    async with served(desk, tmp_path) as client:
        response = await client.post("/mpc-party/keygen/participate", json=KEYGEN | change)
    body = problem(response, 422, "invalid-value")
    assert any(each["field"].startswith(field) for each in body["errors"])  # type: ignore[attr-defined]
    assert "planted" not in response.text
    assert desk.asked == []


@pytest.mark.parametrize("message_hash", ["", "0x", "5a" * 31, "5a" * 33, "0x0x" + "5a" * 31, "zz" * 32])
async def test_refuses_what_a_hash_cannot_be(tmp_path: Path, message_hash: str) -> None:
    async with served(StandIn(), tmp_path) as client:
        response = await client.post("/mpc-party/signing/participate", json=SIGNING | {"messageHash": message_hash})
    problem(response, 422, "invalid-value")


async def test_bodies_are_bounded_and_json(tmp_path: Path) -> None:
    async with served(StandIn(), tmp_path) as client:
        path = "/mpc-party/keygen/participate"
        as_json = {"content-type": "application/json"}
        large = await client.post(path, content=b"[" * (bodies.BODY_MAX + 1), headers=as_json)
        problem(large, 413, "request-entity-too-large")
        problem(await client.post(path, content=b"{", headers=as_json), 400, "malformed-json")
        problem(await client.post(path, content=b"\xff", headers=as_json), 400, "malformed-json")
        problem(await client.post(path, data={"sessionId": "x"}), 415, "unsupported-media-type")
        problem(await client.post(path), 422, "invalid-value")


async def test_unknown_routes_methods_and_queries(tmp_path: Path) -> None:
    async with served(StandIn(), tmp_path) as client:
        problem(await client.get("/mpc-party/nothing"), 404, "not-found")
        problem(await client.delete("/mpc-party/shares"), 405, "method-not-allowed")
        problem(await client.get("/mpc-party/shares?colour=red"), 422, "invalid-value")
        problem(await client.get("/mpc-party/shares?limit=0"), 422, "invalid-value")
        problem(await client.get("/mpc-party/shares?after=1"), 422, "invalid-value")
        problem(await client.get("/mpc-party/shares?publicKey=02"), 422, "invalid-value")
        problem(await client.get("/mpc-party/sessions?before=yesterday"), 422, "invalid-value")
        problem(await client.get("/mpc-party/sessions?before=2026-01-31T12:00:00"), 422, "invalid-value")
        problem(await client.get("/mpc-party/shares/1"), 422, "invalid-value")
        problem(await client.get(f"/mpc-party/shares/{SESSION}"), 404, "unknown-share")
        problem(await client.get(f"/mpc-party/sessions/{SHARE.share_id}"), 404, "unknown-session")


async def test_refusals_of_the_desk_are_problem_documents(tmp_path: Path) -> None:
    desk = StandIn()
    async with served(desk, tmp_path) as client:
        desk.fails = Busy("64 ceremonies are under way", 3)
        response = await client.post("/mpc-party/signing/participate", json=SIGNING)
        assert problem(response, 503, "busy")["remedy"] == "try again in 3 s"
        assert response.headers["retry-after"] == "3"
        desk.fails = NoActiveShare("no active share for this public key", "list the shares")
        response = await client.post("/mpc-party/signing/participate", json=SIGNING)
        assert problem(response, 409, "no-active-share")["remedy"] == "list the shares"
        desk.fails = TokenLost("the token is away")
        problem(await client.get("/mpc-party/custody"), 503, "custody-lost")


@pytest.mark.parametrize("defect", [RuntimeError("planted"), Broken("planted")])
async def test_defects_are_logged_and_told_without_details(tmp_path: Path, defect: Exception) -> None:
    desk = StandIn(fails=defect)
    with structlog.testing.capture_logs() as logs:
        async with served(desk, tmp_path) as client:
            response = await client.get("/mpc-party/shares")
            problem(response, 500, "broken")
            assert "planted" not in response.text
            desk.fails = None
            assert (await client.get("/mpc-party/shares")).status_code == 200
    assert any(each["log_level"] == "error" and each["exc_info"] is defect for each in logs)


async def test_neither_tokens_nor_bodies_are_logged(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        async with served(StandIn(), tmp_path) as client:
            await client.post("/mpc-party/keygen/participate", json=KEYGEN)
            await client.post("/mpc-party/keygen/participate", json=KEYGEN | {"threshold": 0})
            await client.get("/mpc-party/shares?publicKey=planted")
    assert [each["status"] for each in logs] == [202, 422, 422]
    assert "planted" not in repr(logs)


async def test_roles_decide(tmp_path: Path) -> None:
    nobody = f"uid:{os.getuid() + 1}"
    statement = {"statement": base64.b64encode(b"signed").decode()}
    expected = {
        "nobody": (200, 403, 403, 403, 403),
        "viewer": (200, 200, 403, 403, 403),
        "participant": (200, 200, 202, 403, 403),
        "operator": (200, 200, 202, 200, 200),
    }
    for role, statuses in expected.items():
        table = {"operator": [nobody]} | ({} if role == "nobody" else {role: [ME]})
        directory = tmp_path / role
        directory.mkdir()
        async with served(StandIn(AccessSettings.model_validate(table)), directory) as client:
            answers = (
                await client.get("/mpc-party/health"),
                await client.get("/mpc-party/shares"),
                await client.post("/mpc-party/keygen/participate", json=KEYGEN),
                await client.post("/mpc-party/peers/succession", json=statement),
                await client.post(f"/mpc-party/shares/{SHARE.share_id}/quarantine"),
            )
        assert tuple(each.status_code for each in answers) == statuses, role
        for each in answers:
            if each.status_code == 403:
                problem(each, 403, "not-permitted")


async def test_progress_is_streamed_and_resumed(tmp_path: Path) -> None:
    desk = StandIn(journal=[entry(4, Step.OFFERED), entry(7, Step.ROUND), entry(9, Step.COMPLETED)])
    path = f"/mpc-party/sessions/{SESSION}/events"
    async with served(desk, tmp_path) as client:
        async with client.stream("GET", path) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            text = "".join([piece async for piece in response.aiter_text()])
        resumed = await client.get(path, headers={"Last-Event-ID": "7"})
        problem(await client.get(path, headers={"Last-Event-ID": "x"}), 422, "invalid-value")
        problem(await client.get(f"/mpc-party/sessions/{SHARE.share_id}/events"), 404, "unknown-session")
    events = [dict(line.split(": ", 1) for line in each.splitlines()) for each in text.split("\n\n") if each]
    assert [(each["id"], each["event"]) for each in events] == [("4", "offered"), ("7", "round"), ("9", "completed")]
    assert json.loads(events[1]["data"]) == {
        "number": 7,
        "sessionId": str(SESSION),
        "partyId": str(PARTY),
        "step": "round",
        "round": 7,
        "at": "2026-01-31T12:00:00.000000Z",
        "detail": {"rounds": 9},
    }
    assert resumed.text.startswith("id: 9\n")


async def test_answers_in_hand_leave_before_the_doors_close(tmp_path: Path) -> None:
    hold = trio.Event()
    desk = StandIn(hold=hold)
    answers: list[httpx.Response] = []

    async with trio.open_nursery() as callers:

        async def release() -> None:
            while not desk.asked:
                await trio.lowlevel.checkpoint()
            leave.set()
            await trio.lowlevel.checkpoint()
            hold.set()

        leave = trio.Event()
        async with served(desk, tmp_path) as client:

            async def call() -> None:
                answers.append(await client.get("/mpc-party/shares"))

            callers.start_soon(call)
            callers.start_soon(release)
            await leave.wait()
    assert [each.status_code for each in answers] == [200]


async def test_the_description_knows_every_route_and_its_problems(tmp_path: Path) -> None:
    async with served(StandIn(), tmp_path) as client:
        document = (await client.get("/openapi.json")).json()
    gets = {path for path, operations in document["paths"].items() if "get" in operations}
    named = {route.replace(str(SESSION), "{session_id}").replace(str(SHARE.share_id), "{share_id}") for route in ROUTES}
    assert named | {"/mpc-party/sessions/{session_id}/events"} == gets
    for operations in document["paths"].values():
        for operation in operations.values():
            assert list(operation["responses"]["4XX"]["content"]) == ["application/problem+json"]
