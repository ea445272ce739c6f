"""Nothing crosses the wall but what is meant to, and in no form but the one that is meant."""

import os
import types
import typing
from collections.abc import Iterator
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.custody import wire

PUBLIC = "public: everybody may know it"
SEALED = "sealed by the HSM, or by the channel to a peer"
SIGNED = "a statement with its signature, public"
PLAIN = "in clear, for committees that the custodian's own policy lists"
DIGEST = "a digest that the custodian does not sign as it is: it is bound into a typed statement"

BYTES = {
    "Seat": {"party_id": PUBLIC},
    "SealedChunk": {"data": SEALED, "iv": PUBLIC, "auth_tag": PUBLIC},
    "Sealed": {"wrapped_key": SEALED, "recovery_wrapped": SEALED, "recovery_fingerprint": PUBLIC},
    "ShareRow": {
        "share_id": PUBLIC,
        "party_id": PUBLIC,
        "session": PUBLIC,
        "public_key": PUBLIC,
        "transcript": PUBLIC,
        "identities": PUBLIC,
        "result_digest": DIGEST,
        "confirmation": SIGNED,
    },
    "PreparedRow": {"prepared_id": PUBLIC, "fingerprints": DIGEST},
    "SignedPins": {"body": SIGNED, "signature": SIGNED},
    "OutFrame": {"to": PUBLIC, "data": SEALED},
    "FaultReport": {
        "reason": PUBLIC,
        "detail": PUBLIC,
        "culprits": PUBLIC,
        "hearsay": PUBLIC,
        "evidence": SIGNED,
    },
    "BeginKeygen": {"session": PUBLIC, "party_id": PUBLIC, "share_id": PUBLIC, "known_fingerprints": DIGEST},
    "BeginSigning": {"session": PUBLIC, "confirmations": SIGNED, "message_hash": DIGEST},
    "Receive": {"data": SEALED},
    "PlainReceive": {"sender": PUBLIC, "data": PLAIN},
    "CheckConfirmations": {"confirmations": SIGNED},
    "Abort": {"reason": PUBLIC},
    "AbortUnknown": {"session": PUBLIC, "party_id": PUBLIC, "reason": PUBLIC},
    "Revoke": {"share_id": PUBLIC},
    "Checkpoint": {"audit_head": DIGEST},
    "Succeed": {"statement": SIGNED},
    "EditPins": {"node": PUBLIC, "identity": PUBLIC, "patterns": PUBLIC},
    "SignSuccession": {"successor": PUBLIC},
    "Status": {
        "reason": PUBLIC,
        "token_label": PUBLIC,
        "token_serial": PUBLIC,
        "token_model": PUBLIC,
        "identity": PUBLIC,
        "earlier_identities": PUBLIC,
        "pins_problem": PUBLIC,
        "chain_head": DIGEST,
        "chain_problem": PUBLIC,
    },
    "PlainMessage": {"to": PUBLIC, "data": PLAIN},
    "Progress": {"waits_for": PUBLIC, "confirmations": SIGNED},
    "KeygenFinished": {"fingerprints": DIGEST},
    "SigningFinished": {"signature": PUBLIC, "public_key": PUBLIC},
    "Statement": {"data": SIGNED},
    "ConfirmedBy": {"confirmed": PUBLIC, "missing": PUBLIC, "withdrawn": PUBLIC},
    "Checkpointed": {"audit_head": DIGEST, "chain_head": DIGEST, "identity": PUBLIC, "signature": SIGNED},
    "Pin": {"node": PUBLIC, "identity": PUBLIC, "patterns": PUBLIC},
    "Check": {"name": PUBLIC, "proves": PUBLIC, "detail": PUBLIC},
    "DoctorReport": {"verdict": PUBLIC},
    "Failure": {"message": PUBLIC, "field": PUBLIC},
}
"""Every field of the wall that can hold text or bytes, and why it may."""


def walk(kind: object, seen: set[type]) -> Iterator[tuple[type, str, object]]:
    """Each field of each type that can be reached, with its leaf type."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType, tuple):
        for inner in typing.get_args(kind):
            yield from walk(inner, seen)
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind not in seen:
        seen.add(kind)
        hints = typing.get_type_hints(kind)
        for name in kind.__struct_fields__:
            for leaf in leaves(hints[name]):
                yield kind, name, leaf
            yield from walk(hints[name], seen)


def leaves(kind: object) -> Iterator[object]:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType, tuple):
        for inner in typing.get_args(kind):
            yield from leaves(inner)
    elif kind is not ... and kind is not type(None):
        yield kind


def reached() -> tuple[set[type], list[tuple[type, str, object]]]:
    seen: set[type] = set()
    fields = [*walk(wire.Call, seen), *walk(wire.Reply, seen)]
    return seen, fields


def test_every_field_that_can_hold_text_or_bytes_has_a_reason() -> None:
    seen, fields = reached()
    found: dict[str, set[str]] = {}
    for kind, name, leaf in fields:
        if leaf in (str, bytes):
            found.setdefault(kind.__name__, set()).add(name)
        else:
            struct = isinstance(leaf, type) and issubclass(leaf, msgspec.Struct)
            assert struct or leaf in (int, bool) or typing.get_origin(leaf) is typing.Literal, (kind, name, leaf)
    assert found == {name: set(why) for name, why in BYTES.items()}
    assert wire.Call in seen


def test_only_the_two_named_types_carry_messages_in_clear() -> None:
    clear = {name for name, why in BYTES.items() if PLAIN in why.values()}
    assert clear == {"PlainReceive", "PlainMessage"}


def test_every_type_is_strict_and_frozen() -> None:
    seen, _ = reached()
    for kind in seen:
        config = kind.__struct_config__  # type: ignore[attr-defined]  # of msgspec.Struct, which all are
        assert config.forbid_unknown_fields, kind
        assert config.frozen, kind


def test_a_call_comes_out_as_it_went_in() -> None:
    call = wire.Call(number=1, now_ms=2, request=wire.Receive(ceremony=3, data=os.urandom(100)))
    frame = wire.encode(call)
    assert wire.body_length(frame[:4], wire.CALL_MAX) == len(frame) - 4
    assert wire.decode_call(frame[4:]) == call


@pytest.mark.parametrize(
    "change",
    [
        {"is": "NoSuchRequest"},
        {"is": "Done"},
        {"extra": 1},
        {"ceremony": "3"},
        {"ceremony": 1.5},
        {"ceremony": 2**70},
        {"ceremony": None},
    ],
    ids=repr,
)
def test_what_is_not_a_request_is_refused(change: dict[str, object]) -> None:
    request = {"is": "Tick", "ceremony": 3}
    call = wire.decode_call(msgspec.msgpack.encode({"number": 1, "now_ms": 2, "request": request}))
    assert call.request == wire.Tick(ceremony=3)
    try:
        body = msgspec.msgpack.encode({"number": 1, "now_ms": 2, "request": request | change})
    except OverflowError:
        body = b"\xcf" + bytes(8)
    with pytest.raises(wire.Broken):
        wire.decode_call(body)


@pytest.mark.parametrize("header", [bytes(4), (wire.CALL_MAX + 1).to_bytes(4, "big"), b"\xff\xff\xff\xff"])
def test_a_length_out_of_bounds_is_refused(header: bytes) -> None:
    with pytest.raises(wire.Broken):
        wire.body_length(header, wire.CALL_MAX)


def test_what_is_too_long_is_not_sent() -> None:
    with pytest.raises(wire.Broken):
        wire.encode(wire.Call(number=1, now_ms=0, request=wire.Receive(ceremony=1, data=bytes(wire.CALL_MAX))))


@given(body=st.binary(max_size=200))
def test_any_bytes_are_refused_or_read(body: bytes) -> None:
    for decode in (wire.decode_call, wire.decode_reply):
        with suppress(wire.Broken):
            decode(body)


@given(data=st.data())
def test_a_damaged_frame_is_refused_or_read(data: st.DataObject) -> None:
    call = wire.Call(
        number=7,
        now_ms=8,
        request=wire.Abort(ceremony=9, reason="stalled"),
    )
    body = bytearray(wire.encode(call)[4:])
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = wire.decode_call(bytes(body))
    except wire.Broken:
        return
    assert isinstance(read, wire.Call)
