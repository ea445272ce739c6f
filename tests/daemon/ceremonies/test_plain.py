"""Committees that talk bare tss-lib, as the custodian's own policy lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from daemon.session import SessionStatus
from daemon.values import Channel, PartyId, Protocol, PublicKey
from tests.daemon.ceremonies.committee import NAMES, Template, open_committee

if TYPE_CHECKING:
    from pathlib import Path

    from localnet.router import Frame


def listed(protocol: str) -> dict[str, dict[str, dict[str, object]]]:
    entry = {"protocol": protocol, "parties": list(NAMES), "keygen": True}
    return {"*": {"custodian": {"plain": [entry]}}}


@pytest.mark.parametrize("protocol", ["gg18-v2", "gg18-v3"])
async def test_a_plain_committee_makes_a_key_and_signs(template: Template, tmp_path: Path, protocol: str) -> None:
    async with open_committee(template, tmp_path, tables=listed(protocol)) as committee:
        frames: list[Frame] = []
        committee.router.tap = lambda _, frame: frames.append(frame)
        session = await committee.keygen()
        ends = await committee.ended(session)
        assert {end.status for end in ends.values()} == {SessionStatus.COMPLETED}
        (key,) = {str(end.public_key) for end in ends.values()}
        assert {frame.round_number for frame in frames} >= {1, 2, 3}
        for name, desk in committee.desks.items():
            share = await desk.store.active_share(PartyId(name), PublicKey.parse(key))
            assert (share.channel, share.protocol) == (Channel.PLAIN, Protocol(protocol))
            assert "share-active-unconfirmed" in {row.action for row in await desk.audit(limit=1000)}
        await committee.coordinator.outcome(str(session))
        for pair in (NAMES[:2], NAMES[1:]):
            signed = await committee.ended(await committee.sign(key, pair), pair)
            assert {end.status for end in signed.values()} == {SessionStatus.COMPLETED}


async def test_a_lost_connection_costs_a_plain_ceremony_nothing(template: Template, tmp_path: Path) -> None:
    """Nothing asks for bare messages again: what was sent is sent anew on each new connection."""
    async with open_committee(template, tmp_path, tables=listed("gg18-v3")) as committee:
        taken = 0

        def cut(session: str, _: object) -> None:
            nonlocal taken
            taken += 1
            if taken in {2, 7, 11}:
                committee.router.disconnect(session, NAMES[taken % 3])

        committee.router.replays = True
        committee.router.tap = cut
        session = await committee.keygen()
        ends = await committee.ended(session)
        assert {end.status for end in ends.values()} == {SessionStatus.COMPLETED}
        assert taken > 11
        await committee.coordinator.outcome(str(session))


async def test_a_committee_that_is_not_listed_is_sealed(template: Template, tmp_path: Path) -> None:
    tables = {"*": {"custodian": {"plain": [{"protocol": "gg18-v3", "parties": [*NAMES], "keygen": False}]}}}
    async with open_committee(template, tmp_path, tables=tables) as committee:
        session = await committee.keygen()
        ends = await committee.ended(session)
        assert {end.status for end in ends.values()} == {SessionStatus.COMPLETED}
        for name, desk in committee.desks.items():
            share = await desk.store.active_share(PartyId(name), ends[name].public_key or PublicKey(b""))
            assert share.channel is Channel.SEALED
        await committee.coordinator.outcome(str(session))
