"""A row is read strictly: what is wrong with it is named."""

import base64
import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from hsm import Chunk, DataAltered, SealedBlob
from hsm.blob import associated_data
from tests.hsm.soft import HEADER

BLOB = SealedBlob(
    format=1,
    tier="A",
    kek_version=3,
    wrapped_key=bytes(range(40)),
    recovery_wrapped=b"\x01" + bytes(384),
    recovery_fingerprint=bytes(range(32)),
    chunks=(Chunk(bytes(12288), bytes(12), bytes(16)), Chunk(b"end", bytes(11) + b"\1", bytes(16))),
)

Row = dict[str, Any]


def test_a_row_reads_back_as_it_was_written() -> None:
    text = json.dumps(BLOB.to_json())
    assert SealedBlob.from_json(json.loads(text)) == BLOB
    assert json.dumps(SealedBlob.from_json(json.loads(text)).to_json()) == text


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def put(path: str, value: object) -> Callable[[Row], None]:
    *way, last = path.split(".")

    def change(row: Row) -> None:
        inner: Any = row
        for step in way:
            inner = inner[int(step) if step.isdigit() else step]
        inner[last] = value

    return change


def drop(path: str) -> Callable[[Row], None]:
    *way, last = path.split(".")

    def change(row: Row) -> None:
        inner: Any = row
        for step in way:
            inner = inner[int(step) if step.isdigit() else step]
        del inner[last]

    return change


CHANGES: list[tuple[Callable[[Row], None], str]] = [
    (put("extra", 1), "share_data has an unknown field 'extra'"),
    (put("wrappedKeys.extra", 1), "wrappedKeys has an unknown field 'extra'"),
    (put("chunks.0.extra", 1), r"chunks\[0\] has an unknown field 'extra'"),
    *((drop(name), f"share_data lacks '{name}'") for name in ("format", "tier", "kek", "wrappedKeys", "chunks")),
    (drop("wrappedKeys.kek"), "wrappedKeys lacks 'kek'"),
    *((drop(f"chunks.1.{name}"), rf"chunks\[1\] lacks '{name}'") for name in ("data", "iv", "authTag")),
    (put("format", "1"), "share_data.format is not of type int"),
    (put("format", value=True), "share_data.format is not of type int"),
    (put("kek", 1.0), "share_data.kek is not of type int"),
    (put("chunks", {}), "share_data.chunks is not of type list"),
    (put("wrappedKeys", []), "share_data.wrappedKeys is not of type dict"),
    (put("chunks", [1]), r"chunks\[0\] is not an object"),
    (put("format", 2), "format 2 is newer than this program knows"),
    (put("format", 0), "format 0 is unknown"),
    (put("tier", "B"), "tier 'B' is unknown"),
    (put("kek", 0), "kek is out of range"),
    (put("kek", 2**32), "kek is out of range"),
    (put("wrappedKeys.kek", b64(bytes(39))), "not 40 bytes"),
    (put("wrappedKeys.kek", b64(bytes(48))), "not 40 bytes"),
    (put("wrappedKeys.kek", "@@@@"), "wrappedKeys.kek is not base64"),
    (put("wrappedKeys.kek", b64(bytes(40))[:-2]), "wrappedKeys.kek is not base64"),
    (put("chunks.1.data", "ZW5\n"), r"chunks\[1\].data is not base64"),
    (put("chunks.1.data", "ZW5kZR=="), r"chunks\[1\].data is not canonical base64"),
    (put("chunks.0.data", b64(bytes(12287))), "a chunk before the last is not full"),
    (put("chunks.1.data", ""), "the last chunk has an odd size"),
    (put("chunks.1.data", b64(bytes(12289))), "the last chunk has an odd size"),
    (put("chunks.0.iv", b64(bytes(11))), "odd iv size"),
    (put("chunks.0.iv", b64(bytes(13))), "odd iv size"),
    (put("chunks.0.iv", b64(bytes(11) + b"\1")), "two chunks have the same iv"),
    (put("chunks.0.authTag", b64(bytes(15))), "odd authTag size"),
    (put("chunks", []), "0 chunks"),
    (drop("wrappedKeys.recovery"), "half a recovery key"),
    (drop("wrappedKeys.recoveryFingerprint"), "half a recovery key"),
    (put("wrappedKeys.recoveryFingerprint", "xyz"), "recoveryFingerprint is not hex"),
    (put("wrappedKeys.recoveryFingerprint", "00"), "odd recovery fingerprint size"),
    (put("wrappedKeys.recovery", b64(bytes(256))), "odd recovery key size"),
]


@pytest.mark.parametrize(("change", "said"), CHANGES, ids=[said for _, said in CHANGES])
def test_an_odd_row_is_refused_by_name(change: Callable[[Row], None], said: str) -> None:
    row = copy.deepcopy(BLOB.to_json())
    change(row)
    with pytest.raises(DataAltered, match=said):
        SealedBlob.from_json(row)


def test_a_newer_format_with_other_fields_is_called_newer() -> None:
    with pytest.raises(DataAltered, match="format 7 is newer"):
        SealedBlob.from_json({"format": 7, "whatever": []})


@pytest.mark.parametrize("row", [None, [], "text", 3, {}])
def test_what_is_no_row_is_refused(row: object) -> None:
    with pytest.raises(DataAltered):
        SealedBlob.from_json(row)


def test_too_many_chunks_are_refused() -> None:
    chunk = BLOB.to_json()["chunks"][0]
    row = BLOB.to_json() | {"chunks": [chunk | {"iv": b64(i.to_bytes(12))} for i in range(65)]}
    with pytest.raises(DataAltered, match="65 chunks"):
        SealedBlob.from_json(row)


def test_the_associated_data_byte_by_byte() -> None:
    """Written out once by hand, from the table in docs/sealing.md."""
    said = associated_data(
        HEADER, kek_version=3, wrapped_key=b"w" * 40, recovery_wrapped=None, recovery_fingerprint=None
    )
    expected = (
        "0009 747373642f7365616c"
        "0004 00000001"
        "0001 41"
        "0005 7368617265"
        "000c 616c6963652d736572766572"
        "0024 37663863316636652d366431632d346238652d386133652d306436663262316339613535"
        "0024 30623864336332612d356631652d346337642d396236612d316532663361346235633664"
        "0006 77616c6c6574"
        "0021 02000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
        "0004 00000002"
        "0004 00000003"
        "0020 202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"
        "0004 00000000"
        "0004 00000003"
        # sha256(0028 || 40 times "w" || 0000)
        "0020 2543631c84c5b2f3a2a6a39b71ff637ad54fed127624cffe5dea4cb734d73c6d"
        "0000"
    )
    assert said == bytes.fromhex(expected)
