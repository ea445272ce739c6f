"""Stored shares as vectors: how they are recorded, and how they open without any of our own code.

``python -m tests.hsm.vectors`` records in tests/vectors/shares/v1 what is not there yet: old rows must open for ever. A
new format gets a folder of its own. What SoftHSM can make is made by it; what only other tokens make, IVs of 16 bytes
and OAEP with SHA-256, is made by the book.
"""

import base64
import dataclasses
import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap, aes_key_wrap
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
)

from hsm import SealHeader
from hsm.keys import CKA, KeyRing, Objects, kek_table, recovery_table
from hsm.profiles import PROFILES
from hsm.sealing import Bench, seal
from tests.hsm.soft import HEADER, Memory, make_token

FOLDER: Final = Path(__file__).parents[1] / "vectors/shares/v1"
KEK: Final = hashlib.sha256(b"tssd test vector KEK").digest()
KEK_VERSION: Final = 5
CASES: Final = {
    "one-byte": (HEADER, 1, False),
    "one-full-chunk": (dataclasses.replace(HEADER, share_type="admin"), 12288, False),
    "share-20k": (dataclasses.replace(HEADER, generation=3, threshold_t=3, threshold_n=5), 20_000, False),
    "share-with-recovery": (dataclasses.replace(HEADER, share_type="recovery"), 500, True),
    "pre-params": (SealHeader(domain="pre-params", party_id="alice-server", share_id="set-1"), 1600, False),
    "utf8-ids": (dataclasses.replace(HEADER, party_id="ålice-server"), 33, False),
}

BY_THE_BOOK: Final = {
    "iv-16": (dataclasses.replace(HEADER, generation=1), 20_000, False),
    "recovery-oaep-sha256": (dataclasses.replace(HEADER, share_type="recovery", generation=2), 12_289, True),
}
"""As a Luna in FIPS mode makes its IVs, and as every token but SoftHSM wraps for the recovery key."""
IV_BYTES: Final = {"iv-16": 16}


def plaintext(name: str, size: int) -> bytes:
    """The same bytes each time: SHAKE-256 of the case's name."""
    return hashlib.shake_256(name.encode()).digest(size)


def kek_bench(bench: Bench, recovery: bytes | None = None) -> Bench:
    """A bench whose only KEK is the vectors' own, brought to the token as a session key."""
    objects = Objects(bench.module, bench.session)
    table = {**kek_table(PROFILES["softhsm"], "vector", KEK_VERSION), CKA.TOKEN: False, CKA.VALUE: KEK}
    del table[CKA.VALUE_LEN]
    recovery_key = objects.create(recovery_table(recovery)) if recovery else 0
    keys = KeyRing(keks={KEK_VERSION: objects.create(table)}, recovery=recovery_key)
    return dataclasses.replace(bench, keys=keys)


def number(value: int) -> bytes:
    return struct.pack(">I", value)


def associated(header: dict[str, Any], row: dict[str, Any]) -> bytes:
    """docs/sealing.md, "Associated data", without what each chunk adds."""

    def prefixed(raw: bytes) -> bytes:
        return struct.pack(">H", len(raw)) + raw

    wrapped = base64.b64decode(row["wrappedKeys"]["kek"])
    recovery = base64.b64decode(row["wrappedKeys"].get("recovery", ""))
    fingerprint = bytes.fromhex(row["wrappedKeys"].get("recoveryFingerprint", ""))
    fields = [
        b"tssd/seal",
        number(row["format"]),
        row["tier"].encode(),
        header["domain"].encode(),
        header["party_id"].encode(),
        header["share_id"].encode(),
        header["session_id"].encode(),
        header["share_type"].encode(),
        bytes.fromhex(header["public_key"]),
        number(header["threshold_t"]),
        number(header["threshold_n"]),
        bytes.fromhex(header["committee_digest"]),
        number(header["generation"]),
        number(row["kek"]),
        hashlib.sha256(prefixed(wrapped) + prefixed(recovery)).digest(),
        fingerprint,
    ]
    return b"".join(map(prefixed, fields))


def trailer(index: int, count: int) -> bytes:
    return number(index) + number(count) + bytes([index + 1 == count])


def open_independently(vector: dict[str, Any], *, by_recovery_key: bool = False) -> bytes:
    """From docs/sealing.md alone, with `cryptography`: none of hsm's code."""
    row = vector["share_data"]
    wrapped = base64.b64decode(row["wrappedKeys"]["kek"])
    recovery = base64.b64decode(row["wrappedKeys"].get("recovery", ""))
    aad = associated(vector["header"], row)
    if by_recovery_key:
        private = cast("rsa.RSAPrivateKey", load_pem_private_key(vector["recovery_private_key"].encode(), None))
        digest = {1: hashes.SHA1, 2: hashes.SHA256}[recovery[0]]()
        oaep = padding.OAEP(padding.MGF1(digest), digest, None)
        key = private.decrypt(recovery[1:], oaep)
    else:
        key = aes_key_unwrap(bytes.fromhex(vector["kek"]), wrapped)
    chunks = row["chunks"]
    opened = b""
    for i, chunk in enumerate(chunks):
        sealed = base64.b64decode(chunk["data"]) + base64.b64decode(chunk["authTag"])
        opened += AESGCM(key).decrypt(base64.b64decode(chunk["iv"]), sealed, aad + trailer(i, len(chunks)))
    return opened


def seal_independently(content: bytes, header: dict[str, Any], spki: bytes | None, iv_bytes: int) -> dict[str, Any]:
    """Likewise, the other way round: the `share_data` of a row."""
    key = AESGCM.generate_key(256)
    keys = {"kek": b64(aes_key_wrap(KEK, key))}
    if spki is not None:
        public = cast("rsa.RSAPublicKey", load_der_public_key(spki))
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
        keys["recovery"] = b64(b"\2" + public.encrypt(key, oaep))
        keys["recoveryFingerprint"] = hashlib.sha256(spki).hexdigest()
    row: dict[str, Any] = {"format": 1, "tier": "A", "kek": KEK_VERSION, "wrappedKeys": keys, "chunks": []}
    aad = associated(header, row)
    parts = [content[start : start + 12288] for start in range(0, len(content), 12288)]
    for i, part in enumerate(parts):
        iv = os.urandom(iv_bytes)
        sealed = AESGCM(key).encrypt(iv, part, aad + trailer(i, len(parts)))
        row["chunks"].append({"data": b64(sealed[:-16]), "iv": b64(iv), "authTag": b64(sealed[-16:])})
    return row


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def header_from(vector: dict[str, Any]) -> SealHeader:
    fields = dict(vector["header"])
    for name in ("public_key", "committee_digest"):
        fields[name] = bytes.fromhex(fields[name])
    return SealHeader(**fields)


def record(name: str, header: SealHeader, size: int, pem: str | None, seal_it: Callable[..., dict[str, Any]]) -> None:
    """Write a vector, unless it is there."""
    path = FOLDER / f"{name}.json"
    if path.exists():
        return
    content = plaintext(name, size)
    fields = dataclasses.asdict(header)
    fields |= {key: value.hex() for key, value in fields.items() if isinstance(value, bytes)}
    vector = {
        "name": name,
        "header": fields,
        "kek": KEK.hex(),
        "recovery_private_key": pem,
        "plaintext": content.hex(),
        "share_data": seal_it(content, fields),
    }
    path.write_text(json.dumps(vector, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """Record."""
    private = rsa.generate_private_key(65537, 3072)
    spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with tempfile.TemporaryDirectory() as folder:
        made = make_token(Path(folder) / "token")
        os.environ["SOFTHSM2_CONF"] = str(made.conf)
        with made.open() as token, token._connected().bench() as (bench, _):
            for name, (header, size, recovery) in CASES.items():
                fingerprint = hashlib.sha256(spki).digest() if recovery else None
                ours = kek_bench(bench, spki if recovery else None)

                def in_token(
                    content: bytes,
                    _: object,
                    header: SealHeader = header,
                    ours: Bench = ours,
                    fingerprint: bytes | None = fingerprint,
                ) -> dict[str, Any]:
                    return seal(ours, Memory(content), header, fingerprint).to_json()

                record(name, header, size, pem if recovery else None, in_token)
    for name, (header, size, recovery) in BY_THE_BOOK.items():
        by_the_book = partial(seal_independently, spki=spki if recovery else None, iv_bytes=IV_BYTES.get(name, 12))
        record(name, header, size, pem if recovery else None, by_the_book)


if __name__ == "__main__":
    main()
