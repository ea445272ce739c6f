"""The token as the rest of the program sees it."""

import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self, TypeVar

from cryptography.exceptions import InvalidSignature

from hsm._direct import ffi, lib
from hsm.blob import TIER, SealedBlob, SealHeader
from hsm.connection import Connection, TokenSettings
from hsm.errors import (
    CKR,
    DataAltered,
    HsmError,
    ModuleLost,
    NotConforming,
    SessionLost,
    TokenLost,
)
from hsm.keys import CKM_AES_KEY_GEN, Objects, SigningKey, kek_table, made_here, opened_key_table, signing_tables
from hsm.pin import Pin, PinLatch
from hsm.profiles import profile_named
from hsm.sealing import Bench, LockedMemory, open_blob, seal
from hsm.signing import DIGEST_BYTES, sign, verify

AMBIGUOUS: Final = frozenset({CKR.GENERAL_ERROR, CKR.FUNCTION_FAILED})
"""Codes by which some tokens mean a wrong tag and others that they are ill: SoftHSM 2.6 for one."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class TokenStatus:
    """What is known of the token and our keys on it; nothing of it is secret."""

    label: str
    serial: str
    manufacturer: str
    model: str
    firmware: str
    mechanisms: frozenset[int]
    kek_versions: tuple[int, ...]
    current_kek: int | None
    identity_public: bytes | None
    backup_public: bytes | None
    recovery_fingerprint: bytes | None
    tier: str
    unwrap_template: bool
    """Whether the token refuses share keys in clear even to who has the PIN and the store."""
    sessions: int
    locks: bool


class Plain:
    """Memory for values that are no secret, in the form the sealing takes."""

    def __init__(self, content: int | bytes) -> None:
        self._buffer = ffi.new("uint8_t[]", content)
        self._length = content if isinstance(content, int) else len(content)

    @property
    def address(self) -> int:
        """Where it starts."""
        return int(ffi.cast("uintptr_t", self._buffer))

    def __len__(self) -> int:
        return self._length

    def matches(self, expected: bytes) -> bool:
        """Whether it holds just this."""
        return hmac.compare_digest(bytes(ffi.buffer(self._buffer, self._length)), expected)


@dataclass(frozen=True)
class _Canary:
    """A known value sealed at connect. While it opens, what does not open is itself to blame."""

    value: bytes
    blob: SealedBlob


CANARY_HEADER: Final = SealHeader(domain="canary", party_id="canary", share_id="canary")
_CANARY_BYTES: Final = 48


class Token:
    """A token we are logged in to. Every method may be called from any thread; all of them may block in the HSM.

    A lost session is renewed and the operation tried once more, unseen. What a new connection alone can cure is raised;
    `reconnect` is the caller's decision.
    """

    def __init__(self, settings: TokenSettings, pin: Pin, latch: PinLatch | None) -> None:
        """See `open_token`."""
        self._settings = settings
        self._profile = profile_named(settings.profile)
        self._pin = pin
        self._latch = latch
        self._reconnecting = threading.Lock()
        self._connection: Connection | None = None
        self._canary: _Canary | None = None
        key = settings.recovery_key
        self._recovery_fingerprint = None if key is None else hashlib.sha256(key).digest()
        self.reconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Log out and finalise, when what is under way has ended."""
        with self._reconnecting:
            self._disconnect()

    def reconnect(self) -> None:
        """Finalise, initialise, find the token, log in, find the keys, and prove that sealing works.

        Waits for operations under way; one that hangs in the module hangs this too, which only a new process cures.

        Raises:
            HsmError: As in `open_token`. There is no connection then, and every operation raises ModuleLost.
        """
        with self._reconnecting:
            self._disconnect()
            connection = Connection(self._settings, self._profile, self._pin, self._latch)
            try:
                self._canary = self._self_test(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection

    def status(self) -> TokenStatus:
        """What is there. Touches the token only as far as `open_token` and the key-making calls did."""
        connection = self._connected()
        keys, facts = connection.keys, connection.facts
        return TokenStatus(
            label=facts.label,
            serial=facts.serial,
            manufacturer=facts.manufacturer,
            model=facts.model,
            firmware=facts.firmware,
            mechanisms=facts.mechanisms,
            kek_versions=tuple(sorted(keys.keks)),
            current_kek=keys.current_kek,
            identity_public=keys.identity.public if keys.identity else None,
            backup_public=keys.backup.public if keys.backup else None,
            recovery_fingerprint=self._recovery_fingerprint,
            tier=TIER,
            unwrap_template=self._profile.unwrap_template,
            sessions=connection.limit,
            locks=connection.locks,
        )

    def create_keys(self) -> None:
        """Make KEK version 1, the identity key and the backup key, and read each back. All that are missing, or none.

        A KEK may be there alone, brought from another token; without it nothing is made for what else is there.

        Raises:
            NotConforming: None is missing, or the KEK alone is; or what the token made is not what was asked for.
        """
        self.probe()  # renews a lost session now, for what makes keys is never tried twice
        with self._reconnecting:
            connection = self._connected()
            keys = connection.find_keys()
            if keys.keks and keys.identity and keys.backup:
                raise NotConforming("the keys exist already; nothing was changed")
            if not keys.keks and (keys.identity or keys.backup):
                raise NotConforming(
                    "the token has signing keys of ours, but no KEK: bring that back; nothing was changed"
                )
            made: list[int] = []
            try:
                if not keys.keks:
                    made += self._make_kek(connection, 1)
                for key, label in (
                    (keys.identity, self._settings.identity_label),
                    (keys.backup, self._settings.backup_label),
                ):
                    if key is None:
                        made += self._make_signing_pair(connection, label)
                connection.find_keys()
                self._canary = self._self_test(connection)
            except HsmError:
                with connection.bench() as (bench, _):
                    for handle in made:
                        lib.hsm_destroy_object(bench.module, bench.session, handle)
                connection.find_keys()
                raise

    def new_kek_version(self) -> int:
        """Make the next KEK version; from now on sealing uses it, while the older ones still open.

        Raises:
            NotConforming: There is none to follow, or the token did not make what was asked for.
        """
        self.probe()  # as in create_keys
        with self._reconnecting:
            connection = self._connected()
            newest = connection.find_keys().current_kek
            if newest is None:
                raise NotConforming("there is no KEK yet; `tssctl hsm init` makes the keys")
            self._make_kek(connection, newest + 1)
            connection.find_keys()
            self._canary = self._self_test(connection)
            return newest + 1

    def identity_public_key(self) -> bytes:
        """SEC1 compressed, 33 bytes.

        Raises:
            NotConforming: There is no identity key.
        """
        return _present(self._connected().keys.identity, "identity").public

    def sign_identity(self, digest: bytes) -> bytes:
        """ECDSA P-256 over a 32-byte digest: r||s, 64 bytes, low s."""
        return self._attempt(lambda bench: sign(bench, _present(bench.keys.identity, "identity").handle, digest))

    def sign_backup(self, digest: bytes) -> bytes:
        """Likewise, by the key that authenticates backups."""
        return self._attempt(lambda bench: sign(bench, _present(bench.keys.backup, "backup").handle, digest))

    def seal(self, plaintext: LockedMemory, header: SealHeader) -> SealedBlob:
        """Seal 1..786,432 bytes under a fresh share key and the newest KEK.

        Raises:
            HsmError: As the token says.
        """
        return self._attempt(lambda bench: seal(bench, plaintext, header, self._recovery_fingerprint))

    def open(self, blob: SealedBlob, header: SealHeader, into: Callable[[int], LockedMemory]) -> LockedMemory:
        """Open into the memory that `into(length)` gives.

        Raises:
            DataAltered: This blob, under this header, does not open, and the token is well: a known value opens.
            HsmError: As the token says.
        """
        memory: list[LockedMemory] = []

        def reserve(length: int) -> LockedMemory:
            # Once, however often it is tried.
            if not memory:
                memory.append(into(length))
            return memory[0]

        def once(bench: Bench) -> LockedMemory:
            return open_blob(bench, blob, header, reserve)

        try:
            return self._attempt(once)
        except (DataAltered, ModuleLost) as error:
            if not isinstance(error, DataAltered) and error.rv not in AMBIGUOUS:
                raise
            self._judge(error)
            first = error
        if isinstance(first, DataAltered):
            raise first
        # It may have been the token for a moment, and a share is quarantined for less.
        try:
            return self._attempt(once)
        except (DataAltered, ModuleLost) as error:
            if isinstance(error, DataAltered) or error.rv in AMBIGUOUS:
                raise DataAltered(f"the sealed data does not open: {error}", error.rv) from error
            raise

    def probe(self) -> None:
        """A cheap real operation: open the canary, or draw a random byte before there are keys.

        Raises:
            HsmError: Why the token cannot work.
        """
        if self._canary is None:
            self.random(1)
        else:
            self._check_canary()

    def random(self, length: int) -> bytes:
        """Random bytes of the token's own generator, for values that are public."""
        return self._attempt(lambda bench: Objects(bench.module, bench.session).random(length))

    def _connected(self) -> Connection:
        connection = self._connection
        if connection is None:
            raise ModuleLost("not connected to the token")
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._canary = None
        if connection is not None:
            connection.close()

    def _attempt(self, operation: Callable[[Bench], T]) -> T:
        """Run an operation in a session of its own; once more after a lost one was renewed."""
        return _attempt(self._connected(), operation)

    def _judge(self, error: HsmError) -> None:
        """Return where the token is well, so that the blob is to blame; raise otherwise."""
        try:
            self._check_canary()
        except HsmError as ill:
            kind = TokenLost if isinstance(ill, TokenLost) else ModuleLost
            raise kind(f"nothing opens any more ({ill}); first seen as {error}", ill.rv) from error

    def _check_canary(self) -> None:
        canary = self._canary
        if canary is None:
            raise TokenLost("there is no KEK on the token")
        opened = Plain(_CANARY_BYTES)
        self._attempt(lambda bench: open_blob(bench, canary.blob, CANARY_HEADER, lambda _: opened))
        if not opened.matches(canary.value):
            raise ModuleLost("the token opened a known value wrongly")

    def _self_test(self, connection: Connection) -> _Canary | None:
        """Prove, at each connect, what no attribute can: that it seals, opens, and keeps share keys to itself.

        Raises:
            NotConforming: It does not.
        """
        _attempt(connection, _prove_pairs)
        if not connection.keys.keks:
            return None
        value = secrets.token_bytes(_CANARY_BYTES)
        blob = _attempt(connection, lambda bench: seal(bench, Plain(value), CANARY_HEADER, self._recovery_fingerprint))
        opened = Plain(_CANARY_BYTES)
        _attempt(connection, lambda bench: open_blob(bench, blob, CANARY_HEADER, lambda _: opened))
        if not opened.matches(value):
            raise NotConforming("the token does not open what it sealed")
        _attempt(connection, lambda bench: _prove_hidden(bench, blob))
        return _Canary(value, blob)

    def _make_kek(self, connection: Connection, version: int) -> tuple[int, ...]:
        table = kek_table(self._profile, self._settings.kek_label, version)
        with connection.bench() as (bench, _):
            objects = Objects(bench.module, bench.session)
            handle = objects.generate(CKM_AES_KEY_GEN, table)
            wrong = objects.differences(handle, {**table, **made_here(self._profile)})
            if wrong:
                objects.destroy(handle)
                raise NotConforming("the token made another KEK than was asked for: " + "; ".join(wrong))
        return (handle,)

    def _make_signing_pair(self, connection: Connection, label: str) -> tuple[int, ...]:
        public, private = signing_tables(self._profile, label)
        public_handle, private_handle = connection.generate_signing_pair(label, store=True)
        with connection.bench() as (bench, _):
            objects = Objects(bench.module, bench.session)
            wrong = objects.differences(public_handle, public)
            wrong += objects.differences(private_handle, {**private, **made_here(self._profile)})
            if wrong:
                objects.destroy(public_handle)
                objects.destroy(private_handle)
                raise NotConforming(f"the token made another {label} than was asked for: " + "; ".join(wrong))
        return public_handle, private_handle


def open_token(settings: TokenSettings, pin: Pin, latch: PinLatch | None) -> Token:
    """Load the module, find the token, log in, find our keys, prove that they work.

    One token at a time for each module in a process.

    Raises:
        TokenLost: There is no such token now; try again.
        CredentialRefused: The PIN was refused, now or at an earlier try with the same credential.
        NotConforming: Settings and token do not fit; the message says what to change.
        ModuleLost, CapacityExceeded: As the module says.
    """
    return Token(settings, pin, latch)


def _attempt(connection: Connection, operation: Callable[[Bench], T]) -> T:
    generation = connection.generation
    try:
        with connection.bench() as (bench, generation):
            return operation(bench)
    except SessionLost:
        connection.renew(generation)
    with connection.bench() as (bench, _):
        return operation(bench)


def _present(key: SigningKey | None, name: str) -> SigningKey:
    if key is None:
        raise NotConforming(f"there is no {name} key on the token; `tssctl hsm init` makes it")
    return key


def _prove_pairs(bench: Bench) -> None:
    """What a private key signs, the public key of its label must verify."""
    digest = secrets.token_bytes(DIGEST_BYTES)
    for key in filter(None, (bench.keys.identity, bench.keys.backup)):
        try:
            verify(key.public, digest, sign(bench, key.handle, digest))
        except InvalidSignature as error:
            raise NotConforming("a private and a public key of one label do not belong together") from error


def _prove_hidden(bench: Bench, blob: SealedBlob) -> None:
    """An unwrapped share key must not be readable: some tokens ignore what the template says about that."""
    objects = Objects(bench.module, bench.session)
    profile = bench.suite.profile
    handle = objects.unwrap(
        profile.wrap, bench.keys.keks[blob.kek_version], blob.wrapped_key, opened_key_table(profile)
    )
    try:
        if objects.readable(handle):
            raise NotConforming(
                "the token ignores CKA_SENSITIVE and CKA_EXTRACTABLE on unwrapping: anyone with the PIN could read "
                "share keys; it cannot be used for tier A"
            )
    finally:
        lib.hsm_destroy_object(bench.module, bench.session, handle)
