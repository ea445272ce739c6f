"""Tier A: a share sealed under a key that only ever exists inside the HSM.

Each sealing has a share key of its own, made in the token, wrapped there at once under the KEK (and the recovery key),
used for AES-256-GCM over chunks of at most 12 KiB, and destroyed. Every chunk is bound to the whole header, to the
wrapped keys and to its place.
"""

import secrets
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from hsm._direct import ffi, lib
from hsm.blob import (
    CHUNK_BYTES,
    CHUNKS_MAX,
    FORMAT,
    TIER,
    WRAPPED_KEY_BYTES,
    Chunk,
    SealedBlob,
    SealHeader,
    associated_data,
)
from hsm.errors import CKR, DataAltered, HsmError, NotConforming, check
from hsm.keys import KeyRing, Template, opened_key_table, share_key_table
from hsm.profiles import IvSource, Profile


class LockedMemory(Protocol):
    """Bytes in memory that is neither swapped nor dumped, and that stays where it is while this object lives."""

    @property
    def address(self) -> int:
        """Where it starts."""

    def __len__(self) -> int:
        """How long it is."""


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
        chunks = encrypt(bench, key, plaintext, aad)
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


def encrypt(bench: Bench, key: int, plaintext: LockedMemory, aad: bytes) -> tuple[Chunk, ...]:
    """Encrypt under a session key, chunk by chunk, by the IV rule of the profile.

    Raises:
        HsmError: As the token says.
    """
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
        HsmError: By the class of what the token said; whether blob or token is at fault is for a canary to say.
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
