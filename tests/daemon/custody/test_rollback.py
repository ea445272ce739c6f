"""What was put back or exchanged: an older share under its own header, another token."""

import hashlib
import os
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from daemon.custody import rows
from daemon.custody.client import Custodian, CustodyFailure, Spawn, open_custodian
from daemon.custody.state import Use
from daemon.custody.wire import (
    CheckConfirmations,
    Checkpoint,
    Checkpointed,
    ConfirmedBy,
    ConfirmRow,
    Done,
    Frame,
    NewKekVersion,
    OpenAndCheck,
    Request,
    Reseal,
    Resealed,
    ShareRow,
    Status,
)
from hsm.keys import Objects
from tests.daemon.custody.committee import Committee, Share, begin_signing, sign, signing_request
from tests.daemon.custody.node import Node, init, make_node
from tests.tss_cffi import seeded
from tss_cffi import channel as peer

GENERATION = slice(24, 28)
"""In the body of a confirmation: docs/channel.md, 8."""
SECONDS = 30


def newer(row: ShareRow, generation: int) -> ShareRow:
    """What a rotation would store, still to be sealed."""
    body = bytearray(row.confirmation)
    body[GENERATION] = struct.pack(">I", generation)
    return msgspec.structs.replace(
        row,
        share_id=f"{row.share_id}-{generation}",
        generation=generation,
        confirmation=bytes(body),
        sealed=rows.UNSEALED,
    )


def rotated(committee: Committee, generation: int = 1) -> dict[str, Share]:
    """A later generation of everybody's share, confirmed by all: made by the owners of all tokens."""
    found, statements = {}, []
    for name, share in committee.shares.items():
        row = newer(share.row, generation)
        with committee.nodes[name].opened() as token:
            secret = token.open(rows.blob_of(share.row.sealed), rows.share_header(share.row), seeded.core.SecretBytes)
            assert isinstance(secret, seeded.core.SecretBytes)
            with secret:
                blob = token.seal(secret, rows.share_header(row))
            statements.append(row.confirmation + token.sign_identity(peer.confirmation_digest(row.confirmation)))
        found[name] = replace(share, row=msgspec.structs.replace(row, sealed=rows.sealed_of(blob)))
    return {name: replace(share, confirmations=tuple(statements)) for name, share in found.items()}


async def refused(custodian: Custodian, request: Request, kind: str, field: str) -> str:
    with pytest.raises(CustodyFailure) as caught:
        await custodian.ask(request, Frame)
    assert (caught.value.kind, caught.value.field) == (kind, field), caught.value
    return caught.value.message


async def older_is_refused(committee: Committee, alice: Custodian) -> None:
    row = committee.shares["alice"].row
    session = os.urandom(16)
    begin = signing_request(committee, committee.shares, "alice", ("alice", "bob"), bytes(32), session)
    for request in (OpenAndCheck(row=row), Reseal(row=row), ConfirmRow(row=row), begin):
        message = await refused(alice, request, "refused", "row.generation")
        assert "generation 1 was confirmed by all" in message


async def test_an_older_generation_is_refused_once_all_confirmed_the_newer(committee: Committee) -> None:
    shares = rotated(committee)
    newest = shares["alice"]
    async with committee.up("alice", "bob") as custodians:
        alice = custodians["alice"]
        # Not yet: until everybody has the newer one, the older one has to serve.
        await alice.ask(OpenAndCheck(row=newest.row), Done)
        await alice.ask(CheckConfirmations(row=newest.row, confirmations=newest.confirmations[:2]), ConfirmedBy)
        table = await begin_signing(committee, custodians, committee.shares, bytes(32))
        by = await alice.ask(CheckConfirmations(row=newest.row, confirmations=newest.confirmations), ConfirmedBy)
        assert not by.missing
        await older_is_refused(committee, alice)
        # One that has its seat already does not open it any more.
        await table.until("failed")
        fault = table.progress["alice"].fault
        assert fault is not None
        assert fault.reason == "refused"
    assert not any(isinstance(event, Use) for event in committee.nodes["alice"].chain())
    async with committee.up("alice") as custodians:
        await older_is_refused(committee, custodians["alice"])
        await custodians["alice"].ask(OpenAndCheck(row=newest.row), Done)


async def test_a_use_of_the_newer_generation_ends_the_older(committee: Committee) -> None:
    shares = rotated(committee)
    async with committee.up("alice", "bob") as custodians:
        await sign(committee, custodians, shares, os.urandom(32))
        await older_is_refused(committee, custodians["alice"])


async def test_a_newer_generation_of_ones_own_making_ends_nothing(committee: Committee) -> None:
    """Whoever has tssd can make keys and confirm with them, but cannot seal."""
    share = committee.shares["alice"]
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in share.row.committee]
    publics = tuple(key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint) for key in keys)
    row = msgspec.structs.replace(newer(share.row, 7), identities=publics, sealed=share.row.sealed)
    body = bytearray(row.confirmation)
    committee_of = tuple((member.seat, member.party_id) for member in row.committee)
    seats = {member.seat: key for member, key in zip(row.committee, publics, strict=True)}
    body[28:60] = peer.committee_digest(committee_of, row.threshold, seats)
    row = msgspec.structs.replace(row, confirmation=bytes(body))
    statements = []
    for member, key in zip(row.committee, keys, strict=True):
        said = body[:18] + struct.pack(">I", member.seat) + body[22:]
        digest = hashlib.sha256(b"tssd/1/confirm\0" + said).digest()
        r, s = decode_dss_signature(key.sign(digest, ec.ECDSA(Prehashed(SHA256()))))
        order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
        statements.append(bytes(said) + r.to_bytes(32, "big") + min(s, order - s).to_bytes(32, "big"))
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        forged = CheckConfirmations(row=row, confirmations=tuple(statements))
        await refused(alice, forged, "altered", "")
        await alice.ask(OpenAndCheck(row=share.row), Done)


# ---- Another token ----


async def away_with(custodian: Custodian, saying: str) -> None:
    with trio.fail_after(SECONDS):
        while custodian.status is None or custodian.status.state != "token":
            await custodian.wait_change()
    assert saying in custodian.status.reason


def exchange(node: Node, other: Node) -> None:
    for name in ("tokens", "pin"):
        here, there, aside = node.token / name, other.token / name, node.token / f"{name}-aside"
        here.rename(aside)
        there.rename(here)
        aside.rename(there)


async def test_another_identity_key_is_not_ours_until_an_operator_says_so(committee: Committee, tmp_path: Path) -> None:
    node = committee.nodes["alice"]
    async with committee.up("alice"):
        pass
    other = make_node(tmp_path / "other", "alice-server")
    identity = await init(other)
    assert (other.state / "identity").read_text() == identity.hex() + "\n"
    exchange(node, other)
    how = Spawn(config=node.config, trusted_config=True)
    async with open_custodian(how) as alice:
        await away_with(alice, "identity key")
        with pytest.raises(CustodyFailure) as caught:
            await alice.ask(Checkpoint(audit_count=1, audit_head=bytes(32)), Checkpointed)
        assert caught.value.kind == "token"
        # The right one comes back.
        exchange(node, other)
        with trio.fail_after(SECONDS):
            await alice.wait_ready()
        await alice.ask(OpenAndCheck(row=committee.shares["alice"].row), Done)
    exchange(node, other)
    shutil.copy(other.state / "identity", node.state / "identity")  # as `tssctl hsm init` leaves it
    async with open_custodian(how) as alice:
        with trio.fail_after(SECONDS):
            await alice.wait_ready()
        assert alice.status is not None
        assert alice.status.identity == identity


def put_token(node: Node, tokens: Path) -> None:
    """Another copy of the token in the place of the one that was there."""
    shutil.rmtree(node.token / "tokens")
    shutil.copytree(tokens, node.token / "tokens")


async def test_a_token_without_its_newest_kek_blames_no_share(committee: Committee, tmp_path: Path) -> None:
    """An older clone, or a member that is not in step: the canary opens under the older KEK, the share does not."""
    node, row = committee.nodes["alice"], committee.shares["alice"].row
    older, newer = tmp_path / "older", tmp_path / "newer"
    shutil.copytree(node.token / "tokens", older)
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        await alice.ask(NewKekVersion(), Status)
        resealed = (await alice.ask(Reseal(row=row), Resealed)).row
        # While it runs.
        shutil.copytree(node.token / "tokens", newer)
        put_token(node, older)
        message = await refused(alice, OpenAndCheck(row=resealed), "token", "")
        await away_with(alice, "KEK version 2 is gone from the token")
        for request in (OpenAndCheck(row=resealed), OpenAndCheck(row=row), Reseal(row=row)):
            message = await refused(alice, request, "token", "")
            assert "bring back the token that has it" in message
        put_token(node, newer)
        with trio.fail_after(SECONDS):
            await alice.wait_ready()
        await alice.ask(OpenAndCheck(row=resealed), Done)
    put_token(node, older)
    async with open_custodian(Spawn(config=node.config, trusted_config=True)) as alice:
        await away_with(alice, "KEK version 2 is gone from the token")
        await refused(alice, OpenAndCheck(row=resealed), "token", "")
        put_token(node, newer)
        with trio.fail_after(SECONDS):
            await alice.wait_ready()
        await alice.ask(OpenAndCheck(row=resealed), Done)
        # A version that no token of ours ever had is the row's own invention.
        never = msgspec.structs.replace(resealed, sealed=msgspec.structs.replace(resealed.sealed, kek_version=3))
        await refused(alice, OpenAndCheck(row=never), "altered", "")
    # The older KEK taken away while rows are still under it.
    with node.opened() as token, token._connected().bench() as (bench, _):
        Objects(bench.module, bench.session).destroy(bench.keys.keks[1])
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        message = await refused(alice, OpenAndCheck(row=row), "refused", "sealed.kek_version")
        assert "KEK version 1 is gone from the token" in message
        await alice.ask(OpenAndCheck(row=resealed), Done)
        uses = sum(isinstance(event, Use) for event in node.chain())
        for _ in range(3):  # as a rotation that goes on asking does
            await refused(alice, Reseal(row=row), "refused", "sealed.kek_version")
        assert sum(isinstance(event, Use) for event in node.chain()) == uses
