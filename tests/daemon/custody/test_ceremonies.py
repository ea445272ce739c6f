"""Keygen and signing among three custodians, with nothing of tssd but the client between them."""

import hashlib
import os
import random

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from daemon.custody import rows
from daemon.custody.client import Custodian, CustodyFailure
from daemon.custody.state import Use
from daemon.custody.wire import (
    Abort,
    AbortUnknown,
    BeginSigning,
    Begun,
    CheckConfirmations,
    Confirm,
    ConfirmedBy,
    ConfirmRow,
    Done,
    FinishKeygen,
    FinishSigning,
    Forget,
    Frame,
    KeygenFinished,
    OpenAndCheck,
    PlainReceive,
    Prepare,
    Preparing,
    Progress,
    Receive,
    Request,
    Seat,
    SigningFinished,
    Statement,
    Tick,
)
from tests.daemon.custody.committee import (
    Committee,
    begin_keygen,
    begin_signing,
    finish_keygen,
    finish_signing,
    sign,
    signing_request,
)
from tests.tss_cffi import seeded

HALF_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141 // 2


def assert_signed(result: SigningFinished, digest: bytes, public_key: bytes) -> None:
    r, s = int.from_bytes(result.signature[:32], "big"), int.from_bytes(result.signature[32:], "big")
    assert s <= HALF_ORDER
    assert result.public_key == public_key
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), public_key)
    key.verify(encode_dss_signature(r, s), digest, ec.ECDSA(Prehashed(SHA256())))


async def refused(custodian: Custodian, request: Request, kind: str, field: str | None = None) -> str:
    with pytest.raises(CustodyFailure) as caught:
        await custodian.ask(request, Frame)
    assert caught.value.kind == kind, caught.value
    if field is not None:
        assert caught.value.field == field, caught.value
    return caught.value.message


async def test_any_two_of_three_sign(committee: Committee) -> None:
    row = committee.shares["alice"].row
    assert {share.row.public_key for share in committee.shares.values()} == {row.public_key}
    assert len(committee.shares["alice"].confirmations) == 3
    async with committee.up() as custodians:
        for absent in custodians:
            pair = {name: custodian for name, custodian in custodians.items() if name != absent}
            digest = os.urandom(32)
            assert_signed(await sign(committee, pair, committee.shares, digest), digest, row.public_key)
        digest = os.urandom(32)
        assert_signed(await sign(committee, custodians, committee.shares, digest), digest, row.public_key)


async def test_a_plain_committee_signs(committee: Committee) -> None:
    row = committee.plain["alice"].row
    assert row.channel == "plain"
    assert not row.identities
    assert not committee.plain["alice"].confirmations
    digest = os.urandom(32)
    async with committee.up("alice", "carol") as custodians:
        assert_signed(await sign(committee, custodians, committee.plain, digest), digest, row.public_key)


async def test_a_bad_router_between_honest_parties(committee: Committee) -> None:
    """Frames changed, dropped, doubled: the signature comes all the same, and nobody is blamed."""
    dice = random.Random(7)

    def wire(frame: bytes) -> list[bytes]:
        match dice.randrange(8):
            case 0:
                return []
            case 1:
                return [frame, frame]
            case 2:
                place = dice.randrange(len(frame))
                return [frame[:place] + bytes([frame[place] ^ 1]) + frame[place + 1 :], frame]
            case 3:
                return [frame[: dice.randrange(len(frame))], os.urandom(60), frame]
        return [frame]

    async with committee.up("alice", "bob") as custodians:
        digest = os.urandom(32)
        table = await begin_signing(committee, custodians, committee.shares, digest)
        table.wire = wire
        await table.until("result", "complete")
        assert sum(progress.drops for progress in table.progress.values()) > 0
        assert_signed(await finish_signing(table), digest, committee.shares["alice"].row.public_key)


async def test_a_keygen_interrupted_before_its_confirmations(committee: Committee) -> None:
    """Sealed, stored as pending, all processes killed: the pending confirm again, and the share becomes usable."""
    async with committee.up() as custodians:
        table = await begin_keygen(committee, custodians, protocol="gg18-v3")
        await table.until("result")
        message = await refused(custodians["alice"], FinishSigning(ceremony=table.ceremonies["alice"]), "state")
        assert "signature" in message
        await refused(custodians["alice"], Confirm(ceremony=table.ceremonies["alice"]), "state")
        pending = {}
        for name, custodian in custodians.items():
            finish = FinishKeygen(ceremony=table.ceremonies[name])
            answer = await custodian.ask(finish, KeygenFinished)
            assert await custodian.ask(finish, KeygenFinished) == answer
            await custodian.ask(OpenAndCheck(row=answer.row), Done)
            pending[name] = answer.row
    async with committee.up() as custodians:
        statements = []
        abort = AbortUnknown(session=pending["alice"].session, party_id="alice-server", seat=1, reason="restart")
        notice = (await custodians["alice"].ask(abort, Statement)).data
        other = msgspec.structs.replace(abort, session=os.urandom(16))
        another = (await custodians["alice"].ask(other, Statement)).data
        for name, custodian in custodians.items():
            statement = await custodian.ask(ConfirmRow(row=pending[name]), Statement)
            again = await custodian.ask(ConfirmRow(row=pending[name]), Statement)
            assert again.data[:-64] == statement.data[:-64] == pending[name].confirmation
            statements.append(statement.data)
        alice, row = custodians["alice"], pending["alice"]
        for held, confirmed in (
            ([], ()),
            (statements[:2], ("alice-server", "bob-server")),
            ([statements[0], statements[0], os.urandom(300)], ("alice-server",)),
            ([statements[2][:-1] + bytes([statements[2][-1] ^ 1])], ()),
            (statements, ("alice-server", "bob-server", "carol-server")),
            (committee.shares["alice"].confirmations, ()),
        ):
            by = await alice.ask(CheckConfirmations(row=row, confirmations=tuple(held)), ConfirmedBy)
            assert by.confirmed == confirmed
            assert by.withdrawn == ()
            assert {*by.confirmed, *by.missing} == {"alice-server", "bob-server", "carol-server"}
        for held, withdrawn in (
            ([notice, notice], ("alice-server",)),
            ([notice, statements[0]], ()),
            ([notice[:-1] + bytes([notice[-1] ^ 1])], ()),
            ([another], ()),
        ):
            by = await alice.ask(CheckConfirmations(row=row, confirmations=tuple(held)), ConfirmedBy)
            assert by.withdrawn == withdrawn
        begin = BeginSigning(
            session=os.urandom(16),
            row=row,
            confirmations=tuple(statements[:2]),
            signers=(1, 2),
            message_hash=bytes(32),
            pins=committee.pins["alice"],
        )
        message = await refused(alice, begin, "refused", "confirmations")
        assert "carol-server" in message
        await alice.ask(msgspec.structs.replace(begin, confirmations=tuple(statements)), Begun)
        # What was confirmed cannot be taken back, after a restart either.
        await refused(alice, abort, "refused", "session")


async def test_a_restarted_node_tells_the_peers(committee: Committee) -> None:
    async with committee.up("alice", "bob") as custodians:
        session = os.urandom(16)
        table = await begin_signing(committee, custodians, committee.shares, bytes(32), session=session)
        notice = AbortUnknown(session=session, party_id="alice-server", seat=1, reason="restart")
        await refused(custodians["alice"], notice, "state", "session")
        await custodians["alice"].ask(Forget(ceremony=table.ceremonies["alice"]), Done)
        statement = await custodians["alice"].ask(notice, Statement)
        bob = await custodians["bob"].ask(Receive(ceremony=table.ceremonies["bob"], data=statement.data), Progress)
        assert bob.state == "failed"
        assert bob.fault is not None
        assert bob.fault.reason == "aborted"
        assert not bob.fault.culprits


async def test_an_abort_reaches_the_peers(committee: Committee) -> None:
    async with committee.up("alice", "bob") as custodians:
        table = await begin_signing(committee, custodians, committee.shares, bytes(32))
        alice = custodians["alice"]
        await refused(alice, Abort(ceremony=table.ceremonies["alice"], reason="Bad Reason"), "refused", "reason")
        progress = await alice.ask(Abort(ceremony=table.ceremonies["alice"], reason="stalled"), Progress)
        assert progress.state == "failed"
        table.note("alice", progress)
        await table.until("failed")
        fault = table.progress["bob"].fault
        assert fault is not None
        assert fault.reason == "aborted"
        assert "stalled" in fault.detail


async def test_different_hashes_are_told_apart_before_any_share_is_opened(committee: Committee) -> None:
    async with committee.up("alice", "bob") as custodians:
        session = os.urandom(16)
        table = await begin_signing(
            committee,
            {"alice": custodians["alice"], "bob": custodians["bob"]},
            committee.shares,
            bytes(32),
            session=session,
        )
        await custodians["bob"].ask(Forget(ceremony=table.ceremonies["bob"]), Done)
        begun = await custodians["bob"].ask(
            signing_request(committee, committee.shares, "bob", ("alice", "bob"), b"\1" * 32, session), Begun
        )
        table.ceremonies["bob"] = begun.ceremony
        hello = table.queue.popleft()
        assert hello[:2] == ("alice", "bob")
        table.queue.clear()
        table.queue.append(hello)
        table.send("bob", begun.frames, begun.plain)
        await table.until("failed")
        for progress in table.progress.values():
            assert progress.fault is not None
            assert progress.fault.reason == "hello-differs"
            assert "00" * 32 in progress.fault.detail
            assert "01" * 32 in progress.fault.detail
    # A share is opened only when its use stands in the chain.
    for name in table.ceremonies:
        assert not any(isinstance(event, Use) for event in committee.nodes[name].chain())


async def test_one_party_alone_gets_nowhere(committee: Committee) -> None:
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        request = signing_request(committee, committee.shares, "alice", ("alice", "bob"), bytes(32), os.urandom(16))
        begun = await alice.ask(request, Begun)
        for frame in begun.frames:
            progress = await alice.ask(Receive(ceremony=begun.ceremony, data=frame.data), Progress)
            assert progress.state == "hello"
        assert progress.waits_for == ("bob-server",)
        await refused(alice, FinishSigning(ceremony=begun.ceremony), "state")
        await refused(alice, FinishKeygen(ceremony=begun.ceremony), "state")
        await refused(alice, request, "state", "session")
        await alice.ask(Forget(ceremony=begun.ceremony), Done)
        for late in (Tick(ceremony=begun.ceremony), Forget(ceremony=begun.ceremony), Tick(ceremony=1)):
            await refused(alice, late, "unknown", "ceremony")


async def test_sealed_and_plain_do_not_mix(committee: Committee) -> None:
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        sealed = await alice.ask(
            signing_request(committee, committee.shares, "alice", ("alice", "bob"), bytes(32), os.urandom(16)), Begun
        )
        plain_request = signing_request(
            committee, committee.plain, "alice", ("alice", "bob"), bytes(32), os.urandom(16)
        )
        plain = await alice.ask(plain_request, Begun)
        clear = PlainReceive(ceremony=sealed.ceremony, sender="bob-server", data=b"x", broadcast=True)
        await refused(alice, clear, "refused", "ceremony")
        await refused(alice, Receive(ceremony=plain.ceremony, data=b"x"), "refused", "ceremony")
        for stranger in ("alice-server", "carol-server", "eve-server"):
            request = PlainReceive(ceremony=plain.ceremony, sender=stranger, data=b"x", broadcast=True)
            await refused(alice, request, "refused", "sender")
        # One at a time: gg18-v2 has no session in its proofs.
        other = msgspec.structs.replace(plain_request, session=os.urandom(16))
        await refused(alice, other, "state", "row.share_id")
        progress = await alice.ask(
            PlainReceive(ceremony=plain.ceremony, sender="bob-server", data=b"x", broadcast=True), Progress
        )
        assert progress.state == "failed"
        assert progress.fault is not None
        assert not progress.fault.authenticated
        await alice.ask(Forget(ceremony=plain.ceremony), Done)
        await alice.ask(other, Begun)


async def test_a_seat_change_is_no_way_in(committee: Committee) -> None:
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        request = signing_request(committee, committee.shares, "alice", ("alice", "bob"), bytes(32), os.urandom(16))
        for signers in ((2, 3), (1,), (2, 1), (1, 2, 9), (1, 1, 2), ()):
            await refused(alice, msgspec.structs.replace(request, signers=signers), "refused", "signers")
        short = msgspec.structs.replace(request, message_hash=bytes(31))
        await refused(alice, short, "refused", "message_hash")
        await refused(alice, msgspec.structs.replace(request, session=bytes(15)), "refused", "session")
        await refused(alice, msgspec.structs.replace(request, pins=None), "refused", "pins")


async def test_pre_parameters_are_searched_for_in_slices_and_sealed(committee: Committee) -> None:
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        prepared, seen = None, [0]
        while prepared is None:
            step = await alice.ask(Prepare(protocol="gg18-v3", milliseconds=500), Preparing)
            prepared = step.prepared
            seen.append(step.permille)
        assert seen == sorted(seen)
        assert seen[-1] == 1000
    with committee.nodes["alice"].opened() as token:
        header = rows.prepared_header(prepared.prepared_id, "gg18-v3", prepared.fingerprints)
        found = token.open(rows.blob_of(prepared.sealed), header, seeded.core.SecretBytes)
        assert isinstance(found, seeded.core.SecretBytes)
        with found:
            assert tuple(seeded.core.prepared_fingerprints(found)) == prepared.fingerprints


async def test_pre_parameters_are_used_once(committee: Committee) -> None:
    async with committee.up() as custodians:
        table = await begin_keygen(committee, custodians)
        request = table.requests["alice"]
        await table.until("result")
        alice = custodians["alice"]
        again = msgspec.structs.replace(request, session=os.urandom(16), share_id="another")
        await refused(alice, again, "refused", "prepared")
        shares = await finish_keygen(table)
        assert request.prepared is not None
        assert set(request.prepared.fingerprints) <= set(shares["alice"].fingerprints)
    async with committee.up() as custodians:
        await refused(custodians["alice"], again, "refused", "prepared")
        known = shares["bob"].fingerprints
        table = await begin_keygen(committee, custodians)
        number = table.ceremonies["alice"]
        await custodians["alice"].ask(Forget(ceremony=number), Done)
        assert table.requests["alice"].prepared is not None
        own = table.requests["alice"].prepared.fingerprints
        begun = await custodians["alice"].ask(
            msgspec.structs.replace(table.requests["alice"], known_fingerprints=(*known, own[0])), Begun
        )
        table.ceremonies["alice"] = begun.ceremony
        table.queue.clear()
        table.send("alice", begun.frames, begun.plain)
        await table.tick()
        await table.until("failed")
        fault = table.progress["alice"].fault
        assert fault is not None
        assert fault.reason == "refused"


async def test_a_hash_above_the_order_is_signed_reduced(committee: Committee) -> None:
    digest = b"\xff" * 32
    async with committee.up("bob", "carol") as custodians:
        result = await sign(committee, custodians, committee.shares, digest)
    assert_signed(result, digest, committee.shares["bob"].row.public_key)


def test_rows_of_one_key_differ_in_what_is_sealed(committee: Committee) -> None:
    wrapped = {share.row.sealed.wrapped_key for share in committee.shares.values()}
    assert len(wrapped) == 3
    ivs = [chunk.iv for share in committee.shares.values() for chunk in share.row.sealed.chunks]
    assert len(set(ivs)) == len(ivs)
    assert hashlib.sha256(committee.shares["alice"].row.transcript).digest() != bytes(32)
    assert committee.shares["alice"].row.committee[0] == Seat(seat=1, party_id="alice-server")
