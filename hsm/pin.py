"""The PIN, in locked C memory for as long as a login takes, and the latch that lets a wrong one be tried only once."""

import json
import os
import stat
import struct
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

from hsm._direct import ffi, lib
from hsm.errors import CKR, CredentialRefused, class_of, name_of

MODES: Final = frozenset({0o400, 0o600})
ACL: Final = "system.posix_acl_access"
ACL_VERSION: Final = struct.pack("<I", 2)
ACL_ENTRY: Final = struct.Struct("<HHI")
"""Tag, permissions, id: linux/posix_acl_xattr.h."""
NO_ID: Final = 0xFFFFFFFF


@dataclass(frozen=True)
class CredentialIdentity:
    """Which credential this is, told without a digest of it: a digest of a short PIN is the PIN.

    Any write to a file changes its times, and a new file has another inode, so a changed credential never has an old
    identity. `touch` gives the same PIN another chance, knowingly.
    """

    source: str
    device: int
    inode: int
    modified_ns: int
    changed_ns: int
    size: int


class Pin:
    """Where the PIN comes from. Never holds it in Python; prints nothing of it.

    A file is read anew at each login. A typed PIN is kept in locked memory until `close`, so that a token that comes
    back is logged in to without asking; it does not outlive the process.
    """

    def __init__(self, path: Path | None, identity_of: Path | None, typed: Any) -> None:  # noqa: ANN401  (cffi handle)
        """Not for callers: see `from_file` and `from_prompt`."""
        self._path = path
        self._identity_of = identity_of
        self._typed = typed
        self._refused: CredentialIdentity | None = None
        self._copied: CredentialIdentity | None = None

    @classmethod
    def from_file(cls, path: Path, *, identity_of: Path | None = None) -> Self:
        """A PIN file or systemd credential: the first line, 1..256 bytes.

        Args:
            path: A regular file of ours, or root's, that nobody else may read: mode 0400 or 0600.
            identity_of: The file whose identity the latch goes by, where `path` is a copy made anew at each start, as
                systemd's are: the `LoadCredential=` source. It need not be readable. Without it the identity of such a
                copy is its name and size alone, which errs on the side of staying latched.

        Raises:
            CredentialRefused: The file is not there, or is open to others.
        """
        pin = cls(path, identity_of, None)
        os.close(pin._open())
        if identity_of is not None:
            # As it was when it was copied: a source that changes later says nothing about the copy we have.
            pin._copied = pin.identity()
        return pin

    @classmethod
    def from_prompt(cls, prompt: str = "HSM PIN: ", terminal: Path = Path("/dev/tty")) -> Self:
        """Ask on the terminal, without echo.

        Raises:
            CredentialRefused: There is no terminal, or the operator broke off.
        """
        typed = lib.hsm_pin_ask(os.fsencode(terminal), prompt.encode())
        if typed == ffi.NULL:
            raise CredentialRefused(f"no PIN was typed: {os.strerror(ffi.errno)}")
        return cls(None, None, ffi.gc(typed, lib.hsm_pin_free))

    def __repr__(self) -> str:
        return f"<Pin from {self._path or 'the terminal'}>"

    def __reduce__(self) -> str:
        raise TypeError("a PIN does not leave the process")

    def close(self) -> None:
        """Wipe a typed PIN."""
        if self._typed is not None:
            ffi.release(self._typed)
            self._typed = None

    def identity(self) -> CredentialIdentity | None:
        """What the latch goes by; None for a typed PIN, which is another credential each time.

        Raises:
            CredentialRefused: The file is gone.
        """
        if self._path is None or self._copied is not None:
            return self._copied
        source = self._identity_of or self._path
        try:
            found = source.stat()
        except OSError as error:
            raise CredentialRefused(f"PIN file {source}: {error.strerror}") from error
        credentials = os.environ.get("CREDENTIALS_DIRECTORY")
        if credentials and source.is_relative_to(credentials):
            return CredentialIdentity(str(source), 0, 0, 0, 0, found.st_size)
        return CredentialIdentity(
            str(source), found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
        )

    def login(self, module: Any, session: int) -> int:  # noqa: ANN401  (cffi handle)
        """C_Login as the normal user; the token's answer as a CKR code. A refused PIN is not tried again.

        Raises:
            CredentialRefused: There is no PIN to be had, or it was refused already; the token was not asked.
        """
        if self._path is None:
            if self._typed is None:
                raise CredentialRefused("the typed PIN is gone: locked, waiting for PIN")
            rv = int(lib.hsm_login(module, session, self._typed))
            if class_of(rv) is CredentialRefused:
                self.close()
            return rv
        identity = self.identity()
        if self._refused == identity:
            raise CredentialRefused(f"the PIN in {self._path} was refused and the file has not changed since")
        descriptor = self._open()
        try:
            pin = lib.hsm_pin_read(descriptor)
            if pin == ffi.NULL:
                raise CredentialRefused(f"PIN file {self._path}: {os.strerror(ffi.errno)}")
        finally:
            os.close(descriptor)
        try:
            rv = int(lib.hsm_login(module, session, pin))
        finally:
            lib.hsm_pin_free(pin)
        if class_of(rv) is CredentialRefused:
            self._refused = identity
        return rv

    def _open(self) -> int:
        try:
            # Not a FIFO's open that waits for a writer, and not through a link somebody else can turn.
            descriptor = os.open(str(self._path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise CredentialRefused(f"PIN file {self._path}: {error.strerror}") from error
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            problem = "is not a regular file"
        elif stat.S_IMODE(found.st_mode) not in MODES and not _listed_for_us_alone(descriptor):
            problem = f"has mode {stat.S_IMODE(found.st_mode):04o}; must be 0400 or 0600"
        elif found.st_uid not in (os.geteuid(), 0):
            problem = f"belongs to uid {found.st_uid}; must belong to uid {os.geteuid()} or root"
        else:
            return descriptor
        os.close(descriptor)
        raise CredentialRefused(f"PIN file {self._path} {problem}")


def _listed_for_us_alone(descriptor: int) -> bool:
    """Whether an access list lets us read it, and beside its owner nobody else.

    So systemd gives a credential to a unit's user where its file system has such lists: the file is root's, and its
    mode reads 0440, for the list's mask stands in the group's place.
    """
    owner, user, group, mask, other = 0x01, 0x02, 0x04, 0x10, 0x20
    read = 4
    wanted = (
        (owner, read, NO_ID),
        (user, read, os.geteuid()),
        (group, 0, NO_ID),
        (mask, read, NO_ID),
        (other, 0, NO_ID),
    )
    try:
        return os.getxattr(descriptor, ACL) == ACL_VERSION + b"".join(ACL_ENTRY.pack(*entry) for entry in wanted)
    except OSError:
        return False


class _Outcome(StrEnum):
    TRYING = "trying"
    REFUSED = "refused"
    ACCEPTED = "accepted"


@dataclass(frozen=True)
class _Record:
    """What the latch's file says."""

    credential: CredentialIdentity
    outcome: _Outcome
    accepted_by: str | None
    """Serial of the token that took this credential at an earlier login."""
    code: str | None


class PinLatch:
    """One file in a state directory that remembers what became of the last credential.

    It says `trying` on disk before the token is asked, so that neither a crash nor a power cut in the middle gives a
    wrong PIN a second chance: most tokens lock for good after a few. A credential that this token accepted earlier may
    be tried again after an unknown outcome (a hung login, a killed process): it was right, and if it no longer is, it
    is `refused` with the next answer.
    """

    def __init__(self, directory: Path) -> None:
        """`directory` exists and is ours alone."""
        self._file = directory / "pin-latch.json"

    def login(self, module: Any, session: int, pin: Pin, serial: str) -> int:  # noqa: ANN401  (cffi handle)
        """Log in unless this credential was refused before; the token's answer as a CKR code.

        Raises:
            CredentialRefused: Latched, or no PIN; the token was not asked.
        """
        identity = pin.identity()
        if identity is None:
            return pin.login(module, session)
        before = self._read()
        accepted_by = None
        if before is not None and before.credential == identity:
            accepted_by = before.accepted_by
            if before.outcome is _Outcome.REFUSED or (before.outcome is _Outcome.TRYING and accepted_by != serial):
                raise CredentialRefused(
                    f"latched: this PIN was tried ({before.code or 'outcome unknown'}) and is not tried again; "
                    f"correct {identity.source}, or touch it to try the same PIN once more"
                )
        self._write(_Record(identity, _Outcome.TRYING, accepted_by, None))
        rv = pin.login(module, session)
        if rv in (CKR.OK, CKR.USER_ALREADY_LOGGED_IN):
            self._write(_Record(identity, _Outcome.ACCEPTED, serial, None))
        elif class_of(rv) is CredentialRefused:
            self._write(_Record(identity, _Outcome.REFUSED, None, name_of(rv)))
        elif before is not None:
            self._write(before)  # the token answered, but about itself and not about the PIN
        else:
            self.release()
        return rv

    def release(self) -> None:
        """Forget everything: the same credential may be tried again. An operator's decision."""
        self._file.unlink(missing_ok=True)
        self._sync_directory()

    def _read(self) -> _Record | None:
        try:
            read = json.loads(self._file.read_bytes())
            return _Record(
                **(
                    read
                    | {"credential": CredentialIdentity(**read["credential"]), "outcome": _Outcome(read["outcome"])}
                )
            )
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            # Rather locked than a wrong PIN tried again because a file was damaged.
            raise CredentialRefused(f"{self._file} is damaged; remove it to try the PIN once more") from error

    def _write(self, record: _Record) -> None:
        fresh = self._file.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:  # noqa: PTH123  (a descriptor has no path)
            file.write(json.dumps(asdict(record)).encode())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._file)
        self._sync_directory()

    def _sync_directory(self) -> None:
        directory = os.open(self._file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
