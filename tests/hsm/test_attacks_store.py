"""What somebody finds who has the store."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest

from hsm import DataAltered, SealedBlob, SealHeader, Token
from tests.hsm.soft import HEADER, Memory, SoftToken, make_token

SIZE = 40_000


@pytest.fixture
def token(provider_token: Token) -> Token:
    return provider_token


@pytest.fixture
def blob(token: Token) -> SealedBlob:
    return token.seal(Memory(bytes(SIZE)), HEADER)


def refused(token: Token, blob: SealedBlob, header: SealHeader = HEADER) -> None:
    memory = Memory(b"\xff" * len(blob))
    with pytest.raises(DataAltered):
        token.open(blob, header, lambda _: memory)
    assert memory.content in (bytes(len(blob)), b"\xff" * len(blob))  # nothing of the share


@pytest.mark.parametrize(
    "change",
    [
        {"party_id": "alice-phone"},
        {"share_id": "7f8c1f6e-6d1c-4b8e-8a3e-0d6f2b1c9a56"},
        {"session_id": "0b8d3c2a-5f1e-4c7d-9b6a-1e2f3a4b5c6e"},
        {"share_type": "recovery"},
        {"public_key": b"\x03" + HEADER.public_key[1:]},
        {"threshold_t": 3},
        {"threshold_n": 4},
        {"committee_digest": bytes(32)},
        {"generation": 1},
        {"domain": "state"},
        {"domain": "pre-params"},
        # The boundary between two fields, moved.
        {"party_id": "alice-server7", "share_id": HEADER.share_id[1:]},
    ],
    ids=str,
)
def test_a_relabelled_row_is_refused(token: Token, blob: SealedBlob, change: dict[str, Any]) -> None:
    refused(token, blob, dataclasses.replace(HEADER, **change))


def flip(raw: bytes, bit: int) -> bytes:
    return (int.from_bytes(raw) ^ 1 << bit).to_bytes(len(raw))


def with_chunk(blob: SealedBlob, index: int, **change: Any) -> SealedBlob:  # noqa: ANN401  (any field)
    chunks = list(blob.chunks)
    chunks[index] = dataclasses.replace(chunks[index], **change)
    return dataclasses.replace(blob, chunks=tuple(chunks))


@pytest.mark.parametrize("index", range(4))
def test_a_changed_chunk_is_refused(token: Token, blob: SealedBlob, index: int) -> None:
    chunk = blob.chunks[index]
    for bit in (0, 7, 8 * len(chunk.data) - 1):
        refused(token, with_chunk(blob, index, data=flip(chunk.data, bit)))
    for bit in range(0, 128, 13):
        refused(token, with_chunk(blob, index, auth_tag=flip(chunk.auth_tag, bit)))
    for bit in range(3, 96, 11):
        refused(token, with_chunk(blob, index, iv=flip(chunk.iv, bit)))


def test_a_changed_wrapped_key_is_refused(token: Token, blob: SealedBlob) -> None:
    for bit in range(0, 320, 7):
        refused(token, dataclasses.replace(blob, wrapped_key=flip(blob.wrapped_key, bit)))


def test_reordered_and_dropped_and_repeated_chunks_are_refused(token: Token, blob: SealedBlob) -> None:
    *body, last = blob.chunks
    for order in itertools.permutations(body):
        if order != tuple(body):
            refused(token, dataclasses.replace(blob, chunks=(*order, last)))
    for kept in (blob.chunks[:-1], blob.chunks[:1], blob.chunks[1:], (last,), (*body[:2], last)):
        refused(token, dataclasses.replace(blob, chunks=kept))
    with pytest.raises(DataAltered, match="same iv"):
        dataclasses.replace(blob, chunks=(body[0], body[0], *body[1:], last))


def test_a_cut_last_chunk_is_refused(token: Token, blob: SealedBlob) -> None:
    last = blob.chunks[-1]
    refused(token, with_chunk(blob, 3, data=last.data[:-1]))
    refused(token, with_chunk(blob, 3, data=last.data + b"\0"))


def test_parts_of_two_rows_do_not_combine(token: Token, blob: SealedBlob) -> None:
    other = token.seal(Memory(bytes(SIZE)), HEADER)
    refused(token, dataclasses.replace(blob, wrapped_key=other.wrapped_key))
    refused(token, dataclasses.replace(blob, chunks=other.chunks))
    refused(token, dataclasses.replace(blob, chunks=(blob.chunks[0], *other.chunks[1:])))


def test_an_older_generation_does_not_open_as_the_newer(token: Token, blob: SealedBlob) -> None:
    newer = dataclasses.replace(HEADER, generation=1)
    token.seal(Memory(bytes(SIZE)), newer)
    refused(token, blob, newer)


def test_a_row_moved_to_another_kek_version_is_refused(token: Token, blob: SealedBlob) -> None:
    token.new_kek_version()
    refused(token, dataclasses.replace(blob, kek_version=2))
    with pytest.raises(DataAltered, match="KEK version 7 is not on the token"):
        token.open(dataclasses.replace(blob, kek_version=7), HEADER, Memory)
    token.probe()


def test_a_recovery_key_put_on_or_off_is_refused(token: Token, blob: SealedBlob) -> None:
    refused(token, dataclasses.replace(blob, recovery_wrapped=bytes(385), recovery_fingerprint=bytes(32)))


def test_another_token_with_the_same_names_opens_nothing(
    soft_token: SoftToken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own KEK of the same version and label: the row is untouched, and the token is well."""
    with soft_token.open() as token:
        token.create_keys()
        blob = token.seal(Memory(bytes(SIZE)), HEADER)
    other = make_token(tmp_path / "other", soft_token.label)
    monkeypatch.setenv("SOFTHSM2_CONF", str(other.conf))
    with other.open() as token:
        token.create_keys()
        assert blob.kek_version == token.status().current_kek
        refused(token, blob)
        token.probe()
        token.open(token.seal(Memory(b"share"), HEADER), HEADER, Memory)
    monkeypatch.setenv("SOFTHSM2_CONF", str(soft_token.conf))
    with soft_token.open() as token:
        token.open(blob, HEADER, Memory)


def test_no_two_chunks_share_key_and_iv(token: Token) -> None:
    used = set()
    for _ in range(100):
        blob = token.seal(Memory(bytes(SIZE)), HEADER)
        used |= {(blob.wrapped_key, chunk.iv) for chunk in blob.chunks}
    assert len(used) == 100 * 4
    assert len({key for key, _ in used}) == 100


def test_equal_plaintexts_look_unlike(token: Token) -> None:
    first, second = (token.seal(Memory(bytes(SIZE)), HEADER) for _ in range(2))
    assert not {c.data for c in first.chunks} & {c.data for c in second.chunks}
    assert len({c.data for c in first.chunks}) == 4
