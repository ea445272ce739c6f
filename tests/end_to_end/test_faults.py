"""What goes wrong around three real daemons, and what they say and keep when it does."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import signal
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import jwt
import pytest
import trio
from starlette.responses import Response

from localnet import router
from localnet.net import SessionFailed, plainly
from tests.end_to_end.running import PARTIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from localnet.coordinator import Invitation
    from localnet.net import Net
    from localnet.router import Frame
    from tests.end_to_end.conftest import Committee

HASH = hashlib.sha256(b"in bad weather").hexdigest()
SIGNERS = PARTIES[:2]


@pytest.fixture(autouse=True)
def calm(committee: Committee) -> Iterator[None]:
    """Each test finds the neighbours well-behaved, and leaves them so."""
    yield
    net = committee.running.net
    net.coordinator.alter = None
    net.coordinator.scripts.clear()
    net.coordinator.down = net.router.down = False
    net.router.mischief = net.router.tap = net.router.admitted = net.on_step = None


async def sign(net: Net, public_key: str, made: Invitation, expected_hash: str = HASH) -> dict[str, dict[str, Any]]:
    """Both signers take part in a session; gives it as each says it ended."""
    ended: dict[str, dict[str, Any]] = {}

    async def take_part(party: str) -> None:
        body: dict[str, object] = {
            "sessionId": made.session_id,
            "partyId": party,
            "joinToken": made.join_tokens[party],
            "messageHash": expected_hash,
            "publicKey": public_key,
        }
        ended[party] = await net.take_part(party, "signing", body)

    with trio.fail_after(120), plainly(SessionFailed):
        async with trio.open_nursery() as nursery:
            for party in SIGNERS:
                nursery.start_soon(take_part, party)
    return ended


def invite(committee: Committee) -> Invitation:
    return committee.running.net.coordinator.create_signing(committee.public_key, SIGNERS, HASH)


def signs(committee: Committee) -> None:
    """The committee signs as if nothing had been."""
    assert committee.running.call(committee.running.net.sign, committee.public_key, SIGNERS, HASH)


@pytest.mark.parametrize(
    "lie",
    [
        {"message_hash": hashlib.sha256(b"pay Mallory").hexdigest()},
        {"public_key": "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"},
        {"threshold_t": 3},
        {"session_type": "keygen"},
        {"message_hash": None},
    ],
    ids=lambda lie: next(iter(lie)),
)
def test_a_lying_coordinator_gets_no_signature(committee: Committee, lie: dict[str, object]) -> None:
    net = committee.running.net

    def alter(route: str, body: dict[str, Any]) -> dict[str, Any]:
        return body | {"session_info": body["session_info"] | lie} if route == "join" else body

    net.coordinator.alter = alter
    made = invite(committee)
    ended = committee.running.call(sign, net, committee.public_key, made)
    for session in ended.values():
        assert session["status"] == "failed"
        assert session["reason"] in {"session-disagrees", "misspoken"}
        assert session["signature"] is None
    assert net.coordinator.sessions[made.session_id].reports == {}
    net.coordinator.alter = None
    net.coordinator.scripts.clear()
    signs(committee)


def test_a_hostile_router_is_borne(committee: Committee) -> None:
    net = committee.running.net
    dice = random.Random(1)
    net.router.mischief = router.chain(
        router.delay(dice, 0.05),
        router.reorder(dice, 0.2, 0.2),
        router.repeat(dice, 0.3),
        router.corrupt(dice, 0.05),
        router.drop(dice, 0.05),
    )
    signs(committee)


def test_a_cut_stream_loses_no_session(committee: Committee) -> None:
    net = committee.running.net
    made = invite(committee)
    cut = dict.fromkeys(SIGNERS, 0)

    def disconnect(session_id: str, frame: Frame) -> None:
        if frame.round_number in {2, 5} and cut[frame.from_party] < frame.round_number // 2:
            cut[frame.from_party] += 1
            net.router.disconnect(session_id, frame.from_party)

    net.router.tap = disconnect
    ended = committee.running.call(sign, net, committee.public_key, made)
    assert [each["status"] for each in ended.values()] == ["completed"] * 2
    assert cut == dict.fromkeys(SIGNERS, 2)


def test_the_router_may_hear_of_the_session_later_than_the_parties(committee: Committee) -> None:
    net = committee.running.net
    made = invite(committee)
    net.router.admitted = set()
    asked = trio.Event()

    async def admit() -> None:
        await asked.wait()
        net.router.admitted = {made.session_id}

    async def both() -> dict[str, dict[str, Any]]:
        net.on_step = lambda *_: asked.set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(admit)
            return await sign(net, committee.public_key, made)

    ended = committee.running.call(both)
    assert [each["status"] for each in ended.values()] == ["completed"] * 2


def test_reports_wait_for_a_coordinator_that_is_down(committee: Committee) -> None:
    net = committee.running.net
    made = invite(committee)

    def go_down(_: str, frame: Frame) -> None:
        net.coordinator.down |= frame.round_number > 0

    net.router.tap = go_down
    ended = committee.running.call(sign, net, committee.public_key, made)
    assert [each["status"] for each in ended.values()] == ["completed"] * 2
    assert net.coordinator.sessions[made.session_id].reports == {}
    net.coordinator.down = False

    async def reported() -> str:
        with trio.fail_after(60):
            return (await net.coordinator.outcome(made.session_id)).status

    assert committee.running.call(reported) == "completed"


def test_the_same_request_is_the_same_session_and_another_is_refused(committee: Committee) -> None:
    net = committee.running.net
    made = invite(committee)
    ended = committee.running.call(sign, net, committee.public_key, made)
    assert committee.running.call(sign, net, committee.public_key, made) == ended
    with pytest.raises(SessionFailed, match="was used before, with another request"):
        committee.running.call(sign, net, committee.public_key, made, "5a" * 32)


def test_a_killed_daemon_comes_back_with_its_shares(committee: Committee) -> None:
    net = committee.running.net
    made = invite(committee)
    victim = net.parties[SIGNERS[1]]
    killed = trio.Event()

    def kill(_: str, frame: Frame) -> None:
        if frame.round_number == 3 and not killed.is_set():
            killed.set()
            assert victim.process is not None
            victim.process.kill()

    net.router.tap = kill

    async def survivor() -> dict[str, Any]:
        session: dict[str, Any] = {}

        async def ask(party: str) -> None:
            body: dict[str, object] = {
                "sessionId": made.session_id,
                "partyId": party,
                "joinToken": made.join_tokens[party],
                "messageHash": HASH,
                "publicKey": committee.public_key,
            }
            if party == SIGNERS[0]:
                session.update(await net.take_part(party, "signing", body))
            else:
                async with victim.client() as client:
                    (await client.post("/mpc-party/signing/participate", json=body)).raise_for_status()

        async def revive() -> None:
            await killed.wait()
            await victim.stop(signal.SIGKILL)
            await victim.start()

        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(revive)
                for party in SIGNERS:
                    nursery.start_soon(ask, party)
        return session

    session = committee.running.call(survivor)
    assert session["status"] == "failed"
    with committee.running.client(SIGNERS[1]) as client:
        theirs = client.get(f"/mpc-party/sessions/{made.session_id}").json()
        assert (theirs["status"], theirs["reason"]) == ("failed", "restart")
        assert client.post("/mpc-party/audit/verify").json()["whole"] is True
    net.router.tap = None
    signs(committee)


def test_what_the_router_carries_and_what_is_logged_holds_no_token(committee: Committee) -> None:
    net = committee.running.net
    payloads: list[bytes] = []
    net.router.tap = lambda _, frame: payloads.append(frame.payload)
    made = invite(committee)
    committee.running.call(sign, net, committee.public_key, made)
    assert payloads
    for party in SIGNERS:
        token = made.join_tokens[party].encode()
        places = [path for path in net.parties[party].directory.rglob("*") if path.is_file()]
        assert net.parties[party].log in places
        for place in places:
            assert token not in place.read_bytes(), place
        assert not any(token in payload for payload in payloads)
        pin = (net.parties[party].directory / "token" / "pin").read_bytes().strip()
        assert pin not in net.parties[party].log.read_bytes()


PLANTED = jwt.encode({"sub": "planted", "role": "operator"}, "planted" * 8, algorithm="HS256")
"""A bearer token that nobody asks for."""


def answers(committee: Committee, party: str, session_id: str) -> list[str]:
    """Whatever the API tells of a session and of itself, to a caller who shows a token and sends it in wrong places."""
    bearer = {"Authorization": f"Bearer {PLANTED}"}
    session = f"/mpc-party/sessions/{session_id}"
    of_itself = ("sessions", "events", "shares", "ready", "custody", "peers", "health", "audit?limit=1000")
    paths = [session, f"{session}/events", *(f"/mpc-party/{name}" for name in of_itself), "/metrics", "/openapi.json"]
    paths += [f"/mpc-party/sessions?before={PLANTED}", f"/mpc-party/shares/{PLANTED}"]
    bodies = ({"joinToken": PLANTED}, {"sessionId": PLANTED, "partyId": PLANTED, "more": PLANTED})
    with committee.running.client(party) as client:
        client.headers.update(bearer)
        told = [client.get(path) for path in paths]
        told += [client.post("/mpc-party/signing/participate", json=body) for body in bodies]
    return [answer.text for answer in told]


def test_a_coordinator_that_repeats_the_token_spreads_it_nowhere(committee: Committee) -> None:
    """First it has the parties wait, then it refuses them, and each time it says what it was sent."""
    net = committee.running.net
    made = invite(committee)
    refusals = {party: itertools.chain([503, 503], itertools.repeat(401)) for party in SIGNERS}
    waited: dict[str, str] = {}

    def repeat(party: str, _: dict[str, object]) -> Response:
        token = made.join_tokens[party]
        said = f"no: {token}, join_token={quote(token)}, {json.dumps({'join_token': token})}, {token[:60]}"
        return Response(said, next(refusals[party]))

    async def look(party: str) -> None:
        path = f"/mpc-party/sessions/{made.session_id}"
        async with net.parties[party].client() as client:
            while "answered 503" not in waited.get(party, ""):
                waited[party] = (await client.get(path)).text
                await trio.lowlevel.checkpoint()

    async def refused() -> dict[str, dict[str, Any]]:
        async with trio.open_nursery() as nursery:
            for party in SIGNERS:
                nursery.start_soon(look, party)
            return await sign(net, committee.public_key, made)

    net.coordinator.scripts[made.session_id] = repeat
    ended = committee.running.call(refused)
    for party in SIGNERS:
        assert (ended[party]["status"], ended[party]["reason"]) == ("failed", "declined")
        assert "answered 401: no: [join token], join_token=[join token]" in ended[party]["errorMessage"]
        told = [json.dumps(ended[party]), waited[party], *answers(committee, party, made.session_id)]
        log = net.parties[party].log.read_text()
        assert '"level": "debug"' in log
        assert "answered 503" in log
        kept = [path for path in net.parties[party].directory.rglob("*") if path.is_file()]
        assert net.parties[party].database in kept
        pin = net.parties[party].directory / "token" / "pin"
        for secret in (made.join_tokens[party], PLANTED):
            for piece in (secret, *secret.split(".")[1:], secret[40:60]):
                assert [text for text in told if piece in text] == []
                assert [path for path in kept if piece.encode() in path.read_bytes()] == []
        secret = pin.read_text().strip()
        assert secret not in log
        assert [text for text in told if secret in text] == []
        assert [path for path in kept if path != pin and secret.encode() in path.read_bytes()] == []
