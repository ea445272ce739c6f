"""The custodian's own memory: what it did, in a hash chain, and what it must never do again.

A directory of mode 0700 with one append-only file, `chain`. Its first record, the base, says where the chain stood when
the file was begun; every further one is an event. A record is its length and the complement of that, u32 big-endian
each, one MessagePack value of so many bytes, and 32 bytes:

    base:   SHA-256("tssd/1/chain-base" || 0x00 || value)
    event:  SHA-256("tssd/1/chain" || 0x00 || the digest before || value), the chain's new head

Nothing is answered before its event is on the disk. A process that dies while it writes leaves a piece of a record at
the end: that event was never answered for, and the piece is cut off. Anything else that does not verify is refused.
Whether the whole directory was put back to an earlier day shows only against a checkpoint that was signed since: see
`compare`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import struct
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Self

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

CHAIN: Final = "chain"
"""The file's name."""
MINUTE: Final = 60.0
HOUR: Final = 3600.0
HEADER: Final = struct.Struct(">II")
COMPLEMENT: Final = 0xFFFFFFFF
DIGEST_BYTES: Final = 32
REWRITE_EVENTS: Final = 10_000
"""Events after which the file is begun anew, so that reading it at start stays short."""


class StateRefused(Exception):
    """The directory cannot be used, or was rolled back; the message says what to do."""


class Revoked(Exception):
    """The share has a tombstone, or a newer generation; or the pre-parameters were spent."""


class RateExceeded(Exception):
    """More signings than the policy allows in a minute or an hour."""


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="is"):
    """Base of what the chain holds."""


class Use(Event, frozen=True):
    """A key was used.

    at: seconds since 1970. digest: the message hash of a signing; empty otherwise.
    """

    kind: Literal["keygen", "sign", "reseal"]
    at: int
    session: bytes
    party_id: str
    share_id: str
    digest: bytes
    plain: bool


class Tombstone(Event, frozen=True):
    """This share must not be used again."""

    share_id: str


class Spent(Event, frozen=True):
    """These pre-parameters were opened for a keygen."""

    prepared_id: str


class Confirmed(Event, frozen=True):
    """This seat's confirmation of a keygen was signed: an abort notice must not be, from here on."""

    session: bytes
    party_id: str


class PinsSeen(Event, frozen=True):
    """A list of pins with this number was signed or accepted."""

    number: int


class RecoveryKey(Event, frozen=True):
    """From here on shares are sealed to this recovery key; empty: to none."""

    fingerprint: bytes


class Identity(Event, frozen=True):
    """From here on the token's identity key is this one, 33 bytes."""

    public: bytes


class KekVersion(Event, frozen=True):
    """The token has this version of the KEK, and no higher one: from here on a token without it is not ours."""

    version: int


class Generation(Event, frozen=True):
    """Everybody has confirmed this generation of our share of this key: earlier ones must not be used again."""

    party_id: str
    public_key: bytes
    generation: int


class _Base(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    format: Literal[1, 2]
    """1: from before KEK versions were remembered."""
    count: int
    head: bytes
    pins_number: int
    recovery: bytes
    tombstones: tuple[str, ...]
    spent: tuple[str, ...]
    confirmed: tuple[tuple[bytes, str], ...]
    signings: tuple[int, ...]
    """Times of those that may still count against the rate."""
    identity: bytes = b""
    earlier_identities: tuple[bytes, ...] = ()
    generations: tuple[tuple[str, bytes, int], ...] = ()
    kek_version: int = 0
    highest_kek_version: int = 0


_EMPTY: Final = _Base(
    format=2,
    count=0,
    head=bytes(DIGEST_BYTES),
    pins_number=0,
    recovery=b"",
    tombstones=(),
    spent=(),
    confirmed=(),
    signings=(),
)
_encoder: Final = msgspec.msgpack.Encoder()
_bases: Final = msgspec.msgpack.Decoder(_Base)
_events: Final = msgspec.msgpack.Decoder(
    Use | Tombstone | Spent | Confirmed | PinsSeen | RecoveryKey | Identity | KekVersion | Generation
)


class Peering(NamedTuple):
    """What lists of pins are held against.

    pins_number: the highest number of a list that was seen. identities: the token's identity keys, in their order; the
    last one is the present one.
    """

    pins_number: int = 0
    identities: tuple[bytes, ...] = ()

    @property
    def identity(self) -> bytes:
        """The present one; empty before the first."""
        return self.identities[-1] if self.identities else b""


class Chain:
    """What a chain says, as far as it was read.

    Attributes:
        count: Events in it, from its beginning.
        head: Digest of the last one; 32 zero bytes before the first.
        recovery: Fingerprint of the recovery key in it.
    """

    def __init__(self) -> None:
        """Nothing was read yet."""
        self.count = 0
        self.head = bytes(DIGEST_BYTES)
        self.recovery = b""
        self._pins_number = 0
        self._tombstones: set[str] = set()
        self._spent: set[str] = set()
        self._confirmed: set[tuple[bytes, str]] = set()
        self._identities: list[bytes] = []
        """The token's identity keys, each from when it was the present one; the last one is."""
        self._kek_version = 0
        """The newest KEK version that the present token had; 0 before it was seen."""
        self._highest_kek_version = 0
        """The newest that any token of ours had."""
        self._generations: dict[tuple[str, bytes], int] = {}
        self._signings: deque[tuple[float, int]] = deque()
        """(when on this process's clock, seconds since 1970) of each signing in the last hour."""
        self._heads: list[bytes] = [self.head]
        self._first = 0
        """`_heads[i]` is the head at count `_first + i`."""

    @property
    def peering(self) -> Peering:
        """What lists of pins are held against."""
        return Peering(self._pins_number, tuple(self._identities))

    def _replay(self, content: bytes, path: Path) -> int:
        """Take everything in that the file at path holds; the offset behind the last whole record."""
        try:
            return self._take(content)
        except (msgspec.DecodeError, ValueError, StateRefused) as error:
            raise StateRefused(
                f"{path} is damaged ({error}); it does not open again by itself: restore it, or move it away and "
                "revoke what it would have refused"
            ) from None

    def _take(self, content: bytes) -> int:
        records = _records(content)
        try:
            end, value, digest = next(records)
        except StopIteration:
            raise StateRefused("it does not begin with a whole base record") from None
        if digest != _based(value):
            raise StateRefused("its base record does not verify")
        base = _bases.decode(value)
        self.count, self.head = base.count, base.head
        self._first, self._heads = base.count, [base.head]
        self._pins_number, self.recovery = base.pins_number, base.recovery
        self._tombstones, self._spent = set(base.tombstones), set(base.spent)
        self._confirmed = set(base.confirmed)
        self._identities = [*base.earlier_identities, *filter(None, (base.identity,))]
        self._kek_version, self._highest_kek_version = base.kek_version, base.highest_kek_version
        self._generations = {(party_id, key): generation for party_id, key, generation in base.generations}
        for at in base.signings:
            self._count_signing(at)
        for behind, value, digest in records:
            if digest != _chained(self.head, value):
                if behind == len(content) and not any(digest[-8:]):
                    break  # a file system may give a file its new length before its content
                raise StateRefused(f"event {self.count + 1} does not verify")
            self._apply(_events.decode(value), digest)
            end = behind
        return end

    def _apply(self, event: Event, digest: bytes) -> None:
        self.count += 1
        self.head = digest
        self._heads.append(digest)
        match event:
            case Use(kind="sign", at=at):
                self._count_signing(at)
            case Tombstone(share_id=share_id):
                self._tombstones.add(share_id)
            case Spent(prepared_id=prepared_id):
                self._spent.add(prepared_id)
            case Confirmed(session=session, party_id=party_id):
                self._confirmed.add((session, party_id))
            case PinsSeen(number=number):
                self._pins_number = max(self._pins_number, number)
            case RecoveryKey(fingerprint=fingerprint):
                self.recovery = fingerprint
            case Identity(public=public):
                self._identities.append(public)
                self._kek_version = 0  # it is another token, on an operator's word: what it has is seen next
            case KekVersion(version=version):
                self._kek_version = version
                self._highest_kek_version = max(self._highest_kek_version, version)
            case Generation(party_id=party_id, public_key=public_key, generation=generation):
                self._generations[party_id, public_key] = generation

    def _count_signing(self, at: int) -> None:
        # On a clock that cannot be set. One that lies in the future, by a clock that was set back, is taken as of now.
        age = max(0.0, time.time() - at)
        if age < HOUR:
            self._signings.append((time.monotonic() - age, at))


class State(Chain):
    """An opened state directory; ours alone until `close`. For any number of threads."""

    def __init__(self, directory: Path) -> None:
        """Open, lock, read and verify.

        Raises:
            StateRefused: Not a directory of ours alone, in use by another process, or damaged.
        """
        super().__init__()
        self._directory = open_directory(directory)
        self._path = directory / CHAIN
        self._lock = threading.Lock()
        self._lost = ""
        try:
            try:
                fcntl.flock(self._directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StateRefused(f"{directory} is in use by another custodian") from None
            self._file = self._read()
        except BaseException:
            os.close(self._directory)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the directory free."""
        os.close(self._file)
        os.close(self._directory)

    def append(self, event: Event) -> None:
        """Put an event into the chain; it is on the disk when this returns.

        Raises:
            StateRefused: It could not be written. Where it is unknown what the disk holds, every later call fails too.
        """
        with self._lock:
            self._append(event)

    def use(self, use: Use, *, per_minute: int, per_hour: int) -> None:
        """Record a use of a share, where it may be used.

        Raises:
            Revoked: It has a tombstone.
            RateExceeded: For signings: one more would be too many.
            StateRefused: As in `append`.
        """
        with self._lock:
            if use.share_id in self._tombstones:
                raise Revoked(f"share {use.share_id} is revoked")
            if use.kind == "sign":
                self._check_rate(per_minute, per_hour)
            self._append(use)

    def revoke(self, share_id: str) -> None:
        """Remember for ever that this share must not be used. Repeating it changes nothing."""
        with self._lock:
            if share_id not in self._tombstones:
                self._append(Tombstone(share_id=share_id))

    def spend(self, prepared_id: str) -> None:
        """Record that pre-parameters are used.

        Raises:
            Revoked: They were before.
        """
        with self._lock:
            if prepared_id in self._spent:
                raise Revoked(f"pre-parameters {prepared_id} were used before")
            self._append(Spent(prepared_id=prepared_id))

    def confirm(self, session: bytes, party_id: str) -> None:
        """Record that a keygen is about to be confirmed. Repeating it changes nothing."""
        with self._lock:
            if (session, party_id) not in self._confirmed:
                self._append(Confirmed(session=session, party_id=party_id))

    def is_confirmed(self, session: bytes, party_id: str) -> bool:
        """Whether that keygen was confirmed."""
        with self._lock:
            return (session, party_id) in self._confirmed

    def admit_identity(self, public: bytes) -> None:
        """Hold the token's identity key against the one before, and remember it.

        Raises:
            StateRefused: It is another one, and no operator's `name_identity` says that it shall be.
        """
        with self._lock:
            if public != self.peering.identity:
                check_named(self._path.parent, self.peering.identity, public)
                self._append(Identity(public=public))

    def admit_kek(self, versions: Collection[int]) -> None:
        """Hold the KEK versions that a token has against the newest that it had, and remember its newest.

        Raises:
            StateRefused: That one is gone: an older copy of the token, which opens nothing that was sealed since.
        """
        with self._lock:
            known, newest = self._kek_version, max(versions, default=0)
            if known and known not in versions:
                raise StateRefused(
                    f"KEK version {known} is gone from the token, which has {sorted(versions)}: bring back the token "
                    "that has it, or bring that KEK to this one; no share is to blame"
                )
            if newest > known:
                self._append(KekVersion(version=newest))

    def highest_kek(self) -> int:
        """The newest KEK version that ever was on a token of ours."""
        with self._lock:
            return self._highest_kek_version

    def admit(self, identity: bytes, kek_versions: Collection[int]) -> None:
        """Both: hold a token against the one before.

        Raises:
            StateRefused: As they say.
        """
        self.admit_identity(identity)
        self.admit_kek(kek_versions)

    def succeed(self, party_id: str, public_key: bytes, generation: int) -> None:
        """Remember that everybody has confirmed this generation, if it is a newer one."""
        with self._lock:
            if generation > self._generations.get((party_id, public_key), 0):
                self._append(Generation(party_id=party_id, public_key=public_key, generation=generation))

    def newest_generation(self, party_id: str, public_key: bytes) -> int:
        """Of our share of this key, as far as we know."""
        with self._lock:
            return self._generations.get((party_id, public_key), 0)

    def see_pins(self, number: int) -> None:
        """Record the number of a list of pins, if it is a newer one."""
        with self._lock:
            if number > self._pins_number:
                self._append(PinsSeen(number=number))

    def recall(self) -> Peering:
        """What lists of pins are held against."""
        with self._lock:
            return self.peering

    def is_revoked(self, share_id: str) -> bool:
        """Whether the share has a tombstone."""
        with self._lock:
            return share_id in self._tombstones

    def is_spent(self, prepared_id: str) -> bool:
        """Whether these pre-parameters were used."""
        with self._lock:
            return prepared_id in self._spent

    def problem(self) -> str:
        """Why nothing more is taken in, in an operator's words; empty while the chain is well."""
        with self._lock:
            return self._lost

    def position(self) -> tuple[int, bytes]:
        """Count and head, taken together."""
        with self._lock:
            return self.count, self.head

    def compare(self, count: int, head: bytes) -> None:
        """Hold the chain against a position that was signed before.

        Raises:
            StateRefused: The chain is shorter, or another one. Every later call that would write fails too.
        """
        with self._lock:
            back = f"put the newest {self._path.parent} back"
            if count > self.count:
                self._lost = (
                    f"the state is older than a checkpoint: {self.count} events, the checkpoint has {count}; {back}"
                )
            elif count >= self._first and self._heads[count - self._first] != head:
                self._lost = f"the state is another one than a checkpoint at {count} events tells of; {back}"
            if self._lost:
                raise StateRefused(self._lost)

    def _check_rate(self, per_minute: int, per_hour: int) -> None:
        now = time.monotonic()
        while self._signings and self._signings[0][0] <= now - HOUR:
            self._signings.popleft()
        last_minute = sum(1 for when, _ in self._signings if when > now - MINUTE)
        for done, limit, span in ((last_minute, per_minute, "minute"), (len(self._signings), per_hour, "hour")):
            if done >= limit:
                raise RateExceeded(f"{done} signings in the last {span}; the policy allows {limit}")

    def _append(self, event: Event) -> None:
        if self._lost:
            raise StateRefused(self._lost)
        value = _encoder.encode(event)
        digest = _chained(self.head, value)
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            _write(self._file, _record(value, digest))
        except OSError as error:
            # A piece of a record is no harm as long as nothing follows it.
            self._cut(end)
            raise StateRefused(f"{self._path}: {error}") from None
        try:
            os.fdatasync(self._file)
        except OSError as error:
            self._lost = f"{self._path}: {error}; what the disk holds is unknown"
            raise StateRefused(self._lost) from None
        self._apply(event, digest)
        if self.count - self._first >= REWRITE_EVENTS:
            self._rewrite()

    def _cut(self, end: int) -> None:
        try:
            os.ftruncate(self._file, end)
        except OSError as error:
            self._lost = f"{self._path}: {error}; the file has half an event at its end"

    def _read(self) -> int:
        """Read the chain, making it where there is none; the open file."""
        fresh = self._path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return self._begin(_EMPTY)
        with os.fdopen(os.dup(descriptor), "rb") as file:
            content = file.read()
        try:
            end = self._replay(content, self._path)
        except StateRefused:
            os.close(descriptor)
            raise
        if end < len(content):
            os.ftruncate(descriptor, end)
            os.fsync(descriptor)
        return descriptor

    def _rewrite(self) -> None:
        """Begin the file anew from where the chain stands."""
        self._first, self._heads = self.count, [self.head]
        old = self._file
        self._file = self._begin(
            _Base(
                format=2,
                count=self.count,
                head=self.head,
                pins_number=self._pins_number,
                recovery=self.recovery,
                tombstones=tuple(sorted(self._tombstones)),
                spent=tuple(sorted(self._spent)),
                confirmed=tuple(sorted(self._confirmed)),
                signings=tuple(at for _, at in self._signings),
                identity=self.peering.identity,
                earlier_identities=tuple(self._identities[:-1]),
                generations=tuple((*share, generation) for share, generation in sorted(self._generations.items())),
                kek_version=self._kek_version,
                highest_kek_version=self._highest_kek_version,
            )
        )
        os.close(old)

    def _begin(self, base: _Base) -> int:
        value = _encoder.encode(base)
        fresh = self._path.with_suffix(".new")
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        _write(descriptor, _record(value, _based(value)))
        os.fsync(descriptor)
        fresh.replace(self._path)
        os.fsync(self._directory)
        return descriptor


def open_directory(directory: Path) -> int:
    """Open the state directory, making it where only its parent exists; a descriptor.

    Raises:
        StateRefused: It is not a directory of ours that nobody else may enter.
    """
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise StateRefused(f"state_directory {directory}: {error.strerror}") from None
    status = os.fstat(descriptor)
    problem = ""
    if status.st_uid != os.geteuid():
        problem = f"belongs to uid {status.st_uid}, not to us (uid {os.geteuid()})"
    elif stat.S_IMODE(status.st_mode) & 0o077:
        problem = f"has mode {stat.S_IMODE(status.st_mode):04o}; chmod 0700"
    if problem:
        os.close(descriptor)
        raise StateRefused(f"state_directory {directory} {problem}")
    return descriptor


def read_peering(directory: Path) -> Peering:
    """What the chain on the disk says, which a custodian that runs may be writing; nothing is locked or changed.

    Raises:
        StateRefused: It is damaged, or cannot be read.
    """
    chain, path = Chain(), directory / CHAIN
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return chain.peering
    except OSError as error:
        raise StateRefused(f"{path}: {error.strerror}") from None
    chain._replay(content, path)  # noqa: SLF001  (a class of this module)
    return chain.peering


def check_named(directory: Path, before: bytes, public: bytes) -> None:
    """Let an identity key take the place of the one before only where an operator has named it.

    Raises:
        StateRefused: It is another one, and no `name_identity` says that it shall be.
    """
    if before not in {b"", public} and public != named_identity(directory):
        raise StateRefused(
            f"the token's identity key is {public.hex()}, and not {before.hex()} as before: bring the right token "
            f"back; for a new one, `tssctl hsm init` names its key in {directory}/identity"
        )


def name_identity(directory: Path, public: bytes) -> None:
    """An operator's word: from now on this is our identity key. On the disk when this returns."""
    replace_file(directory / "identity", public.hex().encode() + b"\n")


def named_identity(directory: Path) -> bytes | None:
    """What an operator said last; None where nobody did."""
    try:
        return bytes.fromhex((directory / "identity").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def replace_file(path: Path, content: bytes) -> None:
    """Give a file new content: on the disk when this returns, and whole at any time."""
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fresh.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _based(value: bytes) -> bytes:
    return hashlib.sha256(b"tssd/1/chain-base\0" + value).digest()


def _chained(head: bytes, value: bytes) -> bytes:
    return hashlib.sha256(b"tssd/1/chain\0" + head + value).digest()


def _record(value: bytes, digest: bytes) -> bytes:
    return HEADER.pack(len(value), len(value) ^ COMPLEMENT) + value + digest


def _records(content: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(offset behind it, value, digest) of each whole record; ends before a piece of one."""
    start = 0
    while len(content) - start >= HEADER.size:
        length, complement = HEADER.unpack_from(content, start)
        if length ^ complement != COMPLEMENT:
            if any(content[start + HEADER.size :]):
                raise StateRefused(f"no record begins at byte {start}")
            return
        value = start + HEADER.size
        end = value + length + DIGEST_BYTES
        if end > len(content):
            return
        yield end, content[value : end - DIGEST_BYTES], content[end - DIGEST_BYTES : end]
        start = end


def _write(descriptor: int, data: bytes) -> None:
    """All of it."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
