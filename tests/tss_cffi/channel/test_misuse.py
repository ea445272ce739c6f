"""Each argument of the channel's C face wrong in each way, by name; and the Python face's own checks."""

from __future__ import annotations

import dataclasses
import pickle
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.tss_cffi.channel import independent as wire
from tests.tss_cffi.channel.seats import (
    Seat,
    State,
    Table,
    ceremony,
    channel,
    identities,
    identity,
    keygen_terms,
    signing_terms,
    sit,
)
from tests.tss_cffi.seeded import core, ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MISUSE: Final = 7
OTHER_KEY: Final = bytes.fromhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")


def about() -> str:
    """What the last refused call was about."""
    return str(ffi.string(lib.tss_last_misuse()), "ascii")


@pytest.fixture
def seat() -> Iterator[Seat]:
    opened = Seat(signing_terms((1, 2)), 1)
    yield opened
    opened.close()


# Calls, and which arguments are pointers; what stands for each of the others.
CALLS: Final[dict[str, list[tuple[str, Any]]]] = {
    "tss_channel_start": [("channel", None), ("signature64", bytes(64))],
    "tss_channel_outgoing": [("channel", None), ("frame", "tss_frame *")],
    "tss_channel_transcript": [("channel", None), ("transcript32", "uint8_t[32]")],
    "tss_channel_confirmation_body": [("channel", None), ("body", "uint8_t **"), ("body_len", "size_t *")],
    "tss_channel_signature": [("channel", None), ("signature64", "uint8_t[64]"), ("recovery_id", "uint8_t *")],
    "tss_channel_abort": [("channel", None), ("digest32", "uint8_t[32]"), ("reason", b"test")],
    "tss_channel_abort_signed": [("channel", None), ("signature64", bytes(64))],
    "tss_identity_verify": [("identity33", bytes(33)), ("digest32", bytes(32)), ("signature64", bytes(64))],
}


@pytest.mark.parametrize(
    ("call", "place"), [(call, place) for call, arguments in CALLS.items() for place in range(len(arguments))]
)
def test_a_pointer_that_is_null(call: str, place: int, seat: Seat) -> None:
    arguments = []
    for at, (_, value) in enumerate(CALLS[call]):
        if at == place:
            arguments.append(ffi.NULL)
        elif value is None:
            arguments.append(seat.channel.handle)
        else:
            arguments.append(ffi.new(value) if isinstance(value, str) else value)
    assert getattr(lib, call)(*arguments) == MISUSE
    assert about() == CALLS[call][place][0]
    assert seat.state is State.HELLO


def test_pointers_that_are_null_beside_numbers(seat: Seat) -> None:
    handle, digest = seat.channel.handle, ffi.new("uint8_t[32]")
    statement, length = ffi.new("uint8_t **"), ffi.new("size_t *")
    wrong: list[tuple[Callable[[], int], str]] = [
        (lambda: lib.tss_channel_new(ffi.NULL, ffi.new("tss_ceremony *")), "channel"),
        (lambda: lib.tss_channel_new(ffi.new("tss_channel **"), ffi.NULL), "ceremony"),
        (lambda: lib.tss_channel_receive(ffi.NULL, b"", 0, 0), "channel"),
        (lambda: lib.tss_channel_receive(handle, ffi.NULL, 1, 0), "data"),
        (lambda: lib.tss_channel_attach(ffi.NULL, ffi.NULL, 0), "channel"),
        (lambda: lib.tss_channel_attach(handle, ffi.NULL, 0), "party"),
        (lambda: lib.tss_channel_confirmation_digest(handle, ffi.NULL, ffi.NULL, 0), "digest32"),
        (lambda: lib.tss_channel_confirmation_digest(ffi.NULL, digest, ffi.NULL, 0), "channel"),
        (lambda: lib.tss_channel_confirm(ffi.NULL, bytes(64), 0), "channel"),
        (lambda: lib.tss_channel_confirm(handle, ffi.NULL, 0), "signature64"),
        (lambda: lib.tss_channel_confirmation(handle, ffi.NULL, length, 1), "statement"),
        (lambda: lib.tss_channel_confirmation(handle, statement, ffi.NULL, 1), "statement_len"),
        (lambda: lib.tss_channel_confirmation(ffi.NULL, statement, length, 1), "channel"),
        (lambda: lib.tss_channel_confirmation(handle, statement, length, 3), "seat"),
        (lambda: lib.tss_confirmation_digest(ffi.NULL, b"", 0), "digest32"),
        (lambda: lib.tss_confirmation_digest(digest, ffi.NULL, 0), "body"),
        (lambda: lib.tss_committee_digest(digest, ffi.NULL), "ceremony"),
        (lambda: lib.tss_committee_digest(digest, ffi.new("tss_ceremony *")), "ceremony.members_len"),
    ]
    for call, name in wrong:
        assert call() == MISUSE
        assert about() == name
    assert seat.state is State.HELLO


def test_functions_without_a_status_take_null() -> None:
    lib.tss_channel_free(ffi.NULL)
    lib.tss_channel_tick(ffi.NULL, 0)
    lib.tss_channel_connected(ffi.NULL, 0)
    lib.tss_channel_hello_digest(ffi.NULL, ffi.NULL)
    lib.tss_channel_fault_of(ffi.NULL, ffi.NULL)
    lib.tss_channel_drops(ffi.NULL, ffi.NULL)
    lib.tss_channel_progress(ffi.NULL, ffi.NULL)
    assert lib.tss_channel_state_of(ffi.NULL) == State.FAILED


# ---- Ceremonies that contradict themselves ----

WRONG: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "no protocol": ({"protocol": 3}, "ceremony.protocol"),
    "t of 1": ({"threshold": 1}, "ceremony.threshold"),
    "t above those who take part": ({"threshold": 3}, "ceremony.threshold"),
    "one party": ({"committee": ((1, "user1-server"),)}, "ceremony.members_len"),
    "33 parties": ({"committee": tuple((seat, f"u{seat}-s") for seat in range(1, 34))}, "ceremony.members_len"),
    "seats not ascending": ({"committee": ((2, "user2-server"), (1, "user1-server"))}, "ceremony.members.seat"),
    "a seat twice": ({"committee": ((1, "user1-server"), (1, "user2-server"))}, "ceremony.members.seat"),
    "seat 0": ({"committee": ((0, "user0-server"), (1, "user1-server"))}, "ceremony.members.seat"),
    "seat 65536": ({"committee": ((1, "user1-server"), (65536, "user2-server"))}, "ceremony.members.seat"),
    "not our seat": ({"own_seat": 3}, "ceremony.seat"),
    "a party twice": ({"committee": ((1, "user1-server"), (2, "user1-server"))}, "ceremony.members.party_id"),
    "no key to sign with": ({"public_key": None}, "ceremony.public33"),
    "a key that is no point": ({"public_key": b"\x02" + b"\xff" * 32}, "ceremony.public33"),
    "a key not compressed": ({"public_key": b"\x04" + OTHER_KEY[1:]}, "ceremony.public33"),
    "a short key": ({"public_key": OTHER_KEY[:32]}, "ceremony.public33"),
    "nothing to sign": ({"digest": None}, "ceremony.digest32"),
    "a long hash": ({"digest": bytes(33)}, "ceremony.digest32"),
    "a short session": ({"session": bytes(15)}, "ceremony.session16"),
    "no such ceremony": ({"kind": "sing"}, "ceremony.kind"),
    "a keygen with a hash": ({"kind": "keygen", "public_key": None}, "ceremony.digest32"),
    "a keygen of generation 1": (
        {"kind": "keygen", "public_key": None, "digest": None, "generation": 1},
        "ceremony.generation",
    ),
    "a keygen of a key": ({"kind": "keygen", "digest": None}, "ceremony.public33"),
    "a rotation of a hash": ({"kind": "rotate"}, "ceremony.digest32"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_ceremony_that_contradicts_itself(name: str) -> None:
    changes, field = WRONG[name]
    stated = dataclasses.replace(ceremony(signing_terms((1, 2)), 1), **changes)
    keys = {seat: identity(place).public for place, (seat, _) in enumerate(stated.committee)}
    with pytest.raises(core.Misuse) as refused:
        channel.Channel(stated, keys)
    assert refused.value.argument == field


@pytest.mark.parametrize(
    "party_id", ["", "user", "-server", "user-", "us er-server", "user-ser.ver", "ü-server", "a" * 127 + "-b"]
)
def test_a_party_id_that_is_none(party_id: str) -> None:
    stated = dataclasses.replace(ceremony(signing_terms((1, 2)), 1), committee=((1, "user1-server"), (2, party_id)))
    with pytest.raises(core.Misuse, match=r"ceremony\.members\.party_id"):
        channel.Channel(stated, identities(signing_terms((1, 2))))


@pytest.mark.parametrize("party_id", ["a-b", "-a-b", "--a", "user-with-dashes-server", "_-_", "a" * 126 + "-b"])
def test_a_party_id_that_is_one(party_id: str) -> None:
    stated = dataclasses.replace(ceremony(signing_terms((1, 2)), 1), committee=((1, "user1-server"), (2, party_id)))
    channel.Channel(stated, identities(signing_terms((1, 2)))).close()


@pytest.mark.parametrize(
    ("keys", "argument"),
    [
        ({1: identity(1).public}, "identities"),
        ({1: identity(1).public, 3: identity(3).public}, "identities"),
        ({1: identity(1).public, 2: identity(1).public}, "ceremony.members.identity33"),
        ({1: identity(1).public, 2: identity(2).public[:32]}, "ceremony.members.identity33"),
        ({1: identity(1).public, 2: b"\x02" + b"\xff" * 32}, "ceremony.members.identity33"),
        ({1: identity(1).public, 2: b"\x04" + identity(2).public[1:]}, "ceremony.members.identity33"),
        ({1: identity(1).public, 2: b"\x06" + identity(2).public[1:]}, "ceremony.members.identity33"),
        ({1: identity(1).public, 2: bytes(33)}, "ceremony.members.identity33"),
    ],
    ids=["missing", "of another seat", "twice", "short", "off the curve", "uncompressed", "hybrid", "infinity"],
)
def test_identities_that_do_not_fit(keys: dict[int, bytes], argument: str) -> None:
    with pytest.raises(core.Misuse) as refused:
        channel.Channel(ceremony(signing_terms((1, 2)), 1), keys)
    assert refused.value.argument == argument


# ---- In the wrong order ----


def test_started_twice(seat: Seat) -> None:
    with pytest.raises(core.Misuse, match="channel"):
        seat.channel.start(identity(1).sign(seat.channel.hello_digest))


@pytest.mark.parametrize("wrong", ["another's", "over something else", "high s", "zero"])
def test_a_hello_signed_wrongly_by_us_is_not_sent(wrong: str) -> None:
    with channel.Channel(ceremony(signing_terms((1, 2)), 1), identities(signing_terms((1, 2)))) as opened:
        digest = opened.hello_digest
        signature = {
            "another's": identity(2).sign(digest),
            "over something else": identity(1).sign(bytes(32)),
            "high s": identity(1).sign(digest, low=False),
            "zero": bytes(64),
        }[wrong]
        with pytest.raises(channel.SignatureRefused):
            opened.start(signature)
        with pytest.raises(core.Misuse, match="signature64"):
            opened.start(signature[:63])
        assert opened.outgoing() == []
        opened.start(identity(1).sign(digest))
        assert len(opened.outgoing()) == 1


def test_nothing_but_the_next_step_is_taken(seat: Seat) -> None:
    with sit(seat.terms, 1) as party, pytest.raises(core.Misuse, match="channel"):
        seat.channel.attach(party, 0)
    for call in (
        lambda: seat.channel.confirmation_digest(None, 0),
        lambda: seat.channel.confirm(bytes(64), 0),
        lambda: seat.channel.abort_signed(bytes(64)),
        seat.channel.confirmation_body,
        lambda: seat.channel.transcript,
    ):
        with pytest.raises(core.Misuse):
            call()
    assert seat.channel.signature() is None
    assert seat.channel.confirmations() == {}
    assert seat.state is State.HELLO


def test_a_used_party_is_not_attached() -> None:
    terms = signing_terms((1, 2))
    with Table(terms) as used, Table(terms) as table:
        used.deliver()
        seat = table.seats[1]
        table.collect()
        hello = next(frame for sender, to, frame in table.flying if to == 1)
        seat.channel.receive(hello, 0)
        assert seat.state is State.AGREED
        party = used.seats[1].party
        assert party is not None
        with pytest.raises(core.Misuse, match="party"):
            seat.channel.attach(party, 0)
        assert seat.state is State.AGREED


@pytest.mark.parametrize("result", [None, bytes(31), bytes(33)])
def test_a_keygen_confirms_a_digest(result: bytes | None) -> None:
    with Table(keygen_terms()) as table:
        table.seats[1].holds_back = True
        table.deliver()
        with pytest.raises(core.Misuse, match="result32"):
            table.seats[1].channel.confirmation_digest(result, 0)


def test_a_signing_confirms_no_digest() -> None:
    with Table(signing_terms((1, 2))) as table:
        table.seats[1].holds_back = True
        table.deliver()
        with pytest.raises(core.Misuse, match="result32"):
            table.seats[1].channel.confirmation_digest(bytes(32), 0)


def test_a_confirmation_signed_wrongly_by_us_is_not_sent() -> None:
    with Table(keygen_terms()) as table:
        seat = table.seats[1]
        seat.holds_back = True
        table.deliver()
        with pytest.raises(core.Misuse, match="channel"):
            seat.channel.confirm(bytes(64), 0)
        digest = seat.channel.confirmation_digest(seat.result_digest(), 0)
        for signature in (identity(2).sign(digest), identity(1).sign(digest, low=False), bytes(64)):
            with pytest.raises(channel.SignatureRefused):
                seat.channel.confirm(signature, 0)
        assert seat.outgoing() == []
        assert seat.state is State.RESULT


@pytest.mark.parametrize("reason", ["", "a" * 65, "Upper", "white space", "ümlaut", "new\nline"])
def test_a_reason_that_is_none(seat: Seat, reason: str) -> None:
    with pytest.raises(core.Misuse, match="reason"):
        seat.channel.abort(reason)
    assert seat.state is State.HELLO


def test_a_party_closed_too_early_is_noticed() -> None:
    with Table(signing_terms((1, 2))) as table:
        table.collect()
        seat = table.seats[1]
        while seat.party is None:
            _, to, frame = table.flying.popleft()
            table.nodes[to].receive(frame, 0)
            table.collect()
        seat.party.close()
        with pytest.raises(ValueError, match="wiped already"):
            seat.channel.receive(b"", 0)
        seat.party = None


def test_a_closed_channel_is_noticed_and_never_pickled(seat: Seat) -> None:
    with pytest.raises(TypeError, match="secrets do not leave"):
        pickle.dumps(seat.channel)
    seat.channel.close()
    seat.channel.close()
    with pytest.raises(ValueError, match="closed already"):
        _ = seat.channel.state


# ---- Statements without a channel ----


def test_what_is_no_confirmation() -> None:
    body = wire.confirmation_body(keygen_terms(), 1, bytes(32), bytes(32), bytes(32))
    signed = identity(1).state(body)
    assert channel.read_confirmation(signed, identity(1).public).seat == 1
    assert channel.read_confirmation(body, None).result == bytes(32)
    assert channel.confirmation_digest(body) == wire.digest_of(body)
    for data, key in (
        (body, identity(1).public),
        (signed, None),
        (signed, identity(2).public),
        (signed[:-1], identity(1).public),
        (b"", identity(1).public),
        (b"", None),
        (body[:-1], None),
        (b"\2" + body[1:], None),
        (body[:1] + b"\1" + body[2:], None),
        (body[:22] + b"\2" + body[23:], None),
        (body[:22] + b"\4" + body[23:], None),
        (body[:23] + b"\0" + body[24:], None),
        (body[:23] + b"\x09" + body[24:], None),
    ):
        with pytest.raises(core.KeyMaterialRefused):
            channel.read_confirmation(data, key)
    with pytest.raises(core.KeyMaterialRefused):
        channel.confirmation_digest(signed)


def test_a_notice_without_a_channel() -> None:
    notice = channel.AbortNotice(bytes(16), 2, "user2-server", "restart", (1, 3))
    body, digest = channel.abort_notice(notice)
    assert body == wire.abort_body(bytes(16), 2, "user2-server", "restart", (1, 3))
    assert digest == wire.digest_of(body)
    signed = body + identity(2).sign(digest)
    assert channel.read_abort(signed, identity(2).public) == notice
    for data in (b"", body, signed[:-1], signed + b"\0", body + identity(1).sign(digest)):
        with pytest.raises(core.KeyMaterialRefused):
            channel.read_abort(data, identity(2).public)
    unsorted = wire.abort_body(bytes(16), 2, "user2-server", "restart", (3, 1))
    with pytest.raises(core.KeyMaterialRefused):
        channel.read_abort(identity(2).state(unsorted), identity(2).public)


@pytest.mark.parametrize(
    ("changes", "argument"),
    [
        ({"session": bytes(15)}, "session16"),
        ({"party_id": "nobody"}, "abort"),
        ({"party_id": "a" * 200}, "abort.party_id"),
        ({"reason": ""}, "abort"),
        ({"reason": "Loud"}, "abort"),
        ({"reason": "a" * 65}, "abort.reason"),
        ({"culprits": tuple(range(1, 34))}, "abort.culprits_len"),
        ({"culprits": (1, 1)}, "abort"),
    ],
    ids=str,
)
def test_a_notice_that_is_none(changes: dict[str, Any], argument: str) -> None:
    notice = channel.AbortNotice(bytes(16), 2, "user2-server", "restart", ())._replace(**changes)
    with pytest.raises(core.Misuse) as refused:
        channel.abort_notice(notice)
    assert refused.value.argument == argument


def test_a_notice_needs_room() -> None:
    length, digest = ffi.new("size_t *", 20), ffi.new("uint8_t[32]")
    notice = ffi.new("tss_abort *", {"seat": 2, "party_id": b"user2-server", "reason": b"test"})
    assert lib.tss_abort_body(ffi.new("uint8_t[20]"), length, digest, notice) == MISUSE
    assert about() == "body_len"
    assert length[0] == 0


def test_what_a_frame_claims() -> None:
    frame = wire.ack(b"s" * 16, 7, 1, 0)
    assert channel.frame_claims(frame) == (b"s" * 16, 7)
    for data in (b"", frame[:21], b"\0" + frame[1:], frame[:1] + b"\0" + frame[2:], frame[:1] + b"\x08" + frame[2:]):
        assert channel.frame_claims(data) is None


def test_the_committees_digest() -> None:
    terms = keygen_terms(n=3)
    digest = channel.committee_digest(tuple(terms.committee), terms.threshold, identities(terms))
    assert digest == terms.committee_digest()
