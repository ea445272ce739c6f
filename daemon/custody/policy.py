"""What the custodian believes before anybody speaks to it: the `[custodian]` table of config.toml.

The custodian reads the table itself, at its start, from a file that neither process may write; no request can name,
widen or change any of it. tssd embeds the same model in its settings only to know the table for valid.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

PARTY_ID: Final = re.compile(r"[A-Za-z0-9_-]+-[A-Za-z0-9_]+")
PARTY_ID_MAX: Final = 128
CONFIG_MAX: Final = 1024 * 1024
"""Bytes of a configuration file; more is refused unread."""


class PolicyRefused(Exception):
    """The configuration cannot be used; the message names the key and what to do."""


def _absolute(path: Path) -> Path:
    if not path.is_absolute() or ".." in path.parts:
        raise ValueError("must be an absolute path without '..'")
    return path


def _party_id(text: str) -> str:
    if len(text) > PARTY_ID_MAX or PARTY_ID.fullmatch(text) is None:
        raise ValueError("must look like user-type: ASCII letters, digits, '_' and '-', with a dash before the type")
    return text


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
PartyIdText = Annotated[str, AfterValidator(_party_id)]
Count = Annotated[int, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PinCredential(_Table):
    """The PIN is a systemd credential (`LoadCredential=` or `LoadCredentialEncrypted=`) of this name."""

    source: Literal["credential"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = "tssd-pin"
    file: AbsolutePath | None = None
    """What systemd reads it from: not read here, but looked at to tell a changed PIN from one that was refused."""


class PinFile(_Table):
    """The PIN is the first line of a file of mode 0400 or 0600 that belongs to the custodian's user."""

    source: Literal["file"]
    path: AbsolutePath


class PinPrompt(_Table):
    """The PIN is typed at the terminal. After an automatic restart nobody is asked: the state is `locked`."""

    source: Literal["prompt"]


PinSource = Annotated[PinCredential | PinFile | PinPrompt, Field(discriminator="source")]


class RecoveryKey(_Table):
    """RSA-3072+ public key of the offline recovery HSM; every share key is wrapped under it too."""

    public_key: AbsolutePath
    """PEM file, SubjectPublicKeyInfo."""
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the DER-encoded SubjectPublicKeyInfo, in hex; a file that does not match is refused."""


class PlainCommittee(_Table):
    """A committee that may exchange bare protocol messages, unauthenticated and readable by the router.

    WARNING: keygen messages of such a committee ARE shares: whoever reads the router's traffic learns them.
    """

    protocol: Literal["gg18-v2", "gg18-v3"]
    parties: Annotated[tuple[PartyIdText, ...], Field(min_length=2, max_length=32)]
    """All n party ids, ours included, in any order."""
    keygen: Flag = False
    """Second switch: also a keygen may run plain, not only signings with a share that exists."""

    @model_validator(mode="after")
    def _distinct(self) -> PlainCommittee:
        if len(set(self.parties)) != len(self.parties):
            raise ValueError("parties: the same party id twice")
        return self


class CustodianPolicy(_Table):
    """The whole `[custodian]` table."""

    module_path: AbsolutePath
    """The PKCS#11 module."""
    module_arguments: str = ""
    """Initialisation string for modules that want one (NSS softokn)."""
    module_environment: dict[Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")], str] = Field(default_factory=dict)
    """Environment variables the module reads, such as SOFTHSM2_CONF; set before it is loaded."""
    profile: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")] = "softhsm"
    """Provider profile: mechanism numbers and quirks."""
    token_label: Annotated[str, Field(min_length=1, max_length=32)]
    serial: Annotated[str, Field(max_length=16)] = ""
    """The token's serial number; empty accepts the only token of that label."""
    pin: PinSource
    state_directory: AbsolutePath
    """Mode 0700, the custodian's own: chain, latch, pin number, tombstones."""
    party_ids: Annotated[tuple[PartyIdText, ...], Field(min_length=1)]
    """Our own party ids, exactly."""
    peer_uid: Annotated[int, Field(strict=True, ge=0)] | None = None
    """The uid tssd runs as, when it connects to a socket of ours; not needed where tssd starts the custodian."""
    recovery: RecoveryKey | None = None
    plain: tuple[PlainCommittee, ...] = ()
    signings_per_minute: Annotated[Count, Field(ge=1, le=100_000)] = 60
    signings_per_hour: Annotated[Count, Field(ge=1, le=1_000_000)] = 1200
    arena_mib: Annotated[Count, Field(ge=1, le=1024)] = 32
    """Locked memory for secrets, MiB; RLIMIT_MEMLOCK must allow it. A ceremony takes at most 512 KiB."""
    threads: Annotated[Count, Field(ge=1, le=64)] | None = None
    """Threads for protocol rounds; one per core where not set."""
    hsm_call_seconds: Annotated[Count, Field(ge=1, le=7)] = 5
    """A PKCS#11 call that takes longer ends the process: calls cannot be cancelled. With at most 7 another one is ready
    within 10 s of the beginning of a hang."""

    @model_validator(mode="after")
    def _consistent(self) -> CustodianPolicy:
        if len(set(self.party_ids)) != len(self.party_ids):
            raise ValueError("party_ids: the same party id twice")
        committees = [(entry.protocol, frozenset(entry.parties)) for entry in self.plain]
        if len(set(committees)) != len(committees):
            raise ValueError("plain: the same committee twice")
        for _, parties in committees:
            if not parties & set(self.party_ids):
                raise ValueError("plain: a committee without any of our party_ids")
        return self

    def plain_committee(self, protocol: str, parties: frozenset[str]) -> PlainCommittee | None:
        """The entry that lists exactly this committee, or None."""
        for entry in self.plain:
            if entry.protocol == protocol and frozenset(entry.parties) == parties:
                return entry
        return None


def read_policy(path: Path, *, trusted: bool = False) -> CustodianPolicy:
    """Read the `[custodian]` table; other tables are tssd's and ignored here.

    Args:
        path: Absolute path of config.toml.
        trusted: The caller vouches for the file (an operator at the terminal, or everything runs as one user): its
            owner and mode are not looked at.

    Raises:
        PolicyRefused: The file can be written by us or by peer_uid, or cannot be read, or its table is wrong.
    """
    try:
        descriptor = os.open(_absolute(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise PolicyRefused(f"{path}: {error}") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        content = file.read(CONFIG_MAX + 1)
    try:
        if len(content) > CONFIG_MAX:
            raise PolicyRefused(f"{path}: more than {CONFIG_MAX} bytes")
        policy = CustodianPolicy.model_validate(tomllib.loads(content.decode())["custodian"])
    except KeyError:
        raise PolicyRefused(f"{path}: no [custodian] table") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PolicyRefused(f"{path}: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in ("custodian", *first["loc"]))
        raise PolicyRefused(f"{path}: {where}: {first['msg']}") from None
    if not trusted:
        _refuse_writable(path, status, {os.geteuid(), policy.peer_uid})
    return policy


def _refuse_writable(path: Path, opened: os.stat_result, uids: set[int | None]) -> None:
    """The file and every directory above it must be out of the reach of uids; the sticky bit protects a directory."""
    places = [(path, opened), *((parent, parent.stat()) for parent in path.resolve(strict=True).parents)]
    for place, status in places:
        shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if status.st_uid in uids:
            raise PolicyRefused(
                f"{place}: belongs to uid {status.st_uid}, which must not be able to write the custodian's policy; "
                "give it to root, or pass --trusted-config where everything runs as one user"
            )
        if shared and not (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX):
            raise PolicyRefused(f"{place}: writable by group or others; chmod go-w")
