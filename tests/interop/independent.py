"""Signatures checked by code that neither side of a test shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from tests.interop import gg18

if TYPE_CHECKING:
    from collections.abc import Mapping


def public_key(save: Mapping[str, Any]) -> bytes:
    """The compressed key of a LocalPartySaveData."""
    x, y = save["ECDSAPub"]["Coords"]
    return bytes([2 | y & 1]) + int(x).to_bytes(32)


def verify(key: Mapping[str, Any] | bytes, digest: bytes, rs: bytes, recovery_id: int) -> None:
    """Check a signature, its low s and its recovery id against a key: SEC1 bytes, or a LocalPartySaveData.

    Raises:
        cryptography.exceptions.InvalidSignature: It is not one of this digest under this key.
    """
    sec1 = key if isinstance(key, bytes) else public_key(key)
    r, s = int.from_bytes(rs[:32]), int.from_bytes(rs[32:])
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), sec1)
    public.verify(utils.encode_dss_signature(r, s), digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    numbers = public.public_numbers()
    assert gg18.recover(int.from_bytes(digest), rs, recovery_id) == (numbers.x, numbers.y)
