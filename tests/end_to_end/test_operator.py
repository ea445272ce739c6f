"""An operator's day with `tssctl`: two real parties, their tokens, what works without tssd, and outages."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from daemon.values import MessageHash, PublicKey, Signature
from tests.daemon.ctl.talking import Told, tssctl
from tests.end_to_end.running import PARTIES, Running, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from localnet.party import Party

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # httpcore, where nobody listens

OURS, THEIRS = PARTIES[:2]
HASH = "5a" * 32


class Operator:
    """Runs tssctl for one party or another."""

    def __init__(self, net: Running, public_key: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.net = net.net
        self.running = net
        self.public_key = public_key
        self._capsys = capsys

    def party(self, party_id: str) -> Party:
        return self.net.parties[party_id]

    def tssctl(self, party_id: str, *words: str) -> Told:
        party = self.party(party_id)
        return tssctl(self._capsys, "--socket", str(party.socket), "--config", str(party.config), *words)

    def json(self, party_id: str, *words: str) -> Any:  # noqa: ANN401  JSON
        told = self.tssctl(party_id, *words, "--json")
        assert told.err == ""
        return json.loads(told.out)

    def until(self, party_id: str, words: tuple[str, ...], holds: Callable[[Told], bool]) -> Told:
        """Run a command until what it says is so."""
        deadline = time.monotonic() + 60
        while not holds(told := self.tssctl(party_id, *words)):
            assert time.monotonic() < deadline, told
        return told


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Running, str]]:
    with running((OURS, THEIRS), tables={"service": {"drain_seconds": 1}}) as network:
        yield network, network.call(network.net.keygen, 2)


@pytest.fixture
def operator(pair: tuple[Running, str], capsys: pytest.CaptureFixture[str]) -> Operator:
    return Operator(*pair, capsys)


def test_a_signing_by_hand_is_watched_live(operator: Operator, tmp_path: Path) -> None:
    made = operator.net.coordinator.create_signing(operator.public_key, (OURS, THEIRS), HASH)
    asked = ("sign", "participate", made.session_id, "--hash", f"0x{HASH}", "--public-key", operator.public_key)
    for party_id, token in made.join_tokens.items():
        file = tmp_path / party_id
        file.write_text(f"{token}\n")
        told = operator.tssctl(party_id, *asked, "--party", party_id, "--join-token-file", str(file))
        assert (told.code, told.err) == (0, "")
        assert told.out == f"signing accepted; follow it: tssctl sessions watch {made.session_id}\n"
    told = operator.tssctl(OURS, "sessions", "watch", made.session_id)
    assert told.code == 0
    assert f"round 9 of 9, waits for {THEIRS}" in told.out
    (line,) = (line for line in told.out.splitlines() if line.startswith("signature "))
    signature = Signature(bytes.fromhex(line.split()[-1]), 0)
    assert PublicKey.parse(operator.public_key).verify(MessageHash.parse(HASH), signature)
    assert operator.json(THEIRS, "sessions", "show", made.session_id)["signature"] == line.split()[-1]
    assert HASH in operator.tssctl(OURS, "events").out
    assert operator.tssctl(OURS, "audit", "verify").code == 0


def test_a_signing_that_fails_says_why(operator: Operator, tmp_path: Path) -> None:
    made = operator.net.coordinator.create_signing(operator.public_key, (OURS, THEIRS), HASH)
    (tmp_path / "token").write_text(made.join_tokens[OURS])
    other = "6b" * 32
    asked = ("sign", "participate", made.session_id, "--hash", other, "--public-key", operator.public_key)
    told = operator.tssctl(OURS, *asked, "--party", OURS, "--join-token-file", str(tmp_path / "token"), "--watch")
    assert told.code == 1
    assert "failed: " in told.out
    assert operator.json(OURS, "sessions", "show", made.session_id)["reason"] == "session-disagrees"


def test_confirmations_may_be_carried_by_hand(operator: Operator, tmp_path: Path) -> None:
    (share,) = operator.json(OURS, "shares", "list")
    held = operator.json(OURS, "sessions", "confirmations", share["sessionId"])
    assert held["missing"] == []
    (tmp_path / "held.json").write_text(json.dumps(held))
    told = operator.tssctl(
        THEIRS, "sessions", "confirmations", share["sessionId"], "--take", str(tmp_path / "held.json")
    )
    assert told.code == 0
    assert " no" not in told.out


def test_pins_are_made_on_the_terminal(operator: Operator) -> None:
    first, second = (
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        .hex()
        for _ in range(2)
    )
    number = operator.json(OURS, "peers", "list")["number"]
    added = operator.json(OURS, "peers", "add", "elsewhere", first, "demo-elsewhere", "--yes")
    assert (added["number"], len(added["peers"])) == (number + 1, 2)
    listed = operator.json(OURS, "peers", "list")
    assert listed["peers"] == added["peers"]
    (elsewhere,) = (peer for peer in listed["peers"] if peer["node"] == "elsewhere")
    assert (elsewhere["identity"], elsewhere["partyIds"]) == (first, ["demo-elsewhere"])
    replaced = operator.json(OURS, "peers", "replace", "elsewhere", second, "--yes")
    (elsewhere,) = (peer for peer in replaced["peers"] if peer["node"] == "elsewhere")
    assert (elsewhere["identity"], elsewhere["partyIds"]) == (second, ["demo-elsewhere"])
    assert operator.json(OURS, "peers", "verify", "elsewhere", elsewhere["fingerprint"])["same"] is True
    told = operator.tssctl(OURS, "peers", "verify", "elsewhere", "0000")
    assert told.code == 1
    assert "NOT the same" in told.out
    assert len(operator.json(OURS, "peers", "remove", "elsewhere")["peers"]) == 1
    assert operator.json(OURS, "peers", "list")["number"] == number + 3
    assert operator.json(OURS, "peers", "sign-succession", second)["statement"]


def test_keys_are_made_once_and_a_new_version_seals_anew(operator: Operator) -> None:
    told = operator.tssctl(THEIRS, "hsm", "init")
    assert told.code == 1
    assert "the keys exist already; nothing was changed" in told.err
    assert operator.json(THEIRS, "hsm", "rotate-kek") == {"kekVersion": 2, "shares": 1, "left": 0}
    assert operator.running.call(operator.net.sign, operator.public_key, (OURS, THEIRS), HASH)


def test_the_doctor_looks_at_the_token(operator: Operator) -> None:
    report = operator.json(OURS, "hsm", "doctor")
    assert report["tier"] == "A"
    assert {check["outcome"] for check in report["checks"]} <= {"passed", "weak", "skipped"}


def test_a_killed_custodian_comes_back(operator: Operator) -> None:
    process = operator.party(OURS).process
    assert process is not None
    threads = Path(f"/proc/{process.pid}/task").glob("*/children")
    (custodian,) = [int(child) for children in threads for child in children.read_text().split()]
    os.kill(custodian, signal.SIGKILL)
    figures = ("status", "--json")
    told = operator.until(
        OURS, figures, lambda told: json.loads(told.out)["figures"]["tssd_custodian_restarts"]["all"] == 1
    )
    told = operator.until(OURS, ("status",), lambda told: told.code == 0)
    assert re.search("able to sign +yes", told.out)


def test_a_token_that_is_away_is_told_and_found_again(operator: Operator) -> None:
    tokens = operator.party(OURS).directory / "token" / "tokens"
    away = tokens.rename(tokens.with_name("away"))
    tokens.mkdir()
    told = operator.until(OURS, ("status",), lambda told: told.code == 1)
    assert re.search("able to sign +no\nbecause +[a-z]", told.out)
    assert operator.tssctl(OURS, "hsm", "status").code in {1, 69}
    assert operator.tssctl(OURS, "health").code == 0
    assert operator.json(OURS, "shares", "list")
    tokens.rmdir()
    away.rename(tokens)
    operator.until(OURS, ("status",), lambda told: told.code == 0)
    assert operator.running.call(operator.net.sign, operator.public_key, (OURS, THEIRS), HASH)


def test_what_needs_no_daemon_works_without_it(operator: Operator) -> None:
    operator.running.call(operator.party(OURS).stop)
    told = operator.tssctl(OURS, "status")
    assert told.code == 69
    assert "is not listening" in told.err
    assert ": 1 nodes, signed by our identity key\n" in operator.tssctl(OURS, "peers", "verify").out
    assert operator.tssctl(OURS, "config", "check").code == 0
