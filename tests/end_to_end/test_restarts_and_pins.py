"""What comes back after a restart, what does not; peers that are not pinned any more, and keys that have changed."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio

from daemon.custody.wire import EditPins, Pins
from daemon.network.peers import store_pins
from localnet.coordinator import Invitation
from tests.daemon.ctl.talking import tssctl
from tests.end_to_end.hostile import (
    STALL_SECONDS,
    Arena,
    Ends,
    arena_of,
    blames_nobody,
    followed,
    hold,
    is_told,
    read_logs,
)
from tests.end_to_end.prepared import opened
from tests.end_to_end.running import PARTIES
from tests.hsm.soft import lose_identity
from tests.tss_cffi.channel.independent import Identity

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from localnet.net import Net
    from localnet.party import Party
    from localnet.router import Delivery

HASH: Final = "5a" * 32
VICTIM: Final = PARTIES[1]
RESTART_EVERY_SECONDS: Final = 4.0
FRAME_SECONDS: Final = {"signing": 0.4, "keygen": 1.2}
"""What each frame takes: so that the rounds of either last beyond a restart."""


@pytest.fixture(scope="module")
def network(arena: None) -> Iterator[Arena]:  # noqa: ARG001  of the core that seals the recorded pre-parameters
    with arena_of(sets=2) as made:
        yield made


@pytest.mark.parametrize("kind", ["signing", "keygen"])
def test_a_router_that_restarts_every_few_seconds_loses_no_ceremony(network: Arena, kind: str) -> None:
    net = network.net
    restarts = 0
    ceremonies: dict[str, Callable[[], Awaitable[Ends]]] = {
        "signing": lambda: network.signing(HASH),
        "keygen": network.keygen,
    }

    async def run() -> Ends:
        async def restart() -> None:
            nonlocal restarts
            while True:
                await trio.sleep(RESTART_EVERY_SECONDS)
                with trio.CancelScope(shield=True):  # it must be there for those who come after
                    await net.restart_router()
                restarts += 1

        net.router.mischief = lambda frame: (replace(frame, delay=FRAME_SECONDS[kind]),)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(restart)
            ends = await ceremonies[kind]()
            nursery.cancel_scope.cancel()
        net.router.mischief = None
        return ends

    ends = network.running.call(run)
    assert {end.status for end in ends.values()} == {"completed"}, [end.message for end in ends.values()]
    assert restarts >= 1


def test_a_party_that_crashed_does_not_rejoin_and_says_so(network: Arena) -> None:
    """The others learn it from its signed notice, long before their clocks run out."""
    net = network.net
    victim = net.parties[VICTIM]
    made = net.coordinator.create_signing(network.public_key, PARTIES, HASH)
    body = {"messageHash": HASH, "publicKey": network.public_key}
    silent = trio.Event()

    def script(frame: Delivery) -> tuple[Delivery, ...]:
        """From the victim's third round on nothing of this session arrives, until it is back."""
        if frame.from_party == VICTIM and frame.payload[1] == 3 and frame.round_number >= 3:
            silent.set()
            return ()
        return (frame,)

    async def run() -> Ends:
        ends: Ends = {}

        async def take_part(party: str) -> None:
            token = made.join_tokens[party]
            whole: dict[str, Any] = {"sessionId": made.session_id, "partyId": party, "joinToken": token}
            async with net.parties[party].client() as client:
                answer = await client.post("/mpc-party/signing/participate", json=whole | body)
                assert answer.status_code == 202, answer.text
            if party != VICTIM:
                ends[party] = await followed(net, party, made.session_id)

        net.router.scripts[made.session_id] = script
        async with trio.open_nursery() as nursery:
            for party in PARTIES:
                nursery.start_soon(take_part, party)
            await silent.wait()
            await victim.stop(signal.SIGKILL)
            await victim.start()
        ends[VICTIM] = await followed(net, VICTIM, made.session_id)
        return ends

    ends = network.running.call(run)
    read_logs(net, [ends])
    blames_nobody(ends)
    assert (ends[VICTIM].status, ends[VICTIM].reason) == ("failed", "restart")
    for party in set(PARTIES) - {VICTIM}:
        end = ends[party]
        assert (end.status, end.reason) == ("failed", "aborted"), end.message
        assert end.message == f"aborted: {VICTIM} ended it: restart"
        is_told(end)
    assert any(end.seconds < STALL_SECONDS for end in ends.values())
    network.signs()


async def edit(network: Arena, whose: str, action: Any, identity: bytes | None) -> None:  # noqa: ANN401  one of three words
    """What `tssctl peer` does, while the daemon runs."""
    party = network.net.parties[whose]
    change = EditPins(pins=None, action=action, node=VICTIM, identity=identity, patterns=(VICTIM,))
    async with party._operator() as operator:
        store_pins(party.database, await operator.ask(change, Pins))


def test_a_peer_that_is_not_pinned_is_named_with_what_to_do(network: Arena) -> None:
    net = network.net
    network.running.call(edit, network, PARTIES[0], "remove", None)
    made = net.coordinator.create_signing(network.public_key, PARTIES, HASH)
    alone = Invitation(made.session_id, {PARTIES[0]: made.join_tokens[PARTIES[0]]})
    ends = network.running.call(hold, net, alone, "signing", {"messageHash": HASH, "publicKey": network.public_key})
    read_logs(net, [ends])
    end = ends[PARTIES[0]]
    assert (end.status, end.reason) == ("failed", "refused")
    assert f"no pinned peer speaks for {VICTIM}; add it with `tssctl peers add`" in end.message
    assert "begun" not in end.names
    is_told(end)
    network.running.call(edit, network, PARTIES[0], "add", net.parties[VICTIM].identity)
    network.signs()


def test_a_peer_with_another_key_than_the_pinned_one_is_named_with_what_to_do(network: Arena) -> None:
    """Its hello does not count; while the session waits for it in vain, it says why."""
    net = network.net
    identity = net.parties[VICTIM].identity
    network.running.call(edit, network, PARTIES[0], "replace", Identity(7).public)
    made = net.coordinator.create_signing(network.public_key, PARTIES, HASH)
    found: list[str] = []

    async def look() -> None:
        path = f"/mpc-party/sessions/{made.session_id}"
        async with net.parties[PARTIES[0]].client() as client:
            while not any(VICTIM in wait and "another key" in wait for wait in found):
                answer = await client.get(path)
                found[:] = answer.json()["waitsFor"] if answer.is_success else []
                await trio.sleep(0.1)

    async def run() -> Ends:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            return await hold(net, made, "signing", {"messageHash": HASH, "publicKey": network.public_key})

    ends = network.running.call(run)
    (said,) = (wait for wait in found if wait.startswith(VICTIM))
    assert hashlib.sha256(identity).hexdigest() in said
    assert "`tssctl peers replace`" in said
    assert said in ends[PARTIES[0]].message
    blames_nobody(ends)
    assert {end.reason for end in ends.values()} <= {"overdue", "aborted"}
    network.running.call(edit, network, PARTIES[0], "replace", identity)
    network.signs()


class Operators:
    """Runs tssctl for any party."""

    def __init__(self, net: Net, capsys: pytest.CaptureFixture[str]) -> None:
        self._net = net
        self._capsys = capsys

    def json(self, party_id: str, *words: str, config: Path | None = None) -> Any:  # noqa: ANN401  JSON
        party = self._net.parties[party_id]
        told = tssctl(
            self._capsys, "--socket", str(party.socket), "--config", str(config or party.config), *words, "--json"
        )
        assert told.err == ""
        return json.loads(told.out)


def kept(party: Party, directory: Path) -> Path:
    """The HSM as it is, beside one to come: a configuration with which an operator reaches it."""
    shutil.copytree(party.directory / "token", directory / "token")
    for file, content in (
        (directory / "token" / "softhsm2.conf", (party.directory / "token" / "softhsm2.conf").read_text()),
        (directory / "config.toml", party.config.read_text()),
    ):
        file.write_text(content.replace(str(party.directory / "token"), str(directory / "token")))
    return directory / "config.toml"


@pytest.mark.parametrize("how", ["succession", "pinned anew after an HSM was lost"])
def test_a_changed_identity_signs_again_with_the_shares_it_had(
    network: Arena, how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The new token has the KEK of the one before, for that is what shares are sealed to, and another identity key."""
    net, call = network.net, network.running.call
    operators, victim = Operators(net, capsys), net.parties[VICTIM]
    call(victim.stop)
    before = kept(victim, tmp_path)
    with opened(victim) as token:
        lose_identity(token)
    identity = operators.json(VICTIM, "hsm", "init")["identity"]
    assert identity != victim.identity.hex()
    call(victim.start)
    ready = call(asked, victim, "/mpc-party/ready")
    assert (ready["ready"], len(ready["reasons"])) == (False, 1)
    assert "`tssctl peers renew`" in ready["reasons"][0]
    made = net.coordinator.create_signing(network.public_key, PARTIES, HASH)
    alone = Invitation(made.session_id, {VICTIM: made.join_tokens[VICTIM]})
    ends = call(hold, net, alone, "signing", {"messageHash": HASH, "publicKey": network.public_key})
    assert (ends[VICTIM].status, ends[VICTIM].reason) == ("failed", "refused")
    assert ready["reasons"][0] in ends[VICTIM].message

    renewed = operators.json(VICTIM, "peers", "renew")
    assert {peer["identity"] for peer in renewed["peers"]} == {
        net.parties[party].identity.hex() for party in set(PARTIES) - {VICTIM}
    }
    assert operators.json(VICTIM, "peers", "list")["number"] == renewed["number"]
    statement = ""
    if how == "succession":
        statement = operators.json(VICTIM, "peers", "sign-succession", identity, config=before)["statement"]
    for party in set(PARTIES) - {VICTIM}:
        if statement:
            told = operators.json(party, "peers", "succeed", statement)
        else:
            told = operators.json(party, "peers", "replace", VICTIM, identity, "--yes")
        assert identity in {peer["identity"] for peer in told["peers"]}
    victim.identity = bytes.fromhex(identity)
    network.signs()
    assert call(asked, victim, "/mpc-party/ready")["ready"]
    assert operators.json(VICTIM, "audit", "verify")["whole"]


async def asked(party: Party, path: str) -> Any:  # noqa: ANN401  JSON
    async with party.client() as client:
        return (await client.get(path)).json()
