"""Who is let in, and what the coordinator's word is compared with. One daemon is enough: nothing gets to a round."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import trio

from daemon.desk import Caller
from daemon.errors import Busy, InvalidValue, NoActiveShare, NotPermitted, SessionReplayed
from daemon.session import SessionStatus
from daemon.values import JoinToken, MessageHash, PartyId, PublicKey, SessionId, ShareType
from tests.daemon.ceremonies.committee import CALLER, NAMES, Committee, Template, open_committee
from tests.daemon.shares.samples import OTHER_KEY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from localnet.coordinator import Invitation

ALICE = NAMES[0]
PAIR = NAMES[:2]
QUICK = {
    "*": {"limits": {"sessions": 2, "keygens": 1, "signing_seconds": 20, "keygen_seconds": 20, "stall_seconds": 20}}
}


@pytest.fixture
async def alone(template: Template, tmp_path: Path) -> AsyncIterator[Committee]:
    """Only the first party runs."""
    async with open_committee(template, tmp_path, tables=QUICK, start=(ALICE,)) as committee:
        yield committee


async def test_what_is_refused_at_the_door(alone: Committee, template: Template) -> None:
    desk = alone.desks[ALICE]
    keygen = alone.keygen_command(alone.coordinator.create_keygen(list(NAMES), 2), ALICE)
    made = alone.coordinator.create_signing(template.key, PAIR, "00" * 32)
    signing = alone.signing_command(made, ALICE, template.key)
    narrowed = Caller(name="uid:7", share_types=frozenset({ShareType.ADMIN}))
    for command, caller, kind, words in (
        (replace(keygen, party_id=PartyId("mallory-x")), CALLER, NotPermitted, "no party of this node"),
        (replace(keygen, threshold=None, parties=None), CALLER, InvalidValue, "threshold and parties"),
        (replace(keygen, threshold=None), CALLER, InvalidValue, "come together"),
        (replace(keygen, threshold=4), CALLER, InvalidValue, "2 <= t <= n"),
        (replace(keygen, parties=frozenset({PartyId("x-y"), PartyId("y-z")})), CALLER, InvalidValue, "must name all"),
        (keygen, narrowed, NotPermitted, "wallet"),
    ):
        with pytest.raises(kind, match=words):
            await desk.participate_keygen(command, caller)
    for signing_command, caller, words in (
        (replace(signing, public_key=None), CALLER, "publicKey"),
        (replace(signing, public_key=OTHER_KEY), CALLER, "no active share for this public key"),
        (signing, narrowed, "wallet"),
    ):
        with pytest.raises((InvalidValue, NoActiveShare, NotPermitted), match=words):
            await desk.participate_signing(signing_command, caller)
    assert await desk.sessions() == await desk.sessions(status=SessionStatus.COMPLETED)  # nothing half-entered
    refused = [row for row in await desk.audit(limit=1000) if row.action == "refused"]
    assert len(refused) == 9
    assert {row.actor for row in refused} == {"uid:1000", "uid:7"}


async def test_the_same_request_is_the_same_session_and_another_one_is_a_conflict(
    alone: Committee, template: Template
) -> None:
    desk = alone.desks[ALICE]
    made = alone.coordinator.create_signing(template.key, PAIR, "00" * 32)
    command = alone.signing_command(made, ALICE, template.key)
    first = await desk.participate_signing(command, CALLER)
    again = await desk.participate_signing(replace(command, join_token=JoinToken("another")), CALLER)
    assert again.started_at == first.started_at
    with pytest.raises(SessionReplayed):
        await desk.participate_signing(replace(command, message_hash=MessageHash(b"\1" * 32)), CALLER)
    keygen = alone.keygen_command(alone.coordinator.create_keygen(list(NAMES), 2), ALICE)
    with pytest.raises(SessionReplayed):
        await desk.participate_keygen(replace(keygen, session_id=command.session_id), CALLER)
    alone.desks[ALICE].admission.running[command.session_id, command.party_id]._total.cancel()
    await alone.ended(command.session_id)
    over = await desk.participate_signing(command, CALLER)
    assert over.status.final


async def test_a_full_house_answers_at_once(alone: Committee, template: Template) -> None:
    desk = alone.desks[ALICE]

    def signing() -> Any:  # noqa: ANN401  a command
        made = alone.coordinator.create_signing(template.key, PAIR, "00" * 32)
        return alone.signing_command(made, ALICE, template.key)

    await desk.participate_signing(signing(), CALLER)
    await desk.participate_keygen(alone.keygen_command(alone.coordinator.create_keygen(list(NAMES), 2), ALICE), CALLER)
    began = trio.current_time()
    with pytest.raises(Busy, match=re.escape("limits.sessions")) as busy:
        await desk.participate_signing(signing(), CALLER)
    assert trio.current_time() - began < 1
    assert busy.value.retry_after >= 1
    assert len(await desk.sessions(status=SessionStatus.IN_PROGRESS)) == 2
    for running in list(desk.admission.running.values()):
        if running.session.message_hash is not None:
            running._total.cancel()
            await alone.ended(running.session.session_id)
    another = alone.keygen_command(alone.coordinator.create_keygen(list(NAMES), 2), ALICE)
    with pytest.raises(Busy, match=re.escape("limits.keygens")):
        await desk.participate_keygen(another, CALLER)
    desk.admission.stopping = True
    with pytest.raises(Busy, match="stopping"):
        await desk.participate_keygen(another, CALLER)


def info(**changes: object) -> Callable[[dict[str, Any]], None]:
    def lie(answer: dict[str, Any]) -> None:
        answer["session_info"] |= changes

    return lie


def without(name: str) -> Callable[[dict[str, Any]], None]:
    def lie(answer: dict[str, Any]) -> None:
        del answer["session_info"][name]

    return lie


def others(*names: str) -> Callable[[dict[str, Any]], None]:
    def lie(answer: dict[str, Any]) -> None:
        answer["other_parties"] = [{"party_id": name, "party_index": k + 1} for k, name in enumerate(names)]

    return lie


def indices(*numbers: int, own: int | None = 0) -> Callable[[dict[str, Any]], None]:
    def lie(answer: dict[str, Any]) -> None:
        answer["party_index"] = own
        for party, number in zip(answer["other_parties"], numbers, strict=True):
            party["party_index"] = number

    return lie


SIGNING_LIES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "hash": (info(message_hash="11" * 32), "session-disagrees"),
    "no-hash": (without("message_hash"), "misspoken"),
    "key": (info(public_key=str(OTHER_KEY)), "session-disagrees"),
    "no-key": (without("public_key"), "misspoken"),
    "threshold": (info(threshold_t=3), "session-disagrees"),
    "parties": (info(threshold_n=4), "session-disagrees"),
    "type": (info(session_type="keygen"), "session-disagrees"),
    "stranger": (others("mallory-x"), "session-disagrees"),
    "ourselves-twice": (others(ALICE, "bob-phone"), "session-disagrees"),
    "too-few": (others(), "session-disagrees"),
    "another-session": (info(session_id="0b1c2d3e-0000-4000-8000-000000000001"), "misspoken"),
}
KEYGEN_LIES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "threshold": (info(threshold_t=3), "session-disagrees"),
    "size": (info(threshold_n=4), "misspoken"),
    "type": (info(session_type="sign"), "session-disagrees"),
    "stranger": (others("bob-phone", "mallory-x"), "session-disagrees"),
    "ourselves-twice": (others(ALICE, "bob-phone"), "misspoken"),
    "one-index-twice": (indices(1, 1), "misspoken"),
    "an-index-left-out": (indices(1, 3), "misspoken"),
    "our-index": (indices(1, 2, own=1), "misspoken"),
    "another-session": (info(session_id="0b1c2d3e-0000-4000-8000-000000000001"), "misspoken"),
}


async def test_a_coordinator_that_says_something_else_is_not_followed(alone: Committee, template: Template) -> None:
    desk = alone.desks[ALICE]
    lie: list[Callable[[dict[str, Any]], None]] = []

    def alter(route: str, answer: dict[str, Any]) -> dict[str, Any]:
        if route == "join":
            lie[-1](answer)
        return answer

    alone.coordinator.alter = alter

    async def outcome(made: Invitation) -> str:
        (end,) = (await alone.ended(SessionId(made.session_id))).values()
        assert end.status is SessionStatus.FAILED
        return end.reason

    found = {}
    for name, (told, _) in SIGNING_LIES.items():
        lie.append(told)
        made = alone.coordinator.create_signing(template.key, PAIR, "00" * 32)
        await desk.participate_signing(alone.signing_command(made, ALICE, template.key), CALLER)
        found[name] = await outcome(made)
    assert found == {name: reason for name, (_, reason) in SIGNING_LIES.items()}
    found = {}
    prepared = await desk.store.prepared_count("gg18-v3")
    for name, (told, _) in KEYGEN_LIES.items():
        lie.append(told)
        made = alone.coordinator.create_keygen(list(NAMES), 2)
        await desk.participate_keygen(alone.keygen_command(made, ALICE), CALLER)
        found[name] = await outcome(made)
    assert found == {name: reason for name, (_, reason) in KEYGEN_LIES.items()}
    assert await desk.store.prepared_count("gg18-v3") == prepared
    share = await desk.store.active_share(PartyId(ALICE), PublicKey.parse(template.key))
    assert share.last_used_at is None


async def test_a_token_that_does_not_hold_ends_the_session(alone: Committee, template: Template) -> None:
    desk = alone.desks[ALICE]
    made = alone.coordinator.create_signing(template.key, PAIR, "00" * 32)
    command = replace(alone.signing_command(made, ALICE, template.key), join_token=JoinToken("planted.token"))
    await desk.participate_signing(command, CALLER)
    (end,) = (await alone.ended(command.session_id)).values()
    assert end.reason == "declined"
    assert "401" in end.error_message
    assert "planted" not in str(await desk.audit(limit=1000)) + str(
        await desk.store.journal(end.session_id, end.party_id)
    )


@pytest.mark.parametrize("clock", ["signing_seconds", "stall_seconds"])
async def test_whoever_waits_says_for_what(template: Template, tmp_path: Path, clock: str) -> None:
    """The clocks end a session that nobody joins, and the end names who was missing."""
    tables = {"*": {"limits": {"signing_seconds": 30, "stall_seconds": 30, clock: 2}}}
    async with open_committee(template, tmp_path, tables=tables, start=(ALICE,)) as alone:
        session = await alone.sign(template.key, PAIR, among=(ALICE,))
        desk = alone.desks[ALICE]
        with trio.fail_after(15):
            while (await desk.session(session)).waits_for != ("bob-phone",):  # noqa: ASYNC110  live, nobody tells
                await trio.sleep(0.05)
        (end,) = (await alone.ended(session)).values()
        assert end.status is SessionStatus.TIMEOUT
        assert "bob-phone" in end.error_message
        assert ("within 2 s" if clock == "signing_seconds" else "no progress for 2 s") in end.error_message
        assert desk.admission.running == {}


async def test_a_keygen_bears_a_peer_that_still_searches_its_primes(template: Template, tmp_path: Path) -> None:
    """Until all have spoken no stall clock runs, whatever progress others make; then it does."""
    async with open_committee(template, tmp_path, start=PAIR) as committee:
        made = committee.coordinator.create_keygen(list(PAIR), 2)
        desk, session = committee.desks[ALICE], SessionId(made.session_id)
        commands = {
            name: replace(committee.keygen_command(made, name), parties=frozenset(map(PartyId, PAIR))) for name in PAIR
        }
        await desk.participate_keygen(commands[ALICE], CALLER)
        running = desk.admission.running[session, PartyId(ALICE)]
        with trio.fail_after(60):
            while (await desk.session(session)).waits_for != ("bob-phone",):  # noqa: ASYNC110  live, nobody tells
                await trio.sleep(0.05)
        running.stall_seconds = 0.1
        running.progressed()
        await trio.sleep_until(trio.current_time() + 5 * running.stall_seconds)  # more than that clock allows
        assert (await desk.session(session)).status is SessionStatus.IN_PROGRESS
        running.stall_seconds = 2
        committee.router.scripts[made.session_id] = lambda frame: (frame,) if frame.round_number < 2 else ()
        await committee.desks[PAIR[1]].participate_keygen(commands[PAIR[1]], CALLER)
        end = (await committee.ended(session, (ALICE,)))[ALICE]
        assert end.status is SessionStatus.TIMEOUT
        assert "keygen: no progress for 2 s; waiting for bob-phone" in end.error_message


async def test_requests_without_expectations_where_they_are_allowed(template: Template, tmp_path: Path) -> None:
    tables = {"*": {"policy": {"require_expectations": False}}}
    async with open_committee(template, tmp_path, tables=tables, start=PAIR) as committee:
        made = committee.coordinator.create_signing(template.key, PAIR, "00" * 32)
        for name in PAIR:
            await committee.desks[name].participate_signing(committee.signing_command(made, name, None), CALLER)
        ends = await committee.ended(SessionId(made.session_id))
        assert {end.status for end in ends.values()} == {SessionStatus.COMPLETED}
        assert {str(end.public_key) for end in ends.values()} == {template.key}
        for desk in committee.desks.values():
            assert desk.metrics.unexpecting._value.get() == 1
