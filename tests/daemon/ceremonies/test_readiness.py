"""Ready is: a signing asked for now is admitted. What is told when it is not, and what beside it; each for real."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import trio

from daemon.custody.pins import encode_list
from daemon.custody.wire import Pin, SignedPins
from daemon.errors import Busy
from daemon.session import SessionStatus
from tests.daemon.ceremonies.committee import NAMES, open_committee

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.desk import Desk
    from tests.daemon.ceremonies.committee import Template

ALICE, BOB, CAROL = NAMES
PAIR = (ALICE, BOB)


async def until_noted(desk: Desk, words: str) -> str:
    """The note with these words, once there is one. What it tells of does not count."""
    with trio.fail_after(30):
        while True:
            readiness = await desk.readiness()
            assert readiness.ready, readiness.reasons
            for note in readiness.notes:
                if words in note:
                    return note
            await trio.sleep(0.01)


async def until_unnoted(desk: Desk, words: str) -> None:
    with trio.fail_after(30):
        while any(words in note for note in (await desk.readiness()).notes):  # noqa: ASYNC110  nobody is told of notes
            await trio.sleep(0.01)


async def test_a_full_house_is_not_ready(template: Template, tmp_path: Path) -> None:
    tables = {"*": {"limits": {"sessions": 1, "keygens": 1}}}
    async with open_committee(template, tmp_path, tables=tables, start=(ALICE,)) as committee:
        desk = committee.desks[ALICE]
        assert (await desk.readiness()).ready
        session = await committee.sign(template.key, PAIR, among=(ALICE,))
        readiness = await desk.readiness()
        assert not readiness.ready
        assert readiness.reasons == ("all 1 places are taken (limits.sessions); try again when a session has ended",)
        with pytest.raises(Busy):
            await committee.sign(template.key, PAIR, among=(ALICE,))
        for running in desk.admission.running.values():
            running._total.cancel()  # as its clock does
        await committee.ended(session, (ALICE,))
        assert (await desk.readiness()).ready


async def test_no_room_for_keygens_is_noted(template: Template, tmp_path: Path) -> None:
    async with open_committee(
        template, tmp_path, tables={"*": {"limits": {"keygens": 1}}}, start=(ALICE,)
    ) as committee:
        await committee.keygen(among=(ALICE,))
        await until_noted(committee.desks[ALICE], "all 1 places for keygens are taken")
        with pytest.raises(Busy):
            await committee.keygen(among=(ALICE,))


async def test_without_a_single_pin_it_is_not_ready(template: Template, tmp_path: Path) -> None:
    async with open_committee(template, tmp_path, start=()) as committee:
        with closing(sqlite3.connect(committee.parties[ALICE].database)) as connection:
            kept = connection.execute("SELECT * FROM peers").fetchall()
            connection.execute("DELETE FROM peers")
            connection.commit()
            await committee.start(ALICE)
            desk = committee.desks[ALICE]
            readiness = await desk.readiness()
            assert not readiness.ready
            assert readiness.reasons == ("no peers are pinned yet; pin them with `tssctl peers add`",)
            places = ", ".join("?" * len(kept[0]))
            connection.executemany(f"INSERT INTO peers VALUES ({places})", kept)  # noqa: S608  question marks
            connection.commit()
        assert (await desk.readiness()).ready


async def test_a_plain_committee_needs_no_pins(template: Template, tmp_path: Path) -> None:
    tables = {ALICE: {"custodian": {"plain": [{"protocol": "gg18-v2", "parties": list(NAMES)}]}}}
    async with open_committee(template, tmp_path, tables=tables, start=()) as committee:
        with closing(sqlite3.connect(committee.parties[ALICE].database)) as connection:
            connection.execute("DELETE FROM peers")
            connection.commit()
        await committee.start(ALICE)
        assert (await committee.desks[ALICE].readiness()).ready


def test_pins_are_counted_by_their_list() -> None:
    pin = Pin(node="bob", identity=b"\2" + bytes(32), patterns=("bob-*", "robert-phone"))
    for pins in ((), (pin,), (pin, Pin(node="carol", identity=b"\3" + bytes(32), patterns=("carol-x",)))):
        assert SignedPins(body=encode_list(7, pins), signature=bytes(64)).count == len(pins)
    assert SignedPins(body=b"", signature=b"").count == 0


async def test_a_neighbour_that_is_away_is_noted_until_it_is_back(template: Template, tmp_path: Path) -> None:
    async with open_committee(template, tmp_path, start=PAIR) as committee:
        desk = committee.desks[ALICE]
        for neighbour, name in ((committee.coordinator, "coordinator"), (committee.router, "router")):
            assert not any(name in note for note in (await desk.readiness()).notes)
            neighbour.down = True
            session = await committee.sign(template.key, PAIR)
            note = await until_noted(desk, f"the {name} has not been well since ")
            assert f"the {name} answered 503" in note
            neighbour.down = False
            ends = await committee.ended(session)
            assert {end.status for end in ends.values()} == {SessionStatus.COMPLETED}
            await until_unnoted(desk, name)


async def test_a_spent_rate_limit_is_noted_for_a_minute(template: Template, tmp_path: Path) -> None:
    tables = {ALICE: {"custodian": {"signings_per_minute": 1, "signings_per_hour": 1}}}
    async with open_committee(template, tmp_path, tables=tables, start=PAIR) as committee:
        desk = committee.desks[ALICE]
        for turn, expected in enumerate((SessionStatus.COMPLETED, SessionStatus.FAILED)):
            assert desk.wall.rate_problem == ""
            session = await committee.sign(template.key, PAIR, bytes([turn]) * 32)
            assert (await committee.ended(session))[ALICE].status is expected
        assert "1 signings in the last minute; the policy allows 1" in await until_noted(desk, "just refused")
        desk.wall._rate_refused_at -= 60
        await until_unnoted(desk, "just refused")
