"""An identity key that has changed, by succession or after a loss: from the peers' side, and from our own.

Shares of before go on signing, their confirmations count, and the old key opens no ceremony and signs no list of pins.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from daemon.custody.client import Custodian, CustodyFailure
from daemon.custody.wire import (
    CheckConfirmations,
    Checkpoint,
    Checkpointed,
    ConfirmedBy,
    Done,
    EditPins,
    Frame,
    GetStatus,
    NewestPins,
    Pins,
    RenewPins,
    Request,
    ShowCheckpoint,
    SignedPins,
    SignSuccession,
    Statement,
    Status,
    Succeed,
    VerifyPins,
)
from tests.daemon.custody.committee import Committee, sign, signing_request
from tests.daemon.custody.node import Node, copy_node, init, make_node
from tests.daemon.custody.test_ceremonies import assert_signed
from tests.hsm.soft import lose_identity


async def refused(custodian: Custodian, request: Request, saying: str) -> None:
    with pytest.raises(CustodyFailure) as caught:
        await custodian.ask(request, Frame)
    assert caught.value.kind == "refused"
    assert saying in caught.value.message


async def succession(old: Node, successor: bytes) -> bytes:
    """What the old key says of the new one, while it is there."""
    async with old.custodian(operator=True) as operator:
        return (await operator.ask(SignSuccession(successor=successor), Statement)).data


async def test_shares_outlive_the_succession_of_a_peer(committee: Committee, tmp_path: Path) -> None:
    """The keys at keygen are sealed with a share and vouch for its confirmations; the newest list says who speaks."""
    successor = await init(make_node(tmp_path / "successor", "bob-server"))
    statement = await succession(committee.nodes["bob"], successor)
    async with committee.up("alice", "carol") as custodians:
        lists: dict[str, SignedPins] = {}
        for name, custodian in custodians.items():
            lists[name] = (await custodian.ask(Succeed(pins=committee.pins[name], statement=statement), Pins)).signed
        before = signing_request(committee, committee.shares, "alice", ("alice", "carol"), bytes(32), os.urandom(16))
        await refused(custodians["alice"], before, "older")
        committee.pins.update(lists)
        share = committee.shares["alice"]
        confirmed = await custodians["alice"].ask(
            CheckConfirmations(row=share.row, confirmations=share.confirmations), ConfirmedBy
        )
        assert (len(confirmed.confirmed), confirmed.missing) == (3, ())
        digest = os.urandom(32)
        assert_signed(await sign(committee, custodians, committee.shares, digest), digest, share.row.public_key)
        assert share.row.identities[1] == committee.identities["bob"] != successor


@dataclass
class Changed:
    """Alice's identity key is another one on the token that has her KEK.

    old: a copy of her from before. checkpoint: signed then.
    """

    committee: Committee
    identity: bytes
    old: Node
    checkpoint: Checkpointed

    @property
    def node(self) -> Node:
        return self.committee.nodes["alice"]

    def signing(self) -> Request:
        committee = self.committee
        return signing_request(committee, committee.shares, "alice", ("alice", "bob"), bytes(32), os.urandom(16))


@pytest.fixture
async def changed(committee: Committee, tmp_path: Path) -> Changed:
    node = committee.nodes["alice"]
    async with committee.up("alice") as custodians:
        # The list's number is in the chain from now on: it was seen when the custodian told how it is.
        checkpoint = await custodians["alice"].ask(Checkpoint(audit_count=1, audit_head=bytes(32)), Checkpointed)
    old = copy_node(node, tmp_path / "old")
    with node.opened() as token:
        lose_identity(token)
    identity = await init(node)
    assert identity != committee.identities["alice"]
    return Changed(committee, identity, old, checkpoint)


@pytest.mark.parametrize("how", ["by succession", "pinned anew after a loss"])
async def test_our_own_shares_outlive_a_change_of_our_identity_key(changed: Changed, how: str) -> None:
    committee, node = changed.committee, changed.node
    before = committee.pins["alice"]
    statement = await succession(changed.old, changed.identity)
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        for request in (
            changed.signing(),
            NewestPins(),
            VerifyPins(pins=before),
            Succeed(pins=before, statement=statement),
        ):
            await refused(alice, request, "`tssctl peers renew`")
        status = await alice.ask(GetStatus(), Status)
        assert "`tssctl peers renew`" in status.pins_problem
        assert status.earlier_identities == (committee.identities["alice"],)
        await refused(alice, RenewPins(empty=False), "tssctl")
        # What the earlier key signed of the chain still counts against it.
        await alice.ask(ShowCheckpoint(checkpoint=changed.checkpoint), Done)
        forged = msgspec.structs.replace(changed.checkpoint, identity=changed.identity)
        await refused(alice, ShowCheckpoint(checkpoint=forged), "not signed by our identity key")
    async with node.custodian(operator=True) as operator:
        await refused(
            operator,
            EditPins(pins=None, action="remove", node="bob", identity=None, patterns=()),
            "`tssctl peers renew`",
        )
        renewed = await operator.ask(RenewPins(empty=False), Pins)
        assert await operator.ask(RenewPins(empty=False), Pins) == renewed
        assert await operator.ask(NewestPins(), Pins) == renewed
    assert renewed.number == 3
    assert {pin.node: pin.identity for pin in renewed.pins} == {
        name: committee.identities[name] for name in ("bob", "carol")
    }
    async with committee.up() as custodians:
        # Neither the list of before nor one that the earlier key signs today.
        await refused(custodians["alice"], changed.signing(), "not signed by our identity key")
        committee.pins["alice"] = renewed.signed
        for name in ("bob", "carol"):
            if how == "by succession":
                told = await custodians[name].ask(Succeed(pins=committee.pins[name], statement=statement), Pins)
            else:
                edit = EditPins(
                    pins=None, action="replace", node="alice", identity=changed.identity, patterns=("alice-server",)
                )
                async with committee.nodes[name].custodian(operator=True) as operator:
                    told = await operator.ask(edit, Pins)
            committee.pins[name] = told.signed
        digest, key = os.urandom(32), committee.shares["alice"].row.public_key
        assert_signed(await sign(committee, custodians, committee.shares, digest), digest, key)
        assert (await custodians["alice"].ask(GetStatus(), Status)).pins_problem == ""


@pytest.mark.parametrize("what", ["older", "a stranger's", "gone"])
async def test_what_no_key_of_ours_vouches_for_is_not_renewed(changed: Changed, what: str) -> None:
    file = changed.node.state / "pins"
    if what == "gone":
        file.unlink()
    elif what == "a stranger's":
        shutil.copy(changed.committee.nodes["bob"].state / "pins", file)
    else:
        for name in ("pins", "chain"):
            (changed.old.state / name).unlink()
        async with changed.old.custodian(operator=True) as operator:
            identity = changed.committee.identities["bob"]
            first = EditPins(pins=None, action="add", node="bob", identity=identity, patterns=("*-server",))
            assert (await operator.ask(first, Pins)).number == 1
        shutil.copy(changed.old.state / "pins", file)
    async with changed.node.custodian(operator=True) as operator:
        await refused(operator, RenewPins(empty=False), "`tssctl peers renew --empty`")
        begun = await operator.ask(RenewPins(empty=True), Pins)
    assert (begun.number, begun.pins) == (3, ())
    async with changed.committee.up("alice") as custodians:
        assert await custodians["alice"].ask(VerifyPins(pins=begun.signed), Pins) == begun


async def test_another_token_signs_no_list_of_ours(changed: Changed, tmp_path: Path) -> None:
    """One that the service's custodian would not work with: neither the one before, nor one that nobody named."""
    stranger = make_node(tmp_path / "stranger", "alice-server")
    await init(stranger)
    async with changed.committee.up("alice"):
        pass  # the new key is in the chain
    for token in (changed.old.token, stranger.token):
        shutil.rmtree(changed.node.token / "tokens")
        shutil.copytree(token / "tokens", changed.node.token / "tokens")
        shutil.copy(token / "pin", changed.node.token / "pin")
        async with changed.node.custodian(operator=True) as operator:
            for empty in (False, True):
                await refused(operator, RenewPins(empty=empty), "bring the right token back")
