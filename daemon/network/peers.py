"""The pinned peers: kept here as the custodian signed them, believed only by the custodian.

A pin list is one signed whole with a number. tssd can store it, hand it over and show it; it can neither make one nor
change one, and an older one than the custodian has seen is refused behind the wall. Whoever adds, replaces or removes
a pin does so through a custodian on the operator's terminal and leaves the new list in the store (`store_pins`),
whether tssd runs or not: it is read afresh for every ceremony.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.custody import wire
from daemon.shares import audit
from daemon.shares.store import connect, keep_pins

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """Who is pinned. number: of the list, 0 before the first. identity: our own key, empty while the token is away."""

    number: int
    pins: tuple[wire.Pin, ...]
    identity: bytes


def load_pins(database: Path) -> wire.SignedPins | None:
    """The newest list in a store; None before anybody was pinned.

    Raises:
        Refused: The file is another program's database, or a newer tssd's.
    """
    with closing(connect(database)) as connection:
        row = connection.execute("SELECT body, signature FROM peers ORDER BY number DESC LIMIT 1").fetchone()
    return None if row is None else wire.SignedPins(body=row[0], signature=row[1])


def store_pins(database: Path, pins: wire.Pins, actor: str = "operator") -> None:
    """Leave a list in a store that a custodian has just signed, or knows for the newest.

    One with a higher number is of no use then, and goes: it is from before lists were lost, and begun anew.

    Raises:
        Refused: The file is another program's database, or a newer tssd's.
    """
    with closing(connect(database)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM peers WHERE number > ?", (pins.number,))
        keep_pins(connection, pins)
        audit.append(connection, actor, "pins-stored", {"pins": pins.number})
        connection.execute("COMMIT")
