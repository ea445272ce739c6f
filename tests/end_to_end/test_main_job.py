"""Three daemons, each with its own HSM token, make a key and sign with it, and tell whoever asks what they did."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import shlex
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from daemon.values import MessageHash, PublicKey, Signature
from localnet.__main__ import openssl_verify
from tests.end_to_end.running import PARTIES

if TYPE_CHECKING:
    from collections.abc import Callable

    from localnet.router import Frame
    from tests.end_to_end.conftest import Committee

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
MESSAGE = b"pay 1 coin to Carol"
HASH = hashlib.sha256(MESSAGE).hexdigest()


def get(committee: Committee, party_id: str, path: str) -> Any:  # noqa: ANN401  JSON
    with committee.running.client(party_id) as client:
        answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("signers", tuple(itertools.combinations(PARTIES, 2)), ids="+".join)
def test_every_pair_signs_and_openssl_agrees(committee: Committee, signers: tuple[str, str]) -> None:
    signature = committee.running.call(committee.running.net.sign, committee.public_key, signers, HASH)
    assert openssl_verify(committee.public_key, signature, MESSAGE) == "Verified OK"
    assert openssl_verify(committee.public_key, signature, MESSAGE + b"!") != "Verified OK"
    low_s = Signature(bytes.fromhex(signature), 0)
    assert PublicKey.parse(committee.public_key).verify(MessageHash.parse(HASH), low_s)


def test_all_parties_tell_the_same_story(committee: Committee) -> None:
    before = {party: get(committee, party, "/mpc-party/events")["events"] for party in PARTIES}
    committee.running.call(committee.running.net.sign, committee.public_key, PARTIES[:2], HASH)
    for party in PARTIES:
        (share,) = get(committee, party, "/mpc-party/shares")["shares"]
        assert share["publicKey"] == committee.public_key
        assert (share["threshold"], share["status"], share["partyId"]) == ("2-of-3", "active", party)
        assert [seat["partyId"] for seat in share["committee"]] == list(PARTIES)
        assert before[party][0]["event"]["type"] == "ShareCreated"
        assert before[party][1]["event"]["type"] == "KeygenCompleted"
    for party in PARTIES[:2]:
        number = before[party][-1]["number"]
        (signed,) = get(committee, party, f"/mpc-party/events?after={number}")["events"]
        assert signed["event"]["type"] == "SigningCompleted"
        assert signed["event"]["messageHash"] == HASH
        (share,) = get(committee, party, "/mpc-party/shares")["shares"]
        assert share["lastUsedAt"] is not None
        newest = get(committee, party, "/mpc-party/sessions?limit=1")["sessions"][0]
        assert (newest["type"], newest["status"]) == ("sign", "completed")
        assert newest["signature"] == signed["event"]["signature"]
    assert get(committee, PARTIES[2], "/mpc-party/events")["events"] == before[PARTIES[2]]


def test_ready_custody_peers_metrics_and_audit(committee: Committee) -> None:
    assert get(committee, PARTIES[0], "/mpc-party/ready")["ready"] is True
    custody = get(committee, PARTIES[0], "/mpc-party/custody")
    assert (custody["state"], custody["tier"], custody["tokenLabel"]) == ("ready", "A", "tssd")
    peers = get(committee, PARTIES[0], "/mpc-party/peers")
    assert {peer["node"] for peer in peers["peers"]} == set(PARTIES[1:])
    assert peers["identity"] == custody["identity"]
    with committee.running.client(PARTIES[0]) as client:
        verdict = client.post("/mpc-party/audit/verify").json()
        metrics = client.get("/metrics").text
    assert verdict["whole"] is True
    assert verdict["rows"] > 0
    assert re.search(r'^tssd_sessions_total\{outcome="completed",type="keygen"\} 1\.0$', metrics, re.MULTILINE)
    assert "tssd_custodian_ready 1.0" in metrics


def figures(committee: Committee, party_id: str) -> dict[str, float]:
    """Every figure of /metrics by its name and labels, as they are printed."""
    with committee.running.client(party_id) as client:
        text = client.get("/metrics").text
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in text.splitlines() if line[0] != "#")
    }


def eventually(committee: Committee, party_id: str, holds: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    """The figures, once they are so."""
    deadline = time.monotonic() + 60
    while not holds(found := figures(committee, party_id)):
        assert time.monotonic() < deadline, found
    return found


def test_each_named_figure_moves(committee: Committee) -> None:
    net, party = committee.running.net, PARTIES[0]
    before = figures(committee, party)
    made = net.coordinator.create_signing(committee.public_key, PARTIES[:2], HASH)
    under_way: list[dict[str, float]] = []

    def go_down(_: str, frame: Frame) -> None:
        net.coordinator.down |= frame.round_number > 0  # so that the report has to wait

    async def sign() -> None:
        expected = {"messageHash": HASH, "publicKey": committee.public_key}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(net.ceremony, "signing", made.session_id, made.join_tokens, expected)
            while not net.coordinator.down:
                await trio.lowlevel.checkpoint()
            waits = partial(eventually, committee, party, lambda now: now['tssd_outbox_waiting{kind="report"}'] == 1)
            under_way.append(await trio.to_thread.run_sync(waits))
            net.coordinator.down = False

    net.router.tap = go_down
    committee.running.call(sign)
    net.router.tap = None
    assert under_way[0]['tssd_outbox_age_seconds{kind="report"}'] > 0
    after = eventually(committee, party, lambda now: now['tssd_outbox_waiting{kind="report"}'] == 0)
    assert after['tssd_outbox_age_seconds{kind="report"}'] == 0
    moving = (
        'tssd_sessions_total{outcome="completed",type="sign"}',
        'tssd_session_seconds_count{type="sign"}',
        'tssd_round_seconds_count{type="sign"}',
        "tssd_hsm_operations",
    )
    eventually(committee, party, lambda now: all(now.get(name, 0) > before.get(name, 0) for name in moving))
    assert figures(committee, party)["tssd_seconds_since_progress"] < 60
    for name in ("tssd_router_inbox_frames", "tssd_custodian_restarts", "tssd_hsm_errors"):
        assert name in after


def test_every_confirmation_is_there_to_hand_on(committee: Committee) -> None:
    (share,) = get(committee, PARTIES[0], "/mpc-party/shares")["shares"]
    path = f"/mpc-party/sessions/{share['sessionId']}/confirmations"
    confirmations = get(committee, PARTIES[0], path)
    assert set(confirmations["confirmed"]) == set(PARTIES)
    assert confirmations["missing"] == []
    with committee.running.client(PARTIES[1]) as client:
        again = client.post(path, json={"statements": confirmations["statements"]})
    assert again.status_code == 200
    assert again.json()["missing"] == []


def commands() -> list[tuple[str, str]]:
    """The README's curl commands with what is printed under them."""
    blocks = re.findall(r"```console\n\$ (curl.*?)\n```", README, re.DOTALL)
    found = []
    for block in blocks:
        command, _, printed = block.partition("\n{")
        found.append((command, "{" + printed if printed else ""))
    assert len(found) >= 6
    return found


def alike(printed: object, real: object) -> bool:
    """The same shape; texts that are not ids, times, keys or signatures are the same."""
    if isinstance(printed, dict) and isinstance(real, dict):
        return printed.keys() == real.keys() and all(alike(printed[key], real[key]) for key in printed)
    if isinstance(printed, list) and isinstance(real, list):
        return len(printed) == len(real) and all(map(alike, printed, real))
    if isinstance(printed, str) and isinstance(real, str):
        return re.sub("[0-9a-f]", "x", printed) == re.sub("[0-9a-f]", "x", real) or printed == real
    return printed == real


@pytest.mark.parametrize(("command", "printed"), commands())
def test_the_readme_says_what_happens(committee: Committee, command: str, printed: str) -> None:
    net = committee.running.net
    (share,) = get(committee, PARTIES[0], "/mpc-party/shares")["shares"]
    keygen = net.coordinator.create_keygen(PARTIES, 2)
    signing = net.coordinator.create_signing(committee.public_key, PARTIES[:2], "5a" * 32)
    if "signing/participate" in command:
        made = signing
    elif "keygen/participate" in command:
        made = keygen
    else:
        made = None
    real = command.replace("/run/tssd/tssd.sock", str(net.parties[PARTIES[0]].socket))
    real = re.sub("0[23][0-9a-f]{64}", committee.public_key, real)
    if made is None:
        real = real.replace("7c9e6679-7425-40de-944b-e07fc1f90ae7", share["sessionId"])
    else:
        real = re.sub('"sessionId": "[^"]*"', f'"sessionId": "{made.session_id}"', real)
        real = real.replace("eyJhbGciOi...", made.join_tokens[PARTIES[0]])
    ran = subprocess.run(shlex.split(real), capture_output=True, text=True, timeout=60, check=True)
    if printed:
        assert alike(json.loads(printed), json.loads(ran.stdout)), ran.stdout
    else:
        steps = re.findall("^event: (.*)$", ran.stdout, re.MULTILINE)
        assert steps[0] == "offered"
        assert steps[-1] == "completed"
