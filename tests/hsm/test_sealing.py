"""Sealing and opening on every provider at hand."""

import dataclasses
import secrets
from functools import partial

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsm import NotConforming, SealedBlob, SealHeader, Token
from tests.hsm.soft import HEADER, Memory, SoftToken

SIZES = [1, 31, 12287, 12288, 12289, 20_000, 24576, 24577, 64 * 12288]


def test_what_was_sealed_opens(provider_token: Token, header: SealHeader) -> None:
    for size in SIZES:
        content = secrets.token_bytes(size)
        blob = provider_token.seal(Memory(content), header)
        opened = provider_token.open(blob, header, Memory)
        assert isinstance(opened, Memory)
        assert opened.content == content
        assert len(blob) == size
        assert len(blob.chunks) == -(-size // 12288)


@pytest.mark.parametrize("size", [0, 64 * 12288 + 1])
def test_impossible_sizes_are_refused(token: Token, header: SealHeader, size: int) -> None:
    with pytest.raises(NotConforming, match="cannot be sealed"):
        token.seal(Memory(size), header)


def odd_memory(size: int, _: int) -> Memory:
    return Memory(size)


def test_memory_of_the_wrong_size_is_refused(token: Token, header: SealHeader) -> None:
    blob = token.seal(Memory(b"share"), header)
    for wrong in (4, 6):
        with pytest.raises(ValueError, match="asked for 5 bytes"):
            token.open(blob, header, partial(odd_memory, wrong))


def test_it_opens_in_a_later_process_state(provider_token: Token, header: SealHeader) -> None:
    content = secrets.token_bytes(20_000)
    blob = provider_token.seal(Memory(content), header)
    provider_token.reconnect()
    opened = provider_token.open(blob, header, Memory)
    assert isinstance(opened, Memory)
    assert opened.content == content


def test_resealing_under_a_new_kek(provider_token: Token, header: SealHeader) -> None:
    old = provider_token.seal(Memory(b"share"), header)
    assert provider_token.new_kek_version() == 2
    opened = provider_token.open(old, header, Memory)
    new = provider_token.seal(opened, header)
    assert (old.kek_version, new.kek_version) == (1, 2)
    assert provider_token.status().kek_versions == (1, 2)
    again = provider_token.open(new, header, Memory)
    assert isinstance(again, Memory)
    assert again.content == b"share"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"domain": "shares"}, "no seal domain"),
        ({"party_id": ""}, "required"),
        ({"share_id": ""}, "required"),
        ({"party_id": "x" * 256}, "longer than 255"),
        ({"session_id": ""}, "session_id of a share header"),
        ({"share_type": ""}, "share_type of a share header"),
        ({"public_key": bytes(32)}, "public_key of a share header"),
        ({"public_key": b""}, "public_key of a share header"),
        ({"threshold_t": 1}, "threshold_t of a share header"),
        ({"threshold_t": 4}, "out of range"),
        ({"threshold_n": 2**16}, "out of range"),
        ({"committee_digest": bytes(31)}, "committee_digest of a share header"),
        ({"generation": -1}, "out of range"),
        ({"generation": 2**32}, "out of range"),
        ({"domain": "state", "public_key": bytes(5)}, "public_key of a state header"),
    ],
    ids=str,
)
def test_odd_headers_cannot_be_made(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(HEADER, **change)  # type: ignore[arg-type]  # that is the point


def test_other_domains_need_little(token: Token) -> None:
    header = SealHeader(domain="pre-params", party_id="alice-server", share_id="set-1")
    blob = token.seal(Memory(b"primes"), header)
    opened = token.open(blob, header, Memory)
    assert isinstance(opened, Memory)
    assert opened.content == b"primes"


def test_with_a_recovery_key(soft_token: SoftToken, header: SealHeader) -> None:
    spki = (
        rsa.generate_private_key(65537, 3072).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    with soft_token.open(recovery_key=spki) as token:
        token.create_keys()
        blob = token.seal(Memory(b"share"), header)
        assert blob.recovery_wrapped is not None
        assert len(blob.recovery_wrapped) == 1 + 384
        assert blob.recovery_fingerprint == token.status().recovery_fingerprint
        assert SealedBlob.from_json(blob.to_json()) == blob
        token.reconnect()
        token.open(blob, header, Memory)
        token.seal(Memory(b"share"), header)


@pytest.mark.parametrize("bits", [1024, 2048])
def test_a_short_recovery_key_is_refused(soft_token: SoftToken, bits: int) -> None:
    spki = (
        rsa.generate_private_key(65537, bits).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    with pytest.raises(NotConforming, match="RSA with 3072 to 8192 bits"):
        soft_token.open(recovery_key=spki)
    with pytest.raises(NotConforming, match="SubjectPublicKeyInfo"):
        soft_token.open(recovery_key=b"no key")
