"""What is stored of a sealed share, and what it is bound to: docs/sealing.md, byte by byte."""

import base64
import binascii
import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, Literal, Self, get_args

from hsm.errors import DataAltered

FORMAT: Final = 1
TIER: Final = "A"

CHUNK_BYTES: Final = 12288
"""Plaintext of every chunk but the last: CloudHSM refuses GCM over more than 16,224 bytes."""
CHUNKS_MAX: Final = 64
WRAPPED_KEY_BYTES: Final = 40
TAG_BYTES: Final = 16
IV_BYTES: Final = (12, 16)
DIGEST_BYTES: Final = 32
POINT_BYTES: Final = 33
THRESHOLD_MIN: Final = 2
TEXT_MAX: Final = 255
RECOVERY_BYTES: Final = range(1 + 3072 // 8, 1 + 8192 // 8 + 1)

Domain = Literal["share", "pre-params", "state", "canary"]
DOMAINS: Final = frozenset(get_args(Domain))


@dataclass(frozen=True, kw_only=True)
class SealHeader:
    """What a sealed blob belongs to. It opens under the same header and no other.

    For domains other than `share` the fields that mean nothing stay at their defaults.

    Attributes:
        domain: What is sealed; nothing opens as something else.
        party_id, share_id, session_id, share_type: At most 255 bytes of UTF-8 each.
        public_key: The group key, SEC1 compressed, 33 bytes; empty outside `share`.
        threshold_t, threshold_n: 2 <= t <= n for a share, 0 otherwise.
        committee_digest: 32 bytes; empty outside `share`.
        generation: 0 at keygen, one more with each rotation; below 2**32.
    """

    domain: Domain
    party_id: str
    share_id: str
    session_id: str = ""
    share_type: str = ""
    public_key: bytes = b""
    threshold_t: int = 0
    threshold_n: int = 0
    committee_digest: bytes = b""
    generation: int = 0

    def __post_init__(self) -> None:
        if self.domain not in DOMAINS:
            raise ValueError(f"no seal domain {self.domain!r}")
        for name, text in (
            ("party_id", self.party_id),
            ("share_id", self.share_id),
            ("session_id", self.session_id),
            ("share_type", self.share_type),
        ):
            if len(text.encode()) > TEXT_MAX:
                raise ValueError(f"{name} is longer than {TEXT_MAX} bytes")
        if not self.party_id or not self.share_id:
            raise ValueError("party_id and share_id are required")
        if not 0 <= self.generation < 2**32 or not 0 <= self.threshold_t <= self.threshold_n < 2**16:
            raise ValueError("generation or threshold out of range")
        share = self.domain == "share"
        for name, given, whole in (
            ("session_id", self.session_id, bool(self.session_id)),
            ("share_type", self.share_type, bool(self.share_type)),
            ("public_key", self.public_key, len(self.public_key) == POINT_BYTES),
            ("threshold_t", self.threshold_t, self.threshold_t >= THRESHOLD_MIN),
            ("committee_digest", self.committee_digest, len(self.committee_digest) == DIGEST_BYTES),
        ):
            if not whole and (share or given):
                raise ValueError(f"{name} of a {self.domain} header is missing or has an odd size")


@dataclass(frozen=True)
class Chunk:
    """One GCM ciphertext."""

    data: bytes
    iv: bytes
    auth_tag: bytes


@dataclass(frozen=True, kw_only=True)
class SealedBlob:
    """What is stored of a sealed share.

    Attributes:
        wrapped_key: The share key under the KEK, RFC 3394, 40 bytes.
        recovery_wrapped: One byte for the OAEP hash (1: SHA-1, 2: SHA-256; MGF1 with the same), then the share key
            under the recovery key. None without one.
        recovery_fingerprint: SHA-256 of the recovery key's DER SubjectPublicKeyInfo, 32 bytes. None without one.
        chunks: In order; all but the last hold 12,288 bytes.
    """

    format: int
    tier: str
    kek_version: int
    wrapped_key: bytes
    recovery_wrapped: bytes | None
    recovery_fingerprint: bytes | None
    chunks: tuple[Chunk, ...]

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            newer = "newer than this program knows; update it" if self.format > FORMAT else "unknown"
            raise DataAltered(f"format {self.format} is {newer}")
        for problem in chain(self._key_problems(), self._chunk_problems()):
            raise DataAltered(f"sealed blob: {problem}")

    def _key_problems(self) -> Iterator[str]:
        if self.tier != TIER:
            yield f"tier {self.tier!r} is unknown"
        if not 0 < self.kek_version < 2**32:
            yield "kek is out of range"
        if len(self.wrapped_key) != WRAPPED_KEY_BYTES:
            yield "the wrapped key is not 40 bytes long"
        if (self.recovery_wrapped is None) != (self.recovery_fingerprint is None):
            yield "half a recovery key"
        if self.recovery_wrapped is not None and len(self.recovery_wrapped) not in RECOVERY_BYTES:
            yield "odd recovery key size"
        if self.recovery_fingerprint is not None and len(self.recovery_fingerprint) != DIGEST_BYTES:
            yield "odd recovery fingerprint size"

    def _chunk_problems(self) -> Iterator[str]:
        if not 0 < len(self.chunks) <= CHUNKS_MAX:
            yield f"{len(self.chunks)} chunks; 1 to {CHUNKS_MAX} are possible"
            return
        *full, last = (len(chunk.data) for chunk in self.chunks)
        if any(length != CHUNK_BYTES for length in full):
            yield "a chunk before the last is not full"
        if not 0 < last <= CHUNK_BYTES:
            yield "the last chunk has an odd size"
        if any(len(chunk.iv) not in IV_BYTES for chunk in self.chunks):
            yield "odd iv size"
        if any(len(chunk.auth_tag) != TAG_BYTES for chunk in self.chunks):
            yield "odd authTag size"
        if len({chunk.iv for chunk in self.chunks}) != len(self.chunks):
            yield "two chunks have the same iv"

    def __len__(self) -> int:
        """Bytes of plaintext."""
        return sum(len(chunk.data) for chunk in self.chunks)

    def to_json(self) -> dict[str, Any]:
        """The `share_data` of a row."""
        keys: dict[str, Any] = {"kek": _b64(self.wrapped_key)}
        if self.recovery_wrapped is not None and self.recovery_fingerprint is not None:
            keys["recovery"] = _b64(self.recovery_wrapped)
            keys["recoveryFingerprint"] = self.recovery_fingerprint.hex()
        return {
            "format": self.format,
            "tier": self.tier,
            "kek": self.kek_version,
            "wrappedKeys": keys,
            "chunks": [{"data": _b64(c.data), "iv": _b64(c.iv), "authTag": _b64(c.auth_tag)} for c in self.chunks],
        }

    @classmethod
    def from_json(cls, row: object) -> Self:
        """Read a row's `share_data`, strictly.

        Raises:
            DataAltered: A field is missing, unknown, of the wrong type or of an impossible size; it is named.
        """
        if isinstance(row, dict) and isinstance(row.get("format"), int) and row["format"] > FORMAT:
            # Before its fields are judged: a newer format may well have others.
            raise DataAltered(f"format {row['format']} is newer than this program knows; update it")
        top = _fields(row, "share_data", {"format": int, "tier": str, "kek": int, "wrappedKeys": dict, "chunks": list})
        keys = _fields(
            top["wrappedKeys"], "wrappedKeys", {"kek": str}, optional={"recovery": str, "recoveryFingerprint": str}
        )
        chunks = [
            _fields(chunk, f"chunks[{i}]", {"data": str, "iv": str, "authTag": str})
            for i, chunk in enumerate(top["chunks"])
        ]
        recovery, fingerprint = keys.get("recovery"), keys.get("recoveryFingerprint")
        try:
            recovery_fingerprint = None if fingerprint is None else bytes.fromhex(fingerprint)
        except ValueError:
            raise DataAltered("wrappedKeys.recoveryFingerprint is not hex") from None
        return cls(
            format=top["format"],
            tier=top["tier"],
            kek_version=top["kek"],
            wrapped_key=_unb64(keys["kek"], "wrappedKeys.kek"),
            recovery_wrapped=None if recovery is None else _unb64(recovery, "wrappedKeys.recovery"),
            recovery_fingerprint=recovery_fingerprint,
            chunks=tuple(
                Chunk(
                    data=_unb64(chunk["data"], f"chunks[{i}].data"),
                    iv=_unb64(chunk["iv"], f"chunks[{i}].iv"),
                    auth_tag=_unb64(chunk["authTag"], f"chunks[{i}].authTag"),
                )
                for i, chunk in enumerate(chunks)
            ),
        )


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _unb64(text: str, where: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise DataAltered(f"{where} is not base64") from None
    if _b64(raw) != text:
        raise DataAltered(f"{where} is not canonical base64")  # one blob, one text
    return raw


def _fields(
    value: object, where: str, required: dict[str, type], optional: dict[str, type] | None = None
) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataAltered(f"{where} is not an object")
    known = required | (optional or {})
    for name in value:
        if name not in known:
            raise DataAltered(f"{where} has an unknown field {name!r}")
    for name, kind in known.items():
        if name not in value:
            if name in required:
                raise DataAltered(f"{where} lacks {name!r}")
        elif type(value[name]) is not kind:
            raise DataAltered(f"{where}.{name} is not of type {kind.__name__}")
    return value


def associated_data(
    header: SealHeader,
    *,
    kek_version: int,
    wrapped_key: bytes,
    recovery_wrapped: bytes | None,
    recovery_fingerprint: bytes | None,
) -> bytes:
    """What every chunk is bound to, without its trailer: docs/sealing.md, "Associated data".

    Each field is preceded by its length in two bytes, numbers are four bytes, all big-endian.
    """
    fields = (
        b"tssd/seal",
        struct.pack(">I", FORMAT),
        TIER.encode(),
        header.domain.encode(),
        header.party_id.encode(),
        header.share_id.encode(),
        header.session_id.encode(),
        header.share_type.encode(),
        header.public_key,
        struct.pack(">I", header.threshold_t),
        struct.pack(">I", header.threshold_n),
        header.committee_digest,
        struct.pack(">I", header.generation),
        struct.pack(">I", kek_version),
        hashlib.sha256(_prefixed(wrapped_key) + _prefixed(recovery_wrapped or b"")).digest(),
        recovery_fingerprint or b"",
    )
    return b"".join(map(_prefixed, fields))


def _prefixed(raw: bytes) -> bytes:
    return len(raw).to_bytes(2) + raw
