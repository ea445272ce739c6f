"""Stored shares as vectors: how they are recorded, and how they open without any of our own code.

``python -m tests.hsm.vectors`` writes tests/vectors/shares/v1 anew. A new format gets a folder of its own, recorded
there alone: old rows must open for ever.
"""

import base64
import dataclasses
import hashlib
import json
import os
import struct
import tempfile
from pathlib import Path
from typing import Any, Final, cast

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
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


def open_independently(vector: dict[str, Any], *, by_recovery_key: bool = False) -> bytes:
    """From docs/sealing.md alone, with `cryptography`: none of hsm's code."""
    header, row = vector["header"], vector["share_data"]

    def prefixed(raw: bytes) -> bytes:
        return struct.pack(">H", len(raw)) + raw

    def number(value: int) -> bytes:
        return struct.pack(">I", value)

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
    aad = b"".join(map(prefixed, fields))
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
        trailer = number(i) + number(len(chunks)) + bytes([i + 1 == len(chunks)])
        opened += AESGCM(key).decrypt(base64.b64decode(chunk["iv"]), sealed, aad + trailer)
    return opened


def header_from(vector: dict[str, Any]) -> SealHeader:
    fields = dict(vector["header"])
    for name in ("public_key", "committee_digest"):
        fields[name] = bytes.fromhex(fields[name])
    return SealHeader(**fields)


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
                content = plaintext(name, size)
                fingerprint = hashlib.sha256(spki).digest() if recovery else None
                ours = kek_bench(bench, spki if recovery else None)
                blob = seal(ours, Memory(content), header, fingerprint)
                fields = dataclasses.asdict(header)
                fields |= {key: value.hex() for key, value in fields.items() if isinstance(value, bytes)}
                vector = {
                    "name": name,
                    "header": fields,
                    "kek": KEK.hex(),
                    "recovery_private_key": pem if recovery else None,
                    "plaintext": content.hex(),
                    "share_data": blob.to_json(),
                }
                text = json.dumps(vector, indent=1, ensure_ascii=False) + "\n"
                (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
