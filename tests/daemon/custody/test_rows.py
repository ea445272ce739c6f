"""What a row says beside its share, under the seal byte by byte."""

import hashlib
from typing import Any

import msgspec
import pytest

from daemon.custody import rows
from daemon.custody.wire import Seat, ShareRow

ROW = ShareRow(
    share_id="share-1",
    party_id="bob-server",
    session=bytes(range(16)),
    share_type="wallet",
    public_key=b"\2" + bytes(range(32)),
    threshold=2,
    committee=(
        Seat(seat=1, party_id="alice-server"),
        Seat(seat=258, party_id="bob-server"),
        Seat(seat=300, party_id="carol-server"),
    ),
    seat=258,
    protocol="gg18-v3",
    channel="sealed",
    generation=5,
    transcript=bytes(32),
    identities=(b"\2" + bytes(32), b"\3" + bytes(32), b"\2" + bytes(31) + b"\1"),
    result_digest=b"\7" * 32,
    confirmation=b"body",
    sealed=rows.UNSEALED,
)
DIGEST = "cbf0f3437c9efdee8f497aa505001ba4b54c379bb10d89da3d7c7d27d87794fc"


def test_the_committee_digest_is_as_it_is_written() -> None:
    """docs/custody.md, "What a row is sealed to", spelled out."""
    spelled = (
        b"tssd/1/row\0"
        b"\x00\x07gg18-v3"
        b"\x00\x06sealed"
        b"\x00\x00\x01\x02"
        b"\x00\x03"
        b"\x00\x00\x00\x01\x00\x0calice-server\x00\x21\2" + bytes(32) + b""
        b"\x00\x00\x01\x02\x00\x0abob-server\x00\x21\3" + bytes(32) + b""
        b"\x00\x00\x01\x2c\x00\x0ccarol-server\x00\x21\2" + bytes(31) + b"\1"
        b"\x00\x20" + bytes(32) + b"\x00\x20" + b"\7" * 32 + b"\x00\x04body"
    )
    assert rows.committee_digest(ROW) == hashlib.sha256(spelled).digest()
    assert rows.committee_digest(ROW).hex() == DIGEST


def test_a_plain_row_has_empty_strings_in_those_places() -> None:
    plain = msgspec.structs.replace(ROW, channel="plain", transcript=b"", identities=(), confirmation=b"")
    spelled = (
        b"tssd/1/row\0\x00\x07gg18-v3\x00\x05plain\x00\x00\x01\x02\x00\x03"
        b"\x00\x00\x00\x01\x00\x0calice-server\x00\x00"
        b"\x00\x00\x01\x02\x00\x0abob-server\x00\x00"
        b"\x00\x00\x01\x2c\x00\x0ccarol-server\x00\x00"
        b"\x00\x00\x00\x20" + b"\7" * 32 + b"\x00\x00"
    )
    assert rows.committee_digest(plain) == hashlib.sha256(spelled).digest()


OTHERS: dict[str, dict[str, Any]] = {
    "share_id": {"share_id": "share-2"},
    "party_id": {"party_id": "alice-server"},
    "session": {"session": bytes(16)},
    "share_type": {"share_type": "admin"},
    "public_key": {"public_key": b"\3" + bytes(range(32))},
    "threshold": {"threshold": 3},
    "committee": {"committee": (*ROW.committee[:2], Seat(seat=301, party_id="carol-server"))},
    "seat": {"seat": 1},
    "protocol": {"protocol": "gg18-v2"},
    "channel": {"channel": "plain"},
    "generation": {"generation": 6},
    "transcript": {"transcript": b"\1" * 32},
    "identities": {"identities": ROW.identities[::-1]},
    "result_digest": {"result_digest": bytes(32)},
    "confirmation": {"confirmation": b"Body"},
}


def test_every_field_of_a_row_is_here() -> None:
    assert OTHERS.keys() == set(ShareRow.__struct_fields__) - {"sealed"}


@pytest.mark.parametrize("field", OTHERS)
def test_every_field_of_a_row_is_under_the_seal(field: str) -> None:
    """Another value, another header."""
    other = msgspec.structs.replace(ROW, **OTHERS[field])
    assert rows.share_header(other) != rows.share_header(ROW)
