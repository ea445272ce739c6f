"""One seat is an unmodified Go tss-lib party behind the router, the others are our daemons: keygen, then signatures.

tss-lib speaks bare messages, so the committee is one that the custodians' configuration lists as plain.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio
from trio_websocket import wrap_client_stream

from daemon.values import CURVE_ORDER
from localnet.__main__ import openssl_verify
from tests.end_to_end.running import running
from tests.interop import golang, vectors
from tests.interop.committee import Letter

if TYPE_CHECKING:
    from collections.abc import Callable

    from localnet.coordinator import Invitation
    from localnet.net import Net

DAEMONS = ("demo-server", "demo-mobile")
GO = "demo-tsslib"
PARTIES = (*DAEMONS, GO)
KEYS = {party: index + 1 for index, party in enumerate(PARTIES)}
MESSAGE = b"from a mixed committee"
HASH = hashlib.sha256(MESSAGE).digest()


async def sit(net: Net, made: Invitation, begin: Callable[[], golang.GoSeat], result: str) -> golang.GoSeat:
    """Take part as the Go party: listen, join, talk until it is done, report."""
    host, port = net.router_url.removeprefix("http://").split(":")
    resource = f"/sessions/{made.session_id}/messages?party_id={GO}"
    names = {key: party for party, key in KEYS.items()}
    async with (
        httpx.AsyncClient(base_url=net.coordinator_url) as coordinator,
        await trio.open_tcp_stream(host, int(port)) as tcp,
        trio.open_nursery() as nursery,
    ):
        stream = await wrap_client_stream(nursery, tcp, host, resource)
        join = {"session_id": made.session_id, "party_id": GO, "join_token": made.join_tokens[GO]}
        (await coordinator.post("/sessions/join", json=join)).raise_for_status()
        seat = await trio.to_thread.run_sync(begin)
        while True:
            for letter in seat.outgoing():
                frame: dict[str, Any] = {
                    "from_party": GO,
                    "round_number": 0,
                    "payload": base64.b64encode(letter.payload).decode(),
                }
                if letter.to is not None:
                    frame["to_parties"] = [names[letter.to]]
                await stream.send_message(json.dumps(frame))
            assert seat.fault is None
            if seat.save is not None or seat.signature is not None:
                break
            got = json.loads(await stream.get_message())
            letter = Letter(None, got["is_broadcast"], "", base64.b64decode(got["payload"]))
            await trio.to_thread.run_sync(seat.receive, KEYS[got["from_party"]], letter)
        if seat.signature is not None:
            report = {"signature": low_s(seat.signature.rs)}
        else:
            assert seat.save is not None
            report = {"public_key": compressed(seat.save)}
        body = {"session_id": made.session_id, "party_id": GO, **report}
        (await coordinator.post("/sessions/report-completion", json=body)).raise_for_status()
        nursery.cancel_scope.cancel()
    assert result in report
    return seat


def low_s(rs: bytes) -> str:
    s = int.from_bytes(rs[32:], "big")
    return (rs[:32] + min(s, CURVE_ORDER - s).to_bytes(32, "big")).hex()


def compressed(save: dict[str, Any]) -> str:
    x, y = map(int, save["ECDSAPub"]["Coords"])
    return ("03" if y & 1 else "02") + x.to_bytes(32, "big").hex()


async def together(
    net: Net, made: Invitation, kind: str, expected: dict[str, object], begin: Callable[[], golang.GoSeat], result: str
) -> tuple[golang.GoSeat, list[dict[str, Any]]]:
    """Hold a ceremony of the invited daemons and the Go party, if it is invited."""
    seats: list[golang.GoSeat] = []
    sessions: list[dict[str, Any]] = []

    async def go() -> None:
        seats.append(await sit(net, made, begin, result))

    async def ours(party: str, token: str) -> None:
        body = {"sessionId": made.session_id, "partyId": party, "joinToken": token, **expected}
        sessions.append(await net.take_part(party, kind, body))

    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(go)
            for party, token in made.join_tokens.items():
                if party != GO:
                    nursery.start_soon(ours, party, token)
    return seats[0], sessions


@pytest.mark.interop
@pytest.mark.parametrize("profile", ["gg18-v2", "gg18-v3"])
def test_go_and_daemons_make_a_key_and_sign(profile: str) -> None:
    plain = {"protocol": profile, "parties": list(PARTIES), "keygen": True}
    with golang.GoParties(profile) as go, running(DAEMONS, {"custodian": {"plain": [plain]}}) as network:
        net = network.net
        pre_parameters = vectors.pre_parameters()[0]

        made = net.coordinator.create_keygen(PARTIES, 2)
        expected: dict[str, object] = {"shareType": "wallet", "threshold": 2, "parties": list(PARTIES)}

        def begin_keygen() -> golang.GoSeat:
            return go.keygen(KEYS[GO], list(KEYS.values()), 2, pre_parameters)

        seat, sessions = network.call(together, net, made, "keygen", expected, begin_keygen, "public_key")
        assert [each["status"] for each in sessions] == ["completed", "completed"], sessions
        public_key = compressed(seat.save)
        assert {each["publicKey"] for each in sessions} == {public_key}
        for party in DAEMONS:
            with network.client(party) as client:
                (share,) = client.get("/mpc-party/shares").json()["shares"]
            assert (share["channel"], share["protocol"], share["status"]) == ("plain", profile, "active")

        save = seat.save
        for party in DAEMONS:
            signing = net.coordinator.create_signing(public_key, [party, GO], HASH.hex())
            wanted: dict[str, object] = {"messageHash": HASH.hex(), "publicKey": public_key}

            def begin_signing(party: str = party) -> golang.GoSeat:
                message = int.from_bytes(HASH, "big") % CURVE_ORDER
                return go.signing(KEYS[GO], sorted([KEYS[party], KEYS[GO]]), 2, save, message)

            seat, sessions = network.call(together, net, signing, "signing", wanted, begin_signing, "signature")
            (session,) = sessions
            assert session["status"] == "completed", session
            assert session["signature"] == low_s(seat.signature.rs)
            assert openssl_verify(public_key, session["signature"], MESSAGE) == "Verified OK"
