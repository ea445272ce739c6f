from __future__ import annotations

import hashlib

import httpx
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from localnet.coordinator import Coordinator

PARTIES = ["user123-server", "user123-mobile", "user123-backup"]
HASH = hashlib.sha256(b"hello").hexdigest()


def compressed(key: ec.EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint).hex()


def signed(key: ec.EllipticCurvePrivateKey, message_hash: str) -> str:
    r, s = utils.decode_dss_signature(key.sign(bytes.fromhex(message_hash), ec.ECDSA(utils.Prehashed(SHA256()))))
    return (r.to_bytes(32, "big") + s.to_bytes(32, "big")).hex()


async def keygen(client: httpx.AsyncClient, public_key: str) -> str:
    wanted = {"session_type": "keygen", "parties": PARTIES, "threshold_t": 2}
    made = (await client.post("/sessions", json=wanted)).raise_for_status().json()
    session_id = made["session_id"]
    for index, party in enumerate(PARTIES):
        join = {"session_id": session_id, "party_id": party, "join_token": made["join_tokens"][party]}
        joined = (await client.post("/sessions/join", json=join)).raise_for_status().json()
        assert joined["session_info"] == {
            "session_id": session_id,
            "session_type": "keygen",
            "threshold_n": 3,
            "threshold_t": 2,
        }
        assert joined["party_index"] == index
        others = [{"party_id": p, "party_index": i} for i, p in enumerate(PARTIES) if p != party]
        assert joined["other_parties"] == others
    for party in PARTIES:
        report = {"session_id": session_id, "party_id": party, "public_key": public_key}
        (await client.post("/sessions/report-completion", json=report)).raise_for_status()
    return str(session_id)


async def test_keygen_then_signing_by_two_of_three() -> None:
    key = ec.generate_private_key(ec.SECP256K1())
    coordinator = Coordinator()
    async with coordinator.serving() as url, httpx.AsyncClient(base_url=url) as client:
        session_id = await keygen(client, compressed(key))
        assert (await client.get(f"/sessions/{session_id}/status")).json()["status"] == "completed"
        signers = [PARTIES[0], PARTIES[2]]
        wanted = {
            "session_type": "sign",
            "parties": signers,
            "public_key": compressed(key),
            "message_hash": HASH,
        }
        made = (await client.post("/sessions", json=wanted)).raise_for_status().json()
        join = {
            "session_id": made["session_id"],
            "party_id": PARTIES[2],
            "join_token": made["join_tokens"][PARTIES[2]],
        }
        joined = (await client.post("/sessions/join", json=join)).raise_for_status().json()
        assert joined["other_parties"] == [{"party_id": PARTIES[0], "party_index": 0}]
        assert joined["session_info"]["message_hash"] == HASH
        assert (joined["session_info"]["threshold_n"], joined["party_index"]) == (3, 2)
        report = {"session_id": made["session_id"], "party_id": PARTIES[2], "signature": signed(key, HASH)}
        (await client.post("/sessions/report-completion", json=report)).raise_for_status()
        status = (await client.get(f"/sessions/{made['session_id']}/status")).json()
        assert status["status"] == "in_progress"
        assert status["reported"] == [PARTIES[2]]


async def test_refuses_what_does_not_fit() -> None:
    key = ec.generate_private_key(ec.SECP256K1())
    coordinator = Coordinator()
    async with coordinator.serving() as url, httpx.AsyncClient(base_url=url) as client:

        async def refused(path: str, body: object) -> int:
            return (await client.post(path, json=body)).status_code

        assert await refused("/sessions", {"session_type": "keygen", "parties": PARTIES, "threshold_t": 1}) == 400
        assert await refused("/sessions", {"session_type": "keygen", "parties": PARTIES, "surprise": 1}) == 400
        await keygen(client, compressed(key))
        signing = coordinator.create_signing(compressed(key), PARTIES[:2], HASH)
        join = {"session_id": signing.session_id, "party_id": PARTIES[0], "join_token": "forged"}
        assert await refused("/sessions/join", join) == 401
        join["join_token"] = signing.join_tokens[PARTIES[1]]
        assert await refused("/sessions/join", join) == 403
        report = {"session_id": signing.session_id, "party_id": PARTIES[0], "signature": signed(key, HASH)}
        assert await refused("/sessions/report-completion", report) == 403
        coordinator.join(signing.session_id, PARTIES[0], signing.join_tokens[PARTIES[0]])
        other = hashlib.sha256(b"other").hexdigest()
        assert await refused("/sessions/report-completion", report | {"signature": signed(key, other)}) == 422
        assert await refused("/sessions/report-completion", report) == 200
        assert await refused("/sessions/report-completion", report) == 200
        assert await refused("/sessions/report-completion", report | {"signature": signed(key, HASH)}) == 409
        assert (await client.get("/sessions/11111111-2222-3333-4444-555555555555/status")).status_code == 404


async def test_reports_that_differ_fail_the_session() -> None:
    coordinator = Coordinator()
    async with coordinator.serving() as url, httpx.AsyncClient(base_url=url) as client:
        made = coordinator.create_keygen(PARTIES, 2)
        for party, text in zip(PARTIES[:2], ["02" + "11" * 32, "02" + "22" * 32], strict=True):
            coordinator.join(made.session_id, party, made.join_tokens[party])
            report = {"session_id": made.session_id, "party_id": party, "public_key": text}
            (await client.post("/sessions/report-completion", json=report)).raise_for_status()
        assert (await coordinator.outcome(made.session_id)).status == "failed"


async def test_lies_and_fails_as_scripted() -> None:
    coordinator = Coordinator()
    coordinator.alter = lambda route, body: body | {"party_index": 7} if route == "join" else body
    async with coordinator.serving() as url, httpx.AsyncClient(base_url=url) as client:
        made = coordinator.create_keygen(PARTIES, 2)
        join = {
            "session_id": made.session_id,
            "party_id": PARTIES[0],
            "join_token": made.join_tokens[PARTIES[0]],
        }
        assert (await client.post("/sessions/join", json=join)).json()["party_index"] == 7
        coordinator.down = True
        assert (await client.post("/sessions/join", json=join)).status_code == 503
