"""Custodians over each real provider: keys made, shares sealed and opened, signed with, before and after a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from daemon.custody.client import CustodyFailure
from daemon.custody.wire import (
    Checkpoint,
    Checkpointed,
    Doctor,
    DoctorReport,
    Done,
    InitToken,
    NewKekVersion,
    OpenAndCheck,
    Reseal,
    Resealed,
    Status,
)
from tests.daemon.custody.committee import keygen, make_committee, sign
from tests.daemon.custody.node import init, make_node

if TYPE_CHECKING:
    from pathlib import Path

TIERS = {"softhsm": "A", "nss": "A, open to the PIN"}


@pytest.mark.parametrize("provider", TIERS)
async def test_a_key_is_made_and_signs(arena: None, tmp_path: Path, provider: str) -> None:  # noqa: ARG001  opened by it
    committee = await make_committee(tmp_path, "alice", "bob", provider=provider)
    async with committee.up() as custodians:
        shares = await keygen(committee, custodians)
        await sign(committee, custodians, shares, b"\1" * 32)
    async with committee.up() as custodians:
        await sign(committee, custodians, shares, b"\2" * 32)
        alice = custodians["alice"]
        await alice.ask(Checkpoint(audit_count=1, audit_head=bytes(32)), Checkpointed)
        assert (await alice.ask(NewKekVersion(), Status)).kek_version == 2
        row = (await alice.ask(Reseal(row=shares["alice"].row), Resealed)).row
        assert row.sealed.kek_version == 2
        await alice.ask(OpenAndCheck(row=row, thorough=True), Done)


@pytest.mark.parametrize(("provider", "tier"), TIERS.items())
async def test_the_status_says_what_the_doctor_says(tmp_path: Path, provider: str, tier: str) -> None:
    node = make_node(tmp_path / "alice", "alice-server", provider=provider)
    await init(node)
    async with node.custodian(operator=True) as operator:
        with pytest.raises(CustodyFailure, match="exist already"):
            await operator.ask(InitToken(), Status)
    async with node.custodian(operator=True) as operator:
        report = await operator.ask(Doctor(), DoctorReport, seconds=120)
    assert report.tier == tier
    assert "failed" not in {check.outcome for check in report.checks}
    async with node.custodian() as custodian:
        assert custodian.status is not None
        assert custodian.status.tier == tier
