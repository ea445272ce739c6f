"""ECDSA over P-256 by a key in the token, in the one form that everybody here uses: r||s, 64 bytes, low s."""

from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from hsm._direct import ffi, lib
from hsm.errors import check
from hsm.sealing import Bench

DIGEST_BYTES: Final = 32
P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def sign(bench: Bench, key: int, digest: bytes) -> bytes:
    """Sign a digest of 32 bytes with a private key's handle.

    Raises:
        ValueError: Not a digest.
        HsmError: As the token says.
    """
    if len(digest) != DIGEST_BYTES:
        raise ValueError(f"a digest of {DIGEST_BYTES} bytes is signed")
    signature = ffi.new("uint8_t[]", 64)
    check(lib.hsm_sign_p256(bench.module, bench.session, key, digest, signature), "C_Sign")
    raw = bytes(signature)
    s = int.from_bytes(raw[32:])
    # Of s and n - s, which verify alike, the low one: a signature has one form.
    return raw[:32] + min(s, P256_ORDER - s).to_bytes(32)


def verify(public: bytes, digest: bytes, signature: bytes) -> None:
    """Verify against a SEC1 compressed key, outside the token.

    Raises:
        cryptography.exceptions.InvalidSignature: It is not that key's.
    """
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public)
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    key.verify(utils.encode_dss_signature(r, s), digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
