"""One connection to a module: from C_Initialize to C_Finalize. Sessions, login and handles live and die with it.

Cryptoki's rules that shape this file: login belongs to the process and token, not to a session, and ends with the last
session; a session does one thing at a time; a session object dies with the session that made it and is seen by all
others; after any loss of session no handle of before is good.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pkcs11 import _pkcs11
from pkcs11.constants import Attribute
from pkcs11.mechanisms import KeyType

from hsm._direct import ffi, lib
from hsm.errors import (
    CKR,
    CapacityExceeded,
    HsmError,
    ModuleLost,
    NotConforming,
    TokenLost,
    check,
    translated,
)
from hsm.keys import (
    CKA,
    CKO_PRIVATE_KEY,
    CKO_PUBLIC_KEY,
    CKO_SECRET_KEY,
    P256_PARAMS,
    KeyRing,
    Objects,
    SigningKey,
    Table,
    compressed_point,
    kek_table,
    made_here,
    recovery_table,
    signing_tables,
)
from hsm.pin import Pin, PinLatch
from hsm.profiles import Profile
from hsm.sealing import Bench, Suite

LOGGED_IN: Final = (1, 3)
"""CKS_RO_USER_FUNCTIONS, CKS_RW_USER_FUNCTIONS."""


@dataclass(frozen=True, kw_only=True)
class TokenSettings:
    """Which token, and what our keys on it are called.

    Attributes:
        module_path: Absolute path of the Cryptoki library.
        serial: The token's serial number, to be sure; None where the label alone tells.
        profile: Name of a provider profile; hsm/profiles.py.
        recovery_key: DER SubjectPublicKeyInfo of an offline RSA key, 3072 bits or more, or None.
        init_string: Text for C_Initialize's pReserved; NSS softokn needs one.
        sessions: Most sessions to hold, which is how many operations run at a time.
    """

    module_path: Path
    token_label: str
    serial: str | None = None
    profile: str = "softhsm"
    kek_label: str = "tssd-kek"
    identity_label: str = "tssd-identity"
    backup_label: str = "tssd-backup"
    recovery_key: bytes | None = None
    init_string: str | None = None
    sessions: int = 4

    def __post_init__(self) -> None:
        if not self.module_path.is_absolute():
            raise NotConforming(f"the module's path must be absolute: {self.module_path}")
        if self.sessions < 1:
            raise NotConforming("at least one session is needed")
        labels = (self.kek_label, self.identity_label, self.backup_label)
        if len(set(labels)) != len(labels):
            raise NotConforming("KEK, identity and backup key need labels of their own")


class _Library:
    """A loaded Cryptoki library. Loaded once in the life of the process: vendors' do not survive being unloaded."""

    def __init__(self, path: Path) -> None:
        # `pkcs11.lib(path)` calls C_Initialize(NULL), which tells the module that one thread alone will ever call it,
        # and fails where an init string is needed. Its allocation loads the module; we initialise it.
        with translated("loading"):
            self.p11: Any = _pkcs11.lib.__new__(_pkcs11.lib, str(path))  # type: ignore[call-arg]  # __cinit__ takes it
        self.module = lib.hsm_module_open(os.fsencode(path))
        if self.module == ffi.NULL:
            raise ModuleLost(f"{path} is no Cryptoki library")
        self.in_use = False


_libraries: Final[dict[Path, _Library]] = {}
_loading: Final = threading.Lock()


def _claim(path: Path) -> _Library:
    """The library, for one connection at a time: a second C_Initialize would end the first one's sessions."""
    real = path.resolve()  # one library by two names is one library
    with _loading:
        library = _libraries.get(real)
        if library is None:
            library = _libraries[real] = _Library(path)
        if library.in_use:
            raise NotConforming(f"{path} is in use by another token of this process")
        library.in_use = True
        return library


@dataclass
class _Session:
    p11: Any
    handle: int
    generation: int


@dataclass(frozen=True)
class TokenFacts:
    """What the token says of itself."""

    label: str
    serial: str
    manufacturer: str
    model: str
    firmware: str
    mechanisms: frozenset[int]


class Connection:
    """An initialised module, a token found on it, a pool of logged-in sessions, our keys."""

    def __init__(
        self,
        settings: TokenSettings,
        profile: Profile,
        pin: Pin,
        latch: PinLatch | None,
        *,
        look_for_keys: bool = True,
    ) -> None:
        """Initialise, find the token, log in, find the keys unless told not to.

        Raises:
            TokenLost: No such token now.
            CredentialRefused: The PIN was refused, now or before.
            NotConforming: Two tokens or two keys answer to one name, or a setting does not fit.
            HsmError: As the module says.
        """
        self._settings = settings
        self._pin = pin
        self._latch = latch
        self._profile = profile
        self._library = _claim(settings.module_path)
        self.module = self._library.module
        self._changed = threading.Condition()
        self._renewing = threading.Lock()
        self._idle: list[_Session] = []
        self._open = 0
        self._borrowed = 0
        self._shut = False
        self.generation = 0
        self.keys = KeyRing()
        try:
            self.locks = self._initialize()
            # A module that cannot lock must see one call at a time; with one session there is never another.
            self.limit = settings.sessions if self.locks else 1
            self._token, self.facts = self._find_token()
            with self.borrow() as session:
                self._log_in(session)
                if look_for_keys:
                    self.keys = self._find_keys(session)
            self._suite = self._make_suite()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Wait for what is under way, then finalise. Whatever happens, the module is free for another connection."""
        with self._changed:
            self._shut = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._borrowed == 0)
        # Finalising ends sessions and login; its answer changes nothing any more.
        lib.hsm_finalize(self.module)
        self._idle.clear()
        with _loading:
            self._library.in_use = False

    @contextmanager
    def bench(self) -> Iterator[tuple[Bench, int]]:
        """A session for one operation, with the handles valid in it, and its generation for `renew`."""
        with self.borrow() as session:
            yield Bench(self.module, session.handle, self._suite, self.keys), session.generation

    def renew(self, generation: int) -> None:
        """Replace the sessions of `generation`, log in again where that was lost, find the keys anew.

        Raises:
            TokenLost: The keys that were there are there no longer.
            HsmError: As the token says.
        """
        with self._renewing:
            if self.generation != generation:
                return  # another thread met the same loss and was first
            with self._changed:
                stale, self._idle = self._idle, []
                self._open -= len(stale)
                self.generation += 1
            for old in stale:
                _close(old)
            with self.borrow() as session:
                self._log_in(session)
                before, found = self.keys, self._find_keys(session)
                if missing := before.keks.keys() - found.keks.keys():
                    raise TokenLost(f"KEK version {min(missing)} is no longer on the token")
                if (before.identity and not found.identity) or (before.backup and not found.backup):
                    raise TokenLost("a signing key is no longer on the token")
                self.keys = found
                self._suite = self._make_suite()

    def find_keys(self) -> KeyRing:
        """Look again, after keys were made."""
        with self._renewing, self.borrow() as session:
            self.keys = self._find_keys(session)
            self._suite = self._make_suite()
            return self.keys

    def count_sessions(self, wanted: int) -> int:
        """How many sessions the token lets us hold, ours included, up to `wanted`; they are closed again."""
        held: list[_Session] = []
        with self._changed:
            ours = self._open
        try:
            while ours + len(held) < wanted:
                held.append(self._open_session())
        except CapacityExceeded:
            pass
        finally:
            for session in held:
                _close(session)
        return ours + len(held)

    def generate_signing_pair(self, label: str, *, store: bool) -> tuple[int, int]:
        """Make a P-256 pair by its tables, on the token or for the session. Handles: public, private."""
        public, private = signing_tables(self._profile, label)
        with self.borrow() as session, translated("C_GenerateKeyPair"):
            parameters = session.p11.create_domain_parameters(
                KeyType.EC, {Attribute.EC_PARAMS: P256_PARAMS}, local=True
            )
            made = parameters.generate_keypair(
                store=store,
                label=label,
                id=label.encode(),
                public_template=_p11_template(public),
                private_template=_p11_template(private),
            )
            return int(made[0].handle), int(made[1].handle)

    @contextmanager
    def borrow(self) -> Iterator[_Session]:
        """A session that nobody else uses meanwhile.

        Raises:
            CapacityExceeded: The token gives us none, and we have none to wait for.
            ModuleLost: The connection is being closed.
        """
        session = self._take()
        try:
            yield session
        finally:
            self._give_back(session)

    def _take(self) -> _Session:
        while True:
            with self._changed:
                while not (self._shut or self._idle or self._open < self.limit):
                    self._changed.wait()
                if self._shut:
                    raise ModuleLost("the connection to the module is closed")
                self._borrowed += 1
                if self._idle:
                    return self._idle.pop()
                self._open += 1
            try:
                return self._open_session()
            except BaseException as error:
                with self._changed:
                    self._borrowed -= 1
                    self._open -= 1
                    fewer_will_do = isinstance(error, CapacityExceeded) and self._open > 0
                    if fewer_will_do:
                        self.limit = self._open
                    self._changed.notify_all()
                if not fewer_will_do:
                    raise

    def _open_session(self) -> _Session:
        generation = self.generation  # before: one that opens during a renewal counts as old
        with translated("C_OpenSession"):
            # Read-write: some tokens have no other kind, and a PIN can log only one kind in at a time.
            p11 = self._token.open(rw=True)
        return _Session(p11, int(p11.handle), generation)

    def _give_back(self, session: _Session) -> None:
        with self._changed:
            if session.generation == self.generation:
                self._idle.append(session)
                self._borrowed -= 1
                self._changed.notify_all()
                return
            self._open -= 1
        _close(session)
        with self._changed:
            self._borrowed -= 1
            self._changed.notify_all()

    def _initialize(self) -> bool:
        locks = ffi.new("int *")
        text = self._settings.init_string
        rv = lib.hsm_initialize(self.module, ffi.NULL if text is None else text.encode(), locks)
        check(rv, "C_Initialize")
        return bool(locks[0])

    def _find_token(self) -> tuple[Any, TokenFacts]:
        wanted = self._settings
        found = []
        with translated("C_GetSlotList"):
            slots = self._library.p11.get_slots(token_present=True)
        for slot in slots:
            try:
                with translated("C_GetTokenInfo"):
                    token = slot.get_token()
            except TokenLost:
                continue  # gone since the list was made
            serial = token.serial.decode("ascii", "replace").strip(" \0")
            if token.label == wanted.token_label and wanted.serial in (None, serial):
                found.append((slot, token, serial))
        name = f"token {wanted.token_label!r}" + (f" with serial {wanted.serial}" if wanted.serial else "")
        if not found:
            raise TokenLost(f"there is no {name}")
        if len(found) > 1:
            serials = ", ".join(serial for _, _, serial in found)
            raise NotConforming(f"more than one {name}: serials {serials}; state the serial")
        slot, token, serial = found[0]
        with translated("C_GetMechanismList"):
            mechanisms = frozenset(int(m) for m in slot.get_mechanisms())
        firmware = "{}.{}".format(*token.firmware_version)
        return token, TokenFacts(token.label, serial, token.manufacturer_id, token.model, firmware, mechanisms)

    def _log_in(self, session: _Session) -> None:
        state = ffi.new("unsigned long *")
        check(lib.hsm_session_state(self.module, session.handle, state), "C_GetSessionInfo")
        if state[0] in LOGGED_IN:
            return
        if self._latch is None:
            rv = self._pin.login(self.module, session.handle)
        else:
            rv = self._latch.login(self.module, session.handle, self._pin, self.facts.serial)
        if rv != CKR.USER_ALREADY_LOGGED_IN:
            check(rv, "C_Login")

    def _find_keys(self, session: _Session) -> KeyRing:
        names = self._settings
        objects = Objects(self.module, session.handle)
        keks: dict[int, int] = {}
        for handle in objects.find(CKO_SECRET_KEY, names.kek_label):
            version = int.from_bytes(objects.read(handle, CKA.ID) or b"")
            if version in keks:
                raise NotConforming(f"two keys are KEK version {version} ({names.kek_label!r}); one must go")
            if not 0 < version < 2**32:
                raise NotConforming(f"a key with label {names.kek_label!r} has no KEK version in its CKA_ID")
            table = kek_table(self._profile, names.kek_label, version)
            if wrong := objects.differences(handle, {**table, **made_here(self._profile)}):
                # Perhaps planted by somebody with the PIN, to have shares sealed under a key that can be read.
                raise NotConforming(f"KEK version {version} is not as we make it: {'; '.join(wrong)}")
            keks[version] = handle
        recovery = objects.create(recovery_table(names.recovery_key)) if names.recovery_key else 0
        return KeyRing(
            keks=keks,
            trusted_keks=frozenset(v for v, handle in keks.items() if objects.read(handle, CKA.TRUSTED) == b"\1"),
            identity=self._find_pair(objects, names.identity_label),
            backup=self._find_pair(objects, names.backup_label),
            recovery=recovery,
        )

    def _find_pair(self, objects: Objects, label: str) -> SigningKey | None:
        private = objects.find(CKO_PRIVATE_KEY, label)
        public = objects.find(CKO_PUBLIC_KEY, label)
        if not private and not public:
            return None
        if len(private) != 1 or len(public) != 1:
            raise NotConforming(
                f"{label!r} names {len(private)} private and {len(public)} public keys; one of each is expected"
            )
        _, table = signing_tables(self._profile, label)
        if wrong := objects.differences(private[0], {**table, **made_here(self._profile)}):
            raise NotConforming(f"{label!r} is not as we make it: {'; '.join(wrong)}")
        point = objects.read(public[0], CKA.EC_POINT)
        if point is None:
            raise NotConforming(f"the token does not tell the public key of {label!r}")
        return SigningKey(private[0], compressed_point(point))

    def _make_suite(self) -> Suite:
        # The recovery key is nobody's trusted key, so with one the share key must not ask for that.
        trusted = self.keys.current_kek in self.keys.trusted_keks and not self.keys.recovery
        return Suite(self._profile, kek_trusted=trusted)


def _close(session: _Session) -> None:
    try:
        with translated("C_CloseSession"):
            session.p11.close()  # it logged nobody in, so it logs nobody out
    except HsmError:
        pass  # it is gone already, which is why it is closed


def _p11_template(table: Table) -> dict[Attribute, Any]:
    return {Attribute(kind): value for kind, value in table.items() if kind not in (CKA.LABEL, CKA.ID, CKA.TOKEN)}
