"""Rows of every format that was ever stored open: through the token, and without any code of ours."""

import base64
import json
from pathlib import Path

import pytest

from hsm import SealedBlob, Token
from hsm.blob import IV_BYTES
from hsm.profiles import Oaep
from hsm.sealing import open_blob
from tests.hsm.soft import Memory
from tests.hsm.vectors import BY_THE_BOOK, CASES, FOLDER, header_from, kek_bench, open_independently

VECTORS = sorted(FOLDER.glob("*.json"))


def test_all_vectors_are_there() -> None:
    assert {path.stem for path in VECTORS} == set(CASES) | set(BY_THE_BOOK)


def test_they_have_every_form_that_a_row_can_have() -> None:
    rows = [json.loads(path.read_text(encoding="utf-8"))["share_data"] for path in VECTORS]
    assert {len(base64.b64decode(chunk["iv"])) for row in rows for chunk in row["chunks"]} == set(IV_BYTES)
    wrapped = {row["wrappedKeys"].get("recovery") for row in rows}
    assert {base64.b64decode(recovery)[0] if recovery else 0 for recovery in wrapped} == {
        0,
        *(each.mgf for each in Oaep),
    }


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_it_opens_through_the_token(token: Token, path: Path) -> None:
    vector = json.loads(path.read_text(encoding="utf-8"))
    blob = SealedBlob.from_json(vector["share_data"])
    assert blob.to_json() == vector["share_data"]
    with token._connected().bench() as (bench, _):
        opened = open_blob(kek_bench(bench), blob, header_from(vector), Memory)
    assert isinstance(opened, Memory)
    assert opened.content == bytes.fromhex(vector["plaintext"])


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_it_opens_by_the_written_format_alone(path: Path) -> None:
    vector = json.loads(path.read_text(encoding="utf-8"))
    assert open_independently(vector) == bytes.fromhex(vector["plaintext"])


@pytest.mark.parametrize("name", ["share-with-recovery", "recovery-oaep-sha256"])
def test_the_recovery_key_opens_without_the_kek(name: str) -> None:
    vector = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    vector["kek"] = None
    assert open_independently(vector, by_recovery_key=True) == bytes.fromhex(vector["plaintext"])
