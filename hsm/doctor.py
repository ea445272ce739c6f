"""The conformance checks an operator runs on their own HSM: what the token does, not what its manual says.

Everything is tried on throw-away session objects; our own keys are only read and used. No wrong PIN is ever tried. Each
check says what its passing proves; together they give the verdict on the tier.
"""

import itertools
import secrets
import struct
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Final, Literal, TypeVar

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

from hsm.blob import CHUNK_BYTES, WRAPPED_KEY_BYTES, SealedBlob, SealHeader, associated_data
from hsm.connection import Connection, TokenSettings
from hsm.errors import DataAltered, HsmError, NotConforming, name_of
from hsm.keys import (
    CKA,
    CKM_AES_KEY_GEN,
    KeyRing,
    Objects,
    SigningKey,
    Table,
    compressed_point,
    kek_table,
    opened_key_table,
    recovery_public_key,
    recovery_table,
    signing_tables,
)
from hsm.pin import Pin, PinLatch
from hsm.profiles import IvSource, Profile, profile_named
from hsm.sealing import Bench, LockedMemory, encrypt, open_blob, seal
from hsm.signing import sign, verify
from hsm.token import AMBIGUOUS, Plain

T = TypeVar("T")

CKM_EC_KEY_PAIR_GEN: Final = 0x1040
CKM_ECDSA: Final = 0x1041
CKM_RSA_PKCS_OAEP: Final = 0x9
CKM_AES_KEY_WRAP_PAD: Final = 0x210A

HEADER: Final = SealHeader(domain="canary", party_id="doctor", share_id="doctor")
SAMPLE_BYTES: Final = 40_000
"""Four chunks, the last one not full."""


class Outcome(StrEnum):
    """What came of a check."""

    PASSED = "passed"
    WEAK = "weak"
    """It works, but protects less than it could."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """Does not apply, or a check it builds on did not pass."""


@dataclass(frozen=True)
class CheckResult:
    """One line of the report.

    Attributes:
        name: Group and check, such as ``kek.not-readable``; stable.
        proves: What passing proves, one sentence.
        detail: What was seen.
    """

    name: str
    outcome: Outcome
    proves: str
    detail: str


Tier = Literal["A", "A, open to the PIN", "none"]


@dataclass(frozen=True)
class Report:
    """All results in order, and what they add up to."""

    results: tuple[CheckResult, ...]
    tier: Tier
    verdict: str

    @property
    def passed(self) -> bool:
        """Shares may be sealed on this token."""
        return self.tier != "none"


class _Finding(Exception):
    """The check did not pass."""


class _Weakness(Exception):
    """The check found less protection than there could be."""


class _NotApplicable(Exception):
    """There is nothing to check here."""


class _Patient:
    """The token under examination, and what earlier checks left for later ones."""

    def __init__(self, settings: TokenSettings, profile: Profile, connection: Connection) -> None:
        self.settings = settings
        self.profile = profile
        self.connection = connection
        self.left: dict[str, object] = {}

    def keep(self, name: str, value: T) -> T:
        self.left[name] = value
        return value

    def kept(self, name: str, kind: type[T]) -> T:
        value = self.left.get(name)
        if not isinstance(value, kind):
            raise _NotApplicable(f"needs the {name}, which could not be made")
        return value

    def run(self, what: Callable[[Bench, Objects], T]) -> T:
        """In a session of its own; with the throw-away KEK as the only one."""
        with self.connection.bench() as (bench, _):
            kek = self.left.get("KEK")
            keys = replace(bench.keys, keks={1: kek} if isinstance(kek, int) else {}, recovery=0)
            return what(replace(bench, keys=keys), Objects(bench.module, bench.session))

    def refuses(self, what: Callable[[Bench, Objects], object], otherwise: str) -> str:
        """The token's answer to what must not work.

        Raises:
            _Finding: It worked.
            HsmError: It failed in a way that refuses nothing, as when the token is gone.
        """
        try:
            self.run(what)
        except (NotConforming, DataAltered) as error:
            return f"refused: {name_of(error.rv or 0)}"
        except HsmError as error:
            if error.rv in AMBIGUOUS:
                return f"refused: {name_of(error.rv)}"
            raise
        raise _Finding(otherwise)


Check = Callable[[_Patient], str]


@dataclass(frozen=True)
class _Entry:
    name: str
    proves: str
    check: Check


_CHECKS: Final[list[_Entry]] = []

_PIN_ATTACKS: Final = frozenset(
    {
        "kek.unwrap-template-kept",
        "kek.not-wrappable",
        "kek.not-readable-by-copy",
        "share-key.not-wrappable",
        "share-key.not-readable-by-copy",
        "unwrap.in-clear-refused",
        "unwrap.extractable-refused",
        "unwrap.silent-refused",
        "unwrap.no-other-mechanism",
        "signing.not-wrappable",
    }
)
"""What somebody with the PIN would try."""


def _check(name: str, proves: str) -> Callable[[Check], Check]:
    def enter(check: Check) -> Check:
        _CHECKS.append(_Entry(name, proves, check))
        return check

    return enter


def examine(
    settings: TokenSettings,
    pin: Pin,
    latch: PinLatch | None,
    watch: Callable[[CheckResult], None] = lambda _: None,
) -> Report:
    """Run every check on the token that `settings` name.

    Args:
        settings: Which token, and what our keys on it are called.
        pin: Tried once, like everywhere.
        latch: The custodian's, so that a PIN it was refused is not tried here either.
        watch: Called with each result as it comes.

    Raises:
        NotConforming: The profile's name is unknown, or the module is in use by this process.
    """
    profile = profile_named(settings.profile)
    results: list[CheckResult] = []

    def note(result: CheckResult) -> None:
        results.append(result)
        watch(result)

    proves = "the module loads, the token is found once by label and serial, and takes the PIN"
    try:
        connection = Connection(settings, profile, pin, latch, look_for_keys=False)
    except HsmError as error:
        note(CheckResult("token.opens", Outcome.FAILED, proves, str(error)))
        for entry in _CHECKS:
            note(CheckResult(entry.name, Outcome.SKIPPED, entry.proves, "the token does not open"))
        return _judge(results, profile)
    try:
        facts = connection.facts
        detail = f"{facts.manufacturer} {facts.model}, serial {facts.serial}, firmware {facts.firmware}"
        note(CheckResult("token.opens", Outcome.PASSED, proves, detail))
        patient = _Patient(settings, profile, connection)
        for entry in _CHECKS:
            note(_run(entry, patient))
    finally:
        connection.close()
    return _judge(results, profile)


def check_names() -> tuple[str, ...]:
    """Every check by its name, in order."""
    return ("token.opens", *(entry.name for entry in _CHECKS))


def _run(entry: _Entry, patient: _Patient) -> CheckResult:
    try:
        outcome, detail = Outcome.PASSED, entry.check(patient)
    except _NotApplicable as reason:
        outcome, detail = Outcome.SKIPPED, str(reason)
    except _Weakness as reason:
        outcome, detail = Outcome.WEAK, str(reason)
    except _Finding as reason:
        # A profile without unwrap template promises nothing against who has the PIN, so this is no surprise.
        expected = entry.name in _PIN_ATTACKS and not patient.profile.unwrap_template
        outcome, detail = Outcome.WEAK if expected else Outcome.FAILED, str(reason)
    except HsmError as error:
        outcome, detail = Outcome.FAILED, str(error)
    return CheckResult(entry.name, outcome, entry.proves, detail)


def _judge(results: Sequence[CheckResult], profile: Profile) -> Report:
    failed = [result.name for result in results if result.outcome is Outcome.FAILED]
    if failed:
        verdict = f"not fit for tier A with profile {profile.name!r}: {', '.join(failed)}"
        return Report(tuple(results), "none", verdict)
    if any(result.outcome is Outcome.WEAK and result.name in _PIN_ATTACKS for result in results):
        verdict = "tier A against who lacks the PIN; who has PIN and store can have this token give share keys away"
        return Report(tuple(results), "A, open to the PIN", verdict)
    verdict = "tier A: share keys stay inside this token, even from who has the PIN and the store"
    return Report(tuple(results), "A", verdict)


# ---- Token ----


@_check("token.locking", "any number of threads may call the module")
def _locking(patient: _Patient) -> str:
    if not patient.connection.locks:
        raise _Weakness("the module cannot lock (CKR_CANT_LOCK): one call at a time")
    return "initialised with CKF_OS_LOCKING_OK"


@_check("token.serial-stated", "another token with the same label is not mistaken for this one")
def _serial(patient: _Patient) -> str:
    if patient.settings.serial is None:
        raise _Weakness(f"the settings state no serial; this one is {patient.connection.facts.serial}")
    return patient.settings.serial


@_check("token.sessions", "as many operations run at a time as the settings say")
def _sessions(patient: _Patient) -> str:
    wanted = patient.connection.limit
    found = patient.connection.count_sessions(wanted)
    if found < wanted:
        raise _Weakness(f"{found} sessions of {wanted}; the token has no more")
    return f"{wanted} sessions at once"


@_check("token.random", "the token's generator gives bytes that change")
def _random(patient: _Patient) -> str:
    draws = {patient.run(lambda _, objects: objects.random(32)) for _ in range(16)}
    if len(draws) != 16 or bytes(32) in draws:  # noqa: PLR2004  (as many as were drawn)
        raise _Finding("the same 32 bytes came twice, or zeros")
    return "16 draws of 32 bytes, all different"


# ---- Mechanisms ----


def _mechanism(number: int, patient: _Patient) -> str:
    if number not in patient.connection.facts.mechanisms:
        raise _Finding(f"mechanism 0x{number:x} is not in the token's list")
    return f"0x{number:x}"


_check("mechanism.aes-key-gen", "the token makes AES keys")(partial(_mechanism, CKM_AES_KEY_GEN))
_check("mechanism.key-wrap", "the profile's number for RFC 3394 key wrap is offered")(
    lambda patient: _mechanism(patient.profile.wrap, patient)
)
_check("mechanism.aes-gcm", "the profile's number for AES-GCM is offered")(
    lambda patient: _mechanism(patient.profile.gcm, patient)
)
_check("mechanism.ec-key-gen", "the token makes P-256 keys")(partial(_mechanism, CKM_EC_KEY_PAIR_GEN))
_check("mechanism.ecdsa", "the token signs digests")(partial(_mechanism, CKM_ECDSA))


@_check("mechanism.rsa-oaep", "share keys can be wrapped for the recovery key")
def _oaep(patient: _Patient) -> str:
    if patient.settings.recovery_key is None:
        raise _NotApplicable("no recovery key is configured")
    return _mechanism(CKM_RSA_PKCS_OAEP, patient)


# ---- KEK ----


def _throw_away_kek(patient: _Patient) -> Table:
    return {**kek_table(patient.profile, "tssd-doctor", 1), CKA.TOKEN: False}


@_check("kek.made", "the token makes a KEK from our template")
def _kek_made(patient: _Patient) -> str:
    table = _throw_away_kek(patient)
    patient.keep("KEK", patient.run(lambda _, objects: objects.generate(CKM_AES_KEY_GEN, table)))
    return "a throw-away session key"


@_check("kek.attributes-kept", "the KEK is what the template says, and says it was made in the token")
def _kek_attributes(patient: _Patient) -> str:
    kek, table = patient.kept("KEK", int), dict(_throw_away_kek(patient))
    table.pop(CKA.UNWRAP_TEMPLATE, None)
    if wrong := patient.run(lambda _, objects: objects.differences(kek, table)):
        raise _Finding("; ".join(wrong))
    return f"{len(table)} attributes read back"


@_check("kek.unwrap-template-kept", "the KEK carries the template that hides whatever comes out from under it")
def _kek_unwrap_template(patient: _Patient) -> str:
    kek, table = patient.kept("KEK", int), _throw_away_kek(patient)
    if CKA.UNWRAP_TEMPLATE not in table:
        raise _Weakness(f"profile {patient.profile.name!r} does without CKA_UNWRAP_TEMPLATE")
    wanted = {CKA.UNWRAP_TEMPLATE: table[CKA.UNWRAP_TEMPLATE]}
    if wrong := patient.run(lambda _, objects: objects.differences(kek, wanted)):
        raise _Finding("; ".join(wrong))
    return "read back: sensitive, not extractable"


@_check("kek.mechanisms-restricted", "the KEK serves key wrap alone")
def _kek_mechanisms(patient: _Patient) -> str:
    if not patient.profile.allowed_mechanisms:
        raise _Weakness(f"profile {patient.profile.name!r} does without CKA_ALLOWED_MECHANISMS")
    patient.kept("KEK", int)
    return f"0x{patient.profile.wrap:x} alone, read back"


def _not_readable(patient: _Patient, handle: int) -> str:
    if patient.run(lambda _, objects: objects.readable(handle)):
        raise _Finding("the token tells CKA_VALUE")
    return "CKA_VALUE is not told"


@_check("kek.not-readable", "nobody reads the KEK")
def _kek_hidden(patient: _Patient) -> str:
    return _not_readable(patient, patient.kept("KEK", int))


@_check("kek.not-wrappable", "the KEK does not come out wrapped")
def _kek_wrap(patient: _Patient) -> str:
    kek = patient.kept("KEK", int)
    return patient.refuses(
        lambda _, objects: objects.wrap(patient.profile.wrap, kek, kek), "the KEK was wrapped under itself"
    )


@_check("kek.no-data", "the KEK does not decrypt wrapped keys as if they were data")
def _kek_data(patient: _Patient) -> str:
    kek = patient.kept("KEK", int)
    return patient.refuses(lambda bench, _: _encrypt_under(bench, kek), "the KEK encrypted data")


@_check("kek.not-readable-by-change", "the KEK cannot be made readable")
def _kek_change(patient: _Patient) -> str:
    return _loosening(patient, patient.kept("KEK", int), "the KEK")


@_check("kek.not-readable-by-copy", "a copy of the KEK cannot be readable, nor do without the unwrap template")
def _kek_copy(patient: _Patient) -> str:
    return _copying(patient, patient.kept("KEK", int), "the KEK")


def _encrypt_under(bench: Bench, key: int) -> object:
    return encrypt(bench, key, Plain(bytes(16)), b"")


LOOSER: Final[tuple[Table, ...]] = ({CKA.SENSITIVE: False}, {CKA.EXTRACTABLE: True})


def _loosening(patient: _Patient, handle: int, name: str) -> str:
    said = [patient.refuses(partial(_change, handle, table), f"{name} was changed") for table in LOOSER]
    return said[0]


def _copying(patient: _Patient, handle: int, name: str) -> str:
    said = [patient.refuses(partial(_copy, handle, table), f"{name} was copied to a looser key") for table in LOOSER]
    return said[0]


def _change(handle: int, table: Table, _: Bench, objects: Objects) -> None:
    objects.change(handle, table)


def _copy(handle: int, table: Table, _: Bench, objects: Objects) -> None:
    objects.copy(handle, table)


# ---- Sealing ----


def _sealed(patient: _Patient, content: bytes) -> SealedBlob:
    patient.kept("KEK", int)
    return patient.run(lambda bench, _: seal(bench, Plain(content), HEADER, None))


def _opened(patient: _Patient, blob: SealedBlob, into: Callable[[int], LockedMemory] = Plain) -> LockedMemory:
    return patient.run(lambda bench, _: open_blob(bench, blob, HEADER, into))


def _roundtrip(patient: _Patient, size: int) -> SealedBlob:
    content = secrets.token_bytes(size)
    blob = _sealed(patient, content)
    opened = _opened(patient, blob)
    if not isinstance(opened, Plain) or not opened.matches(content):
        raise _Finding(f"{size} bytes came back changed")
    return blob


def _small(patient: _Patient) -> SealedBlob:
    return patient.kept("small blob", SealedBlob)


def _large(patient: _Patient) -> SealedBlob:
    return patient.kept("large blob", SealedBlob)


@_check("seal.one-byte", "a share key is made, wrapped, used and destroyed, and opens again what it sealed")
def _seal_small(patient: _Patient) -> str:
    patient.keep("small blob", _roundtrip(patient, 1))
    return "1 byte"


@_check("seal.full-chunk", "the token takes a chunk of 12,288 bytes in one call")
def _seal_chunk(patient: _Patient) -> str:
    _roundtrip(patient, CHUNK_BYTES)
    return "12,288 bytes"


@_check("seal.several-chunks", "a share of several chunks opens")
def _seal_large(patient: _Patient) -> str:
    patient.keep("large blob", _roundtrip(patient, SAMPLE_BYTES))
    return f"{SAMPLE_BYTES:,} bytes"


@_check("seal.wrap-size", "the wrapped key is RFC 3394's: 40 bytes")
def _wrap_size(patient: _Patient) -> str:
    size = len(_small(patient).wrapped_key)
    if size != WRAPPED_KEY_BYTES:
        raise _Finding(f"{size} bytes")
    return "40 bytes"


@_check("seal.independent", "another library opens what the token sealed: no format of the vendor's own")
def _independent(patient: _Patient) -> str:
    """A KEK of known value is brought to the token; many tokens refuse that, rightly."""
    value = secrets.token_bytes(32)
    table = {**_throw_away_kek(patient), CKA.VALUE: value}
    del table[CKA.VALUE_LEN]
    content = secrets.token_bytes(CHUNK_BYTES + 1)

    def under_known_kek(bench: Bench, objects: Objects) -> SealedBlob:
        try:
            kek = objects.create(table)
        except HsmError as error:
            raise _NotApplicable(f"the token takes no key from outside: {error}") from error
        known = replace(bench, keys=KeyRing(keks={1: kek}))
        blob = seal(known, Plain(content), HEADER, None)
        objects.destroy(kek)
        return blob

    blob = patient.run(under_known_kek)
    try:
        opened = _by_the_book(value, blob)
    except (InvalidUnwrap, InvalidTag) as error:
        raise _Finding(f"it does not open there: {type(error).__name__}") from error
    if opened != content:
        raise _Finding("it opens to something else")
    return "RFC 3394 and AES-256-GCM, by the book"


def _by_the_book(kek: bytes, blob: SealedBlob) -> bytes:
    key = aes_key_unwrap(kek, blob.wrapped_key)
    aad = associated_data(
        HEADER, kek_version=1, wrapped_key=blob.wrapped_key, recovery_wrapped=None, recovery_fingerprint=None
    )
    count = len(blob.chunks)
    return b"".join(
        AESGCM(key).decrypt(chunk.iv, chunk.data + chunk.auth_tag, aad + struct.pack(">II?", i, count, i + 1 == count))
        for i, chunk in enumerate(blob.chunks)
    )


@_check("seal.share-keys-fresh", "each sealing has a share key of its own")
def _fresh_keys(patient: _Patient) -> str:
    wrapped = {_sealed(patient, b"x").wrapped_key for _ in range(16)}
    if len(wrapped) != 16:  # noqa: PLR2004  (as many as were made)
        raise _Finding("two sealings have the same wrapped key")
    return "16 sealings, 16 keys"


@_check("seal.iv-source", "IVs are made by whom the profile says, of the size it says")
def _iv_source(patient: _Patient) -> str:
    blob, source = _large(patient), patient.profile.iv_source
    size = 16 if source is IvSource.TAIL else 12
    if any(len(chunk.iv) != size or not any(chunk.iv) for chunk in blob.chunks):
        raise _Finding("an IV is zero or has an odd size")
    if source is not IvSource.CALLER and all(chunk.iv[-4:] == i.to_bytes(4) for i, chunk in enumerate(blob.chunks)):
        raise _Finding("the IVs are ours although the profile says that the token makes them")
    return f"{source.name.lower()}, {size} bytes"


@_check("seal.iv-distinct", "no two chunks share key and IV")
def _iv_distinct(patient: _Patient) -> str:
    blobs = [_sealed(patient, bytes(SAMPLE_BYTES)) for _ in range(8)]
    used = [(blob.wrapped_key, chunk.iv) for blob in blobs for chunk in blob.chunks]
    bodies = [chunk.data for blob in blobs for chunk in blob.chunks]
    if len(set(used)) != len(used) or len(set(bodies)) != len(bodies):
        raise _Finding("a pair of key and IV, or a ciphertext of zeros, came twice")
    return f"{len(used)} chunks of zeros, all different"


# ---- Opened share keys ----


@_check("share-key.opens", "the template of an opened share key is taken")
def _opened_key(patient: _Patient) -> str:
    table, blob = opened_key_table(patient.profile), _small(patient)
    handle = patient.run(
        lambda bench, objects: objects.unwrap(patient.profile.wrap, bench.keys.keks[1], blob.wrapped_key, table)
    )
    patient.keep("opened share key", handle)
    kept: Table = {
        kind: value for kind, value in table.items() if kind is not CKA.VALUE_LEN
    }  # it is asked for, not kept
    if wrong := patient.run(lambda _, objects: objects.differences(handle, kept)):
        raise _Finding("; ".join(wrong))
    return "sensitive, not extractable, decrypts only"


@_check("share-key.not-readable", "an opened share key is not readable")
def _opened_hidden(patient: _Patient) -> str:
    return _not_readable(patient, patient.kept("opened share key", int))


@_check("share-key.not-wrappable", "an opened share key cannot be wrapped again")
def _opened_wrap(patient: _Patient) -> str:
    key = patient.kept("opened share key", int)
    return patient.refuses(
        lambda bench, objects: objects.wrap(patient.profile.wrap, bench.keys.keks[1], key), "it was wrapped again"
    )


@_check("share-key.not-readable-by-change", "an opened share key cannot be made readable")
def _opened_change(patient: _Patient) -> str:
    return _loosening(patient, patient.kept("opened share key", int), "the share key")


@_check("share-key.not-readable-by-copy", "a copy of an opened share key cannot be readable")
def _opened_copy(patient: _Patient) -> str:
    return _copying(patient, patient.kept("opened share key", int), "the share key")


@_check("share-key.no-encryption", "an opened share key does not encrypt")
def _opened_encrypt(patient: _Patient) -> str:
    key = patient.kept("opened share key", int)
    return patient.refuses(lambda bench, _: _encrypt_under(bench, key), "it encrypted data")


# ---- Unwrapping otherwise ----


def _unwrap_as(patient: _Patient, change: Table, without: tuple[CKA, ...] = ()) -> str:
    blob = _small(patient)
    table = {kind: value for kind, value in opened_key_table(patient.profile).items() if kind not in without}

    def unwrap(bench: Bench, objects: Objects) -> None:
        handle = objects.unwrap(patient.profile.wrap, bench.keys.keks[1], blob.wrapped_key, {**table, **change})
        if not objects.readable(handle) and objects.read(handle, CKA.EXTRACTABLE) == b"\0":
            raise NotConforming("it came out hidden all the same")

    return patient.refuses(unwrap, "the share key came out readable or extractable")


@_check("unwrap.in-clear-refused", "with store and PIN, asking for the share key in clear is refused")
def _unwrap_clear(patient: _Patient) -> str:
    return _unwrap_as(patient, {CKA.SENSITIVE: False, CKA.EXTRACTABLE: True})


@_check("unwrap.extractable-refused", "with store and PIN, asking for an extractable share key is refused")
def _unwrap_extractable(patient: _Patient) -> str:
    return _unwrap_as(patient, {CKA.EXTRACTABLE: True})


@_check("unwrap.silent-refused", "leaving out how it is to come out does not help either")
def _unwrap_silent(patient: _Patient) -> str:
    return _unwrap_as(patient, {}, without=(CKA.SENSITIVE, CKA.EXTRACTABLE))


@_check("unwrap.no-other-mechanism", "nothing is unwrapped under the KEK by another mechanism")
def _unwrap_other(patient: _Patient) -> str:
    if CKM_AES_KEY_WRAP_PAD not in patient.connection.facts.mechanisms:
        raise _NotApplicable("the token has no padded key wrap")
    blob = _small(patient)
    return patient.refuses(
        lambda bench, objects: objects.unwrap(
            CKM_AES_KEY_WRAP_PAD, bench.keys.keks[1], blob.wrapped_key, opened_key_table(patient.profile)
        ),
        "padded key wrap took the wrapped key",
    )


@_check("unwrap.altered-refused", "a changed wrapped key does not unwrap")
def _unwrap_altered(patient: _Patient) -> str:
    blob = _small(patient)
    flipped = bytes([blob.wrapped_key[0] ^ 1]) + blob.wrapped_key[1:]
    return _refuses_blob(patient, replace(blob, wrapped_key=flipped), "a changed wrapped key")


@_check("unwrap.foreign-refused", "a key wrapped under another KEK does not unwrap")
def _unwrap_foreign(patient: _Patient) -> str:
    blob = _small(patient)
    return _refuses_blob(patient, replace(blob, wrapped_key=secrets.token_bytes(40)), "a made-up wrapped key")


# ---- Altered chunks ----


def _refuses_blob(patient: _Patient, blob: SealedBlob, what: str, header: SealHeader = HEADER) -> str:
    memory = Plain(b"\xff" * len(blob))
    said = patient.refuses(lambda bench, _: open_blob(bench, blob, header, lambda _: memory), f"{what} was opened")
    if not memory.matches(bytes(len(blob))):
        raise _Finding("part of the plaintext was left in memory after the refusal")
    return said


def _changed(blob: SealedBlob, **change: bytes) -> SealedBlob:
    return replace(blob, chunks=(replace(blob.chunks[0], **change), *blob.chunks[1:]))


@_check("gcm.data-bound", "a changed ciphertext is refused, and leaves zeros behind")
def _gcm_data(patient: _Patient) -> str:
    blob = _large(patient)
    data = blob.chunks[0].data
    return _refuses_blob(patient, _changed(blob, data=bytes([data[0] ^ 1]) + data[1:]), "a changed ciphertext")


@_check("gcm.tag-bound", "a changed tag is refused")
def _gcm_tag(patient: _Patient) -> str:
    blob = _large(patient)
    tag = blob.chunks[0].auth_tag
    return _refuses_blob(patient, _changed(blob, auth_tag=tag[:-1] + bytes([tag[-1] ^ 1])), "a changed tag")


@_check("gcm.iv-bound", "a changed IV is refused")
def _gcm_iv(patient: _Patient) -> str:
    blob = _large(patient)
    iv = blob.chunks[0].iv
    return _refuses_blob(patient, _changed(blob, iv=bytes([iv[0] ^ 1]) + iv[1:]), "a changed IV")


@_check("gcm.header-bound", "a row with another label is refused: associated data counts")
def _gcm_aad(patient: _Patient) -> str:
    return _refuses_blob(patient, _large(patient), "a relabelled row", replace(HEADER, share_id="another"))


@_check("gcm.order-bound", "chunks in another order are refused")
def _gcm_order(patient: _Patient) -> str:
    blob = _large(patient)
    first, second, *rest = blob.chunks
    return _refuses_blob(patient, replace(blob, chunks=(second, first, *rest)), "a reordered row")


@_check("gcm.length-bound", "a row without its end is refused")
def _gcm_length(patient: _Patient) -> str:
    blob = _large(patient)
    return _refuses_blob(patient, replace(blob, chunks=blob.chunks[:-1]), "a cut row")


@_check("gcm.well-afterwards", "after all those refusals the token still opens what is whole")
def _gcm_after(patient: _Patient) -> str:
    _opened(patient, _large(patient))
    return "opened"


# ---- Recovery ----


@_check("recovery.key", "the recovery key is RSA of at least 3072 bits")
def _recovery_key(patient: _Patient) -> str:
    if patient.settings.recovery_key is None:
        raise _NotApplicable("no recovery key is configured")
    return f"RSA-{recovery_public_key(patient.settings.recovery_key).key_size}"


@_check("recovery.wraps", "each share key is wrapped for the recovery key as well")
def _recovery_wraps(patient: _Patient) -> str:
    spki = patient.settings.recovery_key
    if spki is None:
        raise _NotApplicable("no recovery key is configured")

    def with_recovery(bench: Bench, objects: Objects) -> SealedBlob:
        keys = replace(bench.keys, recovery=objects.create(recovery_table(spki)))
        return seal(replace(bench, keys=keys), Plain(b"x"), HEADER, bytes(32))

    blob = patient.run(with_recovery)
    if blob.recovery_wrapped is None or len(blob.recovery_wrapped) != 1 + recovery_public_key(spki).key_size // 8:
        raise _Finding("the wrapped key has an odd size")
    return patient.profile.oaep.algorithm


# ---- Signing ----


@_check("signing.pair-made", "the token makes a P-256 pair from our templates, sign only")
def _pair(patient: _Patient) -> str:
    public, private = patient.connection.generate_signing_pair("tssd-doctor", store=False)
    public_table, private_table = signing_tables(patient.profile, "tssd-doctor")

    def read(_: Bench, objects: Objects) -> bytes:
        wrong = objects.differences(public, {**public_table, CKA.TOKEN: False})
        wrong += objects.differences(private, {**private_table, CKA.TOKEN: False})
        point = objects.read(public, CKA.EC_POINT)
        if wrong or point is None:
            raise _Finding("; ".join(wrong) or "the public key is not told")
        return compressed_point(point)

    patient.keep("signing pair", SigningKey(private, patient.run(read)))
    return "a throw-away session pair"


@_check("signing.verifies", "another library verifies what the token signs")
def _signs(patient: _Patient) -> str:
    key = patient.kept("signing pair", SigningKey)
    for _ in range(16):
        _signs_for(patient, key)
    return "16 signatures"


def _signs_for(patient: _Patient, key: SigningKey) -> None:
    digest = secrets.token_bytes(32)
    signature = patient.run(lambda bench, _: sign(bench, key.handle, digest))
    try:
        verify(key.public, digest, signature)
    except InvalidSignature as error:
        raise _Finding("a signature does not verify under the public key beside it") from error


@_check("signing.not-readable", "nobody reads a signing key")
def _signing_hidden(patient: _Patient) -> str:
    return _not_readable(patient, patient.kept("signing pair", SigningKey).handle)


@_check("signing.not-readable-by-change", "a signing key cannot be made readable")
def _signing_change(patient: _Patient) -> str:
    return _loosening(patient, patient.kept("signing pair", SigningKey).handle, "the signing key")


@_check("signing.not-wrappable", "a signing key does not come out wrapped")
def _signing_wrap(patient: _Patient) -> str:
    key = patient.kept("signing pair", SigningKey).handle
    mechanisms = [
        number
        for number in (patient.profile.wrap, CKM_AES_KEY_WRAP_PAD)
        if number in patient.connection.facts.mechanisms
    ]
    said = [patient.refuses(partial(_wrap_by, number, key), "it was wrapped") for number in mechanisms]
    return said[0]


def _wrap_by(mechanism: int, key: int, bench: Bench, objects: Objects) -> None:
    objects.wrap(mechanism, bench.keys.keks[1], key)


# ---- Our own keys ----


@_check("keys.as-we-make-them", "our keys on the token are ours alone, unambiguous, and have lost no protection")
def _our_keys(patient: _Patient) -> str:
    keys = patient.keep("keys", patient.connection.find_keys())
    if not keys.keks and keys.identity is None and keys.backup is None:
        del patient.left["keys"]
        raise _NotApplicable("there are none yet; `tssctl hsm init` makes them")
    if not keys.keks or keys.identity is None or keys.backup is None:
        raise _Finding("some of KEK, identity key and backup key are missing")
    return f"KEK versions {', '.join(map(str, sorted(keys.keks)))}; identity and backup key"


@_check("keys.not-readable", "nobody reads our KEKs and signing keys")
def _our_keys_hidden(patient: _Patient) -> str:
    keys = patient.kept("keys", KeyRing)
    handles = [*keys.keks.values(), *(key.handle for key in (keys.identity, keys.backup) if key)]
    for handle in handles:
        _not_readable(patient, handle)
    return f"{len(handles)} keys"


@_check("keys.keks-seal", "every KEK version opens what it seals")
def _our_keks(patient: _Patient) -> str:
    keys = patient.kept("keys", KeyRing)

    def roundtrip(version: int, bench: Bench, _: Objects) -> None:
        alone = replace(bench, keys=KeyRing(keks={version: keys.keks[version]}))
        blob = seal(alone, Plain(b"x"), HEADER, None)
        open_blob(alone, blob, HEADER, Plain)

    for version in keys.keks:
        patient.run(partial(roundtrip, version))
    return f"KEK versions: {len(keys.keks)}"


@_check("keys.pairs-belong-together", "identity and backup key sign for the public keys beside them")
def _our_pairs(patient: _Patient) -> str:
    keys = patient.kept("keys", KeyRing)
    for key in filter(None, (keys.identity, keys.backup)):
        _signs_for(patient, key)
    return "signed and verified"


# ---- Work ----


@_check("work.threads", "several threads work on the token at once without mixing anything up")
def _threads(patient: _Patient) -> str:
    _small(patient)
    with ThreadPoolExecutor(4) as pool:
        sizes = itertools.islice(itertools.cycle((100, CHUNK_BYTES + 1)), 40)
        count = sum(1 for _ in pool.map(partial(_roundtrip, patient), sizes))
    return f"{count} sealings, opened and compared, by 4 threads"


@_check("work.speed", "how fast shares open here")
def _speed(patient: _Patient) -> str:
    blob = _sealed(patient, bytes(20_000))
    start, count = time.monotonic(), 0
    while time.monotonic() < start + 0.25:
        _opened(patient, blob)
        count += 1
    return f"{count / (time.monotonic() - start):,.0f} opens of 20 kB per second by one caller"
