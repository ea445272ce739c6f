"""Recorded pre-parameters in the pools of real daemons, whose own search takes longer than all that they are for."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from daemon.custody import rows as custody_rows
from daemon.custody import state as memory
from daemon.events import timestamp
from daemon.network.peers import load_pins
from daemon.shares import rows
from daemon.values import now
from hsm import Pin, TokenSettings, open_token
from localnet.party import softhsm
from tests.daemon.custody.committee import seal_prepared
from tests.tss_cffi import seeded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.custody.wire import ProtocolName
    from hsm import Token
    from localnet.party import Party


@contextmanager
def opened(party: Party) -> Iterator[Token]:
    """A party's token in this process, as its owner has it with the PIN."""
    directory = party.directory / "token"
    os.environ["SOFTHSM2_CONF"] = str(directory / "softhsm2.conf")
    settings = TokenSettings(module_path=softhsm(), token_label="tssd")  # noqa: S106  a label
    try:
        with open_token(settings, Pin.from_file(directory / "pin"), None) as token:
            yield token
    finally:
        del os.environ["SOFTHSM2_CONF"]


@contextmanager
def database(party: Party) -> Iterator[sqlite3.Connection]:
    """A party's store, beside its daemon; what was written is committed in the end."""
    with closing(sqlite3.connect(party.database, timeout=30)) as connection, connection:
        connection.row_factory = sqlite3.Row
        yield connection


def fill(party: Party, seat: int, sets: int, protocol: ProtocolName = "gg18-v3", first: int = 0) -> None:
    """Put so many sets, all the recorded one of that seat, into a party's pool; the arena must be open."""
    assert load_pins(party.database) is not None, "pinning peers makes the store"
    with opened(party) as token:
        made = [seal_prepared(token, protocol, seat, first + turn) for turn in range(sets)]
    with database(party) as connection:
        for row in made:
            columns = rows.prepared_columns(row) | {"status": "ready", "made_at": timestamp(now())}
            connection.execute(*rows.insert("pre_params", columns))


def forget_moduli(party: Party) -> None:
    """Let the recorded sets serve once more: a store refuses values that a share of its has."""
    with database(party) as connection:
        connection.execute("DELETE FROM fingerprints")


def secrets_of(party: Party, public_key: str) -> dict[str, Any]:
    """What a party's share hides, as tss-lib's LocalPartySaveData; the arena must be open."""
    with database(party) as connection:
        (found,) = connection.execute("SELECT * FROM party_shares WHERE public_key = ?", (public_key,)).fetchall()
    row = rows.share_row(dict(found))
    with opened(party) as token:
        memory = token.open(custody_rows.blob_of(row.sealed), custody_rows.share_header(row), seeded.core.SecretBytes)
    assert isinstance(memory, seeded.core.SecretBytes)
    with memory, seeded.core.Share(memory) as share:
        return seeded.export(share)


def _recorded_uses(party: Party) -> list[memory.Use]:
    content = (party.directory / "custodian" / "chain").read_bytes()
    events = [memory._events.decode(value) for _, value, _ in list(memory._records(content))[1:]]
    return [event for event in events if isinstance(event, memory.Use)]


def uses(party: Party) -> set[bytes]:
    """The sessions for which a party's custodian wrote down that it opens what is sealed."""
    return {use.session for use in _recorded_uses(party)}


def plain_uses(party: Party) -> set[bytes]:
    """Those of them whose messages leave in clear."""
    return {use.session for use in _recorded_uses(party) if use.plain}
