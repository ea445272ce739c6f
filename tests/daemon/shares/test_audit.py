from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.custody.wire import Checkpointed
from daemon.shares import audit, schema
from daemon.shares.store import connect

if TYPE_CHECKING:
    from pathlib import Path

IDENTITY = ec.derive_private_key(7, ec.SECP256R1())


def key_of(private: ec.EllipticCurvePrivateKey) -> bytes:
    return private.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)


def checkpoint(
    connection: sqlite3.Connection, private: ec.EllipticCurvePrivateKey = IDENTITY, *, chain: int = 5
) -> Checkpointed:
    """A head signed as the custodian does, written down from docs/channel.md."""
    count, head = audit.head(connection)
    body = b"\x01" + count.to_bytes(8, "big") + head + chain.to_bytes(8, "big") + b"c" * 32
    r, s = utils.decode_dss_signature(private.sign(b"tssd/1/checkpoint\0" + body, ec.ECDSA(SHA256())))
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return Checkpointed(
        audit_count=count,
        audit_head=head,
        chain_count=chain,
        chain_head=b"c" * 32,
        identity=key_of(private),
        signature=signature,
    )


@pytest.fixture
def log(tmp_path: Path) -> sqlite3.Connection:
    """Nine rows, a checkpoint at the sixth."""
    connection = connect(tmp_path / "tssd.db")
    for number in range(9):
        audit.append(connection, f"uid:{number}", "accepted", {"sessionId": f"s{number}", "n": number})
        if number == 5:
            audit.keep_checkpoint(connection, checkpoint(connection))
    for table in ("audit",):
        for number in (1, 2):
            connection.execute(f"DROP TRIGGER {table}_is_append_only_{number}")  # whoever holds the file can do that
    return connection


def test_a_whole_log(log: sqlite3.Connection) -> None:
    verdict = audit.verify(log, {key_of(IDENTITY)})
    assert verdict == audit.AuditVerdict(whole=True, rows=9, checkpoints=1, last_checkpoint=6, problem="")


def test_an_empty_log(tmp_path: Path) -> None:
    assert audit.verify(connect(tmp_path / "tssd.db")).whole


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit SET actor = 'uid:0' WHERE number = 4",
        "UPDATE audit SET action = 'refused' WHERE number = 4",
        "UPDATE audit SET at = '' WHERE number = 4",
        """UPDATE audit SET subject = '{"sessionId":"s9","n":3}' WHERE number = 4""",
        "UPDATE audit SET digest = zeroblob(32) WHERE number = 4",
        "UPDATE audit SET previous = zeroblob(32) WHERE number = 4",
    ],
)
def test_a_changed_row_is_found(log: sqlite3.Connection, change: str) -> None:
    log.execute(change)
    verdict = audit.verify(log)
    assert not verdict.whole
    assert "row 4 is not what was written" in verdict.problem


@pytest.mark.parametrize(("number", "problem"), [(4, "row 4 is missing"), (1, "row 1 is missing")])
def test_a_row_taken_out_is_found(log: sqlite3.Connection, number: int, problem: str) -> None:
    log.execute("DELETE FROM audit WHERE number = ?", (number,))
    assert problem in audit.verify(log).problem


def test_a_log_cut_before_its_checkpoint_is_found(log: sqlite3.Connection) -> None:
    log.execute("DELETE FROM audit WHERE number > 5")
    assert "rows after 5 are missing" in audit.verify(log).problem


def test_a_chain_written_anew_does_not_fit_the_signed_head(log: sqlite3.Connection) -> None:
    log.execute("DELETE FROM audit")
    for number in range(9):
        audit.append(log, "uid:0", "accepted", {"n": number})
    assert "row 6 is not the one that the custodian signed" in audit.verify(log).problem


def test_a_checkpoint_signed_by_somebody_else(log: sqlite3.Connection) -> None:
    stranger = ec.derive_private_key(8, ec.SECP256R1())
    audit.keep_checkpoint(log, checkpoint(log, stranger))
    assert audit.verify(log).whole  # nobody told us whose it must be
    assert "checkpoint at row 9 does not verify" in audit.verify(log, {key_of(IDENTITY)}).problem
    assert audit.verify(log, {key_of(IDENTITY), key_of(stranger)}).whole  # an identity key of ours before this one


@pytest.mark.parametrize("column", ["audit_head", "chain_count", "chain_head", "signature", "identity"])
def test_a_changed_checkpoint_is_found(log: sqlite3.Connection, column: str) -> None:
    changed = "chain_count = 6" if column == "chain_count" else f"{column} = zeroblob(length({column}))"
    log.execute(f"UPDATE audit_checkpoints SET {changed}")  # noqa: S608  columns of ours
    assert not audit.verify(log).whole


@given(st.lists(st.tuples(st.text(), st.text(), st.dictionaries(st.text(), st.text())), max_size=8))
@settings(max_examples=50)
def test_whatever_is_written_verifies(rows: list[tuple[str, str, dict[str, object]]]) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    schema.bring_up_to_date(connection)
    for actor, action, subject in rows:
        audit.append(connection, printable(actor), printable(action), {printable(k): v for k, v in subject.items()})
    assert audit.verify(connection).rows == len(rows)
    assert audit.verify(connection).whole
    assert [row.actor for row in audit.rows(connection, 0, 100)] == [printable(actor) for actor, _, _ in rows]


def printable(text: str) -> str:
    """Without what SQLite's text cannot hold."""
    return text.encode(errors="replace").decode().replace("\0", "")


def test_fields_do_not_run_into_each_other() -> None:
    parts = [("ab", "c", "d", "e"), ("a", "bc", "d", "e"), ("abc", "", "d", "e"), ("ab", "cd", "", "e")]
    assert len({audit.digest_of(bytes(32), 1, *part) for part in parts}) == len(parts)
    assert audit.digest_of(bytes(32), 1, "a") != audit.digest_of(bytes(32), 2, "a")
