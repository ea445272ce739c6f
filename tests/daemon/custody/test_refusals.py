"""What a captured tssd asks for in vain."""

import hashlib
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Literal, cast
from unittest.mock import MagicMock

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from daemon.custody import confirmations, rows
from daemon.custody.client import Custodian, CustodyFailure
from daemon.custody.pins import verify
from daemon.custody.refusal import Refusal
from daemon.custody.requests import Held, ServiceRequests
from daemon.custody.state import RecoveryKey
from daemon.custody.wire import (
    Abort,
    AbortUnknown,
    BeginKeygen,
    BeginSigning,
    Begun,
    CheckConfirmations,
    Checkpoint,
    Checkpointed,
    ConfirmedBy,
    ConfirmRow,
    Doctor,
    Done,
    EditPins,
    Forget,
    Frame,
    GetStatus,
    InitToken,
    NewestPins,
    NewKekVersion,
    OpenAndCheck,
    Pins,
    Prepare,
    PreparedRow,
    Progress,
    Request,
    Reseal,
    Resealed,
    Revoke,
    Seat,
    ShareRow,
    ShowCheckpoint,
    SignedPins,
    SignSuccession,
    Statement,
    Status,
    Succeed,
    VerifyPins,
)
from tests.daemon.custody.committee import Committee, begin_keygen, begin_signing, sign, signing_request
from tests.daemon.custody.node import init, make_node
from tests.tss_cffi import seeded

if TYPE_CHECKING:
    from daemon.custody.ceremonies import SealedCeremony
    from daemon.custody.seats import SigningSeat

PAIR = ("alice", "bob")


async def refused(custodian: Custodian, request: Request, kind: str, field: str | None = None) -> str:
    with pytest.raises(CustodyFailure) as caught:
        await custodian.ask(request, Frame)
    assert caught.value.kind == kind, caught.value
    if field is not None:
        assert caught.value.field == field, caught.value
    return caught.value.message


def signing(committee: Committee, share: Literal["sealed", "plain"] = "sealed") -> BeginSigning:
    shares = committee.shares if share == "sealed" else committee.plain
    return signing_request(committee, shares, "alice", PAIR, bytes(32), os.urandom(16))


def keygen_request(committee: Committee, prepared: PreparedRow | None = None) -> BeginKeygen:
    return BeginKeygen(
        session=os.urandom(16),
        party_id="alice-server",
        share_id="new-share",
        share_type="wallet",
        protocol="gg18-v2",
        channel="sealed",
        committee=committee.seats(("alice", "bob", "carol")),
        threshold=2,
        prepared=prepared or committee.prepared["alice"][0],
        known_fingerprints=(),
        pins=committee.pins["alice"],
    )


# ---- Rows ----

CHANGES: dict[str, Callable[[ShareRow], ShareRow]] = {
    "share_id": lambda row: msgspec.structs.replace(row, share_id="share-other"),
    "session": lambda row: msgspec.structs.replace(row, session=os.urandom(16)),
    "share_type": lambda row: msgspec.structs.replace(row, share_type="admin"),
    "public_key": lambda row: msgspec.structs.replace(
        row, public_key=bytes([5 - row.public_key[0]]) + row.public_key[1:]
    ),
    "threshold": lambda row: msgspec.structs.replace(row, threshold=3),
    "generation": lambda row: msgspec.structs.replace(row, generation=1),
    "protocol": lambda row: msgspec.structs.replace(row, protocol="gg18-v3"),
    "transcript": lambda row: msgspec.structs.replace(row, transcript=os.urandom(32)),
    "result_digest": lambda row: msgspec.structs.replace(row, result_digest=os.urandom(32)),
    "identities": lambda row: msgspec.structs.replace(
        row, identities=(row.identities[0], row.identities[2], row.identities[1])
    ),
    "seat": lambda row: msgspec.structs.replace(
        row,
        seat=2,
        committee=(
            Seat(seat=1, party_id="bob-server"),
            Seat(seat=2, party_id="alice-server"),
            row.committee[2],
        ),
    ),
    "seats": lambda row: msgspec.structs.replace(
        row, committee=(*row.committee[:2], msgspec.structs.replace(row.committee[2], seat=9))
    ),
    "parties": lambda row: msgspec.structs.replace(
        row, committee=(*row.committee[:2], msgspec.structs.replace(row.committee[2], party_id="eve-server"))
    ),
    "smaller committee": lambda row: msgspec.structs.replace(
        row, committee=row.committee[:2], identities=row.identities[:2]
    ),
    "plain": lambda row: msgspec.structs.replace(row, channel="plain", identities=(), transcript=b"", confirmation=b""),
    "confirmation": lambda row: msgspec.structs.replace(
        row, confirmation=row.confirmation[:-1] + bytes([row.confirmation[-1] ^ 1])
    ),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_changed_row_does_not_open(committee: Committee, change: str) -> None:
    row = committee.shares["alice"].row
    changed = CHANGES[change](row)
    assert changed != row
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        for thorough in (False, True):
            await alice.ask(OpenAndCheck(row=row, thorough=thorough), Done)
            await refused(alice, OpenAndCheck(row=changed, thorough=thorough), "altered")
        await refused(alice, Reseal(row=changed), "altered")
        with pytest.raises(CustodyFailure):
            await alice.ask(ConfirmRow(row=changed), Statement)


STATED = {
    "session": "session",
    "threshold": "committee",
    "generation": "generation",
    "protocol": "protocol",
    "transcript": "transcript",
    "result_digest": "result_digest",
    "seat": "seat",
    "seats": "committee",
    "parties": "committee",
    "smaller committee": "committee",
    "confirmation": "result_digest",
}
"""Changes that the row's own confirmation contradicts, and what is named then. Of the others the seal alone knows."""
AT_A_SIGNING = {"threshold": ("refused", "signers"), "identities": ("refused", "confirmations")}
"""Where it asks for more: signers for the threshold, confirmations by those keys."""


@pytest.mark.parametrize("change", CHANGES)
async def test_a_changed_row_is_refused_by_name(committee: Committee, change: str) -> None:
    changed = CHANGES[change](committee.shares["alice"].row)
    field = STATED.get(change, "")
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        before = (await alice.ask(GetStatus(), Status)).chain_count
        await refused(alice, OpenAndCheck(row=changed), "altered", field)
        await refused(alice, Reseal(row=changed), "altered", field)
        if field:
            assert (await alice.ask(GetStatus(), Status)).chain_count == before  # it was no use of a key
        begin = msgspec.structs.replace(signing(committee), row=changed)
        if field or change == "plain" or change in AT_A_SIGNING:
            await refused(alice, begin, *AT_A_SIGNING.get(change, ("altered", field)))
        else:
            # It sits down, and opens nothing before the others have agreed: see `SigningSeat.begin`.
            await alice.ask(begin, Begun)


async def test_a_changed_sealed_part_does_not_open(committee: Committee) -> None:
    row, other = committee.shares["alice"].row, committee.shares["bob"].row
    sealed = row.sealed
    chunk = sealed.chunks[0]
    flipped = msgspec.structs.replace(chunk, data=bytes([chunk.data[0] ^ 1]) + chunk.data[1:])
    variants = {
        "of another node": other.sealed,
        "flipped bit": msgspec.structs.replace(sealed, chunks=(flipped, *sealed.chunks[1:])),
        "cut": msgspec.structs.replace(
            sealed,
            chunks=(*sealed.chunks[:-1], msgspec.structs.replace(sealed.chunks[-1], data=sealed.chunks[-1].data[:-1])),
        ),
        "none": msgspec.structs.replace(sealed, chunks=()),
        "doubled": msgspec.structs.replace(sealed, chunks=sealed.chunks * 2),
        "tag": msgspec.structs.replace(
            sealed, chunks=(msgspec.structs.replace(chunk, auth_tag=bytes(16)), *sealed.chunks[1:])
        ),
        "iv": msgspec.structs.replace(
            sealed, chunks=(msgspec.structs.replace(chunk, iv=bytes(12)), *sealed.chunks[1:])
        ),
        "wrapped key": msgspec.structs.replace(sealed, wrapped_key=bytes(40)),
        "wrapped key of another": msgspec.structs.replace(sealed, wrapped_key=other.sealed.wrapped_key),
        "format": msgspec.structs.replace(sealed, format=2),
        "recovery": msgspec.structs.replace(sealed, recovery_wrapped=bytes(385), recovery_fingerprint=bytes(32)),
    }
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        for name, variant in variants.items():
            message = await refused(alice, OpenAndCheck(row=msgspec.structs.replace(row, sealed=variant)), "altered")
            assert message, name
        await refused(
            alice,
            OpenAndCheck(row=msgspec.structs.replace(row, sealed=msgspec.structs.replace(sealed, kek_version=9))),
            "altered",
        )
        await alice.ask(OpenAndCheck(row=row), Done)


async def test_a_share_of_ones_own_making_is_not_what_all_confirmed(committee: Committee) -> None:
    """The token's owner can seal a share whose first prime is none; nobody confirmed the modulus that it makes."""
    row, node = committee.shares["alice"].row, committee.nodes["alice"]
    header = rows.share_header(row)
    with node.opened() as token:
        opened = token.open(rows.blob_of(row.sealed), header, seeded.core.SecretBytes)
        assert isinstance(opened, seeded.core.SecretBytes)
        content = bytearray(seeded.reveal(opened)[:-32])
        p, own = slice(44, 172), slice(1101 + 37, 1101 + 37 + 256)  # of seat 1, the first; share_impl.h
        factor = int.from_bytes(content[p], "big") + 8
        content[p] = factor.to_bytes(128, "big")
        content[own] = (factor * int.from_bytes(content[172:300], "big")).to_bytes(256, "big")
        with seeded.secret(bytes(content) + hashlib.sha256(content).digest()) as forged:
            row = msgspec.structs.replace(row, sealed=rows.sealed_of(token.seal(forged, header)))
    shares = committee.shares | {"alice": replace(committee.shares["alice"], row=row)}
    async with committee.up(*PAIR) as custodians:
        alice = custodians["alice"]
        await alice.ask(OpenAndCheck(row=row), Done)
        await refused(alice, OpenAndCheck(row=row, thorough=True), "altered", "PaillierSK")
        await refused(alice, ConfirmRow(row=row), "altered", "PaillierSK")
        table = await begin_signing(committee, custodians, shares, bytes(32))
        await table.until("failed")
        fault = table.progress["alice"].fault
        assert fault is not None
        assert (fault.reason, fault.detail) == ("share-altered", "the share is not what its row says: result_digest")


async def test_a_row_of_another_node_is_not_ours(committee: Committee) -> None:
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        bob = committee.shares["bob"]
        for request in (OpenAndCheck(row=bob.row), Reseal(row=bob.row), ConfirmRow(row=bob.row)):
            await refused(alice, request, "refused", "party_id")
        foreign = msgspec.structs.replace(signing(committee), row=bob.row, confirmations=bob.confirmations)
        await refused(alice, foreign, "refused", "party_id")
        relabelled = msgspec.structs.replace(bob.row, party_id="alice-server", seat=1)
        await refused(alice, OpenAndCheck(row=relabelled), "altered")


async def test_confirmations_are_verified_at_each_signing(committee: Committee) -> None:
    share = committee.shares["alice"]
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        for kept in ((), share.confirmations[:2], share.confirmations[:2] * 2, (*share.confirmations[:2], b"")):
            request = msgspec.structs.replace(signing(committee), confirmations=kept)
            message = await refused(alice, request, "refused", "confirmations")
            assert "not confirmed by" in message
        # A changed row is nobody's: its confirmation is another share's.
        changed = msgspec.structs.replace(share.row, result_digest=bytes(32))
        check = CheckConfirmations(row=changed, confirmations=share.confirmations)
        await refused(alice, check, "altered", "result_digest")
        await refused(alice, CheckConfirmations(row=committee.plain["alice"].row, confirmations=()), "refused")


async def test_a_set_that_was_complete_says_nothing_of_another(committee: Committee) -> None:
    """The custodian remembers complete sets by their bytes: each other one is judged anew."""
    share = committee.shares["alice"]
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]

        async def taken(request: BeginSigning) -> None:
            begun = await alice.ask(request, Begun)
            await alice.ask(Forget(ceremony=begun.ceremony), Done)

        for _ in range(2):
            await taken(signing(committee))
        for place, statement in enumerate(share.confirmations):
            for at in (1, len(statement) // 2, len(statement) - 1):
                spoilt = statement[:at] + bytes([statement[at] ^ 1]) + statement[at + 1 :]
                kept = (*share.confirmations[:place], spoilt, *share.confirmations[place + 1 :])
                request = msgspec.structs.replace(signing(committee), confirmations=kept)
                await refused(alice, request, "refused", "confirmations")
        for name, change in CHANGES.items():
            if name in {"share_id", "share_type", "public_key"}:
                continue  # confirmations do not state them; the seal does
            request = msgspec.structs.replace(signing(committee), row=change(share.row))
            with pytest.raises(CustodyFailure):
                await alice.ask(request, Begun)
        await taken(msgspec.structs.replace(signing(committee), confirmations=share.confirmations[::-1]))
        await taken(msgspec.structs.replace(signing(committee), confirmations=share.confirmations * 2))
        await taken(signing(committee))


def test_a_complete_set_is_verified_once_and_an_incomplete_one_each_time(
    committee: Committee, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, statements = committee.shares["alice"].row, tuple(os.urandom(8) for _ in range(3))
    asked: list[tuple[bytes, ...]] = []

    def confirmed_by(_: ShareRow, statements: tuple[bytes, ...]) -> ConfirmedBy:
        asked.append(statements)
        return ConfirmedBy(confirmed=(), missing=("eve",) if b"" in statements else (), withdrawn=())

    monkeypatch.setattr(confirmations, "confirmed_by", confirmed_by)
    other_seal = msgspec.structs.replace(row, sealed=rows.UNSEALED)
    for same in (row, row, other_seal):
        confirmations.require_all(same, statements)
    assert asked == [statements]
    confirmations.require_all(msgspec.structs.replace(row, generation=1), statements)
    assert len(asked) == 2
    for _ in range(2):
        with pytest.raises(Refusal, match="not confirmed by eve"):
            confirmations.require_all(row, (*statements[:2], b""))
        confirmations.require_all(row, (*statements, os.urandom(8)))  # one too many: not kept
    assert len(asked) == 6


async def test_a_resealed_share_is_the_same_share(committee: Committee) -> None:
    async with committee.up("alice", "bob") as custodians:
        alice = custodians["alice"]
        row = committee.shares["alice"].row
        status = await alice.ask(NewKekVersion(), Status)
        assert status.kek_version == 2
        resealed = (await alice.ask(Reseal(row=row), Resealed)).row
        assert resealed.sealed.kek_version == 2
        assert resealed.sealed.wrapped_key != row.sealed.wrapped_key
        assert msgspec.structs.replace(resealed, sealed=row.sealed) == row
        shares = committee.shares | {"alice": replace(committee.shares["alice"], row=resealed)}
        await sign(committee, custodians, shares, os.urandom(32))


# ---- Recovery key, signatures, pre-parameters: nothing that a request could choose ----


async def test_the_recovery_key_is_the_policys(committee: Committee, tmp_path: Path) -> None:
    node, row = committee.nodes["alice"], committee.shares["alice"].row
    ours, theirs = recovery_key(tmp_path / "ours.pem"), recovery_key(tmp_path / "theirs.pem")
    node.settings |= {"recovery": f'{{ public_key = "{tmp_path}/ours.pem", fingerprint = "{ours.hex()}" }}'}
    node.write_config()
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        resealed = (await alice.ask(Reseal(row=row), Resealed)).row
        assert resealed.sealed.recovery_fingerprint == ours
        for change in (
            {"recovery_fingerprint": theirs},
            {"recovery_wrapped": b"\1" + os.urandom(384), "recovery_fingerprint": theirs},
            {"recovery_wrapped": None, "recovery_fingerprint": None},
        ):
            changed = msgspec.structs.replace(
                resealed,
                sealed=msgspec.structs.replace(resealed.sealed, **change),
            )
            await refused(alice, Reseal(row=changed), "altered")
        # The configuration is read once, at the start.
        node.settings |= {"recovery": f'{{ public_key = "{tmp_path}/theirs.pem", fingerprint = "{theirs.hex()}" }}'}
        node.write_config()
        again = (await alice.ask(Reseal(row=resealed), Resealed)).row
        assert again.sealed.recovery_fingerprint == ours
    assert [event.fingerprint for event in node.chain() if isinstance(event, RecoveryKey)] == [ours]


def recovery_key(path: Path) -> bytes:
    """A public key in a file; its fingerprint."""
    public = rsa.generate_private_key(65537, 3072).public_key()
    path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


async def test_the_identity_key_signs_no_digest_of_ones_choice(committee: Committee) -> None:
    """Every signature that a request can have, with the digest in each of its fields that takes one."""
    chosen = os.urandom(32)
    session = chosen[:16]
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        request = signing_request(committee, committee.shares, "alice", PAIR, chosen, session)
        begun = await alice.ask(request, Begun)
        signatures = [frame.data[-64:] for frame in begun.frames]
        await alice.ask(Forget(ceremony=begun.ceremony), Done)
        notice = AbortUnknown(session=session, party_id="alice-server", seat=1, reason="restart")
        signatures.append((await alice.ask(notice, Statement)).data[-64:])
        signatures.append((await alice.ask(Checkpoint(audit_count=1, audit_head=chosen), Checkpointed)).signature)
        row = committee.shares["alice"].row
        signatures.append((await alice.ask(ConfirmRow(row=row), Statement)).data[-64:])
        await refused(alice, ConfirmRow(row=msgspec.structs.replace(row, confirmation=chosen)), "altered")
    async with committee.nodes["alice"].custodian(operator=True) as operator:
        successor = committee.identities["bob"]
        signatures.append((await operator.ask(SignSuccession(successor=successor), Statement)).data[-64:])
        await refused(operator, SignSuccession(successor=b"\2" + chosen[:31]), "refused")
    assert len(signatures) >= 5
    for digest in (chosen, hashlib.sha256(chosen).digest(), hashlib.sha256(session).digest()):
        assert not any(verify(committee.identities["alice"], digest, signature) for signature in signatures)


async def test_recorded_pre_parameters_make_no_key(committee: Committee) -> None:
    """Known to others, sealed by the token's owner: a share must not rest on them."""
    with committee.nodes["alice"].opened() as token, seeded.prepared(4) as recorded:
        fingerprints = tuple(seeded.core.prepared_fingerprints(recorded))
        blob = token.seal(recorded, rows.prepared_header("recorded", "gg18-v2", fingerprints))
    committee.prepared["alice"].append(
        PreparedRow(prepared_id="recorded", protocol="gg18-v2", fingerprints=fingerprints, sealed=rows.sealed_of(blob))
    )
    async with committee.up() as custodians:
        table = await begin_keygen(committee, custodians)
        await table.until("failed")
    fault = table.progress["alice"].fault
    assert fault is not None
    assert "origin" in fault.detail


# ---- Policy ----


async def test_party_ids_are_the_policys(committee: Committee) -> None:
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        request = keygen_request(committee)
        await refused(alice, msgspec.structs.replace(request, party_id="bob-server"), "refused", "party_id")
        stranger = msgspec.structs.replace(request, party_id="mallory-server")
        await refused(alice, stranger, "refused", "party_id")
        for committee_, field in (
            (request.committee[:1], "committee"),
            (request.committee[::-1], "committee"),
            ((*request.committee, Seat(seat=4, party_id="bob-server")), "committee"),
            ((*request.committee, Seat(seat=70000, party_id="dave-server")), "committee"),
            ((*request.committee, Seat(seat=4, party_id="dave")), "committee"),
            (request.committee[1:], "party_id"),
        ):
            await refused(alice, msgspec.structs.replace(request, committee=committee_), "refused", field)
        for threshold in (0, 1, 4):
            await refused(alice, msgspec.structs.replace(request, threshold=threshold), "refused", "threshold")
        notice = AbortUnknown(session=bytes(16), party_id="bob-server", seat=2, reason="restart")
        await refused(alice, notice, "refused", "party_id")


async def test_plain_only_where_the_policy_says_so(committee: Committee) -> None:
    row = committee.plain["alice"].row
    node = committee.nodes["alice"]
    listed = node.tables
    async with committee.up("alice") as custodians:
        request = msgspec.structs.replace(keygen_request(committee), channel="plain", committee=row.committee[:2])
        await refused(custodians["alice"], request, "refused", "channel")
        other = msgspec.structs.replace(request, committee=row.committee, protocol="gg18-v3")
        await refused(custodians["alice"], other, "refused")
    node.tables = listed.replace("keygen = true", "")
    node.write_config()
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        begun = await alice.ask(signing(committee, "plain"), Begun)
        assert begun.plain
        await alice.ask(Forget(ceremony=begun.ceremony), Done)
        request = msgspec.structs.replace(keygen_request(committee), channel="plain")
        await refused(alice, request, "refused", "channel")
    node.tables = ""
    node.write_config()
    async with committee.up("alice") as custodians:
        await refused(custodians["alice"], signing(committee, "plain"), "refused", "channel")


async def test_the_rate_is_the_policys_and_outlives_a_restart(committee: Committee) -> None:
    node = committee.nodes["alice"]
    node.settings |= {"signings_per_minute": "2"}
    node.write_config()
    async with committee.up("alice", "bob") as custodians:
        await sign(committee, custodians, committee.shares, bytes(32))
        await sign(committee, custodians, committee.shares, bytes(32))
    async with committee.up("alice", "bob") as custodians:
        table = await begin_signing(committee, custodians, committee.shares, bytes(32))
        await table.until("failed")
        fault = table.progress["alice"].fault
        assert fault is not None
        assert fault.reason == "rate-limit"
        fault = table.progress["bob"].fault
        assert fault is not None
        assert fault.reason == "aborted"
        await refused(custodians["alice"], signing(committee, "plain"), "rate")


async def test_ceremonies_are_as_many_as_the_arena_has_room_for(committee: Committee) -> None:
    node = committee.nodes["alice"]
    node.settings |= {"arena_mib": "2"}
    node.write_config()
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        begun = [await alice.ask(signing(committee), Begun) for _ in range(4)]
        await refused(alice, signing(committee), "busy")
        await alice.ask(Forget(ceremony=begun[0].ceremony), Done)
        await alice.ask(signing(committee), Begun)


def test_a_ceremony_may_be_forgotten_while_a_begin_counts_them() -> None:
    ground = MagicMock()
    ground.vault.recovery_fingerprint = ground.state.recovery = b""
    requests = ServiceRequests(ground)
    forgets = threading.Thread(target=requests.answer, args=(Forget(ceremony=2), 0))

    class Counted(Held):
        @property
        def live(self) -> bool:
            if forgets.ident is None:
                forgets.start()
                forgets.join(0.1)  # it has to wait for us; without that it would be through by now
            return True

    for number in (1, 2, 3):
        requests._held[number] = held = Counted(cast("SigningSeat", SimpleNamespace(channel="sealed")))
        held.ceremony = cast("SealedCeremony", SimpleNamespace(close=lambda: None))
    with requests._lock, pytest.raises(Refusal, match="no room"):  # for there is no arena here: all were counted
        requests._check_room(cast("SigningSeat", SimpleNamespace()))
    forgets.join()
    assert requests._held.keys() == {1, 3}


async def test_what_is_over_takes_no_room(committee: Committee) -> None:
    """A finished signing still answers peers that lag: beside as many others as there is room for."""
    for name in ("alice", "bob"):
        committee.nodes[name].settings |= {"arena_mib": "2"}
        committee.nodes[name].write_config()
    async with committee.up("alice", "bob") as custodians:
        for _ in range(5):
            await sign(committee, custodians, committee.shares, os.urandom(32))
        begun = [await custodians["alice"].ask(signing(committee), Begun) for _ in range(4)]
        await refused(custodians["alice"], signing(committee), "busy")
        await custodians["alice"].ask(Abort(ceremony=begun[0].ceremony, reason="refused"), Progress)
        await custodians["alice"].ask(signing(committee), Begun)


@pytest.mark.parametrize(
    "request_",
    [
        InitToken(),
        Doctor(),
        EditPins(pins=None, action="add", node="eve", identity=b"\2" * 33, patterns=("*-server",)),
        SignSuccession(successor=b"\2" * 33),
    ],
    ids=lambda request: type(request).__name__,
)
async def test_an_operators_requests_need_an_operator(committee: Committee, request_: Request) -> None:
    async with committee.up("alice") as custodians:
        message = await refused(custodians["alice"], request_, "refused")
        assert "tssctl" in message


async def test_an_operators_custodian_serves_no_service(committee: Committee) -> None:
    async with committee.nodes["alice"].custodian(operator=True) as operator:
        for request in (
            signing(committee),
            keygen_request(committee),
            OpenAndCheck(row=committee.shares["alice"].row),
            Reseal(row=committee.shares["alice"].row),
            Checkpoint(audit_count=1, audit_head=bytes(32)),
            Revoke(share_id="x"),
            Prepare(protocol="gg18-v2", milliseconds=1),
        ):
            await refused(operator, request, "refused")
        message = await refused(operator, InitToken(), "refused")
        assert "exist already" in message


# ---- Memory ----


async def test_a_revoked_share_stays_revoked(committee: Committee) -> None:
    row = committee.shares["alice"].row
    async with committee.up("alice") as custodians:
        await custodians["alice"].ask(Revoke(share_id=row.share_id), Done)
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        await alice.ask(Revoke(share_id=row.share_id), Done)
        await refused(alice, signing(committee), "refused", "share_id")
        for request in (OpenAndCheck(row=row), Reseal(row=row), ConfirmRow(row=row)):
            await refused(alice, request, "refused", "row.share_id")


async def test_a_share_revoked_after_the_hello_is_not_opened(committee: Committee) -> None:
    async with committee.up(*PAIR) as custodians:
        table = await begin_signing(committee, custodians, committee.shares, bytes(32))
        await custodians["alice"].ask(Revoke(share_id=committee.shares["alice"].row.share_id), Done)
        await table.until("failed")
        fault = table.progress["alice"].fault
        assert fault is not None
        assert fault.reason == "refused"


@pytest.mark.parametrize("how", ["missing", "older"])
async def test_a_state_put_back_is_refused(committee: Committee, tmp_path: Path, how: str) -> None:
    node = committee.nodes["alice"]
    shutil.copytree(node.state, tmp_path / "older")
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        await alice.ask(Revoke(share_id="some-share"), Done)
        checkpoint = await alice.ask(Checkpoint(audit_count=12, audit_head=b"\7" * 32), Checkpointed)
        await alice.ask(ShowCheckpoint(checkpoint=checkpoint), Done)
        assert (await alice.ask(GetStatus(), Status)).chain_problem == ""
        forged = msgspec.structs.replace(checkpoint, chain_count=0, chain_head=bytes(32))
        await refused(alice, ShowCheckpoint(checkpoint=forged), "refused", "checkpoint.signature")
        await alice.ask(OpenAndCheck(row=committee.shares["alice"].row), Done)
    shutil.rmtree(node.state)
    if how == "older":
        shutil.copytree(tmp_path / "older", node.state)
    async with committee.up("alice", "bob") as custodians:
        alice = custodians["alice"]
        table = await begin_signing(committee, custodians, committee.shares, bytes(32)) if how == "older" else None
        message = await refused(alice, ShowCheckpoint(checkpoint=checkpoint), "refused")
        assert "checkpoint" in message
        await refused(alice, Revoke(share_id="another"), "refused")
        row = committee.shares["alice"].row
        for request in (
            # The next checkpoint would make what was put back the newest there is.
            Checkpoint(audit_count=13, audit_head=bytes(32)),
            # What it forgot might forbid these.
            AbortUnknown(session=os.urandom(16), party_id="alice-server", seat=1, reason="restart"),
            ConfirmRow(row=row),
            OpenAndCheck(row=row),
            Reseal(row=row),
            CheckConfirmations(row=row, confirmations=committee.shares["alice"].confirmations),
            signing(committee),
            keygen_request(committee),
            NewKekVersion(),
            Prepare(protocol="gg18-v2", milliseconds=1),
        ):
            assert "older than a checkpoint" in await refused(alice, request, "refused", "")
        status = await alice.ask(GetStatus(), Status)
        assert status.state == "ready"
        assert "older than a checkpoint" in status.chain_problem
        assert str(node.state) in status.chain_problem
        if table is not None:
            await table.until("failed")


# ---- Pins ----


async def test_an_older_list_of_pins_is_refused(committee: Committee) -> None:
    node, old = committee.nodes["alice"], committee.pins["alice"]
    async with node.custodian(operator=True) as operator:
        newer = await operator.ask(EditPins(pins=old, action="remove", node="carol", identity=None, patterns=()), Pins)
    assert newer.number == 3
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        assert await alice.ask(NewestPins(), Pins) == newer
        assert await alice.ask(VerifyPins(pins=newer.signed), Pins) == newer
        message = await refused(alice, VerifyPins(pins=old), "refused", "pins")
        assert "older" in message
        await refused(alice, signing(committee), "refused", "pins")
        with_newer = msgspec.structs.replace(signing(committee), pins=newer.signed)
        begun = await alice.ask(with_newer, Begun)
        assert begun.frames
        with_carol = msgspec.structs.replace(with_newer, session=os.urandom(16), signers=(1, 3))
        message = await refused(alice, with_carol, "refused", "pins")
        assert "carol-server" in message
    # The file of the state directory does not decide alone: the chain remembers the number.
    (node.state / "pins").unlink()
    async with committee.up("alice") as custodians:
        await refused(custodians["alice"], VerifyPins(pins=old), "refused", "pins")


async def test_pins_are_ours_alone(committee: Committee) -> None:
    async with committee.up("alice") as custodians:
        alice = custodians["alice"]
        await refused(alice, VerifyPins(pins=committee.pins["bob"]), "refused", "pins.signature")
        own = committee.pins["alice"]
        longer = SignedPins(body=own.body + b"\0", signature=own.signature)
        await refused(alice, VerifyPins(pins=longer), "refused", "pins.signature")
        await refused(alice, msgspec.structs.replace(signing(committee), pins=committee.pins["bob"]), "refused")


async def test_an_operator_edits_pins(committee: Committee) -> None:
    node = committee.nodes["alice"]
    bob, carol = committee.identities["bob"], committee.identities["carol"]
    async with node.custodian(operator=True) as operator:

        def edit(
            action: Literal["add", "replace", "remove"], name: str, identity: bytes | None, *patterns: str
        ) -> EditPins:
            return EditPins(pins=None, action=action, node=name, identity=identity, patterns=patterns)

        for request, field in (
            (edit("add", "bob", bob, "bob-*"), "node"),
            (edit("replace", "dave", bob, "dave-*"), "node"),
            (edit("remove", "dave", None), "node"),
            (edit("add", "dave", bob, "dave-*"), "pins.identity"),
            (edit("add", "dave", committee.identities["alice"], "dave-*"), "pins.identity"),
            (edit("add", "dave", None, "dave-*"), "identity"),
            (edit("add", "dave", b"\2" * 32, "dave-*"), "pins.identity"),
            (edit("add", "dave", b"\xff" * 33, "dave-*"), "pins.identity"),
            (edit("replace", "bob", bob), "pins.patterns"),
            (edit("replace", "bob", bob, "b b"), "pins.patterns"),
            (edit("replace", "bob", bob, "bob-*", "bob-*"), "pins.patterns"),
        ):
            await refused(operator, request, "refused", field)
        replaced = await operator.ask(edit("replace", "bob", bob, "carol-*", "bob-*"), Pins)
        assert replaced.pins[0].patterns == ("bob-*", "carol-*")
    async with committee.up("alice") as custodians:
        request_ = msgspec.structs.replace(signing(committee), pins=replaced.signed)
        await custodians["alice"].ask(request_, Begun)
        ambiguous = msgspec.structs.replace(request_, session=os.urandom(16), signers=(1, 3))
        message = await refused(custodians["alice"], ambiguous, "refused", "pins")
        assert "bob, carol" in message
    assert carol


async def test_a_successor_takes_a_pins_place(committee: Committee, tmp_path: Path) -> None:
    successor = await init(make_node(tmp_path / "successor", "bob-server"))
    async with committee.nodes["bob"].custodian(operator=True) as operator:
        statement = (await operator.ask(SignSuccession(successor=successor), Statement)).data
    async with committee.up("alice", "carol") as custodians:
        alice = custodians["alice"]
        pins = committee.pins["alice"]
        flipped = statement[:-1] + bytes([statement[-1] ^ 1])
        await refused(alice, Succeed(pins=pins, statement=flipped), "refused", "statement")
        await refused(alice, Succeed(pins=pins, statement=statement[:-1]), "refused", "statement")
        after = await alice.ask(Succeed(pins=pins, statement=statement), Pins)
        assert {pin.node: pin.identity for pin in after.pins} == {
            "bob": successor,
            "carol": committee.identities["carol"],
        }
        # Bob's old key is pinned no more, so what it signs says nothing; nor does a list of before.
        await refused(alice, Succeed(pins=after.signed, statement=statement), "refused", "statement")
        await refused(alice, Succeed(pins=pins, statement=statement), "refused", "pins")
        # A successor must not be somebody else.
        async with committee.nodes["bob"].custodian(operator=True) as operator:
            theft = (await operator.ask(SignSuccession(successor=committee.identities["carol"]), Statement)).data
        await refused(custodians["carol"], Succeed(pins=committee.pins["carol"], statement=theft), "refused")


async def test_two_seats_of_one_node_are_refused(committee: Committee) -> None:
    async with committee.nodes["alice"].custodian(operator=True) as operator:
        removed = await operator.ask(
            EditPins(pins=None, action="remove", node="carol", identity=None, patterns=()), Pins
        )
        both = await operator.ask(
            EditPins(
                pins=removed.signed,
                action="replace",
                node="bob",
                identity=committee.identities["bob"],
                patterns=("bob-server", "carol-server"),
            ),
            Pins,
        )
    async with committee.up("alice") as custodians:
        request = msgspec.structs.replace(keygen_request(committee), pins=both.signed)
        await refused(custodians["alice"], request, "refused", "committee")


async def test_foreign_pre_parameters_are_refused(committee: Committee) -> None:
    async with committee.up(*PAIR, "carol") as custodians:
        committee.prepared["alice"].append(committee.prepared["bob"][0])
        table = await begin_keygen(committee, custodians)
        await table.until("failed")
        fault = table.progress["alice"].fault
        assert fault is not None
        assert fault.reason == "share-altered"
        wrong = msgspec.structs.replace(committee.prepared["alice"][0], protocol="gg18-v3")
        await refused(custodians["alice"], keygen_request(committee, wrong), "refused", "prepared.protocol")


async def test_pre_parameters_that_were_spent_make_no_second_key(committee: Committee) -> None:
    async with committee.up() as custodians:
        alice = custodians["alice"]
        table = await begin_keygen(committee, custodians)
        spent = table.requests["alice"].prepared
        assert spent is not None
        # Another session has taken its seat with the same set, before that was opened.
        second = await alice.ask(keygen_request(committee, spent), Begun)
        await table.until("result")
        for known in ((), (b"\1" * 32,)):
            request = msgspec.structs.replace(keygen_request(committee, spent), known_fingerprints=known)
            assert "used before" in await refused(alice, request, "refused", "prepared")
        await alice.ask(Forget(ceremony=second.ceremony), Done)
        # Whatever comes of the keygen that spent it.
        await alice.ask(Abort(ceremony=table.ceremonies["alice"], reason="refused"), Progress)
        await refused(alice, keygen_request(committee, spent), "refused", "prepared")
    async with committee.up("alice") as custodians:
        await refused(custodians["alice"], keygen_request(committee, spent), "refused", "prepared")


async def test_status_tells_of_the_memory(committee: Committee) -> None:
    async with committee.up("alice") as custodians:
        before = await custodians["alice"].ask(GetStatus(), Status)
        await custodians["alice"].ask(Revoke(share_id="some-share"), Done)
        status = await custodians["alice"].ask(GetStatus(), Status)
    assert status.state == "ready"
    assert status.identity == committee.identities["alice"]
    assert status.pins_number == 2
    assert status.chain_count == before.chain_count + 1
    assert status.chain_head != before.chain_head
    assert status.plain_committees == 1
    assert (status.tier, status.kek_version) == ("A", 1)
