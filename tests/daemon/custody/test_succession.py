"""After a succession: shares of before go on signing, their confirmations count, and the old key opens no ceremony."""

import os
from pathlib import Path

import pytest

from daemon.custody.client import CustodyFailure
from daemon.custody.wire import CheckConfirmations, ConfirmedBy, Pins, SignedPins, SignSuccession, Statement, Succeed
from tests.daemon.custody.committee import Committee, sign, signing_request
from tests.daemon.custody.node import init, make_node
from tests.daemon.custody.test_ceremonies import assert_signed


async def test_shares_outlive_the_succession_of_a_peer(committee: Committee, tmp_path: Path) -> None:
    """The keys at keygen are sealed with a share and vouch for its confirmations; the newest list says who speaks."""
    successor = await init(make_node(tmp_path / "successor", "bob-server"))
    async with committee.nodes["bob"].custodian(operator=True) as operator:
        statement = (await operator.ask(SignSuccession(successor=successor), Statement)).data
    async with committee.up("alice", "carol") as custodians:
        lists: dict[str, SignedPins] = {}
        for name, custodian in custodians.items():
            lists[name] = (await custodian.ask(Succeed(pins=committee.pins[name], statement=statement), Pins)).signed
        before = signing_request(committee, committee.shares, "alice", ("alice", "carol"), bytes(32), os.urandom(16))
        with pytest.raises(CustodyFailure, match="older"):
            await custodians["alice"].ask(before, Statement)
        committee.pins.update(lists)
        share = committee.shares["alice"]
        confirmed = await custodians["alice"].ask(
            CheckConfirmations(row=share.row, confirmations=share.confirmations), ConfirmedBy
        )
        assert (len(confirmed.confirmed), confirmed.missing) == (3, ())
        digest = os.urandom(32)
        assert_signed(await sign(committee, custodians, committee.shares, digest), digest, share.row.public_key)
        assert share.row.identities[1] == committee.identities["bob"] != successor
