"""The HSM as the rest of the custodian sees it: there, or away for a reason, and brought back by itself.

One thread keeps the connection: it logs in, proves every ten seconds that the token works, and after a loss tries each
second until it is back. Operations run on the caller's thread, under the watchdog's eye.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from daemon.custody import log
from daemon.custody.policy import PinCredential, PinFile, PolicyRefused
from daemon.custody.refusal import Refusal
from daemon.custody.state import StateRefused
from hsm import (
    PROFILES,
    CredentialRefused,
    DataAltered,
    HsmError,
    ModuleLost,
    NotConforming,
    Pin,
    PinLatch,
    SessionLost,
    Token,
    TokenLost,
    TokenSettings,
    open_token,
)
from hsm.doctor import examine
from tss_cffi import SecretBytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.custody.policy import CustodianPolicy
    from daemon.custody.watchdog import Watchdog
    from hsm import CredentialIdentity, SealedBlob, SealHeader, TokenStatus
    from hsm.doctor import Report

T = TypeVar("T")

PROBE_SECONDS: Final = 10.0
"""Between proofs that an idle token works; some drop sessions after 15 s of silence."""
OTHER_THREADS: Final = 2
"""That ask the token besides: the keeper, and who seals pre-parameters."""
RETRY_SECONDS: Final = 1.0
CONNECT_CALLS: Final = 1.5
"""A connect, of many calls, may take so many times as long as one."""
CONNECT_SECONDS: Final = 7.0
"""But no longer than this: with a new process after it, ten seconds."""
EXAMINE_CALLS: Final = 60
"""All conformance checks may take so many times as long as one call."""
FRESH_PROCESS_TRIES: Final = 3
"""Failed reconnects after which only a fresh process, with a fresh module, can help."""
STALE_STATUS: Final = 75
"""Exit status (EX_TEMPFAIL) of a process that ends to make room for a fresh one."""
RECOVERY_BITS: Final = 3072

VaultState = Literal["ready", "starting", "locked", "credential", "token"]


class Vault:
    """Our keys in the HSM. Any thread may call; a call that fails for the token's sake wakes the keeper.

    Attributes:
        state, reason: As `wire.Status` has them.
        operations, errors: Counters, since the start.
    """

    def __init__(self, policy: CustodianPolicy, watchdog: Watchdog, *, may_ask: bool, operator: bool = False) -> None:
        """Nothing is touched before `start`.

        Args:
            policy: Which module, token, PIN and recovery key.
            watchdog: Ends the process when a call hangs.
            may_ask: Somebody sits at the terminal and can type a PIN.
            operator: systemd did not start us: a PIN that is its credential is asked for instead.
        """
        self.state: VaultState = "starting"
        self.reason = "the HSM is being opened"
        self.operations = 0
        self.errors = 0
        self._policy = policy
        self._watchdog = watchdog
        self._may_ask = may_ask
        self._typed_instead = operator and "CREDENTIALS_DIRECTORY" not in os.environ
        self.idle: Callable[[], bool] = lambda: True
        """Whether ending this process would end no ceremony."""
        self.admit: Callable[[bytes, tuple[int, ...]], None] = lambda _, __: None
        """Is told the token's identity key and KEK versions; raises StateRefused where this token must not be."""
        self.highest_kek: Callable[[], int] = lambda: 0
        """The newest KEK version that ever was on a token of ours."""
        self.settled = threading.Event()
        """Set once the first attempt to connect has ended, one way or the other."""
        os.environ.update(policy.module_environment)
        self._latch = PinLatch(policy.state_directory)
        self._started = False
        self._pin: Pin | None = None
        self._refused: CredentialIdentity | None = None
        self._token: Token | None = None
        self._lost = threading.Event()
        self._stating = threading.Lock()
        """Held while the state is set: by the keeper, and by whoever felt the loss of the token."""
        self._connecting = threading.Lock()
        """Held while connecting and while keys are made: a reconnect in between would pull the token away."""
        self._status: TokenStatus | None = None
        self.threads = policy.threads or os.cpu_count() or 1
        """For ceremonies, which compute for the most part."""
        profile = PROFILES.get(policy.profile)  # one that does not exist is refused where the token is opened
        self.row_threads = 1 if profile is not None and profile.in_process else self.threads
        """For what opens rows, beside them: the token's work for the most part."""
        self._settings = TokenSettings(
            module_path=policy.module_path,
            token_label=policy.token_label,
            serial=policy.serial or None,
            profile=policy.profile,
            recovery_key=read_recovery_key(policy),
            init_string=policy.module_arguments or None,
            sessions=self.threads + self.row_threads + OTHER_THREADS,
        )

    @property
    def status(self) -> TokenStatus | None:
        """What the token said when it was last connected; None before."""
        return self._status

    @property
    def recovery_fingerprint(self) -> bytes:
        """Of the recovery key that is sealed to; empty without one."""
        return bytes.fromhex(self._policy.recovery.fingerprint) if self._policy.recovery else b""

    def start(self) -> None:
        """Begin to keep the connection, in a thread of its own. Again: nothing."""
        if self._started:
            return
        self._started = True
        threading.Thread(target=self._live, name="vault", daemon=True).start()

    def sign(self, digest: bytes) -> bytes:
        """The identity key's signature over 32 bytes: r||s, 64 bytes, low s. Raises Refusal."""
        return self._run("C_Sign", lambda token: token.sign_identity(digest))

    def identity(self) -> bytes:
        """Our identity key, 33 bytes. Raises Refusal."""
        return self._run("identity key", Token.identity_public_key)

    def seal(self, secret: SecretBytes, header: SealHeader) -> SealedBlob:
        """Seal under a fresh share key. Raises Refusal."""
        return self._run("sealing", lambda token: token.seal(secret, header))

    def open(self, blob: SealedBlob, header: SealHeader) -> SecretBytes:
        """Open into locked memory. Raises Refusal: `altered` where the blob is to blame."""
        self.check_kek(blob.kek_version)
        made: list[SecretBytes] = []

        def room(length: int) -> SecretBytes:
            made.append(SecretBytes(length))
            return made[0]

        try:
            self._run("opening", lambda token: token.open(blob, header, room))
        except BaseException:
            for secret in made:
                secret.close()
            raise
        return made[0]

    def check_kek(self, version: int) -> None:
        """Refuse where the token lacks a KEK that was once ours: the row is not to blame for that. Raises Refusal."""
        status = self._status if self.state == "ready" else None
        if status is not None and version not in status.kek_versions and 0 < version <= self.highest_kek():
            raise Refusal(
                "refused",
                f"KEK version {version} is gone from the token: bring back the token that has it",
                "sealed.kek_version",
            )

    def make_keys(self) -> None:
        """KEK, identity and backup key, on a token that has none. Raises Refusal."""

        def make(token: Token) -> None:
            try:
                token.create_keys()
            except NotConforming as error:
                raise Refusal("refused", str(error)) from None
            self._note(token)

        with self._connecting:
            self._run("making keys", make, keyless=True)

    def examine(self) -> Report:
        """The conformance checks, which need the module for themselves. Raises Refusal: after `start`."""
        if self._started:
            raise Refusal("state", "the HSM is in use: the checks need a custodian of their own")
        self._started = True
        try:
            pin = self._pin_to_try()
        except CredentialRefused as error:
            raise Refusal("credential", str(error)) from None
        if pin is None:
            raise Refusal("locked", self.reason)
        with self._watchdog.watching("hsm doctor", times=EXAMINE_CALLS):
            return examine(self._settings, pin, self._latch)

    def new_kek(self) -> None:
        """The next version of the KEK. Raises Refusal."""

        def make(token: Token) -> None:
            token.new_kek_version()
            if not self._note(token):  # not written down, or not all there: looked at again by opening it anew
                self._lost.set()

        self._run("making a KEK", make)

    def _run(self, what: str, call: Callable[[Token], T], *, keyless: bool = False) -> T:
        token, state = self._token, self.state
        if token is None or not (keyless or state == "ready"):
            raise Refusal(state if state in {"locked", "credential"} else "token", self.reason)
        self.operations += 1
        try:
            with self._watchdog.watching(what):
                return call(token)
        except DataAltered as error:
            self.errors += 1
            raise Refusal("altered", f"{what}: {error}") from None
        except HsmError as error:
            self.errors += 1
            if isinstance(error, ModuleLost | SessionLost | CredentialRefused):
                self._lose()
            raise Refusal("token", f"{what}: {error}") from None

    def _live(self) -> None:
        try:
            self._keep()
        except Exception:  # noqa: BLE001  (whatever it is: it is told, and the process ends)
            # Nobody else would bring the HSM back.
            log.exception("the keeper of the HSM met a defect")
            os._exit(STALE_STATUS)

    def _keep(self) -> None:
        """The keeper's life."""
        failures = 0
        while True:
            try:
                with self._connecting:
                    # Ready: the keys that were missing have been made meanwhile.
                    token = self._token if self.state == "ready" else self._connect()
            except HsmError as error:
                failures += 1
                self._away(error)
                self.settled.set()
                if failures >= FRESH_PROCESS_TRIES and _module_is_ill(error) and self.idle():
                    log.error("only a fresh process can help the module", reason=self.reason)
                    os._exit(STALE_STATUS)
                time.sleep(RETRY_SECONDS)
                continue
            self.settled.set()
            failures = 0
            if token is None:
                time.sleep(RETRY_SECONDS)
            else:
                self._hold(token)

    def _connect(self) -> Token | None:
        """A token that works; None where trying is pointless until somebody changes something.

        Raises:
            HsmError: The token cannot be used now.
        """
        self._lost.clear()
        pin = self._pin_to_try()
        if pin is None:
            return None
        with self._watchdog.watching("connecting to the HSM", times=connect_calls(self._policy.hsm_call_seconds)):
            if self._token is None:
                self._token = open_token(self._settings, pin, self._latch)
            else:
                self._token.reconnect()
        self._refused = None
        return self._token if self._note(self._token) else None

    def _note(self, token: Token) -> bool:
        """Take in what a connected token has; whether that is all we need."""
        self._status = status = token.status()
        if status.identity_public is None or status.current_kek is None:
            self._set("token", "the token has no keys of ours; `tssctl hsm init` makes them")
            return False
        try:
            self.admit(status.identity_public, status.kek_versions)
        except StateRefused as error:
            self._set("token", str(error))
            return False
        self._set("ready", "")
        return True

    def _hold(self, token: Token) -> None:
        """Return when the token was lost."""
        while not self._lost.wait(PROBE_SECONDS):
            try:
                with self._watchdog.watching("probing the HSM"):
                    token.probe()
            except HsmError as error:
                self.errors += 1
                self._away(error)
                return
        self._lose()

    def _lose(self) -> None:
        """Ask nothing more of a token that failed; the keeper opens it again."""
        try:
            # First: a keeper that woke before it would have set `ready` already, and never looked again.
            self._set("token", "the HSM failed and is being opened again", only_from="ready")
        finally:
            self._lost.set()

    def _pin_to_try(self) -> Pin | None:
        """The PIN, unless the token refused this very one."""
        source = self._policy.pin
        if self._pin is None:
            if isinstance(source, PinFile):
                self._pin = Pin.from_file(source.path)
            elif isinstance(source, PinCredential) and not self._typed_instead:
                directory = os.environ.get("CREDENTIALS_DIRECTORY")
                if directory is None:
                    raise CredentialRefused(f"no systemd credential {source.name}: the unit has no LoadCredential=")
                self._pin = Pin.from_file(Path(directory) / source.name, identity_of=source.file)
            elif self._may_ask:
                self._set("locked", "waiting for the PIN to be typed at the terminal")
                self._may_ask = False
                self._pin = Pin.from_prompt(f"PIN of HSM token {self._policy.token_label}: ")
            else:
                self._set("locked", "waiting for the PIN: stop tssd and start it from a terminal to type it")
                return None
        if self._refused is not None and self._pin.identity() == self._refused:
            return None
        return self._pin

    def _away(self, error: HsmError) -> None:
        if not isinstance(error, CredentialRefused):
            self._set("token", str(error))
            return
        identity = None
        if self._pin is not None:
            with suppress(CredentialRefused):
                identity = self._pin.identity()
        if identity is None and self._policy.pin.source == "prompt":
            if self._pin is not None:
                self._pin.close()
                self._pin = None
            self._set("locked", f"{error}; stop tssd and start it from a terminal to type the PIN")
            return
        self._refused = identity
        self._set("credential", str(error))

    def _set(self, state: VaultState, reason: str, *, only_from: VaultState | None = None) -> None:
        with self._stating:
            if only_from is not None and self.state != only_from:
                return
            before, now = (self.state, self.reason), (state, reason)
            self.state, self.reason = now
        if now != before:  # told without the lock: standard error may be full, or gone
            log.info("HSM", state=state, reason=reason)


def connect_calls(seconds: int) -> float:
    """What a connect may take, in calls that may take so many seconds each."""
    return min(CONNECT_CALLS, CONNECT_SECONDS / seconds)


def _module_is_ill(error: HsmError) -> bool:
    return isinstance(error, ModuleLost) and not isinstance(error, TokenLost)


def read_recovery_key(policy: CustodianPolicy) -> bytes | None:
    """DER SubjectPublicKeyInfo of the recovery key, held against its fingerprint; None where none is set.

    Raises:
        PolicyRefused: The file is not there, is no RSA key of 3072 bits or more, or is another key.
    """
    if policy.recovery is None:
        return None
    path = policy.recovery.public_key
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise PolicyRefused(f"custodian.recovery.public_key {path}: {error}") from None
    if not isinstance(key, RSAPublicKey) or key.key_size < RECOVERY_BITS:
        raise PolicyRefused(f"custodian.recovery.public_key {path}: not an RSA key of at least {RECOVERY_BITS} bits")
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    fingerprint = hashlib.sha256(der).hexdigest()
    if fingerprint != policy.recovery.fingerprint:
        raise PolicyRefused(
            f"custodian.recovery.fingerprint: {path} has {fingerprint}; set that if it is the key of your recovery HSM"
        )
    return der
