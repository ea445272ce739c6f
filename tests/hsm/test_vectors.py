"""Rows of every format that was ever stored open: through the token, and without any code of ours."""

import json
from pathlib import Path

import pytest

from hsm import SealedBlob, Token
from hsm.sealing import open_blob
from tests.hsm.soft import Memory
from tests.hsm.vectors import CASES, FOLDER, header_from, kek_bench, open_independently

VECTORS = sorted(FOLDER.glob("*.json"))


def test_all_vectors_are_there() -> None:
    assert {path.stem for path in VECTORS} == set(CASES)


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


def test_the_recovery_key_opens_without_the_kek() -> None:
    vector = json.loads((FOLDER / "share-with-recovery.json").read_text(encoding="utf-8"))
    vector["kek"] = None
    assert open_independently(vector, by_recovery_key=True) == bytes.fromhex(vector["plaintext"])
