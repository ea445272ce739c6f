"""Tier A: a share sealed under a key that only ever exists inside the HSM.

Each sealing has a share key of its own, made in the token, wrapped there at once under the KEK (and the recovery key), used
for AES-256-GCM over chunks of at most 12 KiB, and destroyed. Every chunk is bound to the whole header, to the wrapped keys
and to its place; docs/sealing.md has the row format and the table of associated data, byte by byte.
"""

import base64
import binascii
import hashlib
import secrets
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, Self, get_args

from hsm._direct import ffi, lib
from hsm.errors import CKR, DataAltered, HsmError, NotConforming, check
from hsm.keys import KeyRing, Template, opened_key_table, share_key_table
from hsm.profiles import IvSource, Profile

FORMAT: Final = 1
TIER: Final = "A"

CHUNK_BYTES: Final = 12288
"""Plaintext of every chunk but the last: CloudHSM refuses GCM over more than 16,224 bytes."""
CHUNKS_MAX: Final = 64
WRAPPED_KEY_BYTES: Final = 40
TAG_BYTES: Final = 16
IV_BYTES: Final = (12, 16)
FINGERPRINT_BYTES: Final = 32
RECOVERY_BYTES: Final = range(1 + 3072 // 8, 1 + 8192 // 8 + 1)

Domain = Literal["share", "pre-params", "state", "canary"]


class LockedMemory(Protocol):
    """Bytes in memory that is neither swapped nor dumped, and that stays where it is while this object lives."""

    @property
    def address(self) -> int:
        """Where it starts."""

    def __len__(self) -> int:
        """How long it is."""


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
        if self.domain not in get_args(Domain):
            raise ValueError(f"no seal domain {self.domain!r}")
        for name in ("party_id", "share_id", "session_id", "share_type"):
            if len(getattr(self, name).encode()) > 255:
                raise ValueError(f"{name} is longer than 255 bytes")
        if not self.party_id or not self.share_id:
            raise ValueError("party_id and share_id are required")
        if not 0 <= self.generation < 2**32 or not 0 <= self.threshold_t <= self.threshold_n < 2**16:
            raise ValueError("generation or threshold out of range")
        if self.domain == "share" and not (
            self.session_id
            and self.share_type
            and len(self.public_key) == 33
            and self.threshold_t >= 2
            and len(self.committee_digest) == 32
        ):
            raise ValueError("a share's header states session, type, public key, threshold and committee digest")
        if self.domain != "share" and (
            len(self.public_key) not in (0, 33) or len(self.committee_digest) not in (0, 32)
        ):
            raise ValueError("public key and committee digest are whole or empty")


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
        recovery_wrapped: One byte for the OAEP hash (1: SHA-1, 2: SHA-256; MGF1 with the same), then the share key under the
            recovery key. None without one, and then so is the fingerprint: SHA-256 of its DER SubjectPublicKeyInfo.
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
        problem = self._problem()
        if problem:
            raise DataAltered(f"sealed blob: {problem}")

    def _problem(self) -> str | None:
        *body, last = self.chunks or (None,)
        checks = (
            (self.tier == TIER, f"tier {self.tier!r} is unknown"),
            (0 < self.kek_version < 2**32, "kek is out of range"),
            (len(self.wrapped_key) == WRAPPED_KEY_BYTES, "the wrapped key is not 40 bytes long"),
            ((self.recovery_wrapped is None) == (self.recovery_fingerprint is None), "half a recovery key"),
            (self.recovery_wrapped is None or len(self.recovery_wrapped) in RECOVERY_BYTES, "odd recovery key size"),
            (
                self.recovery_fingerprint is None or len(self.recovery_fingerprint) == FINGERPRINT_BYTES,
                "odd recovery fingerprint size",
            ),
            (0 < len(self.chunks) <= CHUNKS_MAX, f"{len(self.chunks)} chunks; 1 to {CHUNKS_MAX} are possible"),
            (all(c and len(c.data) == CHUNK_BYTES for c in body), "a chunk before the last is not full"),
            (last is not None and 0 < len(last.data) <= CHUNK_BYTES, "the last chunk has an odd size"),
            (all(len(c.iv) in IV_BYTES for c in self.chunks), "odd iv size"),
            (all(len(c.auth_tag) == TAG_BYTES for c in self.chunks), "odd authTag size"),
            (len({c.iv for c in self.chunks}) == len(self.chunks), "two chunks have the same iv"),
        )
        return next((text for holds, text in checks if not holds), None)

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
    return struct.pack(">H", len(raw)) + raw


class Suite:
    """A profile as C takes it, for one connection."""

    def __init__(self, profile: Profile, *, kek_trusted: bool) -> None:
        self.profile = profile
        self._share_key = Template(share_key_table(trusted_only=profile.wrap_with_trusted and kek_trusted))
        self._opened_key = Template(opened_key_table(profile))
        self.struct = ffi.new("hsm_suite *")
        self.struct.wrap_mechanism = profile.wrap
        self.struct.gcm_mechanism = profile.gcm
        self.struct.oaep_hash = profile.oaep
        self.struct.oaep_mgf = profile.oaep.mgf
        self.struct.iv_source = profile.iv_source
        self.struct.share_key = self._share_key.array
        self.struct.share_key_count = self._share_key.count
        self.struct.opened_key = self._opened_key.array
        self.struct.opened_key_count = self._opened_key.count


@dataclass(frozen=True)
class Bench:
    """Where one operation takes place: a session of our own for its duration, and the handles valid in it."""

    module: Any
    session: int
    suite: Suite
    keys: KeyRing


def seal(bench: Bench, plaintext: LockedMemory, header: SealHeader, recovery_fingerprint: bytes | None) -> SealedBlob:
    """Seal under a fresh share key and the newest KEK.

    Raises:
        HsmError: By the class of what the token said.
        NotConforming: There is no KEK, the size is impossible, or the token makes IVs that repeat.
    """
    kek_version = bench.keys.current_kek
    if kek_version is None:
        raise NotConforming("there is no KEK on the token; `tssctl hsm init` makes the keys")
    size = len(plaintext)
    if not 0 < size <= CHUNKS_MAX * CHUNK_BYTES:
        raise NotConforming(f"{size} bytes cannot be sealed; 1 to {CHUNKS_MAX * CHUNK_BYTES} can")
    key, wrapped_key, recovery_wrapped = _new_share_key(bench, kek_version)
    try:
        aad = associated_data(
            header,
            kek_version=kek_version,
            wrapped_key=wrapped_key,
            recovery_wrapped=recovery_wrapped,
            recovery_fingerprint=recovery_fingerprint,
        )
        chunks = _encrypt(bench, key, plaintext, aad)
    except HsmError:
        lib.hsm_destroy_object(bench.module, bench.session, key)  # the first failure is the one to report
        raise
    check(lib.hsm_destroy_object(bench.module, bench.session, key), "C_DestroyObject")
    ivs = {chunk.iv for chunk in chunks}
    if len(ivs) != len(chunks) or any(not any(iv) for iv in ivs):
        # Two chunks under one key and IV give the XOR of their plaintexts away. Nothing of this is ever returned.
        raise NotConforming("the token's IVs repeat or are zero: the provider profile is wrong about who makes them")
    return SealedBlob(
        format=FORMAT,
        tier=TIER,
        kek_version=kek_version,
        wrapped_key=wrapped_key,
        recovery_wrapped=recovery_wrapped,
        recovery_fingerprint=recovery_fingerprint,
        chunks=chunks,
    )


def _new_share_key(bench: Bench, kek_version: int) -> tuple[int, bytes, bytes | None]:
    key, call = ffi.new("unsigned long *"), ffi.new("const char **")
    wrapped = ffi.new("uint8_t[]", WRAPPED_KEY_BYTES)
    recovery = ffi.new("uint8_t[]", lib.HSM_RSA_MAX)
    recovery_len = ffi.new("unsigned long *", lib.HSM_RSA_MAX if bench.keys.recovery else 0)
    rv = lib.hsm_make_share_key(
        bench.module,
        bench.session,
        bench.suite.struct,
        bench.keys.keks[kek_version],
        bench.keys.recovery,
        key,
        wrapped,
        recovery,
        recovery_len,
        call,
    )
    _check(rv, call)
    if not recovery_len[0]:
        return int(key[0]), bytes(wrapped), None
    oaep = bytes([bench.suite.profile.oaep.mgf]) + bytes(ffi.buffer(recovery, recovery_len[0]))
    return int(key[0]), bytes(wrapped), oaep


def _encrypt(bench: Bench, key: int, plaintext: LockedMemory, aad: bytes) -> tuple[Chunk, ...]:
    size = len(plaintext)
    lengths = [min(CHUNK_BYTES, size - start) for start in range(0, size, CHUNK_BYTES)]
    chunks, call = ffi.new("hsm_chunk[]", len(lengths)), ffi.new("const char **")
    buffers = [ffi.new("uint8_t[]", length) for length in lengths]
    nonce = secrets.token_bytes(8)
    for i, (chunk, buffer) in enumerate(zip(chunks, buffers, strict=True)):
        chunk.data = buffer
        chunk.data_len = len(buffer)
        if bench.suite.profile.iv_source is IvSource.CALLER:
            chunk.iv = nonce + struct.pack(">I", i)
            chunk.iv_len = 12
    rv = lib.hsm_encrypt(
        bench.module,
        bench.session,
        bench.suite.struct,
        key,
        ffi.cast("uint8_t *", plaintext.address),
        size,
        aad,
        len(aad),
        chunks,
        len(lengths),
        call,
    )
    _check(rv, call)
    return tuple(
        Chunk(bytes(ffi.buffer(buffer)), bytes(ffi.buffer(chunk.iv, chunk.iv_len)), bytes(chunk.tag))
        for chunk, buffer in zip(chunks, buffers, strict=True)
    )


def open_blob(bench: Bench, blob: SealedBlob, header: SealHeader, into: Callable[[int], LockedMemory]) -> LockedMemory:
    """Open into locked memory. On any failure that memory holds zeros.

    Raises:
        HsmError: By the class of what the token said; whether the blob or the token is at fault is for the caller's canary.
        DataAltered: The KEK version it names is not on the token.
    """
    kek = bench.keys.keks.get(blob.kek_version)
    if kek is None:
        raise DataAltered(f"KEK version {blob.kek_version} is not on the token; there are {sorted(bench.keys.keks)}")
    aad = associated_data(
        header,
        kek_version=blob.kek_version,
        wrapped_key=blob.wrapped_key,
        recovery_wrapped=blob.recovery_wrapped,
        recovery_fingerprint=blob.recovery_fingerprint,
    )
    memory = into(len(blob))
    if len(memory) != len(blob):
        raise ValueError(f"asked for {len(blob)} bytes of locked memory, got {len(memory)}")
    chunks, call = ffi.new("hsm_chunk[]", len(blob.chunks)), ffi.new("const char **")
    keep = []
    for target, source in zip(chunks, blob.chunks, strict=True):
        data = ffi.from_buffer("uint8_t[]", source.data)
        keep.append(data)
        target.data = data
        target.data_len = len(source.data)
        target.iv = source.iv
        target.iv_len = len(source.iv)
        target.tag = source.auth_tag
    rv = lib.hsm_open(
        bench.module,
        bench.session,
        bench.suite.struct,
        kek,
        blob.wrapped_key,
        aad,
        len(aad),
        chunks,
        len(blob.chunks),
        ffi.cast("uint8_t *", memory.address),
        len(memory),
        call,
    )
    _check(rv, call)
    return memory


def _check(rv: int, call: Any) -> None:  # noqa: ANN401  (cffi pointer)
    if rv != CKR.OK:
        check(rv, ffi.string(call[0]).decode())
