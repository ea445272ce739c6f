"""A ceremony in memory: seats of any make, and the messages between them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class Letter(NamedTuple):
    """One wire message for one receiver or for all."""

    to: int | None
    """Key of the receiver; None for everybody."""
    broadcast: bool
    type: str
    """tss-lib's name of the message; "" where the seat does not tell."""
    payload: bytes


class Seat(Protocol):
    """A party that has started. Its key is tss-lib's PartyID key."""

    @property
    def key(self) -> int:
        """The party's key."""

    def receive(self, sender: int, letter: Letter) -> None:
        """Take one message and do the work that it makes possible."""

    def outgoing(self) -> list[Letter]:
        """Take what the party has sent since the last call."""


class Posted(NamedTuple):
    """A message as it was sent."""

    sender: int
    letter: Letter


def hold(seats: Sequence[Seat]) -> list[Posted]:
    """Carry messages, oldest first, until there are none; returns all that was sent, in order."""
    sent: list[Posted] = []
    post: deque[Posted] = deque()

    def collect(seat: Seat) -> None:
        fresh = [Posted(seat.key, letter) for letter in seat.outgoing()]
        sent.extend(fresh)
        post.extend(fresh)

    for seat in seats:
        collect(seat)
    while post:
        sender, letter = post.popleft()
        for seat in seats:
            if seat.key != sender and letter.to in {None, seat.key}:
                seat.receive(sender, letter)
                collect(seat)
    return sent
