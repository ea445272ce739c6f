"""A committee without a channel, on real daemons: what the router reads of it, how each use is told, one at a time.

Two of the three list the pair of them, with the second switch; all list the committee of three, without it.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest

from localnet.party import to_toml
from tests.end_to_end.hostile import TABLES, Capture, Ends, hold
from tests.end_to_end.prepared import fill, forget_moduli, plain_uses, uses
from tests.end_to_end.running import PARTIES, Running, running
from tests.interop import vectors
from tests.tss_cffi.channel import independent as channel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from localnet.coordinator import Invitation, Script
    from localnet.party import Party
    from localnet.router import Delivery

PAIR: Final = PARTIES[:2]
HASH: Final = "5a" * 32
LISTED: Final[dict[str, object]] = {"protocol": "gg18-v2", "parties": list(PAIR), "keygen": True}
UNSWITCHED: Final[dict[str, object]] = {"protocol": "gg18-v2", "parties": list(PARTIES)}
SEATS: Final = {party: seat for seat, party in enumerate(PARTIES, start=1)}


def listing(*entries: dict[str, object]) -> str:
    """The line of config.toml that lists them."""
    return to_toml({"custodian": {"plain": entries}}).splitlines()[1]


def prepare(party: Party) -> None:
    """Its own listing, and recorded sets of pre-parameters."""
    seat = SEATS[party.party_id]
    if party.party_id in PAIR:
        before, written = listing(UNSWITCHED), party.config.read_text()
        assert before in written
        party.config.write_text(written.replace(before, listing(UNSWITCHED, LISTED)))
        fill(party, seat, 2, "gg18-v2")
    fill(party, seat, 2, "gg18-v3")


@pytest.fixture(scope="module")
def network(arena: None) -> Iterator[Running]:  # noqa: ARG001  of the core that seals the recorded pre-parameters
    tables = TABLES | {"custodian": TABLES["custodian"] | {"plain": [UNSWITCHED]}}
    with running(PARTIES, tables, prepare) as made:
        yield made


def keygen(network: Running, parties: Sequence[str], script: Script | None = None) -> Ends:
    """Make a key, all of whose parties sign."""
    net, count = network.net, len(parties)
    for party in parties:
        forget_moduli(net.parties[party])
    made = net.coordinator.create_keygen(parties, count)
    if script is not None:
        net.coordinator.scripts[made.session_id] = script
    expected: dict[str, object] = {"shareType": "wallet", "threshold": count, "parties": list(parties)}
    ends: Ends = network.call(hold, net, made, "keygen", expected)
    return ends


@pytest.fixture(scope="module")
def capture(network: Running) -> Capture:
    seen = Capture()
    network.net.router.tap = seen.take
    return seen


@pytest.fixture(scope="module")
def public_key(network: Running, capture: Capture) -> str:
    del capture
    ends = keygen(network, PAIR)
    assert {end.status for end in ends.values()} == {"completed"}
    return str(ends[PAIR[0]].session["publicKey"])


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


def says_plain(_: str, answer: dict[str, object]) -> dict[str, object]:
    """A coordinator's word, in every place where somebody might look for it."""
    word = {"channel": "plain", "plain": True, "protocol": "gg18-v2", "keygen": True}
    session = answer["session_info"]
    assert isinstance(session, dict)
    return answer | word | {"session_info": session | word}


@pytest.mark.parametrize(
    "parties",
    [pytest.param(PARTIES, id="listed-without-the-second-switch"), pytest.param(PARTIES[1:], id="not-listed")],
)
def test_a_coordinators_word_makes_nothing_plain(network: Running, parties: tuple[str, ...]) -> None:
    """Neither with a committee beyond the pair that may make keys so, nor with one that shares a party with it."""
    net = network.net
    seen = Capture()
    net.router.tap = seen.take
    of_keygen = keygen(network, parties, says_plain)
    public_key = of_keygen[parties[0]].session["publicKey"]
    made = net.coordinator.create_signing(public_key, parties, HASH)
    net.coordinator.scripts[made.session_id] = says_plain
    of_signing: Ends = network.call(hold, net, made, "signing", {"messageHash": HASH, "publicKey": public_key})
    assert {end.status for ends in (of_keygen, of_signing) for end in ends.values()} == {"completed"}
    assert len(seen.frames) == 2
    for session in seen.frames:
        assert all(frame.payload[0] == channel.VERSION for frame in seen.frames[session])
        assert b"binance.tsslib" not in b"".join(seen.payloads(session))
        for party in parties:
            of_party = net.parties[party]
            assert uuid.UUID(session).bytes in uses(of_party) - plain_uses(of_party)
    for party, end in of_keygen.items():
        (agreed,) = (step for step in end.steps if step["step"] == "agreed")
        assert agreed["detail"]["channel"] == "sealed"
        with network.client(party) as client:
            shares = client.get("/mpc-party/shares").json()["shares"]
        (share,) = (share for share in shares if share["publicKey"] == public_key)
        assert (share["channel"], share["protocol"]) == ("sealed", "gg18-v3")
