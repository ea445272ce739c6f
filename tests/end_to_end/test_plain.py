"""A committee without a channel, on real daemons: what the router reads of it, how each use is told, one at a time."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.end_to_end.hostile import TABLES, Capture, Ends, hold
from tests.end_to_end.prepared import fill, plain_uses
from tests.end_to_end.running import PARTIES, Running, running
from tests.interop import vectors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from localnet.coordinator import Invitation
    from localnet.router import Delivery

PAIR: Final = PARTIES[:2]
HASH: Final = "5a" * 32
LISTED: Final = {"protocol": "gg18-v2", "parties": list(PAIR), "keygen": True}
SEATS: Final = {party: seat for seat, party in enumerate(PAIR, start=1)}


@pytest.fixture(scope="module")
def network(arena: None) -> Iterator[Running]:  # noqa: ARG001  of the core that seals the recorded pre-parameters
    tables = TABLES | {"custodian": TABLES["custodian"] | {"plain": [LISTED]}}
    with running(PAIR, tables, lambda party: fill(party, SEATS[party.party_id], 2, "gg18-v2")) as made:
        yield made


@pytest.fixture(scope="module")
def capture(network: Running) -> Capture:
    seen = Capture()
    network.net.router.tap = seen.take
    return seen


@pytest.fixture(scope="module")
def public_key(network: Running, capture: Capture) -> str:
    del capture
    return str(network.call(network.net.keygen, 2))


def test_the_router_reads_all_of_it_and_everybody_says_so(network: Running, capture: Capture, public_key: str) -> None:
    (session,) = capture.frames
    told = b"".join(capture.payloads(session))
    assert b"binance.tsslib.ecdsa.keygen" in told
    for own in vectors.pre_parameters()[:2]:
        assert own["NTildei"].to_bytes(256) in told
    for party in PAIR:
        with network.client(party) as client:
            (share,) = client.get("/mpc-party/shares").json()["shares"]
            audit = {row["action"] for row in client.get("/mpc-party/audit?limit=1000").json()["rows"]}
        assert (share["channel"], share["publicKey"], share["status"]) == ("plain", public_key, "active")
        assert "share-active-unconfirmed" in audit
        assert uuid.UUID(session).bytes in plain_uses(network.net.parties[party])


def test_a_share_signs_one_session_at_a_time(network: Running, public_key: str) -> None:
    net = network.net
    expected = {"messageHash": HASH, "publicKey": public_key}
    first, second = (net.coordinator.create_signing(public_key, PAIR, HASH) for _ in range(2))

    def ask(made: Invitation) -> Any:  # noqa: ANN401  an answer
        body = {"sessionId": made.session_id, "partyId": PAIR[0], "joinToken": made.join_tokens[PAIR[0]], **expected}
        with network.client(PAIR[0]) as client:
            return client.post("/mpc-party/signing/participate", json=body)

    assert ask(first).status_code == 202
    path = f"/mpc-party/sessions/{first.session_id}/events"
    with network.client(PAIR[0]) as client, client.stream("GET", path, timeout=60) as steps:
        assert "event: agreed" in steps.iter_lines()
    refused = ask(second)
    assert refused.status_code == 503
    assert "one session at a time" in refused.json()["detail"]
    for made in (first, second):
        ends: Ends = network.call(hold, net, made, "signing", expected)
        assert {end.status for end in ends.values()} == {"completed"}
        for party in PAIR:
            assert uuid.UUID(made.session_id).bytes in plain_uses(net.parties[party])


def test_blame_is_only_the_routers_word(network: Running, public_key: str) -> None:
    net = network.net
    made = net.coordinator.create_signing(public_key, PAIR, HASH)

    def change(frame: Delivery) -> tuple[Delivery, ...]:
        return (replace(frame, payload=frame.payload[:-1] + bytes([frame.payload[-1] ^ 1])),)

    net.router.scripts[made.session_id] = change
    ends = network.call(hold, net, made, "signing", {"messageHash": HASH, "publicKey": public_key})
    faults = [end.steps[-1]["detail"] for end in ends.values() if end.status == "failed"]
    assert faults
    assert all(fault["authenticated"] is False for fault in faults)
    net.router.scripts.clear()
    assert network.call(net.sign, public_key, PAIR, HASH)
