"""The audit log: one row for every decision and every use of a share, chained by hash, its head signed now and then.

digest = SHA-256("tssd/1/audit" || 0x00 || previous || number as u64 || then at, actor, action and subject, each as
u32 length || UTF-8), integers big-endian; the first row's previous is 32 zero bytes. A row is written in the
transaction of what it tells of: the one cannot be had without the other.

Whoever can write the store can write a chain that fits; what they cannot do is make the custodian's signature under an
earlier head fit it. So `verify` checks the chain, and that every checkpoint is one of its rows, signed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256

from daemon.custody.wire import Checkpointed
from daemon.events import timestamp
from daemon.values import now

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection

GENESIS: Final = bytes(32)
CHECKPOINT_TAG: Final = b"tssd/1/checkpoint\x00"
CHECKPOINT_VERSION: Final = b"\x01"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """One row. actor: who asked, such as `uid:1000` or `tssd`. subject: public facts."""

    number: int
    at: datetime
    actor: str
    action: str
    subject: dict[str, object]
    previous: bytes
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditVerdict:
    """What a verification found. problem: the first difference; empty where there is none."""

    whole: bool
    rows: int
    checkpoints: int
    last_checkpoint: int
    """Number of the newest row that a checkpoint covers; 0 where there is none."""
    problem: str


def digest_of(previous: bytes, number: int, *texts: str) -> bytes:
    """The digest of a row, as above. texts: at, actor, action, and subject as its JSON text."""
    hashed = hashlib.sha256(b"tssd/1/audit\x00" + previous + number.to_bytes(8, "big"))
    for text in texts:
        octets = text.encode()
        hashed.update(len(octets).to_bytes(4, "big") + octets)
    return hashed.digest()


def head(connection: sqlite3.Connection) -> tuple[int, bytes]:
    """Number and digest of the newest row; (0, zeros) for an empty log."""
    row = connection.execute("SELECT number, digest FROM audit ORDER BY number DESC LIMIT 1").fetchone()
    return (row[0], row[1]) if row else (0, GENESIS)


def append(connection: sqlite3.Connection, actor: str, action: str, subject: dict[str, object]) -> None:
    """Add a row inside the transaction that is open."""
    number, previous = head(connection)
    at, text = timestamp(now()), json.dumps(subject, sort_keys=True, separators=(",", ":"))
    digest = digest_of(previous, number + 1, at, actor, action, text)
    connection.execute(
        "INSERT INTO audit (number, at, actor, action, subject, previous, digest) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (number + 1, at, actor, action, text, previous, digest),
    )


def rows(connection: sqlite3.Connection, after: int, limit: int) -> list[AuditRow]:
    """Rows after a number, oldest first."""
    found = connection.execute(
        "SELECT number, at, actor, action, subject, previous, digest FROM audit"
        " WHERE number > ? ORDER BY number LIMIT ?",
        (after, limit),
    )
    return [
        AuditRow(
            number=number,
            at=datetime.fromisoformat(at),
            actor=actor,
            action=action,
            subject=json.loads(subject),
            previous=previous,
            digest=digest,
        )
        for number, at, actor, action, subject, previous, digest in found
    ]


def newest_checkpoint(connection: sqlite3.Connection) -> Checkpointed | None:
    """The newest signed head; None where nothing was ever signed."""
    signed = _checkpoints(connection)
    return signed[-1] if signed else None


def keep_checkpoint(connection: sqlite3.Connection, checkpoint: Checkpointed) -> None:
    """Store a signed head inside the transaction that is open."""
    connection.execute(
        "INSERT OR REPLACE INTO audit_checkpoints "
        "(audit_count, audit_head, chain_count, chain_head, identity, signature, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            checkpoint.audit_count,
            checkpoint.audit_head,
            checkpoint.chain_count,
            checkpoint.chain_head,
            checkpoint.identity,
            checkpoint.signature,
            timestamp(now()),
        ),
    )


def verify(connection: sqlite3.Connection, identities: Collection[bytes] = ()) -> AuditVerdict:
    """Go over the whole log, from the first row. Reads only; takes seconds per million rows.

    Args:
        connection: To the store.
        identities: Our identity key and those before it; checkpoints by another are refused. None where they are not
            known: then checkpoints are only checked against the key that stands beside them.
    """
    signed = {checkpoint.audit_count: checkpoint for checkpoint in _checkpoints(connection)}
    count, previous, covered, problem = 0, GENESIS, 0, ""
    for number, at, actor, action, subject, before, digest in connection.execute(
        "SELECT number, at, actor, action, subject, previous, digest FROM audit ORDER BY number"
    ):
        if number != count + 1:
            problem = f"row {count + 1} is missing"
        elif before != previous or digest != digest_of(previous, number, at, actor, action, subject):
            problem = f"row {number} is not what was written"
        elif (checkpoint := signed.get(number)) is not None:
            if checkpoint.audit_head != digest:
                problem = f"row {number} is not the one that the custodian signed"
            elif (identities and checkpoint.identity not in identities) or not _holds(checkpoint):
                problem = f"the checkpoint at row {number} does not verify"
            covered = number
        if problem:
            break
        count, previous = number, digest
    if not problem and any(number > count for number in signed):
        problem = f"rows after {count} are missing: a checkpoint covers {max(signed)}"
    return AuditVerdict(
        whole=not problem, rows=count, checkpoints=len(signed), last_checkpoint=covered, problem=problem
    )


def _checkpoints(connection: sqlite3.Connection) -> list[Checkpointed]:
    found = connection.execute(
        "SELECT audit_count, audit_head, chain_count, chain_head, identity, signature FROM audit_checkpoints"
        " ORDER BY audit_count"
    )
    return [
        Checkpointed(
            audit_count=audit_count,
            audit_head=audit_head,
            chain_count=chain_count,
            chain_head=chain_head,
            identity=identity,
            signature=signature,
        )
        for audit_count, audit_head, chain_count, chain_head, identity, signature in found
    ]


def _holds(checkpoint: Checkpointed) -> bool:
    """Whether the identity key signed it: ECDSA P-256 over SHA-256(tag || 0x00 || body), layout in docs/channel.md."""
    body = (
        CHECKPOINT_VERSION
        + checkpoint.audit_count.to_bytes(8, "big")
        + checkpoint.audit_head
        + checkpoint.chain_count.to_bytes(8, "big")
        + checkpoint.chain_head
    )
    half = len(checkpoint.signature) // 2
    r, s = (int.from_bytes(part, "big") for part in (checkpoint.signature[:half], checkpoint.signature[half:]))
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), checkpoint.identity)
        key.verify(utils.encode_dss_signature(r, s), CHECKPOINT_TAG + body, ec.ECDSA(SHA256()))
    except (ValueError, InvalidSignature):
        return False
    return True
