"""`tssctl peers`: the nodes whose identity keys are pinned.

Listing asks tssd; changing goes through a custodian on the operator's terminal, which signs the new list. The list is
then left in the share store, from where tssd takes it for its next ceremony, whether it runs now or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.custody.wire import EditPins, NewestPins, Pins
from daemon.errors import Refused
from daemon.network.peers import load_pins, store_pins

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from daemon.ctl.operator import Operator


async def add(operator: Operator, node: str, identity: bytes, patterns: Sequence[str]) -> Pins:
    """Pin a further node; the list is signed, and is to be stored with `keep`.

    Args:
        operator: An operator's custodian.
        node: Its name, 1 to 64 of `[A-Za-z0-9._-]`.
        identity: Its identity key: P-256, compressed, 33 bytes.
        patterns: The party ids it speaks for, in which only `*` is special.

    Raises:
        Refused, TokenLost: As for `Operator.ask`.
    """
    return await _edit(
        operator, EditPins(pins=None, action="add", node=node, identity=identity, patterns=tuple(patterns))
    )


async def replace(operator: Operator, node: str, identity: bytes, patterns: Sequence[str] = ()) -> Pins:
    """Pin another identity key for a node, and other party ids where some are given. As `add`."""
    if not patterns:
        patterns = next((pin.patterns for pin in (await newest(operator)).pins if pin.node == node), ())
    return await _edit(
        operator, EditPins(pins=None, action="replace", node=node, identity=identity, patterns=tuple(patterns))
    )


async def remove(operator: Operator, node: str) -> Pins:
    """Pin a node no more. As `add`."""
    return await _edit(operator, EditPins(pins=None, action="remove", node=node, identity=None, patterns=()))


async def _edit(operator: Operator, edit: EditPins) -> Pins:
    return await operator.ask(edit, Pins)


async def newest(operator: Operator) -> Pins:
    """The newest list that was signed, which the custodian keeps; number 0 before the first.

    Raises:
        Refused, TokenLost: As for `Operator.ask`.
    """
    return await operator.ask(NewestPins(), Pins)


def keep(database: Path, pins: Pins) -> bool:
    """Leave a signed list in the share store; whether it was not there already.

    Raises:
        Refused: There is no directory for the store, or it cannot be written.
    """
    try:
        if load_pins(database) == pins.signed:
            return False
        store_pins(database, pins)
    except OSError as error:
        raise Refused(f"{database}: {error.strerror}", "the list is signed; `tssctl peers verify` stores it") from None
    return True
