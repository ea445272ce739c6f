import dataclasses
import secrets

import pytest

from hsm import DataAltered, SealedBlob, SealHeader, Token
from tests.hsm.soft import Memory


@pytest.mark.parametrize("size", [1, 31, 12287, 12288, 12289, 20_000, 24576, 24577, 64 * 12288])
def test_what_was_sealed_opens(token: Token, header: SealHeader, size: int) -> None:
    content = secrets.token_bytes(size)
    blob = token.seal(Memory(content), header)
    opened = token.open(blob, header, Memory)
    assert isinstance(opened, Memory)
    assert opened.content == content
    assert SealedBlob.from_json(blob.to_json()) == blob


def test_a_share_opens_under_its_own_header_only(token: Token, header: SealHeader) -> None:
    blob = token.seal(Memory(b"share"), header)
    for changed in (
        dataclasses.replace(header, party_id="mallory-server"),
        dataclasses.replace(header, generation=1),
    ):
        with pytest.raises(DataAltered):
            token.open(blob, changed, Memory)
